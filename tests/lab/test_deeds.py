"""What a second terminal does to a lab: the deeds are done, and told."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import deeds, do
from lab.cloud.emulator import Emulator, emulator
from lab.deeds import DeedError
from lab.images import IMAGES
from tests.waiting import until

type Terminal = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    """A live emulator."""
    with emulator(auth=False, live=True, pace=10) as running:
        yield running


@pytest.fixture(scope="module")
def subnet(cloud: Emulator) -> str:
    """One, in a VPC."""
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    made: str = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
    return made


@pytest.fixture
def terminal(cloud: Emulator) -> Terminal:
    """A command line in, the lines to print out."""

    def run(line: str) -> list[str]:
        options = do.parser().parse_args(shlex.split(line))
        return list(options.deed(deeds.reach(cloud.environment), options))

    return run


def _launched(cloud: Emulator, lines: list[str]) -> list[str]:
    """The ids in what `launch` printed, once the instances are running."""
    instances = [line.split()[0] for line in lines]
    for one in instances:
        cloud.report_machine(one, "running")
    return instances


def _instance(cloud: Emulator, name: str) -> dict[str, object]:
    [reservation] = cloud.client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
    found: dict[str, object] = reservation["Instances"][0]
    return found


def _tags(cloud: Emulator, name: str) -> dict[str, str]:
    found = cloud.client("ec2").describe_tags(Filters=[{"Name": "resource-id", "Values": [name]}])["Tags"]
    return {one["Key"]: one["Value"] for one in found}


def test_the_life_of_instances(cloud: Emulator, subnet: str, terminal: Terminal) -> None:
    lines = terminal(f"launch --number 2 --subnet {subnet} --tag 'Name=a web' --tag TrafficReplay=production")
    one, other = _launched(cloud, lines)
    assert all(re.fullmatch(r"i-[0-9a-f]{17} pending 10\.1\.0\.\d+", line) for line in lines)
    assert _instance(cloud, one)["ImageId"] == IMAGES["web"]
    assert _tags(cloud, other) == {"Name": "a web", "TrafficReplay": "production"}

    assert terminal(f"tag {one} {other} Env=a=b Empty=") == [one, other]
    assert terminal(f"untag {one} TrafficReplay Empty") == [one]
    assert _tags(cloud, one) == {"Name": "a web", "Env": "a=b"}
    assert _tags(cloud, other) == {"Name": "a web", "Env": "a=b", "Empty": "", "TrafficReplay": "production"}

    assert terminal(f"stop {one}") == [f"{one} running → stopping"]
    cloud.report_machine(one, "stopped")
    assert terminal(f"start {one}") == [f"{one} stopped → pending"]
    assert terminal(f"terminate {other}") == [f"{other} running → shutting-down"]

    status = {line.split()[0]: line for line in terminal("status")}
    assert re.search(r"pending +10\.1\.0\.\d+ +not mirrored +Env=a=b Name=a web$", status[one])
    assert "shutting-down" in status[other]


def test_the_next_instance_is_launched_beside_production(cloud: Emulator, subnet: str, terminal: Terminal) -> None:
    _launched(cloud, terminal(f"launch --subnet {subnet}"))
    [new] = _launched(cloud, terminal("launch --image plain"))

    assert _instance(cloud, new)["SubnetId"] == subnet
    assert _instance(cloud, new)["ImageId"] == IMAGES["plain"]


def test_status_tells_the_sessions(cloud: Emulator, subnet: str, terminal: Terminal) -> None:
    ec2 = cloud.client("ec2")
    [one, other] = _launched(cloud, terminal(f"launch --number 2 --subnet {subnet}"))
    source, goal = (
        ec2.describe_network_interfaces(Filters=[{"Name": "attachment.instance-id", "Values": [name]}])[
            "NetworkInterfaces"
        ][0]["NetworkInterfaceId"]
        for name in (one, other)
    )
    target = ec2.create_traffic_mirror_target(NetworkInterfaceId=goal)["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
    rules = ec2.create_traffic_mirror_filter()["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
    session = ec2.create_traffic_mirror_session(
        NetworkInterfaceId=source, TrafficMirrorTargetId=target, TrafficMirrorFilterId=rules, SessionNumber=1
    )["TrafficMirrorSession"]["TrafficMirrorSessionId"]

    status = {line.split()[0]: line for line in terminal("status")}

    assert session in status[one]
    assert "not mirrored" in status[other]


def test_a_group_is_scaled(cloud: Emulator, subnet: str, terminal: Terminal) -> None:
    scaling = cloud.client("autoscaling")
    template = {"ImageId": IMAGES["web"], "InstanceType": "m5.large"}
    cloud.client("ec2").create_launch_template(LaunchTemplateName="web", LaunchTemplateData=template)
    scaling.create_auto_scaling_group(
        AutoScalingGroupName="web",
        LaunchTemplate={"LaunchTemplateName": "web"},
        MinSize=1,
        MaxSize=2,
        DesiredCapacity=1,
        VPCZoneIdentifier=subnet,
    )

    assert terminal("scale web 6") == ["web: 1 → 6"]
    [group] = scaling.describe_auto_scaling_groups(AutoScalingGroupNames=["web"])["AutoScalingGroups"]
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (1, 6, 6)
    assert terminal("scale web 0") == ["web: 6 → 0"]


def test_a_policy_is_put_where_the_stack_looks_for_it(cloud: Emulator, tmp_path: Path, terminal: Terminal) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    [line] = terminal(f"policy {tmp_path}/policy.yaml")

    assert line.startswith("/replay/policy, version 1: ")
    assert cloud.client("ssm").get_parameter(Name="/replay/policy")["Parameter"]["Value"] == "version: 1\n"


def test_the_way_of_events_can_be_bad(cloud: Emulator, subnet: str, terminal: Terminal) -> None:
    before = len(cloud.events())
    assert terminal("bus --lost 1 --late 0.5 --seconds 2") == ["events from now on: late 0.5, seconds 2, lost 1"]
    [one] = [line.split()[0] for line in terminal(f"launch --subnet {subnet}")]
    assert terminal("bus") == ["events from now on: as they come, once and in order"]
    cloud.report_machine(one, "running")

    def listed() -> list[str]:
        lines = terminal(f"events --after {before}")
        return lines if any("delivered" in line for line in lines) else []

    first, *_, last = until("an event is delivered", listed)
    assert re.fullmatch(rf" *\d+ [\d:]+ {one} pending \(lost\)", first)
    assert last.endswith(f"{one} running (1 of 1 delivered)")


def test_without_production_a_subnet_has_to_be_named(cloud: Emulator) -> None:
    with emulator(auth=False) as empty, pytest.raises(DeedError, match="name one by --subnet"):
        options = do.parser().parse_args(["launch"])
        list(deeds.launch(deeds.reach(empty.environment), options))


def test_a_tag_is_a_key_and_a_value() -> None:
    assert deeds.pair("Name=a=b") == ("Name", "a=b")
    for text in ("Name", "=value", ""):
        with pytest.raises(DeedError, match="is no tag"):
            deeds.pair(text)
