"""Rewriting, read back by parsers that share nothing with it: the standard library's and a few lines here."""

import io
from dataclasses import dataclass
from http.client import HTTPResponse, parse_headers
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer.pipeline import Route
from replayer.rewrite import Outgoing
from replayer.settings import Destination
from tests.strategies import (
    Conversation,
    Exchange,
    Station,
    chunk,
    chunked,
    chunked_head,
    examples,
    exchanges,
    get,
    plain_payloads,
    post,
)

MARK = "X-Traffic-Replay"
ADDED = {"host", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-forwarded-host", MARK.lower()}


def outgoing(
    wire: bytes, url: str = "http://test.example", path: dict[str, Any] | None = None, **options: Any
) -> Outgoing:
    """How one request goes to a destination."""
    mark = options.pop("mark_header", MARK)
    there = Destination(url=url, **options)
    station = Station(destinations=(there,), mark_header=mark)
    client = Conversation(**(path or {}))
    (request,) = station.feed(client.syn(), client.send(wire))
    out = Route(station.settings, there, station.ledger.destination(url)).outgoing(request)
    assert out is not None
    return out


@dataclass
class Read:
    """A request as an independent parser reads it."""

    line: str
    fields: list[tuple[str, str]]
    lines: list[bytes]
    body: bytes

    def values(self, name: str) -> list[str]:
        """The values of a field, one for each line."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def value(self, name: str) -> str:
        """The value of a field that must stand there once."""
        (value,) = self.values(name)
        return value


class Answer(io.BytesIO):
    """A socket that holds one message."""

    def makefile(self, *_: Any) -> "Answer":
        """Itself: it is a file already."""
        return self

    def close(self) -> None:
        """Stay open: what was not read is of interest."""


def read(out: Outgoing) -> Read:
    """Parse what would go over the wire; nothing may be left over behind the body."""
    wire = out.head + bytes(out.body)
    head, blank, rest = wire.partition(b"\r\n\r\n")
    assert blank
    assert out.head == head + blank
    line, *lines = head.split(b"\r\n")
    message = parse_headers(io.BytesIO(b"\r\n".join(lines) + b"\r\n\r\n"))
    fields = [(name, value.strip(" \t")) for name, value in message.items()]
    assert len(fields) == len(lines)
    framing = [
        (name.lower(), value) for name, value in fields if name.lower() in ("content-length", "transfer-encoding")
    ]
    if not framing:
        assert rest == b""
        return Read(line.decode("latin-1"), fields, lines, b"")
    ((name, value),) = framing
    coding = f"{name}: {value.rpartition(',')[2].strip() if name[0] == 't' else value}"
    source = Answer(b"HTTP/1.1 200 OK\r\n" + coding.encode() + b"\r\n\r\n" + rest)
    response = HTTPResponse(source)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    assert source.read() == b""
    return Read(line.decode("latin-1"), fields, lines, body)


# Each rule


def test_host_is_the_destinations() -> None:
    assert read(outgoing(get("/1"))).value("Host") == "test.example"
    assert read(outgoing(get("/1"), "https://test.example:8443/p")).value("Host") == "test.example:8443"
    assert read(outgoing(get("/1"), "http://[fd00::1]:81")).value("Host") == "[fd00::1]:81"


@pytest.mark.parametrize("line", [b"Host: shop.example", b"host:shop.example:8080", b"HOST: \tshop.example "])
def test_host_is_kept_if_told_so(line: bytes) -> None:
    out = read(outgoing(b"GET / HTTP/1.1\r\n" + line + b"\r\n\r\n", keep_host_header=True))
    assert out.value("Host") == line.split(b":", 1)[1].strip().decode()


def test_a_request_without_host_gets_one() -> None:
    """HTTP/1.0 has none; what is sent is HTTP/1.1, which must."""
    for keep in (False, True):
        out = read(outgoing(b"GET / HTTP/1.0\r\nX-A: b\r\n\r\n", keep_host_header=keep))
        assert out.line == "GET / HTTP/1.1"
        assert out.value("Host") == "test.example"
        assert out.values("X-Forwarded-Host") in ([], [""])


def test_the_client_becomes_x_forwarded_for() -> None:
    assert read(outgoing(get("/1"))).value("X-Forwarded-For") == "10.0.0.1"
    six = {"client": "fd00::1", "server": "fd00::2"}
    assert read(outgoing(get("/1"), path=six)).value("X-Forwarded-For") == "fd00::1"


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (b"X-Forwarded-For: 192.0.2.1\r\n", "192.0.2.1, 10.0.0.1"),
        (b"x-forwarded-for:192.0.2.1,192.0.2.2\r\n", "192.0.2.1,192.0.2.2, 10.0.0.1"),
        (b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n", "192.0.2.1, 192.0.2.2, 10.0.0.1"),
        (b"X-Forwarded-For:\r\n", "10.0.0.1"),
        (b"X-FORWARDED-FOR: 192.0.2.1 \t\r\n", "192.0.2.1, 10.0.0.1"),
    ],
)
def test_the_client_is_appended_to_x_forwarded_for(lines: bytes, wanted: str) -> None:
    out = read(outgoing(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n"))
    assert ", ".join(out.values("X-Forwarded-For")) == wanted


def test_the_other_forwarding_fields_are_set_if_absent() -> None:
    out = read(outgoing(get("/1", host="shop.example:8080"), path={"server_port": 80}))
    assert out.value("X-Forwarded-Port") == "80"
    assert out.value("X-Forwarded-Proto") == "http"
    assert out.value("X-Forwarded-Host") == "shop.example:8080"


def test_the_other_forwarding_fields_are_kept_if_present() -> None:
    lines = b"x-forwarded-port: 443\r\nX-FORWARDED-PROTO: https\r\nX-Forwarded-Host: first\r\n"
    out = read(outgoing(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n"))
    assert out.value("X-Forwarded-Port") == "443"
    assert out.value("X-Forwarded-Proto") == "https"
    assert out.value("X-Forwarded-Host") == "first"
    assert out.value("X-Forwarded-For") == "10.0.0.1"


@pytest.mark.parametrize(
    "name", ["Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "Expect", "connection", "EXPECT", "te"]
)
def test_hop_by_hop_fields_and_expect_are_dropped(name: str) -> None:
    """RFC 9110 §7.6.1. An upgrade is not sent at all; an offer of h2c is."""
    value = "h2c" if name == "Upgrade" else "100-continue" if name.lower() == "expect" else "close"
    out = read(outgoing(f"GET / HTTP/1.1\r\nX-A: 1\r\n{name}: {value}\r\nHost: h\r\nX-B: 2\r\n\r\n".encode()))
    assert out.values(name) == []
    assert (out.value("X-A"), out.value("X-B")) == ("1", "2")


def test_fields_that_connection_nominates_are_dropped() -> None:
    lines = b"X-Hop: 1\r\nConnection: close, x-hop\r\nConnection: X-Two\r\nx-TWO: 2\r\nX-Three: 3\r\n"
    out = read(outgoing(b"GET / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n"))
    assert out.values("X-Hop") == out.values("X-Two") == out.values("Connection") == []
    assert out.value("X-Three") == "3"


@pytest.mark.parametrize("name", ["Host", "Content-Length", "X-Traffic-Replay", "X-Forwarded-For", "close", ""])
def test_connection_cannot_nominate_away_what_the_replay_needs(name: str) -> None:
    out = read(outgoing(f"POST / HTTP/1.1\r\nHost: h\r\nConnection: {name}\r\nContent-Length: 4\r\n\r\nbody".encode()))
    assert out.value("Host") == "test.example"
    assert out.value("Content-Length") == "4"
    assert out.values(MARK)
    assert out.value("X-Forwarded-For") == "10.0.0.1"
    assert out.body == b"body"


def test_connection_cannot_nominate_away_the_chunked_coding() -> None:
    head = b"POST / HTTP/1.1\r\nHost: h\r\nConnection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n"
    out = read(outgoing(head + chunk(b"body") + b"0\r\n\r\n"))
    assert out.body == b"body"


def test_drop_headers() -> None:
    head = (
        b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a\r\nX-Cookie: b\r\nCOOKIE: c\r\nAuthorization: d\r\nCookies: e\r\n\r\n"
    )
    out = read(outgoing(head, drop_headers=("cookie", "Authorization")))
    assert out.values("Cookie") == out.values("Authorization") == []
    assert (out.value("X-Cookie"), out.value("Cookies")) == ("b", "e")
    assert b"Cookie" in outgoing(head).head


@pytest.mark.parametrize("make", [post, chunked])
def test_drop_headers_cannot_break_the_framing(make: Any) -> None:
    """A body without its length would be read as the next request of a keep-alive connection."""
    try:
        out = outgoing(
            make("/1", b"GET /smuggled HTTP/1.1\r\n\r\n"), drop_headers=("Content-Length", "Transfer-Encoding")
        )
    except ValueError:
        return  # refused in the settings
    assert read(out).body == b"GET /smuggled HTTP/1.1\r\n\r\n"


def test_the_mark_is_added() -> None:
    assert len(read(outgoing(get("/1"))).values(MARK)) == 1
    assert len(read(outgoing(get("/1"), mark_header="X-Own-Mark")).values("x-own-mark")) == 1


@pytest.mark.parametrize(
    ("url", "target", "wanted"),
    [
        ("http://test.example", "/", "/"),
        ("http://test.example/", "/a?b=c", "/a?b=c"),
        ("http://test.example/prefix", "/", "/prefix/"),
        ("http://test.example/prefix", "/a/b?c=d", "/prefix/a/b?c=d"),
        ("http://test.example/prefix/", "/a", "/prefix/a"),
        ("http://test.example/one/two", "//a", "/one/two//a"),
        ("http://test.example", "//a", "//a"),
        ("http://test.example/prefix", "http://shop.example/a?b", "/prefix/a?b"),
        ("http://test.example/prefix", "http://shop.example", "/prefix/"),
        ("http://test.example", "HTTP://shop.example:80?q=1", "/?q=1"),
        ("http://test.example", "http://shop.example/http://x/", "/http://x/"),
        ("http://test.example", "/%2e%2e/é".encode().decode("latin-1"), None),
    ],
)
def test_the_path_prefix_is_joined(url: str, target: str, wanted: str | None) -> None:
    out = read(outgoing(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode("latin-1"), url))
    assert out.line == f"GET {target if wanted is None else wanted} HTTP/1.1"


@pytest.mark.parametrize("url", ["http://test.example", "http://test.example/prefix"])
def test_the_asterisk_stays(url: str) -> None:
    assert read(outgoing(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", url)).line == "OPTIONS * HTTP/1.1"


def test_absolute_form_names_the_host() -> None:
    """RFC 9112 §3.2.2: it counts, not the Host field."""
    out = read(outgoing(b"GET http://shop.example:81/a HTTP/1.1\r\nHost: other\r\n\r\n", keep_host_header=True))
    assert out.line == "GET /a HTTP/1.1"
    assert out.value("Host") == "shop.example:81"
    assert out.value("X-Forwarded-Host") == "shop.example:81"


def test_absolute_form_leaves_user_names_out() -> None:
    out = read(outgoing(b"GET http://user:secret@shop.example/a HTTP/1.1\r\nHost: h\r\n\r\n", keep_host_header=True))
    assert (out.value("Host"), out.value("X-Forwarded-Host")) == ("shop.example", "shop.example")


def test_absolute_form_of_the_server_itself_is_the_asterisk() -> None:
    """RFC 9112 §3.2.4."""
    head = outgoing(b"OPTIONS http://shop.example:8001 HTTP/1.1\r\nHost: h\r\n\r\n", url="http://t.example/p").head
    assert head.startswith(b"OPTIONS * HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "lines", [b"Content-Length: 4\r\nContent-Length: 4", b"Content-Length: 4, 4", b"content-length: 4,4 "]
)
def test_a_length_said_twice_is_sent_once(lines: bytes) -> None:
    out = read(outgoing(b"POST / HTTP/1.1\r\nHost: h\r\n" + lines + b"\r\n\r\nbody"))
    assert [value.strip() for value in out.values("Content-Length")] == ["4"]
    assert out.body == b"body"


def test_forwarding_fields_that_are_to_be_dropped_are_not_added() -> None:
    out = read(outgoing(get("/1"), drop_headers=("X-Forwarded-For", "x-forwarded-host")))
    assert out.values("X-Forwarded-For") == out.values("X-Forwarded-Host") == []
    assert out.value("X-Forwarded-Proto") == "http"


def test_a_body_of_known_length_is_the_same() -> None:
    body = bytes(range(256)) * 5
    out = outgoing(post("/1", body))
    assert bytes(out.body) == body
    assert read(out).body == body


@pytest.mark.parametrize("pieces", [(), (b"one",), (b"one", b"two" * 100), (b"0\r\n\r\n",), (bytes(70_000),)])
@pytest.mark.parametrize("trailers", [b"", b"X-Sum: 1\r\n", b"X-Sum: 1\r\nx-other:\r\n"])
def test_a_chunked_body_is_sent_on_chunked(pieces: tuple[bytes, ...], trailers: bytes) -> None:
    coded = b"".join(chunk(piece, b";ext") for piece in pieces) + b"0\r\n" + trailers + b"\r\n"
    station_wire = chunked_head("/1") + coded
    there = Destination(url="http://test.example")
    station = Station(destinations=(there,))
    client = Conversation()
    (request,) = station.feed(client.syn(), *client.full(station_wire, 9_000))
    out = Route(station.settings, there, station.ledger.destination(there.url)).outgoing(request)
    assert out is not None
    wire = read(out)
    assert wire.body == b"".join(pieces)
    assert wire.values("Transfer-Encoding") == ["chunked"]
    assert wire.values("Content-Length") == []
    assert bytes(out.body).endswith(b"0\r\n" + trailers + b"\r\n")


def test_other_codings_before_chunked_stay() -> None:
    out = read(outgoing(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nzz\r\n0\r\n\r\n"))
    assert out.value("Transfer-Encoding") == "gzip, chunked"


def test_trailers_that_are_dropped_as_headers_are_dropped_as_trailers() -> None:
    wire = chunked_head("/1") + chunk(b"body") + b"0\r\nCookie: secret\r\nX-Sum: 1\r\n\r\n"
    out = outgoing(wire, drop_headers=("Cookie",))
    assert b"secret" not in bytes(out.body)
    assert b"X-Sum: 1\r\n" in bytes(out.body)


def test_all_else_stays_byte_for_byte() -> None:
    """Order, case and spaces of the fields; odd but valid ones too."""
    lines = [
        b"X-A:no space", b"x-b:   many\tspaces  ", b"X-Empty:", b"X-Caf\x27: caf\xe9", b"Accept: */*", b"accept: again",
        b"User-Agent: odd  (agent)", b"Content-Type:text/plain", b"Trailer: X-Sum", b"Cookie: a=b; c=d", b"Hosts: none",
        b"X-Forwarded: for=1", b"Via: 1.1 a", b"Range: bytes=0-1", b"If-None-Match: \"x\"", b"Teapot: 1",
        b"Expected: 2",
    ]  # fmt: skip
    out = read(outgoing(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"))
    assert [line for line in out.lines if line.split(b":")[0].decode("latin-1").lower() not in ADDED] == lines


@pytest.mark.parametrize(
    "line", [b"Content-Length:4", b"content-length: \t4 ", b"X-Forwarded-Proto:https", b"X-Forwarded-Port:  8 \t"]
)
def test_fields_that_are_looked_at_and_not_changed_stay_byte_for_byte(line: bytes) -> None:
    length = b"" if b"ength" in line else b"Content-Length: 4\r\n"
    out = read(outgoing(b"POST / HTTP/1.1\r\nHost: h\r\n" + length + line + b"\r\n\r\nbody"))
    assert line in out.lines


@examples(100)
@given(exchanges(most=3, payload=plain_payloads), st.booleans(), st.sampled_from(["", "/prefix", "/pre/fix/"]))
def test_any_request_keeps_its_meaning(exchange: Exchange, keep_host: bool, prefix: str) -> None:
    there = Destination(url=f"http://test.example{prefix}", keep_host_header=keep_host)
    station = Station(destinations=(there,))
    client = Conversation()
    station.feed(client.syn(), client.send(exchange.stream))
    route = Route(station.settings, there, station.ledger.destination(there.url))
    assert len(station.requests) == len(exchange.requests)
    for request, sent in zip(station.requests, exchange.requests, strict=True):
        out = route.outgoing(request)
        assert out is not None
        wire = read(out)
        assert wire.line.encode("latin-1") == b"%b %b%b HTTP/1.1" % (
            sent.method,
            prefix.rstrip("/").encode(),
            sent.target,
        )
        assert wire.body == sent.body
        assert wire.value("Host") == ("shop.example" if keep_host else "test.example")
        before = [line for line in sent.head.split(b"\r\n")[1:-2] if line[:5] != b"Host:"]
        after = [line for line in wire.lines if line.split(b":")[0].decode().lower() not in ADDED]
        assert after == before
        assert out.lane == request.key
        assert out.method == sent.method


def test_the_request_itself_is_left_alone() -> None:
    """Two destinations get it, each rewritten from what came."""
    one, two = Destination(url="http://one.example/1"), Destination(url="http://two.example/2", drop_headers=("X-A",))
    station = Station(destinations=(one, two))
    client = Conversation()
    head = b"POST /p HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-Forwarded-For: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire = head + chunk(b"x") + b"0\r\n\r\n"
    (request,) = station.feed(client.syn(), client.send(wire))
    head, body = request.head, bytes(request.body)
    routes = [Route(station.settings, there, station.ledger.destination(there.url)) for there in (one, two, one)]
    first, second, third = (route.outgoing(request) for route in routes)
    assert first is not None and second is not None and third is not None
    assert (request.head, bytes(request.body)) == (head, body)
    assert (first.head, bytes(first.body)) == (third.head, bytes(third.body))
    assert b"X-A" in first.head
    assert b"X-A" not in second.head
    assert read(second).value("X-Forwarded-For") == "a, 10.0.0.1"


@pytest.mark.parametrize(
    ("method", "idempotent"),
    [("GET", True), ("HEAD", True), ("OPTIONS", True), ("TRACE", True), ("PUT", True), ("DELETE", True),
     ("POST", False), ("PATCH", False), ("QUERY", True), ("PROPFIND", True), ("UNKNOWN", False), ("get", False)],
)  # fmt: skip
def test_only_idempotent_methods_may_be_retried(method: str, idempotent: bool) -> None:
    """RFC 9110 §9.2.2 and the registry of methods; what is unknown is not."""
    assert outgoing(f"{method} / HTTP/1.1\r\nHost: h\r\n\r\n".encode()).idempotent is idempotent
