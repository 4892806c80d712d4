"""The head of an HTTP/1.x request: what it says (RFC 9112 §3, §5, §6), and whether bytes can be one.

One regular expression checks a whole head, one `split` parts it at the fields that some stage looks at: no Python runs
per header, and what is not changed stays byte for byte.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from replayer.ledger import PassedOver

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_LINE = rb"(" + _TOKEN + rb"++) [^\x00-\x20\x7f]++ HTTP/1\.[0-9]\r\n"
head_at = re.compile(
    rb"(" + _TOKEN + rb"++) ([^\x00-\x20\x7f]++) HTTP/(1\.[0-9])\r\n(?:" + _TOKEN + rb"++:[^\r\n\x00]*+\r\n)*+\r\n"
).match
#: The same but for stray CR, LF and NUL in values, which `receive` looks for in a cheaper way.
whole_head = re.compile(
    rb"(" + _TOKEN + rb"++) ([^\x00-\x20\x7f]++) HTTP/(1\.[0-9])\r\n(?:" + _TOKEN + rb"++:[^\r]*+\r\n)*+\r\n"
).fullmatch
line_at = re.compile(_LINE).match
_begun_line = re.compile(
    _TOKEN + rb"++(?: (?:[^\x00-\x20\x7f]++(?: (?:H(?:T(?:T(?:P(?:/(?:1(?:\.(?:[0-9]\r?)?)?)?)?)?)?)?)?)?)?)?"
).fullmatch
_absolute = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://[^/?#]").match
_authority = re.compile(rb"[^/?#]+:[0-9]+").fullmatch
_host = re.compile(
    rb"[ \t]*(?:[A-Za-z0-9\-._~%!$&'()*+,;=]*|\[[0-9A-Za-z:.%\-_~!$&'()*+,;=]+\])(?::[0-9]*)?[ \t]*"
).fullmatch
_field_lines = re.compile(rb"([^\r\n:]+):[ \t]*([^\r\n]*?)[ \t]*\r\n").findall

#: What is longer is in no cache: a host name has 253 characters at most.
LONGEST_NAME = 255

#: Fields that decide how a request is framed.
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"upgrade"))


@dataclass(slots=True)
class Request:
    """One framed request.

    `head` is the request line to the blank line as it came; `parts` is `head` split at the fields that `Rules` names:
    text, name, value, text, name, value, … text; `names` are those names in lower case. `body` is decoded when
    `chunked`. `size` counts its payload bytes.
    """

    method: bytes
    target: bytes
    version: bytes
    head: bytes
    parts: list[bytes]
    names: list[bytes]
    key: bytes
    offset: int
    at: float
    size: int
    body: bytes | bytearray = b""
    chunked: bool = False
    trailers: bytes = b""


def fields(request: Request) -> list[tuple[bytes, bytes]]:
    """The header fields in order, names in their case."""
    return [(name, value) for name, value in _field_lines(request.head, request.head.index(b"\r\n") + 2)]


def splitter(names: Iterable[bytes]) -> re.Pattern[bytes]:
    """A pattern whose `split` parts a valid head at the named fields (lower case), fast by their first letters."""
    rests: dict[bytes, list[bytes]] = {}
    for name in sorted(names):
        rests.setdefault(name[:1], []).append(re.escape(name[1:]))
    letters = {first: re.escape(first.upper()) + re.escape(first) for first in rests}
    branches = b"|".join(b"[%b](?i:%b)" % (letters[first], b"|".join(rest)) for first, rest in rests.items())
    return re.compile(rb"\r\n(?=[%b])(%b):([^\r]*+)" % (b"".join(letters.values()), branches))


CHUNKED, BAD = -1, -2


def body_length(request: Request) -> int:
    """The body's length in bytes, CHUNKED, or BAD where a server must refuse (RFC 9112 §3.2, §6.1, §6.3)."""
    lengths: list[bytes] = []
    codings: list[bytes] = []
    for name, value in zip(request.names, request.parts[2::3], strict=True):
        if name == b"content-length":
            lengths += value.split(b",")
        elif name == b"transfer-encoding":
            codings += value.split(b",")
    host = field_value(request, b"host")
    if request.names.count(b"host") > 1 or not _valid_target(request):
        return BAD
    if request.version != b"1.0" if host is None else not valid_host(host):
        return BAD
    if codings:
        names = [coding.strip(b" \t").lower() for coding in codings]
        sound = not lengths and request.version != b"1.0" and names[-1] == b"chunked" and names.count(b"chunked") == 1
        return CHUNKED if sound else BAD
    if not lengths:
        return 0
    numbers = {number.strip(b" \t") for number in lengths}
    number = numbers.pop()
    return int(number) if not numbers and number.isdigit() and len(number) <= 15 else BAD


def _valid_target(request: Request) -> bool:
    """RFC 9112 §3.2: origin-form, absolute-form, authority-form for CONNECT, asterisk-form for OPTIONS."""
    target = request.target
    if request.method == b"CONNECT":
        return _authority(target) is not None
    return target[0] == 0x2F or _absolute(target) is not None or (target == b"*" and request.method == b"OPTIONS")


def valid_host(value: bytes) -> bool:
    """RFC 9110 §7.2: `uri-host [":" port]`, or nothing."""
    return _valid_name(value) if len(value) <= LONGEST_NAME else _host(value) is not None


@lru_cache(maxsize=1024)
def _valid_name(value: bytes) -> bool:
    return _host(value) is not None


def upgrades(request: Request) -> bool:
    """Whether the connection may speak another protocol from here on (RFC 9110 §7.8).

    An offer of h2c shows at once if it is taken: HTTP/2 begins with a preface. HTTP/1.0 cannot upgrade.
    """
    if request.version == b"1.0":
        return False
    options: list[bytes] = []
    offers = False
    for name, value in zip(request.names, request.parts[2::3], strict=True):
        if name == b"connection":
            options += value.lower().split(b",")
        elif name == b"upgrade":
            offers = offers or value.strip(b" \t").lower() != b"h2c"
    return offers and any(option.strip(b" \t") == b"upgrade" for option in options)


def field_value(request: Request, name: bytes) -> bytes | None:
    """The value of the first field of that name (lower case), which must be one that the rules name."""
    if name not in request.names:
        return None
    return request.parts[3 * request.names.index(name) + 2].strip(b" \t")


def begins_request(buffer: bytearray, blank: int) -> bool:
    """Whether an incomplete head can still become a valid one, as far as its request line."""
    end = buffer.find(b"\n", blank) + 1
    if end:
        return line_at(buffer, blank) is not None
    return len(buffer) == blank or buffer[blank:] == b"\r" or _begun_line(buffer, blank) is not None


def line_like(begin: bytes) -> bool:
    """Whether bytes that are no valid request seem to mean to be one."""
    return b" HTTP/1." in begin[:8192].split(b"\n", 1)[0] or _begun_line(begin.split(b"\n", 1)[0]) is not None


def other_protocol(begin: bytes) -> PassedOver | None:
    """The protocol that a stream's bytes show, if it is a known other one."""
    if begin.startswith((b"PRI * HTTP/2", b"PRI * HTTP/2.0\r\n")):
        return PassedOver.HTTP2
    if len(begin) >= 3 and 0x14 <= begin[0] <= 0x18 and begin[1] == 3 and begin[2] <= 4:
        return PassedOver.TLS
    if begin[:1] == b"\x16":
        return PassedOver.TLS
    return None
