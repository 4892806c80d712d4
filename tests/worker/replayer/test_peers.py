"""What GoReplay or the AWS sample loses, doubles or corrupts, packet by packet; each is one story here."""

from typing import Any

import pytest
from scapy.layers.l2 import Ether

from replayer.settings import Caps
from tests.strategies import (
    BAIT,
    FIN,
    WRAP,
    Conversation,
    Station,
    chunk,
    chunked,
    chunked_head,
    get,
    meaning,
    post,
    post_head,
    segment,
    stack,
    targets,
)


def bodies(station: Station) -> dict[str, bytes]:
    """The body of every request so far, by its target."""
    return {request.target.decode(): bytes(request.body) for request in station.requests}


# Pipelining


def test_two_pipelined_gets_in_one_segment() -> None:
    station, client = Station(), Conversation()
    out = station.feed(client.syn(), client.send(get("/1") + get("/2")))
    assert targets(out) == ["/1", "/2"]
    assert [request.head for request in out] == [get("/1"), get("/2")]


def test_two_pipelined_gets_in_two_segments_under_one_ack() -> None:
    station, client = Station(), Conversation()
    assert targets(station.feed(client.syn(), client.send(get("/1")))) == ["/1"]
    assert targets(station.feed(client.send(get("/2")))) == ["/2"]


# Retransmission


def test_retransmission_with_other_boundaries_is_taken_once() -> None:
    station, client = Station(), Conversation()
    wire = post("/upload", bytes(range(200)))
    station.feed(client.syn(), *client.cut(wire, 10, 90))
    station.feed(client.at(5, wire[5:60]), client.at(0, wire), client.at(40, wire[40:]))
    client.answered()
    station.feed(client.send(get("/next")))
    assert station.targets == ["/upload", "/next"]
    assert bodies(station)["/upload"] == bytes(range(200))
    assert station.ledger.duplicate_bytes == 55 + len(wire) + len(wire) - 40


def test_retransmission_that_brings_old_and_new_bytes() -> None:
    station, client = Station(), Conversation()
    wire = post("/upload", b"0123456789" * 20)
    station.feed(client.syn(), client.at(0, wire[:120]), client.at(60, wire[60:200]), client.at(10, wire[10:]))
    assert bodies(station) == {"/upload": b"0123456789" * 20}
    assert station.ledger.duplicate_bytes == 60 + 190


def test_retransmission_with_other_boundaries_while_a_segment_is_missing() -> None:
    station, client = Station(), Conversation()
    wire = post("/upload", b"0123456789" * 20)
    station.feed(client.syn(), client.at(0, wire[:50]), client.at(100, wire[100:150]), client.at(90, wire[90:160]))
    station.feed(client.at(140, wire[140:]), client.at(95, wire[95:120]), client.at(40, wire[40:101]))
    assert bodies(station) == {"/upload": b"0123456789" * 20}
    assert station.ledger.lost_bytes == 0


def test_late_retransmission_before_the_close() -> None:
    station, client = Station(), Conversation()
    first = client.send(get("/1"))
    station.feed(client.syn(), first)
    client.answered()
    station.feed(first, client.send(get("/2")), first)
    station.wait(5)
    station.feed(first, client.acknowledge())
    station.settle()
    assert station.targets == ["/1", "/2"]
    assert station.ledger.duplicate_bytes == 3 * len(get("/1"))


def test_late_retransmission_after_fin() -> None:
    station, client = Station(), Conversation()
    first = client.send(get("/1"))
    station.feed(client.syn(), first)
    client.answered()
    station.feed(client.fin(), first)
    station.settle()
    station.feed(first)
    station.settle()
    station.close()
    assert station.targets == ["/1"]
    assert station.ledger.duplicate_bytes == 2 * len(get("/1"))


def test_late_retransmission_after_a_fin_that_bore_the_request() -> None:
    station, client = Station(), Conversation()
    last = client.fin(get("/1"))
    station.feed(client.syn(), last, last)
    station.settle()
    station.feed(last)
    station.settle()
    station.close()
    assert station.targets == ["/1"]
    assert station.ledger.duplicate_bytes == 2 * len(get("/1"))


