"""Mirrored packets for tests: scapy builds the headers, hypothesis varies what they carry.

`Conversation` says what one client sends on one TCP connection and yields the UDP payloads that a mirror target gets.
`Station` is a pipeline with its ledger and a clock of its own; it checks the conservation law after every call.
`exchanges` draws whole keep-alive connections; `segmented` cuts them into segments.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from replayer.head import Request
from replayer.ledger import Ledger, imbalances
from replayer.pipeline import Pipeline
from replayer.settings import Caps, Settings

#: EXAMPLES=20 looks twenty times as long for a counter-example.
_PATIENCE = int(os.environ.get("EXAMPLES", "1"))

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
WRAP = 1 << 32


def examples(count: int) -> settings:
    """How many examples a property is tried with."""
    return settings(max_examples=count * _PATIENCE)


@dataclass(frozen=True)
class Path:
    """What surrounds every segment of a conversation: the addresses and the encapsulation."""

    client: str = "10.0.0.1"
    server: str = "10.0.1.1"
    client_port: int = 40_000
    server_port: int = 80
    vni: int | None = 7  # none = a plain frame
    dot1ad: tuple[int, ...] = ()
    dot1q: tuple[int, ...] = ()
    ip_options: int = 0  # NOP bytes in the IPv4 header
    extensions: tuple[str, ...] = ()  # IPv6 headers before TCP, of EXTENSIONS
    tcp_options: int = 0  # NOP bytes in the TCP header
    geneve: Literal["", "ethernet", "ip", "vxlan"] = ""  # GENEVE, and what is in it
    geneve_options: tuple[bytes, ...] = ()  # the values, each a multiple of 4 bytes

    @property
    def six(self) -> bool:
        """Is the conversation one over IPv6?"""
        return ":" in self.client


EXTENSIONS: dict[str, Callable[[], Packet]] = {
    "hop": lambda: IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 12)]),
    "routing": lambda: IPv6ExtHdrRouting(type=0, addresses=["fd00::9"]),
    "destination": lambda: IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)]),
    "authentication": lambda: AH(nh=6, spi=1, seq=1, icv=b"\0" * 12, payloadlen=4),
}


def stack(path: Path, flags: int, seq: int, ack: int, payload: bytes, **checksum: int) -> Packet:
    """The datagram as scapy layers; `chksum=0` leaves the checksums unset, otherwise scapy computes them."""
    inner: Packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for vlan in path.dot1ad:
        inner /= Dot1AD(vlan=vlan)
    for vlan in path.dot1q:
        inner /= Dot1Q(vlan=vlan)
    if path.geneve == "ip":
        inner = Packet()
    if path.six:
        network: Packet = IPv6(src=path.client, dst=path.server)
        for name in path.extensions:
            network /= EXTENSIONS[name]()
    else:
        network = IP(src=path.client, dst=path.server, options=[IPOption_NOP()] * path.ip_options, **checksum)
    network /= TCP(
        sport=path.client_port, dport=path.server_port, seq=seq % WRAP, ack=ack % WRAP, flags=flags,
        options=[("NOP", None)] * path.tcp_options, **checksum,
    )  # fmt: skip
    if payload:
        network /= Raw(payload)
    return wrap(path, network if path.geneve == "ip" else inner / network)


def wrap(path: Path, inner: Packet) -> Packet:
    """`inner` in the path's encapsulation."""
    if path.vni is None:
        return inner
    if not path.geneve:
        return VXLAN(vni=path.vni, flags="Instance") / inner
    options = [GeneveOptions(classid=0x0108, type=1, data=value) for value in path.geneve_options]
    if path.geneve == "ethernet":
        return GENEVE(vni=path.vni, proto=0x6558, options=options) / inner
    if path.geneve == "ip":
        return GENEVE(vni=path.vni, proto=0x86DD if path.six else 0x0800, options=options) / inner
    outer = IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=50_000, dport=4789)
    return GENEVE(vni=0, proto=0x0800, options=options) / outer / VXLAN(vni=path.vni, flags="Instance") / inner


