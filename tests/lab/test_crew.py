"""Software, clients and readers of one production instance, in a router of its own."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.crew import Crew
from lab.fabric import router
from lab.fabric.hosts import Host, Hosts, Interface
from lab.images import IMAGES
from lab.traffic import Mix
from tests.waiting import until

MIX = Mix(gets=20, get_connections=1, posts=0, fresh=0, uploads=0, seconds=30)


@pytest.fixture
def crew(tmp_path: Path) -> Iterator[Crew]:
    router.build()
    with Crew(tmp_path / "machines", tmp_path / "traffic", "http://169.254.100.1:1") as crew:
        yield crew


def _host(image: str) -> Host:
    interface = Interface("eni-0123456789abcdef0", "10.1.0.4", "02:00:00:00:00:04", 0)
    host = Host("i-0123456789abcdef0", IMAGES[image], (interface,), {}, "")
    Hosts().add(host)
    return host


@pytest.mark.network
def test_clients_come_after_the_software_and_leave_before_it(crew: Crew) -> None:
    crew.mix = MIX
    host = _host("web")
    crew.boot(host)
    assert crew.traffic.alive(host.instance) == 1
    until("production answers", lambda: _answered(crew, host) > 10)
    assert not crew.ends
    since = time.time()
    crew.halt(host)
    [end] = crew.ends
    assert since <= end.since <= end.until <= time.time()
    assert crew.traffic.alive(host.instance) == 0
    crew.records.look()
    assert all(one.complete for one in crew.records.answered[host.instance])


def _answered(crew: Crew, host: Host) -> int:
    crew.records.look()
    return len(crew.records.answered[host.instance])


@pytest.mark.network
def test_nobody_asks_where_no_mix_was_given_nor_what_is_no_production(crew: Crew) -> None:
    host = _host("web")
    crew.boot(host)
    assert crew.traffic.alive(host.instance) == 0
    crew.halt(host)
    crew.mix = MIX
    crew.boot(host := Host(host.instance, IMAGES["test"], host.interfaces, {}, ""))
    assert crew.traffic.alive(host.instance) == 0
    assert list(crew.records.answered) == [host.instance]  # as it was production before
    crew.halt(host)
