"""Settings: defaults, units, and the one clear line for whatever is wrong."""

import pytest
from pydantic import BaseModel

from replayer.settings import (
    Caps,
    Destination,
    Settings,
    SettingsError,
    host_and_port,
    read_yaml,
    split_address,
    validate,
)


def parse(text: str) -> Settings:
    return validate(read_yaml(text, "f.yaml"), "f.yaml")


def fault(text: str) -> str:
    """The error that a document gives."""
    with pytest.raises(SettingsError) as raised:
        parse(text)
    return str(raised.value)


def test_an_empty_document_gives_the_defaults() -> None:
    settings = parse("")
    assert settings == Settings()
    assert (settings.vxlan_port, settings.geneve_port, settings.http_ports, settings.shards) == (
        4789,
        None,
        (80,),
        "auto",
    )
    assert settings.caps.body == 10 << 20
    assert settings.health_address == "0.0.0.0:8080"
    assert settings.admin_address == "127.0.0.1:8081"


def test_a_full_document() -> None:
    settings = parse("""
        listen: "::"
        geneve_port: 6081
        vnis: [1, 16777215]
        http_ports: []
        shards: 4
        receive_buffer: 8 MiB
        caps: {body: 1GiB, held_total: 1000kb}
        health_address: "[::]:9000"
        destinations:
          - url: https://test.example.com:8443/prefix
            percentage: 12.5
            percentage_by: header
            percentage_by_header: X-Session
            methods: [GET, QUERY]
            drop_headers: [Cookie]
          - {url: http://other.example.com, tls_verify: false}
    """)
    assert (settings.listen, settings.vnis, settings.http_ports, settings.shards) == ("::", (1, 16777215), (), 4)
    assert (settings.receive_buffer, settings.caps.body, settings.caps.held_total) == (8 << 20, 1 << 30, 1_000_000)
    assert settings.destinations[0].methods == ("GET", "QUERY")
    assert settings.destinations[0].percentage == 12.5
    assert not settings.destinations[1].tls_verify


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().vxlan_port = 1  # type: ignore[misc]


