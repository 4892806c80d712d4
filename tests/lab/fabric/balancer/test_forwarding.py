"""Datagrams of two interfaces, through the balancer's namespace, to two workers."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace

import pytest

from lab.fabric import router
from lab.fabric.balancer.checks import Settings, State
from lab.fabric.balancer.counts import Count, Counts, total
from lab.fabric.balancer.forwarding import NO_LISTENER, NO_TARGET, Forwarding
from lab.fabric.balancer.table import Group, Table, Target
from lab.fabric.routes import Route
from lab.network.namespaces import inside
from tests.lab.fabric import star
from tests.lab.fabric.star import SOURCES, WORKERS, received, receiver
from tests.waiting import until

pytestmark = pytest.mark.network(whole=True)

TARGETS = tuple(Target(name, address, 4789) for name, address in WORKERS.items())
GROUP = Group("tg", TARGETS, Settings())
ROUTE = Route(20001, "tms-1", "lb", "", 8500)
HEALTHY: Mapping[str, State] = dict.fromkeys(WORKERS, State.HEALTHY)


class Running:
    """A Forwarding in its own event loop, used from the test's thread."""

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding
        self._loop = asyncio.get_running_loop()

    def tell(self, table: Table, states: Mapping[str, State] = HEALTHY) -> None:
        self._do(lambda: self._forwarding.tell(table, lambda _: states))

    def choose(self, states: Mapping[str, State]) -> None:
        self._do(lambda: self._forwarding.choose(lambda _: states))

    def counts(self) -> Counts:
        return self._do(self._forwarding.counts)

    def all_in(self, number: int) -> Counts:
        """The counts once so many datagrams have come."""
        until(f"{number} datagrams", lambda: total(self.counts()).received == number)
        return self.counts()

    def _do[T](self, what: Callable[[], T]) -> T:
        async def done() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(30)


def forwarded(story: Callable[[Running], None]) -> None:
    async def run() -> None:
        forwarding = Forwarding()
        try:
            await asyncio.to_thread(story, Running(forwarding))
        finally:
            forwarding.close()

    with inside(router.BALANCER):
        asyncio.run(run())


@pytest.fixture(scope="module", autouse=True)
def _star() -> None:
    star.build()


@pytest.fixture
def workers() -> Iterator[dict[str, socket.socket]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(receiver(name)) for name in WORKERS}


def send(source: str, ports: range, payload: bytes, to: int = 20001) -> None:
    for port in ports:
        with star.sender(source, port) as made:
            made.sendto(payload, (router.UNDERLAY_OF_BALANCER, to))


def test_flows_spread_over_the_workers_and_keep_their_senders(workers: dict[str, socket.socket]) -> None:
    def story(running: Running) -> None:
        running.tell(Table((ROUTE,), {"lb": GROUP}))
        for _ in range(2):
            for source in SOURCES:
                send(source, range(30000, 30020), b"x" * 100)
        counts = running.all_in(80)
        seen = {name: received(made) for name, made in workers.items()}
        senders = {name: {source for _, source in datagrams} for name, datagrams in seen.items()}

        assert senders["i-1"] | senders["i-2"] == {(source, port) for source in SOURCES for port in range(30000, 30020)}
        assert not senders["i-1"] & senders["i-2"]
        assert min(len(senders["i-1"]), len(senders["i-2"])) > 8
        assert counts.sessions == {"tms-1": Count(received=80, forwarded=80, bytes=8000)}
        assert counts.targets == {name: len(datagrams) for name, datagrams in seen.items()}
        assert counts.flows == 40

    forwarded(story)


def test_packets_are_cut_behind_the_vxlan_header_even_jumbo_ones(workers: dict[str, socket.socket]) -> None:
    def story(running: Running) -> None:
        routes = (ROUTE, Route(20002, "tms-2", "", WORKERS["i-1"], 100))
        running.tell(Table(routes, {"lb": replace(GROUP, targets=TARGETS[:1])}))
        send(SOURCES[0], range(30000, 30001), b"j" * 9000)
        send(SOURCES[0], range(30000, 30001), b"i" * 108, to=20002)
        send(SOURCES[0], range(30000, 30001), b"k" * 109, to=20002)
        counts = running.all_in(3)

        assert sorted(data for data, _ in received(workers["i-1"])) == [b"i" * 108, b"j" * 8508, b"k" * 108]
        assert counts.sessions["tms-1"] == Count(received=1, forwarded=1, truncated=1, bytes=8508)
        assert counts.sessions["tms-2"] == Count(received=2, forwarded=2, truncated=1, bytes=216)

    forwarded(story)


def test_flows_of_a_worker_that_fails_go_to_the_other(workers: dict[str, socket.socket]) -> None:
    def story(running: Running) -> None:
        running.tell(Table((ROUTE,), {"lb": GROUP}))
        send(SOURCES[0], range(30000, 30020), b"before")
        running.all_in(20)
        moved = len(received(workers["i-1"]))
        received(workers["i-2"])
        running.choose({"i-1": State.UNHEALTHY, "i-2": State.HEALTHY})
        send(SOURCES[0], range(30000, 30020), b"after")

        assert running.all_in(40).moved == moved > 0
        assert len(received(workers["i-2"])) == 20
        assert received(workers["i-1"]) == []

    forwarded(story)


def test_what_nobody_may_take_is_refused_by_reason() -> None:
    def story(running: Running) -> None:
        routes = (ROUTE, Route(20002, "tms-2", "gone", "", 8500), Route(20003, "tms-3", "", WORKERS["i-1"], None))
        running.tell(Table(routes, {"lb": replace(GROUP, targets=())}), {})
        for port in (20001, 20002, 20003):
            send(SOURCES[0], range(30000, 30001), b"x" * 9100, to=port)
        sessions = running.all_in(3).sessions

        assert sessions["tms-1"] == Count(received=1, refused={NO_TARGET: 1})
        assert sessions["tms-2"] == Count(received=1, refused={NO_LISTENER: 1})
        assert sessions["tms-3"] == Count(received=1, refused={"not sent: Message too long": 1})

    forwarded(story)


def test_what_lay_in_the_socket_of_a_session_that_ends_is_sent_on(workers: dict[str, socket.socket]) -> None:
    def story(running: Running) -> None:
        running.tell(Table((ROUTE,), {"lb": GROUP}))
        send(SOURCES[0], range(30000, 30200), b"last")
        running.tell(Table((replace(ROUTE, session="tms-2"),), {"lb": GROUP}))
        send(SOURCES[0], range(30000, 30001), b"next")
        counts = running.all_in(201)

        assert counts.sessions["tms-1"] == Count(received=200, forwarded=200, bytes=800)
        assert counts.sessions["tms-2"].received == 1
        assert sum(len(received(made)) for made in workers.values()) == 201

    forwarded(story)


def test_what_the_kernel_drops_is_counted(workers: dict[str, socket.socket]) -> None:
    async def run() -> Counts:
        forwarding = Forwarding()
        forwarding.tell(Table((ROUTE,), {"lb": GROUP}), lambda _: HEALTHY)
        with star.sender(SOURCES[0], 30000) as made:  # nothing is taken meanwhile: the loop waits for this
            made.connect((router.UNDERLAY_OF_BALANCER, 20001))
            for _ in range(20_000):
                made.send(b"x" * 8000)
        forwarding.counts()
        forwarding.close()
        return forwarding.counts()

    with inside(router.BALANCER):
        count = total(asyncio.run(run()))

    assert count.drops > 0
    assert count.drops + count.received == 20_000
    assert count.received == count.forwarded + sum(count.refused.values())