@cache
def _template(path: Path) -> tuple[bytes, int, int]:
    """An empty segment of `path` with unset checksums, and where its last IP and its TCP header begin."""
    packet = stack(path, ACK, 0, 0, b"", chksum=0)
    raw = bytes(packet)
    tcp = len(raw) - 20 - path.tcp_options - -path.tcp_options % 4
    network = packet[IPv6] if path.six else packet.getlayer(IP, 2) or packet[IP]
    return raw, len(raw) - len(bytes(network)), tcp


def segment(path: Path, flags: int, seq: int, ack: int, payload: bytes) -> bytes:
    """What `stack` describes, checksums unset: scapy's empty segment with the numbers written in."""
    if path.geneve == "vxlan":
        return bytes(stack(path, flags, seq, ack, payload, chksum=0))  # has more lengths to write
    raw, ip, tcp = _template(path)
    out = bytearray(raw)
    at = ip + 4 if path.six else ip + 2
    length = int.from_bytes(out[at : at + 2], "big") + len(payload)
    out[at : at + 2] = length.to_bytes(2, "big")
    out[tcp + 4 : tcp + 8] = (seq % WRAP).to_bytes(4, "big")
    out[tcp + 8 : tcp + 12] = (ack % WRAP).to_bytes(4, "big")
    out[tcp + 13] = flags
    return bytes(out + payload)


class Conversation:
    """What the client of one connection sends. `sent` counts stream bytes, `ack` is the server's progress."""

    def __init__(self, *, isn: int = 1_000, ack: int = 900_000, **path: Any) -> None:
        self.path = Path(**path)
        self.isn = isn
        self.ack = ack
        self.sent = 0

    def syn(self) -> bytes:
        """The first packet; it acknowledges nothing."""
        return segment(self.path, SYN, self.isn, 0, b"")

    def send(self, data: bytes) -> bytes:
        """`data` as the next segment."""
        self.sent += len(data)
        return self.at(self.sent - len(data), data)

    def cut(self, data: bytes, *sizes: int) -> list[bytes]:
        """`data` as the next segments: of these sizes, the rest in one."""
        edges = [0]
        for size in sizes:
            edges.append(edges[-1] + size)
        return [self.send(data[a:b]) for a, b in zip(edges, [*edges[1:], len(data)], strict=True)]

    def full(self, data: bytes, size: int = 1_400) -> list[bytes]:
        """`data` as the next segments, `size` bytes each."""
        return [self.send(data[at : at + size]) for at in range(0, len(data), size)]

    def at(self, offset: int, data: bytes) -> bytes:
        """`data` at a stream offset (0 is the byte after the SYN), whatever was sent before."""
        return segment(self.path, PSH | ACK, self.isn + 1 + offset, self.ack, data)

    def answered(self, size: int = 500) -> None:
        """The server sent `size` bytes, and the client got them."""
        self.ack += size

    def acknowledge(self) -> bytes:
        """A segment without data."""
        return segment(self.path, ACK, self.isn + 1 + self.sent, self.ack, b"")

    def fin(self, data: bytes = b"") -> bytes:
        """The end of the stream, with its last bytes."""
        self.sent += len(data)
        return segment(self.path, FIN | ACK, self.isn + 1 + self.sent - len(data), self.ack, data)

    def rst(self) -> bytes:
        """The abort of the connection."""
        return segment(self.path, RST | ACK, self.isn + 1 + self.sent, self.ack, b"")

    def lose(self, data: bytes) -> None:
        """`data` was sent, but the mirror lost it."""
        self.sent += len(data)


def get(target: str, host: str = "shop.example") -> bytes:
    """A request without a body."""
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def post_head(target: str, length: int, host: str = "shop.example") -> bytes:
    """The head of a request whose body has `length` bytes."""
    return f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n".encode()


def post(target: str, body: bytes) -> bytes:
    """A request with a body of known length."""
    return post_head(target, len(body)) + body


