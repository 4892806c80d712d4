"""Auto Scaling groups that act: members come into service, are replaced, and drain before they end."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from lab.cloud.emulator import Emulator
from tests.lab.cloud.fleet import Fleet


@pytest.fixture
def fleet(living: Emulator) -> Iterator[Fleet]:
    with closing(Fleet(living)) as fleet:
        yield fleet


def test_a_group_launches_what_its_template_says(fleet: Fleet) -> None:
    tags = [
        {"Key": "TrafficReplay", "Value": "production", "PropagateAtLaunch": True},
        {"Key": "owner", "Value": "me", "PropagateAtLaunch": False},
    ]
    name = fleet.group(2, Tags=tags)
    assert fleet.until("they are pending", lambda: fleet.members(name) or fleet.states())
    members = fleet.until("two serve", lambda: fleet.serving(name, 2))
    found = [one for r in fleet.ec2.describe_instances(InstanceIds=members)["Reservations"] for one in r["Instances"]]
    assert {one["SubnetId"] for one in found} == {*fleet.subnets}
    assert {(one["ImageId"], one["InstanceType"]) for one in found} == {("ami-0123456789abcdef0", "c7i.large")}
    for one in found:
        shown = {tag["Key"]: tag["Value"] for tag in one["Tags"]}
        assert shown["aws:autoscaling:groupName"] == name and shown["aws:ec2launchtemplate:id"] == fleet.template
        assert shown["TrafficReplay"] == "production" and "owner" not in shown
        data = fleet.ec2.describe_instance_attribute(InstanceId=one["InstanceId"], Attribute="userData")
        assert data["UserData"]["Value"] == "IyE="
    assert {*members} <= {*fleet.told("EC2 Instance Launch Successful")}
    shown = fleet.shown(name)
    assert (shown["TargetGroupARNs"], shown["DesiredCapacity"]) == ([fleet.target_group], 2)
    assert {one["AvailabilityZone"] for one in shown["Instances"]} == {"eu-west-1a", "eu-west-1b"}
    [one] = fleet.scaling.describe_auto_scaling_instances(InstanceIds=members[:1])["AutoScalingInstances"]
    assert (one["AutoScalingGroupName"], one["LifecycleState"]) == (name, "InService")


def test_scaling_in_drains_the_oldest_before_it_ends(fleet: Fleet) -> None:
    name = fleet.group(1)
    [oldest] = fleet.until("one serves", lambda: fleet.serving(name, 1))
    fleet.scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
    members = fleet.until("two serve", lambda: fleet.serving(name, 2))
    fleet.scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=1)
    fleet.until("it drains", lambda: fleet.health()[oldest] == "draining")
    assert fleet.states()[oldest] == "running" and fleet.members(name)[oldest] == "Terminating"
    fleet.until("it is gone", lambda: oldest not in fleet.members(name))
    assert fleet.serving(name, 1) == [one for one in members if one != oldest]
    assert oldest not in fleet.health() and oldest in fleet.told("EC2 Instance Terminate Successful")


def test_what_is_lost_is_replaced(fleet: Fleet) -> None:
    name = fleet.group(2)
    stopped, ended = fleet.until("two serve", lambda: fleet.serving(name, 2))
    fleet.ec2.stop_instances(InstanceIds=[stopped])
    fleet.ec2.terminate_instances(InstanceIds=[ended])
    now = fleet.until("two others serve", lambda: {*fleet.serving(name, 2)} - {stopped, ended})
    assert len(now) == 2 and {stopped, ended} <= {*fleet.told("EC2 Instance Terminate Successful")}
    activities = fleet.scaling.describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
    [cause] = [one["Cause"] for one in activities if one["Description"] == f"Terminating EC2 instance: {stopped}"]
    assert "it was found stop" in cause


@pytest.mark.parametrize(("kind", "replaced"), [("ELB", True), ("EC2", False)])
def test_the_unhealthy_are_replaced_where_the_balancers_word_counts(fleet: Fleet, kind: str, replaced: bool) -> None:
    name = fleet.group(1, HealthCheckType=kind, HealthCheckGracePeriod=0)
    [one] = fleet.until("one serves", lambda: fleet.serving(name, 1))
    fleet.living.report_health(fleet.target_group, one, "unhealthy", "Target.FailedHealthChecks")
    if replaced:
        assert fleet.until("another serves", lambda: one not in fleet.members(name) and fleet.serving(name, 1))
    else:
        fleet.scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=2)
        fleet.until("a second serves", lambda: list(fleet.members(name).values()) == ["InService"] * 2)
        assert one in fleet.members(name)


def test_a_launch_that_is_refused_is_tried_again(fleet: Fleet) -> None:
    """Here for want of a launch template."""
    name = fleet.group(0)
    fleet.ec2.delete_launch_template(LaunchTemplateId=fleet.template)
    fleet.scaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=1)

    def failed() -> str:
        activities = fleet.scaling.describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
        return " ".join(one["Cause"] for one in activities if one["StatusCode"] == "Failed")

    assert "launch template" in fleet.until("it fails", failed) and fleet.members(name) == {}