def test_late_retransmission_after_rst() -> None:
    station, client = Station(), Conversation()
    first = client.send(get("/1"))
    station.feed(client.syn(), first)
    client.answered()
    station.feed(client.rst(), first)
    station.settle()
    station.feed(first)
    station.settle()
    station.close()
    assert station.targets == ["/1"]
    assert station.ledger.duplicate_bytes == 2 * len(get("/1"))


def test_late_retransmission_after_eviction() -> None:
    station, client = Station(Caps(flows=2)), Conversation()
    first = client.send(get("/1"))
    station.feed(client.syn(), first)
    for port in (50_001, 50_002):
        other = Conversation(client_port=port)
        station.feed(other.syn(), other.send(get(f"/{port}")))
    assert station.ledger.flows_evicted == 1
    station.feed(first)
    station.settle()
    station.feed(first)
    station.settle()
    station.close()
    assert station.targets == ["/1", "/50001", "/50002"]
    assert station.ledger.duplicate_bytes == 2 * len(get("/1"))


def test_an_evicted_connection_goes_on() -> None:
    station, client = Station(Caps(flows=2)), Conversation()
    first = client.send(get("/1"))
    station.feed(client.syn(), first)
    for port in (50_001, 50_002):
        other = Conversation(client_port=port)
        station.feed(other.syn(), other.send(get(f"/{port}")))
    client.answered()
    station.feed(client.send(get("/2")), first)
    station.settle()
    client.answered()
    station.feed(client.send(get("/3")))
    station.settle()
    station.close()
    assert station.targets == ["/1", "/50001", "/50002", "/2", "/3"]


@pytest.mark.parametrize("distance", [64_000, 1_000_000, WRAP // 4, WRAP // 2 - 1_000])
@pytest.mark.parametrize("ended", ["fin", "rst", "neither"])
def test_late_retransmission_after_port_reuse(distance: int, ended: str) -> None:
    """RFC 6528: the sequence numbers of a reused port begin above those of the connection before."""
    station, old = Station(), Conversation(isn=WRAP - 500)
    first = old.send(get("/old"))
    station.feed(old.syn(), first)
    old.answered()
    if ended != "neither":
        station.feed(old.fin() if ended == "fin" else old.rst())
    new = Conversation(isn=(WRAP - 500 + distance) % WRAP, ack=77_000_000)
    station.feed(new.syn(), first, new.send(get("/new-1")), first)
    new.answered()
    station.wait(0.2)
    station.feed(first, new.send(get("/new-2")))
    station.settle()
    station.feed(first)
    station.settle()
    station.close()
    assert station.targets == ["/old", "/new-1", "/new-2"]


def test_a_retransmitted_syn_is_no_port_reuse() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(get("/1")), client.syn())
    client.answered()
    station.feed(client.send(get("/2")))
    assert station.targets == ["/1", "/2"]
    assert station.ledger.flows_opened == 1


# Bytes that peers mistake


def test_an_all_zero_body_segment() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(post_head("/zeros", 3_000)), client.send(bytes(1_400)))
    station.feed(client.send(bytes(1_600)))
    assert bodies(station) == {"/zeros": bytes(3_000)}


@pytest.mark.parametrize("trailer", [bytes(6), b"GET /x", b"\r\n\r\n\r\n"])
def test_an_ethernet_trailer_is_no_payload(trailer: bytes) -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn() + trailer, client.send(get("/1")) + trailer, client.acknowledge() + trailer)
    station.feed(client.send(get("/2")) + trailer)
    assert station.targets == ["/1", "/2"]
    assert station.ledger.payload_bytes == len(get("/1") + get("/2"))


def test_padding_of_a_short_frame_is_no_payload() -> None:
    """An Ethernet frame has 60 bytes at least; a request of one byte a segment is padded every time."""
    station, client = Station(), Conversation()
    frames = [client.syn(), *client.full(get("/1"), 1)]
    station.feed(*(frame.ljust(8 + 60, b"\0") for frame in frames))
    assert station.targets == ["/1"]


