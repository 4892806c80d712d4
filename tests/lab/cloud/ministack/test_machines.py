"""Instances of a live emulator: a call begins, a machine's word completes, and the bus learns of both."""

from typing import Any

import pytest

from lab.cloud.emulator import Emulator, EmulatorError
from tests.lab.cloud.world import World, refused


@pytest.fixture
def world(living: Emulator) -> World:
    return World(living.client("ec2"), living.client("elbv2"))


def state(world: World, instance: str) -> str:
    return str(world.instance(instance)["State"]["Name"])


def told(living: Emulator, *instances: str) -> list[str]:
    """States that the bus heard of."""
    details = [one.event["detail"] for one in living.events() if one.event["source"] == "aws.ec2"]
    return [detail["state"] for detail in details if detail.get("instance-id") in instances]


def run(living: Emulator, world: World, **more: Any) -> str:
    [instance] = world.launch(**more)
    living.report_machine(instance, "running")
    return instance


def test_an_instance_lives_as_its_machine_does(living: Emulator, world: World) -> None:
    [web] = world.launch()
    assert state(world, web) == "pending"
    living.report_machine(web, "running")
    assert state(world, web) == "running"
    [change] = world.ec2.stop_instances(InstanceIds=[web])["StoppingInstances"]
    assert change["PreviousState"] == {"Code": 16, "Name": "running"}
    assert change["CurrentState"] == {"Code": 64, "Name": "stopping"}
    living.report_machine(web, "stopped")
    world.ec2.start_instances(InstanceIds=[web])
    assert state(world, web) == "pending"
    living.report_machine(web, "running")
    world.ec2.terminate_instances(InstanceIds=[web])
    assert state(world, web) == "shutting-down"
    living.report_machine(web, "terminated")
    assert state(world, web) == "terminated"
    lived = "pending running stopping stopped pending running shutting-down terminated"
    assert told(living, web) == lived.split()


def test_its_interfaces_and_their_sessions_go_with_the_machine(living: Emulator, world: World) -> None:
    web = run(living, world)
    extra = world.attach(web)
    primary = world.interfaces(web)[0]
    for interface in (primary, extra):
        world.session(interface)
    world.ec2.terminate_instances(InstanceIds=[web])
    assert len(world.sessions(primary, extra)) == 2 and world.interfaces(web) == [primary, extra]
    living.report_machine(web, "terminated")
    assert [one["NetworkInterfaceId"] for one in world.sessions(primary, extra)] == [extra]
    gone = refused(world.ec2.describe_network_interfaces, NetworkInterfaceIds=[primary])
    assert gone == "InvalidNetworkInterfaceID.NotFound"
    [left] = world.ec2.describe_network_interfaces(NetworkInterfaceIds=[extra])["NetworkInterfaces"]
    assert left["Status"] == "available"


def test_one_that_never_ran_or_is_stopped_can_be_terminated(living: Emulator, world: World) -> None:
    new, stopped = world.launch()[0], run(living, world)
    world.ec2.stop_instances(InstanceIds=[stopped])
    living.report_machine(stopped, "stopped")
    world.ec2.terminate_instances(InstanceIds=[new, stopped])
    assert (state(world, new), state(world, stopped)) == ("shutting-down", "terminated")
    living.report_machine(new, "running")  # too late
    living.report_machine(new, "terminated")
    assert state(world, new) == "terminated"
    assert told(living, new) == ["pending", "shutting-down", "terminated"]


def test_what_is_said_twice_is_told_once(living: Emulator, world: World) -> None:
    [web] = world.launch()
    for _ in range(2):
        living.report_machine(web, "running")
    for _ in range(2):
        world.ec2.stop_instances(InstanceIds=[web])
    assert told(living, web) == ["pending", "running", "stopping"]


def test_a_call_is_for_all_or_for_none(living: Emulator, world: World) -> None:
    ready, [new] = run(living, world), world.launch()
    assert refused(world.ec2.stop_instances, InstanceIds=[ready, new]) == "IncorrectInstanceState"
    nobody = "i-0123456789abcdef0"
    assert refused(world.ec2.terminate_instances, InstanceIds=[ready, nobody]) == "InvalidInstanceID.NotFound"
    assert refused(world.ec2.stop_instances, InstanceIds=[ready], DryRun=True) == "DryRunOperation"
    assert (state(world, ready), state(world, new)) == ("running", "pending")
    assert told(living, ready) == ["pending", "running"]


def test_only_what_can_be_is_reported(living: Emulator, world: World) -> None:
    [web] = world.launch()
    with pytest.raises(EmulatorError, match="a machine is running, stopped, terminated, not 'fine'"):
        living.report_machine(web, "fine")
    with pytest.raises(EmulatorError, match="there is no instance i-0"):
        living.report_machine("i-0", "running")
