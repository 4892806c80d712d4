"""Tags that nobody put on by hand: production's at launch, and those of a finding, for a time."""

from typing import Any

import pytest

from lab.cloud.account import Account
from tests.stories.stage import Scene, Stack, tags_of

PRODUCTION = {"name": "production", "match": {"groups": "web-*"}, "tags": {"mirror": "yes", "env": "prod"}}
FINDING = {"severity": 7, "types": ["Backdoor:*"], "keep": "24h"}
SUSPECT = {"name": "suspect", "tags": {"mirror": "yes"}, "finding": FINDING}


@pytest.fixture
def tagging(stack: Stack) -> Stack:
    return with_rules(stack, PRODUCTION, SUSPECT)


def with_rules(stack: Stack, *rules: dict[str, Any]) -> Stack:
    stack.tagging = True
    stack.put_policy(stack.policy() | {"autotag": list(rules)})
    stack.scene.settle()
    return stack


def test_production_is_tagged_at_launch_and_mirrored(scene: Scene, account: Account, tagging: Stack) -> None:
    web = account.group("web-1", 3)
    db = account.group("db-1", 1)
    scene.settle()
    assert tagging.mirrored == sorted(web)
    assert {(tags_of(account, name)["mirror"], tags_of(account, name)["env"]) for name in web} == {("yes", "prod")}
    assert "mirror" not in tags_of(account, db[0])
    assert sum(tagging.metric("autotag_changed")) == 3, "its own tag events change nothing"
    assert not tagging.pending()


def test_the_launch_events_are_lost_and_the_sweep_tags(scene: Scene, account: Account, tagging: Stack) -> None:
    web = account.group("web-1", 3)
    account.take_events()
    scene.sweep()
    assert tagging.mirrored == sorted(web)
    scene.sweep()
    assert sum(tagging.metric("autotag_changed")) == 3


def test_somebodys_own_tag_and_the_opt_out_are_respected(scene: Scene, account: Account, tagging: Stack) -> None:
    [theirs] = account.launch(group="web-1", tags={"env": "staging", "mirror": "no"})
    [out] = account.launch(group="web-1", tags={"mirror:opt-out": ""})
    scene.settle()
    scene.sweep()
    assert tagging.mirrored == []
    assert (tags_of(account, theirs)["env"], tags_of(account, theirs)["mirror"]) == ("staging", "no")
    assert "env" not in tags_of(account, out)


def test_a_tag_that_the_stack_may_not_put_on_is_told(scene: Scene, account: Account, stack: Stack) -> None:
    with_rules(stack, PRODUCTION | {"tags": {"owner": "us", "mirror": "yes"}})
    web = account.group("web-1", 1)
    scene.settle()
    assert stack.mirrored == web and "owner" not in tags_of(account, web[0])
    passed = [one["reason"] for line in stack.logged("Autotag") for one in line["passed"]]
    assert any("cannot put on owner" in reason for reason in passed)
    stack.put_policy(stack.policy() | {"autotag": [PRODUCTION | {"tags": {"owner": "us"}}]})
    scene.settle()
    assert "autotag[0].tags.owner" in stack.troubles["forbidden"]


def test_an_instance_under_suspicion_is_mirrored_for_a_day(scene: Scene, account: Account, tagging: Stack) -> None:
    [suspect] = account.launch(tags={"Name": "db-1"})
    scene.settle()
    account.find(suspect)
    scene.settle()
    assert tagging.mirrored == [suspect]
    assert tags_of(account, suspect)["mirror:until"].startswith("2026-11-24T08:00:")
    scene.wait(hours=23, minutes=59)
    scene.sweep()
    assert tagging.mirrored == [suspect]
    scene.wait(minutes=1, seconds=30)
    scene.sweep()
    assert tagging.mirrored == []
    assert tags_of(account, suspect) == {"Name": "db-1"}
    scene.sweep()
    assert not tagging.plan()["planned"]["changes"]


def test_what_has_expired_is_not_mirrored_even_if_its_tag_cannot_be_removed(
    scene: Scene, account: Account, tagging: Stack
) -> None:
    [suspect] = account.launch()
    account.find(suspect)
    scene.settle()
    assert tagging.mirrored == [suspect]
    account.model.deny("DeleteTags")
    scene.wait(days=1)
    scene.sweep()
    assert tagging.mirrored == []
    assert sum(tagging.metric("autotag_failed")) >= 1