@pytest.mark.parametrize("before", [0, 1, 40, 64, 65, 66, 500, 1_499])
def test_sequence_numbers_wrap(before: int) -> None:
    """`before` stream bytes precede the wrap: in the head, at its end, in the body."""
    station, client = Station(), Conversation(isn=(WRAP - 1 - before) % WRAP)
    wire = post("/wrap", bytes(range(256)) * 6)
    first, second, third, last = client.cut(wire, 300, 300, 900)
    station.feed(client.syn(), first, third, last, second)
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/wrap": bytes(range(256)) * 6, "/next": b""}


@pytest.mark.parametrize("method", ["PROPFIND", "QUERY", "M-SEARCH", "x!#$%&'*+-.^_`|~9"])
def test_methods_beyond_the_usual_nine(method: str) -> None:
    station, client = Station(), Conversation()
    head = f"{method} /dav HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\n".encode()
    (request,) = station.feed(client.syn(), client.send(head + b"<query>"))
    assert meaning(request) == (method.encode(), b"/dav", head, b"<query>", False, b"")


# Splits


def test_a_request_line_split_over_segments() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), *client.cut(get("/line"), 2, 5, 3))
    assert station.targets == ["/line"]


def test_a_header_name_split_over_segments() -> None:
    station, client = Station(), Conversation()
    wire = post("/header", b"body")
    name = wire.index(b"Content-Length")
    station.feed(client.syn(), *client.cut(wire, name + 7))
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/header": b"body", "/next": b""}


@pytest.mark.parametrize("tail", range(1, 9))
def test_a_chunk_terminator_split_over_segments(tail: int) -> None:
    station, client = Station(), Conversation()
    wire = chunked("/chunks", b"hello", b"world")
    assert station.feed(client.syn(), *client.cut(wire, len(wire) - tail)[:1]) == []
    station.feed(client.at(len(wire) - tail, wire[-tail:]))
    assert bodies(station) == {"/chunks": b"helloworld"}


def test_every_byte_in_a_segment_of_its_own() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), *client.full(chunked("/1", b"ab", b"c") + post("/2", b"xyz") + get("/3"), 1))
    assert bodies(station) == {"/1": b"abc", "/2": b"xyz", "/3": b""}


def test_chunk_data_that_ends_like_the_last_chunk() -> None:
    station, client = Station(), Conversation()
    first = chunked_head("/chunks") + chunk(b"part one0\r\n\r\n")[:-2]
    assert first.endswith(b"0\r\n\r\n")
    assert station.feed(client.syn(), client.send(first)) == []
    station.feed(client.send(b"\r\n" + chunk(b"part two") + b"0\r\n\r\n"))
    assert bodies(station) == {"/chunks": b"part one0\r\n\r\npart two"}


# The server's answers


def test_the_server_answers_in_mid_upload() -> None:
    """413 and the like: the ACK number moves while the body still comes."""
    station, client = Station(), Conversation()
    wire = post("/upload", b"u" * 4_000)
    station.feed(client.syn(), client.send(wire[:1_400]))
    client.answered(300)
    station.feed(client.acknowledge(), client.send(wire[1_400:2_800]))
    client.answered(900)
    station.feed(client.send(wire[2_800:]))
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/upload": b"u" * 4_000, "/next": b""}


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 \r\n\r\n"])
def test_expect_continue_whatever_the_interim_answer(interim: bytes) -> None:
    station, client = Station(), Conversation()
    head = b"PUT /big HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    station.feed(client.syn(), client.send(head))
    client.answered(len(interim))
    station.feed(client.acknowledge(), client.send(b"continued"))
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/big": b"continued", "/next": b""}


# Loss


def test_a_lost_segment_in_a_post_gives_up_that_post_only() -> None:
    station, client = Station(), Conversation()
    wire = post("/lost", b"l" * 5_000)
    station.feed(client.syn(), client.send(get("/0")))
    client.answered()
    station.feed(client.send(wire[:1_400]))
    client.lose(wire[1_400:2_800])
    station.feed(client.send(wire[2_800:]))
    client.answered()
    station.feed(client.send(post("/1", b"one")))
    client.answered()
    station.settle()
    station.feed(client.send(get("/2")))
    assert bodies(station) == {"/0": b"", "/1": b"one", "/2": b""}
    assert station.ledger.given_up["hole"] == 1
    assert station.ledger.holes == 1
    assert station.ledger.lost_bytes == 1_400
    assert station.ledger.resynchronised == 0, "the length is known, so framing goes on at the exact byte"


