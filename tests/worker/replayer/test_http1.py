"""Framing by RFC 9112: every case whole, cut at every byte, byte by byte, and with data behind it."""

import io
from http.client import parse_headers
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer.head import Request, fields
from replayer.http1 import Framer, Rules, answered
from replayer.ledger import GivenUp, Ledger, imbalances
from tests.strategies import BAIT, WRAP, Exchange, chunk, chunked, chunked_head, examples, exchanges, get, post

KEY = b"\0\0\x07\n\0\0\1\n\0\1\1\x9c@\0P"


class Line:
    """A framer on a stream that is fed piece by piece; the ledger must balance after every piece."""

    def __init__(self, head: int = 65_536, body: int = 10 << 20) -> None:
        self.ledger = Ledger()
        self.framer = Framer(Rules(self.ledger, head, body), KEY)
        self.offset = 1 << 32
        self.ack = 700
        self.requests: list[Request] = []

    def feed(self, *pieces: bytes, lost: int = 0) -> list[Request]:
        """The next bytes of the stream, the first behind a hole of `lost` bytes."""
        out: list[Request] = []
        for piece in pieces:
            self.ledger.payload_bytes += len(piece)
            self.offset += lost
            out += self.framer.receive(lost, piece, self.ack, self.offset, 9.0)
            self.offset += len(piece)
            lost = 0
            assert imbalances(self.ledger) == []
        self.requests += out
        return out

    def answered(self, size: int = 500) -> None:
        """The server answers."""
        self.ack = (self.ack + size) % WRAP

    @property
    def targets(self) -> list[bytes]:
        """The targets of all requests so far."""
        return [request.target for request in self.requests]


def one_by_one(data: bytes) -> list[bytes]:
    """Every byte alone."""
    return [data[at : at + 1] for at in range(len(data))]


HOST = b"Host: h\r\n"

