"""Selection: the asked share, the same decision everywhere, and all that was in stays in."""

import os
import subprocess
import sys
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest

from replayer.head import Request
from replayer.selection import Selector
from replayer.settings import Destination, Settings
from tests.strategies import Conversation, Station

COUNT = 100_000
URL = "http://test.example"


def station(url: str = URL, client_address: Any = "packet", **destination: Any) -> Station:
    """A pipeline that looks at the fields that the destination's selection needs."""
    there = Destination(url=url, **destination)
    return Station(destinations=(there,), client_address=client_address)


def selector(where: Station, **change: Any) -> Selector:
    """The selector of the station's destination, changed."""
    (there,) = where.settings.destinations
    return Selector(where.settings, Destination.model_validate(there.model_dump() | change))


def requests(where: Station, heads: list[bytes]) -> list[Request]:
    """GET requests with these field lines, pipelined on one connection."""
    client = Conversation()
    where.feed(client.syn())
    wires = [b"GET / HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n" for head in heads]
    for at in range(0, len(wires), 500):
        where.now += 0.001
        where.requests += where.pipeline.receive(client.send(b"".join(wires[at : at + 500])), where.now)
    assert len(where.requests) == len(heads)
    return where.requests


def from_clients(request: Request, count: int) -> list[Request]:
    """The same request from many client addresses; a flow key is VNI, addresses, ports."""
    first = int.from_bytes(request.key[3:7])
    return [replace(request, key=request.key[:3] + (first + n * 7).to_bytes(4) + request.key[7:]) for n in range(count)]


def within_three_sigma(selected: int, count: int, percentage: float) -> bool:
    """Is the share what chance would give in 997 of 1,000 cases?"""
    share = percentage / 100
    return abs(selected - count * share) <= 3 * sqrt(count * share * (1 - share))


def chosen(by: Selector, several: list[Request]) -> list[bool]:
    """The decisions."""
    return [by.select(request)[0] for request in several]


@pytest.fixture(scope="module")
def anonymous() -> tuple[Station, list[Request]]:
    """Requests that differ in their place in the stream only."""
    where = station()
    return where, requests(where, [b""] * COUNT)


@pytest.fixture(scope="module")
def users() -> tuple[Station, list[Request]]:
    """Requests of as many users, named in a header."""
    where = station(percentage_by="header", percentage_by_header="X-User")
    return where, requests(where, [b"X-User: user-%d\r\n" % n for n in range(COUNT)])


@pytest.fixture(scope="module")
def clients() -> tuple[Station, list[Request]]:
    """Requests of as many client addresses."""
    where = station(percentage_by="remoteaddr")
    return where, from_clients(requests(where, [b""])[0], COUNT)


@pytest.fixture(scope="module")
def forwarded() -> tuple[Station, list[Request]]:
    """Requests of as many clients behind one load balancer."""
    where = station(percentage_by="remoteaddr", client_address="x-forwarded-for")
    lines = [b"X-Forwarded-For: 10.%d.%d.%d, 192.0.2.1\r\n" % (n >> 16, n >> 8 & 255, n & 255) for n in range(COUNT)]
    return where, requests(where, lines)


@pytest.mark.parametrize("percentage", [0.25, 12.5, 50])
@pytest.mark.parametrize("source", ["anonymous", "users", "clients", "forwarded"])
def test_the_share_is_the_asked_one(source: str, percentage: float, request: pytest.FixtureRequest) -> None:
    where, several = request.getfixturevalue(source)
    selected = sum(chosen(selector(where, percentage=percentage), several))
    assert within_three_sigma(selected, COUNT, percentage), selected / COUNT * 100


@pytest.mark.parametrize("source", ["anonymous", "users", "clients", "forwarded"])
def test_raising_the_percentage_keeps_all_that_was_in(source: str, request: pytest.FixtureRequest) -> None:
    where, several = request.getfixturevalue(source)
    before = [False] * 10_000
    for percentage in (0, 0.01, 0.5, 1, 10, 10.001, 50, 99.99, 100):
        now = chosen(selector(where, percentage=percentage), several[:10_000])
        assert all(after for was, after in zip(before, now, strict=True) if was)
        before = now
    assert all(before)


@pytest.mark.parametrize("source", ["anonymous", "users", "clients", "forwarded"])
def test_nothing_and_everything(source: str, request: pytest.FixtureRequest) -> None:
    where, several = request.getfixturevalue(source)
    assert not any(chosen(selector(where, percentage=0), several[:5_000]))
    assert all(chosen(selector(where, percentage=100), several[:5_000]))


def test_one_header_value_has_one_fate() -> None:
    where = station(percentage_by="header", percentage_by_header="X-User", percentage=50)
    several = requests(where, [b"X-User: user-%d\r\n" % (n % 100) for n in range(1_000)])
    decided = chosen(selector(where), several)
    for number in range(100):
        assert len(set(decided[number::100])) == 1
    assert len(set(decided)) == 2


@pytest.mark.parametrize("line", [b"x-user: u7\r\n", b"X-USER:u7\r\n", b"X-User: \t u7 \t\r\n"])
def test_the_header_is_the_same_however_it_is_written(line: bytes) -> None:
    for percentage in (5, 20, 35, 50, 65, 80, 95):
        where = station(percentage_by="header", percentage_by_header="X-User", percentage=percentage)
        one, two = requests(where, [b"X-User: u7\r\n", line])
        assert selector(where).select(one) == selector(where).select(two)


