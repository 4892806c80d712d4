"""Stacks with Auto Scaling groups: made when the load balancer finds them healthy, gone with the last instance."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lab.cloud.emulator import Emulator
from tests.lab.cloud.fleet import Fleet
from tests.lab.cloud.world import SERIALS
from tests.waiting import until

type Template = dict[str, Any]


@pytest.fixture
def fleet(living: Emulator) -> Fleet:
    return Fleet(living, delay=2)


class Stack:
    """One with a group behind the fleet's load balancer."""

    def __init__(self, fleet: Fleet, timeout: str = "PT15M", **properties: Any) -> None:
        self.fleet = fleet
        self.name = f"group-{next(SERIALS)}"
        self.client = fleet.client("cloudformation")
        self.timeout = timeout
        self.properties = properties
        self.client.create_stack(StackName=self.name, TemplateBody=self.template(1))

    def template(self, least: int, **more: Any) -> str:
        group = {
            "MinSize": {"Ref": "Least"},
            "MaxSize": "4",
            "VPCZoneIdentifier": self.fleet.subnets,
            "LaunchTemplate": {"LaunchTemplateId": self.fleet.template, "Version": "1"},
            "TargetGroupARNs": [self.fleet.target_group],
        }
        signal = {"ResourceSignal": {"Count": {"Ref": "Least"}, "Timeout": self.timeout}}
        rolling = {"MinInstancesInService": {"Ref": "Least"}, "MaxBatchSize": 1, "PauseTime": self.timeout}
        resource = {
            "Type": "AWS::AutoScaling::AutoScalingGroup",
            "CreationPolicy": signal,
            "UpdatePolicy": {"AutoScalingRollingUpdate": rolling},
            "Properties": {**group, **self.properties, **more},
        }
        return json.dumps(
            {
                "Parameters": {"Least": {"Type": "Number", "Default": least}},
                "Resources": {"Group": resource},
                "Outputs": {"Group": {"Value": {"Ref": "Group"}}},
            }
        )

    @property
    def status(self) -> str:
        return str(self.client.describe_stacks(StackName=self.name)["Stacks"][0]["StackStatus"])

    @property
    def group(self) -> str:
        [output] = self.client.describe_stacks(StackName=self.name)["Stacks"][0]["Outputs"]
        return str(output["OutputValue"])

    def events(self) -> str:
        found = self.client.describe_stack_events(StackName=self.name)["StackEvents"]
        return " ".join(event.get("ResourceStatusReason", "") for event in found)


def test_a_stack_waits_for_healthy_members_and_for_their_end(fleet: Fleet) -> None:
    stack = Stack(fleet)

    def registered() -> dict[str, str]:
        fleet.machines()
        return fleet.health()

    [one] = until("one is registered", registered)
    assert stack.status == "CREATE_IN_PROGRESS"
    fleet.until("the stack is made", lambda: stack.status == "CREATE_COMPLETE")
    assert f"Received SUCCESS signal with UniqueId {one}" in stack.events()
    assert fleet.serving(stack.group, 1) == [one]

    fleet.scaling.set_desired_capacity(AutoScalingGroupName=stack.group, DesiredCapacity=2)
    stack.client.update_stack(StackName=stack.name, TemplateBody=stack.template(1, HealthCheckGracePeriod=7))
    fleet.until("the stack is changed", lambda: stack.status == "UPDATE_COMPLETE")
    shown = fleet.shown(stack.group)
    assert (shown["DesiredCapacity"], shown["HealthCheckGracePeriod"]) == (2, 7)
    assert shown["TargetGroupARNs"] == [fleet.target_group]

    before, group = stack.group, f"group-{next(SERIALS)}"
    stack.client.update_stack(StackName=stack.name, TemplateBody=stack.template(1, AutoScalingGroupName=group))
    fleet.until("the group is replaced", lambda: stack.status == "UPDATE_COMPLETE")
    assert fleet.shown(before) == {} and one not in fleet.states()
    fleet.until("one of the new group serves", lambda: fleet.serving(group, 1))
    with ThreadPoolExecutor(1) as other:
        gone = other.submit(stack.client.delete_stack, StackName=stack.name)  # answers when it is done
        fleet.until("the stack is gone", gone.done)
    assert fleet.shown(group) == {} == fleet.states()


def test_a_stack_whose_members_stay_ill_fails_and_leaves_nothing(fleet: Fleet) -> None:
    stack = Stack(fleet, timeout="PT10S")

    def failed() -> bool:
        fleet.machines()
        return stack.status == "ROLLBACK_COMPLETE"

    until("the stack fails", failed)
    assert "Received 0 SUCCESS signal(s) out of 1" in stack.events()
    assert fleet.states() == {} == fleet.health()


def test_a_new_template_replaces_the_members_one_by_one(fleet: Fleet) -> None:
    """Or none, when the new ones do not get well."""
    stack = Stack(fleet, timeout="PT10S")
    fleet.until("the stack is made", lambda: stack.status == "CREATE_COMPLETE")
    [one] = fleet.serving(stack.group, 1)
    for _ in range(2):
        fleet.ec2.create_launch_template_version(
            LaunchTemplateId=fleet.template, SourceVersion="1", LaunchTemplateData={"InstanceType": "c7i.xlarge"}
        )

    def update(version: str) -> None:
        template = {"LaunchTemplateId": fleet.template, "Version": version}
        stack.client.update_stack(StackName=stack.name, TemplateBody=stack.template(1, LaunchTemplate=template))

    def healthy() -> str:
        assert "healthy" in fleet.health().values()
        return stack.status

    update("2")
    fleet.until("the stack is changed", lambda: healthy() == "UPDATE_COMPLETE")
    [other] = fleet.serving(stack.group, 1)
    assert other != one and fleet.shown(stack.group)["Instances"][0]["LaunchTemplate"]["Version"] == "2"

    def failed() -> bool:
        fleet.machines()
        return healthy() == "UPDATE_ROLLBACK_COMPLETE"

    update("3")
    until("the change fails", failed)
    shown = fleet.shown(stack.group)
    assert (shown["LaunchTemplate"]["Version"], shown["DesiredCapacity"]) == ("2", 1)
    fleet.until("only the old one is left", lambda: fleet.serving(stack.group, 1) == [other])
