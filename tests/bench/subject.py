"""The subject: `replayer run` with one shard, as the bench sees it from outside."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lab import worker
from lab.network.mirror import VXLAN_PORT
from lab.network.topology import TEST, WORKER
from tests.bench.processes import CpuTime, cpu_time, peak_memory
from tests.bench.rig import Rig
from tests.bench.sender import Order, Played

ADMIN = "http://127.0.0.1:8081"
_LOOK = 0.05
_IDLE_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class Account:
    """The counters that tell whether anything was lost."""

    arrived: int
    drops: int
    replayed: int
    losses: dict[str, int]  # by reason: whatever keeps a datagram or a request from being replayed
    busy: bool  # something is held, queued or in flight
    unbalanced: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of what was played."""

    played: Played
    arrived: int
    drops: int
    replayed: int
    losses: dict[str, int]
    unbalanced: tuple[str, ...]
    lag: float  # from the last datagram's sending to the last answer, as the accounting shows it
    cpu: CpuTime  # shard and supervisor
    shard: CpuTime

    @property
    def cpu_per_request(self) -> float:
        """In seconds."""
        return self.cpu.total / self.replayed

    def faults(self) -> list[str]:
        """Why it is not true that nothing was lost."""
        found = [f"{self.drops:,} datagrams dropped at the socket"] if self.drops else []
        missing = self.played.datagrams - self.arrived
        found += [f"{missing:,} datagrams never reached the socket"] if missing > 0 else []
        unanswered = self.played.requests - self.replayed
        found += [f"{unanswered:,} requests not replayed"] if unanswered else []
        return [*found, *(f"{name}: {count:,}" for name, count in self.losses.items()), *self.unbalanced]


class Subject:
    """A running worker."""

    def __init__(self, rig: Rig, program: worker.Worker) -> None:
        self._rig = rig
        self._worker = program
        self.supervisor: int = program.process.pid
        (self.shard,) = (shard["pid"] for shard in worker.status(program)["shards"])

    def account(self) -> Account:
        """Its accounting now."""
        status = worker.status(self._worker)
        totals = status["totals"]
        return Account(
            arrived=status["arrived"],
            drops=totals["socket_drops"],
            replayed=sum(part["replayed"] for part in totals["destinations"].values()),
            losses=_losses(totals),
            busy=bool(totals["held_bytes"]) or any(_busy(part) for part in totals["destinations"].values()),
            unbalanced=tuple(status["imbalances"]),
        )

    def play(self, recording: str, requests: int, rate: float) -> Outcome:
        """Play that many requests to it and wait for what becomes of them. /metrics is read once meanwhile."""
        pids = (self.supervisor, self.shard)
        before, used, used_by_shard = self.account(), cpu_time(pids), cpu_time(pids[1:])
        self._rig.sender.start(Order(recording, requests, rate, VXLAN_PORT))
        self._rig.network.run("worker", "curl", "-sS", "-o", "/dev/null", f"{ADMIN}/metrics")
        played = self._rig.sender.finish()
        after, settled = self._settle(before, played)
        return Outcome(
            played=played,
            arrived=after.arrived - before.arrived,
            drops=after.drops - before.drops,
            replayed=after.replayed - before.replayed,
            losses={name: count for name in after.losses if (count := after.losses[name] - before.losses[name])},
            unbalanced=after.unbalanced,
            lag=max(0.0, settled - played.ended),
            cpu=cpu_time(pids) - used,
            shard=cpu_time(pids[1:]) - used_by_shard,
        )

    def peak_memory(self) -> int:
        """The most bytes that the shard has had in memory since it started."""
        return peak_memory(self.shard)

    def _settle(self, before: Account, played: Played) -> tuple[Account, float]:
        """The accounting once all that was played is in it, and when that was; or when nothing moves any more."""
        last, since = self.account(), time.monotonic()
        while True:
            complete = last.arrived - before.arrived >= played.datagrams and not last.busy
            if complete or time.monotonic() - since > _IDLE_AFTER:
                return last, since
            time.sleep(_LOOK)
            now = self.account()
            if now != last:
                last, since = now, time.monotonic()


def _losses(totals: dict[str, Any]) -> dict[str, int]:
    groups = [totals["refused"], totals["given_up"]]
    for part in totals["destinations"].values():
        groups += part["passed_over"], part["failed"], part["dropped"]
    reasons: Counter[str] = Counter({"crashes": totals["crashes"]})
    for group in groups:
        reasons.update(group)
    return dict(reasons)


def _busy(part: dict[str, Any]) -> bool:
    return bool(part["queued"] or part["in_flight"])


@contextmanager
def subject(rig: Rig) -> Iterator[Subject]:
    """`replayer run` with one shard, replaying everything to the rig's test environment."""
    program = worker.start(rig.network, WORKER, VXLAN_PORT, f"http://{TEST}", "--shards", "1")
    yield Subject(rig, program)
    code, output = worker.end(program)
    if code:
        raise RuntimeError(f"replayer run ended with exit code {code}: {output[-500:]}")
