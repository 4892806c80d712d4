"""Which event goes where: the patterns of the rules against the samples in events/, as docs/events.md says."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from moto.events.models import EventPattern

from lab.cloud.stack import Stack
from mirroring.model import UNTIL_TAG
from tests.deploy.given import ROOT, given

type Event = Any  # as JSON gives it

STACK_NAME = "vpc-traffic-replay"  # which the samples name
BOTH, RECONCILE, AUTOTAG, NOBODY = ({"reconcile", "autotag"}, {"reconcile"}, {"autotag"}, set[str]())
TO: Mapping[str, set[str]] = {
    "ec2-instance-running": BOTH,
    "ec2-instance-stopped": BOTH,
    "ec2-instance-terminated": BOTH,
    "autoscaling-launch": BOTH,
    "autoscaling-launch-to-warm-pool": BOTH,
    "autoscaling-terminate": BOTH,
    "autoscaling-terminate-to-warm-pool": BOTH,
    "tag-change": RECONCILE,
    "cloudtrail-attach-network-interface": RECONCILE,
    "cloudtrail-detach-network-interface": RECONCILE,
    "parameter-store-change": BOTH,
    "guardduty-finding": AUTOTAG,
    # What a schedule or CloudFormation makes goes by no pattern.
    "scheduled": NOBODY,
    "sqs-batch": NOBODY,
    "custom-resource-create": NOBODY,
    "custom-resource-update": NOBODY,
    "custom-resource-delete": NOBODY,
}
OFF = ("cloudtrail-attach-network-interface", "cloudtrail-detach-network-interface", "guardduty-finding")


def stack(**values: str) -> Stack:
    return given(**values).with_pseudo(StackName=STACK_NAME)


EVERYTHING_ON = {"GuardDutyFindings": "on", "InterfaceEvents": "on"}


def sample(name: str) -> Event:
    return json.loads((ROOT / f"events/{name}.json").read_text())


def targets(stack: Stack, rule: str) -> set[str]:
    queues = {stack.attribute(f"{name.title()}Queue", "Arn"): name for name in BOTH}
    return {queues[target["Arn"]] for target in stack.resources[rule].properties["Targets"]}


def taken(stack: Stack, event: Event) -> list[str]:
    """Rules that pass an event on."""
    return [
        name
        for name, rule in stack.of_type("AWS::Events::Rule").items()
        if rule.properties.get("State", "ENABLED") == "ENABLED"
        and "EventPattern" in rule.properties
        and EventPattern.load(json.dumps(rule.properties["EventPattern"])).matches_event(event)
    ]


def reaches(stack: Stack, event: Event) -> set[str]:
    return set().union(*(targets(stack, rule) for rule in taken(stack, event)))


def test_every_sample_has_its_line_here() -> None:
    assert TO.keys() == {path.stem for path in ROOT.glob("events/*.json")}


@pytest.mark.parametrize("name", TO)
def test_where_events_go(name: str) -> None:
    assert reaches(stack(**EVERYTHING_ON), sample(name)) == TO[name]


@pytest.mark.parametrize("name", TO)
def test_no_event_comes_twice(name: str) -> None:
    assert len(taken(stack(**EVERYTHING_ON), sample(name))) == bool(TO[name])


@pytest.mark.parametrize("name", TO)
def test_findings_and_interfaces_are_not_listened_to_unless_asked_for(name: str) -> None:
    assert reaches(stack(), sample(name)) == (NOBODY if name in OFF else TO[name])


def test_each_is_switched_on_alone() -> None:
    findings, interfaces = stack(GuardDutyFindings="on"), stack(InterfaceEvents="on")
    attached, finding = sample("cloudtrail-attach-network-interface"), sample("guardduty-finding")
    assert (reaches(findings, finding), reaches(findings, attached)) == (AUTOTAG, NOBODY)
    assert (reaches(interfaces, finding), reaches(interfaces, attached)) == (NOBODY, RECONCILE)


@pytest.mark.parametrize("name", ["cloudtrail-attach-network-interface", "cloudtrail-detach-network-interface"])
def test_a_call_that_ec2_refused_goes_nowhere(name: str) -> None:
    event = sample(name)
    event["detail"]["errorCode"] = "Client.InvalidAttachmentID.NotFound"
    assert reaches(stack(**EVERYTHING_ON), event) == NOBODY


def test_other_calls_go_nowhere() -> None:
    event = sample("cloudtrail-attach-network-interface")
    event["detail"]["eventName"] = "CreateTags"
    assert reaches(stack(**EVERYTHING_ON), event) == NOBODY


def test_the_end_of_a_suspicion_is_heard_of() -> None:
    """Where findings put on no other tag, this is the only news of the instance."""
    event = sample("tag-change")
    event["detail"]["changed-tag-keys"] = [UNTIL_TAG]
    event["detail"]["tags"] = {UNTIL_TAG: "2026-11-24T08:00:00Z"}
    assert reaches(stack(), event) == RECONCILE


@pytest.mark.parametrize(("key", "value"), [("resource-type", "volume"), ("service", "ec2-image-builder")])
def test_tags_of_other_things_go_nowhere(key: str, value: str) -> None:
    event = sample("tag-change")
    event["detail"][key] = value
    assert reaches(stack(), event) == NOBODY


@pytest.mark.parametrize("state", ["running", "stopping", "stopped", "shutting-down", "terminated"])
def test_states_that_matter(state: str) -> None:
    event = sample("ec2-instance-running")
    event["detail"]["state"] = state
    assert reaches(stack(), event) == BOTH


def test_an_instance_that_only_begins_goes_nowhere() -> None:
    event = sample("ec2-instance-running")
    event["detail"]["state"] = "pending"
    assert reaches(stack(), event) == NOBODY


@pytest.mark.parametrize("kind", ["EC2 Instance Launch Unsuccessful", "EC2 Instance-launch Lifecycle Action"])
def test_launches_that_did_not_happen_go_nowhere(kind: str) -> None:
    assert reaches(stack(), sample("autoscaling-launch") | {"detail-type": kind}) == NOBODY


def changed(parameter: str) -> Event:
    event = sample("parameter-store-change")
    event["detail"]["name"] = parameter
    return event


@pytest.mark.parametrize("name", ["policy", "policy-default", "state"])
def test_a_change_of_what_functions_read_is_heard_of(name: str) -> None:
    assert reaches(stack(), changed(f"/{STACK_NAME}/{name}")) == BOTH


@pytest.mark.parametrize("name", [f"/{STACK_NAME}/worker", "/another/policy", f"/{STACK_NAME}/policy/older"])
def test_other_parameters_are_not(name: str) -> None:
    assert reaches(stack(), changed(name)) == NOBODY


def test_a_policy_of_the_users_own_name_is_heard_of_and_the_usual_one_no_more() -> None:
    own = stack(PolicyParameterName="/shop/mirror.d/policy_1")
    assert reaches(own, changed("/shop/mirror.d/policy_1")) == BOTH
    assert reaches(own, changed(f"/{STACK_NAME}/policy")) == NOBODY
    assert reaches(own, changed(f"/{STACK_NAME}/state")) == BOTH


@pytest.mark.parametrize("resource", ["AccessKey", "S3Bucket", "EKSCluster"])
def test_findings_of_other_things_go_nowhere(resource: str) -> None:
    event = sample("guardduty-finding")
    event["detail"]["resource"]["resourceType"] = resource
    assert reaches(stack(**EVERYTHING_ON), event) == NOBODY


@pytest.mark.parametrize("name", sorted(name for name, to in TO.items() if to))
def test_events_of_another_source_go_nowhere(name: str) -> None:
    """Anyone in the account may put events of a source of their own on the bus."""
    assert reaches(stack(**EVERYTHING_ON), sample(name) | {"source": "shop"}) == NOBODY


def test_one_schedule_has_everything_looked_at() -> None:
    made = stack()
    scheduled = {
        name: (rule.properties["ScheduleExpression"], targets(made, name))
        for name, rule in made.of_type("AWS::Events::Rule").items()
        if "ScheduleExpression" in rule.properties
    }
    assert scheduled == {"SweepRule": ("rate(15 minutes)", BOTH)}
    assert made.resources["SweepRule"].properties.get("State", "ENABLED") == "ENABLED"


def test_rules_listen_to_what_the_documentation_lists() -> None:
    text = (ROOT / "docs/events.md").read_text()
    rows = re.findall(r"^\| `(aws\.[a-z0-9]+)` · ([^,|]+?)(?:,[^|]*)? \|", text, re.MULTILINE)
    heard = {
        (source, kind)
        for rule in stack().of_type("AWS::Events::Rule").values()
        for source in rule.properties.get("EventPattern", {}).get("source", [])
        for kind in rule.properties["EventPattern"]["detail-type"]
    }
    assert heard == set(rows)


def test_the_default_bus_is_listened_to() -> None:
    """Services put their events on no other."""
    assert not [
        name for name, rule in stack().of_type("AWS::Events::Rule").items() if "EventBusName" in rule.properties
    ]
