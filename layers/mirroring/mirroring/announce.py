"""Tells the bus of changes while they are made, ten a call: a run of thousands has nothing left to tell at its end.

The bus never holds a run up for long: one that takes nothing, call after call, is asked no more, and near the end of
the invocation it is not asked at all. What it is not told is counted; the change itself stays.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from mirroring.bus import ENTRIES_PER_CALL, Unsent
from mirroring.clients import CONNECT_TIMEOUT, WRITE_TIMEOUT
from mirroring.report import Change, announcement

#: Seconds that one call takes at worst, and the end of the invocation after it.
LEAST = CONNECT_TIMEOUT + WRITE_TIMEOUT + 2.0
FRUITLESS = 3  # calls in a row of which nothing arrived

OUT_OF_TIME, GIVEN_UP = "OutOfTime", "GivenUp"


class Announces(Protocol):
    def announce(self, details: Iterable[Mapping[str, Any]]) -> tuple[Unsent, ...]: ...


class Announcer:
    """One run's."""

    def __init__(self, bus: Announces, owner: str, remaining: Callable[[], float]) -> None:
        self._bus = bus
        self._owner = owner
        self._remaining = remaining
        self._waiting: list[Change] = []
        self._fruitless = 0
        self.lost: Counter[str] = Counter()  # events that did not reach the bus, by code

    def add(self, change: Change) -> None:
        self._waiting.append(change)
        if len(self._waiting) == ENTRIES_PER_CALL:
            self.send()

    def send(self) -> None:
        """Those that wait for their call to be full."""
        changes, self._waiting = self._waiting, []
        if not changes:
            return
        if why := self._objection():
            self.lost[why] += len(changes)
            return
        unsent = self._bus.announce([announcement(change, self._owner) for change in changes])
        self.lost.update(event.code for event in unsent)
        self._fruitless = self._fruitless + 1 if len(unsent) == len(changes) else 0

    def _objection(self) -> str:
        if self._fruitless == FRUITLESS:
            return GIVEN_UP
        return OUT_OF_TIME if self._remaining() < LEAST else ""
