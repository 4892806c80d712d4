"""The worker's settings: what they are, their defaults, and the clear error for each that is wrong.

`read_yaml` reads a document, `validate` makes `Settings` of it; where it comes from is `configuration`'s business.
Sizes are bytes (a number, or text such as `64MiB`), times are seconds, percentages are 0 to 100.
"""

import difflib
import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

_UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Settings that sockets are opened with: they cannot change in a running worker.
FIXED = ("listen", "vxlan_port", "geneve_port", "shards", "health_address", "admin_address", "receive_buffer")
#: Fields that say where a request goes or ends; no destination can do without them.
_FRAMING = frozenset(("host", "content-length", "transfer-encoding"))
#: Fields that the worker sets itself or leaves out (RFC 9110 §7.6.1): none of them can be the mark.
_NO_MARK = _FRAMING | frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer upgrade expect".split()
)
_METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS TRACE CONNECT".split())


class SettingsError(Exception):
    """Settings that cannot be used; the text is one line that names the setting and the remedy."""


def _number(value: object) -> object:
    if isinstance(value, bool):  # also YAML's yes, no, on and off; pydantic takes them for 1 and 0
        raise ValueError("write a number")
    return value


def _bytes(value: object) -> object:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value.strip())
        if match is None or match[2].upper() not in _UNITS:
            raise ValueError("write a number of bytes, or one with KiB, MiB or GiB")
        return int(match[1]) * _UNITS[match[2].upper()]
    return _number(value)


def _optional(value: object) -> object:
    """None for what says so; `off` without quotes is False in YAML."""
    return None if value is False or (isinstance(value, str) and value.lower() in ("none", "off")) else value


def _token(value: str) -> str:
    if _TOKEN.fullmatch(value) is None:
        raise ValueError("write one HTTP token (letters, digits and !#$%&'*+-.^_`|~)")
    return value


def _method(value: str) -> str:
    if value not in _METHODS and value.upper() in _METHODS:
        raise ValueError(f"methods are case-sensitive: write {value.upper()}")
    return value


def _mark(value: str) -> str:
    name = value.lower()
    if name in _NO_MARK or name.startswith("x-forwarded-"):
        raise ValueError("this field has a meaning of its own: write a name that is free, such as X-Traffic-Replay")
    return value


def _shards(value: object) -> object:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if number != "auto" and not (type(number) is int and 1 <= number <= 256):
        raise ValueError("write auto, or a number from 1 to 256")
    return number


