import json
import re
from pathlib import Path
from typing import Any

import pytest

from mirroring.bus import DETAIL_TYPE, SOURCE
from mirroring.model import SOURCE_TAG, Create, Delete, Finding, Modify, Plan, Scope, Session, Trouble
from mirroring.report import LISTED, Action, Change, Failure, Report, announcement, count, unfinished
from mirroring.telemetry import metrics_of

DOCUMENT = Path(__file__).parents[3] / "docs/events.md"
SESSION = Session("tms-1", "eni-1", "tmt-1", "tmf-1", 1, 77, 8500, "i-1", {SOURCE_TAG: "web"})
MOVED = Session("tms-1", "eni-1", "tmt-2", "tmf-1", 1, 77, 8500, "i-1", {SOURCE_TAG: "web"})


UNREAD = Failure(Action.READ, "", "", "UnauthorizedOperation", "stop", "DescribeInstances: no")


def test_a_creation_is_announced_with_what_and_why() -> None:
    assert announcement(Change(Action.CREATE, SESSION, "tagged"), "stack") == {
        "version": 1,
        "owner": "stack",
        "action": "created",
        "reason": "tagged",
        "source": "web",
        "instance-id": "i-1",
        "session": {
            "id": "tms-1",
            "interface": "eni-1",
            "target": "tmt-1",
            "filter": "tmf-1",
            "number": 1,
            "vni": 77,
            "packet-length": 8500,
        },
    }


def test_a_modification_is_announced_with_what_was() -> None:
    detail = announcement(Change(Action.MODIFY, MOVED, "target gone", ("target",), SESSION), "stack")
    assert detail["action"] == "modified"
    assert detail["changes"] == ["target"]
    assert detail["before"]["target"] == "tmt-1"
    assert detail["session"]["target"] == "tmt-2"