def chunked_head(target: str, host: str = "shop.example") -> bytes:
    """The head of a request whose body comes in chunks."""
    return f"POST {target} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    """One chunk."""
    return b"%x%s\r\n%s\r\n" % (len(data), extension, data)


def chunked(target: str, *pieces: bytes) -> bytes:
    """A request with a chunked body."""
    return chunked_head(target) + b"".join(map(chunk, pieces)) + b"0\r\n\r\n"


class Station:
    """A pipeline, its ledger and a clock; every call must leave the ledger balanced."""

    def __init__(self, caps: Caps | None = None, **settings: Any) -> None:
        self.settings = Settings(caps=caps or Caps(), **settings)
        self.ledger = Ledger()
        self.pipeline = Pipeline(self.settings, self.ledger)
        self.now = 5_000.0
        self.requests: list[Request] = []

    def feed(self, *datagrams: bytes, gap: float = 0.000_1) -> list[Request]:
        """Receive VXLAN datagrams one after another."""
        out: list[Request] = []
        for datagram in datagrams:
            self.now += gap
            out += self._took(self.pipeline.receive(datagram, self.now))
        return out

    def feed_geneve(self, *datagrams: bytes) -> list[Request]:
        """Receive GENEVE datagrams one after another."""
        out: list[Request] = []
        for datagram in datagrams:
            self.now += 0.000_1
            out += self._took(self.pipeline.receive_geneve(datagram, self.now))
        return out

    def feed_frames(self, link_type: int, *frames: bytes) -> list[Request]:
        """Receive captured frames one after another."""
        out: list[Request] = []
        for frame in frames:
            self.now += 0.000_1
            out += self._took(self.pipeline.receive_frame(link_type, frame, self.now))
        return out

    def wait(self, seconds: float, step: float = 0.05) -> list[Request]:
        """Let time pass; the shell calls `expire` about every 50 ms."""
        out: list[Request] = []
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + step)
            out += self._took(self.pipeline.expire(self.now))
        return out

    def settle(self) -> list[Request]:
        """Let every timer of a hole, a join and a proof run out."""
        return self.wait(4 * (self.settings.caps.hole_timeout + self.settings.caps.join_timeout))

    def close(self) -> list[Request]:
        """The end of the input, after which nothing is held."""
        out = self._took(self.pipeline.close(self.now))
        assert self.ledger.held_bytes == 0
        assert self.ledger.flows == 0
        return out

    def _took(self, requests: list[Request]) -> list[Request]:
        assert imbalances(self.ledger) == []
        assert self.ledger.held_bytes >= 0
        self.requests += requests
        assert self.ledger.framed == len(self.requests)
        return requests

    @property
    def targets(self) -> list[str]:
        """The targets of all requests so far."""
        return targets(self.requests)


def targets(requests: Iterable[Request]) -> list[str]:
    """The targets of `requests`."""
    return [request.target.decode("latin-1") for request in requests]


# What production's clients send


#: Method, target, head, decoded body, whether it was chunked, trailers.
type Meaning = tuple[bytes, bytes, bytes, bytes, bool, bytes]


@dataclass(frozen=True)
class Sent:
    """A request as its client meant it, and as it went over the wire."""

    method: bytes
    target: bytes
    head: bytes
    wire: bytes
    body: bytes = b""
    trailers: bytes = b""
    chunked: bool = False

    @property
    def meaning(self) -> Meaning:
        """What a replay must preserve."""
        return self.method, self.target, self.head, self.body, self.chunked, self.trailers


def meaning(request: Request) -> Meaning:
    """What the pipeline made of a request."""
    body, trailers = bytes(request.body), bytes(request.trailers)
    return request.method, request.target, request.head, body, request.chunked, trailers


@dataclass(frozen=True)
class Piece:
    """A range of the stream as one segment; `ack` is the server's progress when it was sent."""

    start: int
    end: int
    ack: int


@dataclass
class Exchange:
    """A whole connection: requests, the stream they make, and the server's progress along it."""

    requests: list[Sent] = field(default_factory=list)
    stream: bytes = b""
    starts: list[int] = field(default_factory=list)  # of each request, and the end of the last
    turns: list[int] = field(default_factory=lambda: [0])  # where the client had waited for the answers

    def turn(self, offset: int) -> int:
        """How often the client had waited for answers before it sent this byte."""
        return sum(1 for at in self.turns if at <= offset) - 1

    def reach(self, number: int) -> range:
        """The stream bytes of a request."""
        return range(self.starts[number], self.starts[number + 1])


BAIT = b"DELETE /bait HTTP/1.1\r\nHost: bait.example\r\n\r\n"

