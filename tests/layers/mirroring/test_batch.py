"""One look for a batch, and an answer for each of its records."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.batch import SWEEPS, Shell
from mirroring.bus import Unsent
from mirroring.delivery import FIRST_DELAY
from mirroring.model import Refused, Scope, Session
from mirroring.report import Action, Change, Report
from mirroring.telemetry import Telemetry
from tests.layers.mirroring.records import SWEEP, batch, failures, state

NOW = datetime(2026, 11, 23, 8, 5, tzinfo=UTC)
SESSION = Session("tms-1", "eni-1", "tmt-1", "tmf-1", 1, 77, 8500, "i-1", {"mirror:source": "web"})


_owners = count()  # powertools keeps one logger per name


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 42_000


@dataclass
class Runs:
    """A reconciler that only reports."""

    report: Report = field(default_factory=lambda: Report(Scope()))
    scopes: list[Scope] = field(default_factory=list)
    remaining: float = 0.0
    running: bool = False

    def run(
        self, scope: Scope, remaining: Callable[[], float], *, on_change: Callable[[Change], None] | None = None
    ) -> Report:
        self.scopes.append(scope)
        self.remaining = remaining()
        self.running = True
        for change in self.report.changes:
            assert on_change
            on_change(change)
        self.running = False
        return replace(self.report, scope=scope)


@dataclass
class Bus:
    running: Callable[[], bool]  # whether a run is under way
    announced: list[Mapping[str, Any]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    when: list[str] = field(default_factory=list)
    queued: list[tuple[Mapping[str, Any], int]] = field(default_factory=list)
    postponed: dict[str, int] = field(default_factory=dict)
    unsent: tuple[Unsent, ...] = ()
    deaf: bool = False

    def announce(self, details: Iterable[Mapping[str, Any]]) -> tuple[Unsent, ...]:
        told = list(details)
        self.announced += told
        self.sizes.append(len(told))
        self.when.append("within" if self.running() else "after")
        return self.unsent

    def enqueue(self, message: Mapping[str, Any], delay: int) -> None:
        if self.deaf:
            raise Refused("SendMessage", "ServiceUnavailable", "no")
        self.queued.append((message, delay))

    def postpone(self, receipt_handle: str, seconds: int) -> None:
        if self.deaf:
            raise Refused("ChangeMessageVisibility", "AccessDenied", "no")
        self.postponed[receipt_handle] = seconds


class World:
    """The shell with everything around it."""

    def __init__(self, report: Report | None = None) -> None:
        self.runs = Runs(report or Report(Scope()))
        self.bus = Bus(lambda: self.runs.running)
        self.log = StringIO()
        telemetry = Telemetry(f"batch-{next(_owners)}", self.log)
        self.shell = Shell(self.runs, self.bus, telemetry, "stack", lambda: NOW)

    def handle(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return self.shell.handle(event, Context())

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]


def test_all_records_of_a_batch_are_one_look() -> None:
    world = World()
    answer = world.handle(batch(state("i-1"), state("i-2"), state("i-1")))
    both = frozenset({"i-1", "i-2"})
    assert world.runs.scopes == [Scope(instances=both, fresh=both)]
    assert answer == {"batchItemFailures": []}
    assert world.runs.remaining == 42.0


def test_a_record_comes_again_if_one_of_its_instances_is_unfinished() -> None:
    world = World(Report(Scope(), unfinished=frozenset({"i-2"})))
    answer = world.handle(batch(state("i-1"), state("i-2"), SWEEP))
    assert failures(answer) == {"m-2", "m-3"}
    assert world.bus.postponed == {"r-2": FIRST_DELAY, "r-3": FIRST_DELAY}


def test_all_records_come_again_if_nothing_could_be_read() -> None:
    world = World(Report(Scope(), everything=True))
    assert failures(world.handle(batch(state("i-1"), state("i-2")))) == {"m-1", "m-2"}


def test_a_record_waits_longer_each_time() -> None:
    world = World(Report(Scope(), unfinished=frozenset({"i-1"})))
    world.handle(batch(state("i-1"), received=3))
    assert world.bus.postponed == {"r-1": 4 * FIRST_DELAY}


def test_what_only_time_ran_out_for_comes_again_soon() -> None:
    world = World(Report(Scope(), unfinished=frozenset({"i-1"}), out_of_time=True))
    assert failures(world.handle(batch(state("i-1"), received=9))) == {"m-1"}
    assert world.bus.postponed == {"r-1": FIRST_DELAY}


def test_a_record_that_cannot_be_postponed_comes_again_all_the_same() -> None:
    world = World(Report(Scope(), unfinished=frozenset({"i-1"})))
    world.bus.deaf = True
    assert failures(world.handle(batch(state("i-1")))) == {"m-1"}
    assert any(line["message"] == "Not postponed" for line in world.lines)


def test_a_record_that_is_not_understood_is_logged_once_and_does_not_come_again() -> None:
    world = World(Report(Scope(), unfinished=frozenset({"i-1"})))
    answer = world.handle(batch("no json {", {"source": "aws.s3"}, state("i-1")))
    assert failures(answer) == {"m-3"}
    assert [line["why"][:13] for line in world.lines if line["message"] == "Passed over"] == [
        "not an object",
        "unknown event",
    ]
    assert world.runs.scopes == [Scope(instances=frozenset({"i-1"}), fresh=frozenset({"i-1"}))]


def test_where_nothing_is_asked_nobody_looks() -> None:
    world = World()
    assert world.handle(batch({"source": "aws.s3"})) == {"batchItemFailures": []}
    assert world.handle({"source": "aws.s3"})["passed_over"] == ["unknown event: source 'aws.s3', detail-type None"]
    assert world.handle({"Records": []}) == {"batchItemFailures": []}
    assert world.runs.scopes == []


def test_a_bare_event_is_answered_with_the_summary() -> None:
    world = World(Report(Scope(), policy="/stack/policy:3", unfinished=frozenset({"i-1"})))
    answer = world.handle(state("i-1"))
    assert answer["policy"] == "/stack/policy:3"
    assert answer["unfinished"] == ["i-1"]
    assert answer["passed_over"] == []
    assert world.runs.scopes == [Scope(instances=frozenset({"i-1"}), fresh=frozenset({"i-1"}))]
    json.dumps(answer)


def test_a_plan_by_hand() -> None:
    world = World()
    assert world.handle({"mode": "plan"})["plan_only"] is True
    assert world.runs.scopes == [Scope(everything=True, plan_only=True)]


def test_the_log_is_under_the_ids_of_the_events_or_of_the_messages() -> None:
    world = World()
    world.handle(batch(state("i-1"), {"mode": "sweep"}))
    assert world.lines[0]["correlation_id"] == "event-i-1"
    assert world.lines[0]["events"] == ["event-i-1", "m-2"]


def test_changes_are_announced_while_they_are_made() -> None:
    """What one call takes is told at once, the rest after the run."""
    world = World(Report(Scope(), created=(Change(Action.CREATE, SESSION, "tagged"),) * 23))
    world.handle(batch(state("i-1")))
    assert world.bus.sizes == [10, 10, 3]
    assert world.bus.when == ["within", "within", "after"]


def test_a_change_is_announced() -> None:
    world = World(Report(Scope(), created=(Change(Action.CREATE, SESSION, "tagged"),)))
    world.handle(batch(state("i-1")))
    [detail] = world.bus.announced
    assert (detail["action"], detail["owner"], detail["instance-id"]) == ("created", "stack", "i-1")


def test_a_bus_that_does_not_take_an_event_fails_no_record() -> None:
    world = World(Report(Scope(), created=(Change(Action.CREATE, SESSION, "tagged"),)))
    world.bus.unsent = (Unsent({}, "ThrottlingException", "no"),)
    assert world.handle(batch(state("i-1"))) == {"batchItemFailures": []}
    assert any(line["message"] == "Not announced" for line in world.lines)


def test_the_first_sweep_waits_for_a_healthy_target() -> None:
    world = World(Report(Scope(), waiting=True))
    assert world.handle(batch({"mode": "sweep", "attempt": 3})) == {"batchItemFailures": []}
    assert world.bus.queued == [({"mode": "sweep", "attempt": 4}, 3 * FIRST_DELAY)]


def test_a_next_sweep_that_cannot_be_queued_fails_no_record() -> None:
    world = World(Report(Scope(), waiting=True))
    world.bus.deaf = True
    assert world.handle(batch({"mode": "sweep", "attempt": 3})) == {"batchItemFailures": []}
    assert any(line["message"] == "Not queued" for line in world.lines)


def test_the_first_sweep_does_not_wait_for_ever() -> None:
    world = World(Report(Scope(), waiting=True))
    world.handle(batch({"mode": "sweep", "attempt": SWEEPS}))
    assert world.bus.queued == []


@pytest.mark.parametrize(
    "report",
    [
        Report(Scope(), waiting=True, unfinished=frozenset({"i-1"}), out_of_time=True),
        Report(Scope(), waiting=True, unfinished=frozenset({"i-1"})),
        Report(Scope(), waiting=True, everything=True),
    ],
)
def test_a_first_sweep_that_comes_again_by_itself_is_not_queued_beside(report: Report) -> None:
    world = World(report)
    assert failures(world.handle(batch({"mode": "sweep", "attempt": 3}))) == {"m-1"}
    assert world.bus.queued == []


def test_a_first_sweep_by_hand_does_not_come_again_by_itself() -> None:
    world = World(Report(Scope(), waiting=True, unfinished=frozenset({"i-1"})))
    world.handle({"mode": "sweep", "attempt": 3})
    assert world.bus.queued == [({"mode": "sweep", "attempt": 4}, 3 * FIRST_DELAY)]


def test_all_first_sweeps_together_take_the_minutes_that_the_comment_tells() -> None:
    waits = []
    for attempt in range(1, SWEEPS + 1):
        world = World(Report(Scope(), waiting=True))
        world.handle(batch({"mode": "sweep", "attempt": attempt}))
        waits += [delay for _, delay in world.bus.queued]
    assert sum(waits) // 60 == 22


def test_a_sweep_of_a_schedule_starts_no_row_of_sweeps() -> None:
    """As the reconciler sees it: without an attempt it is no first sweep, and never waits."""
    world = World()
    world.handle({"mode": "sweep"})
    assert world.runs.scopes == [Scope(everything=True)]


def test_a_plan_beside_an_event_makes_no_sweep_of_it() -> None:
    world = World()
    world.handle(batch({"mode": "plan"}, state("i-1")))
    assert world.runs.scopes == [Scope(instances=frozenset({"i-1"}), fresh=frozenset({"i-1"}))]


def test_a_sweep_that_found_its_targets_does_not_come_again() -> None:
    world = World(Report(Scope(), waiting=False))
    world.handle(batch({"mode": "sweep", "attempt": 1}))
    assert world.bus.queued == []


@given(
    st.lists(st.sampled_from(["i-1", "i-2", "i-3"]), min_size=1, max_size=8), st.sets(st.sampled_from(["i-1", "i-3"]))
)
def test_exactly_the_records_of_unfinished_instances_come_again(named: list[str], unfinished: set[str]) -> None:
    world = World(Report(Scope(), unfinished=frozenset(unfinished)))
    answer = world.handle(batch(*map(state, named)))
    assert failures(answer) == {f"m-{number}" for number, name in enumerate(named, 1) if name in unfinished}
    assert len(world.runs.scopes) == 1
