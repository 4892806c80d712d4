"""What one container remembers between runs: answers for a minute, refusals for an hour.

None of it is state: AWS is asked again when it expires, and a container that starts anew only makes a few calls more
(decision 0008). Answers that an earlier run was given are never the ground of a delete or a modification: the
reconciler asks `old` which they are, forgets them, and decides anew.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import cast

ANSWERS = timedelta(seconds=60)
UNSUPPORTED = timedelta(hours=1)  # AWS said what is wrong: the type, or the target
UNEXPLAINED = timedelta(minutes=5)  # refused twice, and the interface looked free both times
REFUSALS = 10_000  # most remembered; beyond it the oldest goes


class Topic(Enum):
    POLICY = "policy"
    TARGETS = "targets"
    FILTERS = "filters"


@dataclass
class _Shelf:
    """Answers by id, all as old as the oldest."""

    answers: dict[str, object] = field(default_factory=dict)
    since: datetime | None = None
    run: int = 0  # that asked first


class Answers:
    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._run = 0
        self._shelves = {topic: _Shelf() for topic in Topic}

    def begin(self) -> None:
        """A run starts: what was answered before is old now."""
        self._run += 1

    def get[T](
        self, topic: Topic, ids: Collection[str], ask: Callable[[Collection[str]], Mapping[str, T]]
    ) -> dict[str, T]:
        """Those of the ids that exist. That one does not is an answer as well."""
        shelf = self._shelf(topic)
        missing = sorted(set(ids) - shelf.answers.keys())
        if missing:
            answered = ask(missing)
            if shelf.since is None:
                shelf.since, shelf.run = self._clock(), self._run
            shelf.answers.update({name: answered.get(name) for name in missing})
        held = ((name, shelf.answers[name]) for name in ids)
        return cast(dict[str, T], {name: answer for name, answer in held if answer is not None})

    def old(self) -> frozenset[Topic]:
        """Of what an earlier run asked."""
        return frozenset(topic for topic in Topic if self._shelf(topic).since and self._shelf(topic).run < self._run)

    def forget(self, topics: Collection[Topic]) -> None:
        for topic in topics:
            self._shelves[topic] = _Shelf()

    def _shelf(self, topic: Topic) -> _Shelf:
        shelf = self._shelves[topic]
        if shelf.since is not None and self._clock() - shelf.since >= ANSWERS:
            shelf = self._shelves[topic] = _Shelf()
        return shelf


class Tally:
    """How many sessions are ours: as last counted, and as changed by us since. Others change it too, so it ages."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._number = 0
        self._since: datetime | None = None

    @property
    def is_old(self) -> bool:
        return self._since is None or self._clock() - self._since >= ANSWERS

    @property
    def number(self) -> int:
        return self._number

    def count(self, number: int) -> None:
        self._number, self._since = number, self._clock()

    def add(self, number: int) -> None:
        self._number += number


class Refusals:
    """What is not tried again for a while: interfaces, instance types and targets in quarantine, sources forbidden."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._held: dict[str, tuple[datetime, str]] = {}
        self._first: dict[str, tuple[datetime, str]] = {}  # by instance type: the interface that was refused first

    def add(self, name: str, why: str, lifetime: timedelta = UNSUPPORTED) -> None:
        self._held.pop(name, None)
        while len(self._held) >= REFUSALS:
            del self._held[next(iter(self._held))]
        self._held[name] = (self._clock() + lifetime, why)

    def discard(self, name: str) -> None:
        self._held.pop(name, None)

    def clear(self) -> None:
        self._held.clear()
        self._first.clear()

    def is_second(self, instance_type: str, interface: str) -> bool:
        """Notes an interface that AWS does not mirror; whether another one of its type was refused before it."""
        until, first = self._first.get(instance_type, (self._clock(), ""))
        if self._clock() < until:
            return first != interface
        self._first[instance_type] = (self._clock() + UNSUPPORTED, interface)
        return False

    def acquit(self, instance_type: str) -> None:
        """AWS mirrors the type."""
        self._first.pop(instance_type, None)

    def why(self, name: str) -> str:
        """Why it is held, or nothing."""
        until, why = self._held.get(name, (None, ""))
        return why if until is not None and self._clock() < until else ""

    def all(self) -> dict[str, str]:
        return {name: why for name in self._held if (why := self.why(name))}
