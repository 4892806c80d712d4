"""What clients write is what they say they write, and decoys lie where segments begin."""

import random
from collections.abc import Callable

import pytest

from lab.clients import exchange
from lab.clients.exchange import DECOYS, Exchange
from lab.recorder import Reader

_MSS = 1448
_MAKERS = [exchange.get, exchange.post, exchange.large, exchange.chunked, exchange.pipelined, exchange.pieces]


def _made(make: Callable[..., Exchange], count: int = 50, last: bool = False) -> list[Exchange]:
    chance = random.Random(make.__name__)
    return [make(f"1-{number}", _MSS, chance, last) for number in range(count)]


@pytest.mark.parametrize("make", _MAKERS)
def test_a_server_reads_the_requests_that_were_sent(make: Callable[..., Exchange]) -> None:
    for what in _made(make):
        received = Reader().receive(b"".join(what.writes))
        assert [(entry.method, entry.target, entry.headers, entry.length, entry.sha256) for entry in received] == [
            (sent.method, sent.target, sent.headers, sent.length, sent.sha256) for sent in what.requests
        ]


@pytest.mark.parametrize("make", _MAKERS)
def test_the_requests_cover_the_stream(make: Callable[..., Exchange]) -> None:
    for what in _made(make):
        wire, requests = b"".join(what.writes), what.requests
        assert [request.start for request in requests] == [0, *(request.end for request in requests[:-1])]
        assert requests[-1].end == len(wire)
        assert all(wire[request.start :].startswith(request.method.encode()) for request in requests)


@pytest.mark.parametrize("make", [exchange.post, exchange.large, exchange.chunked])
def test_bodies_hold_requests_exactly_where_segments_begin(make: Callable[..., Exchange]) -> None:
    found = 0
    for what in _made(make):
        (wire,) = what.writes
        segments = [wire[at : at + _MSS] for at in range(_MSS, len(wire), _MSS)]
        found += sum(segment.startswith(DECOYS) for segment in segments)
        assert sum(wire.count(decoy) for decoy in DECOYS) == sum(segment.startswith(DECOYS) for segment in segments)

    assert found > 50


def test_some_chunks_end_like_the_last_one() -> None:
    assert any(b"0\r\n\r\n\r\n" in what.writes[0] for what in _made(exchange.chunked))


def test_a_last_request_says_so() -> None:
    for make in _MAKERS:
        assert ("Connection", "close") in _made(make, 1, last=True)[0].requests[-1].headers