def blocks(text: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


def test_the_documented_event_is_the_one_that_is_sent() -> None:
    documented, rule = blocks(DOCUMENT.read_text())
    detail = documented["detail"]
    before, after = (
        Session(
            id=one["id"],
            interface=one["interface"],
            target=one["target"],
            filter=one["filter"],
            number=one["number"],
            vni=one["vni"],
            packet_length=one["packet-length"],
            description=detail["instance-id"],
            tags={SOURCE_TAG: detail["source"]},
        )
        for one in (detail["before"], detail["session"])
    )
    change = Change(Action.MODIFY, after, detail["reason"], tuple(detail["changes"]), before)
    assert announcement(change, detail["owner"]) == detail
    assert (documented["source"], documented["detail-type"]) == (SOURCE, DETAIL_TYPE)
    assert (rule["source"], rule["detail-type"]) == ([SOURCE], [DETAIL_TYPE])
    assert rule["detail"].keys() <= detail.keys()


def test_every_sample_and_every_metric_is_documented() -> None:
    text = DOCUMENT.read_text()
    for path in (DOCUMENT.parents[1] / "events").glob("*.json"):
        told = path.stem in text or path.stem.rpartition("-")[2] in text
        assert told or path.stem.startswith(("custom-resource", "sqs-batch")), path.stem
    for name in metrics_of(full()):
        assert f"`{name}`" in text


def test_a_change_names_its_instance_and_source() -> None:
    change = Change(Action.DELETE, SESSION, "stopped")
    assert (change.instance, change.source) == ("i-1", "web")
    assert announcement(change, "stack")["action"] == "deleted"


def full() -> Report:
    plan = Plan(
        create=(Create(SESSION, "m5.large", (), "tagged"),),
        modify=(Modify(SESSION, MOVED, ("target",), (), "target gone"),),
        delete=(Delete(SESSION, "stopped", evident=True),),
        kept=3,
        desired=5,
        actual=6,
    )
    return Report(
        Scope(everything=True),
        plan=plan,
        created=(Change(Action.CREATE, SESSION, "tagged"),),
        modified=(Change(Action.MODIFY, MOVED, "target gone", ("target",), SESSION),),
        deleted=(Change(Action.DELETE, SESSION, "stopped"),),
        failed=(Failure(Action.CREATE, "eni-2", "i-2", "InternalError", "retry", "no"),),
        findings=(Finding(Trouble.LIMIT, "too many"), Finding(Trouble.SHADOWED, "in front", interface="eni-1")),
        unfinished=frozenset({"i-2", "i-1"}),
        policy="/stack/policy:3",
        calls=7,
    )


def test_a_summary_is_json_with_counts_failures_and_findings() -> None:
    summary = json.loads(json.dumps(full().summary()))
    assert summary["planned"] == {"create": 1, "modify": 1, "delete": 1}
    assert (summary["created"], summary["modified"], summary["deleted"]) == (1, 1, 1)
    assert (summary["desired"], summary["actual"], summary["kept"]) == (5, 6, 3)
    assert summary["held_back"] == 0
    assert summary["failed"] == [
        {
            "action": "create",
            "interface": "eni-2",
            "instance": "i-2",
            "code": "InternalError",
            "answer": "retry",
            "text": "no",
        }
    ]
    assert summary["findings"] == [
        {"trouble": "limit", "text": "too many"},
        {"trouble": "shadowed", "text": "in front", "interface": "eni-1"},
    ]
    assert summary["unfinished"] == ["i-1", "i-2"]


@pytest.mark.parametrize(
    "held_back", [Report(Scope(plan_only=True), full().plan), Report(Scope(), full().plan, paused=True)]
)
def test_a_plan_that_is_not_carried_out_is_told_change_by_change(held_back: Report) -> None:
    planned = held_back.summary()["planned"]
    assert [(one["action"], one["instance"], one["reason"]) for one in planned["changes"]] == [
        ("delete", "i-1", "stopped"),
        ("modify", "i-1", "target gone"),
        ("create", "i-1", "tagged"),
    ]
    assert planned["changes"][1]["changes"] == ["target"]
    assert planned["create"] == 1


def test_a_summary_counts_what_is_held_back() -> None:
    plan = Plan(held=(Delete(SESSION, "stopped", evident=True),) * 35)
    summary = Report(Scope(everything=True), plan=plan).summary()
    assert (summary["planned"]["delete"], summary["held_back"]) == (0, 35)


def test_a_summary_says_why_it_is_paused_and_that_nothing_was_read() -> None:
    assert Report(Scope(), paused=True, why_paused="the switch").summary()["paused"] == "the switch"
    assert Report(Scope(), paused=True).summary()["paused"] is True
    assert Report(Scope(), everything=True).summary()["unfinished"] == "everything"


def test_lists_of_a_summary_have_an_end() -> None:
    failure = Failure(Action.CREATE, "eni-2", "i-2", "InternalError", "retry", "no")
    finding = Finding(Trouble.SHADOWED, "in front")
    report = Report(
        Scope(),
        plan=Plan(create=(Create(SESSION, "m5.large", (), "tagged"),) * 10_000),
        failed=(failure,) * 10_000,
        findings=(finding,) * 10_000,
        unfinished=frozenset(f"i-{number}" for number in range(10_000)),
        paused=True,
    )
    summary = report.summary()
    for entries in (summary["failed"], summary["findings"], summary["unfinished"], summary["planned"]["changes"]):
        assert len(entries) == LISTED
    assert len(json.dumps(summary)) < 256_000


@pytest.mark.parametrize(
    ("report", "invalid"),
    [
        (Report(Scope(), policy="/stack/policy:3"), False),
        (Report(Scope(), policy="/stack/policy:3", refused=("/stack/policy:4: no",)), True),
        (Report(Scope(), stopped="Nothing was changed: there is no policy"), True),
        (Report(Scope(), policy="/stack/policy:3", stopped="no permission"), False),
        (Report(Scope(), everything=True, out_of_time=True), False),
        (Report(Scope(), failed=(UNREAD,), everything=True, stopped="no permission"), False),
    ],
)
def test_a_policy_is_invalid_where_one_was_refused_or_none_is_in_force(report: Report, invalid: bool) -> None:
    assert report.policy_invalid is invalid


def test_changes_are_listed_in_the_order_in_which_they_are_made() -> None:
    assert [change.action for change in full().changes] == [Action.DELETE, Action.MODIFY, Action.CREATE]


@pytest.mark.parametrize(
    ("report", "scope", "again"),
    [
        (Report(Scope(), unfinished=frozenset({"i-1"})), Scope(instances=frozenset({"i-1", "i-2"})), True),
        (Report(Scope(), unfinished=frozenset({"i-1"})), Scope(instances=frozenset({"i-2"})), False),
        (Report(Scope(), unfinished=frozenset({"i-1"})), Scope(everything=True), True),
        (Report(Scope()), Scope(everything=True), False),
        (Report(Scope(), everything=True), Scope(instances=frozenset({"i-2"})), True),
    ],
)
def test_a_scope_is_unfinished_where_one_of_its_instances_is(report: Report, scope: Scope, again: bool) -> None:
    assert unfinished(report, scope) is again


def test_findings_are_counted_by_trouble() -> None:
    assert count(full().findings, Trouble.SHADOWED) == 1
    assert count(full().findings, Trouble.GUARD) == 0
