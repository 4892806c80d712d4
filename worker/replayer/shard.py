"""One shard: a process that receives datagrams, hands them to the pipeline and the requests to the pools.

The supervisor starts it (`python -m replayer.shard`) with sockets, a memory file for snapshots and a control socket.
Lines of JSON come over the last: `{"generation": n, "settings": {…}}` first and at each change, `{"drain": seconds}` to
end. A shard never outlives its supervisor. Signals meant for the worker are the supervisor's to answer.

What fails outside of a pool's connections ends the process: a successor that counts right is better than a shard whose
accounting no longer does.
"""

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any

import uvloop

from replayer import LOG_FORMAT, decap, snapshot
from replayer.head import Request
from replayer.ledger import Ledger, as_dict
from replayer.pipeline import Pipeline, Route
from replayer.replay import Pool
from replayer.rewrite import Outgoing
from replayer.settings import Settings
from replayer.steering import effective_buffer

TICK = 0.05
BATCH = 32  # datagrams per turn at most: no more requests than the connections have answered until the next
PAUSE = 0.002  # seconds between two turns that did not fill: the more datagrams a turn has, the less each costs
PAUSE_BUFFER = 4 << 20  # a receive buffer smaller than this may not hold what comes during a pause
LARGEST = 65_536  # no UDP payload is longer, so none is cut
_PR_SET_PDEATHSIG = 1

type Receive = Callable[[list[bytes], float], list[Request]]
type Destinations = list[tuple[Callable[[Request], Outgoing | None], Callable[[Outgoing, float], None]]]

log = logging.getLogger("replayer.shard")


def receiver(
    sock: socket.socket, receive: Receive, destinations: Destinations, live: "memoryview[int]"
) -> Callable[[], int]:
    """A turn of `sock`; returns how many datagrams it had. The hot path: all is local, `destinations` changes in place.

    All datagrams are read, and their number stored, before the first is looked at: however that ends, the number is
    right. Work goes in stages, as many of one kind in a row cost less than in turns with others.
    """
    recv = sock.recv

    def turn() -> int:
        datagrams: list[bytes] = []
        append = datagrams.append
        try:
            for _ in range(BATCH):
                append(recv(LARGEST))
        except BlockingIOError:
            pass
        live[0] += len(datagrams)
        now = monotonic()
        deliver(receive(datagrams, now), destinations, now)
        return len(datagrams)

    return turn


