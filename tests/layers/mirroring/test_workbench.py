"""What a command works with: policies from files and parameters, and the account that its options name."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lab.cloud.account import Account, strict_aws
from mirroring.model import MirroringError, Scope
from mirroring.store import NoPolicy
from mirroring.workbench import Allowing, FromFile, Options, Workbench, load_file, read_file

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
STATE = "/vpc-traffic-replay/state"


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with strict_aws() as account:
        account.ssm.put_parameter(Name=STATE, Value="running", Type="String")
        account.put_policy("version: 1\ndescription: default\n", "/vpc-traffic-replay/policy-default")
        account.put_policy("version: 1\ndescription: other\n", "/other")
        yield account


def bench(**options: str) -> Workbench:
    return Workbench(Options(**options), lambda: NOW, lambda _: None)


def written(folder: Path, text: str | bytes) -> str:
    path = folder / "policy.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_a_file_is_a_policy(tmp_path: Path) -> None:
    policy, text = load_file(written(tmp_path, "version: 1\npaused: true\n"))
    assert policy.paused
    assert text == "version: 1\npaused: true\n"


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MirroringError, match="missing.yaml cannot be read: No such file"):
        read_file(str(tmp_path / "missing.yaml"))
    with pytest.raises(MirroringError, match="is not UTF-8 text \\(byte 1\\)"):
        read_file(written(tmp_path, b"a\xff"))
    with pytest.raises(MirroringError, match="is no valid policy:\nline 1: sorces"):
        load_file(written(tmp_path, "sorces: []\n"))


def test_the_stacks_policy_is_the_default(account: Account) -> None:
    in_force = bench().policies.read()
    assert (in_force.parameter, in_force.policy.description) == ("/vpc-traffic-replay/policy-default", "default")
    assert bench().owner == "vpc-traffic-replay"
    assert bench().now == NOW


def test_a_parameter_stands_alone(account: Account) -> None:
    assert bench(parameter="/other").policies.read().policy.description == "other"
    with pytest.raises(NoPolicy, match="/missing"):
        bench(parameter="/missing").policies.read()


def test_another_stack_has_its_own_parameters(account: Account) -> None:
    with pytest.raises(NoPolicy, match="/payments/policy"):
        bench(stack="payments").policies.read()


def test_a_file_obeys_the_stacks_switch(account: Account, tmp_path: Path) -> None:
    path = written(tmp_path, "version: 1\n")
    in_force = bench(file=path).policies.read()
    assert (in_force.parameter, in_force.paused) == (path, False)
    assert not bench(file=path).policies.paused()
    other = bench(file=path, stack="payments").policies
    assert other.paused()
    assert "/payments/state does not say `running`" in other.read().why_paused


def test_a_file_that_says_paused(account: Account, tmp_path: Path) -> None:
    path = written(tmp_path, "version: 1\npaused: true\n")
    assert f"{path} says `paused: true`" in FromFile(path, bench().store, STATE).read().why_paused


def test_allowing_deletes_lifts_both_guards_and_nothing_else(account: Account) -> None:
    allowing = Allowing(bench().policies, 7)
    limits, before = allowing.read().policy.limits, bench().policies.read().policy.limits
    assert limits == before.model_copy(update={"deletes": 7, "delete_fraction": 1.0})
    assert not allowing.paused()


def test_the_parameters_that_a_stack_has(account: Account) -> None:
    values, own, default, state = bench().parameters()
    assert values == {own: None, default: "version: 1\ndescription: default", state: "running"}
    assert own == "/vpc-traffic-replay/policy"
    assert bench(parameter="/other").parameters()[1] == "/other"


def test_the_worker_fleet_is_what_the_stack_made(account: Account) -> None:
    account.vpc()
    for name in ("mirror-workers", "web"):
        account.group(name, 0)
    tag = {"ResourceId": "mirror-workers", "ResourceType": "auto-scaling-group", "PropagateAtLaunch": True}
    tag |= {"Key": "aws:cloudformation:stack-name", "Value": "vpc-traffic-replay"}
    account.client("autoscaling").create_or_update_tags(Tags=[tag])
    assert bench().environment.worker_groups == {"mirror-workers"}
    assert bench(worker_groups="a, b").environment.worker_groups == {"a", "b"}
    assert bench(stack="payments").environment.worker_groups == frozenset()


def test_the_tag_keys_that_the_stack_allows_are_known_where_they_are_named(account: Account) -> None:
    assert bench(worker_groups="none").environment.autotag_keys is None
    assert bench(worker_groups="none", autotag_keys="env, team").environment.autotag_keys == frozenset({"env", "team"})


def test_what_reconcilers_look_at_is_known_by_name(account: Account) -> None:
    account.vpc()
    [named] = account.launch(tags={"Name": "web-1"})
    [nameless] = account.launch()
    with_names = bench(worker_groups="none")
    assert with_names.names == {}
    world = with_names.reconciler().look(Scope(everything=True)).world
    assert len(world.instances) == 2
    assert with_names.names == {named: "web-1", nameless: ""}


def test_without_knowing_the_worker_fleet_nothing_is_planned(account: Account) -> None:
    account.model.deny("DescribeAutoScalingGroups")
    with pytest.raises(MirroringError, match="--worker-groups"):
        _ = bench().environment
    account.model.faults.clear()


def test_a_profile_that_does_not_exist(account: Account) -> None:
    with pytest.raises(MirroringError, match="aws configure list-profiles"):
        _ = bench(profile="missing").cloud
