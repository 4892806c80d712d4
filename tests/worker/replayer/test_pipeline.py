"""The pipeline as a whole: what production's clients sent is what comes out, exactly once, and the ledger balances.

`Station` checks the conservation law after every call. How many damaged datagrams are tried: DAMAGED_DATAGRAMS.
"""

import gzip
import os
import ssl
import time
import tracemalloc
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path as FilePath
from random import Random
from time import process_time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.utils import RawPcapReader

from replayer.http1 import Framer
from replayer.ledger import DestinationLedger, Ledger, imbalances
from replayer.pipeline import Pipeline, Route
from replayer.reassembly import Flow
from replayer.settings import Caps, Destination, Settings
from tests.strategies import (
    BAIT,
    WRAP,
    Conversation,
    Exchange,
    Piece,
    Sent,
    Station,
    chunk,
    chunked,
    chunked_head,
    datagrams,
    examples,
    exchanges,
    get,
    meaning,
    pieces,
    plain_payloads,
    post,
    post_head,
    segment,
    segmented,
    targets,
)

CAPTURES = FilePath(__file__).parents[2] / "captures"
MIB = 1 << 20


def isns(exchange: Exchange) -> st.SearchStrategy[int]:
    """Initial sequence numbers: any, and those that put the wrap into the stream."""
    inside = st.integers(0, len(exchange.stream) + 1).map(lambda before: (WRAP - 1 - before) % WRAP)
    return st.integers(0, WRAP - 1) | inside


def ranges(exchange: Exchange, most: int) -> st.SearchStrategy[list[Piece]]:
    """Any parts of the stream, as retransmissions send them."""
    edges = st.tuples(st.integers(0, len(exchange.stream)), st.integers(1, 300))
    last = 200 * (len(exchange.turns) - 1)
    return st.lists(edges.map(lambda edge: Piece(edge[0], min(sum(edge), len(exchange.stream)), last)), max_size=most)


# Nothing lost: everything comes, whatever the network does to the segments


@examples(120)
@given(st.data(), exchanges())
def test_any_cut_in_any_order_with_any_copies(data: st.DataObject, exchange: Exchange) -> None:
    """The SYN is among the segments that come in any order, and so is the FIN."""
    client = Conversation(isn=data.draw(isns(exchange)))
    parts = data.draw(segmented(exchange))
    copies = data.draw(st.lists(st.sampled_from(parts), max_size=4)) + data.draw(ranges(exchange, 4))
    sent = datagrams(client, exchange.stream, parts + copies)
    client.lose(exchange.stream)
    sent += [client.syn()] * data.draw(st.integers(1, 2)) + [client.fin()] * data.draw(st.integers(0, 2))
    station = Station()
    station.feed(*data.draw(st.permutations(sent)))
    assert [meaning(request) for request in station.requests] == [sent.meaning for sent in exchange.requests]
    assert station.ledger.framed_bytes == len(exchange.stream)
    assert station.ledger.lost_bytes == sum(station.ledger.given_up_bytes.values()) == 0
    station.settle()
    station.close()
    assert len(station.requests) == len(exchange.requests)


@examples(60)
@given(st.data(), exchanges(), st.sampled_from([{}, {"client": "fd00::1", "server": "fd00::2"}, {"dot1q": (2,)}]))
def test_in_order_with_any_pauses(data: st.DataObject, exchange: Exchange, path: dict[str, Any]) -> None:
    """Each request comes with the segment that completes it, at once."""
    client = Conversation(isn=data.draw(isns(exchange)), **path)
    parts = data.draw(segmented(exchange))
    station = Station()
    station.feed(client.syn())
    for part, datagram in zip(parts, datagrams(client, exchange.stream, parts), strict=True):
        station.wait(data.draw(st.sampled_from([0, 0, 0.2, 2.0, 70.0])), step=10)
        station.feed(datagram)
        complete = sum(1 for end in exchange.starts[1:] if end <= part.end)
        assert len(station.requests) == complete
        assert all(
            request.at == station.now for request in station.requests[-1:] if complete and part.end in exchange.starts
        )
    assert [meaning(request) for request in station.requests] == [sent.meaning for sent in exchange.requests]
    offsets = [request.offset for request in station.requests]
    assert [offset - offsets[0] for offset in offsets] == exchange.starts[:-1]
    assert [request.size for request in station.requests] == [len(sent.wire) for sent in exchange.requests]
    assert len({request.key for request in station.requests}) == 1


