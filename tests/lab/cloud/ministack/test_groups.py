"""Auto Scaling's calls: what they refuse, and what they set going."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from lab.cloud.emulator import Emulator
from tests.lab.cloud.fleet import Fleet
from tests.lab.cloud.world import refused


@pytest.fixture(scope="module")
def fleet(living: Emulator) -> Iterator[Fleet]:
    """Each test has a group of its own."""
    with closing(Fleet(living, delay=0)) as fleet:
        yield fleet


@pytest.mark.parametrize(
    "wrong",
    [
        {"DesiredCapacity": 5},
        {"MinSize": 2, "DesiredCapacity": 1},
        {"LaunchTemplate": {"LaunchTemplateId": "lt-0123456789abcdef0"}},
        {"VPCZoneIdentifier": "subnet-0123456789abcdef0"},
        {"TargetGroupARNs": ["arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/none/0123456789abcdef"]},
    ],
)
def test_a_group_that_cannot_be_is_refused(fleet: Fleet, wrong: dict[str, Any]) -> None:
    assert refused(fleet.group, desired=1, **wrong) == "ValidationError"


def test_sizes_are_kept_in_their_bounds(fleet: Fleet) -> None:
    name = fleet.group(0, most=2)
    wanted = {"AutoScalingGroupName": name}
    assert refused(fleet.scaling.set_desired_capacity, **wanted, DesiredCapacity=3) == "ValidationError"
    assert refused(fleet.scaling.update_auto_scaling_group, **wanted, MinSize=3) == "ValidationError"
    assert refused(fleet.scaling.set_desired_capacity, AutoScalingGroupName="x", DesiredCapacity=0) == "ValidationError"
    fleet.scaling.update_auto_scaling_group(**wanted, MinSize=1, MaxSize=3)
    shown = fleet.shown(name)
    assert (shown["MinSize"], shown["MaxSize"], shown["DesiredCapacity"]) == (1, 3, 1)
    fleet.scaling.delete_auto_scaling_group(**wanted, ForceDelete=True)


def test_one_can_be_told_to_go_with_or_without_a_successor(fleet: Fleet) -> None:
    name = fleet.group(2)
    first, second = fleet.until("two serve", lambda: fleet.serving(name, 2))
    terminate = fleet.scaling.terminate_instance_in_auto_scaling_group
    terminate(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    fleet.until("one is left", lambda: fleet.serving(name, 1) == [second])
    assert fleet.shown(name)["DesiredCapacity"] == 1
    terminate(InstanceId=second, ShouldDecrementDesiredCapacity=False)
    fleet.until("another serves", lambda: fleet.serving(name, 1) not in ([], [second]))
    assert refused(terminate, InstanceId=second, ShouldDecrementDesiredCapacity=False) == "ValidationError"
    fleet.scaling.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=1)
    [third] = fleet.serving(name, 1)
    assert refused(terminate, InstanceId=third, ShouldDecrementDesiredCapacity=True) == "ValidationError"


def test_a_group_with_members_is_deleted_by_force_or_not_at_all(fleet: Fleet) -> None:
    name = fleet.group(1)
    [one] = fleet.until("one serves", lambda: fleet.serving(name, 1))
    delete = fleet.scaling.delete_auto_scaling_group
    assert refused(delete, AutoScalingGroupName=name) == "ResourceInUse"
    delete(AutoScalingGroupName=name, ForceDelete=True)
    assert refused(fleet.group, desired=0, name=name) == "AlreadyExists"
    fleet.until("it is gone", lambda: not fleet.shown(name))
    assert one not in fleet.states() and one not in fleet.health()


def test_a_template_may_be_named_and_changed(fleet: Fleet) -> None:
    [template] = fleet.ec2.describe_launch_templates(LaunchTemplateIds=[fleet.template])["LaunchTemplates"]
    named = {"LaunchTemplateName": template["LaunchTemplateName"]}
    name = fleet.group(0, LaunchTemplate=named)
    assert fleet.shown(name)["LaunchTemplate"] == {
        **named,
        "LaunchTemplateId": fleet.template,
        "Version": "$Default",
    }
    made = fleet.ec2.create_launch_template_version(
        LaunchTemplateId=fleet.template, SourceVersion="1", LaunchTemplateData={"InstanceType": "c7i.xlarge"}
    )
    version = str(made["LaunchTemplateVersion"]["VersionNumber"])
    fleet.scaling.update_auto_scaling_group(
        AutoScalingGroupName=name, DesiredCapacity=1, LaunchTemplate={**named, "Version": version}
    )
    fleet.until("one serves", lambda: fleet.serving(name, 1))
    [one] = fleet.shown(name)["Instances"]
    assert (one["LaunchTemplate"]["Version"], one["InstanceType"]) == (version, "c7i.xlarge")


def test_groups_are_found_by_their_tags(fleet: Fleet) -> None:
    def found(*filters: tuple[str, list[str]]) -> set[str]:
        asked = [{"Name": name, "Values": values} for name, values in filters]
        pages = fleet.scaling.get_paginator("describe_auto_scaling_groups").paginate(Filters=asked)
        return {one["AutoScalingGroupName"] for page in pages for one in page["AutoScalingGroups"]} & {one, other}

    tags = [{"Key": "Env", "PropagateAtLaunch": False}]
    one = fleet.group(0, Tags=[{**tags[0], "Value": "production"}])
    other = fleet.group(0, Tags=[{**tags[0], "Value": "staging"}, {**tags[0], "Key": "Team", "Value": "web"}])

    assert found(("tag:Env", ["production"])) == {one}
    assert found(("tag:Env", ["production", "staging"])) == {one, other}
    assert found(("tag:Env", ["staging"]), ("tag-key", ["Team"])) == {other}
    assert found(("tag-value", ["web"])) == {other}
    assert found(("tag:Env", ["production"]), ("tag-key", ["Team"])) == set()
    wrong = [{"Name": "tag.Env", "Values": ["production"]}]
    assert refused(fleet.scaling.describe_auto_scaling_groups, Filters=wrong) == "ValidationError"
