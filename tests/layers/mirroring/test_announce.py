"""Changes told to the bus while they are made, and a bus that does not listen."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.announce import FRUITLESS, GIVEN_UP, LEAST, OUT_OF_TIME, Announcer
from mirroring.bus import ENTRIES_PER_CALL, Unsent
from mirroring.model import Session
from mirroring.report import Action, Change


@dataclass
class Bus:
    """Takes of each call all but so many."""

    refuses: list[int] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)  # ids of sessions

    def announce(self, details: Iterable[Mapping[str, Any]]) -> tuple[Unsent, ...]:
        told = list(details)
        self.calls.append([detail["session"]["id"] for detail in told])
        number = self.refuses.pop(0) if self.refuses else 0
        return tuple(Unsent(detail, "Throttled", "no") for detail in told[:number])


def change(number: int) -> Change:
    return Change(Action.CREATE, Session(f"tms-{number}", "eni-1", "tmt-1", "tmf-1", 1, 77, 8500, "i-1"), "tagged")


def told(bus: Bus, number: int, remaining: float = 900.0) -> Announcer:
    announcer = Announcer(bus, "stack", lambda: remaining)
    for one in range(number):
        announcer.add(change(one))
    return announcer


def test_ten_thousand_changes_leave_nothing_for_the_end() -> None:
    bus = Bus()
    announcer = told(bus, 10_000)
    assert len(bus.calls) == 1000
    announcer.send()
    assert len(bus.calls) == 1000


@given(st.integers(0, 45))
def test_every_change_is_told_once_in_its_order_and_the_end_takes_one_call(number: int) -> None:
    bus = Bus()
    announcer = told(bus, number)
    within = len(bus.calls)
    announcer.send()
    assert [name for call in bus.calls for name in call] == [f"tms-{one}" for one in range(number)]
    assert len(bus.calls) - within == (number % ENTRIES_PER_CALL > 0)
    assert not announcer.lost


def test_what_the_bus_does_not_take_is_counted_by_code() -> None:
    announcer = told(Bus([2]), 10)
    assert announcer.lost == {"Throttled": 2}


def test_a_bus_that_takes_nothing_is_asked_no_more_after_a_few_calls() -> None:
    bus = Bus([10] * 100)
    announcer = told(bus, 1000)
    assert len(bus.calls) == FRUITLESS
    assert announcer.lost == {"Throttled": 10 * FRUITLESS, GIVEN_UP: 1000 - 10 * FRUITLESS}


def test_a_bus_that_takes_something_now_and_then_is_asked_on() -> None:
    bus = Bus([10, 10, 9, 10, 10, 0])
    assert told(bus, 100).lost == {"Throttled": 49}
    assert len(bus.calls) == 10


@pytest.mark.parametrize(("remaining", "calls", "lost"), [(LEAST, 1, {}), (LEAST - 0.1, 0, {OUT_OF_TIME: 10})])
def test_near_the_end_of_the_invocation_the_bus_is_not_asked(
    remaining: float, calls: int, lost: Mapping[str, int]
) -> None:
    bus = Bus()
    assert told(bus, 10, remaining).lost == lost
    assert len(bus.calls) == calls
