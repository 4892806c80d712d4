"""Addresses that a network could really have, and what instances tell of them."""

import base64
from ipaddress import IPv4Address, IPv4Network

from tests.lab.cloud.world import IMAGE, Answer, World, refused


def interfaces(world: World, subnet: str) -> list[Answer]:
    by = [{"Name": "subnet-id", "Values": [subnet]}]
    return list(world.ec2.describe_network_interfaces(Filters=by)["NetworkInterfaces"])


def test_an_address_is_of_its_subnet_and_nobody_elses(world: World) -> None:
    subnet = world.small_subnet()
    world.ec2.run_instances(MinCount=9, MaxCount=9, SubnetId=subnet, **IMAGE)
    for _ in range(2):
        world.ec2.create_network_interface(SubnetId=subnet)
    found = interfaces(world, subnet)
    addresses = {IPv4Address(one["PrivateIpAddress"]) for one in found}
    assert len(addresses) == 11 and all(one in IPv4Network("10.9.240.0/28") for one in addresses)
    full = "InsufficientFreeAddressesInSubnet"
    assert refused(world.ec2.create_network_interface, SubnetId=subnet) == full
    assert refused(world.ec2.run_instances, MinCount=1, MaxCount=1, SubnetId=subnet, **IMAGE) == full


def test_a_launch_that_finds_no_room_leaves_nothing(world: World) -> None:
    subnet = world.small_subnet()
    launch = {"MinCount": 12, "MaxCount": 12, "SubnetId": subnet, **IMAGE}
    assert refused(world.ec2.run_instances, **launch) == "InsufficientFreeAddressesInSubnet"
    by = [{"Name": "subnet-id", "Values": [subnet]}]
    assert world.ec2.describe_instances(Filters=by)["Reservations"] == [] == interfaces(world, subnet)


def test_a_mac_address_is_one_interfaces_own(world: World) -> None:
    world.launch(20)
    addresses = [bytes.fromhex(one["MacAddress"].replace(":", "")) for one in interfaces(world, world.subnet)]
    assert len(set(addresses)) == 20
    assert {(len(one), one[0] & 0b11) for one in addresses} == {(6, 0b10)}  # local, and of one machine


def test_an_instance_has_the_address_and_the_zone_of_its_primary_interface(world: World) -> None:
    subnet = world.small_subnet()
    [web] = world.launch(NetworkInterfaces=[{"DeviceIndex": 0, "SubnetId": subnet, "PrivateIpAddress": "10.9.240.9"}])
    found = world.instance(web)
    [primary] = found["NetworkInterfaces"]
    assert found["PrivateIpAddress"] == primary["PrivateIpAddress"] == "10.9.240.9"
    assert primary["PrivateIpAddresses"][0]["PrivateIpAddress"] == "10.9.240.9"
    assert found["PrivateDnsName"] == "ip-10-9-240-9.eu-west-1.compute.internal"
    assert found["Placement"]["AvailabilityZone"] == "eu-west-1c" and found["SubnetId"] == subnet


def test_an_instance_may_start_with_an_interface_that_is_there(world: World) -> None:
    subnet = world.small_subnet()
    made = world.ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress="10.9.240.10")["NetworkInterface"]
    [web] = world.launch(NetworkInterfaces=[{"DeviceIndex": 0, "NetworkInterfaceId": made["NetworkInterfaceId"]}])
    found = world.instance(web)
    assert (found["SubnetId"], found["PrivateIpAddress"]) == (subnet, "10.9.240.10")
    missing = [{"DeviceIndex": 0, "NetworkInterfaceId": "eni-0123456789abcdef0"}]
    assert refused(world.launch, NetworkInterfaces=missing) == "InvalidNetworkInterfaceID.NotFound"


def test_an_address_that_cannot_be_had_is_refused(world: World) -> None:
    one = {"MinCount": 1, "MaxCount": 1, "SubnetId": world.subnet, **IMAGE}
    world.ec2.run_instances(PrivateIpAddress="10.9.1.1", **one)
    assert refused(world.ec2.run_instances, PrivateIpAddress="10.9.1.1", **one) == "InvalidIPAddress.InUse"
    assert refused(world.ec2.run_instances, PrivateIpAddress="10.8.1.1", **one) == "InvalidParameterValue"
    two = {**one, "MaxCount": 2}
    assert refused(world.ec2.run_instances, PrivateIpAddress="10.9.1.2", **two) == "InvalidParameterCombination"
    create = world.ec2.create_network_interface
    assert refused(create, SubnetId=world.subnet, PrivateIpAddress="10.9.1.1") == "InvalidIPAddress.InUse"


def test_user_data_is_what_the_launch_gave(world: World) -> None:
    [web] = world.launch(UserData="#!/bin/sh\necho & <hello>")
    [plain] = world.launch()

    def user_data(instance: str) -> Answer:
        answer = world.ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        return dict(answer["UserData"])

    assert base64.b64decode(user_data(web)["Value"]) == b"#!/bin/sh\necho & <hello>"
    assert user_data(plain) == {}
    kind = world.ec2.describe_instance_attribute(InstanceId=web, Attribute="instanceType")
    assert kind["InstanceType"] == {"Value": "m5.large"}