def test_a_second_finding_prolongs_it(scene: Scene, account: Account, tagging: Stack) -> None:
    [suspect] = account.launch()
    account.find(suspect)
    scene.settle()
    scene.wait(hours=20)
    account.find(suspect)
    scene.settle()
    scene.wait(hours=20)
    scene.sweep()
    assert tagging.mirrored == [suspect]
    scene.wait(hours=5)
    scene.sweep()
    assert tagging.mirrored == []


def test_findings_that_no_rule_asks_for_change_nothing(scene: Scene, account: Account, tagging: Stack) -> None:
    [web] = account.launch()
    account.find(web, severity=5)
    account.find(web, kind="Recon:EC2/PortProbeUnprotectedPort")
    account.find("i-0123456789abcdef0")
    scene.wait(hours=1)
    assert tags_of(account, web) == {} and tagging.mirrored == [] and not tagging.pending()


def test_a_finding_ends_and_production_stays_mirrored(scene: Scene, account: Account, tagging: Stack) -> None:
    web = account.group("web-1", 1)
    scene.settle()
    [before] = tagging.sessions
    account.find(web[0])
    scene.settle()
    scene.wait(hours=25)
    scene.sweep()
    scene.sweep()
    assert tagging.sessions == [before]
    assert tags_of(account, web[0])["mirror"] == "yes" and "mirror:until" not in tags_of(account, web[0])


def test_a_source_may_ask_for_the_finding_itself(scene: Scene, account: Account, stack: Stack) -> None:
    stack.tagging = True
    rule = {"name": "suspect", "finding": FINDING}
    stack.put_policy(stack.policy(match={"tags": {"mirror:until": "*"}}) | {"autotag": [rule]})
    [suspect] = account.launch()
    scene.settle()
    account.find(suspect)
    scene.settle()
    assert stack.mirrored == [suspect]
    scene.wait(hours=25)
    scene.sweep()
    assert stack.mirrored == [] and tags_of(account, suspect) == {}


def test_a_paused_stack_tags_nothing(scene: Scene, account: Account, tagging: Stack) -> None:
    tagging.set_state("paused")
    web = account.group("web-1", 1)
    account.find(web[0])
    scene.settle()
    assert "mirror" not in tags_of(account, web[0]) and not tagging.pending()


def test_one_instance_that_cannot_be_tagged_does_not_hold_up_the_others(
    scene: Scene, account: Account, tagging: Stack
) -> None:
    strange, *others = account.group("web-1", 3)
    account.model.deny("CreateTags", when=lambda call: strange in call.get("Resources", []))
    scene.settle()
    assert tagging.mirrored == sorted(others)
    account.model.faults.clear()
    scene.wait(minutes=2)
    assert tagging.mirrored == sorted([strange, *others])


def test_tagging_is_throttled_and_the_finding_comes_again(scene: Scene, account: Account, tagging: Stack) -> None:
    [suspect] = account.launch()
    scene.settle()
    account.model.fail("CreateTags", "RequestLimitExceeded", times=99)
    account.find(suspect)
    scene.settle()
    assert tagging.mirrored == []
    account.model.faults.clear()
    scene.wait(minutes=2)
    assert tagging.mirrored == [suspect] and not tagging.pending()


def test_time_is_too_short_to_tag_them_all(scene: Scene, account: Account, tagging: Stack) -> None:
    tagging.put_policy(tagging.policy(limits={"writes_per_second": 1}) | {"autotag": [PRODUCTION]})
    scene.settle()
    web = account.launch(15, group="web-1")
    records = tagging.records("autotag", account.take_events())
    answer = tagging.invoke("autotag", {"Records": records}, seconds=36)
    tagged = {name for name in web if "env" in tags_of(account, name)}
    assert 5 <= len(tagged) < 15
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    assert failed == {one["messageId"] for one in records if not any(name in one["body"] for name in tagged)}
    scene.wait(minutes=35)
    assert tagging.mirrored == sorted(web)