def test_one_client_has_one_fate_on_all_its_connections() -> None:
    where = station(percentage_by="remoteaddr", percentage=50)
    (request,) = requests(where, [b""])
    ports = [request.key[:-4] + n.to_bytes(2) + request.key[-2:] for n in range(1_000, 1_050)]
    servers = [request.key[:7] + bytes([10, 0, 9, n]) + request.key[11:] for n in range(50)]
    assert len(set(chosen(selector(where), [replace(request, key=key) for key in ports + servers]))) == 1


def test_the_first_forwarded_address_is_the_client() -> None:
    where = station(percentage_by="remoteaddr", client_address="x-forwarded-for", percentage=50)
    values = [b"10.1.1.%d", b"10.1.1.%d, 10.2.2.2", b"10.1.1.%d,10.3.3.3, 10.4.4.4", b"  10.1.1.%d  , 10.5.5.5"]
    for number in range(30):
        several = requests(station_again(where), [b"X-Forwarded-For: " + value % number + b"\r\n" for value in values])
        assert len(set(chosen(selector(where), several))) == 1


def station_again(where: Station) -> Station:
    """A new pipeline with the same settings."""
    return Station(destinations=where.settings.destinations, client_address=where.settings.client_address)


def test_several_forwarded_lines_are_one_list() -> None:
    """RFC 9110 §5.3: the first line's first address is the client."""
    where = station(percentage_by="remoteaddr", client_address="x-forwarded-for", percentage=50)
    for number in range(30):
        lines = b"X-Forwarded-For: 10.1.1.%d\r\n" % number
        one, two = requests(station_again(where), [lines, lines + b"X-Forwarded-For: 10.9.9.9\r\n"])
        assert selector(where).select(one) == selector(where).select(two)


def test_the_packets_source_counts_unless_told_otherwise() -> None:
    where = station(percentage_by="remoteaddr", percentage=50)
    lines = [b"X-Forwarded-For: 10.%d.0.1\r\n" % n for n in range(200)]
    assert len(set(chosen(selector(where), requests(where, lines)))) == 1


def test_requests_without_the_key_are_decided_each_for_itself() -> None:
    where = station(percentage_by="header", percentage_by_header="X-User")
    several = requests(where, [b"X-Other: 1\r\n"] * COUNT)
    by = selector(where, percentage=12.5)
    decided = [by.select(request) for request in several]
    assert not any(keyed for _, keyed in decided)
    assert within_three_sigma(sum(selected for selected, _ in decided), COUNT, 12.5)


def test_keyed_requests_say_so() -> None:
    where = station(percentage_by="header", percentage_by_header="X-User", percentage=50)
    with_key, without = requests(where, [b"X-User: 1\r\n", b""])
    assert selector(where).select(with_key)[1] is True
    assert selector(where).select(without)[1] is False
    free = station(percentage=50)
    assert selector(free).select(requests(free, [b""])[0])[1] is True, "no key was asked for, so none is missing"


@pytest.mark.parametrize("source", ["anonymous", "users"])
def test_two_destinations_choose_independently(source: str, request: pytest.FixtureRequest) -> None:
    """Of what one gets, the other gets its usual share: the url is the salt."""
    where, several = request.getfixturevalue(source)
    one = chosen(selector(where, percentage=30), several)
    two = chosen(selector(where, percentage=30, url="http://other.example"), several)
    both = sum(a and b for a, b in zip(one, two, strict=True))
    assert within_three_sigma(both, sum(one), 30)


def test_another_key_makes_another_choice(users: tuple[Station, list[Request]]) -> None:
    where, several = users
    (there,) = where.settings.destinations
    half = Destination.model_validate(there.model_dump() | {"percentage": 50})
    one = chosen(Selector(Settings(destinations=(half,)), half), several[:20_000])
    two = chosen(Selector(Settings(destinations=(half,), selection_key="another"), half), several[:20_000])
    same = sum(a == b for a, b in zip(one, two, strict=True))
    assert within_three_sigma(same, 20_000, 50)


def test_two_connections_with_requests_at_the_same_place_are_told_apart() -> None:
    where = station(percentage=50)
    (request,) = requests(where, [b""])
    assert within_three_sigma(sum(chosen(selector(where), from_clients(request, 10_000))), 10_000, 50)


SCRIPT = """
from tests.worker.replayer import test_selection as t
print(t.decisions())
"""


def decisions() -> str:
    """What is decided on some requests of every kind."""
    out = ""
    for options in (
        {},
        {"percentage_by": "header", "percentage_by_header": "X-User"},
        {"percentage_by": "remoteaddr"},
        {"percentage_by": "remoteaddr", "client_address": "x-forwarded-for"},
    ):
        where = station(percentage=40, **options)
        lines = [b"X-User: %d\r\nX-Forwarded-For: 10.0.0.%d\r\n" % (n, n % 256) for n in range(300)]
        several = requests(where, lines)
        out += "".join("01"[yes] for yes in chosen(selector(where), several + from_clients(several[0], 100)))
    return out


def test_a_new_process_decides_the_same() -> None:
    environment = os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == decisions()


def test_a_restart_decides_the_same() -> None:
    """A worker that joins the connection later sees other offsets' origins, but the same sequence numbers."""
    where = station(percentage=50)
    client = Conversation()
    wires = [b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % n for n in range(60)]
    segments = []
    for wire in wires:
        segments.append(client.send(wire))
        client.answered()
    where.feed(client.syn(), *segments)
    whole = dict(zip(where.targets, chosen(selector(where), where.requests), strict=True))
    again = station_again(where)
    again.feed(*segments[20:])
    again.settle()
    assert len(again.requests) == 40
    later = dict(zip(again.targets, chosen(selector(again), again.requests), strict=True))
    assert later == {target: whole[target] for target in later}