@examples(40)
@given(st.data(), st.lists(exchanges(most=3), min_size=2, max_size=4), st.booleans())
def test_connections_side_by_side(data: st.DataObject, several: list[Exchange], by_vni: bool) -> None:
    clients = [Conversation(**({"vni": n} if by_vni else {"client_port": 5_000 + n})) for n in range(len(several))]
    queues = [
        [client.syn(), *datagrams(client, exchange.stream, data.draw(segmented(exchange)))]
        for client, exchange in zip(clients, several, strict=True)
    ]
    station = Station()
    while any(queues):
        station.feed(data.draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
    for number, exchange in enumerate(several):
        mine = [r for r in station.requests if r.key in keys_of(clients[number], station)]
        assert [meaning(request) for request in mine] == [sent.meaning for sent in exchange.requests]
    assert len(station.requests) == sum(len(exchange.requests) for exchange in several)


def keys_of(client: Conversation, station: Station) -> set[bytes]:
    """The flow keys of what `client` sent."""
    vni = (client.path.vni or 0).to_bytes(3, "big")
    port = client.path.client_port.to_bytes(2, "big")
    return {r.key for r in station.requests if r.key[:3] == vni and r.key[-4:-2] == port}


# Something lost: only what the loss touched is missing, and nothing is invented


def untouched(exchange: Exchange, lost: list[Piece]) -> list[int]:
    """The requests none of whose bytes was lost."""
    gone = {byte for piece in lost for byte in range(piece.start, piece.end)}
    return [number for number in range(len(exchange.requests)) if gone.isdisjoint(exchange.reach(number))]


def came(station: Station, exchange: Exchange) -> list[int]:
    """The numbers of the requests that came; each must be one that production got, byte for byte, in order, once."""
    wanted = {sent.target: (number, sent) for number, sent in enumerate(exchange.requests)}
    numbers = []
    for request in station.requests:
        number, sent = wanted[request.target]
        assert meaning(request) == sent.meaning
        numbers.append(number)
    assert numbers == sorted(set(numbers))
    return numbers


def findable(exchange: Exchange, kept: list[Piece]) -> set[int]:
    """The requests that can be told from other bytes: a whole head, of a registered method, begins a segment."""
    starts = {part.start: part.end - part.start for part in kept}
    return {
        number
        for number, sent in enumerate(exchange.requests)
        if starts.get(exchange.starts[number], 0) >= len(sent.head) and sent.method != b"M-SEARCH"
    }


@examples(150)
@given(st.data(), exchanges(payload=plain_payloads), st.booleans())
def test_loss_of_any_segments(data: st.DataObject, exchange: Exchange, shuffle: bool) -> None:
    """Later on a copy of every segment comes, those that were lost among them: too late, and no request twice."""
    client = Conversation(isn=data.draw(isns(exchange)))
    parts = data.draw(segmented(exchange, whole_methods=True))
    lost = [part for part in parts if data.draw(st.integers(0, 3)) == 0]
    kept = [part for part in parts if part not in lost]
    sent = datagrams(client, exchange.stream, kept)
    station = Station()
    station.feed(client.syn(), *(data.draw(st.permutations(sent)) if shuffle else sent))
    station.settle()
    assert station.ledger.payload_bytes == sum(part.end - part.start for part in kept)
    first_loss = min((part.start for part in lost), default=len(exchange.stream))
    numbers = came(station, exchange)
    assert set(numbers) <= set(untouched(exchange, lost))
    assert set(numbers) >= {n for n in range(len(exchange.requests)) if exchange.starts[n + 1] <= first_loss}
    station.feed(*data.draw(st.permutations(datagrams(client, exchange.stream, parts))))
    station.settle()
    station.close()
    assert came(station, exchange)[: len(numbers)] == numbers


@examples(150)
@given(st.data(), exchanges(payload=plain_payloads, pipelining=False), st.booleans())
def test_loss_costs_a_client_that_waits_for_answers_only_what_was_touched(
    data: st.DataObject, exchange: Exchange, shuffle: bool
) -> None:
    """A request that begins a segment with its whole head, after an answer, is found again behind any hole."""
    client = Conversation(isn=data.draw(isns(exchange)))
    parts = data.draw(segmented(exchange, whole_methods=True))
    lost = [part for part in parts if data.draw(st.integers(0, 3)) == 0]
    kept = [part for part in parts if part not in lost]
    sent = datagrams(client, exchange.stream, kept)
    station = Station()
    station.feed(client.syn(), *(data.draw(st.permutations(sent)) if shuffle else sent))
    station.settle()
    station.close()
    assert set(came(station, exchange)) >= findable(exchange, kept) & set(untouched(exchange, lost))


@examples(80)
@given(st.data(), exchanges(most=3), st.binary(min_size=20, max_size=100), st.integers(1, 100))
def test_loss_inside_bodies_of_known_length_costs_their_requests_only(
    data: st.DataObject, exchange: Exchange, text: bytes, length: int
) -> None:
    """Pipelined or not, with request text or without: the next request begins at a known byte."""
    for number, body in ((7, text), (8, b""), (9, BAIT * 2 + bytes(length))):
        wire = post(f"/{number}", body)
        head = post_head(f"/{number}", len(body))
        exchange.requests.append(Sent(b"POST", b"/%d" % number, head, wire, body))
        exchange.stream += wire
        exchange.starts.append(len(exchange.stream))
    begins = [exchange.starts[-2] + len(head), exchange.starts[-4] + len(post_head("/7", len(text)))]
    parts = pieces(exchange, [*begins, *data.draw(st.lists(st.integers(1, len(exchange.stream)), max_size=16))])
    bodies = [
        range(exchange.starts[n] + len(sent.head), exchange.starts[n + 1])
        for n, sent in enumerate(exchange.requests)
        if not sent.chunked
    ]
    inside = [part for part in parts if any(part.start in body and part.end - 1 in body for body in bodies)]
    lost = data.draw(st.lists(st.sampled_from(inside), min_size=1, unique=True)) if inside else []
    client = Conversation(isn=data.draw(isns(exchange)))
    station = Station()
    station.feed(client.syn(), *datagrams(client, exchange.stream, [part for part in parts if part not in lost]))
    client.lose(exchange.stream)
    station.feed(client.fin())
    station.settle()
    station.close()
    assert came(station, exchange) == untouched(exchange, lost)
    assert station.ledger.given_up["hole"] == len(exchange.requests) - len(untouched(exchange, lost))
    assert station.ledger.lost_bytes == sum(part.end - part.start for part in lost)
    assert station.ledger.resynchronised == 0


@examples(80)
@given(st.data(), st.lists(exchanges(payload=plain_payloads, pipelining=False, most=3), min_size=2, max_size=4))
def test_evictions_and_copies_never_double_a_request(data: st.DataObject, several: list[Exchange]) -> None:
    """A table of one or two flows, and connections in turns: each request comes once or not, whole or not."""
    queues = []
    for number, exchange in enumerate(several):
        client = Conversation(vni=number)
        parts = data.draw(segmented(exchange, whole_methods=True))
        queues.append([client.syn(), *datagrams(client, exchange.stream, parts)])
    station = Station(Caps(flows=data.draw(st.integers(1, 2))))
    sent: list[bytes] = []
    while any(queues):
        sent.append(data.draw(st.sampled_from([queue for queue in queues if queue])).pop(0))
        station.feed(sent[-1], *data.draw(st.lists(st.sampled_from(sent[-8:]), max_size=2)))
        station.wait(data.draw(st.sampled_from([0, 0, 0.2, 1.5])), step=0.5)
    station.settle()
    station.close()
    for number, exchange in enumerate(several):
        wanted = {request.target: request.meaning for request in exchange.requests}
        mine = [request for request in station.requests if request.key[:3] == number.to_bytes(3)]
        assert all(meaning(request) == wanted[request.target] for request in mine)
        assert len({request.target for request in mine}) == len(mine)


@examples(80)
@given(st.data(), st.lists(exchanges(most=3), min_size=2, max_size=3), st.integers(0, WRAP - 1))
def test_a_port_used_again_and_again(data: st.DataObject, several: list[Exchange], isn: int) -> None:
    """Late copies of the connection before are told from the present one by their sequence numbers."""
    station = Station()
    wanted = []
    old: list[bytes] = []
    for number, exchange in enumerate(several):
        client = Conversation(isn=isn % WRAP, ack=1_000_000 * number)
        parts = data.draw(segmented(exchange))
        present = [client.syn()]
        station.feed(client.syn())
        for datagram in datagrams(client, exchange.stream, parts):
            present.append(datagram)
            station.feed(datagram, *data.draw(st.lists(st.sampled_from(old + present), max_size=2)))
        client.lose(exchange.stream)
        end = data.draw(st.sampled_from(["fin", "rst", "neither"]))
        if end != "neither":
            present.append(client.fin() if end == "fin" else client.rst())
            station.feed(present[-1], *data.draw(st.lists(st.sampled_from(present), max_size=2)))
        wanted += [request.meaning for request in exchange.requests]
        station.wait(data.draw(st.sampled_from([0, 0.5, 5])), step=0.5)
        isn += len(exchange.stream) + data.draw(st.sampled_from([2, 1_000, 64_000, 1 << 20, 1 << 29]))
        old = present
    assert [meaning(request) for request in station.requests] == wanted
    station.settle()
    station.close()
    assert len(station.requests) == len(wanted)


@examples(100)
@given(st.data(), exchanges(payload=plain_payloads, pipelining=False), st.booleans())
def test_a_connection_joined_anywhere(data: st.DataObject, exchange: Exchange, shuffle: bool) -> None:
    """From the first request on that begins a segment with its whole head, everything comes."""
    client = Conversation(isn=data.draw(isns(exchange)))
    parts = data.draw(segmented(exchange, whole_methods=True))
    kept = parts[data.draw(st.integers(0, len(parts) - 1)) :]
    sent = datagrams(client, exchange.stream, kept)
    station = Station()
    station.feed(*(data.draw(st.permutations(sent)) if shuffle else sent))
    station.settle()
    station.close()
    numbers = came(station, exchange)
    assert set(numbers) >= findable(exchange, kept)
    assert all(exchange.starts[number] >= kept[0].start for number in numbers)
    assert station.ledger.flows_joined == 1


@st.composite
def baited(draw: st.DrawFn) -> tuple[Exchange, list[Piece], list[Piece]]:
    """A connection in which one body holds request text at a segment's start, and what may be lost before that."""
    exchange = draw(exchanges(payload=plain_payloads, pipelining=False, most=3))
    before, after = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    body = b"x" * before + BAIT * draw(st.integers(1, 2)) + b"y" * after
    carrier = chunked_head("/carrier") + chunk(b"w" * 30) + chunk(body) + b"0\r\n\r\n"
    if draw(st.booleans()):
        carrier = post("/carrier", body)
    start = len(exchange.stream)
    exchange.stream += carrier
    exchange.turns.append(start)
    bait = start + carrier.index(BAIT)
    for number in range(2):
        exchange.turns.append(len(exchange.stream))
        exchange.stream += get(f"/behind-{number}")
    cuts = [bait, *draw(st.lists(st.integers(1, len(exchange.stream)), max_size=8))]
    if draw(st.booleans()):
        cuts.append(bait + len(BAIT))
    parts = pieces(exchange, cuts)
    return exchange, parts, [part for part in parts if part.end <= bait]


@examples(150)
@given(st.data(), baited())
def test_request_text_behind_one_hole_is_never_a_request(
    data: st.DataObject, bait: tuple[Exchange, list[Piece], list[Piece]]
) -> None:
    """The hole is any run of segments before the text: in the body, in the head, in earlier requests."""
    exchange, parts, losable = bait
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(losable) - 1)] * 2)))
    lost = losable[first : last + 1]
    client = Conversation(isn=data.draw(isns(exchange)))
    station = Station()
    station.feed(client.syn(), *datagrams(client, exchange.stream, [part for part in parts if part not in lost]))
    station.settle()
    station.close()
    assert "/bait" not in station.targets
    assert set(station.targets) <= {r.target.decode() for r in exchange.requests} | {
        "/carrier",
        "/behind-0",
        "/behind-1",
    }
    heads_whole = [part.start for part in parts if part.end - part.start == len(get("/behind-0"))]
    for number in range(2):
        if exchange.stream.index(get(f"/behind-{number}")) in heads_whole:
            assert f"/behind-{number}" in station.targets


