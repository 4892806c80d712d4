"""A VPC on this machine: an account with the stack deployed into it, instances that run, packets that are mirrored.

    with Lab(built()) as lab:                    # in a sandbox: lab.network.sandbox.enter()
        lab.deploy()
        lab.group("web", 2, tags={"TrafficReplay": "production"})
        lab.scale("web", 6)

All deeds are calls of AWS's API, as anybody could make them with the lab's endpoint; what follows from them is the
emulator's and the fabric's business. Clients begin when a production instance has booted, and end before it does.
"""

import socket
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from math import inf
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.cloud.deployment import Deployment
from lab.cloud.emulator import Emulator, emulator
from lab.cloud.events import REGION
from lab.crew import Crew
from lab.fabric import router
from lab.fabric.balancers import Balancer
from lab.fabric.fabric import Fabric
from lab.images import IMAGES
from lab.look import Looker
from lab.network import sandbox
from lab.records import Records
from lab.tally import Tally, Window, tally, without
from lab.traffic import Mix, Traffic
from lab.view import Snapshot

STACK = "replay"
TEST_NAME = "test.internal"
#: The tag that the stack's default policy asks for.
PRODUCTION: Mapping[str, str] = {"TrafficReplay": "production"}
#: How many times as fast the waits of AWS's services pass.
PACE = 10.0

_BLOCK = "10.1.0.0/16"
_ZONES = "ab"
_TYPE = "m5.large"
_MOST = 100  # instances of an Auto Scaling group
_LOOK = 0.1
_SETTLED = 2.0  # seconds: a hole is waited for 1 s, the test environment's log is written every 0.2 s
_WRITTEN = 0.5  # production's too
_PATIENCE = 60.0

type Raw = dict[str, Any]


class LabError(Exception):
    """The lab does not come to where it should; the text is one line."""


