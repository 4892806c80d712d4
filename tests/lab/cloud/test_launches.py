"""A launch template's data, in the form that RunInstances takes."""

from collections.abc import Mapping
from typing import Any

from lab.cloud import protocol
from lab.cloud.launches import completed, form

DATA: Mapping[str, Any] = {
    "ImageId": "ami-1",
    "InstanceType": "c7g.large",
    "IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/worker"},
    "Monitoring": {"Enabled": True},
    "NetworkInterfaces": [
        {"DeviceIndex": 0, "AssociatePublicIpAddress": False, "Groups": ["sg-1", "sg-2"]},
        {"DeviceIndex": 1, "DeleteOnTermination": False},
    ],
    "TagSpecifications": [
        {"ResourceType": "volume", "Tags": [{"Key": "Name", "Value": "disk"}]},
        {"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "worker"}, {"Key": "a", "Value": "template"}]},
    ],
    "UserData": "IyEvYmluL2Jhc2g=",
}


def read(data: Mapping[str, Any], **tags: str) -> dict[str, Any]:
    """As EC2 reads the form."""
    made = form(data, "subnet-1", tags)
    return protocol.request("RunInstances", {name: values[0] for name, values in made.items()})


def test_a_launch_is_what_the_template_says() -> None:
    asked = read(DATA)
    assert (asked["MinCount"], asked["MaxCount"], asked["SubnetId"]) == (1, 1, "subnet-1")
    assert {name: asked[name] for name in ("ImageId", "InstanceType", "IamInstanceProfile", "UserData")} == {
        name: DATA[name] for name in ("ImageId", "InstanceType", "IamInstanceProfile", "UserData")
    }
    assert asked["SecurityGroupIds"] == ["sg-1", "sg-2"]
    assert asked["NetworkInterfaces"] == [{"DeviceIndex": 0}, {"DeviceIndex": 1, "DeleteOnTermination": False}]


def test_the_groups_tags_go_before_the_templates() -> None:
    specifications = {one["ResourceType"]: one["Tags"] for one in read(DATA, a="group", b="2")["TagSpecifications"]}
    assert specifications["volume"] == [{"Key": "Name", "Value": "disk"}]
    tags = {tag["Key"]: tag["Value"] for tag in specifications["instance"]}
    assert tags == {"Name": "worker", "a": "group", "b": "2"}


def test_little_is_enough() -> None:
    asked = read({"ImageId": "ami-1", "SecurityGroupIds": ["sg-1"]})
    assert asked["SecurityGroupIds"] == ["sg-1"] and "NetworkInterfaces" not in asked


def test_what_a_call_says_goes_before_the_template() -> None:
    own = {"InstanceType": ["m5.large"], "NetworkInterface.1.DeviceIndex": ["0"], "TagSpecification.1.Tag.1.Key": ["x"]}
    specifications = [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "call"}]}]
    made = completed(own, specifications, DATA, {"origin": "lt-1"})
    asked = protocol.request("RunInstances", {name: values[0] for name, values in made.items()})
    assert (asked["InstanceType"], asked["ImageId"]) == ("m5.large", "ami-1")
    assert asked["NetworkInterfaces"] == [{"DeviceIndex": 0}]
    kinds = {one["ResourceType"]: one["Tags"] for one in asked["TagSpecifications"]}
    assert kinds["volume"] == [{"Key": "Name", "Value": "disk"}]
    assert {tag["Key"]: tag["Value"] for tag in kinds["instance"]} == {"Name": "worker", "a": "call", "origin": "lt-1"}