@examples(80)
@given(st.data(), baited())
def test_request_text_in_a_body_at_which_a_connection_is_joined(
    data: st.DataObject, bait: tuple[Exchange, list[Piece], list[Piece]]
) -> None:
    exchange, parts, losable = bait
    client = Conversation(isn=data.draw(isns(exchange)))
    station = Station()
    station.feed(*datagrams(client, exchange.stream, parts[len(losable) :]))
    station.settle()
    station.close()
    assert "/bait" not in station.targets
    assert "/carrier" not in station.targets


@examples(60)
@given(st.data(), exchanges(payload=plain_payloads))
def test_truncation_anywhere_is_a_hole(data: st.DataObject, exchange: Exchange) -> None:
    """Of some segments only the first bytes were captured; the IP total length says how many are missing."""
    client = Conversation(isn=data.draw(isns(exchange)))
    parts = data.draw(segmented(exchange, whole_methods=True))
    station = Station()
    station.feed(client.syn())
    missing = []
    for part, datagram in zip(parts, datagrams(client, exchange.stream, parts), strict=True):
        cut = data.draw(st.sampled_from([0, 0, 1, 7, 10_000]))
        cut = min(cut, part.end - part.start)
        station.feed(datagram[: len(datagram) - cut])
        if cut:
            missing.append(Piece(part.end - cut, part.end, 0))
    station.settle()
    station.close()
    numbers = came(station, exchange)
    first_loss = min((piece.start for piece in missing), default=len(exchange.stream))
    assert set(numbers) <= set(untouched(exchange, missing))
    assert set(numbers) >= {n for n in range(len(exchange.requests)) if exchange.starts[n + 1] <= first_loss}
    assert station.ledger.truncated == len(missing)
    assert station.ledger.lost_bytes == sum(piece.end - piece.start for piece in missing)


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PROPFIND"])
@pytest.mark.parametrize("joined", [False, True])
def test_a_request_whose_first_bytes_were_lost_is_no_request_of_another_method(method: str, joined: bool) -> None:
    """`ET / HTTP/1.1` is a valid head, but production got a GET."""
    for cut in range(1, len(method)):
        station, client = Station(), Conversation()
        wire = f"{method} /cut HTTP/1.1\r\nHost: h\r\n\r\n".encode()
        if not joined:
            station.feed(client.syn(), client.send(get("/0")))
        client.answered()
        client.lose(wire[:cut])
        station.feed(client.send(wire[cut:]))
        for number in (1, 2):
            client.answered()
            station.feed(client.send(get(f"/{number}")))
        station.settle()
        station.close()
        assert "/cut" not in station.targets
        assert station.targets[-2:] == ["/1", "/2"]


# Other protocols: recognised at the first segment, counted once per connection


