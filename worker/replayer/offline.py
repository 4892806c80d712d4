"""`replayer replay`: capture files in, the same requests to one destination, at the capture's pace or another.

Unlike mirrored traffic, a file waits: nothing is dropped because the destination is slow, the replay falls behind the
pace instead, and says so.
"""

import asyncio
import io
import os
from collections.abc import Sequence
from typing import TextIO

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from replayer.capture import CaptureError, plain, read_all
from replayer.check import obstacle
from replayer.extract import Timeline, requests
from replayer.ledger import DestinationLedger, Ledger
from replayer.pipeline import Pipeline, Route
from replayer.replay import Pool
from replayer.report import accounting
from replayer.rewrite import Outgoing
from replayer.settings import Destination, Settings, SettingsError

_TICK = 0.05
_POLL = 0.002
_FRAMES_AT_ONCE = 64  # then answers have their turn
_MOST_WAITING = 1024  # requests submitted and not answered
_QUEUE_TIMEOUT = 86_400.0  # a request behind others of a slow connection is never given up for having waited
_LIVES = 3  # timeouts in a row without an answer end the replay
_LATE = 1.0  # worth a word


def replay(paths: Sequence[str], settings: Settings, speed: float, err: TextIO) -> int:
    """Send the requests, print the accounting to `err`; 0, 1 where requests failed, 3 where a file is damaged.

    Raises CaptureError for a file that is none, SettingsError for a destination out of reach.
    """
    destination = settings.destinations[0]
    reason = obstacle(destination)
    if reason:
        raise SettingsError(f"--to {destination.url}: {reason}: start it, or correct the address")
    ledger, damaged = Ledger(), list[CaptureError]()
    part = ledger.destination(destination.url)
    progress = _Bar(paths, part) if err.isatty() else None
    remarks = []
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            late = runner.run(_replay(paths, settings, speed, ledger, damaged, progress))
        if late > _LATE:
            remarks.append(f"the destination was slower than the capture: up to {late:.1f} s behind its pace")
    except _Stalled as stalled:
        remarks.append(f"--to {destination.url}: {stalled}: the rest was not replayed")
    finally:
        if progress is not None:
            progress.stop()
        print(accounting(ledger), file=err)
    for remark in (*remarks, *damaged):
        print(f"replayer: {remark}", file=err)
    return 3 if damaged else int(part.replayed < part.selected)


async def _replay(
    paths: Sequence[str],
    settings: Settings,
    speed: float,
    ledger: Ledger,
    damaged: list[CaptureError],
    progress: "_Bar | None",
) -> float:
    """Replay all; how far the replay fell behind the pace, in seconds."""
    destination = settings.destinations[0].model_copy(update={"queue_timeout": _QUEUE_TIMEOUT})
    part = ledger.destination(destination.url)
    route = Route(settings, destination, part)
    pool = Pool(destination, part)
    pace, room = _Pace(speed), _Room(pool, destination, part)
    ticker = asyncio.create_task(_tick(pool, progress))
    frames = read_all(paths, damaged, progress.open if progress is not None else plain)
    try:
        for number, found in enumerate(requests(frames, Pipeline(settings, ledger), Timeline())):
            for request in found:
                await pace.due(request.at)
                outgoing = route.outgoing(request)
                if outgoing is not None:
                    try:
                        await room.wait(outgoing)
                    finally:  # selected: the pool accounts for it, also when all ends here
                        pool.submit(outgoing, asyncio.get_running_loop().time())
            if number % _FRAMES_AT_ONCE == 0:
                await asyncio.sleep(0)
        await room.empty()
    finally:
        ticker.cancel()
        pool.abort()
        await asyncio.sleep(0)  # the closed connections' turn
    return pace.late


async def _tick(pool: Pool, progress: "_Bar | None") -> None:
    while True:
        pool.tick(asyncio.get_running_loop().time())
        if progress is not None:
            progress.show(pool.pending)
        await asyncio.sleep(_TICK)


class _Pace:
    """When a request is due: the first at once, the others as far from it as in the capture, over the speed."""

    def __init__(self, speed: float) -> None:
        self.late = 0.0
        self._speed = speed
        self._first: float | None = None
        self._begun = 0.0

    async def due(self, at: float) -> None:
        """Wait until a request captured `at` is due."""
        if self._speed == float("inf"):
            return
        loop = asyncio.get_running_loop()
        if self._first is None:
            self._first, self._begun = at, loop.time()
        wait = self._begun + (at - self._first) / self._speed - loop.time()
        self.late = max(self.late, -wait)
        if wait > 0:
            await asyncio.sleep(wait)


class _Stalled(Exception):
    """The destination has gone and does not come back."""


class _Room:
    """Keeps what the pool holds under its limits, so that it never drops for want of room."""

    def __init__(self, pool: Pool, destination: Destination, part: DestinationLedger) -> None:
        self._pool = pool
        self._part = part
        self._most = min(_MOST_WAITING, destination.queue)
        self._most_bytes = destination.queue_bytes
        self._patience = _LIVES * (destination.timeout + destination.connect_timeout)
        self._answered = 0
        self._answered_at = 0.0

    async def wait(self, outgoing: Outgoing) -> None:
        """Wait until there is room for one more; there is for a request of any size when nothing is pending."""
        size = len(outgoing.head) + len(outgoing.body)
        self._answered = -1
        while self._pool.pending and (self._pool.pending >= self._most or self._pool.held + size > self._most_bytes):
            await self._pause()

    async def empty(self) -> None:
        """Wait until all is answered."""
        self._answered = -1
        while self._pool.pending:
            await self._pause()

    async def _pause(self) -> None:
        """Let time pass. Raises _Stalled when nothing was answered for too long: the pool itself waits forever."""
        now = asyncio.get_running_loop().time()
        answered = self._part.replayed + sum(self._part.failed.values())
        if answered != self._answered:
            self._answered, self._answered_at = answered, now
        elif now - self._answered_at > self._patience:
            raise _Stalled(self._pool.trouble or "no answer")
        await asyncio.sleep(_POLL)


class _Bar:
    """A progress bar over the bytes of all files, with the requests' counts."""

    def __init__(self, paths: Sequence[str], part: DestinationLedger) -> None:
        self._part = part
        text = TextColumn("{task.fields[counts]}")
        console = Console(stderr=True)
        self._progress = Progress(BarColumn(), "{task.percentage:>3.0f} %", TimeElapsedColumn(), text, console=console)
        self._progress.live.auto_refresh = False  # `show` does it
        total = sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
        self._task: TaskID = self._progress.add_task("", total=total, counts="")
        self._progress.start()

    def open(self, path: str) -> io.BufferedReader:
        """Open a file whose reading moves the bar."""
        raw = open(path, "rb", buffering=0)  # noqa: SIM115 - the reader closes it
        return io.BufferedReader(self._progress.wrap_file(raw, task_id=self._task))  # type: ignore[arg-type]

    def show(self, pending: int) -> None:
        """Draw the present state."""
        failed = sum(self._part.failed.values()) + sum(self._part.dropped.values())
        counts = f"{self._part.replayed:,} replayed · {failed:,} failed · {pending:,} waiting"
        self._progress.update(self._task, counts=counts, refresh=True)

    def stop(self) -> None:
        self.show(0)
        self._progress.stop()
