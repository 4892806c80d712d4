"""What a second terminal does to a lab: the deeds are done, and what cannot be done is said in a line."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import do
from lab.cloud.emulator import Emulator, emulator
from lab.images import IMAGES
from tests.waiting import until


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    """A live emulator, and one subnet in it."""
    with emulator(auth=False, live=True, pace=10) as running:
        yield running


@pytest.fixture(scope="module")
def subnet(cloud: Emulator) -> str:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    made: str = ec2.create_subnet(VpcId=vpc, CidrBlock="10.1.0.0/24")["Subnet"]["SubnetId"]
    return made


@pytest.fixture
def terminal(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], list[str]]:
    """A command line in, what it prints out; it must succeed."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)

    def run(line: str) -> list[str]:
        code = do.main(shlex.split(line))
        printed = capsys.readouterr()
        assert (code, printed.err) == (0, ""), printed
        return printed.out.splitlines()

    return run


@pytest.fixture
def refused(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """A command line in, its one line of complaint out."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", cloud.url)

    def run(line: str) -> str:
        try:
            code = do.main(shlex.split(line))
        except SystemExit as end:
            code = int(str(end.code))
        printed = capsys.readouterr()
        assert code == 2
        assert printed.out == ""
        [complaint] = printed.err.splitlines()
        assert complaint.startswith("lab.do: ")
        return str(complaint)

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


def test_the_life_of_instances(cloud: Emulator, subnet: str, terminal: Callable[[str], list[str]]) -> None:
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


def test_the_next_instance_is_launched_beside_production(
    cloud: Emulator, subnet: str, terminal: Callable[[str], list[str]]
) -> None:
    _launched(cloud, terminal(f"launch --subnet {subnet}"))
    [new] = _launched(cloud, terminal("launch --image plain"))

    assert _instance(cloud, new)["SubnetId"] == subnet
    assert _instance(cloud, new)["ImageId"] == IMAGES["plain"]


def test_status_tells_the_sessions(cloud: Emulator, subnet: str, terminal: Callable[[str], list[str]]) -> None:
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


def test_a_group_is_scaled(cloud: Emulator, subnet: str, terminal: Callable[[str], list[str]]) -> None:
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


def test_a_policy_is_put_where_the_stack_looks_for_it(
    cloud: Emulator, tmp_path: Path, terminal: Callable[[str], list[str]]
) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    [line] = terminal(f"policy {tmp_path}/policy.yaml")

    assert line.startswith("/replay/policy, version 1: ")
    assert cloud.client("ssm").get_parameter(Name="/replay/policy")["Parameter"]["Value"] == "version: 1\n"


def test_the_way_of_events_can_be_bad(cloud: Emulator, subnet: str, terminal: Callable[[str], list[str]]) -> None:
    before = len(cloud.events())
    assert terminal("bus --lost 1 --late 0.5 --seconds 2") == ["events from now on: late 0.5, seconds 2, lost 1"]
    [one] = [line.split()[0] for line in terminal(f"launch --subnet {subnet}")]
    assert terminal("bus") == ["events from now on: as they come, once and in order"]
    cloud.report_machine(one, "running")

    def listed() -> list[str]:
        lines = terminal(f"events --after {before}")
        return lines if any("delivered" in line for line in lines) else []

    first, *_, last = until("an event is delivered", listed)
    assert re.fullmatch(rf" *\d+ [\d:]+ EC2 Instance State-change Notification: {one} pending \(lost\)", first)
    assert last.endswith(f"{one} running (1 of 1 delivered)")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "required"),
        ("dance", "invalid choice: 'dance'"),
        ("launch --number 0", "a whole number from 1 to 20"),
        ("launch --number 21", "a whole number from 1 to 20"),
        ("launch --image windows", "invalid choice: 'windows'"),
        ("launch --tag Name", "'Name' is no tag: write KEY=VALUE"),
        ("launch --subnet subnet-0123456789abcdef0", "refused: "),
        ("tag Env=a", "which instances? write their ids first"),
        ("tag i-0123456789abcdef0", "which tag? write KEY=VALUE behind"),
        ("tag i-0123456789abcdef0 Env", "'Env' is no tag"),
        ("tag i-0123456789abcdef0 Env=a", "refused: The ID 'i-0123456789abcdef0' does not exist"),
        ("untag i-0123456789abcdef0", "which tag? write its key behind"),
        ("stop", "required: i-…"),
        ("stop i-0123456789abcdef0", "refused: "),
        ("scale nobody 3", "no group 'nobody'; there are: "),
        ("scale web many", "a whole number from 0 to 20"),
        ("bus --lost 1.1", "a share from 0 to 1"),
        ("bus --lost nan", "a number, 0 or more"),
        ("bus --seconds inf", "a number, 0 or more"),
        ("bus --seconds 1e9", "seconds are from 0 to 3600"),
        ("sweep", "there is no enabled rule with a schedule: is the stack deployed?"),
        ("policy /nowhere.yaml", "/nowhere.yaml cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(refused: Callable[[str], str], line: str, complaint: str) -> None:
    assert complaint in refused(line)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (None, "AWS_ENDPOINT_URL is not set"),
        ("https://ec2.eu-west-1.amazonaws.com", "no lab of this machine"),
        ("http://127.0.0.1:1", "127.0.0.1:1"),
    ],
)
def test_without_a_lab_it_says_so(
    refused: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, url: str | None, complaint: str
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL") if url is None else monkeypatch.setenv("AWS_ENDPOINT_URL", url)

    assert complaint in refused("status")
    assert complaint in refused("sweep")
