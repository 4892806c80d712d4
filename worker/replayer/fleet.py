"""The shards' processes: started, watched, restarted; and their accounting, gathered over all that ever lived.

Each process has a memory file for its snapshots. When it ends, however it ends, its last snapshot is folded into the
past of its place, so that the conservation law goes on to hold; what it did after that snapshot is counted as lost in
the crash.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from replayer import snapshot, steering
from replayer.ledger import Failed, GivenUp, Ledger, Refused, add, from_dict
from replayer.settings import Settings

CRASHES, WITHIN = 5, 30.0  # so many crashes of one shard within so many seconds are a loop
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
SEND_TIMEOUT = 1.0
STALE = 5.0  # a loop that has not ticked for so long is not alive
HUNG = 30.0  # one that has not been alive for so long is ended

log = logging.getLogger("replayer.supervisor")


@dataclass(slots=True)
class Process:
    """One running shard, and what the supervisor holds of it."""

    popen: subprocess.Popen[bytes]
    exited: int  # a descriptor that is readable when it has ended
    control: socket.socket
    memory: int
    live: "memoryview[int]"
    silent_since: float | None = None  # when it was first found not alive


@dataclass(slots=True)
class Place:
    """A shard's place: the sockets that are its, whichever process serves them."""

    number: int
    sockets: list[socket.socket]  # VXLAN, then GENEVE if it is on
    drops: list[int] = field(default_factory=list)
    process: Process | None = None
    restart_at: float | None = None
    past: Ledger = field(default_factory=Ledger)  # of the processes that ended
    crashes: deque[float] = field(default_factory=lambda: deque(maxlen=CRASHES))


@dataclass(frozen=True, slots=True)
class PlaceReading:
    """What a shard's place is at one instant."""

    number: int
    pid: int | None
    alive: bool  # its loop ticks
    since_tick: float | None
    generation: int | None
    draining: bool
    trouble: dict[str, str]  # destination → why it could not be reached last
    ledger: Ledger  # of all its processes


class CrashLoop(Exception):
    """One shard crashed again and again."""


class Fleet:
    """All shards. Only the thread that made it may change it; any thread may take a reading."""

    def __init__(self, groups: Sequence[Sequence[socket.socket]]) -> None:
        self._lock = threading.Lock()
        self._places = [
            Place(number, list(sockets), drops=[0] * len(sockets))
            for number, sockets in enumerate(zip(*groups, strict=True))
        ]
        self._orders = b""

    def __len__(self) -> int:
        return len(self._places)

    def adopt(self, settings: Settings, generation: int, now: float) -> None:
        """Send every shard these settings; those started later get them too. Raises CrashLoop."""
        self._orders = _line({"generation": generation, "settings": settings.model_dump(mode="json")})
        for place in self._places:
            if place.process is None:
                self._start(place, now)
            else:
                _send(place, self._orders)

    def exits(self) -> list[int]:
        """Descriptors that become readable when a shard ends."""
        return [place.process.exited for place in self._places if place.process is not None]

    def next_restart(self) -> float | None:
        """When `restart` has something to do."""
        return min((place.restart_at for place in self._places if place.restart_at is not None), default=None)

    def restart(self, now: float) -> None:
        """Start the shards whose delay is over. Raises CrashLoop."""
        for place in self._places:
            if place.restart_at is not None and now >= place.restart_at:
                self._start(place, now)

    def end_hung(self, now: float) -> None:
        """Kill the shards that have not been alive for long: their successors can work. Call it every second or so: a
        shard counts as silent from the call that found it so, since after a pause of the whole machine all look silent.
        """
        for place in self._places:
            process = place.process
            if process is None:
                continue
            if _alive(snapshot.read(process.memory), now):
                process.silent_since = None
            elif process.silent_since is None:
                process.silent_since = now
            elif now - process.silent_since >= HUNG:
                log.error("shard %d (pid %d) hangs: it is ended", place.number, process.popen.pid)
                process.popen.kill()
                process.silent_since = None

    def reap(self, now: float, draining: bool = False) -> None:
        """Count the shards that have ended. A crashed one is to be restarted, unless draining. Raises CrashLoop."""
        for place in self._places:
            if place.process is None or place.process.popen.poll() is None:
                continue
            code, pid = place.process.popen.returncode, place.process.popen.pid
            crashed = not draining or code != 0
            self._bury(place, crashed)
            if not crashed:
                continue
            ended = f"shard {place.number} (pid {pid}) {_how(code)}"
            if draining:
                log.error("%s while draining", ended)
                continue
            self._restart_later(place, now, ended)

    def drain(self, timeout: float) -> None:
        """Receive no more, and tell every shard to finish. One that waits to be restarted is started for what its
        sockets still hold."""
        for place in self._places:
            for sock in place.sockets:
                steering.close_to_arrivals(sock)
        for place in self._places:
            if place.restart_at is not None:
                self._start(place, monotonic(), draining=True)
            if place.process is not None:
                _send(place, _line({"drain": timeout}))

    def kill(self) -> None:
        """End every shard at once."""
        for place in self._places:
            if place.process is not None:
                place.process.popen.kill()
                place.process.popen.wait()

    def read(self) -> list[PlaceReading]:
        """Every place as it is now. Call it every second or so: it widens the kernel's 32-bit drop counters."""
        with self._lock:
            now = monotonic()
            return [_read(place, now) for place in self._places]

    def _start(self, place: Place, now: float, draining: bool = False) -> None:
        """Start a shard; that it cannot be started is one more crash. Raises CrashLoop."""
        try:
            process = _launch(place)
        except OSError as error:
            with self._lock:
                place.past.crashes += 1
                place.restart_at = None
            failed = f"shard {place.number} cannot be started: {error}"
            if draining:
                log.error("%s", failed)
            else:
                self._restart_later(place, now, failed)
            return
        with self._lock:
            place.process, place.restart_at = process, None
        _send(place, self._orders)

    def _restart_later(self, place: Place, now: float, ended: str) -> None:
        """Note a crash, and when its successor is due. Raises CrashLoop."""
        place.crashes.append(now)
        if len(place.crashes) == CRASHES and now - place.crashes[0] <= WITHIN:
            raise CrashLoop(f"{ended}: crash {CRASHES} within {WITHIN:.0f} s; the worker ends")
        recent = sum(now - crash <= WITHIN for crash in place.crashes)
        delay = min(FIRST_DELAY * 2 ** (recent - 1), LONGEST_DELAY)
        place.restart_at = now + delay
        log.error("%s: crash %d, it restarts in %.1f s", ended, place.past.crashes, delay)

    def _bury(self, place: Place, crashed: bool) -> None:
        process = place.process
        assert process is not None
        with self._lock:
            add(place.past, legacy(snapshot.read(process.memory), process.live[0]))
            place.past.crashes += crashed
            place.process = None
        process.control.close()
        os.close(process.exited)
        os.close(process.memory)


