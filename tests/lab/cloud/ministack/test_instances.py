"""What a launch makes, and what it refuses."""

from typing import Any

from lab.cloud.emulator import Emulator
from tests.lab.cloud.world import IMAGE, SERIALS, World, refused


def template(world: World, **data: Any) -> str:
    made = world.ec2.create_launch_template(LaunchTemplateName=f"t-{next(SERIALS)}", LaunchTemplateData=data)
    return str(made["LaunchTemplate"]["LaunchTemplateId"])


def tags(world: World, instance: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in world.tags(instance)}


def named(**tags: str) -> list[dict[str, Any]]:
    return [{"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}]


def test_as_many_are_launched_as_may_be(world: World) -> None:
    image = {**IMAGE, "SubnetId": world.small_subnet()}
    assert len(world.ec2.run_instances(MinCount=1, MaxCount=3, **image)["Instances"]) == 3
    assert len(world.ec2.run_instances(MinCount=1, MaxCount=50, **image)["Instances"]) == 8
    assert refused(world.ec2.run_instances, MinCount=1, MaxCount=50, **image) == "InsufficientFreeAddressesInSubnet"
    assert refused(world.ec2.run_instances, MinCount=2, MaxCount=1, **image) == "InvalidParameterCombination"


def test_each_takes_as_many_addresses_as_it_has_interfaces(world: World) -> None:
    subnet = world.small_subnet()
    two = [{"DeviceIndex": 0, "SubnetId": subnet}, {"DeviceIndex": 1, "SubnetId": subnet}]
    launch = {**IMAGE, "NetworkInterfaces": two}
    assert refused(world.ec2.run_instances, MinCount=6, MaxCount=6, **launch) == "InsufficientFreeAddressesInSubnet"
    assert len(world.ec2.run_instances(MinCount=1, MaxCount=6, **launch)["Instances"]) == 5


def test_interfaces_have_places_of_their_own(world: World) -> None:
    for place in ({}, {"DeviceIndex": 0}, {"DeviceIndex": 0, "NetworkCardIndex": 0}):
        two = [{"SubnetId": world.subnet}, {"SubnetId": world.subnet, **place}]
        assert refused(world.launch, NetworkInterfaces=two) == "InvalidParameterValue"
    two = [{"DeviceIndex": 0, "SubnetId": world.subnet, "NetworkCardIndex": card} for card in (0, 1)]
    [web] = world.launch(NetworkInterfaces=two)
    assert len(world.interfaces(web)) == 2


def test_a_launch_template_gives_what_the_call_does_not(world: World) -> None:
    subnet = world.small_subnet()
    name = template(
        world,
        **IMAGE,
        UserData="IyE=",
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet}],
        TagSpecifications=named(Name="template", app="shop"),
    )
    by = {"LaunchTemplateId": name}
    [one] = world.ec2.run_instances(MinCount=1, MaxCount=1, LaunchTemplate=by)["Instances"]
    [other] = world.ec2.run_instances(
        MinCount=1,
        MaxCount=1,
        LaunchTemplate=by,
        InstanceType="c7g.large",
        NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": world.subnet}],
        TagSpecifications=named(Name="call"),
    )["Instances"]
    kinds = [(found["ImageId"], found["InstanceType"], found["SubnetId"]) for found in (one, other)]
    assert kinds == [(IMAGE["ImageId"], "m5.large", subnet), (IMAGE["ImageId"], "c7g.large", world.subnet)]
    origin = {"aws:ec2launchtemplate:id": name}
    assert tags(world, one["InstanceId"]) == {"Name": "template", "app": "shop", **origin}
    assert tags(world, other["InstanceId"]) == {"Name": "call", "app": "shop", **origin}
    shown = world.ec2.describe_instance_attribute(InstanceId=other["InstanceId"], Attribute="userData")
    assert shown["UserData"] == {"Value": "IyE="}
    nobody = {"LaunchTemplateId": "lt-0123456789abcdef0"}
    missing = refused(world.ec2.run_instances, MinCount=1, MaxCount=1, LaunchTemplate=nobody)
    assert missing == "InvalidLaunchTemplateId.NotFound"


def test_an_interface_is_attached_to_what_runs_or_is_stopped(world: World, living: Emulator) -> None:
    live = World(living.client("ec2"), living.client("elbv2"))
    [web] = live.launch()
    assert refused(live.attach, instance=web) == "IncorrectState"
    living.report_machine(web, "running")
    live.attach(web)
    live.ec2.stop_instances(InstanceIds=[web])
    living.report_machine(web, "stopped")
    live.attach(web, 2)
    live.ec2.terminate_instances(InstanceIds=[web])
    assert refused(live.attach, instance=web) == "IncorrectState"


def test_instances_are_listed_in_pages_in_which_a_reservation_is_whole(world: World) -> None:
    world.launch(4)
    world.launch(3)
    by = [{"Name": "vpc-id", "Values": [world.vpc]}]
    pages = world.ec2.get_paginator("describe_instances").paginate(Filters=by, PaginationConfig={"PageSize": 5})
    found = [[len(one["Instances"]) for one in page["Reservations"]] for page in pages]
    assert found == [[4, 1], [2]]


def test_a_terminated_instance_is_in_no_network(world: World) -> None:
    [web] = world.launch()
    [interface] = world.interfaces(web)
    world.ec2.terminate_instances(InstanceIds=[web])
    found = world.instance(web)
    assert not {"SubnetId", "VpcId", "PrivateIpAddress"} & found.keys() and found["NetworkInterfaces"] == []
    gone = refused(world.ec2.describe_network_interfaces, NetworkInterfaceIds=[interface])
    assert gone == "InvalidNetworkInterfaceID.NotFound"
