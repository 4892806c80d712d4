"""Values as JSON."""

import json
from datetime import UTC, datetime
from decimal import Decimal

from mirroring import plain
from mirroring.diagnosis import Answer, Outcome
from mirroring.model import Delete, Finding, Plan, Scope, Session, Trouble
from mirroring.policy import load
from mirroring.report import Report


def test_everything_becomes_what_json_has() -> None:
    value = {
        Trouble.GUARD: [Finding(Trouble.GUARD, "text")],
        "set": frozenset({"b", "a"}),
        "at": datetime(2026, 11, 23, 8, tzinfo=UTC),
        "price": Decimal("0.015"),
        "kind": Answer,
        "policy": load("version: 1\npaused: true\n"),
    }
    kind = value.pop("kind")
    assert plain.plain(kind) is Answer  # a class is no value
    found = json.loads(json.dumps(plain.plain(value)))
    assert found["guard"][0]["text"] == "text"
    assert found["set"] == ["a", "b"]
    assert found["at"] == "2026-11-23 08:00:00+00:00"
    assert found["price"] == "0.015"
    assert found["policy"]["paused"] is True


def test_a_plan_has_the_findings_of_its_report_and_a_file_no_version() -> None:
    finding = Finding(Trouble.FORBIDDEN, "text")
    report = Report(Scope(everything=True), plan=Plan(desired=2), findings=(finding,), policy="policy.yaml:0")
    found = plain.of_plan(report)
    assert found["policy"] == "policy.yaml"
    assert found["desired"] == 2
    assert found["findings"] == [plain.plain(finding)]
    run = plain.of_run(report)
    assert run["planned"] == found
    assert run["created"] == []


def test_a_plan_tells_what_is_held_back() -> None:
    held = Delete(Session("tms-1", "eni-1", "tmt-1", "tmf-1", 1, 77, None, "i-1"), "stopped", evident=True)
    found = plain.of_plan(Report(Scope(everything=True), plan=Plan(held=(held,))))
    assert (found["delete"], found["held_back"]) == ([], [plain.plain(held)])


def test_answers() -> None:
    assert plain.of_answers([Answer(Outcome.FAILED, "a", "b", "c")]) == {
        "ok": False,
        "answers": [{"outcome": "failed", "about": "a", "text": "b", "remedy": "c"}],
    }
