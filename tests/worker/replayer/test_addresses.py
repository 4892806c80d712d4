"""A name's addresses: lookups on a loop whose getaddrinfo is the test's, and which address is the next to try."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from replayer import addresses
from replayer.addresses import Address, Addresses
from replayer.ledger import DestinationLedger, Ledger

NAME = "test.example.com"


class NamesLoop(asyncio.SelectorEventLoop):
    """Answers each lookup with `answers`; none: no such name; `held`: no answer yet."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[str] = []
        self.held: asyncio.Event | None = None
        self.asked = 0

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> list[Any]:
        self.asked += 1
        host.encode("idna")  # as the real one does
        if self.held is not None:
            await self.held.wait()
        if not self.answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port)) for answer in self.answers]


class Rig:
    """Addresses of a name, and what they told."""

    def __init__(self, *answers: str, name: str = NAME) -> None:
        self.loop = asyncio.get_running_loop()
        if isinstance(self.loop, NamesLoop):
            self.loop.answers = list(answers)
        self.ledger: DestinationLedger = Ledger().destination("it")
        self.told: list[bool] = []
        self.addresses = Addresses(name, 80, self.ledger, self.told.append, 0.0)

    @property
    def names(self) -> NamesLoop:
        assert isinstance(self.loop, NamesLoop)
        return self.loop

    async def at(self, now: float) -> None:
        """A tick, and all that follows from it."""
        self.addresses.tick(now)
        for _ in range(4):
            await asyncio.sleep(0)

    def by_host(self) -> dict[str, Address]:
        found = [*self.addresses.working(), *self.addresses.due(float("inf"))]
        return {address.host: address for address in found}

    def hosts(self) -> list[str]:
        return sorted(self.by_host())


def play(scenario: Callable[[], Awaitable[None]], loop: Callable[[], asyncio.AbstractEventLoop] = NamesLoop) -> None:
    async def whole() -> None:
        await scenario()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(whole())


# Lookups


def test_the_real_lookup() -> None:
    async def scenario() -> None:
        rig = Rig(name="localhost")
        async with asyncio.timeout(30):
            while not rig.told:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert {"127.0.0.1", "::1"} & set(rig.hosts())
        assert (rig.addresses.trouble, rig.ledger.resolve_failed) == ("", 0)

    play(scenario, asyncio.new_event_loop)


def test_the_name_is_looked_up_now_and_then() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1", "10.0.0.2", "10.0.0.1")
        await rig.at(0.0)
        assert rig.hosts() == ["10.0.0.1", "10.0.0.2"]
        await rig.at(addresses.LOOKUP_EVERY - 0.1)
        assert (rig.names.asked, rig.told) == (1, [True])
        stays = rig.by_host()["10.0.0.2"]
        goes = rig.by_host()["10.0.0.1"]
        rig.names.answers = ["10.0.0.2", "10.0.0.3"]
        await rig.at(addresses.LOOKUP_EVERY)
        assert rig.hosts() == ["10.0.0.2", "10.0.0.3"]
        assert stays in rig.addresses
        assert rig.by_host()["10.0.0.2"] is stays
        assert goes not in rig.addresses
        rig.names.answers = ["10.0.0.2"]
        await rig.at(2 * addresses.LOOKUP_EVERY)
        assert (rig.hosts(), rig.told) == (["10.0.0.2"], [True, True, False])
        rig.names.answers = ["10.0.0.1"]
        await rig.at(3 * addresses.LOOKUP_EVERY)
        assert goes not in rig.addresses  # the same host, but not the same connections

    play(scenario)


def test_a_failed_lookup_keeps_the_addresses_and_is_repeated_soon() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1")
        await rig.at(0.0)
        rig.names.answers = []
        await rig.at(30.0)
        assert (rig.ledger.resolve_failed, rig.hosts(), rig.told) == (1, ["10.0.0.1"], [True])
        assert rig.addresses.trouble.startswith(f"{NAME}: ")
        await rig.at(30.0 + addresses.LOOKUP_AGAIN - 0.1)
        assert rig.names.asked == 2
        rig.names.answers = ["10.0.0.1"]
        await rig.at(30.0 + addresses.LOOKUP_AGAIN)
        assert (rig.names.asked, rig.addresses.trouble) == (3, "")

    play(scenario)