def test_a_lost_segment_costs_no_more_than_the_hole_timeout() -> None:
    station, client = Station(Caps(hole_timeout=1.0)), Conversation()
    wire = post("/lost", b"l" * 5_000)
    station.feed(client.syn(), client.send(wire[:1_400]))
    client.lose(wire[1_400:2_800])
    station.feed(client.send(wire[2_800:]))
    client.answered()
    station.feed(client.send(get("/1")))
    assert station.wait(0.9) == []
    assert targets(station.wait(0.2)) == ["/1"]


def test_requests_pipelined_behind_a_lost_segment_of_known_length() -> None:
    station, client = Station(), Conversation()
    wire = post("/lost", b"l" * 5_000)
    station.feed(client.syn(), client.send(wire[:1_400]))
    client.lose(wire[1_400:2_800])
    station.feed(client.send(wire[2_800:] + get("/1") + post("/2", b"two")))
    station.settle()
    assert bodies(station) == {"/1": b"", "/2": b"two"}


def test_a_lost_segment_in_a_chunked_post_followed_by_more_requests() -> None:
    station, client = Station(), Conversation()
    wire = chunked("/lost", b"l" * 2_000, b"m" * 2_000)
    station.feed(client.syn(), client.send(wire[:1_400]))
    client.lose(wire[1_400:2_800])
    station.feed(client.send(wire[2_800:]))
    for target in ("/1", "/2", "/3"):
        client.answered()
        station.feed(client.send(get(target)))
    station.settle()
    assert station.targets == ["/1", "/2", "/3"]
    assert station.ledger.given_up["hole"] == 1
    assert station.ledger.resynchronised == 1


def test_a_lost_get_between_others() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(get("/1")))
    client.answered()
    client.lose(get("/lost"))
    for target in ("/2", "/3"):
        client.answered()
        station.feed(client.send(get(target)))
    station.settle()
    assert station.targets == ["/1", "/2", "/3"]
    assert station.ledger.lost_bytes == len(get("/lost"))


def test_a_hole_that_fills_in_time_costs_nothing() -> None:
    station, client = Station(Caps(hole_timeout=1.0)), Conversation()
    first, late, last = client.cut(chunked("/late", b"l" * 2_000), 600, 800)
    station.feed(client.syn(), first, last)
    station.wait(0.8)
    station.feed(late)
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/late": b"l" * 2_000, "/next": b""}
    assert station.ledger.holes == 0


def test_a_copy_that_comes_after_its_hole_was_given_up_brings_no_request() -> None:
    station, client = Station(), Conversation()
    wire = post("/lost", b"l" * 5_000)
    first, late, last = client.cut(wire, 1_400, 1_400)
    station.feed(client.syn(), first, last)
    client.answered()
    station.feed(client.send(get("/1")))
    station.settle()
    station.feed(late, first)
    client.answered()
    station.feed(client.send(get("/2")))
    station.settle()
    assert station.targets == ["/1", "/2"]


# Request text in bodies


def test_request_text_at_a_segments_start_in_a_body_of_known_length() -> None:
    station, client = Station(), Conversation()
    body = b"x" * 100 + BAIT + BAIT + b"y" * 10
    station.feed(client.syn(), client.send(post_head("/carrier", len(body)) + body[:100]))
    station.feed(client.send(BAIT), client.send(BAIT), client.send(body[-10:]))
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/carrier": body, "/next": b""}