class Lab:
    """One account, one VPC, one stack, from `with` to its end."""

    def __init__(self, built: Path, *, pace: float = PACE, listener: socket.socket | None = None) -> None:
        """`built` is the built template; `listener` a socket outside, for the emulator to answer on as well."""
        self._built, self._pace, self._listener = built, pace, listener
        self._rooms = ExitStack()
        self._looker: Looker
        self.cloud: Emulator
        self.stack: Deployment
        self.balancer: Balancer
        self.fabric: Fabric
        self.crew: Crew
        self.vpc = ""
        self.subnets: list[str] = []
        self.test = ""  # the test environment's instance
        #: Sessions that lead elsewhere: while they last, what they may take need not arrive.
        self.foreign: set[str] = set()

    def __enter__(self) -> Self:
        if not sandbox.inside():
            raise LabError("the lab is made inside a sandbox only: call lab.network.sandbox.enter() first")
        with ExitStack() as rooms:
            self._build(rooms)
            self._rooms = rooms.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rooms.close()

    def _build(self, rooms: ExitStack) -> None:
        router.build()
        main = rooms.enter_context(
            socket.create_server(("127.0.0.1", self._listener.getsockname()[1] if self._listener else 0))
        )
        endpoint = rooms.enter_context(socket.create_server((router.ENDPOINT_ADDRESS, main.getsockname()[1])))
        listeners = [endpoint, *([self._listener] if self._listener else [])]
        self.cloud = rooms.enter_context(emulator(live=True, pace=self._pace, listeners=listeners, main=main))
        folder = sandbox.FILES / "stack"
        folder.mkdir(exist_ok=True)
        self.stack = Deployment(self.cloud, STACK, self._built, folder)
        url = f"http://{router.ENDPOINT_ADDRESS}:{self.cloud.port}"
        self.crew = rooms.enter_context(Crew(sandbox.FILES / "machines", sandbox.FILES / "traffic", url))
        self.balancer = Balancer(self.cloud, self._pace, sandbox.FILES)
        self.fabric = Fabric(self.cloud, self.crew, self._pace, balancer=self.balancer)
        rooms.callback(self.fabric.close)
        rooms.callback(self.crew.close)  # by force: nobody waits for answers any more
        self.fabric.start()
        self._looker = Looker(self.cloud, self.fabric, self.crew, self.balancer)
        self.ec2, self.autoscaling = self.cloud.client("ec2"), self.cloud.client("autoscaling")
        self.vpc = self.ec2.create_vpc(CidrBlock=_BLOCK)["Vpc"]["VpcId"]
        self.subnets = [self._subnet(place, zone) for place, zone in enumerate(_ZONES)]
        [self.test] = self.launch(image="test", tags={"Name": "test environment"})
        self.running([self.test])
        sandbox.name_hosts({TEST_NAME: self.address(self.test)})

    def _subnet(self, place: int, zone: str) -> str:
        where = {"CidrBlock": f"10.1.{place}.0/24", "AvailabilityZone": f"{REGION}{zone}"}
        return str(self.ec2.create_subnet(VpcId=self.vpc, **where)["Subnet"]["SubnetId"])

    @property
    def traffic(self) -> Traffic:
        return self.crew.traffic

    @property
    def records(self) -> Records:
        return self.crew.records

    # Deeds

    def deploy(self, **parameters: str) -> None:
        """The stack, or other parameters for it. It is there when its workers are healthy, and not before."""
        given = {
            "HandlerVpcId": self.vpc,
            "HandlerSubnetIds": ",".join(self.subnets),
            "RequestsForwardDestination": f"http://{TEST_NAME}",
        }
        self.stack.deploy(None, **given | parameters)

    def launch(self, n: int = 1, *, image: str = "web", tags: Mapping[str, str] | None = None) -> list[str]:
        """Instances; `image` is a name of IMAGES."""
        specification = [{"ResourceType": "instance", "Tags": _tag_list(tags)}] if tags else []
        launched = self.ec2.run_instances(
            ImageId=IMAGES[image],
            InstanceType=_TYPE,
            MinCount=n,
            MaxCount=n,
            SubnetId=self.subnets[0],
            TagSpecifications=specification,
        )
        return [one["InstanceId"] for one in launched["Instances"]]

    def start(self, instances: Collection[str]) -> None:
        self.ec2.start_instances(InstanceIds=list(instances))

    def stop(self, instances: Collection[str]) -> None:
        self.ec2.stop_instances(InstanceIds=list(instances))

    def terminate(self, instances: Collection[str]) -> None:
        self.ec2.terminate_instances(InstanceIds=list(instances))

    def tag(self, instance: str, tags: Mapping[str, str]) -> None:
        self.ec2.create_tags(Resources=[instance], Tags=_tag_list(tags))

    def untag(self, instance: str, *keys: str) -> None:
        self.ec2.delete_tags(Resources=[instance], Tags=[{"Key": key} for key in keys])

    def group(self, name: str, n: int, *, image: str = "web", tags: Mapping[str, str] | None = None) -> None:
        """An Auto Scaling group; its instances are launched with these tags."""
        template = self.ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": IMAGES[image], "InstanceType": _TYPE}
        )["LaunchTemplate"]["LaunchTemplateId"]
        propagated = [one | {"PropagateAtLaunch": True} for one in _tag_list(tags or {})]
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=0,
            MaxSize=_MOST,
            DesiredCapacity=n,
            LaunchTemplate={"LaunchTemplateId": template, "Version": "$Latest"},
            VPCZoneIdentifier=",".join(self.subnets),
            Tags=propagated,
        )

    def scale(self, name: str, n: int) -> None:
        self.autoscaling.set_desired_capacity(AutoScalingGroupName=name, DesiredCapacity=n, HonorCooldown=False)

    def drive(self, mix: Mix | None) -> None:
        """What the clients of each production instance that boots from now on send; None: nothing."""
        self.crew.mix = mix

    # Looks

    def instance(self, name: str) -> Raw:
        [reservation] = self.ec2.describe_instances(InstanceIds=[name])["Reservations"]
        found: Raw = reservation["Instances"][0]
        return found

    def address(self, instance: str) -> str:
        return str(self.instance(instance)["PrivateIpAddress"])

    def members(self, group: str) -> list[str]:
        """Instances of an Auto Scaling group that are in service."""
        answer = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])
        found = [one for group in answer["AutoScalingGroups"] for one in group["Instances"]]
        return [one["InstanceId"] for one in found if one["LifecycleState"] == "InService"]

    def workers(self) -> list[str]:
        """Of the stack, in service."""
        return self.members(self.stack.resources["WorkerGroup"])

    def sessions(self, instances: Collection[str] = ()) -> list[Raw]:
        """Mirror sessions, by the interfaces of these instances; without any, all there are."""
        found: list[Raw] = self.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        if not instances:
            return found
        described = self.ec2.describe_network_interfaces(
            Filters=[{"Name": "attachment.instance-id", "Values": list(instances)}]
        )
        interfaces = {one["NetworkInterfaceId"] for one in described["NetworkInterfaces"]}
        return [one for one in found if one["NetworkInterfaceId"] in interfaces]

    def snapshot(self) -> Snapshot:
        """All that can be seen, in one value."""
        return self._looker.look()

    def running(self, instances: Iterable[str], seconds: float = _PATIENCE) -> None:
        """Wait until they are. Raises LabError."""
        waited = set(instances)
        deadline = time.monotonic() + seconds
        while waited:
            self.fabric.check()
            waited -= {one for one in waited if self.instance(one)["State"]["Name"] == "running"}
            if waited and time.monotonic() > deadline:
                raise LabError(f"not running within {seconds:g} s: {', '.join(sorted(waited))}")
            time.sleep(_LOOK)

    def windows(self) -> dict[str, list[Window]]:
        """When each instance was mirrored to the workers, as the kernel did it."""
        own: dict[str, list[Window]] = {}
        foreign: dict[str, list[Window]] = {}
        for period in self.fabric.mirrored:
            found = foreign if period.session in self.foreign else own
            window = Window(period.since, inf if period.until is None else period.until)
            found.setdefault(period.instance, []).append(window)
        return {name: without(windows, foreign.get(name, ())) for name, windows in own.items()}

    def tally(self, excuses: Sequence[Window] = ()) -> dict[str, Tally]:
        """What arrived of what had to, by instance: of the requests answered until now. Takes the time that they need
        to arrive. What is answered meanwhile may have arrived, or not. Raises LabError."""
        now = time.time()
        self._read(now + _SETTLED)
        received = tuple(self.records.received)
        self._read(time.time() + _WRITTEN)
        excused = [*excuses, Window(now)]
        return tally(self.records.answered, received, self.windows(), excused, tuple(self.crew.ends))

    def _read(self, until: float) -> None:
        """All logs, as they are at that time; clients write on meanwhile. Raises LabError when that cannot be had."""
        goal = inf
        while self.records.read_so_far < goal:
            self.fabric.check()
            time.sleep(_LOOK)
            if goal == inf and time.time() >= until:
                goal = self.records.read_so_far + self.records.behind
            self.records.look()
            if time.time() > until + _PATIENCE:
                raise LabError(f"{self.records.behind:,} bytes of the servers' logs cannot be read")
        if self.records.forgotten or self.records.broken:
            what = f"{self.records.forgotten:,} requests too many, {self.records.broken:,} broken lines"
            raise LabError(f"the servers' logs hold more than can be told: {what}")


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
