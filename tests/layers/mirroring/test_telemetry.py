"""Logs and metrics as they are written, line by line."""

import json
from collections.abc import Iterable
from dataclasses import replace
from io import StringIO
from itertools import count
from typing import Any

import pytest

from mirroring.autotag import TagReport
from mirroring.model import Finding, Plan, Refused, Scope, Session, Trouble
from mirroring.report import Action, Change, Failure, Report
from mirroring.telemetry import LINES, NAMESPACE, Telemetry, metric_of, metrics_of

SESSION = Session("tms-1", "eni-1", "tmt-1", "tmf-1", 1, 77, 8500, "i-1", {"mirror:source": "web"})
CREATED = Change(Action.CREATE, SESSION, "tagged")
FULL = Scope(everything=True)
_owners = count()


class Written:
    """A telemetry of its own (powertools keeps one logger per name), and what it writes."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.owner = f"stack-{next(_owners)}"
        self._log = StringIO()
        self._capsys = capsys
        self.telemetry = Telemetry(self.owner, self._log)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @property
    def metrics(self) -> dict[tuple[str, str], float]:
        """Values by name and code, without those of no code named."""
        found: dict[tuple[str, str], float] = {}
        for line in self._capsys.readouterr().out.splitlines():
            emf = json.loads(line)
            [directive] = emf["_aws"]["CloudWatchMetrics"]
            assert directive["Namespace"] == NAMESPACE
            assert emf["service"] == self.owner
            assert directive["Dimensions"] in ([["service"]], [["service", "code"]])
            for metric in directive["Metrics"]:
                assert metric["Unit"] == "Count"
                found[metric["Name"], emf.get("code", "")] = sum(_values(emf[metric["Name"]]))
        return found


def _values(value: float | list[float]) -> Iterable[float]:
    return value if isinstance(value, list) else [value]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    return Written(capsys)


def test_a_run_is_one_line_with_its_summary_under_the_id_of_its_event(written: Written) -> None:
    written.telemetry.begin(["event-1", "event-2"])
    written.telemetry.report(Report(FULL, policy="/stack/policy:3"))
    [line] = written.lines
    assert line["message"] == "Reconciled"
    assert line["level"] == "INFO"
    assert line["correlation_id"] == "event-1"
    assert line["events"] == ["event-1", "event-2"]
    assert line["report"]["policy"] == "/stack/policy:3"
    assert line["service"] == written.owner


def test_the_next_run_bears_its_own_id(written: Written) -> None:
    written.telemetry.begin(["event-1"])
    written.telemetry.begin([])
    written.telemetry.report(Report(FULL))
    [line] = written.lines
    assert line.get("correlation_id") is None
    assert line["events"] == []


def test_changes_and_failures_are_lines_of_their_own(written: Written) -> None:
    failure = Failure(Action.CREATE, "eni-2", "i-2", "InternalError", "retry", "CreateTrafficMirrorSession: no")
    written.telemetry.report(Report(FULL, created=(CREATED,), failed=(failure,)))
    _, change, failed = written.lines
    assert (change["action"], change["reason"], change["source"]) == ("create", "tagged", "web")
    assert (change["session"], change["interface"], change["instance"]) == ("tms-1", "eni-1", "i-1")
    assert (failed["level"], failed["code"], failed["answer"]) == ("WARNING", "InternalError", "retry")
    assert failed["message"] == "CreateTrafficMirrorSession: no"


def test_a_refused_policy_is_an_error_line_with_its_errors(written: Written) -> None:
    written.telemetry.report(Report(FULL, policy="/stack/policy:3", refused=("/stack/policy:4: line 2: no",)))
    _, line = written.lines
    assert (line["level"], line["message"], line["why"]) == ("ERROR", "Policy refused", "/stack/policy:4: line 2: no")


def test_a_finding_is_a_warning_line_of_its_own(written: Written) -> None:
    finding = Finding(Trouble.GUARD, "16 deletes are held back: …", source="web", interface="eni-1")
    written.telemetry.report(Report(FULL, findings=(finding,)))
    _, line = written.lines
    assert (line["level"], line["message"], line["trouble"]) == ("WARNING", finding.text, "guard")
    assert (line["source"], line["interface"], line["instance"]) == ("web", "eni-1", "")


def test_a_run_that_stopped_is_an_error(written: Written) -> None:
    written.telemetry.report(Report(FULL, stopped=str(Refused("CreateTrafficMirrorSession", "Unauthorized", "no"))))
    assert written.lines[0]["level"] == "ERROR"
    assert written.metrics["stopped", ""] == 1


def test_lines_of_one_run_have_an_end(written: Written) -> None:
    failure = Failure(Action.CREATE, "eni-2", "i-2", "InternalError", "retry", "no")
    finding, refused = Finding(Trouble.SHADOWED, "in front"), ("/stack/policy:4: no",)
    report = Report(FULL, created=(CREATED,) * 1000, failed=(failure,) * 1000, findings=(finding,) * 1000)
    written.telemetry.report(replace(report, refused=refused * 1000))
    assert len(written.lines) == 1 + 4 * LINES


def test_what_was_done_is_counted(written: Written) -> None:
    failed = [Failure(Action.CREATE, "eni", "i", code, "retry", "no") for code in ("A.NotFound", "B", "B")]
    report = Report(FULL, created=(CREATED,) * 3, deleted=(CREATED,), failed=tuple(failed), calls=9)
    written.telemetry.report(report)
    metrics = written.metrics
    assert metrics["created", ""] == 3
    assert metrics["deleted", ""] == 1
    assert metrics["modified", ""] == 0
    assert metrics["failed", ""] == 3
    assert metrics["failed", "A.NotFound"] == 1
    assert metrics["failed", "B"] == 2
    assert metrics["calls", ""] == 9


def test_events_that_ask_for_nothing_are_logged_once_each_and_counted(written: Written) -> None:
    written.telemetry.passed_over(["unknown event", "a warm pool"])
    assert [line["why"] for line in written.lines] == ["unknown event", "a warm pool"]
    assert written.metrics == {("passed_over", ""): 2}


def test_nothing_passed_over_is_nothing_written(written: Written) -> None:
    written.telemetry.passed_over([])
    written.telemetry.not_announced({})
    assert written.lines == []
    assert written.metrics == {}


def test_what_did_not_reach_the_bus_is_counted_by_code(written: Written) -> None:
    written.telemetry.not_announced({"TooLarge": 1, "ThrottlingException": 2})
    assert [(line["code"], line["count"]) for line in written.lines] == [("ThrottlingException", 2), ("TooLarge", 1)]
    assert written.metrics == {("not_announced", ""): 3}


def test_a_sweep_that_could_not_be_queued_is_a_warning(written: Written) -> None:
    written.telemetry.not_queued("SendMessage: no")
    [line] = written.lines
    assert (line["level"], line["why"]) == ("WARNING", "SendMessage: no")


def test_a_record_that_could_not_be_postponed_is_a_warning(written: Written) -> None:
    written.telemetry.not_postponed("ChangeMessageVisibility: no")
    [line] = written.lines
    assert (line["level"], line["why"]) == ("WARNING", "ChangeMessageVisibility: no")


OF_RUNS = {"guard_tripped", "forbidden"}
TROUBLES = {metric_of(trouble) for trouble in Trouble}
GAUGES = {"desired", "actual", "orphaned"} | TROUBLES - OF_RUNS


@pytest.mark.parametrize("trouble", Trouble)
def test_every_trouble_has_a_metric_of_its_own(trouble: Trouble) -> None:
    found = metrics_of(Report(FULL, findings=(Finding(trouble, ""),) * 2, policy="/stack/policy:3"))
    assert {name: found[name] for name in TROUBLES if found[name]} == {metric_of(trouble): 2}
    assert len(TROUBLES) == len(Trouble)


@pytest.mark.parametrize(
    ("scope", "unfinished", "everything", "number"),
    [
        (FULL, 3, False, 3),
        (FULL, 0, True, 1),  # how many is not known
        (Scope(instances=frozenset({"i-1", "i-2"})), 0, True, 2),
        (Scope(instances=frozenset({"i-1", "i-2"})), 1, False, 1),
    ],
)
def test_what_is_unfinished_is_counted_also_where_nothing_could_be_read(
    written: Written, scope: Scope, unfinished: int, everything: bool, number: int
) -> None:
    names = frozenset(f"i-{one}" for one in range(unfinished))
    assert metrics_of(Report(scope, unfinished=names, everything=everything))["unfinished"] == number
    written.telemetry.tag_report(TagReport(scope, unfinished=names, everything=everything))
    assert written.metrics["autotag_unfinished", ""] == number


def test_gauges_come_from_a_look_at_everything() -> None:
    findings = (
        Finding(Trouble.SHADOWED, ""),
        Finding(Trouble.QUARANTINED, ""),
        Finding(Trouble.QUARANTINED, ""),
        Finding(Trouble.TARGET_UNHEALTHY, ""),
    )
    report = Report(
        FULL,
        plan=Plan(desired=5, actual=4),
        created=(CREATED,) * 2,
        deleted=(CREATED,),
        findings=findings,
        policy="/stack/policy:3",
        orphaned=1,
    )
    values = metrics_of(report)
    found = {name: values[name] for name in GAUGES if values[name]}
    assert found == {"desired": 5, "actual": 5, "orphaned": 1, "quarantined": 2, "shadowed": 1, "target_unhealthy": 1}


@pytest.mark.parametrize(
    "report",
    [
        Report(Scope(instances=frozenset({"i-1"})), plan=Plan(desired=1), policy="/stack/policy:3"),
        Report(FULL, stopped="no policy"),  # nothing was decided
    ],
)
def test_a_narrow_or_failed_look_says_nothing_about_the_whole(report: Report) -> None:
    assert not GAUGES & metrics_of(report).keys()


@pytest.mark.parametrize(
    ("report", "alarm"),
    [
        (Report(FULL, findings=(Finding(Trouble.GUARD, ""),)), "guard_tripped"),
        (Report(FULL, findings=(Finding(Trouble.FORBIDDEN, ""),)), "forbidden"),
        (Report(FULL, refused=("/stack/policy:4: no",)), "policy_invalid"),
        (Report(FULL, stopped="Nothing was changed: there is no policy"), "policy_invalid"),
        (Report(FULL, paused=True), "paused"),
        (Report(FULL, stopped="no"), "stopped"),
        (Report(FULL, unfinished=frozenset({"i-1"})), "unfinished"),
    ],
)
def test_what_needs_a_person_is_a_metric_that_is_else_zero(report: Report, alarm: str) -> None:
    assert metrics_of(report)[alarm] == 1
    assert metrics_of(Report(FULL))[alarm] == 0