@pytest.mark.parametrize("model", [Settings, Caps, Destination])
def test_every_setting_is_described(model: type[BaseModel]) -> None:
    assert all(field.description or name == "caps" for name, field in model.model_fields.items())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("shards: x", "f.yaml: shards: 'x': write auto, or a number from 1 to 256"),
        ("shards: 0", "f.yaml: shards: 0: write auto, or a number from 1 to 256"),
        ("shards: true", "f.yaml: shards: True: write auto, or a number from 1 to 256"),
        ("vnis: 5", "f.yaml: vnis: 5: write a list, also of one: [VALUE]"),
        ("http_ports: 80", "f.yaml: http_ports: 80: write a list, also of one: [VALUE]"),
        ("vnis: [1, x]", "f.yaml: vnis[1]: 'x': write a whole number"),
        ("vnis: [16777216]", "f.yaml: vnis[0]: 16777216: write less than 16777216"),
        ("vxlan_port: 65536", "f.yaml: vxlan_port: 65536: write at most 65535"),
        ("geneve_port: 0", "f.yaml: geneve_port: 0: write at least 1"),
        ("listen: eth0", "f.yaml: listen: 'eth0': write an IP address, such as 0.0.0.0 or ::"),
        ("health_address: 8080", "f.yaml: health_address: 8080: write ADDRESS:PORT, such as 0.0.0.0:8080 or [::]:8080"),
        (
            "admin_address: a:70000",
            "f.yaml: admin_address: 'a:70000': write ADDRESS:PORT, such as 0.0.0.0:8080 or [::]:8080",
        ),
        (
            "receive_buffer: 64 mebi",
            "f.yaml: receive_buffer: '64 mebi': write a number of bytes, or one with KiB, MiB or GiB",
        ),
        ("receive_buffer: 0", "f.yaml: receive_buffer: 0: write at least 1"),
        ("drain_timeout: .nan", "f.yaml: drain_timeout: nan: write a finite number"),
        ("poll_interval: 0", "f.yaml: poll_interval: 0: write more than 0"),
        ("client_address: x", "f.yaml: client_address: 'x': write 'packet' or 'x-forwarded-for'"),
        ("selection_key: ''", "f.yaml: selection_key: '': write at least 1 character(s)"),
        ("mark_header: 7", "f.yaml: mark_header: 7: write text (a number or date needs quotes)"),
        (
            "mark_header: 'X: Y'",
            "f.yaml: mark_header: 'X: Y': write one HTTP token (letters, digits and !#$%&'*+-.^_`|~)",
        ),
        ("caps:", "f.yaml: caps: it has no value: write one, or leave the line out"),
        ("caps: 5", "f.yaml: caps: 5: write `setting: value` lines under it"),
        ("caps: {flows: many}", "f.yaml: caps.flows: 'many': write a whole number"),
        ("vxlan_port: true", "f.yaml: vxlan_port: True: write a number"),
        ("geneve_port: on", "f.yaml: geneve_port: True: write a number"),
        ("vnis: [false]", "f.yaml: vnis[0]: False: write a number"),
        ("receive_buffer: yes", "f.yaml: receive_buffer: True: write a number"),
        ("poll_interval: true", "f.yaml: poll_interval: True: write a number"),
        ("drain_timeout: true", "f.yaml: drain_timeout: True: write a number"),
        ("caps: {flows: true}", "f.yaml: caps.flows: True: write a number"),
        ("caps: {tombstones: true}", "f.yaml: caps.tombstones: True: write a number"),
        (
            "destinations: [{url: http://a, percentage: true}]",
            "f.yaml: destinations[0].percentage: True: write a number",
        ),
        (
            "destinations: [{url: http://a, connections: true}]",
            "f.yaml: destinations[0].connections: True: write a number",
        ),
        ("destinations: [{url: http://a, queue: true}]", "f.yaml: destinations[0].queue: True: write a number"),
        (
            "destinations: [{url: http://a, methods: [GET, post]}]",
            "f.yaml: destinations[0].methods[1]: 'post': methods are case-sensitive: write POST",
        ),
        ("timeout: 1", "f.yaml: timeout: there is no such setting here; timeout belongs under destinations"),
        ("body: 1", "f.yaml: body: there is no such setting here; body belongs under caps"),
        ("caps: {vnis: []}", "f.yaml: caps.vnis: there is no such setting here; vnis belongs at the top level"),
        ("tymeout: 1", "f.yaml: tymeout: there is no such setting; did you mean timeout under destinations?"),
        (
            "destinations: [{url: http://a, tymeout: 1}]",
            "f.yaml: destinations[0].tymeout: there is no such setting; did you mean timeout?",
        ),
        ("caps: {boddy: 5}", "f.yaml: caps.boddy: there is no such setting; did you mean body?"),
        ("vxlan_prt: 1", "f.yaml: vxlan_prt: there is no such setting; did you mean vxlan_port?"),
        ("zzz: 1", "f.yaml: zzz: there is no such setting; `replayer run --help` lists them"),
        ("destinations: [http://a]", "f.yaml: destinations[0]: 'http://a': write `setting: value` lines under it"),
        ("destinations: {url: http://a}", "f.yaml: destinations: write a list, also of one: [VALUE]"),
        ("destinations: [{}]", "f.yaml: destinations[0].url: this setting is required"),
        (
            "destinations: [{url: http://a, percentage: 101}]",
            "f.yaml: destinations[0].percentage: 101: write at most 100",
        ),
        (
            "destinations: [{url: http://a, tls_verify: maybe}]",
            "f.yaml: destinations[0].tls_verify: 'maybe': write true or false",
        ),
        (
            "destinations: [{url: http://a, percentage_by: header}]",
            "f.yaml: destinations[0]: percentage_by: header and percentage_by_header go together: set both or neither",
        ),
        (
            "destinations: [{url: http://a}, {url: http://a}]",
            "f.yaml: destinations: each url may stand once: merge the entries of the same destination",
        ),
        ("{vxlan_port: 0, shards: 0}", "f.yaml: vxlan_port: 0: write at least 1 (and 1 more)"),
        ("[1, 2]", "f.yaml: write `setting: value` lines, not a list"),
        ("vnis: [1", "f.yaml: line 1, column 9 is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "f.yaml: line 1, column 5 is not YAML: mapping values are not allowed here"),
        ("a: 2024-13-45", "f.yaml: a value is not YAML: month must be in 1..12"),
    ],
)
def test_a_fault_is_one_line_with_place_and_remedy(text: str, error: str) -> None:
    assert fault(text) == error