def test_request_text_at_a_segments_start_in_a_chunked_body() -> None:
    station, client = Station(), Conversation()
    coded = chunk(b"x" * 100 + BAIT + b"y" * 10)
    cut = coded.index(BAIT)
    station.feed(client.syn(), client.send(chunked_head("/carrier") + coded[:cut]))
    station.feed(client.send(coded[cut : cut + len(BAIT)]), client.send(coded[cut + len(BAIT) :] + b"0\r\n\r\n"))
    client.answered()
    station.feed(client.send(get("/next")))
    assert bodies(station) == {"/carrier": b"x" * 100 + BAIT + b"y" * 10, "/next": b""}


def test_request_text_behind_a_hole_in_a_body_of_known_length() -> None:
    station, client = Station(), Conversation()
    body = b"x" * 1_000 + BAIT + BAIT
    station.feed(client.syn(), client.send(post_head("/carrier", len(body)) + body[:500]))
    client.lose(body[500:1_000])
    station.feed(client.send(BAIT), client.send(BAIT))
    client.answered()
    station.feed(client.send(get("/next")))
    station.settle()
    station.close()
    assert station.targets == ["/next"]
    assert station.ledger.given_up["hole"] == 1


@pytest.mark.parametrize("rest", [b"", b"y" * 10])
@pytest.mark.parametrize("joint", ["one segment", "two segments"])
@pytest.mark.parametrize("hole", ["within a chunk", "over the end of a chunk"])
def test_request_text_behind_a_hole_in_a_chunked_body(rest: bytes, joint: str, hole: str) -> None:
    station, client = Station(), Conversation()
    text = BAIT + rest
    if hole == "within a chunk":
        wire = chunked_head("/carrier") + chunk(b"x" * 800 + text)
    else:
        wire = chunked_head("/carrier") + chunk(b"x" * 800) + chunk(text)
    at = wire.index(BAIT)
    station.feed(client.syn(), client.send(wire[: at - 400]))
    client.lose(wire[at - 400 : at])
    tail = wire[at:] + b"0\r\n\r\n"
    station.feed(*client.cut(tail, *([] if joint == "one segment" else [len(BAIT)])))
    for target in ("/1", "/2"):
        client.answered()
        station.feed(client.send(get(target)))
    station.settle()
    station.close()
    assert station.targets == ["/1", "/2"]


def test_request_text_behind_a_hole_that_swallowed_the_head() -> None:
    """The ACK number before the hole is an older request's: only what follows the text tells."""
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(get("/0")))
    client.answered()
    client.lose(post_head("/carrier", len(BAIT) + 2_000))
    station.feed(client.send(BAIT), client.send(b"z" * 2_000))
    for target in ("/1", "/2"):
        client.answered()
        station.feed(client.send(get(target)))
    station.settle()
    station.close()
    assert station.targets == ["/0", "/1", "/2"]
    assert station.ledger.given_up["unproven"] == 1


def test_request_text_behind_a_hole_after_an_interim_answer() -> None:
    """100 Continue moves the ACK number by 25 bytes: too few for an answer to the request in front of the hole."""
    station, client = Station(), Conversation()
    head = b"PUT /carrier HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
    station.feed(client.syn(), client.send(head))
    client.answered(25)
    client.lose(b"400\r\n" + b"x" * 200)
    station.feed(client.send(BAIT))
    station.settle()
    station.feed(client.send(b"y" * (0x400 - 200 - len(BAIT)) + b"\r\n0\r\n\r\n"))
    client.answered()
    station.feed(client.send(get("/1")))
    station.settle()
    assert station.targets == ["/1"]


# Connections joined in mid-stream


def test_a_connection_joined_between_requests() -> None:
    station, client = Station(), Conversation()
    station.feed(client.send(get("/1")))
    client.answered()
    station.feed(client.send(get("/2")))
    station.settle()
    assert station.targets == ["/1", "/2"]
    assert station.ledger.flows_joined == 1


def test_a_joined_connection_starts_with_the_earliest_segment_of_its_join_time() -> None:
    station, client = Station(Caps(join_timeout=0.1)), Conversation()
    early, late = client.cut(post("/1", b"o" * 50), 60)
    station.feed(late)
    station.wait(0.05)
    station.feed(early)
    client.answered()
    station.feed(client.send(get("/2")))
    station.settle()
    assert bodies(station) == {"/1": b"o" * 50, "/2": b""}