def client_hello() -> bytes:
    """What Python's own TLS client sends first."""
    outgoing = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="shop.example").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (client_hello(), "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"), "http2"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "other_protocol"),
        (b"*1\r\n$4\r\nPING\r\n", "other_protocol"),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "other_protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "other_protocol"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [1, 5, 1_400])
def test_another_protocol_is_passed_over_once(first: bytes, reason: str, size: int) -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), *client.full(first, size))
    for _ in range(20):
        client.answered()
        station.feed(client.send(b"\x17\x03\x03\x00\x20" + b"secret\r\n" * 4), client.send(b"\n\n\r\n"))
    station.settle()
    assert station.requests == []
    assert station.ledger.passed_over_flows[reason] == sum(station.ledger.passed_over_flows.values()) == 1
    assert station.ledger.passed_over_bytes[reason] == station.ledger.payload_bytes
    assert sum(station.ledger.given_up.values()) == 0


@pytest.mark.parametrize("record", [0x16, 0x17])
def test_tls_joined_in_mid_stream_is_passed_over(record: int) -> None:
    station, client = Station(), Conversation()
    for _ in range(10):
        station.feed(client.send(bytes([record, 3, 3, 0, 200]) + bytes(range(200))))
        client.answered()
        station.wait(0.5)
    assert station.requests == []
    assert station.ledger.passed_over_flows["tls"] == 1
    assert station.ledger.passed_over_bytes["tls"] == station.ledger.payload_bytes


UPGRADE = b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
H2C = b"GET /1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n"
CONNECT = b"CONNECT db.example:443 HTTP/1.1\r\nHost: db.example:443\r\n\r\n"


@pytest.mark.parametrize("turning", [UPGRADE, CONNECT])
def test_an_upgraded_connection_is_passed_over_from_the_request_on(turning: bytes) -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(get("/1")))
    client.answered()
    station.feed(client.send(turning))
    for _ in range(3):
        client.answered()
        station.feed(client.send(get("/inside")), client.send(b"\x81\x85frame"))
    station.settle()
    assert station.targets == ["/1"]
    assert station.ledger.passed_over_flows["upgraded"] == 1
    assert station.ledger.passed_over_bytes["upgraded"] == station.ledger.payload_bytes - len(get("/1"))


def test_an_offer_of_h2c_is_a_request_and_http2_behind_it_is_passed_over() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(H2C))
    client.answered()
    station.feed(client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)), client.send(get("/2")))
    station.settle()
    assert station.targets == ["/1"]
    assert station.ledger.passed_over_flows["http2"] == 1


def test_an_offer_of_h2c_that_the_server_ignores() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(H2C))
    client.answered()
    station.feed(client.send(get("/2")))
    assert station.targets == ["/1", "/2"]


def test_a_reused_port_speaks_http_after_tls() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(client_hello()), client.rst())
    again = Conversation(isn=5_000_000)
    station.feed(again.syn(), again.send(get("/1")))
    assert station.targets == ["/1"]


# The named caps: each is reached, counted, and costs no more than it says


def test_flows_cap_lets_the_least_recently_used_leave() -> None:
    station = Station(Caps(flows=2))
    old, used, new = (Conversation(client_port=port) for port in (1_001, 1_002, 1_003))
    station.feed(used.syn(), used.send(get("/1")), old.syn(), old.send(post_head("/lost", 10) + b"12345"))
    used.answered()
    station.feed(used.send(post_head("/2", 4) + b"bo"))
    station.feed(new.syn(), new.send(get("/3")), used.send(b"dy"))
    assert station.targets == ["/1", "/3", "/2"]
    assert station.ledger.flows == 2
    assert station.ledger.flows_evicted == 1
    assert station.ledger.given_up["evicted"] == 1
    assert station.ledger.given_up_bytes["evicted"] == len(post_head("/lost", 10)) + 5
    assert station.ledger.held_bytes == 0


def test_many_flows_stay_under_the_cap() -> None:
    station = Station(Caps(flows=10, tombstones=5))
    for port in range(2_000, 2_100):
        client = Conversation(client_port=port)
        station.feed(client.syn(), client.send(post_head("/part", 100) + bytes(50)))
        assert station.ledger.flows <= 10
        assert station.ledger.tombstones <= 5
    assert station.ledger.flows_evicted == station.ledger.given_up["evicted"] == 90
    assert station.ledger.tombstones_evicted == 85


def test_tombstones_cap_and_timeout() -> None:
    station = Station(Caps(tombstones=2, tombstone_timeout=30))
    for port in range(5):
        client = Conversation(client_port=3_000 + port)
        station.feed(client.syn(), client.send(get("/")), client.fin())
    assert station.ledger.tombstones == 2
    assert station.ledger.tombstones_evicted == 3
    station.wait(29)
    assert station.ledger.tombstones == 2
    station.wait(2)
    assert station.ledger.tombstones == 0
    assert station.ledger.flows == 0


def test_no_tombstones_at_all() -> None:
    station, client = Station(Caps(tombstones=0)), Conversation()
    station.feed(client.syn(), client.send(get("/")), client.fin())
    assert station.targets == ["/"]
    assert station.ledger.tombstones == 0


def test_held_per_flow_gives_the_hole_up_before_its_time() -> None:
    station, client = Station(Caps(held_per_flow=20_000)), Conversation()
    wire = post("/lost", bytes(60_000))
    station.feed(client.syn(), client.send(wire[:1_000]))
    client.lose(wire[1_000:2_000])
    most = 0
    for datagram in client.full(wire[2_000:], 1_000):
        station.feed(datagram)
        most = max(most, station.ledger.held_bytes)
    client.answered()
    assert targets(station.feed(client.send(get("/next")))) == ["/next"]
    assert most <= 1_000 + 20_000, "what came before the hole, and what waits behind it"
    assert station.ledger.holes == 1
    assert station.ledger.lost_bytes == 1_000


def test_many_tiny_segments_behind_a_hole_are_bounded_too() -> None:
    """One byte a segment: what is held is bounded in pieces as well as in bytes."""
    station, client = Station(Caps(hole_timeout=3_600)), Conversation()
    wire = post("/lost", bytes(20_000))
    station.feed(client.syn(), client.send(wire[:1_000]))
    client.lose(wire[1_000:2_000])
    station.feed(*client.full(wire[2_000:], 1))
    client.answered()
    assert targets(station.feed(client.send(get("/next")))) == ["/next"]


