"""The pool against real servers on the loopback that do as a test says; names and clock are fakes that a test moves."""

import asyncio
import re
import socket
import ssl
import struct
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replayer import addresses, replay
from replayer.ledger import DestinationLedger, Ledger, imbalances
from replayer.replay import Pool
from replayer.rewrite import Outgoing
from replayer.settings import Destination

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HOST = "127.0.0.1"
NAME = "test.example.com"


class Clock:
    """The pool's clock: real, and `ahead` of it as far as the test says."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


class Names:
    """What the loop's getaddrinfo answers: each host's addresses; none: no such name; `held`: no answer yet."""

    def __init__(self) -> None:
        self.addresses = {HOST: [HOST]}
        self.held: asyncio.Event | None = None
        self.asked: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        host.encode("idna")  # as the real one does
        if self.held is not None:
            await self.held.wait()
        if not self.addresses.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses[host]]


def _loop(base: type[asyncio.AbstractEventLoop], names: Names, opened: list[str]) -> asyncio.AbstractEventLoop:
    class FakeNamesLoop(base):  # type: ignore[valid-type,misc]
        async def getaddrinfo(self, host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
            if host == "localhost":
                found: list[tuple[Any, ...]] = await super().getaddrinfo("127.0.0.1", port, **options)
                return found
            return await names.getaddrinfo(host, port, **options)

        async def create_connection(self, factory: Any, host: str, *arguments: Any, **options: Any) -> Any:
            opened.append(host)
            return await super().create_connection(factory, host, *arguments, **options)

    loop: asyncio.AbstractEventLoop = FakeNamesLoop()
    return loop


@dataclass(eq=False)
class Exchange:
    """One request as the server got it. The script answers it now, or the test does later."""

    connection: "Connection"
    number: int  # on its connection, from 0
    head: bytes
    body: bytes

    @property
    def name(self) -> bytes:
        return self.head.split(b" ", 2)[1]

    def reply(self, data: bytes = OK) -> None:
        self.connection.transport.write(data)

    def close(self) -> None:
        self.connection.transport.close()

    def reset(self) -> None:
        raw = self.connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.transport.abort()


type Script = Callable[[Exchange], None]


class Connection(asyncio.Protocol):
    def __init__(self, server: "Server") -> None:
        self.server = server
        self.transport: Any = None
        self.data = b""
        self.exchanges = 0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.open = True
        self.server.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = re.search(rb"Content-Length: (\d+)", head)
            size = int(length[1]) if length and not self.server.early else 0
            if len(rest) < size:
                return
            self.data = rest[size:]
            exchange = Exchange(self, self.exchanges, head + b"\r\n\r\n", rest[:size])
            self.exchanges += 1
            self.server.exchanges.append(exchange)
            self.server.script(exchange)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False


class Server:
    """A destination that does what its script says with each request."""

    def __init__(self, script: Script, *, early: bool = False) -> None:
        self.script = script
        self.early = early  # the script sees a request as soon as its head came
        self.connections: list[Connection] = []
        self.exchanges: list[Exchange] = []
        self.port = 0
        self._servers: list[asyncio.Server] = []

    async def start(self, port: int = 0, hosts: tuple[str, ...] = (HOST,), tls: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        for host in hosts:
            server = await loop.create_server(lambda: Connection(self), host, port, ssl=tls)
            self._servers.append(server)
            port = self.port = server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self.connections:
            connection.transport.abort()
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()

    @property
    def open(self) -> int:
        return sum(connection.open for connection in self.connections)

    @property
    def got(self) -> list[bytes]:
        return [exchange.name for exchange in self.exchanges]


@dataclass
class Rig:
    """A pool, its ledger, and time. Every step checks that the accounting balances."""

    clock: Clock
    names: Names
    opened: list[str]  # addresses that connections were asked for
    servers: list[Server] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    pool: Pool = field(init=False)

    @property
    def part(self) -> DestinationLedger:
        return self.ledger.destination("it")

    async def serve(self, script: Script, *, early: bool = False, **options: Any) -> Server:
        server = Server(script, early=early)
        self.servers.append(server)
        await server.start(**options)
        return server

    def open(self, port: int, url: str = "http://127.0.0.1:{port}", **limits: Any) -> None:
        self.pool = Pool(Destination(url=url.format(port=port), **limits), self.part)

    def submit(
        self,
        name: bytes = b"/",
        lane: bytes = b"",
        *,
        method: bytes = b"GET",
        body: bytes | bytearray = b"",
        once: bool = False,
    ) -> None:
        """A lane of its own unless named; `once`: not idempotent."""
        head = b"%b %b HTTP/1.1\r\nHost: it\r\nContent-Length: %d\r\n\r\n" % (method, name, len(body))
        self.part.framed += 1
        self.part.selected += 1
        self.pool.submit(Outgoing(lane or b"%d" % self.part.selected, method, head, body, not once), self.clock())
        self.check()

    def check(self) -> None:
        assert imbalances(self.ledger) == []
        assert self.pool.pending == self.part.queued + self.part.in_flight
        assert bool(self.pool.held) == bool(self.pool.pending)

    def later(self, seconds: float) -> None:
        self.clock.ahead += seconds
        self.pool.tick(self.clock())
        self.check()

    async def until(self, condition: Callable[[], object], step: float = 0.0) -> None:
        """Let the loop run, with ticks `step` seconds apart, till the condition holds."""
        while not condition():
            self.later(step)
            await asyncio.sleep(0.001)
        self.check()

    async def settle(self) -> None:
        """A few milliseconds in which nothing is expected to happen."""
        for _ in range(5):
            self.later(0.0)
            await asyncio.sleep(0.001)

    async def done(self) -> None:
        await self.until(lambda: not self.pool.pending)

    async def finish(self) -> None:
        if hasattr(self, "pool"):
            self.pool.abort()
            self.check()
            assert self.pool.pending == self.pool.held == self.part.queued == self.part.in_flight == 0
        for server in self.servers:
            await server.stop()
        while len(asyncio.all_tasks()) > 1 or any(server.open for server in self.servers):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


type Scenario = Callable[[Rig], Awaitable[None]]


def play(base: type[asyncio.AbstractEventLoop], scenario: Scenario) -> None:
    names, opened, clock = Names(), list[str](), Clock()
    rig = Rig(clock, names, opened)

    async def whole() -> None:
        async with asyncio.timeout(30):
            try:
                await scenario(rig)
            finally:
                await rig.finish()

    faults: list[dict[str, Any]] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        asyncio.Runner(loop_factory=lambda: _loop(base, names, opened)) as runner,
    ):
        patch.setattr(replay, "monotonic", clock)
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
        runner.run(whole())
    assert faults == []


LOOPS: list[type[asyncio.AbstractEventLoop]] = [uvloop.Loop, asyncio.SelectorEventLoop]


@pytest.fixture(params=LOOPS, ids=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    return lambda scenario: play(request.param, scenario)


type Run = Callable[[Scenario], None]


def hang(exchange: Exchange) -> None:
    """No answer."""


# What is sent, and what is counted.


def test_requests_arrive_as_they_are_and_answers_are_counted(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port)
        bodies: list[bytes | bytearray] = [
            b"",
            b"small",
            bytes(replay.COPY_MOST),
            bytearray(b"x" * (replay.COPY_MOST + 1)),
            bytes(3 << 20),
        ]
        for body in bodies:
            rig.submit(b"/a?b", method=b"POST", body=body)
            await rig.done()
        assert [exchange.body for exchange in server.exchanges] == bodies
        assert server.exchanges[1].head == b"POST /a?b HTTP/1.1\r\nHost: it\r\nContent-Length: 5\r\n\r\n"
        assert rig.part.replayed == rig.part.status["2xx"] == sum(rig.part.latency) == len(bodies)
        assert 0 < rig.part.latency_seconds < 10
        assert rig.part.connections == len(server.connections) == 1
        assert rig.pool.trouble == ""

    run(scenario)


ANSWERS = {
    "chunked": (b"GET", b"HTTP/1.1 201 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "2xx", True),
    "redirect": (
        b"GET",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        "3xx",
        True,
    ),
    "not modified": (b"GET", b"HTTP/1.1 304 Not Modified\r\n\r\n", "3xx", True),
    "head": (b"HEAD", b"HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n", "4xx", True),
    "continue": (b"PUT", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n", "5xx", True),
    "600": (b"GET", b"HTTP/1.1 600 What\r\nContent-Length: 0\r\n\r\n", "other", True),
    "close": (b"GET", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "2xx", False),
    "http/1.0": (b"GET", b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", "2xx", False),
    "surplus": (b"GET", OK + b"HTTP/1.1 200 OK\r\n", "2xx", False),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_kinds_of_answers(run: Run, name: str) -> None:
    method, answer, status, reused = ANSWERS[name]

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(lambda exchange: exchange.reply(answer))
        rig.open(server.port)
        for _ in range(2):
            rig.submit(method=method)
            await rig.done()
        assert (rig.part.replayed, rig.part.status[status]) == (2, 2)
        assert len(server.exchanges) == 2
        assert rig.part.connections == (1 if reused else 2)

    run(scenario)


@pytest.mark.parametrize("ending", [Exchange.close, Exchange.reset], ids=["close", "reset"])
def test_an_answer_that_ends_with_the_connection(run: Run, ending: Script) -> None:
    def script(exchange: Exchange) -> None:
        exchange.reply(b"HTTP/1.1 200 OK\r\n\r\nall of it")

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(script)
        rig.open(server.port)
        rig.submit()
        await rig.until(lambda: server.exchanges)
        await rig.settle()
        ending(server.exchanges[0])
        await rig.done()
        assert (rig.part.replayed, rig.part.failed["closed"]) == ((1, 0) if ending is Exchange.close else (0, 1))

    run(scenario)


WRONG = {
    "garbage": (b"\x00\x01\x02", "bad_response"),
    "switching": (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "bad_response"),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "bad_response"),
    "too large": (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx", "response_too_large"),
    "endless": (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(5000), "response_too_large"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_fail_the_request_and_end_the_connection(run: Run, name: str) -> None:
    answer, reason = WRONG[name]

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(lambda exchange: exchange.reply(answer if exchange.name == b"/wrong" else OK))
        rig.open(server.port, response_limit=5000)
        rig.submit(b"/wrong", lane=b"a")
        rig.submit(b"/next", lane=b"a")
        await rig.done()
        assert (rig.part.failed[reason], rig.part.replayed) == (1, 1)
        assert server.got == [b"/wrong", b"/next"]
        await rig.until(lambda: server.open == 1)

    run(scenario)


def test_an_early_answer_counts_and_its_connection_is_not_used_again(run: Run) -> None:
    def script(exchange: Exchange) -> None:
        exchange.connection.transport.pause_reading()
        exchange.reply()

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(script, early=True)
        rig.open(server.port)
        rig.submit(b"/1", method=b"POST", body=bytes(30 << 20))
        await rig.done()
        rig.submit(b"/2")
        await rig.done()
        assert rig.part.replayed == rig.part.connections == 2
        assert [exchange.number for exchange in server.exchanges] == [0, 0]

    run(scenario)


# Connections.


def test_connections_are_reused_last_first_and_bounded(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=3)
        for number in range(12):
            rig.submit(b"/%d" % number)

        async def answer(number: int) -> None:
            await rig.until(lambda: len(server.exchanges) == min(number + 3, 12))
            assert rig.part.in_flight == min(3, 12 - number)
            server.exchanges[number].reply()
            await rig.until(lambda: rig.part.replayed == number + 1)

        for number in range(12):
            await answer(number)
        assert rig.part.connections == len(server.connections) == 3
        assert sorted(server.got, key=lambda name: int(name[1:])) == [b"/%d" % number for number in range(12)]
        server.script = Exchange.reply
        last = server.exchanges[-1].connection
        for _ in range(5):
            rig.submit()
            await rig.done()
        assert {exchange.connection for exchange in server.exchanges[-5:]} == {last}

    run(scenario)


def test_a_connection_closed_while_idle_goes_quietly(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port)

        async def use_and(ending: Script) -> None:
            rig.submit(once=True)
            await rig.done()
            ending(server.exchanges[-1])
            await rig.until(lambda: server.open == 0)
            await rig.settle()

        await use_and(Exchange.close)
        await use_and(Exchange.reset)
        await use_and(lambda exchange: exchange.reply(b"HTTP/1.1 408 Late\r\n\r\n"))
        rig.submit(once=True)
        await rig.done()
        assert (rig.part.replayed, rig.part.connections, rig.part.retried) == (4, 4, 0)

    run(scenario)


def test_a_connection_idle_for_long_is_closed(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, timeout=100)
        rig.submit()
        await rig.until(lambda: server.exchanges)
        rig.later(replay.IDLE_MOST + 1)
        server.exchanges[0].reply()
        await rig.done()
        rig.later(replay.IDLE_MOST - 1)
        await rig.settle()
        assert server.open == 1
        rig.later(1.5)
        await rig.until(lambda: server.open == 0)

    run(scenario)


async def idle_connections(rig: Rig, server: Server, count: int) -> None:
    """Open `count` connections and leave them idle for as long as servers may."""
    server.script = hang
    for _ in range(count):
        rig.submit()
    await rig.until(lambda: len(server.exchanges) == count)
    for exchange in server.exchanges:
        exchange.reply()
    await rig.done()
    server.script = Exchange.reply
    rig.later(replay.IDLE_MOST_ONCE + 0.1)


def test_what_cannot_be_sent_twice_goes_over_no_connection_that_may_be_closing(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=3)
        await idle_connections(rig, server, 3)
        rig.submit(b"/twice")
        await rig.done()
        rig.submit(b"/once", once=True)  # over the connection just used
        await rig.done()
        assert rig.part.connections == server.open == 3
        assert server.exchanges[-1].connection is server.exchanges[-2].connection
        rig.later(replay.IDLE_MOST_ONCE + 0.1)
        rig.submit(b"/once", once=True)
        await rig.done()
        await rig.until(lambda: server.open == 1)
        assert (rig.part.replayed, rig.part.connections, server.exchanges[-1].number) == (6, 4, 0)

    run(scenario)


@pytest.mark.parametrize("once", [False, True], ids=["idempotent", "once"])
def test_what_cannot_be_sent_twice_waits_for_a_new_connection(run: Run, once: bool) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=3)
        await idle_connections(rig, server, 3)
        server.script = replies(ANSWERS["close"][1], close=True)
        rig.submit(b"/1", lane=b"a")
        rig.submit(b"/2", lane=b"a", once=once)
        await rig.done()
        assert (rig.part.replayed, rig.part.connections) == (5, 4 if once else 3)
        assert [exchange.number for exchange in server.exchanges[3:]] == [1, 0 if once else 1]

    run(scenario)


def test_a_connection_that_was_slow_to_open_is_fresh(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, connect_timeout=10)
        rig.submit(once=True)
        while not rig.opened:  # noqa: ASYNC110 - and no further
            await asyncio.sleep(0)
        assert rig.part.connections == 0
        rig.later(replay.IDLE_MOST_ONCE + 1)
        await rig.done()
        assert (rig.part.replayed, rig.part.connections) == (1, 1)

    run(scenario)


# Lanes.


def test_one_lane_keeps_its_order_and_stops_no_other(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=5)
        for name in (b"/a1", b"/a2", b"/a3", b"/b1", b"/c1", b"/c2"):
            rig.submit(name, lane=name[1:2], once=True)
        await rig.until(lambda: len(server.exchanges) == 3)
        await rig.settle()
        assert sorted(server.got) == [b"/a1", b"/b1", b"/c1"]
        by_name = {exchange.name: exchange for exchange in server.exchanges}
        by_name[b"/c1"].reply()
        await rig.until(lambda: len(server.exchanges) == 4)
        by_name[b"/a1"].reply(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        await rig.until(lambda: len(server.exchanges) == 5)
        assert server.got[3:] == [b"/c2", b"/a2"]
        server.exchanges[4].reset()
        await rig.until(lambda: len(server.exchanges) == 6)
        assert server.got[5] == b"/a3"

    run(scenario)


# What takes too long.


def test_an_answer_that_does_not_come_in_time(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, timeout=5, queue_timeout=60)
        rig.submit(b"/slow", lane=b"a")
        rig.submit(b"/next", lane=b"a")
        await rig.until(lambda: server.exchanges)
        server.exchanges[0].reply(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        rig.later(3)
        server.exchanges[0].reply(b"12345678")
        await rig.settle()
        assert rig.part.in_flight == 1
        server.script = Exchange.reply
        rig.later(2.1)
        assert rig.part.failed["timeout"] == 1
        await rig.done()
        assert server.got == [b"/slow", b"/next"]
        assert rig.part.replayed == 1
        await rig.until(lambda: not server.connections[0].open)

    run(scenario)


def test_a_request_that_follows_a_timeout_has_its_full_time(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=8, timeout=5, queue_timeout=60)
        for _ in range(8):
            rig.submit()
        await rig.until(lambda: len(server.exchanges) == 8)
        for exchange in server.exchanges:
            exchange.reply()
        await rig.done()
        for lane in (b"a", b"b", b"c", b"d"):
            rig.submit(lane=lane)
            rig.submit(b"/next", lane=lane)
        rig.later(5.1)  # four connections time out, the other four have been idle as long
        assert rig.part.failed["timeout"] == 4
        await rig.until(lambda: server.got.count(b"/next") == 4)
        rig.later(4)
        assert rig.part.failed["timeout"] == 4
        rig.later(1.1)
        assert (rig.part.failed["timeout"], rig.pool.pending) == (8, 0)

    run(scenario)


def test_requests_that_waited_too_long_are_dropped(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=1, timeout=60, queue_timeout=2)
        rig.submit(b"/a1", lane=b"a")
        await rig.until(lambda: server.exchanges)
        rig.submit(b"/a2", lane=b"a")  # waits for its lane
        rig.submit(b"/b1", lane=b"b")  # waits for a connection
        rig.submit(b"/b2", lane=b"b")  # waits for both
        rig.later(1.5)
        rig.submit(b"/a3", lane=b"a")
        rig.submit(b"/b3", lane=b"b")
        rig.later(1)
        assert (rig.part.dropped["waited"], rig.part.queued) == (3, 2)
        server.script = Exchange.reply
        server.exchanges[0].reply()
        await rig.done()
        assert sorted(server.got) == [b"/a1", b"/a3", b"/b3"]

    run(scenario)


def test_a_full_queue_drops_and_counts(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=1, queue=3, queue_bytes=1100)
        rig.submit(b"/1", lane=b"a")
        await rig.until(lambda: server.exchanges)
        rig.submit(b"/2", body=bytes(900))
        rig.submit(b"/3", body=bytes(900))
        assert rig.part.dropped["queue_bytes"] == 1
        rig.submit(b"/4", lane=b"a", body=bytes(100))
        assert rig.part.dropped["queue_bytes"] == 2
        server.script = Exchange.reply
        server.exchanges[0].reply()
        await rig.done()
        server.script = hang
        rig.submit(b"/5", lane=b"a")
        for lane in (b"a", b"a", b"b", b"a", b"b"):
            rig.submit(b"/6", lane=lane)
        assert (rig.part.dropped["queue_full"], rig.part.queued) == (2, 3)
        await rig.until(lambda: server.got[-1] == b"/5")
        server.script = Exchange.reply
        server.exchanges[-1].reply()
        await rig.done()
        assert server.got.count(b"/6") == 3

    run(scenario)


def test_bytes_in_flight_count_like_those_that_wait(run: Run) -> None:
    def script(exchange: Exchange) -> None:
        exchange.connection.transport.pause_reading()

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(script, early=True)
        rig.open(server.port, connections=8, queue_bytes=5 << 20)
        for _ in range(20):
            rig.submit(method=b"POST", body=bytes(1 << 20))
            assert rig.pool.held <= 5 << 20
            await rig.settle()
        assert (rig.part.in_flight, rig.part.queued, rig.part.dropped["queue_bytes"]) == (4, 0, 16)
        for exchange in server.exchanges:
            exchange.reply(ANSWERS["close"][1])
        await rig.done()
        server.script = Exchange.reply
        rig.submit(method=b"POST", body=bytes(4 << 20))
        await rig.done()
        assert rig.part.replayed == 5

    run(scenario)


@pytest.mark.parametrize("idle", [False, True], ids=["no connection yet", "an idle connection"])
def test_a_request_larger_than_the_queue_is_admitted_alone(run: Run, idle: bool) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, queue_bytes=1000)
        if idle:
            rig.submit(b"/first")
            await rig.done()
        rig.submit(b"/large", body=bytes(5000))
        rig.submit(b"/large too", body=bytes(5000))
        rig.submit(b"/small")
        assert rig.part.dropped["queue_bytes"] == 2
        await rig.done()
        rig.submit(b"/small")
        rig.submit(b"/large", body=bytes(5000))
        assert rig.part.dropped["queue_bytes"] == 3
        await rig.done()
        assert server.got[idle:] == [b"/large", b"/small"]

    run(scenario)


def test_a_retry_stays_within_the_bytes_it_had(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, queue_bytes=1000)
        rig.submit()
        await rig.done()
        server.script = lambda exchange: exchange.close() if exchange.number else None
        rig.submit(body=bytes(800))
        await rig.until(lambda: len(server.exchanges) == 3)
        assert rig.part.retried == 1
        assert 800 < rig.pool.held < 900
        server.exchanges[-1].reply()
        await rig.done()

    run(scenario)


# Retries.


@pytest.mark.parametrize("ending", [Exchange.close, Exchange.reset], ids=["close", "reset"])
@pytest.mark.parametrize("once", [False, True], ids=["idempotent", "once"])
def test_a_reused_connection_closed_before_the_answer(run: Run, ending: Script, once: bool) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.number < 1:
            exchange.reply()
        else:
            ending(exchange)

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(script)
        rig.open(server.port)
        rig.submit(b"/1")
        await rig.done()
        rig.submit(b"/2", lane=b"a", once=once, method=b"PUT", body=bytes(40_000))
        rig.submit(b"/3", lane=b"a")
        await rig.done()
        if once:
            assert server.got == [b"/1", b"/2", b"/3"]
            assert (rig.part.retried, rig.part.failed["closed"], rig.part.replayed) == (0, 1, 2)
        else:
            assert server.got == [b"/1", b"/2", b"/2", b"/3", b"/3"]
            assert server.exchanges[2].body == bytes(40_000)
            assert (rig.part.retried, rig.part.failed["closed"], rig.part.replayed) == (2, 0, 3)

    run(scenario)


def test_a_fresh_connection_closed_before_the_answer_is_no_reason_to_retry(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.close)
        rig.open(server.port)
        rig.submit()
        await rig.done()
        assert (rig.part.retried, rig.part.failed["closed"], len(server.exchanges)) == (0, 1, 1)

    run(scenario)


def test_nothing_is_retried_after_the_first_byte_of_an_answer(run: Run) -> None:
    def script(exchange: Exchange) -> None:
        exchange.reply(OK if exchange.number == 0 else b"H")
        if exchange.number:
            exchange.close()

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(script)
        rig.open(server.port)
        rig.submit()
        await rig.done()
        rig.submit()
        await rig.done()
        assert (rig.part.retried, rig.part.failed["closed"], len(server.exchanges)) == (0, 1, 2)

    run(scenario)


def test_a_request_is_retried_once(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=2)
        rig.submit(b"/1")
        rig.submit(b"/2")
        await rig.until(lambda: len(server.exchanges) == 2)
        for exchange in server.exchanges:
            exchange.reply()
        await rig.done()
        server.script = Exchange.close
        rig.submit(b"/3")
        await rig.done()
        assert server.got[2:] == [b"/3", b"/3"]
        assert (rig.part.retried, rig.part.failed["closed"]) == (1, 1)

    run(scenario)


def test_a_retry_avoids_connections_that_closed_in_the_same_moment(run: Run) -> None:
    def closing(exchange: Exchange) -> None:
        exchange.close()
        for connection in exchange.connection.server.connections:
            connection.transport.close()
        exchange.connection.server.script = Exchange.reply

    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=8)
        for _ in range(8):
            rig.submit()
        await rig.until(lambda: len(server.exchanges) == 8)
        for exchange in server.exchanges:
            exchange.reply()
        await rig.done()
        server.script = closing
        rig.submit(b"/again")
        await rig.done()
        assert (rig.part.replayed, rig.part.failed["closed"]) == (9, 0)

    run(scenario)


# A destination that is not there.


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_dead_destination_is_waited_for_and_back_within_a_second(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        port = unused_port()
        rig.open(port, queue=100, queue_timeout=5)
        for _ in range(150):
            rig.submit()
        assert (rig.part.queued, rig.part.dropped["queue_full"]) == (100, 50)
        start = rig.clock.ahead
        await rig.until(lambda: rig.clock.ahead - start > 4.5, step=0.05)
        assert rig.part.queued == 100
        assert 5 < len(rig.opened) < addresses.OPENING_MOST + 15  # no storm, no giving up
        assert f"{HOST} port {port}" in rig.pool.trouble
        await rig.until(lambda: rig.part.dropped["waited"] == 100, step=0.05)
        for number in range(10):
            rig.submit(b"/%d" % number)
        await rig.serve(Exchange.reply, port=port)
        start = rig.clock.ahead
        await rig.until(lambda: rig.part.replayed == 10, step=0.01)
        assert rig.clock.ahead - start < 1
        assert rig.pool.trouble == ""
        assert sum(rig.part.failed.values()) == 0

    run(scenario)


def test_a_destination_that_nobody_asks_for_is_left_alone(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.open(unused_port(), queue_timeout=1)
        rig.submit()
        await rig.until(lambda: rig.part.dropped["waited"] == 1, step=0.05)
        before = len(rig.opened)
        await rig.until(lambda: rig.clock.ahead > 20, step=0.5)
        assert len(rig.opened) == before

    run(scenario)


def test_a_connection_that_does_not_open_in_time(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)  # speaks no TLS: the handshake hangs
        rig.open(server.port, url="https://127.0.0.1:{port}", connect_timeout=2, queue_timeout=30, connections=4)
        rig.submit()
        await rig.until(lambda: server.connections)
        rig.later(1.9)
        assert rig.pool.trouble == ""
        rig.later(0.2)
        assert "no connection within 2 s" in rig.pool.trouble
        assert (rig.part.queued, rig.part.connections) == (1, 0)
        await rig.until(lambda: len(server.connections) == 4, step=0.1)
        await rig.until(lambda: rig.part.dropped["waited"] == 1, step=0.5)

    run(scenario)


# TLS.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for NAME with its key, signed by itself."""
    directory = tmp_path_factory.mktemp("tls")
    command = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={NAME}"
    subprocess.run(
        [*command.split(), "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory


@pytest.fixture
def server_tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    return context


def test_https_verifies_the_name_and_sends_it(
    run: Run, server_tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
    asked: list[str] = []
    server_tls.sni_callback = lambda _, name, __: asked.append(name)

    async def scenario(rig: Rig) -> None:
        rig.names.addresses[NAME] = [HOST]
        server = await rig.serve(Exchange.reply, tls=server_tls)
        rig.open(server.port, url=f"https://{NAME}:{{port}}/prefix")
        for body in (b"", bytes(1 << 20), b"x"):
            rig.submit(method=b"PUT", body=body)
            await rig.done()
        assert [len(exchange.body) for exchange in server.exchanges] == [0, 1 << 20, 1]
        assert (rig.part.replayed, rig.part.connections) == (3, 1)
        assert asked == [NAME]

    run(scenario)


@pytest.mark.parametrize("host", [NAME, HOST], ids=["unknown issuer", "other name"])
def test_https_refuses_a_certificate_unless_told_otherwise(
    run: Run, server_tls: ssl.SSLContext, certificate: Path, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host == HOST:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))

    async def scenario(rig: Rig) -> None:
        rig.names.addresses[NAME] = [HOST]
        server = await rig.serve(Exchange.reply, tls=server_tls)
        url = f"https://{host}:{server.port}"
        rig.open(server.port, url=url)
        rig.submit()
        await rig.until(lambda: "certificate" in rig.pool.trouble.lower(), step=0.05)
        assert rig.part.queued == 1
        rig.pool.refresh(Destination(url=url, tls_verify=False))
        await rig.until(lambda: rig.part.replayed == 1, step=0.05)
        rig.pool.refresh(Destination(url=url))
        rig.submit()
        await rig.settle()
        assert rig.part.queued == 1

    run(scenario)


# Names.


def test_the_url_s_host_and_port(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.names.addresses |= {"::1": [HOST], "b.example": []}
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, url="http://[::1]:{port}")
        rig.submit()
        await rig.done()
        assert rig.names.asked == ["::1"]

    run(scenario)


def test_the_real_lookup(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, url="http://localhost:{port}")
        rig.submit()
        await rig.done()
        assert (rig.part.replayed, rig.names.asked) == (1, [])

    run(scenario)


def hosts_of(server: Server) -> Counter[str]:
    return Counter(
        connection.transport.get_extra_info("sockname")[0] for connection in server.connections if connection.open
    )


def test_connections_are_spread_over_all_addresses_and_follow_them(run: Run) -> None:
    first, second, third = "127.0.0.1", "127.0.0.2", "127.0.0.3"

    async def scenario(rig: Rig) -> None:
        rig.names.addresses[NAME] = [first, second, first]
        server = await rig.serve(hang, hosts=(first, second, third))
        rig.open(server.port, url=f"http://{NAME}:{{port}}", connections=6, timeout=200)
        for _ in range(6):
            rig.submit()
        await rig.until(lambda: len(server.exchanges) == 6)
        assert hosts_of(server) == {first: 3, second: 3}

        rig.names.addresses[NAME] = [second, third]
        rig.later(addresses.LOOKUP_EVERY + 1)
        await rig.until(lambda: len(rig.names.asked) == 2)
        await rig.settle()
        assert server.open == 6  # what is in flight is not cut
        server.script = Exchange.reply
        for exchange in server.exchanges:
            exchange.reply()
        await rig.done()
        await rig.until(lambda: hosts_of(server) == {second: 3})
        server.script = hang
        before = len(server.exchanges)
        for _ in range(6):
            rig.submit()
        await rig.until(lambda: len(server.exchanges) == before + 6)
        assert hosts_of(server) == {second: 3, third: 3}

    run(scenario)


def test_an_address_that_joins_gets_its_share_of_a_full_pool(run: Run) -> None:
    first, second = "127.0.0.1", "127.0.0.2"

    async def scenario(rig: Rig) -> None:
        rig.names.addresses[NAME] = [first]
        server = await rig.serve(hang, hosts=(first, second))
        rig.open(server.port, url=f"http://{NAME}:{{port}}", connections=4, timeout=200)

        async def use_all() -> None:
            before = len(server.exchanges)
            for _ in range(4):
                rig.submit()
            await rig.until(lambda: len(server.exchanges) == before + 4)

        await use_all()
        rig.names.addresses[NAME] = [second, first]
        rig.later(addresses.LOOKUP_EVERY + 1)
        await rig.until(lambda: len(rig.names.asked) == 2)
        for exchange in server.exchanges:
            exchange.reply()
        await rig.done()
        await rig.until(lambda: hosts_of(server) == {first: 2})
        await use_all()
        assert hosts_of(server) == {first: 2, second: 2}

    run(scenario)


def test_a_failed_lookup_keeps_the_addresses_and_is_counted(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, url=f"http://{NAME}:{{port}}", queue_timeout=100)
        rig.submit()
        await rig.until(lambda: rig.part.resolve_failed == 1)
        assert (rig.part.queued, NAME in rig.pool.trouble) == (1, True)
        rig.names.addresses[NAME] = [HOST]
        start = rig.clock.ahead
        await rig.until(lambda: rig.part.replayed == 1, step=0.05)
        assert rig.clock.ahead - start < 1.5

        rig.names.addresses[NAME] = []
        rig.later(addresses.LOOKUP_EVERY + 1)
        await rig.until(lambda: rig.part.resolve_failed == 2)
        rig.submit()
        await rig.done()
        assert rig.part.replayed == 2

    run(scenario)


def test_a_lookup_s_trouble_is_over_with_the_next_that_succeeds(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.open(1, url=f"http://{NAME}:{{port}}")
        await rig.until(lambda: NAME in rig.pool.trouble)
        rig.names.addresses[NAME] = [HOST]
        await rig.until(lambda: not rig.pool.trouble, step=0.05)
        assert (rig.opened, rig.part.resolve_failed) == ([], 1)

    run(scenario)


def test_a_connection_s_trouble_outlasts_a_lookup_that_succeeds(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        port = unused_port()
        rig.open(port, queue_timeout=3)
        rig.submit()
        await rig.until(lambda: rig.part.dropped["waited"] == 1, step=0.05)
        rig.later(addresses.LOOKUP_EVERY)
        asked = len(rig.names.asked)
        await rig.until(lambda: len(rig.names.asked) > asked, step=1)
        await rig.settle()
        assert f"{HOST} port {port}" in rig.pool.trouble

    run(scenario)


def test_one_lookup_at_a_time(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.names.held = asyncio.Event()
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, queue_timeout=1000)
        rig.submit()
        await rig.until(lambda: rig.clock.ahead > 100, step=10)
        assert rig.names.asked == [HOST]
        rig.names.held.set()
        await rig.done()
        assert rig.part.replayed == 1

    run(scenario)


def test_a_name_that_dns_cannot_express(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.open(1, url="http://" + "a" * 70 + ".example")
        rig.submit()
        await rig.until(lambda: rig.part.resolve_failed == 1)

    run(scenario)


def test_a_dead_address_beside_one_that_works_stops_nothing(run: Run) -> None:
    dead = "127.0.0.2"

    async def scenario(rig: Rig) -> None:
        rig.names.addresses[NAME] = [dead, HOST]
        server = await rig.serve(hang)
        rig.open(server.port, url=f"http://{NAME}:{{port}}", connections=10, timeout=100, queue_timeout=100)

        async def use(requests: int) -> None:
            before = len(server.exchanges)
            for _ in range(requests):
                rig.submit()
            await rig.until(lambda: len(server.exchanges) == before + requests)

        async def answer_all() -> None:
            for exchange in server.exchanges[rig.part.replayed :]:
                exchange.reply()
            await rig.done()

        await use(8)
        await answer_all()
        await rig.until(lambda: rig.clock.ahead > 20, step=0.05)
        assert hosts_of(server) == {HOST: 8}
        assert len(rig.names.asked) == 2  # once more after the failure, not after each probe
        assert 20 < rig.opened.count(dead) < 20 / addresses.BACKOFF_MOST + 20
        await server.start(server.port, (dead,))
        start = rig.clock.ahead
        await rig.until(lambda: hosts_of(server)[dead], step=0.05)
        assert rig.clock.ahead - start < 1
        await use(8)
        assert hosts_of(server)[HOST] == 5  # of the nine that were open
        assert hosts_of(server)[dead] >= 3
        await answer_all()

    run(scenario)


def test_a_lookup_answers_no_more_addresses_than_are_kept(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.names.addresses[NAME] = [HOST] + [f"127.1.0.{number}" for number in range(1, 200)]
        server = await rig.serve(Exchange.reply)
        rig.open(server.port, url=f"http://{NAME}:{{port}}", connections=200)
        for _ in range(200):
            rig.submit()
        await rig.done()
        assert len(set(rig.opened)) <= addresses.ADDRESSES_MOST

    run(scenario)


# The end, and changes.


def test_abort_closes_and_accounts_for_everything(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=2)
        for number in range(5):
            rig.submit(b"/%d" % number, lane=b"a" if number > 2 else b"")
        await rig.until(lambda: len(server.exchanges) == 2)
        rig.pool.abort()
        assert (rig.part.dropped["drain"], rig.part.failed["drain"]) == (3, 2)
        rig.submit()
        assert rig.part.dropped["drain"] == 4
        await rig.until(lambda: server.open == 0)
        rig.later(100)
        assert len(rig.opened) == 2

    run(scenario)


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "https://127.0.0.1:{port}"])
@pytest.mark.parametrize("held", [True, False], ids=["looking up", "connecting"])
def test_abort_before_there_is_a_connection(run: Run, url: str, held: bool) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.names.held = asyncio.Event() if held else None
        rig.open(server.port, url=url)
        rig.submit()
        while not (rig.names.asked if held else rig.opened):  # noqa: ASYNC110
            await asyncio.sleep(0)
        rig.pool.abort()
        assert rig.part.dropped["drain"] == 1

    run(scenario)


def test_abort_at_once(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        rig.open(1)
        rig.pool.abort()
        rig.pool.abort()

    run(scenario)


def test_refresh_changes_the_limits(run: Run) -> None:
    async def scenario(rig: Rig) -> None:
        server = await rig.serve(hang)
        rig.open(server.port, connections=4)
        for _ in range(4):
            rig.submit()
        await rig.until(lambda: len(server.exchanges) == 4)
        rig.pool.refresh(Destination(url=f"http://127.0.0.1:{server.port}", connections=1, queue=1, timeout=2))
        for exchange in server.exchanges[:3]:
            exchange.reply()
        await rig.until(lambda: rig.part.replayed == 3)
        rig.later(2.1)
        assert (rig.part.failed["timeout"], rig.pool.pending) == (1, 0)
        await rig.until(lambda: server.open <= 1)
        for _ in range(3):
            rig.submit()
        assert rig.part.dropped["queue_full"] >= 1
        server.script = Exchange.reply
        await rig.until(lambda: len(server.exchanges) > 4)

    run(scenario)


# Anything may happen.


def replies(data: bytes, *, close: bool = False) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.reply(data)
        if close:
            exchange.close()

    return script


def answer_later(exchange: Exchange) -> None:
    asyncio.get_running_loop().call_later(0.004, exchange.reply)


DEEDS: dict[str, Script] = {
    "answer": replies(OK),
    "answer later": answer_later,
    "chunked": replies(ANSWERS["chunked"][1]),
    "last answer": replies(ANSWERS["close"][1], close=True),
    "answer, then close": replies(OK, close=True),
    "until closed": replies(b"HTTP/1.1 200 OK\r\n\r\nall of it", close=True),
    "surplus": replies(OK + OK),
    "close": Exchange.close,
    "reset": Exchange.reset,
    "part, then close": replies(OK[:30], close=True),
    "part": replies(OK[:30]),
    "garbage": replies(b"garbage"),
    "hang": hang,
}


@dataclass(frozen=True)
class Step:
    lane: int
    once: bool
    body: int
    wait: bool  # for quiet, before the next


STEPS = st.lists(
    st.builds(Step, st.integers(0, 3), st.booleans(), st.sampled_from([0, 10, 50_000]), st.booleans()),
    min_size=1,
    max_size=40,
)


@pytest.mark.parametrize("base", LOOPS, ids=["uvloop", "asyncio"])
@given(
    steps=STEPS,
    deeds=st.lists(st.sampled_from(sorted(DEEDS)), max_size=40),
    connections=st.integers(1, 4),
    room=st.sampled_from([1000, 120_000, 1 << 20]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_and_balance_whatever_the_destination_does(
    base: type[asyncio.AbstractEventLoop], steps: list[Step], deeds: list[str], connections: int, room: int
) -> None:
    script: Iterator[str] = iter(deeds)

    async def scenario(rig: Rig) -> None:

        def next_deed(exchange: Exchange) -> None:
            DEEDS[next(script, "answer")](exchange)

        server = await rig.serve(next_deed)
        rig.open(server.port, connections=connections, timeout=3, queue_timeout=8, queue=20, queue_bytes=room)
        for number, step in enumerate(steps):
            name, lane = b"/%d/%d" % (step.lane, number), b"lane%d" % step.lane
            rig.submit(name, lane, method=b"POST", body=bytes(step.body), once=step.once)
            assert rig.pool.held <= max(room, 50_100)
            if step.wait:
                await rig.until(lambda: not rig.pool.pending, step=0.1)
        await rig.until(lambda: not rig.pool.pending, step=0.1)

        times = Counter(server.got)
        assert sum(count - 1 for count in times.values()) <= rig.part.retried
        assert max(times.values(), default=1) <= 2
        assert all(times[b"/%d/%d" % (step.lane, number)] < 2 for number, step in enumerate(steps) if step.once)
        lanes: defaultdict[bytes, list[int]] = defaultdict(list)
        for got in server.got:
            _, of, index = got.split(b"/")
            lanes[of].append(int(index))
        assert all(order == sorted(order) for order in lanes.values())
        assert rig.part.replayed <= len(server.exchanges)
        assert {len(exchange.body) for exchange in server.exchanges} <= {step.body for step in steps}

    play(base, scenario)
