"""What production answered and what the test environment received, gathered from their logs while they grow.

A look reads all that is new, up to a cap for each log, and remembers every request in the form that the tally counts.
"""

import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

from lab.logs import Follower, discard, intact
from lab.network.nginx import Entry
from lab.tally import Answered, Received
from lab.traffic import instance_of

#: Requests that are remembered on either side. What comes later is counted and forgotten: no tally is right then.
REQUESTS_MOST = 2_000_000
#: Seconds that a rate is taken over.
RATE_OVER = 2.0

_DONE = "200"


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second, of late."""

    production: float  # that the instance answered
    test: float  # of its clients, that the test environment received


@dataclass(slots=True)
class _Lately:
    """When requests ended, those of the last seconds."""

    production: deque[float] = field(default_factory=deque)
    test: deque[float] = field(default_factory=deque)


class Records:
    """Of one test environment and any number of production instances, also of those that are gone. Any thread may call
    it."""

    def __init__(self, most: int = REQUESTS_MOST) -> None:
        self._most = most
        self._lock = threading.Lock()
        self.answered: dict[str, list[Answered]] = {}  # by instance
        self.received: list[Received] = []
        self.cut = 0  # requests that the test environment did not get to their end, or could not read
        self.forgotten = 0
        self._production: dict[str, Follower] = {}
        self._test: list[Follower] = []
        self._lately: defaultdict[str, _Lately] = defaultdict(_Lately)

    def watch_production(self, instance: str, log: Path) -> None:
        """Read this log from now on. Once is enough, also for an instance that stops and starts."""
        with self._lock:
            if instance not in self._production:  # who walks through the tables meanwhile walks through the old ones
                self._production = {**self._production, instance: Follower(log)}
                self.answered = {**self.answered, instance: []}

    def watch_test(self, log: Path) -> None:
        """Read this log from now on; a test environment may have several servers."""
        with self._lock:
            if all(follower.path != log for follower in self._test):
                self._test = [*self._test, Follower(log)]

    @property
    def read_so_far(self) -> int:
        """Bytes of all logs."""
        return sum(follower.read_so_far for follower in (*self._test, *self._production.values()))

    @property
    def behind(self) -> int:
        """Bytes of all logs that no look has read."""
        return sum(follower.behind for follower in (*self._test, *self._production.values()))

    @property
    def broken(self) -> int:
        """Lines that could not be read."""
        return sum(follower.broken for follower in (*self._test, *self._production.values()))

    def look(self) -> None:
        """Read what is new."""
        with self._lock:
            for follower in self._test:
                entries = follower.read()
                for entry in entries:
                    self._lately[self._owner(entry)].test.append(entry.ended)
                whole = [entry for entry in entries if entry.status == _DONE]
                self.cut += len(entries) - len(whole)
                room = self._room(len(self.received), len(whole))
                self.received += [received(entry) for entry in whole[:room]]
                for entry in entries:
                    discard(entry)
            remembered = sum(map(len, self.answered.values()))
            for instance, follower in self._production.items():
                entries = follower.read()
                self._lately[instance].production.extend(entry.ended for entry in entries)
                room = self._room(remembered, len(entries))
                remembered += room
                self.answered[instance] += [answered(entry) for entry in entries[:room]]
            for lately in self._lately.values():
                for ends in (lately.production, lately.test):
                    if ends:
                        _forget(ends, ends[-1])

    def rates(self, now: float) -> dict[str, Rates]:
        """By instance; under an empty name what else the test environment receives."""
        with self._lock:
            return {key: Rates(_rate(one.production, now), _rate(one.test, now)) for key, one in self._lately.items()}

    def _owner(self, entry: Entry) -> str:
        instance = instance_of(entry.target)
        return instance if instance in self._production else ""

    def _room(self, remembered: int, more: int) -> int:
        room = min(more, self._most - remembered)
        self.forgotten += more - room
        return room


def _rate(ends: deque[float], now: float) -> float:
    _forget(ends, now)
    return len(ends) / RATE_OVER


def _forget(ends: deque[float], now: float) -> None:
    while ends and ends[0] <= now - RATE_OVER:
        ends.popleft()


def answered(entry: Entry) -> Answered:
    """An entry of production's log, for the tally."""
    return Answered(name(entry), entry.ended - entry.seconds, entry.ended, entry.status == _DONE)


def received(entry: Entry) -> Received:
    """An entry of the test environment's log, for the tally; its body is compared now."""
    return Received(name(entry), intact(entry), entry.ended)


def name(entry: Entry) -> str:
    """What tells a request from all others."""
    return f"{entry.method} {entry.target}"