def test_a_joined_connection_with_one_request_yields_it_after_the_waits() -> None:
    station, client = Station(), Conversation()
    assert station.feed(client.send(get("/only"))) == []
    station.settle()
    assert station.targets == ["/only"]


def test_a_joined_connection_that_closes_after_one_request_yields_it() -> None:
    """`curl` just as the session is made: the answer moved the ACK number that the FIN bears."""
    station, client = Station(), Conversation()
    station.feed(client.send(get("/only")))
    client.answered()
    station.feed(client.acknowledge(), client.fin())
    station.settle()
    station.close()
    assert station.targets == ["/only"]


def test_a_connection_joined_in_mid_body() -> None:
    station, client = Station(), Conversation()
    rest = b"the rest of a body\r\nwith lines: in it\r\n"
    station.feed(client.send(rest), client.send(rest))
    client.answered()
    station.feed(client.send(post("/1", b"one")))
    client.answered()
    station.feed(client.send(get("/2")))
    station.settle()
    assert bodies(station) == {"/1": b"one", "/2": b""}
    assert station.ledger.passed_over_bytes["joined"] == 2 * len(rest)


def test_a_connection_joined_in_mid_body_at_request_text() -> None:
    station, client = Station(), Conversation()
    station.feed(client.send(BAIT), client.send(b"and the body goes on"))
    for target in ("/1", "/2"):
        client.answered()
        station.feed(client.send(get(target)))
    station.settle()
    station.close()
    assert station.targets == ["/1", "/2"]
    assert station.ledger.given_up["unproven"] == 1


def test_a_connection_joined_in_a_slow_upload_of_request_text() -> None:
    """The text waits for a proof; what follows it under the same ACK number shows that it was a body's."""
    station, client = Station(Caps(hole_timeout=1.0, join_timeout=0.1)), Conversation()
    station.feed(client.send(BAIT))
    station.wait(0.7)
    station.feed(client.send(BAIT))
    station.wait(0.7)
    station.feed(client.send(b"the end"))
    client.answered()
    station.feed(client.send(get("/1")))
    station.settle()
    assert station.targets == ["/1"]


# Time


def test_idle_for_minutes_then_continued() -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn(), client.send(get("/1")))
    client.answered()
    station.feed(client.acknowledge())
    station.wait(600, step=1)
    assert targets(station.feed(client.send(get("/2")))) == ["/2"]


def test_a_request_whose_body_pauses_for_minutes() -> None:
    station, client = Station(), Conversation()
    wire = post("/slow", b"slow body")
    station.feed(client.syn(), client.send(wire[:-4]))
    station.wait(600, step=1)
    station.feed(client.send(wire[-4:]))
    assert bodies(station) == {"/slow": b"slow body"}


# Neighbours


def test_a_malformed_chunked_body_beside_healthy_connections() -> None:
    station = Station()
    bad = Conversation(client_port=41_000)
    healthy = [Conversation(client_port=42_000 + number) for number in range(3)]
    station.feed(bad.syn(), *(client.syn() for client in healthy))
    station.feed(bad.send(chunked_head("/bad") + b"zz\r\nnonsense\r\n"))
    for turn in range(5):
        for client in healthy:
            station.feed(client.send(chunked(f"/{client.path.client_port}/{turn}", b"ok")))
            client.answered()
        station.feed(bad.send(b"more nonsense " * 100))
    bad.answered()
    station.feed(bad.send(get("/good-again")))
    bad.answered()
    station.feed(bad.send(get("/good-still")))
    station.settle()
    wanted = [f"/{client.path.client_port}/{turn}" for turn in range(5) for client in healthy]
    assert [target for target in station.targets if target.startswith("/42")] == wanted
    assert station.targets[-2:] == ["/good-again", "/good-still"]
    assert len(station.targets) == len(wanted) + 2
    assert station.ledger.given_up["bad_request"] == 1