VALID = [
    # request line, fields and blank line; coded body; decoded body
    (b"GET / HTTP/1.1\r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.0\r\n", b"", b""),
    (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n", b"", b""),
    (b"get /lower HTTP/1.1\r\n" + HOST, b"", b""),
    (b"!#$%&'*+-.^_`|~09azAZ / HTTP/1.1\r\n" + HOST, b"", b""),
    (b"PROPFIND /dav HTTP/1.1\r\nDepth: 1\r\n" + HOST, b"", b""),
    (b"GET http://shop.example/a?b=c HTTP/1.1\r\n" + HOST, b"", b""),
    (b"GET https://shop.example:8443 HTTP/1.1\r\n" + HOST, b"", b""),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST, b"", b""),
    (b"GET /p?q=/?:@!$&'()*+,;=%20 HTTP/1.1\r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nhOsT:h\r\n", b"", b""),
    (b"GET / HTTP/1.1\r\nHost:\r\n", b"", b""),
    (b"GET / HTTP/1.1\r\nX-Empty:\r\nX-Blank: \t \r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nX-Spaces: \t a \t b \t \r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nX-Obs-Text: caf\xe9 \xff\r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nX-Colons: a:b::c\r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nX_y!#$%&'*+-.^`|~1: token\r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nContent-Length: 4\r\n" + HOST, b"body", b"body"),
    (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n" + HOST, b"", b""),
    (b"POST / HTTP/1.1\r\n" + HOST, b"", b""),
    (b"POST / HTTP/1.1\r\ncontent-LENGTH:\t0004 \r\n" + HOST, b"body", b"body"),
    (b"POST / HTTP/1.0\r\nContent-Length: 4\r\n", b"body", b"body"),
    (b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n" + HOST, b"\r\n\r\n", b"\r\n\r\n"),
    (b"POST / HTTP/1.1\r\nContent-Length: 45\r\n" + HOST, BAIT, BAIT),
    (b"POST / HTTP/1.1\r\nContent-Length: 9\r\n" + HOST, bytes(9), bytes(9)),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST, b"0\r\n\r\n", b""),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST, b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    (b"POST / HTTP/1.1\r\ntransfer-encoding:ChUnKeD\t\r\n" + HOST, b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n" + HOST, b"2\r\nzz\r\n00\r\n\r\n", b"zz"),
    (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + HOST,
        b"2\r\nzz\r\n0\r\n\r\n",
        b"zz",
    ),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: , chunked\r\n" + HOST, b"1\r\nz\r\n0\r\n\r\n", b"z"),
    (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST,
        b'000b;name=value;other="a;b"\r\nabcdefghijk\r\n1 ; x = y\r\nl\r\n0;last\r\n\r\n',
        b"abcdefghijkl",
    ),
    (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n" + HOST,
        b"7\r\n0\r\n\r\nab\r\n0\r\nX-Sum: 1\r\nX-Other:\r\n\r\n",
        b"0\r\n\r\nab",
    ),
    (b"GET / HTTP/1.1\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\n" + HOST, b"", b""),
    (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n" + HOST, b"", b""),  # RFC 9110 §7.8: only with the connection option
    (b"GET / HTTP/1.0\r\nUpgrade: websocket\r\n", b"", b""),  # RFC 9110 §7.8: MUST be ignored in HTTP/1.0
    (b"GET /connect HTTP/1.1\r\nX-Method: CONNECT\r\nX-Upgrade: websocket\r\n" + HOST, b"", b""),
]


def expect(request: Request, head: bytes, body: bytes, wire: bytes) -> None:
    """The request is what the case says."""
    method, target, version = head.split(b"\r\n", 1)[0].split(b" ")
    assert (request.method, request.target, b"HTTP/" + request.version) == (method, target, version)
    assert request.head == head
    assert bytes(request.body) == body
    assert request.size == len(wire)
    assert request.key == KEY


@pytest.mark.parametrize(("head", "coded", "body"), VALID)
def test_valid_requests(head: bytes, coded: bytes, body: bytes) -> None:
    head += b"\r\n"
    wire = head + coded
    line = Line()
    (request,) = line.feed(wire)
    expect(request, head, body, wire)
    assert request.chunked == (b"ransfer-" in head)
    assert line.ledger.framed_bytes == len(wire)


@pytest.mark.parametrize(("head", "coded", "body"), VALID)
def test_valid_requests_cut_at_every_byte(head: bytes, coded: bytes, body: bytes) -> None:
    head += b"\r\n"
    wire = head + coded
    for at in range(1, len(wire)):
        line = Line()
        assert line.feed(wire[:at]) == []
        assert line.ledger.held_bytes == at
        (request,) = line.feed(wire[at:])
        expect(request, head, body, wire)


@pytest.mark.parametrize(("head", "coded", "body"), VALID)
def test_valid_requests_byte_by_byte_with_others_around(head: bytes, coded: bytes, body: bytes) -> None:
    head += b"\r\n"
    wire = head + coded
    line = Line()
    line.feed(*one_by_one(get("/before") + wire + post("/behind", b"body")))
    assert line.targets == [b"/before", head.split(b" ")[1], b"/behind"]
    expect(line.requests[1], head, body, wire)
    assert line.requests[1].offset == line.requests[0].offset + len(get("/before"))


@pytest.mark.parametrize(("head", "coded", "body"), VALID)
def test_valid_requests_with_data_behind(head: bytes, coded: bytes, body: bytes) -> None:
    head += b"\r\n"
    wire = head + coded
    for behind in (get("/behind"), post("/behind", b"body"), chunked("/behind", b"body")):
        line = Line()
        first, second = line.feed(wire + behind)
        expect(first, head, body, wire)
        assert second.target == b"/behind"
        assert second.offset == first.offset + len(wire)


def test_trailers_are_kept_as_they_came() -> None:
    line = Line()
    (request,) = line.feed(chunked_head("/") + chunk(b"body") + b"0\r\nX-Sum:  1 \r\nx-other:2\r\n\r\n")
    assert request.trailers == b"X-Sum:  1 \r\nx-other:2\r\n"
    (request,) = line.feed(chunked("/", b"body"))
    assert request.trailers == b""


@pytest.mark.parametrize("blank", [b"\r\n", b"\r\n\r\n"])
@pytest.mark.parametrize("split", [False, True])
def test_empty_lines_before_a_request_are_ignored(blank: bytes, split: bool) -> None:
    """RFC 9112 §2.2: at least one; old clients send one behind a body."""
    line = Line()
    wire = post("/1", b"body") + blank + get("/2")
    line.feed(*(one_by_one(wire) if split else [wire]))
    assert line.targets == [b"/1", b"/2"]
    assert line.requests[1].head == get("/2")


REFUSED = [
    # RFC 9112 §3: the request line
    b"GET /\r\n" + HOST,
    b"GET  / HTTP/1.1\r\n" + HOST,
    b"GET /  HTTP/1.1\r\n" + HOST,
    b"GET\t/ HTTP/1.1\r\n" + HOST,
    b"GET / HTTP/1.1 \r\n" + HOST,
    b" GET / HTTP/1.1\r\n" + HOST,
    b"GET / a HTTP/1.1\r\n" + HOST,
    b"GET HTTP/1.1\r\n" + HOST,
    b"GET / http/1.1\r\n" + HOST,
    b"GET / HTTP/1.10\r\n" + HOST,
    b"GET / HTTP/1\r\n" + HOST,
    b"GET / HTTP/2.0\r\n" + HOST,
    b"GET / HTTP/3.1\r\n" + HOST,
    b"G(T / HTTP/1.1\r\n" + HOST,
    b"G\xc9T / HTTP/1.1\r\n" + HOST,
    b"GET /\x01 HTTP/1.1\r\n" + HOST,
    b"GET /\x7f HTTP/1.1\r\n" + HOST,
    b"GET /\x00 HTTP/1.1\r\n" + HOST,
    b"GET relative HTTP/1.1\r\n" + HOST,
    # §3.2: exactly one valid Host
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + HOST,
    b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n",
    b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n",
    b"GET / HTTP/1.1\r\nHost: a/b\r\n",
    b"GET / HTTP/1.1\r\nX-Host: h\r\n",
    # §2.2: line ends
    b"GET / HTTP/1.1\n" + HOST,
    b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n",
    b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n",
    b"GET / HTTP/1.1\rX: y\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX: \ry\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX: y\r\r\n" + HOST,
    b"GET / HTTP/1.1\r\n\nX: y\r\n" + HOST,
    # §5: fields
    b"GET / HTTP/1.1\r\nX : y\r\n" + HOST,
    b"GET / HTTP/1.1\r\nContent-Length : 5\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX\t: y\r\n" + HOST,
    b"GET / HTTP/1.1\r\n X: y\r\n" + HOST,
    b"GET / HTTP/1.1\r\n: y\r\n" + HOST,
    b"GET / HTTP/1.1\r\nno colon\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX y: z\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX(y): z\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX\xe9: z\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX: a\0b\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX\0: a\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX: folded\r\n line\r\n" + HOST,
    b"GET / HTTP/1.1\r\nX: folded\r\n\tline\r\n" + HOST,
    b"GET / HTTP/1.1\r\nContent-Length:\r\n 5\r\n" + HOST,
    b"GET / HTTP/1.1\r\nHost: h\r\n folded\r\n",
    # §6.1: Transfer-Encoding
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n" + HOST,
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunkedx\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n" + HOST,
    b"POST / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n" + HOST,
    # §6.2, §6.3: Content-Length
    b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 5, 6\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: -5\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: +5\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 5a\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 0x5\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 5 5\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 1e3\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 5.0\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 1_0\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: five\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length:\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 5,\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n" + HOST,
    b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999999999\r\n" + HOST,
]  # fmt: skip


def is_refused(line: Line, wire: bytes, split: bool) -> None:
    """The request is refused and counted; behind the server's answer the flow goes on."""
    line.feed(get("/before"))
    line.answered()
    line.feed(*(one_by_one(wire) if split else [wire]))
    assert line.targets == [b"/before"]
    assert line.ledger.given_up[GivenUp.BAD_REQUEST] == 1
    assert line.ledger.held_bytes == 0
    for target in ("/1", "/2", "/3"):
        line.answered()
        line.feed(get(target))
    assert line.targets == [b"/before", b"/1", b"/2", b"/3"]
    assert line.ledger.resynchronised == 1
    assert sum(line.ledger.given_up.values()) == 1


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("head", REFUSED)
def test_what_a_server_must_refuse(head: bytes, split: bool) -> None:
    is_refused(Line(), head + b"\r\n", split)


@pytest.mark.parametrize("head", REFUSED)
def test_nothing_behind_a_refused_request_is_taken_under_its_ack(head: bytes) -> None:
    """A server closes; another reading of the same bytes would be request smuggling."""
    for split in (False, True):
        line = Line()
        wire = head + b"\r\n" + b"0\r\n\r\n" + get("/smuggled")
        line.feed(get("/before"))
        line.answered()
        line.feed(*(one_by_one(wire) if split else [head + b"\r\n", b"0\r\n\r\n", get("/smuggled")]))
        line.answered()
        line.feed(get("/1"))
        line.answered()
        line.feed(get("/2"))
        assert line.targets == [b"/before", b"/1", b"/2"]


BAD_CODINGS = [
    b"zz\r\n", b"-5\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"+5\r\nhello\r\n0\r\n\r\n",
    b"\r\nhello\r\n0\r\n\r\n", b";ext\r\nhello\r\n0\r\n\r\n", b"5\nhello\r\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n",
    b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\r\nhello0\r\n\r\n", b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    b"5;a\nb\r\nhello\r\n0\r\n\r\n", b"5;a\0b\r\nhello\r\n0\r\n\r\n", b"5_0\r\n", b"5.\r\nhello\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n", b"5 5\r\nhello\r\n0\r\n\r\n", b" 5\r\nhello\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nno colon\r\n\r\n", b"5\r\nhello\r\n0\r\nX: y\n\r\n", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    b"5\r\nhello\r\n0\r\nX: y\r\n folded\r\n\r\n", b"5\r\nhello\r\n0\r\n: y\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\nX: y\r\n\r\n",
]  # fmt: skip


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("coded", BAD_CODINGS)
def test_chunked_bodies_that_a_server_must_refuse(coded: bytes, split: bool) -> None:
    is_refused(Line(), chunked_head("/bad") + coded, split)


@pytest.mark.parametrize("length", [b"5, 5", b"5\r\nContent-Length: 5"])
def test_a_repeated_equal_length_is_that_length_or_refused(length: bytes) -> None:
    """RFC 9112 §6.3 leaves both open; what it forbids is another length."""
    line = Line()
    line.feed(
        get("/before"), b"POST /1 HTTP/1.1\r\nContent-Length: " + length + b"\r\n" + HOST + b"\r\nhello" + get("/2")
    )
    bodies = [bytes(request.body) for request in line.requests]
    assert bodies == ([b"", b"hello", b""] if line.ledger.given_up[GivenUp.BAD_REQUEST] == 0 else [b""])


TURNING = [
    b"GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + HOST,
    b"GET /ws HTTP/1.1\r\nConnection: keep-alive, upgrade\r\nupgrade: h2c, websocket\r\n" + HOST,
    b"POST /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: other/1\r\nContent-Length: 5\r\n" + HOST,
    b"CONNECT db.example:443 HTTP/1.1\r\nHost: db.example:443\r\n",
]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("head", TURNING)
def test_from_an_upgrade_on_the_stream_is_passed_over(head: bytes, split: bool) -> None:
    line = Line()
    wire = head + b"\r\n" + b"hello" + get("/inside")
    line.feed(get("/before"), *(one_by_one(wire) if split else [wire]))
    line.answered()
    line.feed(get("/inside"))
    line.answered()
    line.feed(get("/inside"))
    assert line.targets == [b"/before"]
    assert line.ledger.passed_over_flows["upgraded"] == 1
    assert line.ledger.passed_over_bytes["upgraded"] == line.ledger.payload_bytes - len(get("/before"))


# Limits


@pytest.mark.parametrize("split", [False, True])
def test_the_head_limit(split: bool) -> None:
    line = Line(head=len(get("/12345")))
    line.feed(*(one_by_one(get("/12345")) if split else [get("/12345")]))
    line.answered()
    line.feed(*(one_by_one(get("/123456")) if split else [get("/123456")]))
    line.answered()
    line.feed(get("/1"))
    line.answered()
    line.feed(get("/2"))
    assert line.targets == [b"/12345", b"/1", b"/2"]
    assert line.ledger.given_up["head_too_large"] == 1


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("make", [post, chunked])
def test_the_body_limit(make: Any, split: bool) -> None:
    line = Line(body=1_000)
    wire = make("/1", bytes(1_000)) + make("/2", bytes(1_001)) + make("/3", bytes(1_000))
    line.feed(*(one_by_one(wire) if split else [wire]))
    assert line.targets == [b"/1", b"/3"]
    assert line.ledger.given_up["body_too_large"] == 1


# Holes and probation


def test_a_hole_inside_a_body_of_known_length() -> None:
    line = Line()
    line.feed(post("/1", b"x" * 100)[:-60])
    line.feed(b"x" * 20 + get("/2"), lost=40)
    assert line.targets == [b"/2"]
    assert line.ledger.given_up["hole"] == 1


def test_a_hole_up_to_the_very_end_of_a_body() -> None:
    line = Line()
    line.feed(post("/1", b"x" * 100)[:-60])
    line.feed(get("/2"), lost=60)
    assert line.targets == [b"/2"]


def test_a_hole_beyond_the_end_of_a_body() -> None:
    """Something of the next request is gone too: only an answer tells where one begins."""
    line = Line()
    line.feed(post("/1", b"x" * 100)[:-60])
    line.feed(get("/2"), lost=61)
    line.answered()
    line.feed(get("/3"))
    line.answered()
    line.feed(get("/4"))
    assert line.targets == [b"/3", b"/4"]


def test_two_holes_in_one_body_are_one_request_given_up() -> None:
    line = Line()
    line.feed(post("/1", b"x" * 100)[:-60])
    line.feed(b"x" * 10, lost=20)
    line.feed(b"x" * 10 + get("/2"), lost=20)
    assert line.targets == [b"/2"]
    assert line.ledger.given_up["hole"] == 1


def test_a_hole_in_a_head_is_never_joined_over() -> None:
    line = Line()
    line.feed(get("/before"))
    line.answered()
    wire = b"GET /1 HTTP/1.1\r\nX-One: 1\r\nX-Two: 2\r\nHost: h\r\n\r\n"
    line.feed(wire[:27])
    line.feed(wire[37:], lost=10)
    line.answered()
    line.feed(get("/2"))
    line.answered()
    line.feed(get("/3"))
    assert line.targets == [b"/before", b"/2", b"/3"]


@pytest.mark.parametrize(("moved", "found"), [(0, False), (25, False), (32, False), (33, True), (10_000, True)])
def test_behind_a_hole_an_answer_must_have_moved_the_ack(moved: int, found: bool) -> None:
    """32 bytes are an interim response's at most."""
    line = Line()
    line.feed(get("/before"))
    line.answered(moved)
    line.feed(get("/1"), lost=100)
    line.answered()
    line.feed(get("/2"))
    line.answered()
    line.feed(get("/3"))
    assert line.targets == ([b"/before", b"/1", b"/2", b"/3"] if found else [b"/before", b"/2", b"/3"])


def test_an_ack_that_goes_back_is_no_answer() -> None:
    line = Line()
    line.feed(get("/before"))
    line.answered(-1_000)
    line.feed(get("/1"), lost=100)
    assert line.framer.close(GivenUp.CLOSED) == []
    assert line.targets == [b"/before"]


def test_the_ack_wraps() -> None:
    line = Line()
    line.ack = WRAP - 100
    line.feed(get("/before"))
    line.answered(200)
    assert line.ack == 100
    line.feed(get("/1"), lost=100)
    line.answered()
    line.feed(get("/2"))
    assert line.targets == [b"/before", b"/1", b"/2"]


def test_what_is_found_by_searching_is_held_until_it_is_proven() -> None:
    line = Line()
    line.framer.join()
    line.feed(b"the end of a body", get("/1"))
    line.answered()
    line.feed(get("/2"))
    assert line.targets == [], "/1 has the ACK of the body's end, so it may be part of it; /2 is not proven yet"
    line.answered()
    line.feed(get("/3"))
    assert line.targets == [b"/2", b"/3"]


def test_a_pure_acknowledgement_proves() -> None:
    line = Line()
    line.framer.join()
    assert line.feed(get("/1")) == []
    assert line.framer.acknowledged(line.ack + 25) == []
    assert [request.target for request in line.framer.acknowledged(line.ack + 500)] == [b"/1"]


def test_time_proves_when_nothing_contradicts() -> None:
    line = Line()
    line.framer.join()
    assert line.feed(post("/1", b"body")) == []
    assert [request.target for request in line.framer.outwait()] == [b"/1"]


def test_time_does_not_complete_a_body() -> None:
    line = Line()
    line.framer.join()
    line.feed(post("/1", b"body")[:-1])
    assert line.framer.outwait() == []
    assert [request.target for request in line.feed(b"y")] in ([], [b"/1"])


@pytest.mark.parametrize("behind", [b"x", b"\r\n0\r\n\r\n", get("/2"), b"and more of a body"])
@pytest.mark.parametrize("split", [False, True])
def test_data_behind_it_under_the_same_ack_contradicts(behind: bytes, split: bool) -> None:
    line = Line()
    line.feed(get("/before"))
    line.answered()
    line.feed(get("/bait") if split else get("/bait") + behind, lost=50)
    if split:
        line.feed(behind)
    line.answered()
    line.feed(get("/1"))
    line.answered()
    line.feed(get("/2"))
    assert line.targets == [b"/before", b"/1", b"/2"]
    assert line.ledger.given_up["unproven"] >= 1


@pytest.mark.parametrize("reason", [GivenUp.CLOSED, GivenUp.ENDED, GivenUp.EVICTED])
def test_closing_gives_up_what_is_incomplete(reason: GivenUp) -> None:
    for wire in (get("/1")[:-1], post("/1", b"body")[:-1], chunked("/1", b"body")[:-1]):
        line = Line()
        line.feed(wire)
        assert line.framer.close(reason) == []
        assert line.ledger.given_up[reason] == 1
        assert line.ledger.given_up_bytes[reason] == len(wire)
        assert line.ledger.held_bytes == 0
        assert imbalances(line.ledger) == []


def test_closing_between_requests_gives_nothing_up() -> None:
    line = Line()
    line.feed(get("/1"))
    line.framer.close(GivenUp.CLOSED)
    assert sum(line.ledger.given_up.values()) == 0


@pytest.mark.parametrize(
    ("ack", "before", "yes"),
    [(33, 0, True), (32, 0, False), (0, 0, False), (0, 33, False), (20, WRAP - 20, True), (5, WRAP - 5, False)],
)
def test_answered(ack: int, before: int, yes: bool) -> None:
    assert answered(ack, before) is yes


# Fields


def test_fields_in_order_and_case() -> None:
    line = Line()
    (request,) = line.feed(b"GET / HTTP/1.1\r\nhOST:h\r\nX-A: 1 \r\nx-a:\t2\r\nX-Empty:\r\nX-C: a:b\r\n\r\n")
    assert fields(request) == [(b"hOST", b"h"), (b"X-A", b"1"), (b"x-a", b"2"), (b"X-Empty", b""), (b"X-C", b"a:b")]


def test_no_fields() -> None:
    line = Line()
    (request,) = line.feed(b"GET / HTTP/1.0\r\n\r\n")
    assert fields(request) == []


@examples(100)
@given(exchanges(most=2))
def test_fields_are_those_that_the_standard_library_reads(exchange: Exchange) -> None:
    line = Line()
    line.feed(exchange.stream)
    assert len(line.requests) == len(exchange.requests)
    for request in line.requests:
        read = parse_headers(io.BytesIO(request.head.split(b"\r\n", 1)[1]))
        mine = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields(request)]
        assert mine == [(name, value.strip(" \t")) for name, value in read.items()]


@examples(100)
@given(exchanges(), st.lists(st.integers(0, 2_000), max_size=10))
def test_any_stream_cut_anywhere(exchange: Exchange, cuts: list[int]) -> None:
    edges = sorted({0, len(exchange.stream), *(cut for cut in cuts if cut < len(exchange.stream))})
    line = Line()
    line.feed(*(exchange.stream[a:b] for a, b in pairwise(edges)))
    assert [(r.head, bytes(r.body), r.trailers) for r in line.requests] == [
        (sent.head, sent.body, sent.trailers) for sent in exchange.requests
    ]
    assert [r.offset - (1 << 32) for r in line.requests] == exchange.starts[:-1]


@examples(200)
@given(st.lists(st.tuples(st.binary(max_size=30), st.integers(0, 3), st.sampled_from([0, 0, 25, 500])), max_size=8))
def test_noise_never_raises(pieces: list[tuple[bytes, int, int]]) -> None:
    line = Line(head=50, body=20)
    for piece, lost, moved in pieces:
        line.answered(moved)
        line.feed(piece, lost=lost)
    line.framer.close(GivenUp.CLOSED)
    assert imbalances(line.ledger) == []
    assert line.ledger.held_bytes == 0
