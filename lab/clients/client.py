"""Connections that send at a set rate and think between requests: `python -m lab.clients.client --help`.

One process, one event loop. A connection sends, waits for all answers of the exchange, and sends again when its time
comes; lateness does not lower the rate, it shows in the summary. What was sent, and where in its stream,
goes to a file.
"""

import argparse
import asyncio
import json
import random
import socket
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import uvloop

from lab.clients import exchange
from lab.clients.exchange import Exchange, Maker, Sent

_ANSWER_WITHIN = 30.0

#: kinds of exchange and how often each is chosen, for connections that stay
MIXES: dict[str, dict[Maker, float]] = {
    "plain": {exchange.get: 0.9, exchange.post: 0.1},
    "lossless": {
        exchange.get: 0.68,
        exchange.post: 0.1,
        exchange.chunked: 0.1,
        exchange.pipelined: 0.05,
        exchange.pieces: 0.065,
        exchange.large: 0.005,
    },
    # Without `pieces`: behind a hole of unknown length a stream resumes only at a segment that holds a whole head.
    "lossy": {
        exchange.get: 0.745,
        exchange.post: 0.1,
        exchange.chunked: 0.1,
        exchange.pipelined: 0.05,
        exchange.large: 0.005,
    },
}
_ONCE: dict[Maker, float] = {exchange.get: 0.7, exchange.post: 0.2, exchange.chunked: 0.1}


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, how long, over how many connections; `once` of them close after each exchange."""

    rate: float
    seconds: float
    connections: int
    once: int
    mix: str
    seed: int


@dataclass(slots=True)
class Summary:
    """What the clients did, for the reader of a test's failure."""

    sent: int = 0
    answered: int = 0
    failed: int = 0  # connections that ended inside an exchange
    latest: float = 0.0  # seconds behind the schedule, at worst


class _Answers(asyncio.Protocol):
    """Counts complete answers, of which only Content-Length ones are expected."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self._buffer = b""
        self._methods: list[str] = []
        self._done: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def expect(self, methods: list[str]) -> asyncio.Future[None]:
        """Done when each of `methods` is answered."""
        self.statuses, self._methods = [], methods
        self._done = asyncio.get_running_loop().create_future()
        if self.closed:
            self._done.set_exception(ConnectionError("closed"))
        return self._done

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            end += 4
            if self._methods[len(self.statuses)] != "HEAD":
                _, _, rest = head.lower().partition(b"content-length:")
                end += int(rest.partition(b"\r\n")[0])
            if len(self._buffer) < end:
                return
            self._buffer = self._buffer[end:]
            self.statuses.append(int(head.split(b" ", 2)[1]))
            if len(self.statuses) == len(self._methods) and self._done and not self._done.done():
                self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._done and not self._done.done():
            self._done.set_exception(ConnectionError("closed inside an exchange"))


class _Client:
    """One schedule of exchanges, over one connection after the other or over a single one."""

    def __init__(
        self, number: int, pace: Pace, server: tuple[str, int], log: IO[str], ports: Counter[int], summary: Summary
    ) -> None:
        self._number, self._pace, self._server, self._log, self._ports, self._summary = (
            number,
            pace,
            server,
            log,
            ports,
            summary,
        )
        self._chance = random.Random(f"{pace.seed}/{number}")
        self._once = number < pace.once
        self._answers: _Answers | None = None
        self._address = (0, 0)  # port, how often it was used before
        self._offset = 0
        self._mss = 0

    async def run(self, begin: float) -> None:
        """All exchanges from `begin`, a time of the loop, to the end of the run."""
        loop = asyncio.get_running_loop()
        interval = self._pace.connections / self._pace.rate
        due, end, count = begin + interval * self._chance.random(), begin + self._pace.seconds, 0
        while due < end:
            await asyncio.sleep(max(0.0, due - loop.time()))
            self._summary.latest = max(self._summary.latest, loop.time() - due)
            sent = await self._exchange(f"{self._number}-{count}")
            due += sent * interval * self._chance.uniform(0.7, 1.3)
            count += 1
        if self._answers and self._answers.transport:
            self._answers.transport.close()

    async def _exchange(self, name: str) -> int:
        try:
            if self._answers is None:
                await self._connect()
            what = self._make(name)
            await self._send(what)
        except (OSError, TimeoutError):
            self._summary.failed += 1
            if self._answers and self._answers.transport:
                self._answers.transport.close()
            self._answers = None
            return 1
        if self._once:
            self._answers = None
        return len(what.requests)

    def _make(self, name: str) -> Exchange:
        kinds = _ONCE if self._once else MIXES[self._pace.mix]
        (maker,) = self._chance.choices(list(kinds), list(kinds.values()))
        return maker(name, self._mss, self._chance, self._once)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_ANSWER_WITHIN):
            transport, self._answers = await loop.create_connection(_Answers, *self._server)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._mss = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        port = transport.get_extra_info("sockname")[1]
        self._address = (port, self._ports[port])
        self._ports[port] += 1
        self._offset = 0

    async def _send(self, what: Exchange) -> None:
        answers = self._answers
        assert answers is not None and answers.transport is not None
        for request in what.requests:
            request.start += self._offset
            request.end += self._offset
            request.port, request.nth = self._address
        done = answers.expect([request.method for request in what.requests])
        self._summary.sent += len(what.requests)
        try:
            for number, data in enumerate(what.writes):
                if number:
                    await asyncio.sleep(0.001)  # the loop gathers the writes of one turn
                answers.transport.write(data)
                self._offset += len(data)
            async with asyncio.timeout(_ANSWER_WITHIN):
                await done
        finally:
            for request, status in zip(what.requests, answers.statuses, strict=False):
                request.status = status
            self._write(what.requests)

    def _write(self, requests: list[Sent]) -> None:
        for request in requests:
            self._summary.answered += request.status != 0
            self._log.write(json.dumps(asdict(request)) + "\n")


def read(file: Path) -> list[Sent]:
    """What clients that have ended wrote down."""
    entries = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            values = json.loads(line)
            values["headers"] = tuple((name, value) for name, value in values["headers"])
            entries.append(Sent(**values))
    return entries


async def _run(pace: Pace, server: tuple[str, int], file: Path) -> Summary:
    summary, ports = Summary(), Counter[int]()
    with file.open("w", encoding="utf-8", buffering=1 << 20) as log:
        begin = asyncio.get_running_loop().time() + 0.1
        clients = [_Client(number, pace, server, log, ports, summary) for number in range(pace.connections)]
        await asyncio.gather(*(client.run(begin) for client in clients))
    return summary


def main() -> None:
    """Run, then print the summary as JSON."""
    parser = argparse.ArgumentParser(description="Send requests at a set rate; write down what was sent.")
    parser.add_argument("server", help="ADDRESS:PORT")
    parser.add_argument("file", type=Path, help="where to write it")
    parser.add_argument("--rate", type=float, default=2000, help="requests a second in all")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--connections", type=int, default=150)
    parser.add_argument("--once", type=int, default=30, help="how many of them close after each request")
    parser.add_argument("--mix", choices=MIXES, default="lossless")
    parser.add_argument("--seed", type=int, default=1)
    arguments = vars(parser.parse_args())
    address, _, port = arguments.pop("server").rpartition(":")
    file = arguments.pop("file")
    started = time.monotonic()
    summary = uvloop.run(_run(Pace(**arguments), (address, int(port)), file))
    print(json.dumps({**asdict(summary), "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
