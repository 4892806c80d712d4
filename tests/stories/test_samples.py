"""Each event of `events/` through its handler, bare and as a record of the queue."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.account import Account
from tests.stories.stage import ROOT, WEB, Stack, tags_of

SAMPLES = sorted((ROOT / "events").glob("*.json"))
#: What the reconciler looks at the world for.
MAKE = {
    "autoscaling-launch",
    "cloudtrail-attach-network-interface",
    "cloudtrail-detach-network-interface",
    "ec2-instance-running",
    "ec2-instance-stopped",
    "ec2-instance-terminated",
    "autoscaling-terminate",
    "parameter-store-change",
    "scheduled",
    "sqs-batch",
    "tag-change",
}


def test_there_is_a_sample_of_each_kind() -> None:
    assert {path.stem for path in SAMPLES} >= MAKE | {"guardduty-finding", "custom-resource-create"}


def about(path: Path, instance: str, stack: Stack) -> dict[str, Any]:
    text = path.read_text().replace("i-1234567890abcdef0", instance)
    text = text.replace("https://cloudformation-custom-resource-response.example.com/response", stack.formation.url)
    event: dict[str, Any] = json.loads(text)
    return event


def both_ways(stack: Stack, function: str, event: dict[str, Any]) -> Iterator[None]:
    """Bare, and then, after the caller has looked, as records of the queue."""
    stack.invoke(function, event)
    yield
    records = event.get("Records") or stack.records(function, [event])
    assert stack.invoke(function, {"Records": records}) == {"batchItemFailures": []}
    yield


@pytest.mark.parametrize("path", [path for path in SAMPLES if path.stem in MAKE], ids=lambda path: path.stem)
def test_the_world_is_put_right(account: Account, stack: Stack, path: Path) -> None:
    """Whatever the event says: what counts is what EC2 says."""
    [web] = account.launch(tags=WEB)
    for _ in both_ways(stack, "reconcile", about(path, web, stack)):
        [session] = stack.sessions
        assert session["Description"] == web
        account.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=session["TrafficMirrorSessionId"])


@pytest.mark.parametrize("path", [path for path in SAMPLES if "warm" in path.stem], ids=lambda path: path.stem)
def test_a_warm_pool_is_passed_over(account: Account, stack: Stack, path: Path) -> None:
    [web] = account.launch(tags=WEB)
    for times, _ in enumerate(both_ways(stack, "reconcile", about(path, web, stack)), 1):
        assert stack.mirrored == [] and len(stack.logged("Passed over")) == times


@pytest.mark.parametrize("name", ["guardduty-finding", "scheduled", "ec2-instance-running", "autoscaling-launch"])
def test_tags_are_put_on(account: Account, stack: Stack, name: str) -> None:
    rule: dict[str, Any] = {"name": "web", "match": {"names": "web"}, "tags": {"env": "prod"}}
    if name == "guardduty-finding":
        rule["finding"] = {"severity": 7, "types": ["Backdoor:*"], "keep": "24h"}
    stack.put_policy(stack.policy() | {"autotag": [rule]})
    [web] = account.launch(tags={"Name": "web"})
    for _ in both_ways(stack, "autotag", about(ROOT / "events" / f"{name}.json", web, stack)):
        assert tags_of(account, web)["env"] == "prod"
        account.untag([web], ["env"])


@pytest.mark.parametrize("kind", ["create", "update", "delete"])
def test_a_custom_resource_is_answered(account: Account, stack: Stack, kind: str) -> None:
    path = ROOT / "events" / f"custom-resource-{kind}.json"
    outcome = stack.invoke("lifecycle", about(path, "", stack))
    assert outcome["status"] == "SUCCESS"
    assert [answer["Status"] for answer in stack.formation.answers] == ["SUCCESS"]
