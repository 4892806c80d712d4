"""The story of the stack: built and deployed by the SAM CLI, it does its work, changes, and goes.

The template is the project's own. The functions run from what `sam build` made, with their layer, under the roles that
the template gives them, which the emulator enforces. The tests are the chapters of one deployment, in their order; each
takes care of its own instances. What no emulator shows is in docs/verification.md.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cloud.deployment import Deployment
from lab.cloud.emulator import emulator
from tests.deploy.account import Account, Raw
from tests.waiting import until

STACK = "replay"
MIRRORCTL = Path(sys.executable).with_name("mirrorctl")
PRODUCTION = {"TrafficReplay": "production"}
WEB = {"Role": "web"}  # production's tag at the end
POLICY, DEFAULT, STATE = (f"/{STACK}/{name}" for name in ("policy", "policy-default", "state"))
#: Functions of the stack, and its layers.
FUNCTIONS = {f"{STACK}-{name}" for name in ("reconcile", "autotag", "lifecycle")}


@dataclass
class Stage:
    account: Account
    stack: Deployment
    folder: Path
    bare: Mapping[str, set[str]]  # what there was before
    outputs: dict[str, str] = field(default_factory=dict)
    early: str = ""  # an instance of production that was there before the stack
    foreign: Raw = field(default_factory=dict)  # a session on it that is not ours
    first: Raw = field(default_factory=dict)  # what the first sweep said
    mirrored: list[Raw] = field(default_factory=list)  # sessions when it had been

    def snapshot(self) -> dict[str, Any]:
        """What an update may leave as it is: code, settings and layers of functions, and sessions."""
        functions = {name: self.account.client("lambda").get_function(FunctionName=name) for name in FUNCTIONS}
        kept = ("CodeSha256", "RevisionId", "LastModified", "Environment", "Layers")
        return {name: {key: one["Configuration"].get(key) for key in kept} for name, one in functions.items()}

    def policy(self, *sources: Mapping[str, Any], **rest: Any) -> str:
        """A user's; JSON is YAML."""
        target, rules = self.outputs["TrafficMirrorTarget"], self.outputs["TrafficMirrorFilter"]
        filled = [{"target": target, "filter": rules, "match": {"tags": PRODUCTION}, **source} for source in sources]
        return json.dumps({"version": 1, "sources": filled, **rest})