def test_held_total_bounds_incomplete_requests() -> None:
    station = Station(Caps(held_total=10_000))
    clients = [Conversation(client_port=4_000 + number) for number in range(20)]
    for client in clients:
        station.feed(client.syn(), client.send(post_head("/part", 2_000) + bytes(1_000)))
        assert station.ledger.held_bytes <= 10_000
    for client in clients:
        station.feed(client.send(bytes(1_000)))
        assert station.ledger.held_bytes <= 10_000
        client.answered()
        station.feed(client.send(get("/next")))
    given_up = station.ledger.given_up["held_total"]
    assert given_up >= 11, "twenty times 1,060 bytes do not fit"
    assert station.targets.count("/part") == 20 - given_up
    assert station.targets.count("/next") == 20
    assert all(bytes(request.body) == bytes(2_000) for request in station.requests if request.target == b"/part")


def test_held_total_bounds_what_waits_behind_holes() -> None:
    station = Station(Caps(held_total=10_000))
    clients = [Conversation(client_port=4_000 + number) for number in range(20)]
    for client in clients:
        wire = post("/lost", bytes(3_000))
        station.feed(client.syn(), client.send(wire[:500]))
        client.lose(wire[500:1_000])
        station.feed(client.send(wire[1_000:]))
        assert station.ledger.held_bytes <= 10_000
    station.settle()
    for client in clients:
        client.answered()
        station.feed(client.send(get("/next")))
    station.settle()
    assert station.targets == ["/next"] * 20


def test_held_total_bounds_heads() -> None:
    station = Station(Caps(held_total=10_000))
    for number in range(20):
        client = Conversation(client_port=4_000 + number)
        station.feed(client.syn(), client.send(get("/" + "h" * 2_000)[:-2]))
        assert station.ledger.held_bytes <= 10_000
    assert station.ledger.given_up["held_total"] >= 15


def test_held_total_bounds_joining_flows_and_probation() -> None:
    station = Station(Caps(held_total=10_000))
    clients = [Conversation(client_port=4_000 + number) for number in range(20)]
    for client in clients:
        station.feed(client.send(post("/1", bytes(1_000))))
        assert station.ledger.held_bytes <= 10_000
    station.settle()
    for client in clients:
        client.answered()
        station.feed(client.send(get("/2")))
        client.answered()
        station.feed(client.acknowledge())
    station.settle()
    assert station.targets.count("/2") == 20


def test_stalled_uploads_give_way_to_live_ones() -> None:
    """A client that went away inside a request must not hold what the next ones need, however long it is silent."""
    station = Station(Caps(held_total=100_000))
    for number in range(9):
        stalled = Conversation(client_port=4_000 + number)
        station.feed(stalled.syn(), *stalled.full(post_head("/stalled", 50_000) + bytes(10_000), 1_400))
    for number in range(20):
        client = Conversation(client_port=5_000 + number)
        station.feed(client.syn(), *client.full(post("/live", bytes(30_000)), 1_400))
        assert station.ledger.held_bytes <= 100_000
    assert station.targets == ["/live"] * 20
    assert station.ledger.given_up["held_total"] >= 3