@pytest.mark.parametrize(
    "url",
    [
        "test.example.com",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://a:0",
        "http://a b",
        "http://ä",
        "http://a\tb",
        "http://[::",
    ],
)
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(SettingsError, match="write an address such as http://test.example.com"):
        validate({"destinations": [{"url": url}]})


@pytest.mark.parametrize("url", ["http://user@a", "http://@a/", "http://:pw@a", "http://a?b=c", "http://a#b"])
def test_a_url_with_more_than_a_prefix(url: str) -> None:
    with pytest.raises(SettingsError, match="write it without user name, query or fragment"):
        validate({"destinations": [{"url": url}]})


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "TE",
            "Trailer",
        ),
        *("Proxy-Authorization", "Proxy-Authenticate", "Upgrade", "Expect", "X-Forwarded-For", "x-forwarded-host"),
    ],
)
def test_the_mark_is_no_field_with_a_meaning_of_its_own(name: str) -> None:
    assert fault(f"mark_header: {name}") == (
        f"f.yaml: mark_header: {name!r}: this field has a meaning of its own:"
        " write a name that is free, such as X-Traffic-Replay"
    )


@pytest.mark.parametrize("text", ["", "null", "none", "None", "off", "'off'"])
def test_geneve_is_off_in_many_words(text: str) -> None:
    assert parse(f"geneve_port: {text}").geneve_port is None


def test_numbers_may_be_text() -> None:
    settings = parse("{vxlan_port: '8080', caps: {hole_timeout: '0.5'}}")
    assert (settings.vxlan_port, settings.caps.hole_timeout) == (8080, 0.5)


def test_methods_of_ones_own_may_be_of_any_case() -> None:
    [destination] = parse("destinations: [{url: http://a, methods: [purge, GET]}]").destinations
    assert destination.methods == ("purge", "GET")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://a", ("a", 80)),
        ("https://a/b", ("a", 443)),
        ("https://a:8443", ("a", 8443)),
        ("http://[::1]:81", ("::1", 81)),
    ],
)
def test_where_a_destination_listens(url: str, place: tuple[str, int]) -> None:
    assert host_and_port(url) == place


def test_a_long_value_is_shortened() -> None:
    assert len(fault(f"listen: {'x' * 5000}")) < 150


@pytest.mark.parametrize("text", ["[" * 1500, "!!bool x", "!!int ''", "!!timestamp x", "? {}", "\x00", "=", "&a [*a]"])
def test_strange_yaml_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(SettingsError):
        parse(text)


def test_a_fault_of_a_flag_names_the_flag() -> None:
    with pytest.raises(SettingsError) as raised:
        validate({"caps": {"flows": "x"}}, "f.yaml", {"caps.flows": "--cap-flows"})
    assert str(raised.value) == "--cap-flows: 'x': write a whole number"
    with pytest.raises(SettingsError) as raised:
        validate({"vnis": ["1", "x"]}, "f.yaml", {"vnis": "--vnis"})
    assert str(raised.value) == "--vnis: 'x': write a whole number"


def test_read_yaml_checks_no_setting() -> None:
    assert read_yaml("a: 1", "f.yaml") == {"a": 1}


def test_split_address() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("0.0.0.0:8080") == ("0.0.0.0", 8080)
    with pytest.raises(ValueError, match="8080"):
        split_address("8080")