def _launch(place: Place) -> Process:
    """A new process for this place. Raises OSError."""
    with ExitStack() as undo:
        memory = snapshot.create(f"shard-{place.number}")
        undo.callback(os.close, memory)
        live = snapshot.live_counter(memory)
        ours, theirs = socket.socketpair()
        undo.enter_context(ours)
        files = {"--memory": memory, "--control": theirs.fileno()}
        files |= dict(zip(("--vxlan", "--geneve"), (sock.fileno() for sock in place.sockets), strict=False))
        options = [f"{name}={fd}" for name, fd in files.items()]
        with theirs:
            popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "replayer.shard", f"--number={place.number}", *options],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": _python_path()},
                pass_fds=tuple(files.values()),
                process_group=0,  # Ctrl-C is the supervisor's to answer
            )
        undo.enter_context(popen)
        undo.callback(popen.kill)
        ours.settimeout(SEND_TIMEOUT)
        process = Process(popen, os.pidfd_open(popen.pid), ours, memory, live)
        undo.pop_all()
    return process


def legacy(last: snapshot.Snapshot | None, live: int) -> Ledger:
    """What a shard that has ended leaves to the totals: its last snapshot with nothing pending any more, and the
    datagrams that it read after that one."""
    ledger = Ledger() if last is None else from_dict(last.ledger)
    unseen = live - ledger.datagrams
    ledger.datagrams += unseen
    ledger.refused[Refused.SHARD_CRASHED] += unseen
    ledger.given_up_bytes[GivenUp.SHARD_CRASHED] += ledger.held_bytes
    ledger.held_bytes = ledger.flows = ledger.tombstones = 0
    for part in ledger.destinations.values():
        part.failed[Failed.SHARD_CRASHED] += part.queued + part.in_flight
        part.queued = part.in_flight = 0
    return ledger


def _read(place: Place, now: float) -> PlaceReading:
    place.drops = [steering.socket_drops(sock, before) for sock, before in zip(place.sockets, place.drops, strict=True)]
    total = Ledger()
    add(total, place.past)
    total.socket_drops += sum(place.drops)
    last = None if place.process is None else snapshot.read(place.process.memory)
    if last is not None:
        add(total, from_dict(last.ledger))
    return PlaceReading(
        number=place.number,
        pid=None if place.process is None else place.process.popen.pid,
        alive=_alive(last, now),
        since_tick=None if last is None else max(0.0, now - last.at),
        generation=None if last is None else last.generation,
        draining=last is not None and last.draining,
        trouble={} if last is None else last.trouble,
        ledger=total,
    )


def _alive(last: snapshot.Snapshot | None, now: float) -> bool:
    return last is not None and now - last.at < STALE


def _send(place: Place, line: bytes) -> None:
    """A shard that does not listen is stuck: it ends, its successor gets the orders in force."""
    process = place.process
    assert process is not None
    try:
        process.control.sendall(line)
    except OSError:
        process.popen.kill()


def _line(order: dict[str, object]) -> bytes:
    return json.dumps(order).encode() + b"\n"


def _how(code: int) -> str:
    names = {member.value: member.name for member in signal.Signals}
    return f"was killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"ended with exit code {code}"


def _python_path() -> str:
    """Where this package is, so that a shard runs the same one from any working directory."""
    inherited = os.environ.get("PYTHONPATH")
    here = str(Path(__file__).parent.parent)
    return here if not inherited else f"{here}{os.pathsep}{inherited}"