def _ip(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("write an IP address, such as 0.0.0.0 or ::") from None
    return value


def _address(value: object) -> object:
    try:
        split_address(str(value))
    except ValueError:
        raise ValueError("write ADDRESS:PORT, such as 0.0.0.0:8080 or [::]:8080") from None
    return value


def split_address(value: str) -> tuple[str, int]:
    """`ADDRESS:PORT` in its two parts. Raises ValueError."""
    parts = urlsplit(f"//{value}")
    if not parts.hostname or parts.port is None or parts.path:
        raise ValueError(value)
    return parts.hostname, parts.port


def host_and_port(url: str) -> tuple[str, int]:
    """Where a destination listens."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


_NUMBER = BeforeValidator(_number)

type Size = Annotated[int, BeforeValidator(_bytes), Field(ge=1)]
type Port = Annotated[int, _NUMBER, Field(ge=1, le=65535)]
type Seconds = Annotated[float, _NUMBER, Field(gt=0, le=86_400)]
type Token = Annotated[str, AfterValidator(_token)]
type Method = Annotated[str, AfterValidator(_token), AfterValidator(_method)]
type Ip = Annotated[str, AfterValidator(_ip)]
type Address = Annotated[str, BeforeValidator(_address)]
type Shards = Annotated[Literal["auto"] | int, BeforeValidator(_shards)]
type Vni = Annotated[int, _NUMBER, Field(ge=0, lt=1 << 24)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Destination(_Model):
    """One test environment that requests are replayed to."""

    url: str = Field(
        description="entry point of the test environment: http:// or https://, with an optional path prefix"
    )
    percentage: Annotated[float, _NUMBER, Field(ge=0, le=100)] = Field(
        100, description="share of the requests to replay, 0 to 100"
    )
    percentage_by: Literal["none", "header", "remoteaddr"] = Field(
        "none", description="what the share is taken of: single requests, values of a header, or client addresses"
    )
    percentage_by_header: Token | None = Field(None, description="the header for `percentage_by: header`")
    methods: tuple[Method, ...] = Field((), description="methods to replay, in capitals; all unless named")
    drop_headers: tuple[Token, ...] = Field((), description="headers to leave out, such as Cookie or Authorization")
    keep_host_header: bool = Field(False, description="send production's Host instead of the destination's")
    tls_verify: bool = Field(True, description="verify the certificate of an https destination")
    connections: Annotated[int, _NUMBER, Field(ge=1, le=10_000)] = Field(
        64, description="connections at most, per shard"
    )
    connect_timeout: Seconds = Field(3.0, description="for one connection, TLS included")
    timeout: Seconds = Field(10.0, description="from sending a request to the end of its answer")
    queue: Annotated[int, _NUMBER, Field(ge=1, le=10_000_000)] = Field(
        10_000, description="requests that may wait, per shard"
    )
    queue_bytes: Size = Field(64 << 20, description="bytes that may wait or be in flight, per shard")
    queue_timeout: Seconds = Field(10.0, description="a request that waited longer is dropped")
    response_limit: Size = Field(64 << 20, description="bytes of an answer that are read at most")

    @field_validator("drop_headers")
    @classmethod
    def _framing_kept(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name.lower() in _FRAMING:
                raise ValueError(f"{name} says where a request goes or ends and cannot be dropped: leave it out here")
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or re.search(r"[^\x21-\x7e]", value):
            raise ValueError("write an address such as http://test.example.com or https://test.example.com:8443/prefix")
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("write it without user name, query or fragment")
        return value

    @model_validator(mode="after")
    def _header_named(self) -> Self:
        if (self.percentage_by == "header") != (self.percentage_by_header is not None):
            raise ValueError("percentage_by: header and percentage_by_header go together: set both or neither")
        return self


class Caps(_Model):
    """The named limits, each per shard; reaching one is counted."""

    flows: Annotated[int, _NUMBER, Field(ge=1)] = Field(
        100_000, description="flows followed; the least recently used leaves"
    )
    tombstones: Annotated[int, _NUMBER, Field(ge=0)] = Field(
        100_000, description="closed flows remembered for late copies"
    )
    tombstone_timeout: Seconds = Field(30.0, description="how long they are remembered")
    head: Size = Field(64 << 10, description="bytes of a request head, and of trailers")
    body: Size = Field(10 << 20, description="bytes of a request body")
    held_per_flow: Size = Field(4 << 20, description="bytes of one flow that wait behind a hole")
    held_total: Size = Field(
        256 << 20, description="bytes of all flows that wait for the rest of a request or behind a hole"
    )
    hole_timeout: Seconds = Field(1.0, description="how long a hole may wait to be filled")
    join_timeout: Seconds = Field(0.1, description="how long earlier segments of a flow joined mid-stream may be late")


class Settings(_Model):
    """Everything that `replayer run` can be told."""

    listen: Ip = Field("0.0.0.0", description="address that mirrored packets are received on")
    vxlan_port: Port = Field(4789, description="UDP port of VXLAN")
    geneve_port: Annotated[Port | None, BeforeValidator(_optional)] = Field(
        None, description="UDP port of GENEVE (6081); none = off"
    )
    vnis: tuple[Vni, ...] = Field((), description="VNIs to accept; all unless named")
    http_ports: tuple[Port, ...] = Field((80,), description="production's HTTP ports; an empty list = any port")
    shards: Shards = Field("auto", description="worker processes; auto = cores")
    destinations: tuple[Destination, ...] = Field((), description="the test environments")
    client_address: Literal["packet", "x-forwarded-for"] = Field(
        "packet",
        description="where `percentage_by: remoteaddr` finds the client: behind a load balancer x-forwarded-for",
    )
    selection_key: str = Field(
        "vpc-traffic-replay", min_length=1, max_length=64, description="key of the selection's hash"
    )
    mark_header: Annotated[Token, AfterValidator(_mark)] = Field(
        "X-Traffic-Replay", description="header that marks a replayed request; one that bears it is passed over"
    )
    caps: Caps = Field(default_factory=Caps)
    health_address: Address = Field("0.0.0.0:8080", description="where /healthz is served")
    admin_address: Address = Field("127.0.0.1:8081", description="where /metrics and /status are served")
    receive_buffer: Size = Field(64 << 20, description="socket buffer wished for, per socket")
    drain_timeout: Annotated[float, _NUMBER, Field(ge=0, le=3600)] = Field(
        10.0, description="how long SIGTERM waits for answers"
    )
    poll_interval: Seconds = Field(30.0, description="how often an SSM parameter is looked at, with jitter")

    @field_validator("destinations")
    @classmethod
    def _distinct(cls, value: tuple[Destination, ...]) -> tuple[Destination, ...]:
        urls = [destination.url for destination in value]
        if len(set(urls)) != len(urls):
            raise ValueError("each url may stand once: merge the entries of the same destination")
        return value


def read_yaml(text: str, source: str) -> dict[str, Any]:
    """The mapping that a YAML document holds, unchecked. Raises SettingsError."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1} " if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise SettingsError(f"{source}: {place}is not YAML: {problem}") from None
    except (ValueError, LookupError, AttributeError, RecursionError) as error:  # PyYAML on `!!bool x` or a month 13
        raise SettingsError(f"{source}: a value is not YAML: {error or type(error).__name__}") from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"{source}: write `setting: value` lines, not a {type(document).__name__}")
    return document


