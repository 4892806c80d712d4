"""What a live emulator tells the bus of calls that anybody made, in the shapes of `events/`."""

from typing import Any

import pytest

from lab.cloud.emulator import Emulator
from lab.cloud.events import sample
from tests.lab.cloud.world import SERIALS, World, refused


@pytest.fixture
def world(living: Emulator) -> World:
    return World(living.client("ec2"), living.client("elbv2"))


class News:
    """Events from now on."""

    def __init__(self, living: Emulator) -> None:
        self.living = living
        self.seen = max((one.number for one in living.events()), default=0)

    def of(self, kind: str) -> list[dict[str, Any]]:
        found = [dict(one.event) for one in self.living.events(self.seen)]
        return [event for event in found if event["detail-type"] == kind]


def shape(value: Any) -> Any:
    """Keys and kinds."""
    return {key: shape(one) for key, one in value.items()} if isinstance(value, dict) else type(value)


def test_a_change_of_tags_is_told_with_all_tags(living: Emulator, world: World) -> None:
    specification = {"ResourceType": "instance", "Tags": [{"Key": "kept", "Value": "1"}]}
    news, [web, other] = News(living), world.launch(2, TagSpecifications=[specification])
    assert news.of("Tag Change on Resource") == []
    world.ec2.create_tags(Resources=[web, world.vpc], Tags=[{"Key": "mirror", "Value": "yes"}])
    world.ec2.create_tags(Resources=[web], Tags=[{"Key": "mirror", "Value": "yes"}])  # changes nothing
    world.ec2.create_tags(Resources=[web, other], Tags=[{"Key": "mirror", "Value": "no"}, {"Key": "b", "Value": ""}])
    world.ec2.delete_tags(Resources=[web], Tags=[{"Key": "mirror"}, {"Key": "absent"}])
    told = news.of("Tag Change on Resource")
    first, second, third, fourth = (event["detail"] for event in told)
    assert first["changed-tag-keys"] == ["mirror"] and first["tags"] == {"kept": "1", "mirror": "yes"}
    assert second["changed-tag-keys"] == ["b", "mirror"] == third["changed-tag-keys"]
    assert fourth["changed-tag-keys"] == ["mirror"] and fourth["tags"] == {"kept": "1", "b": ""}
    assert [event["resources"][0].rpartition("/")[2] for event in told] == [web, web, other, web]
    assert [detail["version"] for detail in (first, second, third, fourth)] == [1, 2, 1, 3]
    assert {**shape(told[0]), "detail": {**shape(first), "tags": dict}} == {
        **shape(sample("tag-change")),
        "detail": {**shape(sample("tag-change")["detail"]), "tags": dict},
    }


def test_a_change_that_was_refused_is_no_news(living: Emulator, world: World) -> None:
    [web], news = world.launch(), News(living)
    tag = {"Resources": [web, "i-0123456789abcdef0"], "Tags": [{"Key": "a", "Value": "x"}]}
    assert refused(world.ec2.create_tags, **tag) == "InvalidInstanceID.NotFound"
    refused(world.ec2.attach_network_interface, NetworkInterfaceId="eni-0", InstanceId=web, DeviceIndex=1)
    refused(world.ec2.detach_network_interface, AttachmentId="eni-attach-0")
    assert refused(living.client("ssm").delete_parameter, Name="/absent") == "ParameterNotFound"
    told = [str(one.event) for one in living.events(news.seen)]
    assert not [text for text in told if web in text or "/absent" in text]


def test_interfaces_that_come_and_go_are_told_as_by_cloudtrail(living: Emulator, world: World) -> None:
    [web], news = world.launch(), News(living)
    living.report_machine(web, "running")
    extra = world.attach(web, 2)
    [found] = world.ec2.describe_network_interfaces(NetworkInterfaceIds=[extra])["NetworkInterfaces"]
    attachment = found["Attachment"]["AttachmentId"]
    world.detach(extra)
    came, went = (event["detail"] for event in news.of("AWS API Call via CloudTrail"))
    assert came["eventName"] == "AttachNetworkInterface" and went["eventName"] == "DetachNetworkInterface"
    assert came["requestParameters"] == {"networkInterfaceId": extra, "instanceId": web, "deviceIndex": 2}
    assert came["responseElements"]["attachmentId"] == attachment == went["requestParameters"]["attachmentId"]


def test_parameters_are_told_of_whoever_writes_them(living: Emulator) -> None:
    ssm, news = living.client("ssm"), News(living)
    one, other = (f"/news/{next(SERIALS)}" for _ in range(2))
    ssm.put_parameter(Name=one, Value="1", Type="String", Description="What is mirrored")
    ssm.put_parameter(Name=one, Value="2", Overwrite=True)
    ssm.put_parameter(Name=other, Value="1,2", Type="StringList")
    ssm.delete_parameter(Name=one)
    ssm.delete_parameters(Names=[other, one])
    told = news.of("Parameter Store Change")
    details = [event["detail"] for event in told]
    assert [(detail["operation"], detail["name"], detail["type"]) for detail in details] == [
        ("Create", one, "String"),
        ("Update", one, "String"),
        ("Create", other, "StringList"),
        ("Delete", one, "String"),
        ("Delete", other, "StringList"),
    ]
    assert told[0]["resources"][0].endswith(f":parameter{one}")
    assert shape(told[0]) == shape(sample("parameter-store-change"))
    assert "description" not in details[2]


def test_events_differ_in_their_ids(living: Emulator, world: World) -> None:
    news = News(living)
    world.launch(3)
    ids = [one.event["id"] for one in living.events(news.seen)]
    assert len(set(ids)) == len(ids) >= 3
