"""Namespaces and the kernel's mirroring follow what is done through the EC2 API, in a live emulator."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from lab.cloud.emulator import Emulator, emulator
from lab.fabric import router
from lab.fabric.fabric import MOST_FAILURES, MOST_TROUBLED, Fabric, FabricError, noted
from lab.fabric.hosts import Host
from lab.fabric.router import BALANCER, CLIENT_ADDRESS, INTERNET
from lab.fabric.routes import Route
from lab.network.namespaces import inside, run

pytestmark = pytest.mark.network(whole=True)

SOON = 10.0


class Machines:
    """Software that is a list of what was asked for."""

    def __init__(self) -> None:
        self.booted: list[Host] = []
        self.halted: list[Host] = []
        self.may_halt = Event()
        self.may_halt.set()
        self.refusals: list[Exception] = []  # of the next to boot, or to halt
        self.watch: Callable[[], None] = lambda: None  # called with each halt

    def boot(self, host: Host) -> None:
        assert Path(f"/run/netns/{host.instance}").exists()
        self.booted.append(host)
        self._refuse()

    def halt(self, host: Host) -> None:
        assert Path(f"/run/netns/{host.instance}").exists()
        assert self.may_halt.wait(SOON)
        self.watch()
        self.halted.append(host)
        self._refuse()

    def _refuse(self) -> None:
        if self.refusals:
            raise self.refusals.pop()


class Balancer:
    """Takes what comes for each route, from before the first packet can come."""

    def __init__(self) -> None:
        self.targets: Mapping[str, str | None] = {}
        self.addresses: Mapping[str, str] = {}
        self.routes: dict[int, Route] = {}
        self.sockets: dict[int, socket.socket] = {}
        self.refusal: Exception | None = None  # at its end
        self.refusals = 0  # looks that fail
        self.watch: Callable[[], None] = lambda: None  # called with each look

    def start(self) -> None:
        assert Path(f"/run/netns/{BALANCER}").exists()

    def look(self, targets: Mapping[str, str | None], routes: Sequence[Route], addresses: Mapping[str, str]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise ConnectionError("no answer")
        self.watch()
        self.targets, self.addresses = targets, addresses
        for route in routes:
            if route.port not in self.sockets:
                assert f"vx{route.port}" not in run("ip", "-br", "link")
                with inside(BALANCER):
                    self.sockets[route.port] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.sockets[route.port].bind(("", route.port))
                self.sockets[route.port].settimeout(SOON)
        self.routes = {route.port: route for route in routes}

    def close(self) -> None:
        for one in self.sockets.values():
            one.close()
        if self.refusal:
            refusal, self.refusal = self.refusal, None
            raise refusal


class Scene:
    """An emulator, a fabric on it, and short words for what is done to them."""

    def __init__(self, cloud: Emulator) -> None:
        self.ec2 = cloud.client("ec2")
        self.machines, self.balancer = Machines(), Balancer()
        self.fabric = Fabric(cloud, self.machines, 10, balancer=self.balancer)

    def launch(self, state: str = "running", **more: Any) -> str:
        launched = self.ec2.run_instances(ImageId="ami-1", InstanceType="c5.large", MinCount=1, MaxCount=1, **more)
        name: str = launched["Instances"][0]["InstanceId"]
        self.until(name, state)
        return name

    def subnet(self) -> str:
        """In a VPC of its own; all are alike."""
        vpc = self.ec2.create_vpc(CidrBlock="10.20.0.0/16")["Vpc"]["VpcId"]
        made = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.20.0.0/24", AvailabilityZone="eu-west-1a")
        return str(made["Subnet"]["SubnetId"])

    def state(self, name: str) -> str:
        (reservation,) = self.ec2.describe_instances(InstanceIds=[name])["Reservations"]
        return str(reservation["Instances"][0]["State"]["Name"])

    def until(self, name: str, state: str) -> None:
        self.fabric.wait(f"{name} is {state}", lambda: self.state(name) == state, SOON)

    def interface(self, name: str, place: int = 0) -> str:
        return self.fabric.hosts[name].interfaces[place].id

    def filtered(self, *ports: int) -> str:
        made: str = self.ec2.create_traffic_mirror_filter()["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
        for number, port in enumerate(ports, 1):
            self.rule(made, number, port)
        return made

    def rule(self, name: str, number: int, port: int) -> None:
        self.ec2.create_traffic_mirror_filter_rule(
            TrafficMirrorFilterId=name,
            TrafficDirection="ingress",
            RuleNumber=number,
            RuleAction="accept",
            SourceCidrBlock="0.0.0.0/0",
            DestinationCidrBlock="0.0.0.0/0",
            Protocol=17,
            DestinationPortRange={"FromPort": port, "ToPort": port},
        )

    def target(self, interface: str) -> str:
        made = self.ec2.create_traffic_mirror_target(NetworkInterfaceId=interface)["TrafficMirrorTarget"]
        return str(made["TrafficMirrorTargetId"])

    def session(self, interface: str, target: str, by: str) -> str:
        made = self.ec2.create_traffic_mirror_session(
            NetworkInterfaceId=interface,
            TrafficMirrorTargetId=target,
            TrafficMirrorFilterId=by,
            SessionNumber=1,
            VirtualNetworkId=7,
            PacketLength=200,
        )
        return str(made["TrafficMirrorSession"]["TrafficMirrorSessionId"])

    def mirrors(self, name: str) -> bool:
        return any(one.session == name and one.until is None for one in self.fabric.mirrored)

    def mirrored(self, name: str) -> bytes:
        """The next packet of a session, from its own header on."""
        port = next(port for port, route in self.balancer.routes.items() if route.session == name)
        return self.balancer.sockets[port].recv(65535)[8 + 14 :]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    router.build()
    with emulator(auth=False, live=True, pace=10) as running:
        yield running


@contextmanager
def _scene(cloud: Emulator) -> Iterator[Scene]:
    scene = Scene(cloud)
    scene.fabric.start()
    try:
        yield scene
        scene.fabric.check()
    finally:
        scene.fabric.close()
        instances = [
            one["InstanceId"] for part in scene.ec2.describe_instances()["Reservations"] for one in part["Instances"]
        ]
        scene.ec2.terminate_instances(InstanceIds=instances)
        for name in instances:
            cloud.report_machine(name, "terminated")


@pytest.fixture
def scene(cloud: Emulator) -> Iterator[Scene]:
    with _scene(cloud) as made:
        yield made


def namespaces() -> set[str]:
    return {path.name for path in Path("/run/netns").iterdir() if path.name.startswith("i-")}


def send(address: str, port: int, text: str = "x") -> None:
    with inside(INTERNET), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(text.encode(), (address, port))


def test_an_instance_lives_as_the_api_says(scene: Scene) -> None:
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "app", "Value": "shop"}]}]
    name = scene.launch(UserData="#!/bin/sh", TagSpecifications=tags)
    (booted,) = scene.machines.booted
    assert (booted.instance, booted.image, booted.user_data, dict(booted.tags)) == (
        name,
        "ami-1",
        "#!/bin/sh",
        {"app": "shop"},
    )
    assert scene.fabric.hosts[name].interfaces == booted.interfaces
    assert namespaces() == {name}

    scene.machines.may_halt.clear()
    scene.ec2.stop_instances(InstanceIds=[name])
    scene.fabric.wait("it is told to stop", lambda: name not in scene.fabric.hosts, SOON)
    assert scene.state(name) == "stopping"
    scene.machines.may_halt.set()
    scene.until(name, "stopped")
    assert namespaces() == set()

    scene.ec2.start_instances(InstanceIds=[name])
    scene.until(name, "running")
    assert [one.interfaces for one in scene.machines.booted] == [booted.interfaces] * 2

    scene.ec2.terminate_instances(InstanceIds=[name])
    scene.until(name, "terminated")
    assert namespaces() == set()
    assert len(scene.machines.halted) == 2


def test_packets_follow_sessions_and_filters(scene: Scene) -> None:
    source, collector = scene.launch(), scene.launch()
    address = scene.fabric.hosts[source].interfaces[0].address
    by = scene.filtered(80)
    to = scene.target(scene.interface(collector))
    name = scene.session(scene.interface(source), to, by)
    scene.fabric.wait("it mirrors", lambda: scene.mirrors(name), SOON)
    (route,) = scene.balancer.routes.values()
    there = scene.fabric.hosts[collector].interfaces[0].address
    assert route == Route(route.port, name, "", there, 200)
    assert scene.balancer.targets == {to: None}
    assert scene.balancer.addresses == {source: address, collector: there}

    send(address, 81, "passed over")
    send(address, 80, "first")
    assert scene.mirrored(name).endswith(b"first")
    scene.rule(by, 2, 81)
    scene.fabric.wait("the filter's change is seen", lambda: len(scene.fabric.mirrored) == 2, SOON)
    send(address, 81, "second")
    assert scene.mirrored(name).endswith(b"second")

    scene.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=name)
    # A period ends before the kernel's filter does, and a route only after it.
    scene.fabric.wait("it has ended", lambda: not scene.balancer.routes, SOON)
    send(address, 80, "third")
    assert scene.fabric.counters().packets == 2
    first, second = scene.fabric.mirrored
    assert first.until is not None and second.until is not None
    assert first.since < first.until <= second.since < second.until
    assert {(one.interface, one.instance) for one in (first, second)} == {
        (scene.machines.booted[0].interfaces[0].id, source)
    }


def test_an_interface_is_attached_mirrored_and_detached(scene: Scene) -> None:
    source, collector = scene.launch(), scene.launch()
    subnet = scene.ec2.describe_instances(InstanceIds=[source])["Reservations"][0]["Instances"][0]["SubnetId"]
    second = scene.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    interface = second["NetworkInterfaceId"]
    attached = scene.ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=source, DeviceIndex=1)
    name = scene.session(interface, scene.target(scene.interface(collector)), scene.filtered(80))
    scene.fabric.wait("it mirrors", lambda: scene.mirrors(name), SOON)
    send(second["PrivateIpAddress"], 80, "hello")
    assert scene.mirrored(name).endswith(b"hello")

    scene.ec2.detach_network_interface(AttachmentId=attached["AttachmentId"])
    scene.fabric.wait("it is gone", lambda: len(scene.fabric.hosts[source].interfaces) == 1, SOON)
    assert not scene.mirrors(name)
    assert scene.machines.halted == []


def test_a_session_without_its_target_says_so_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    source = scene.launch()
    subnet = scene.ec2.describe_instances(InstanceIds=[source])["Reservations"][0]["Instances"][0]["SubnetId"]
    loose = scene.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    name = scene.session(scene.interface(source), scene.target(loose), scene.filtered(80))
    scene.fabric.wait("it mirrors", lambda: scene.mirrors(name), SOON)
    scene.ec2.delete_network_interface(NetworkInterfaceId=loose)
    scene.fabric.wait("its target is missed", lambda: name in scene.fabric.idle, SOON)
    for _ in range(3):
        scene.fabric.look()
    assert not scene.mirrors(name)
    assert [one.getMessage() for one in caplog.records].count(
        f"session {name} mirrors nothing: {scene.fabric.idle[name]}"
    ) == 1


def test_a_look_without_news_starts_no_process(scene: Scene) -> None:
    source, collector = scene.launch(), scene.launch()
    name = scene.session(scene.interface(source), scene.target(scene.interface(collector)), scene.filtered(80))
    scene.fabric.wait("it mirrors", lambda: scene.mirrors(name), SOON)
    scene.fabric.look()
    started: list[object] = []
    sys.addaudithook(lambda event, details: started.append(details) if event == "subprocess.Popen" else None)
    for _ in range(3):
        scene.fabric.look()
    assert started == []
    subprocess.run(["true"], check=True)
    assert started


def test_software_that_does_not_come_up_is_missed_and_all_goes_on(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.machines.refusals = [RuntimeError("no nginx here")]
    bad = scene.launch()
    assert scene.fabric.troubled == {bad: "no nginx here"}
    said = [one.getMessage() for one in caplog.records]
    assert said.count(f"instance {bad}: no nginx here") == 1
    good = scene.launch()
    assert namespaces() == {good, bad} == scene.fabric.hosts.keys()


def test_a_machine_that_does_not_halt_goes_all_the_same(cloud: Emulator) -> None:
    with _scene(cloud) as scene:
        one, other = scene.launch(), scene.launch()
        scene.machines.refusals = [RuntimeError("it hangs")]
        scene.ec2.stop_instances(InstanceIds=[one])
        scene.until(one, "stopped")
        assert namespaces() == {other}
        assert scene.fabric.troubled == {one: "it hangs"}
        scene.machines.refusals = [RuntimeError("it hangs at the end")]
        scene.balancer.refusal = RuntimeError("the balancer has ended")
        with pytest.raises(RuntimeError, match="the balancer has ended"):
            scene.fabric.close()
    assert scene.fabric.troubled[other] == "it hangs at the end"
    assert namespaces() == set()


def test_an_address_that_another_vpc_has_too_ends_that_instance(scene: Scene) -> None:
    good = scene.launch(SubnetId=scene.subnet(), PrivateIpAddress="10.20.0.9")
    bad = scene.launch("terminated", SubnetId=scene.subnet(), PrivateIpAddress="10.20.0.9")
    text = "10.20.0.9: another interface has this address; VPCs in the lab must not overlap"
    assert scene.fabric.troubled == {bad: text}
    assert namespaces() == {good}

    other, subnet = scene.launch(), scene.subnet()
    taken = scene.ec2.create_network_interface(SubnetId=subnet, PrivateIpAddress="10.20.0.9")["NetworkInterface"]
    scene.ec2.attach_network_interface(NetworkInterfaceId=taken["NetworkInterfaceId"], InstanceId=other, DeviceIndex=1)
    scene.fabric.wait("it is refused", lambda: other in scene.fabric.troubled, SOON)
    scene.fabric.look()
    assert scene.fabric.troubled[other] == text  # said once
    assert len(scene.fabric.hosts[other].interfaces) == 1


def _interfaces(scene: Scene, instance: str, number: int) -> bool:
    return len(scene.fabric.hosts[instance].interfaces) == number


def test_an_interface_moves_between_two_looks(scene: Scene) -> None:
    instances = sorted([scene.launch(), scene.launch()])
    made = scene.ec2.create_network_interface(SubnetId=scene.subnet())["NetworkInterface"]
    name, attachment = made["NetworkInterfaceId"], ""
    for one in (*instances, *instances):
        with scene.fabric._looking:
            if attachment:
                scene.ec2.detach_network_interface(AttachmentId=attachment)
            attached = scene.ec2.attach_network_interface(NetworkInterfaceId=name, InstanceId=one, DeviceIndex=1)
            attachment = attached["AttachmentId"]
        scene.fabric.wait("it is there", partial(_interfaces, scene, one, 2), SOON)
        with inside(one), socket.create_server((made["PrivateIpAddress"], 80)) as server, inside(INTERNET):
            socket.create_connection(server.getsockname(), timeout=SOON).close()
    assert scene.fabric.troubled == {}


def test_who_takes_long_to_halt_keeps_nobody_from_booting(scene: Scene) -> None:
    instances = [scene.launch() for _ in range(4)]
    scene.machines.may_halt.clear()
    scene.ec2.stop_instances(InstanceIds=instances)
    scene.fabric.wait("they are told to stop", lambda: not scene.fabric.hosts, SOON)
    scene.launch()
    assert scene.machines.halted == []
    scene.machines.may_halt.set()


def test_looks_that_fail_are_made_again_but_not_for_ever(scene: Scene) -> None:
    scene.balancer.refusals = MOST_FAILURES - 1
    scene.fabric.wait("it looks again", lambda: not scene.balancer.refusals, SOON)
    scene.launch()
    scene.fabric.check()
    scene.balancer.refusals = MOST_FAILURES
    with pytest.raises(FabricError, match="the fabric ended: no answer") as caught:
        scene.fabric.wait("it ends", lambda: 0, SOON)
    assert isinstance(caught.value.__cause__, ConnectionError)
    scene.fabric.failure = None


def test_the_oldest_troubles_are_forgotten() -> None:
    troubled = noted(noted({}, "i-1", "one"), "i-2", "two")
    assert noted(troubled, "i-1", "more") == {"i-1": "one; more", "i-2": "two"}
    assert noted(troubled, "i-3", "three", most=2) == {"i-2": "two", "i-3": "three"}
    assert len(noted({str(number): "" for number in range(MOST_TROUBLED)}, "i-1", "one")) == MOST_TROUBLED


def test_what_does_not_come_about_is_named(scene: Scene) -> None:
    with pytest.raises(FabricError, match="pigs fly: not within 0.1 s, the last look gave 0"):
        scene.fabric.wait("pigs fly", lambda: 0, 0.1)


def test_close_ends_what_runs(cloud: Emulator) -> None:
    with _scene(cloud) as scene:
        names = {scene.launch(), scene.launch()}
        assert namespaces() == names
    assert {host.instance for host in scene.machines.halted} == names
    assert namespaces() == set()
    assert CLIENT_ADDRESS in run("ip", "route")


def test_software_ends_only_when_the_balancer_has_looked(cloud: Emulator) -> None:
    router.build()
    machines, balancer, order = Machines(), Balancer(), list[str]()
    fabric, ec2 = Fabric(cloud, machines, 10, balancer=balancer), cloud.client("ec2")
    launched = ec2.run_instances(ImageId="ami-1", InstanceType="c5.large", MinCount=1, MaxCount=1)
    name = launched["Instances"][0]["InstanceId"]
    fabric.look()
    fabric.wait("it boots", lambda: machines.booted, SOON)

    def up() -> bool:
        fabric.look()
        return name in fabric.hosts

    fabric.wait("it is up", up, SOON)
    balancer.watch, machines.watch = partial(order.append, "look"), partial(order.append, "halt")
    ec2.terminate_instances(InstanceIds=[name])
    fabric.look()
    fabric.wait("it halts", lambda: machines.halted, SOON)
    assert order == ["look", "halt"]
    fabric.close()
    cloud.report_machine(name, "terminated")
