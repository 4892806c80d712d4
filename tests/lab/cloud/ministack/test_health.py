"""DescribeTargetHealth in a live emulator: what was registered, what was reported, what is leaving."""

import pytest

from lab.cloud.emulator import Emulator, EmulatorError
from tests.lab.cloud.fleet import Fleet
from tests.lab.cloud.world import refused


@pytest.fixture
def fleet(living: Emulator) -> Fleet:
    return Fleet(living)


def launch(fleet: Fleet, runs: bool = True) -> str:
    launched = fleet.ec2.run_instances(ImageId="ami-0", MinCount=1, MaxCount=1, SubnetId=fleet.subnets[0])
    instance = str(launched["Instances"][0]["InstanceId"])
    if runs:
        fleet.living.report_machine(instance, "running")
    return instance


def registered(fleet: Fleet) -> str:
    instance = launch(fleet)
    fleet.elb.register_targets(TargetGroupArn=fleet.target_group, Targets=[{"Id": instance}])
    return instance


def test_a_target_is_as_healthy_as_reported(fleet: Fleet) -> None:
    one = registered(fleet)
    assert fleet.found()[one]["Reason"] == "Elb.RegistrationInProgress"
    fleet.living.report_health(fleet.target_group, one, "initial")
    assert fleet.found()[one]["Reason"] == "Elb.InitialHealthChecking"
    fleet.living.report_health(fleet.target_group, one, "healthy")
    assert fleet.found() == {one: {"State": "healthy"}}
    said = {"State": "unhealthy", "Reason": "Target.Timeout", "Description": "Request timed out <5 s>"}
    fleet.living.report_health(fleet.target_group, one, said["State"], said["Reason"], said["Description"])
    assert fleet.found() == {one: said}


def test_a_target_that_leaves_drains_for_the_delay(fleet: Fleet) -> None:
    one = registered(fleet)
    fleet.elb.deregister_targets(TargetGroupArn=fleet.target_group, Targets=[{"Id": one}])
    fleet.living.report_health(fleet.target_group, one, "healthy")  # comes too late
    assert fleet.found()[one]["Reason"] == "Target.DeregistrationInProgress"
    fleet.until("it is gone", lambda: not fleet.found())
    assert fleet.found(one)[one]["Reason"] == "Target.NotRegistered"


def test_a_target_group_without_a_load_balancer_checks_nothing_and_waits_for_nothing(fleet: Fleet) -> None:
    one, group = launch(fleet), fleet.lone_target_group()
    fleet.elb.register_targets(TargetGroupArn=group, Targets=[{"Id": one}])
    assert fleet.found(group=group)[one]["Reason"] == "Target.NotInUse"
    fleet.elb.deregister_targets(TargetGroupArn=group, Targets=[{"Id": one}])
    assert fleet.found(group=group) == {}


def test_a_stopped_instance_is_unused_and_a_terminated_one_gone(fleet: Fleet) -> None:
    one = registered(fleet)
    fleet.living.report_health(fleet.target_group, one, "healthy")
    fleet.ec2.stop_instances(InstanceIds=[one])
    assert fleet.health() == {one: "healthy"}  # until a health check fails
    fleet.machines()
    assert fleet.found()[one]["Reason"] == "Target.InvalidState"
    fleet.ec2.start_instances(InstanceIds=[one])
    fleet.machines()
    assert fleet.health() == {one: "initial"}
    fleet.ec2.terminate_instances(InstanceIds=[one])
    fleet.machines()
    assert fleet.health() == {}


def test_only_what_runs_can_be_registered(fleet: Fleet) -> None:
    for name in (launch(fleet, runs=False), "i-0123456789abcdef0"):
        targets = {"TargetGroupArn": fleet.target_group, "Targets": [{"Id": name}]}
        assert refused(fleet.elb.register_targets, **targets) == "InvalidTarget"
    assert fleet.health() == {}


def test_a_report_says_what_it_is_about(fleet: Fleet) -> None:
    one = registered(fleet)
    said = {"group": fleet.target_group, "target": one, "state": "healthy"}
    assert fleet.living.door("health", said) == {"changed": True}
    assert fleet.living.door("health", said) == {"changed": False}
    assert fleet.living.door("health", said | {"target": "i-0"}) == {"changed": False}
    assert fleet.living.door("health", said | {"group": "none"}) == {"changed": False}
    for wrong in ({"state": "fine"}, {"port": 80}):
        with pytest.raises(EmulatorError, match="reports initial, healthy|a report has group, target and state"):
            fleet.living.door("health", said | wrong)


def test_an_unknown_target_group_is_refused(fleet: Fleet) -> None:
    assert refused(fleet.elb.describe_target_health, TargetGroupArn="none") == "TargetGroupNotFound"