@pytest.fixture(scope="module")
def stage(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("deploy")
    with emulator() as cloud:
        account = Account(cloud, STACK)
        stage = Stage(account, Deployment(cloud, STACK, built, folder), folder, account.inventory())
        stage.early = account.launch(PRODUCTION)
        stage.foreign = _foreign_session(account, stage.early)
        stage.stack.deploy(
            HandlerVpcId=account.vpc,
            HandlerSubnetIds=",".join(account.subnets),
            RequestsForwardDestination="http://test.internal",
        )
        stage.outputs = stage.stack.outputs
        stage.first = until("the first sweep is done", lambda: _first_sweep(account))
        stage.mirrored = account.ours()
        _start_worker(stage)
        yield stage


def _foreign_session(account: Account, instance: str) -> Raw:
    """Of somebody who mirrors production too, to a machine of their own."""
    ec2, appliance = account.client("ec2"), account.launch({})
    target = ec2.create_traffic_mirror_target(NetworkInterfaceId=account.interface(appliance))
    rules = ec2.create_traffic_mirror_filter(Description="theirs")
    made = ec2.create_traffic_mirror_session(
        NetworkInterfaceId=account.interface(instance),
        TrafficMirrorTargetId=target["TrafficMirrorTarget"]["TrafficMirrorTargetId"],
        TrafficMirrorFilterId=rules["TrafficMirrorFilter"]["TrafficMirrorFilterId"],
        SessionNumber=1,
        Description="theirs",
    )
    session: Raw = made["TrafficMirrorSession"]
    return session


def _first_sweep(account: Account) -> Raw:
    return next((line["report"] for line in account.lines("reconcile") if line.get("message") == "Reconciled"), {})


def _start_worker(stage: Stage) -> None:
    """The emulator's group starts none: an instance in its place, behind the load balancer."""
    made = stage.stack.resources
    worker = stage.account.launch({"Name": f"{STACK}-worker"}, made["WorkerSecurityGroup"])
    group = made["WorkerTargetGroup"]
    stage.account.client("elbv2").register_targets(TargetGroupArn=group, Targets=[{"Id": worker}])


@pytest.fixture
def account(stage: Stage) -> Account:
    return stage.account


@pytest.fixture
def launch(account: Account) -> Iterator[Callable[..., str]]:
    launched: list[str] = []

    def launch(tags: Mapping[str, str] = PRODUCTION) -> str:
        launched.append(account.launch(tags))
        return launched[-1]

    yield launch
    account.terminate(launched)


@pytest.fixture
def instance(launch: Callable[..., str]) -> str:
    """Of production, just launched."""
    return launch()


@pytest.fixture
def own_policy(account: Account) -> Iterator[Callable[[str], Raw]]:
    """Writes a policy of the user's; it is gone after the test."""

    def write(text: str) -> Raw:
        return account.tell(account.write_parameter(POLICY, text))

    yield write
    account.tell(account.delete_parameter(POLICY))


# The deploy


def test_one_deploy_makes_all_of_it(stage: Stage) -> None:
    statuses = {one["ResourceStatus"] for one in stage.stack.described.values()}
    assert statuses == {"CREATE_COMPLETE"}
    assert stage.account.parameter(STATE) == "running"
    made = stage.account.inventory()
    for kind in stage.bare:
        assert made[kind] > stage.bare[kind], kind


def test_the_first_sweep_mirrors_production_to_nobody_while_no_worker_is_healthy(stage: Stage) -> None:
    assert stage.first["policy"] == f"{DEFAULT}:1" and stage.first["desired"] == 1
    assert stage.first["waiting"] is True
    assert "target-unhealthy" in {finding["trouble"] for finding in stage.first["findings"]}
    assert stage.mirrored == []


# Updates


def test_another_share_changes_the_workers_settings_alone(stage: Stage, account: Account) -> None:
    before = stage.snapshot()
    shown = stage.stack.deploy(stage.stack.uploaded(), ForwardPercentage="10")
    assert _changed(shown) == {("Modify", "WorkerSettings")}
    assert "percentage: 10\n" in account.parameter(stage.outputs["WorkerSettingsParameter"])
    assert stage.snapshot() == before


def test_a_deploy_of_the_same_changes_nothing(stage: Stage) -> None:
    before = stage.snapshot()
    assert "No changes to deploy" in stage.stack.deploy()
    assert stage.snapshot() == before


def test_the_first_sweep_comes_again_and_finds_a_worker(stage: Stage, account: Account) -> None:
    """30 s after the first; nothing else has looked at this instance. The foreign session keeps its place."""
    [ours] = until("the sweep comes again", lambda: account.sessions(stage.early), seconds=60)
    assert ours["SessionNumber"] == 2
    assert stage.foreign["TrafficMirrorSessionId"] in {one["TrafficMirrorSessionId"] for one in account.sessions()}


# Events


def test_a_launched_instance_gets_its_session(stage: Stage, account: Account, instance: str) -> None:
    report = account.tell(account.of_state(instance))
    assert (report["created"], report["failed"]) == (1, [])
    [session] = account.sessions(instance)
    assert session["NetworkInterfaceId"] == account.interface(instance)
    assert session["TrafficMirrorTargetId"] == stage.outputs["TrafficMirrorTarget"]
    assert session["TrafficMirrorFilterId"] == stage.outputs["TrafficMirrorFilter"]
    assert (session["SessionNumber"], session["VirtualNetworkId"]) == (1, 4789)
    assert session["Description"] == instance
    tags = {tag["Key"]: tag["Value"] for tag in session["Tags"]}
    assert tags["mirror:managed-by"] == STACK and tags["mirror:source"] == "production"
    assert tags.keys() == {"mirror:managed-by", "mirror:source", "mirror:created", "mirror:config"}


def test_the_bus_hears_of_it(account: Account, instance: str) -> None:
    sqs, bus = account.client("sqs"), account.client("events")
    queue = sqs.create_queue(QueueName="security-team")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = bus.put_rule(Name="news", EventPattern=json.dumps({"source": ["vpc-traffic-replay"]}))["RuleArn"]
    grant = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    grant |= {"Resource": arn, "Condition": {"ArnEquals": {"aws:SourceArn": rule}}}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [grant]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    bus.put_targets(Rule="news", Targets=[{"Id": "queue", "Arn": arn}])
    account.tell(account.of_state(instance))
    [message] = until("the bus hears", lambda: sqs.receive_message(QueueUrl=queue).get("Messages", []))
    detail = json.loads(message["Body"])["detail"]
    assert (detail["action"], detail["instance-id"], detail["owner"]) == ("created", instance, STACK)
    bus.remove_targets(Rule="news", Ids=["queue"])
    bus.delete_rule(Name="news")
    sqs.delete_queue(QueueUrl=queue)


def test_an_instance_without_the_tag_gets_none_until_it_bears_it(account: Account, launch: Callable[..., str]) -> None:
    instance = launch({"Name": "batch"})
    assert account.tell(account.of_state(instance))["desired"] == 0
    assert account.sessions(instance) == []
    account.tag(instance, PRODUCTION)
    account.tell(account.of_tag(instance, "TrafficReplay"))
    assert len(account.sessions(instance)) == 1


def test_a_tag_taken_off_ends_the_session(account: Account, instance: str) -> None:
    account.tell(account.of_state(instance))
    assert len(account.sessions(instance)) == 1
    account.untag(instance, "TrafficReplay")
    assert account.tell(account.of_tag(instance, "TrafficReplay"))["deleted"] == 1
    assert account.sessions(instance) == []


def test_a_stopped_instance_is_mirrored_no_more_until_it_runs_again(account: Account, instance: str) -> None:
    ec2 = account.client("ec2")
    account.tell(account.of_state(instance))
    ec2.stop_instances(InstanceIds=[instance])
    assert account.tell(account.of_state(instance, "stopped"))["deleted"] == 1
    assert account.sessions(instance) == []
    ec2.start_instances(InstanceIds=[instance])
    assert account.tell(account.of_state(instance))["created"] == 1
    account.terminate([instance])
    report = account.tell(account.of_state(instance, "terminated"))
    assert (report["actual"], report["failed"], report["unfinished"]) == (0, [], [])


# New code


def test_new_code_of_a_function_goes_live_in_it_alone(stage: Stage, account: Account, instance: str) -> None:
    before, sessions = stage.snapshot(), account.ours()
    changed = _with_new_code(stage, "ReconcileFunction")
    shown = stage.stack.deploy(changed)
    assert _changed(shown) == {("Modify", "ReconcileFunction")}
    after = stage.snapshot()
    assert after.pop(f"{STACK}-reconcile")["CodeSha256"] != before.pop(f"{STACK}-reconcile")["CodeSha256"]
    assert after == before
    assert account.ours() == sessions != []
    assert account.tell(account.of_state(instance))["created"] == 1
    assert {"new": "code"} in account.lines("reconcile")


def _with_new_code(stage: Stage, function: str) -> Path:
    """What the last deploy uploaded, but for one function."""
    code = shutil.copytree(stage.stack.template.parent / function, stage.folder / function)
    with (code / "app.py").open("a") as app:
        app.write('\nprint(\'{"new": "code"}\')\n')
    template = yaml.safe_load(stage.stack.uploaded().read_text())
    template["Resources"][function]["Properties"]["CodeUri"] = str(code)
    changed = stage.folder / "changed.yaml"
    changed.write_text(yaml.safe_dump(template))
    return changed


def _changed(shown: str) -> set[tuple[str, str]]:
    """The rows of the change set that `sam deploy` shows."""
    rows = (line.split() for line in shown.splitlines() if line.startswith(("+ ", "* ", "- ")))
    return {(row[1], row[2]) for row in rows}


# The sweep, the switch, the policy


def test_a_sweep_repairs_what_no_event_told(account: Account, launch: Callable[..., str]) -> None:
    late, gone, lost = launch({}), launch(), launch()
    for instance in (gone, lost):
        account.tell(account.of_state(instance))
    account.tag(late, PRODUCTION)
    account.untag(gone, "TrafficReplay")
    [session] = account.sessions(lost)
    account.client("ec2").delete_traffic_mirror_session(TrafficMirrorSessionId=session["TrafficMirrorSessionId"])
    report = account.tell(account.of_schedule())
    assert (report["created"], report["deleted"], report["failed"]) == (2, 1, [])
    assert [len(account.sessions(instance)) for instance in (late, gone, lost)] == [1, 0, 1]


def test_a_paused_stack_changes_nothing(account: Account, instance: str) -> None:
    account.tell(account.write_parameter(STATE, "paused"))
    report = account.tell(account.of_state(instance))
    assert report["paused"] and report["planned"]["create"] == 1
    assert account.sessions(instance) == []
    assert account.metric("reconcile", "paused")[-1] == 1
    assert account.tell(account.write_parameter(STATE, "running"))["created"] == 1
    assert len(account.sessions(instance)) == 1


def test_a_policy_of_the_users_own_takes_over_and_an_invalid_one_is_refused(
    stage: Stage, account: Account, instance: str, own_policy: Callable[[str], Raw]
) -> None:
    account.tell(account.of_state(instance))
    report = own_policy(stage.policy({"name": "shop", "vni": 77}))
    assert report["policy"] == f"{POLICY}:1" and report["failed"] == []
    [session] = account.sessions(instance)
    assert session["VirtualNetworkId"] == 77
    report = own_policy("version: 1\nsources:\n  - nam: shop\n")
    assert report["policy"] == f"{POLICY}:1"
    assert [POLICY in why and "nam" in why for why in report["refused"]] == [True]
    assert account.metric("reconcile", "policy_invalid")[-1] == 1
    assert "Policy refused" in {line.get("message") for line in account.lines("reconcile")}
    assert account.sessions(instance) == [session]


# What the roles allow


def test_a_target_that_is_not_the_stacks_is_refused_by_its_role(
    stage: Stage, account: Account, instance: str, own_policy: Callable[[str], Raw]
) -> None:
    elsewhere = stage.foreign["TrafficMirrorTargetId"]
    report = own_policy(stage.policy({"name": "elsewhere", "target": elsewhere}))
    [finding] = [one for one in report["findings"] if one["trouble"] == "forbidden"]
    assert finding["source"] == "elsewhere" and f"mirror:stack={STACK}" in finding["text"]
    assert account.sessions(instance) == []
    assert account.metric("reconcile", "forbidden")[-1] == 1


def test_a_role_that_may_do_less_shows_as_a_failed_change(account: Account, instance: str, stage: Stage) -> None:
    iam, role = account.client("iam"), stage.stack.resources["ReconcileRole"]
    statement = {"Effect": "Deny", "Action": "ec2:CreateTrafficMirrorSession", "Resource": "*"}
    denial = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=role, PolicyName="less", PolicyDocument=denial)
    report = account.tell(account.of_state(instance))
    assert [(one["action"], one["code"]) for one in report["failed"]] == [("create", "UnauthorizedOperation")]
    assert account.sessions(instance) == []
    iam.delete_role_policy(RoleName=role, PolicyName="less")
    account.tell(account.write_parameter(STATE, "running"))  # a change of a parameter is a reason to try again
    assert len(account.sessions(instance)) == 1