def test_the_same_addresses_under_two_vnis() -> None:
    station = Station()
    first, second = Conversation(vni=1), Conversation(vni=2)
    station.feed(first.syn(), second.syn(), first.send(post_head("/1", 4)), second.send(post_head("/2", 4)))
    station.feed(first.send(b"one!"), second.send(b"two!"))
    assert bodies(station) == {"/1": b"one!", "/2": b"two!"}


def test_the_same_connection_mirrored_twice_to_one_shard() -> None:
    station, client = Station(), Conversation()
    sent = [client.syn(), *client.cut(post("/1", b"p" * 300), 100, 100)]
    client.answered()
    sent += [client.send(get("/2"))]
    client.answered()
    sent += [client.send(chunked("/3", b"three")), client.fin()]
    station.feed(*(datagram for datagram in sent for _ in range(2)))
    station.settle()
    station.close()
    assert bodies(station) == {"/1": b"p" * 300, "/2": b"", "/3": b"three"}
    assert station.ledger.duplicate_bytes == station.ledger.framed_bytes


def test_the_second_copy_of_a_mirrored_connection_comes_as_a_whole_later() -> None:
    station, client = Station(), Conversation()
    sent = [client.syn(), client.send(get("/1"))]
    client.answered()
    sent += [client.send(get("/2")), client.fin()]
    station.feed(*sent)
    station.feed(*sent)
    station.settle()
    station.close()
    assert station.targets == ["/1", "/2"]


@pytest.mark.parametrize("size", range(8))
def test_a_datagram_shorter_than_the_vxlan_header(size: int) -> None:
    station, client = Station(), Conversation()
    station.feed(client.syn())
    station.feed(client.send(get("/1"))[:size])
    assert station.ledger.refused["short"] == 1
    station.feed(client.at(0, get("/1")))
    assert station.targets == ["/1"]


# The packets these stories are made of


def test_a_jumbo_frame_is_whole() -> None:
    """AWS: 9001 bytes of inner packet at most."""
    station, client = Station(), Conversation()
    wire = post("/jumbo", b"j" * (9_001 - 40 - len(post_head("/jumbo", 8_000))))
    assert len(wire) == 9_001 - 40
    station.feed(client.syn(), client.send(wire))
    assert len(bodies(station)["/jumbo"]) == len(wire) - len(post_head("/jumbo", 8_000))


def test_a_truncated_segment_is_a_hole_of_known_size() -> None:
    station, client = Station(), Conversation()
    wire = post("/cut", b"c" * 3_000)
    station.feed(client.syn(), client.send(wire[:1_400])[:-200], client.send(wire[1_400:]))
    client.answered()
    station.feed(client.send(get("/1")))
    station.settle()
    assert station.targets == ["/1"]
    assert station.ledger.truncated == 1
    assert station.ledger.lost_bytes == 200
    assert station.ledger.given_up["hole"] == 1


def test_a_truncated_segment_whose_whole_copy_follows() -> None:
    station, client = Station(), Conversation()
    wire = post("/cut", b"c" * 3_000)
    whole, last = client.cut(wire, 1_400)
    station.feed(client.syn(), whole[:-200], last, whole)
    assert bodies(station) == {"/cut": b"c" * 3_000}
    assert station.ledger.lost_bytes == 0


@pytest.mark.parametrize("path", [{}, {"client": "fd00::1", "server": "fd00::2"}, {"dot1q": (3,), "ip_options": 4}])
def test_the_stories_packets_are_scapys(path: dict[str, Any]) -> None:
    """`Conversation` writes numbers into scapy's headers; scapy writes the same."""
    client = Conversation(isn=WRAP - 2, **path)
    client.lose(b"four")
    packet = stack(client.path, FIN | 0x10, client.isn + 5, client.ack, b"data", chksum=0)
    assert client.fin(b"data") == bytes(packet) == segment(client.path, FIN | 0x10, client.isn + 5, client.ack, b"data")
    assert packet[Ether].dst == "02:00:00:00:00:02"


def test_right_checksums_make_no_difference() -> None:
    station, client = Station(), Conversation()
    station.feed(bytes(stack(client.path, 2, 1_000, 0, b"")), bytes(stack(client.path, 24, 1_001, 1, get("/1"))))
    assert station.targets == ["/1"]