def test_a_name_that_dns_cannot_express() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1", name="a" * 70 + ".example")
        await rig.at(0.0)
        assert (rig.ledger.resolve_failed, rig.hosts(), rig.told) == (1, [], [])
        assert rig.addresses.trouble

    play(scenario)


def test_one_lookup_at_a_time() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1")
        rig.names.held = asyncio.Event()
        for now in range(100):
            await rig.at(now)
        assert rig.names.asked == 1
        rig.names.held.set()
        await rig.at(100.0)
        assert rig.hosts() == ["10.0.0.1"]

    play(scenario)


def test_no_more_addresses_are_kept_than_the_cap() -> None:
    async def scenario() -> None:
        rig = Rig(*(f"10.0.1.{number}" for number in range(200)))
        await rig.at(0.0)
        assert len(rig.hosts()) == addresses.ADDRESSES_MOST

    play(scenario)


def test_closing_ends_the_lookup_and_begins_none() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1")
        rig.names.held = asyncio.Event()
        await rig.at(0.0)
        rig.addresses.close()
        await rig.at(100.0)
        rig.names.held.set()
        await rig.at(200.0)
        assert (rig.names.asked, rig.told, rig.ledger.resolve_failed) == (1, [], 0)

    play(scenario)


# Which to connect to


def test_the_least_used_is_next_and_openings_are_bounded() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1", "10.0.0.2")
        assert rig.addresses.least_used() is None
        await rig.at(0.0)
        first, second = rig.by_host().values()
        first.connections = 3
        second.connections = 4
        assert rig.addresses.least_used() is first
        first.opening = addresses.OPENING_MOST
        assert rig.addresses.least_used() is second
        second.opening = addresses.OPENING_MOST
        assert rig.addresses.least_used() is None

    play(scenario)


def test_a_failed_address_is_left_alone_then_probed_ever_less_often() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1", "10.0.0.2")
        await rig.at(0.0)
        dead, fine = rig.by_host().values()
        now, pauses = 1.0, list[float]()
        rig.addresses.failed(dead, now)
        for _ in range(8):
            assert (rig.addresses.working(), rig.addresses.least_used()) == ([fine], fine)
            assert rig.addresses.due(now) == []
            pauses.append(dead.retry_at - now)
            now = dead.retry_at
            assert rig.addresses.due(now) == [dead]
            rig.addresses.probed(dead, now)
            rig.addresses.failed(dead, now)  # which the probe's backoff covers
        assert pauses == sorted(pauses)
        assert addresses.BACKOFF_LEAST <= pauses[0] < pauses[-1] == addresses.BACKOFF_MOST
        assert rig.addresses.succeeded(dead)
        assert not rig.addresses.succeeded(dead)
        assert rig.addresses.working() == [dead, fine]

    play(scenario)


def test_probes_of_an_address_are_bounded_and_single_beside_one_that_works() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1", "10.0.0.2")
        await rig.at(0.0)
        first, second = rig.by_host().values()
        rig.addresses.failed(first, 0.0)
        first.opening = 1
        assert rig.addresses.due(10.0) == []
        rig.addresses.failed(second, 0.0)
        assert rig.addresses.due(10.0) == [first, second]
        first.opening = addresses.PROBES_MOST
        assert rig.addresses.due(10.0) == [second]

    play(scenario)


def test_a_failure_looks_the_name_up_again_soon() -> None:
    async def scenario() -> None:
        rig = Rig("10.0.0.1", "10.0.0.2")
        await rig.at(0.0)
        dead, other = rig.by_host().values()
        rig.addresses.failed(dead, 0.5)
        await rig.at(addresses.LOOKUP_AGAIN - 0.1)
        assert rig.names.asked == 1
        await rig.at(addresses.LOOKUP_AGAIN)
        assert rig.names.asked == 2
        rig.addresses.failed(dead, 1.5)  # no news, and another works
        await rig.at(20.0)
        assert rig.names.asked == 2
        rig.addresses.failed(other, 20.0)
        await rig.at(20.0)
        rig.addresses.failed(other, 21.0)  # no news, but none works
        await rig.at(21.0)
        assert rig.names.asked == 4

    play(scenario)