TOKEN = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
methods = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"PROPFIND", b"QUERY", b"M-SEARCH"]
)
target_text = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._~/?&=%:@", max_size=20).map(
    lambda text: b"/" + text.encode()
)
field_names = st.text(TOKEN, min_size=1, max_size=10).map(lambda text: b"X-" + text.encode())
field_values = st.text("".join(map(chr, range(0x21, 0x7F))) + " \t\xe9", max_size=20).map(
    lambda text: text.strip(" \t").encode("latin-1")
)
plain_payloads = st.one_of(
    st.binary(max_size=40), st.integers(0, 300).map(bytes), st.sampled_from([b"0\r\n\r\n", b"\r\n", b"\r\n\r\n" * 3])
)
payloads = st.one_of(
    plain_payloads,
    st.sampled_from([BAIT, b"x" * 37 + BAIT + b"y" * 5, b"0\r\n\r\n", b"5\r\nabcde\r\n0\r\n\r\n"]),
)


@st.composite
def sent_requests(draw: st.DrawFn, number: int = 0, payload: st.SearchStrategy[bytes] = payloads) -> Sent:
    """One request, valid by RFC 9112; its target begins with its number."""
    method, target = draw(methods), b"/%d" % number + draw(target_text)
    extra = draw(st.lists(st.tuples(field_names, field_values), max_size=3))
    lines = [b"%s %s HTTP/1.1" % (method, target), b"Host: shop.example"]
    lines += [name + b": " + value for name, value in extra]
    kind = draw(st.sampled_from(["none", "length", "chunked"]))
    body, coded, trailers = b"", b"", b""
    if kind == "length":
        body = coded = draw(payload)
        lines.append(b"Content-Length: %d" % len(body))
    if kind == "chunked":
        pieces = [piece for piece in draw(st.lists(payload, max_size=4)) if piece]
        extension = draw(st.sampled_from([b"", b";a=b", b' ; name="quoted; text"']))
        if draw(st.booleans()):
            trailers = b"X-Checksum: abc\r\n"
        body = b"".join(pieces)
        coded = b"".join(chunk(piece, extension) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"
        lines.append(b"Transfer-Encoding: chunked")
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    return Sent(method, target, head, head + coded, body, trailers, kind == "chunked")


@st.composite
def exchanges(
    draw: st.DrawFn, pipelining: bool = True, payload: st.SearchStrategy[bytes] = payloads, most: int = 6
) -> Exchange:
    """A keep-alive connection of a few requests; some follow another without waiting for its answer."""
    out = Exchange()
    for number in range(draw(st.integers(1, most))):
        request = draw(sent_requests(number, payload))
        if number and not (pipelining and draw(st.integers(0, 3)) == 0):
            out.turns.append(len(out.stream))
        out.starts.append(len(out.stream))
        out.requests.append(request)
        out.stream += request.wire
    out.starts.append(len(out.stream))
    return out


def pieces(exchange: Exchange, cuts: Iterable[int], answer: int = 200) -> list[Piece]:
    """The stream cut at `cuts` and wherever the client waited; each answer moves the ACK by `answer` bytes."""
    inside = (cut for cut in cuts if 0 < cut < len(exchange.stream))
    edges = sorted({0, len(exchange.stream), *exchange.turns, *inside})
    return [Piece(start, end, answer * exchange.turn(start)) for start, end in pairwise(edges)]


@st.composite
def segmented(draw: st.DrawFn, exchange: Exchange, max_cuts: int = 12, whole_methods: bool = False) -> list[Piece]:
    """The exchange's segments in the order they were sent; `whole_methods` keeps the cuts out of the method names."""
    cuts = draw(st.lists(st.integers(1, max(1, len(exchange.stream) - 1)), max_size=max_cuts))
    if whole_methods:
        names = [range(start + 1, start + 10) for start in exchange.starts]
        cuts = [cut for cut in cuts if not any(cut in name for name in names)]
    return pieces(exchange, cuts)


def datagrams(conversation: Conversation, stream: bytes, parts: Sequence[Piece]) -> list[bytes]:
    """The pieces as the conversation's datagrams."""
    return [
        segment(
            conversation.path, PSH | ACK, conversation.isn + 1 + part.start, conversation.ack + part.ack,
            stream[part.start : part.end],
        )
        for part in parts
    ]  # fmt: skip