class Intake:
    """When a socket has its turns: woken by a datagram, then, if `patient`, every PAUSE until a turn finds nothing."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, turn: Callable[[], int], *, patient: bool
    ) -> None:
        self.sock = sock
        self._loop = loop
        self._turn = turn
        self._patient = patient
        self._next: asyncio.Handle | None = None
        loop.add_reader(sock, self._wake)

    def stop(self) -> None:
        """No more turns."""
        self._loop.remove_reader(self.sock)
        if self._next is not None:
            self._next.cancel()

    def _wake(self) -> None:
        count = self._turn()
        if self._patient:
            self._loop.remove_reader(self.sock)
            self._plan(count)

    def _again(self) -> None:
        count = self._turn()
        if count:
            self._plan(count)
        else:
            self._next = None
            self._loop.add_reader(self.sock, self._wake)

    def _plan(self, count: int) -> None:
        full = count == BATCH
        self._next = self._loop.call_soon(self._again) if full else self._loop.call_later(PAUSE, self._again)


def deliver(requests: list[Request], destinations: Destinations, now: float) -> None:
    """Hand requests to every destination that wants them."""
    for outgoing_of, submit in destinations:
        for outgoing in [outgoing_of(request) for request in requests]:
            if outgoing is not None:
                submit(outgoing, now)


class Shard:
    """The state of the process. Needs a running loop."""

    def __init__(
        self, number: int, memory: int, control: socket.socket, vxlan: socket.socket, geneve: socket.socket | None
    ) -> None:
        first, self._unread = _first_line(control)
        settings = Settings.model_validate(first["settings"])
        self.finished = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._number = number
        self._control = control
        self._snapshots = snapshot.Writer(memory)
        self._ledger = Ledger()
        self._pipeline = Pipeline(settings, self._ledger)
        self._destinations: Destinations = []
        self._pools: dict[str, Pool] = {}
        self._retiring: dict[str, Pool] = {}  # of destinations that left the settings, until nothing is pending
        self._drain_until: float | None = None
        self._apply(settings, first["generation"])

        live = snapshot.live_counter(memory)
        receive = self._pipeline.receive_all
        self._intakes: list[Intake] = []
        self._take_in(vxlan, receive, live)
        if geneve is not None:
            self._take_in(geneve, partial(receive, unwrap=decap.geneve), live)
        control.setblocking(False)
        self._loop.add_reader(control, self._obey)
        self._obey_lines()
        self._tick()

    def _take_in(self, sock: socket.socket, receive: Receive, live: "memoryview[int]") -> None:
        turn = receiver(sock, receive, self._destinations, live)
        patient = effective_buffer(sock) >= PAUSE_BUFFER
        self._intakes.append(Intake(self._loop, sock, turn, patient=patient))

    def _obey(self) -> None:
        data = self._control.recv(LARGEST)
        if not data:
            os._exit(1)  # the supervisor is gone
        self._unread += data
        self._obey_lines()

    def _obey_lines(self) -> None:
        *lines, self._unread = self._unread.split(b"\n")
        for line in lines:
            order = json.loads(line)
            if "drain" in order:
                self._drain_until = monotonic() + order["drain"]
            else:
                self._change(Settings.model_validate(order["settings"]), order["generation"])

    def _change(self, settings: Settings, generation: int) -> None:
        """New settings take effect between two datagrams: what is held, queued or in flight stays."""
        self._pipeline.reconfigure(settings)
        self._apply(settings, generation)

    def _apply(self, settings: Settings, generation: int) -> None:
        wanted = {destination.url: destination for destination in settings.destinations}
        for url in self._pools.keys() - wanted.keys():
            self._retiring[url] = self._pools.pop(url)
        routes: Destinations = []
        for url, destination in wanted.items():
            part = self._ledger.destination(url)
            pool = self._pools.get(url) or self._retiring.pop(url, None)
            if pool is None:
                pool = Pool(destination, part)
            else:
                pool.refresh(destination)
            self._pools[url] = pool
            routes.append((Route(settings, destination, part).outgoing, pool.submit))
        self._destinations[:] = routes
        self._generation = generation

    def _tick(self) -> None:
        now = monotonic()
        deliver(self._pipeline.expire(now), self._destinations, now)
        for pool in self._all_pools():
            pool.tick(now)
        for url in [url for url, pool in self._retiring.items() if not pool.pending]:
            self._retiring.pop(url).abort()
        if self._drain_until is not None:
            self._drain(now, self._drain_until)
        self._snapshots.write(
            snapshot.Snapshot(
                at=now,
                generation=self._generation,
                draining=self._drain_until is not None,
                trouble={url: pool.trouble for url, pool in self._pools.items() if pool.trouble},
                ledger=as_dict(self._ledger),
            )
        )
        if not self.finished.is_set():
            self._loop.call_later(TICK, self._tick)

    def _drain(self, now: float, until: float) -> None:
        """Read what the sockets still hold, end the pipeline, wait for the answers: all of it `until` a time."""
        late = now >= until
        if self._intakes and (late or not _readable(intake.sock for intake in self._intakes)):
            for intake in self._intakes:
                intake.stop()
            self._intakes.clear()
            deliver(self._pipeline.close(now), self._destinations, now)
        if not self._intakes and (late or not any(pool.pending for pool in self._all_pools())):
            for pool in self._all_pools():
                pool.abort()
            self.finished.set()

    def _all_pools(self) -> list[Pool]:
        return [*self._pools.values(), *self._retiring.values()]


def _first_line(control: socket.socket) -> tuple[dict[str, Any], bytes]:
    """The first order, and what came after it."""
    data = b""
    while b"\n" not in data:
        more = control.recv(LARGEST)
        if not more:
            sys.exit(1)  # the supervisor is gone
        data += more
    line, _, rest = data.partition(b"\n")
    order: dict[str, Any] = json.loads(line)
    return order, rest


def _readable(sockets: Iterable[socket.socket]) -> bool:
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _end_on_failure(number: int) -> Callable[[asyncio.AbstractEventLoop, dict[str, Any]], None]:
    """What the loop does with an exception that nothing caught."""

    def failed(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or (isinstance(error, OSError) and "transport" in context):
            # A connection's end, which its pool hears of and counts; or a remark of the loop's own.
            log.debug("shard %d: %s: %s", number, context.get("message"), error)
            return
        log.critical("shard %d: %s", number, _place(error))
        os._exit(1)

    return failed


def _place(error: BaseException) -> str:
    """The error and where it came from, in one line."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-6:])
    places = " < ".join(f"{os.path.basename(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames)
    return f"{type(error).__name__}: {' '.join(str(error).split())} ({places})"


async def _serve(options: argparse.Namespace) -> None:
    asyncio.get_running_loop().set_exception_handler(_end_on_failure(options.number))
    control, vxlan = socket.socket(fileno=options.control), socket.socket(fileno=options.vxlan)
    geneve = None if options.geneve is None else socket.socket(fileno=options.geneve)
    for sock in (vxlan, geneve):
        if sock is not None:
            sock.setblocking(False)
    shard = Shard(options.number, options.memory, control, vxlan, geneve)
    gc.freeze()
    await shard.finished.wait()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m replayer.shard", description="Started by the supervisor alone.")
    for name in ("number", "memory", "control", "vxlan"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--geneve", type=int)
    return parser.parse_args()


def main() -> None:
    """Run until drained."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    options = _options()
    logging.basicConfig(format=LOG_FORMAT, level=logging.INFO)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(options))


if __name__ == "__main__":
    main()