def test_autotag_puts_on_what_the_stack_grants_and_nothing_else(
    stage: Stage, account: Account, instance: str, own_policy: Callable[[str], Raw]
) -> None:
    rule = {"name": "shops", "match": {"tags": PRODUCTION}, "tags": {"Team": "shop"}}
    report = own_policy(stage.policy(autotag=[rule]))
    assert "the stack does not grant it" in str(account.tell(account.of_schedule(), "autotag")["passed"])
    assert "Team" in str([one["text"] for one in report["findings"] if one["trouble"] == "forbidden"])
    assert "Team" not in account.tags(instance)
    stage.stack.deploy(stage.stack.uploaded(), AutoTagKeys="Team")
    account.tell(account.of_schedule(), "autotag")
    assert account.tags(instance)["Team"] == "shop"


# The operator's program


def test_mirrorctl_tells_of_the_deployed_stack(stage: Stage, account: Account, instance: str) -> None:
    account.tell(account.of_state(instance))
    # A run that the busy emulator kept waiting for too long comes again half a minute later.
    until("all is mirrored", lambda: "Nothing to do" in _mirrorctl(account, "plan"), 60)
    status = _mirrorctl(account, "status")
    assert f"Policy: {DEFAULT}" in status and "healthy" in status and "1 foreign" in status
    told = _mirrorctl(account, "explain", instance)
    assert instance in told and stage.outputs["TrafficMirrorTarget"] in told
    checked = json.loads(_mirrorctl(account, "checkup", "--json"))
    assert checked["ok"] and "allowed (dry run)" in checked["answers"][-1]["text"]