def test_long_hosts_of_strangers_fill_no_cache() -> None:
    """What a client can choose freely must not stay in memory when the request is gone."""
    destination = Destination(url="http://test.example")
    settings = Settings(destinations=(destination,))
    pipeline, route = Pipeline(settings, Ledger()), Route(settings, destination, DestinationLedger())
    client = Conversation()
    pipeline.receive(client.syn(), 0.0)
    tracemalloc.start()
    sizes = []
    for number in range(300):
        host = b"%05d" % number + b"h" * 50_000
        datagrams = client.full(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", 8_000)
        requests = [request for datagram in datagrams for request in pipeline.receive(datagram, 0.0)]
        assert [route.outgoing(request) is not None for request in requests] == [True]
        client.answered()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert sizes[-1] - sizes[50] < 1_000_000


@pytest.mark.parametrize("first", [b"GET /", b"G"])
def test_a_request_line_in_tiny_segments_costs_linear_time(first: bytes) -> None:
    """Bytes looked at, not seconds: a doubled line may cost little more than double."""

    def cost(size: int) -> float:
        station, client = Station(Caps(head=1 << 20)), Conversation()
        datagrams = client.full(first + b"a" * size, 1)
        station.feed(client.syn())
        begun = process_time()
        for datagram in datagrams:
            station.pipeline.receive(datagram, station.now)
        return process_time() - begun

    small = min(cost(4_000) for _ in range(3))
    assert min(cost(32_000) for _ in range(3)) < 3 * 8 * small


@pytest.mark.parametrize("size", [1, 100, 1_400])
def test_head_cap(size: int) -> None:
    station = Station(Caps(head=1_000))
    fits = get("/" + "a" * (1_000 - len(get("/"))))
    assert len(fits) == 1_000
    client = Conversation()
    station.feed(client.syn(), *client.full(fits, size))
    assert len(station.requests) == 1
    client.answered()
    over = get("/" + "a" * (1_001 - len(get("/"))))
    station.feed(*client.full(over, size))
    client.answered()
    station.feed(client.send(get("/next-1")))
    client.answered()
    station.feed(client.send(get("/next-2")))
    assert [len(request.target) for request in station.requests] == [1_000 - len(get("/")) + 1, 7, 7]
    assert station.ledger.given_up["head_too_large"] == 1


@pytest.mark.parametrize("size", [10, 1_400])
def test_a_head_without_an_end_is_not_held_beyond_the_cap(size: int) -> None:
    station, client = Station(Caps(head=5_000)), Conversation()
    station.feed(client.syn(), client.send(b"GET / HTTP/1.1\r\nHost: h\r\nX-Endless: "))
    most = 0
    for datagram in client.full(b"e" * 60_000, size):
        station.feed(datagram)
        most = max(most, station.ledger.held_bytes)
    assert most <= 5_000
    assert station.ledger.given_up["head_too_large"] == 1


def test_the_head_cap_holds_for_trailers() -> None:
    station, client = Station(Caps(head=2_000)), Conversation()
    trailers = b"".join(b"X-%d: trailer\r\n" % number for number in range(1_000))
    station.feed(client.syn(), *client.full(chunked_head("/1") + chunk(b"body") + b"0\r\n" + trailers + b"\r\n"))
    client.answered()
    station.feed(client.send(get("/2")))
    client.answered()
    station.feed(client.send(get("/3")))
    assert station.targets == ["/2", "/3"]


def test_a_chunk_extension_without_an_end_is_not_held() -> None:
    station, client = Station(Caps(head=2_000)), Conversation()
    station.feed(client.syn(), client.send(chunked_head("/1") + b"5;"))
    for datagram in client.full(b"e" * 200_000):
        station.feed(datagram)
        assert station.ledger.held_bytes < 20_000
    assert sum(station.ledger.given_up.values()) == 1


@pytest.mark.parametrize("size", [1_400, 8_900])
@pytest.mark.parametrize("coding", ["length", "chunked", "one chunk"])
@pytest.mark.parametrize("over", [0, 1, 30_000])
def test_body_cap(size: int, coding: str, over: int) -> None:
    """A body of the cap comes whole; a larger one is given up, and the stream goes on exactly behind it."""
    station, client = Station(Caps(body=50_000)), Conversation()
    body = bytes(range(250)) * 200 + bytes(over)
    wire = post("/body", body)
    if coding == "chunked":
        wire = chunked("/body", *(body[at : at + 1_000] for at in range(0, len(body), 1_000)))
    if coding == "one chunk":
        wire = chunked("/body", body)
    most = 0
    for datagram in [client.syn(), *client.full(wire + get("/pipelined"), size)]:
        station.feed(datagram)
        most = max(most, station.ledger.held_bytes)
    assert station.targets == (["/pipelined"] if over else ["/body", "/pipelined"])
    assert station.ledger.given_up["body_too_large"] == bool(over)
    assert most <= 50_000 + 2_000
    if not over:
        assert bytes(station.requests[0].body) == body


# Large uploads


def upload(station: Station, size: int, piece: int) -> float:
    """CPU seconds for an upload of `size` bytes in segments of `piece`, without the making of the datagrams."""
    client = Conversation(client_port=20_000 + size // MIB)
    block = bytes(range(256)) * (piece // 256 + 1)
    station.feed(client.syn(), client.send(post_head("/upload", size)))
    spent = 0.0
    at = 0
    while at < size:
        batch = []
        for _ in range(256):
            took = min(piece, size - at)
            if took:
                batch.append(client.send(block[:took]))
                at += took
        begin = time.process_time()
        for datagram in batch:
            station.requests += station.pipeline.receive(datagram, station.now)
        spent += time.process_time() - begin
    return spent


def test_an_upload_of_100_mib_with_the_cap_raised() -> None:
    station = Station(Caps(body=128 * MIB))
    upload(station, 100 * MIB, 1_448)
    (request,) = station.requests
    assert len(request.body) == 100 * MIB
    block = (bytes(range(256)) * 6)[:1_448]
    whole, rest = divmod(100 * MIB, 1_448)
    digest = sha256()
    for _ in range(whole):
        digest.update(block)
    digest.update(block[:rest])
    assert sha256(request.body).digest() == digest.digest()
    assert imbalances(station.ledger) == []


def test_uploads_cost_linear_time() -> None:
    """Five times the size: about five times the work; a quadratic one would be 25 times."""
    small = min(upload(Station(Caps(body=128 * MIB)), 10 * MIB, 1_448) for _ in range(3))
    large = min(upload(Station(Caps(body=128 * MIB)), 50 * MIB, 1_448) for _ in range(2))
    assert large < 12 * small


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_an_upload_beyond_the_default_cap_is_refused_and_not_held(coding: str) -> None:
    station, client = Station(), Conversation()
    cap = station.settings.caps.body
    assert cap == 10 * MIB
    block = bytes(8_900)
    station.feed(client.syn())
    count = 100 * MIB // len(block)
    station.feed(client.send(post_head("/huge", count * len(block)) if coding == "length" else chunked_head("/huge")))
    most = 0
    piece = block if coding == "length" else chunk(block)
    for _ in range(count):
        station.now += 0.000_1
        station.requests += station.pipeline.receive(client.send(piece), station.now)
        most = max(most, station.ledger.held_bytes)
    if coding == "chunked":
        station.feed(client.send(b"0\r\n\r\n"))
    station.feed(client.send(get("/next")))
    assert station.targets == ["/next"]
    assert station.ledger.given_up["body_too_large"] == 1
    coding_bytes = count * (len(piece) - len(block)) + len(chunked_head("/huge"))
    assert most <= cap + coding_bytes


# The law


class Forgetful:
    """Drops the third call's data without a word."""

    def __init__(self, method: Any, empty: Any, at: int) -> None:
        self.method, self.empty, self.at, self.calls = method, empty, at, 0

    def bind(self) -> Any:
        """As a method of the class it spoils."""

        def spoiled(this: Any, *arguments: Any) -> Any:
            self.calls += 1
            return self.empty if self.calls == self.at else self.method(this, *arguments)

        return spoiled


def reordered_story(ledger: Ledger) -> Pipeline:
    """Three requests, each in segments out of order."""
    pipeline = Pipeline(Settings(), ledger)
    client = Conversation()
    pipeline.receive(client.syn(), 1.0)
    for number in range(3):
        first, second, third = client.cut(post(f"/{number}", b"b" * 100), 60, 60)
        for datagram in (second, first, third):
            pipeline.receive(datagram, 1.0)
    return pipeline


def test_the_story_balances_when_nothing_is_lost() -> None:
    ledger = Ledger()
    reordered_story(ledger)
    assert ledger.framed == 3
    assert imbalances(ledger) == []


@pytest.mark.parametrize(("owner", "name"), [(Flow, "receive"), (Framer, "receive")])
@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_reassembler_that_loses_one_segment_breaks_the_balance(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int
) -> None:
    """The law is counted, not derived: what vanishes in the middle shows at once, and still at the end."""
    spoiled = Forgetful(getattr(owner, name), [], at)
    monkeypatch.setattr(owner, name, spoiled.bind())
    ledger = Ledger()
    pipeline = reordered_story(ledger)
    assert spoiled.calls >= at
    assert imbalances(ledger) != []
    pipeline.expire(100.0)
    pipeline.close(100.0)
    assert imbalances(ledger) != []


def test_the_end_of_input_accounts_for_what_was_incomplete() -> None:
    station = Station()
    half, holed, joined = (Conversation(client_port=port) for port in (6_001, 6_002, 6_003))
    station.feed(half.syn(), half.send(post_head("/half", 100) + b"half"))
    station.feed(holed.syn(), holed.send(get("/1")))
    holed.lose(b"lost")
    station.feed(holed.send(b"behind a hole"))
    station.feed(joined.send(b"in mid-stream"))
    station.close()
    assert station.targets == ["/1"]
    assert station.ledger.given_up["ended"] >= 1


def test_the_last_request_of_a_joined_flow_comes_at_the_end_of_input() -> None:
    """A capture that ends with it: nothing contradicts it any more."""
    station, client = Station(), Conversation()
    station.feed(client.send(get("/1")))
    client.answered()
    station.feed(client.send(get("/2")))
    station.close()
    assert station.targets == ["/1", "/2"]


# Damage


def real_datagrams() -> list[bytes]:
    """The UDP payloads of mirrored packets in the capture of real traffic."""
    with gzip.open(CAPTURES / "mirrored.pcap.gz") as file, RawPcapReader(file) as reader:
        return [frame[42:] for frame, _ in reader if frame[36:38] == (4_789).to_bytes(2, "big")]


def other_datagrams() -> list[bytes]:
    """The datagrams that captures of one client do not hold."""
    out = []
    for path in ({"client": "fd00::1", "server": "fd00::2"}, {"dot1q": (1,), "ip_options": 8}, {"tcp_options": 12}):
        client = Conversation(**path)
        out += [
            client.syn(),
            client.send(chunked("/c", b"chunk", b"data")),
            client.send(get("/1") + post("/2", b"x" * 300)),
        ]
        out += [client.send(UPGRADE), client.fin(), client.rst()]
    return out


def damage(random: Random, datagram: bytes) -> bytes:
    """Change, cut, lengthen or repeat some bytes."""
    out = bytearray(datagram)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        if not out:
            break
        at = random.randrange(len(out))
        kind = random.randrange(8)
        if kind < 3:
            out[at] = random.randrange(256)
        elif kind == 3:
            out[at] ^= 1 << random.randrange(8)
        elif kind == 4:
            del out[at:]
        elif kind == 5:
            del out[at : at + random.randrange(1, 9)]
        elif kind == 6:
            out[at:at] = random.randbytes(random.randrange(1, 9))
        else:
            out[random.randrange(min(80, len(out)))] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(out)


def healthy(clients: list[Conversation]) -> Iterator[tuple[bytes, str]]:
    """Without end, datagrams of clients that take turns, each with the target that it completes, if any."""
    for number in range(1 << 30):
        client = clients[number % len(clients)]
        wire = chunked(f"/healthy/{number}", b"whole" * 20)
        first, last = client.cut(wire, 70)
        client.answered()
        yield first, ""
        yield last, f"/healthy/{number}"


def test_damaged_datagrams_beside_healthy_connections() -> None:
    count = int(os.environ.get("DAMAGED_DATAGRAMS", "100000"))
    random = Random(4_789)
    seeds = real_datagrams() + other_datagrams()
    assert len(seeds) > 20
    ledger = Ledger()
    caps = Caps(flows=2_000, tombstones=2_000, held_total=4 * MIB)
    pipeline = Pipeline(Settings(caps=caps), ledger)
    clients = [Conversation(vni=0x5A5A5A, client="192.0.2.1", server="192.0.2.2", client_port=n) for n in range(1, 9)]
    whole = healthy(clients)
    now = 1_000.0
    wanted: list[str] = []
    got: list[str] = []
    for client in clients:
        pipeline.receive(client.syn(), now)
    sizes = []
    tracemalloc.start()
    try:
        for number in range(count):
            now += 0.000_1
            out = list(pipeline.receive(damage(random, random.choice(seeds)), now))
            if number % 10 == 0:
                datagram, target = next(whole)
                wanted += [target] if target else []
                out += pipeline.receive(datagram, now)
            if number % 100 == 0:
                out += pipeline.expire(now)
                assert imbalances(ledger) == []
                assert ledger.flows <= 2_000
                assert ledger.tombstones <= 2_000
                assert ledger.held_bytes <= 4 * MIB
            got += [
                r.target.decode("latin-1") for r in out if r.key[:3] == b"\x5a\x5a\x5a" and r.target[:9] == b"/healthy/"
            ]
            if number % (count // 4) == count // 4 - 1:
                sizes.append(tracemalloc.get_traced_memory()[0] - sum(map(len, got)) - 120 * len(wanted + got))
    finally:
        tracemalloc.stop()
    pipeline.close(now)
    assert imbalances(ledger) == []
    assert ledger.held_bytes == 0
    assert got == wanted
    assert ledger.refused["short"] > 0
    assert sizes[-1] < sizes[0] + 4 * MIB, sizes


@examples(150)
@given(st.data(), exchanges())
def test_damaged_streams_never_raise(data: st.DataObject, exchange: Exchange) -> None:
    """Bytes changed, put in and taken out of the stream itself: a client that does not speak HTTP well."""
    stream = bytearray(exchange.stream)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(stream) - 1)))
        kind = data.draw(st.sampled_from(["set", "insert", "delete"]))
        if kind == "set" and stream:
            stream[at] = data.draw(st.sampled_from(b"\0\r\n :;,0123456789abcdefxHTP/\xff"))
        elif kind == "insert":
            stream[at:at] = data.draw(
                st.sampled_from([b"\r\n", b"\n", b"\0", b"Content-Length: 5\r\n", b"\r\n\r\n", b"G"])
            )
        else:
            del stream[at : at + data.draw(st.integers(1, 20))]
    assume(stream)
    spoiled = Exchange(stream=bytes(stream))
    client = Conversation()
    station = Station()
    station.feed(client.syn(), *datagrams(client, spoiled.stream, data.draw(segmented(spoiled))))
    client.lose(spoiled.stream)
    client.answered()
    station.feed(client.send(get("/good-1")))
    client.answered()
    station.feed(client.send(get("/good-2")))
    station.settle()
    station.close()


@examples(100)
@given(
    st.lists(st.tuples(st.integers(0, WRAP - 1), st.integers(0, 255), st.binary(max_size=20)), max_size=12), st.data()
)
def test_any_flags_and_numbers_never_raise(items: list[tuple[int, int, bytes]], data: st.DataObject) -> None:
    client = Conversation()
    station = Station(Caps(flows=2, tombstones=2))
    for seq, flags, payload in items:
        near = data.draw(st.sampled_from([seq, client.isn, client.isn + seq % 50, client.isn + (1 << 31)]))
        station.feed(segment(client.path, flags, near, 0, payload))
        if data.draw(st.booleans()):
            station.wait(data.draw(st.sampled_from([0.05, 0.2, 2, 40])), step=1)
    station.settle()
    station.close()


# Real captures


def frames_of(name: str) -> tuple[int, list[bytes]]:
    """The link type and the frames of a capture."""
    opened: Any = gzip.open if name.endswith(".gz") else open
    with opened(CAPTURES / name, "rb") as file, RawPcapReader(file) as reader:
        return reader.linktype, [frame for frame, _ in reader]


ASKED = [
    (b"GET", b"/ready"), (b"GET", b"/one?a=1"), (b"GET", b"/two"),
    (b"PROPFIND", b"/six"), (b"POST", b"/post"), (b"PUT", b"/chunked"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["ethernet.pcap", "nanosecond.pcap", "cooked1.pcap", "mirrored.pcap.gz"])
def test_captures_of_real_traffic(name: str) -> None:
    """captures/README.md says what the clients asked."""
    link_type, frames = frames_of(name)
    station = Station()
    station.feed_frames(link_type, *frames)
    station.settle()
    station.close()
    assert [(request.method, request.target) for request in station.requests] == ASKED
    sent, coded = station.requests[-2:]
    assert len(sent.body) == 6_668
    assert sent.body == coded.body
    assert (sent.chunked, coded.chunked) == (False, True)
    assert b"X-MiXed: Case\r\n" in station.requests[1].head


def test_a_capture_that_really_lost_a_segment() -> None:
    """tcpdump missed the five bytes of the last chunk: the upload is given up, however near its end."""
    link_type, frames = frames_of("cooked2.pcap")
    station = Station()
    station.feed_frames(link_type, *frames)
    station.settle()
    station.close()
    assert [(request.method, request.target) for request in station.requests] == ASKED[:-1]
    assert station.ledger.lost_bytes == len(b"0\r\n\r\n")
    assert station.ledger.given_up["hole"] == 1


def test_geneve_datagrams() -> None:
    station = Station()
    for number, kind in enumerate(("ethernet", "ip", "vxlan")):
        client = Conversation(geneve=kind, geneve_options=(b"\0" * 8, b"\1" * 4), client_port=8_000 + number)
        station.feed_geneve(client.syn(), *client.cut(post(f"/{kind}", b"body"), 50))
    assert station.targets == ["/ethernet", "/ip", "/vxlan"]


def test_settings_choose_vnis_and_ports() -> None:
    station = Station(vnis=(7, 9), http_ports=(80, 8080))
    for vni, port in ((7, 80), (8, 80), (9, 8080), (9, 8081)):
        client = Conversation(vni=vni, server_port=port)
        station.feed(client.syn(), client.send(get(f"/{vni}/{port}")))
    assert station.targets == ["/7/80", "/9/8080"]
    assert station.ledger.refused["other_vni"] == station.ledger.refused["other_port"] == 2


def test_any_port_recognises_requests_by_content() -> None:
    """`http_ports` empty: the answers that come the other way are another protocol."""
    station = Station(http_ports=())
    client = Conversation(server_port=12_345)
    server = Conversation(
        client="10.0.1.1", server="10.0.0.1", client_port=12_345, server_port=40_000, isn=77, ack=client.isn + 1
    )
    station.feed(client.syn(), server.syn(), client.send(get("/1")))
    station.feed(server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    client.answered()
    station.feed(client.send(get("/2")), server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    assert station.targets == ["/1", "/2"]
    assert station.ledger.passed_over_flows["other_protocol"] == 1


# Routes


def routed(wire: bytes, **destination: Any) -> tuple[Any, Any]:
    """What a destination gets of one request, and its ledger."""
    there = Destination(url="http://test.example", **destination)
    station = Station(destinations=(there,))
    client = Conversation()
    (request,) = station.feed(client.syn(), client.send(wire))
    part = station.ledger.destination(there.url)
    return Route(station.settings, there, part).outgoing(request), part


def test_a_route_counts_what_it_selects() -> None:
    outgoing, part = routed(get("/1"))
    assert outgoing.method == b"GET"
    assert (part.framed, part.selected, sum(part.passed_over.values())) == (1, 1, 0)


def test_a_route_passes_over_other_methods() -> None:
    outgoing, part = routed(post("/1", b"write"), methods=("GET", "HEAD"))
    assert outgoing is None
    assert (part.framed, part.selected, part.passed_over["method"]) == (1, 0, 1)


def test_methods_are_case_sensitive() -> None:
    """RFC 9110 §9.1."""
    outgoing, _ = routed(b"get / HTTP/1.1\r\nHost: h\r\n\r\n", methods=("GET",))
    assert outgoing is None


@pytest.mark.parametrize("name", ["X-Traffic-Replay", "x-traffic-replay", "X-TRAFFIC-REPLAY"])
@pytest.mark.parametrize("value", ["1", "", "whatever"])
def test_a_route_passes_over_what_bears_the_mark(name: str, value: str) -> None:
    outgoing, part = routed(f"GET / HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\n\r\n".encode())
    assert outgoing is None
    assert (part.framed, part.selected, part.passed_over["marked"]) == (1, 0, 1)


def test_what_looks_like_the_mark_elsewhere_is_none() -> None:
    outgoing, _ = routed(b"GET /?X-Traffic-Replay:1 HTTP/1.1\r\nHost: h\r\nX-Other: X-Traffic-Replay: 1\r\n\r\n")
    assert outgoing is not None


def test_a_route_passes_over_beyond_its_percentage() -> None:
    outgoing, part = routed(get("/1"), percentage=0)
    assert outgoing is None
    assert (part.framed, part.selected, part.passed_over["percentage"]) == (1, 0, 1)


@pytest.mark.parametrize("mark", ["X-Other-Mark", "X-New-Mark"])
def test_new_settings_take_effect_without_losing_a_request(mark: str) -> None:
    """Also for requests whose heads came before: the new mark and the new headers are looked for in them too."""
    station = Station(destinations=(Destination(url="http://test.example"),))
    client, joined = Conversation(), Conversation(client_port=9_000)
    head = b"POST /1 HTTP/1.1\r\nHost: h\r\nCookie: secret\r\nX-New-Mark: 1\r\nContent-Length: 4\r\n\r\n"
    station.feed(client.syn(), client.send(head), joined.send(head + b"body"))
    station.wait(0.3)
    there = Destination(url="http://test.example", drop_headers=("Cookie",), methods=("POST",))
    new = Settings(destinations=(there,), mark_header=mark)
    station.pipeline.reconfigure(new)
    route = Route(new, there, station.ledger.destination(there.url))
    station.feed(client.send(b"body"))
    station.settle()
    outgoing = [route.outgoing(request) for request in station.requests]
    assert len(outgoing) == 2
    if mark == "X-New-Mark":
        assert outgoing == [None, None]
    else:
        assert all(each is not None and b"secret" not in each.head for each in outgoing)


def test_reconfiguring_changes_ports_and_caps() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(get("/1")))
    station.pipeline.reconfigure(Settings(http_ports=(81,), caps=Caps(body=10)))
    client.answered()
    station.feed(client.send(get("/2")))
    other = Conversation(server_port=81)
    station.feed(other.syn(), other.send(post("/3", b"0123456789")), other.send(post("/4", b"01234567890")))
    assert station.targets == ["/1", "/3"]
    assert station.ledger.given_up["body_too_large"] == 1
