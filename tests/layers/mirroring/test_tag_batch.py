"""One look for a batch, its findings with it, and an answer for each of its records."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

from mirroring.autotag import TagChange, TagReport
from mirroring.model import Refused, Scope
from mirroring.tag_batch import TagShell
from mirroring.tagging import FindingEvent
from mirroring.telemetry import Telemetry
from tests.layers.mirroring.records import batch, failures

EVENTS = Path(__file__).parents[3] / "events"
NOW = datetime(2026, 11, 23, 8, 5, tzinfo=UTC)
CHANGE = TagChange("i-1", {}, {"env": "prod"}, "web", "rule web matches")

_owners = count()  # powertools keeps one logger per name


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 42_000


@dataclass
class Runs:
    """An autotagger that only reports."""

    report: TagReport = field(default_factory=lambda: TagReport(Scope()))
    scopes: list[Scope] = field(default_factory=list)
    findings: list[FindingEvent] = field(default_factory=list)
    remaining: float = 0.0

    def run(
        self,
        scope: Scope,
        findings: Sequence[FindingEvent],
        remaining: Callable[[], float],
        *,
        on_change: Callable[[TagChange], None] | None = None,
    ) -> TagReport:
        self.scopes.append(scope)
        self.findings += findings
        self.remaining = remaining()
        if on_change:
            on_change(CHANGE)
        return replace(self.report, scope=scope)


@dataclass
class Bus:
    postponed: dict[str, int] = field(default_factory=dict)
    deaf: bool = False

    def postpone(self, receipt_handle: str, seconds: int) -> None:
        if self.deaf:
            raise Refused("ChangeMessageVisibility", "InvalidParameterValue", "the receipt has expired")
        self.postponed[receipt_handle] = seconds


class Function:
    def __init__(self, runs: Runs, bus: Bus | None = None) -> None:
        self.runs, self.bus, self.log = runs, bus or Bus(), StringIO()
        telemetry = Telemetry(f"tag-batch-{next(_owners)}", self.log)
        self.shell = TagShell(self.runs, self.bus, telemetry, lambda: NOW)

    def handle(self, event: dict[str, Any]) -> dict[str, Any]:
        return self.shell.handle(event, Context())

    def lines(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("message") == message]


def event(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((EVENTS / name).read_text())
    return found


def running(instance: str) -> dict[str, Any]:
    return {"mode": "reconcile", "instances": [instance]}


def test_a_batch_is_one_look_and_what_is_unfinished_comes_again_later() -> None:
    function = Function(Runs(TagReport(Scope(), unfinished=frozenset({"i-2"}))))
    assert failures(function.handle(batch(running("i-1"), running("i-2"), received=2))) == {"m-2"}
    assert function.runs.scopes == [Scope(instances=frozenset({"i-1", "i-2"}))]
    assert function.runs.remaining == 42
    assert function.bus.postponed == {"r-2": 60}


def test_where_only_time_ran_out_it_comes_again_soon() -> None:
    function = Function(Runs(TagReport(Scope(), unfinished=frozenset({"i-2"}), out_of_time=True)))
    function.handle(batch(running("i-2"), received=9))
    assert function.bus.postponed == {"r-1": 30}


def test_a_record_that_cannot_be_postponed_comes_again_all_the_same() -> None:
    function = Function(Runs(TagReport(Scope(), unfinished=frozenset({"i-2"}))), Bus(deaf=True))
    assert failures(function.handle(batch(running("i-2")))) == {"m-1"}
    assert len(function.lines("Not postponed")) == 1


def test_a_finding_reaches_the_rules() -> None:
    function = Function(Runs())
    finding = event("guardduty-finding.json")
    function.handle(finding)
    named = finding["detail"]["resource"]["instanceDetails"]["instanceId"]
    assert [one.instance for one in function.runs.findings] == [named]
    assert function.runs.scopes == [Scope(instances=frozenset({named}))]


def test_a_bare_event_is_answered_with_the_summary_and_each_change_is_logged_with_before_and_after() -> None:
    function = Function(Runs(TagReport(Scope(), changes=(CHANGE,))))
    answer = function.handle(running("i-1"))
    assert answer["changed"] == 1
    assert answer["passed_over"] == []
    (line,) = function.lines("Tagged")
    assert (line["instance"], line["before"], line["after"], line["rule"]) == ("i-1", {}, {"env": "prod"}, "web")


def test_an_event_that_asks_for_nothing_starts_no_run() -> None:
    function = Function(Runs())
    assert function.handle(batch({"source": "nobody"}, "no object")) == {"batchItemFailures": []}
    assert function.runs.scopes == []
    assert len(function.lines("Passed over")) == 2