def _mirrorctl(account: Account, *arguments: str) -> str:
    command = [str(MIRRORCTL), *arguments[:1], "--stack", account.stack, *arguments[1:]]
    environment = {**os.environ, **account.cloud.environment, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Other parameters


def test_another_vpc_bounds_what_may_be_mirrored_and_another_tag_says_what_is(
    stage: Stage, account: Account, launch: Callable[..., str]
) -> None:
    old, new = launch(), launch(WEB)
    account.tell(account.of_state(old))
    stage.stack.deploy(stage.stack.uploaded(), ProductionTag="Role=web", ProductionVpcIds="vpc-0a1b2c3d4e5f60718")
    wider = stage.policy({"name": "web", "match": {"tags": WEB}})  # than the default one, which names the VPC
    report = account.tell(account.write_parameter(POLICY, wider))
    [finding] = [one for one in report["findings"] if one["trouble"] == "forbidden"]
    assert account.vpc in finding["text"]
    assert account.sessions(new) == []
    stage.stack.deploy(stage.stack.uploaded(), ProductionVpcIds=account.vpc)
    report = account.tell(account.delete_parameter(POLICY))
    assert report["policy"].startswith(DEFAULT) and report["failed"] == []
    assert [len(account.sessions(instance)) for instance in (old, new)] == [0, 1]


# The end


def test_delete_leaves_nothing_but_what_was_never_the_stacks(
    stage: Stage, account: Account, launch: Callable[..., str]
) -> None:
    instance = launch(WEB)
    text = stage.policy({"name": "web", "match": {"tags": WEB}})
    account.tell(account.write_parameter(POLICY, text))
    assert account.sessions(instance)
    stage.stack.delete()
    assert account.ours() == []
    assert [one["TrafficMirrorSessionId"] for one in account.sessions()] == [stage.foreign["TrafficMirrorSessionId"]]
    assert account.parameter(POLICY) == text
    left = account.inventory()
    theirs = {
        "targets": {stage.foreign["TrafficMirrorTargetId"]},
        "filters": {stage.foreign["TrafficMirrorFilterId"]},
        "parameters": {POLICY},
    }
    assert {kind: left[kind] - stage.bare[kind] for kind in left} == {kind: theirs.get(kind, set()) for kind in left}