def validate(document: Mapping[str, Any], source: str = "settings", flags: Mapping[str, str] | None = None) -> Settings:
    """The settings in a mapping. Raises SettingsError with the first fault's place, value and remedy.

    `flags` says which places (`caps.flows`) were set by a flag, so that a fault there names the flag (`--cap-flows`).
    """
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        rest = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise SettingsError(f"{_place(fault['loc'], source, flags or {})}: {_fault(fault)}{rest}") from None


def _place(location: tuple[int | str, ...], source: str, flags: Mapping[str, str]) -> str:
    names = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in location]
    for end in range(len(names), 0, -1):
        flag = flags.get("".join(names[:end]).lstrip("."))
        if flag is not None:
            return flag
    return f"{source}: {''.join(names).lstrip('.')}".removesuffix(": ")


#: What to do about a fault of pydantic's, where its own words are of no help to an operator.
_REMEDIES = {
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "float_type": "write a number",
    "float_parsing": "write a number",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "string_type": "write text (a number or date needs quotes)",
    "greater_than": "write more than {gt:.12g}",
    "greater_than_equal": "write at least {ge:.12g}",
    "less_than": "write less than {lt:.12g}",
    "less_than_equal": "write at most {le:.12g}",
    "string_too_short": "write at least {min_length} character(s)",
    "string_too_long": "write at most {max_length} characters",
    "literal_error": "write {expected}",
    "tuple_type": "write a list, also of one: [VALUE]",
    "model_type": "write `setting: value` lines under it",
}


def _fault(fault: Any) -> str:
    kind, value = fault["type"], fault["input"]
    if kind in ("extra_forbidden", "invalid_key"):
        return f"there is no such setting{_similar(fault['loc'])}"
    if kind == "missing":
        return "this setting is required"
    if value is None:
        return "it has no value: write one, or leave the line out"
    remedy = _REMEDIES.get(kind)
    text = remedy.format(**fault.get("ctx", {})) if remedy else fault["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(value, dict | list | tuple | BaseModel) else f"{_short(value)}: "
    return f"{shown}{text[0].lower()}{text[1:]}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]} ..."


def _similar(location: tuple[int | str, ...]) -> str:
    """What a setting that does not exist at its place may be meant to be."""
    name, here = str(location[-1]), "" if len(location) == 1 else f" under {location[0]}"
    models: dict[str, type[BaseModel]] = {"": Settings, " under caps": Caps, " under destinations": Destination}
    places = {field: place for place, model in models.items() for field in model.model_fields}
    if name in places:
        return f" here; {name} belongs{places[name] or ' at the top level'}"
    near = difflib.get_close_matches(name, places, n=1)
    if not near:
        return "; `replayer run --help` lists them"
    return f"; did you mean {near[0]}{'' if places[near[0]] == here else places[near[0]] or ' at the top level'}?"
