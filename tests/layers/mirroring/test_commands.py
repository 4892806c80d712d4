"""What the commands of mirrorctl print about 50 instances in three VPCs. Nothing here changes them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cloud.account import Account, strict_aws
from lab.cloud.populate import Population, populate
from tests.layers.mirroring.program import DEFAULT, mirrorctl


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Account, Population]]:
    with strict_aws() as account:
        yield account, populate(account)


def test_a_plan(shop: tuple[Account, Population]) -> None:
    _, people = shop
    done = mirrorctl("plan", "--rows", "0")
    assert (done.code, done.err) == (0, "")
    assert "36 to create, 0 to change, 0 to delete: 36 sessions wanted, 0 there" in done.out
    assert f"{people.pay[0]} (pay-1)" in done.out
    assert "shadowed" in done.out
    assert done.out.count("\ncreate ") == 36


def test_a_plan_reads_the_instances_once(shop: tuple[Account, Population]) -> None:
    account, _ = shop
    account.model.faults.calls.clear()
    assert "(pay-1)" in mirrorctl("plan", "--rows", "0").out
    assert [call.action for call in account.model.faults.calls].count("DescribeInstances") == 1


def test_a_plan_with_check_tells_of_pending_changes(shop: tuple[Account, Population], tmp_path: Path) -> None:
    assert mirrorctl("plan", "--check", "--rows", "1").code == 3
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\n")
    done = mirrorctl("plan", "--check", "--policy", str(path))
    assert (done.code, done.out) == (0, "Nothing to do: 0 sessions wanted, 0 there, 0 stay as they are.\n")


def test_a_plan_as_json(shop: tuple[Account, Population]) -> None:
    _, people = shop
    found = mirrorctl("plan", "--json").json
    assert found["policy"] == f"{DEFAULT}:1"
    assert {one["session"]["target"] for one in found["create"]} == {people.target}
    assert [one["trouble"] for one in found["findings"]] == ["shadowed"]
    workers = mirrorctl("plan", "--json", "--worker-groups", "web-blue").json
    assert workers["desired"] == 17


def test_status(shop: tuple[Account, Population]) -> None:
    _, people = shop
    done = mirrorctl("status")
    assert done.code == 0
    for words in (["web", "19", "0", "19", "0", "0"], [people.target, "network-load-balancer", "0", "0", "healthy"]):
        assert words in [line.split() for line in done.out.splitlines()]
    assert "0 sessions of ours, 1 foreign; 1 possibly shadowed." in done.out
    assert "0.015 USD each" in done.out
    found = mirrorctl("status", "--json").json
    assert found["foreign_sessions"] == 1
    assert found["cost_per_hour"]["price"]["amount"] == "0.015"


def test_explain(shop: tuple[Account, Population]) -> None:
    _, people = shop
    done = mirrorctl("explain", people.web[0])
    assert done.code == 0
    assert "  yes  source web: it matches, and no source before it does" in done.out
    assert f"foreign session {people.foreign}" in done.out
    assert "to be created: source web selects" in done.out
    assert "shadowed: " in done.out
    spared = mirrorctl("explain", people.web[19], "--json").json
    assert [step["rule"] for step in spared["steps"] if not step["passed"]] == ["except"]


def test_explain_of_an_instance_that_does_not_exist(shop: tuple[Account, Population]) -> None:
    done = mirrorctl("explain", "i-0000000000000000f")
    assert (done.code, done.out) == (2, "")
    assert done.err == "mirrorctl: there is no instance i-0000000000000000f in this account and Region\n"


def test_checkup_finds_what_is_wrong(shop: tuple[Account, Population]) -> None:
    done = mirrorctl("checkup")
    assert done.code == 1
    assert "no route to" in done.out
    assert "remedy: add a route by VPC peering" in done.out
    assert "t2.medium (1 instance)" in done.out
    found = mirrorctl("checkup", "--json").json
    assert not found["ok"]
    assert [one["outcome"] for one in found["answers"]].count("failed") == 1


def test_checkup_where_no_stack_is(shop: tuple[Account, Population]) -> None:
    done = mirrorctl("checkup", "--stack", "payments", "--json")
    assert done.code == 1
    assert [one["about"] for one in done.json["answers"]] == ["parameters", "policy"]


def test_checkup_that_may_not_look(shop: tuple[Account, Population]) -> None:
    account, _ = shop
    account.model.deny("DescribeTrafficMirrorSessions")
    done = mirrorctl("checkup", "--json")
    account.model.faults.clear()
    assert done.code == 1
    assert "allow DescribeTrafficMirrorSessions" in done.json["answers"][-1]["remedy"]


def test_a_policy_that_is_paused_says_so(shop: tuple[Account, Population], tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\npaused: true\n")
    shown = mirrorctl("policy", "show", "--policy", str(path))
    assert shown.out == path.read_text()
    assert "mirrorctl: paused: " in shown.err
    assert "Paused: " in mirrorctl("status", "--policy", str(path)).out
    assert "Paused: " in mirrorctl("plan", "--policy", str(path)).out


def test_what_cannot_be_read_is_one_line(shop: tuple[Account, Population]) -> None:
    account, _ = shop
    account.model.deny("DescribeInstances")
    done = mirrorctl("plan")
    account.model.faults.clear()
    assert (done.code, done.out) == (2, "")
    assert "UnauthorizedOperation" in done.err
    assert done.err.count("\n") == 1
