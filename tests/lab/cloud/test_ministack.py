"""What the emulator's EC2 does beyond the contract that it shares with moto: test_adapters.py."""

import subprocess

from lab.cloud.emulator import PYTHON, ROOT, Emulator
from lab.images import AMAZON_LINUX
from tests.lab.cloud.world import World, refused


def test_an_interface_keeps_its_type(world: World) -> None:
    branch = world.ec2.create_network_interface(SubnetId=world.subnet, InterfaceType="branch")["NetworkInterface"]
    assert branch["InterfaceType"] == "branch"


def test_tags_are_listed_wherever_they_are_kept(world: World) -> None:
    [web] = world.launch()
    name = world.session(world.interfaces(web)[0])["TrafficMirrorSessionId"]
    world.ec2.create_tags(Resources=[name, web], Tags=[{"Key": "b", "Value": "2"}])
    for resource, kind in ((name, "traffic-mirror-session"), (web, "instance")):
        by = [{"Name": "resource-id", "Values": [resource]}, {"Name": "key", "Values": ["b"]}]
        [tag] = world.ec2.describe_tags(Filters=by)["Tags"]
        assert tag == {"ResourceId": resource, "ResourceType": kind, "Key": "b", "Value": "2"}
    world.ec2.delete_tags(Resources=[name, web])
    assert world.sessions(world.interfaces(web)[0])[0]["Tags"] == [] == world.tags(web)


def test_an_interface_that_is_not_there_cannot_be_tagged(world: World) -> None:
    tag = {"Resources": ["eni-0123456789abcdef0"], "Tags": [{"Key": "a", "Value": "x"}]}
    assert refused(world.ec2.create_tags, **tag) == "InvalidNetworkInterfaceID.NotFound"


def test_a_list_refuses_what_it_does_not_know(world: World) -> None:
    assert refused(world.ec2.describe_instances, InstanceIds=["i-x"]) == "InvalidInstanceID.Malformed"
    unknown = [{"Name": "instance-identity", "Values": ["x"]}]
    assert refused(world.ec2.describe_instances, Filters=unknown) == "InvalidParameterValue"


def test_an_instance_shows_its_interfaces_in_their_places(world: World) -> None:
    [web] = world.launch(
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]},
            {"ResourceType": "network-interface", "Tags": [{"Key": "c", "Value": "d"}]},
        ]
    )
    extra = world.attach(web, 3)
    found = world.instance(web)
    first, second = found["NetworkInterfaces"]
    assert (found["VpcId"], found["SubnetId"], found["Tags"]) == (world.vpc, world.subnet, [{"Key": "a", "Value": "b"}])
    assert (first["Attachment"]["DeviceIndex"], first["Attachment"]["NetworkCardIndex"]) == (0, 0)
    assert first["Attachment"]["DeleteOnTermination"] is True and first["PrivateIpAddress"] == found["PrivateIpAddress"]
    assert second["NetworkInterfaceId"] == extra and second["Attachment"]["DeviceIndex"] == 3
    assert (second["VpcId"], second["SubnetId"], second["InterfaceType"]) == (world.vpc, world.subnet, "interface")
    [whole] = world.ec2.describe_network_interfaces(NetworkInterfaceIds=[first["NetworkInterfaceId"]])[
        "NetworkInterfaces"
    ]
    assert whole["Attachment"]["InstanceId"] == web and whole["Status"] == "in-use"
    assert whole["TagSet"] == [{"Key": "c", "Value": "d"}] and whole["RequesterManaged"] is False


def test_attaching_refuses_what_cannot_be(world: World) -> None:
    [web] = world.launch()
    extra = world.attach(web)
    attach = world.ec2.attach_network_interface
    again = refused(attach, NetworkInterfaceId=extra, InstanceId=web, DeviceIndex=2)
    assert again == "InvalidNetworkInterface.InUse"
    free = world.ec2.create_network_interface(SubnetId=world.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    assert refused(attach, NetworkInterfaceId=free, InstanceId=web, DeviceIndex=1) == "InvalidParameterValue"
    nowhere = refused(attach, NetworkInterfaceId=free, InstanceId="i-0", DeviceIndex=1)
    assert nowhere == "InvalidInstanceID.NotFound"
    assert refused(lambda: world.detach(world.interfaces(web)[0])) == "OperationNotPermitted"
    assert refused(world.ec2.create_network_interface, SubnetId="subnet-0") == "InvalidSubnetID.NotFound"


def test_the_labs_images_are_those_that_public_parameters_name(cloud: Emulator) -> None:
    prefix = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default"
    ssm = cloud.client("ssm")
    named = [ssm.get_parameter(Name=f"{prefix}-{kind}")["Parameter"]["Value"] for kind in ("x86_64", "arm64")]
    assert named == list(AMAZON_LINUX)


def test_schedules_of_a_live_emulator_do_not_strike_by_themselves() -> None:
    """An hourly one that was made long ago would, at the scheduler's first look."""
    script = """
from lab.cloud import delivery
from ministack.services import eventbridge
struck = []
eventbridge._invoke_target = lambda target, event, rule, view=None: struck.append(rule)
def look(name):
    arn = f"arn:aws:events:eu-west-1:123456789012:rule/{name}"
    rule = {"Arn": arn, "State": "ENABLED", "ScheduleExpression": "rate(1 hour)", "CreationTime": 0}
    key = ("123456789012", "eu-west-1", name)
    eventbridge._rules._data[key], eventbridge._targets._data[key] = rule, [{"Id": "1", "Arn": "arn:aws:lambda:x"}]
    eventbridge._tick_scheduled_rules()
    return len(struck)
assert look("one") == 1
delivery.open_doors(True)
assert look("two") == 1
"""
    done = subprocess.run([PYTHON, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
