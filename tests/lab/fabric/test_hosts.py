"""Instances as namespaces: what the API's answers say of them, and packets between them."""

import base64
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.fabric import router
from lab.fabric.hosts import Host, Hosts, Instance, Interface, read, user_data
from lab.fabric.router import CLIENT_ADDRESS, INTERNET, VPC_MTU
from lab.network.namespaces import NetworkError, inside

network = pytest.mark.network(whole=True)

WEB = Host("i-1", "ami-1", (Interface("eni-1", "10.0.0.4", "02:00:00:00:00:04", 0),), {"app": "shop"}, "")
OTHER = Host("i-2", "ami-1", (Interface("eni-2", "10.1.0.4", "02:00:00:00:00:05", 0),), {}, "")
SECOND = Interface("eni-3", "10.0.9.4", "02:00:00:00:00:06", 1)


# Answers


def described(name: str, instance: str | None, index: int = 0) -> dict[str, Any]:
    """As DescribeNetworkInterfaces has it; its address says its number."""
    attachment = {"Attachment": {"InstanceId": instance, "DeviceIndex": index}} if instance else {}
    number = name[-1]
    place = {"PrivateIpAddress": f"10.0.0.{number}", "MacAddress": f"02:00:00:00:00:0{number}"}
    return {"NetworkInterfaceId": name, **place, **attachment}


def test_an_instance_has_the_interfaces_that_are_attached_to_it_in_their_places() -> None:
    instance = {"InstanceId": "i-1", "ImageId": "ami-1", "State": {"Name": "pending"}}
    interfaces = [described("eni-7", "i-1", 1), described("eni-8", "i-1"), described("eni-9", None)]

    card = described("eni-6", "i-2", 1)
    card["Attachment"]["NetworkCardIndex"] = 1
    assert [one.index for one in read([instance | {"InstanceId": "i-2"}], [card])["i-2"].host.interfaces] == [101]

    eighth, seventh = (
        Interface("eni-8", "10.0.0.8", "02:00:00:00:00:08", 0),
        Interface("eni-7", "10.0.0.7", "02:00:00:00:00:07", 1),
    )
    tagged = instance | {"Tags": [{"Key": "app", "Value": "shop"}]}
    wanted = Host("i-1", "ami-1", (eighth, seventh), {"app": "shop"}, "")
    assert read([tagged], interfaces) == {"i-1": Instance("pending", wanted)}
    assert read([instance], [])["i-1"].host.interfaces == ()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"UserData": {"Value": base64.b64encode(b"#!/bin/sh\n").decode()}}, "#!/bin/sh\n"),
        ({"UserData": {"Value": base64.b64encode(b"\xff").decode()}}, "\N{REPLACEMENT CHARACTER}"),
        ({"UserData": {"Value": "#!/bin/sh"}}, "#!/bin/sh"),  # as nobody encoded it
        ({"UserData": {}}, ""),
        ({}, ""),
    ],
)
def test_user_data(answer: dict[str, Any], text: str) -> None:
    assert user_data(answer) == text


# Packets


def _listening(namespace: str, address: str) -> socket.socket:
    with inside(namespace):
        return socket.create_server((address, 80))


def _connected(namespace: str, address: str, own: str = "") -> socket.socket:
    with inside(namespace):
        return socket.create_connection((address, 80), timeout=5, source_address=(own, 0) if own else None)


def _talk(there: str, address: str, here: str) -> tuple[str, int]:
    """Whom a server sees when it is called, and what the connection's longest segment is."""
    with _listening(there, address) as server, _connected(here, address) as caller:
        answering, (seen, _) = server.accept()
        with answering:
            segment = caller.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        return seen, segment


def _devices() -> set[str]:
    names = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return {line.split(":")[0].strip() for line in names}


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    router.build()
    made = Hosts()
    yield made
    made.remove(list(made.hosts))


@network
def test_hosts_reach_each_other_and_clients_reach_them(hosts: Hosts) -> None:
    before = _devices()
    hosts.add(WEB)
    hosts.add(OTHER)

    frame = VPC_MTU - 20 - 20 - 12  # IP, TCP, its timestamps
    assert _talk("i-1", "10.0.0.4", "i-2") == ("10.1.0.4", frame)
    assert _talk("i-1", "10.0.0.4", INTERNET) == (CLIENT_ADDRESS, 1448)
    with inside("i-1"):
        device = subprocess.run(["ip", "-br", "link", "show", "eth0"], capture_output=True, text=True, check=True)
    assert "02:00:00:00:00:04" in device.stdout

    hosts.remove(["i-1", "i-2"])
    assert _devices() == before
    assert not Path("/run/netns/i-1").exists()
    assert not hosts.hosts and not hosts.ports


@network
def test_an_interface_is_plugged_in_and_out_while_the_host_runs(hosts: Hosts) -> None:
    hosts.add(WEB)
    two = Host("i-1", "ami-1", (*WEB.interfaces, SECOND), {"app": "new"}, "")
    for _ in range(2):
        hosts.follow(two)
        assert _talk("i-1", SECOND.address, INTERNET)[0] == CLIENT_ADDRESS
        outer = hosts.ports[SECOND.id].outer
        asked, answered = _sent(outer)
        assert asked and answered  # the answers leave where the questions came in
        hosts.follow(two)
        assert hosts.ports[SECOND.id].outer == outer

        hosts.follow(WEB)
        assert SECOND.id not in hosts.ports
        assert outer not in _devices()
    assert _talk("i-1", "10.0.0.4", INTERNET)[0] == CLIENT_ADDRESS
    assert hosts.hosts["i-1"].tags == WEB.tags


def _sent(device: str) -> tuple[int, int]:
    """Packets into the instance, and out of it."""
    rows = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    (row,) = [line.split(":")[1].split() for line in rows if line.split(":")[0].strip() == device]
    return int(row[9]), int(row[1])


@network
def test_an_interface_that_cannot_be_plugged_in_leaves_the_others(hosts: Hosts) -> None:
    hosts.add(WEB)
    hosts.add(OTHER)
    two = Host("i-1", "ami-1", (*WEB.interfaces, SECOND), {"app": "new"}, "")
    hosts.follow(two)
    taken = replace(SECOND, id="eni-4", address="10.1.0.4", index=2)
    for _ in range(2):
        with pytest.raises(NetworkError, match="10.1.0.4: another interface has this address"):
            hosts.follow(replace(two, interfaces=(*WEB.interfaces, taken)))
        assert hosts.hosts["i-1"].interfaces == WEB.interfaces
        assert hosts.ports.keys() == {"eni-1", "eni-2"}
    hosts.follow(two)
    assert _talk("i-1", SECOND.address, INTERNET)[0] == CLIENT_ADDRESS


@network
def test_a_mac_address_that_cannot_be_is_named(hosts: Hosts) -> None:
    multicast = Interface("eni-1", "10.0.0.4", "03:00:00:00:00:04", 0)
    with pytest.raises(NetworkError, match="03:00:00:00:00:04"):
        hosts.add(Host("i-3", "ami-1", (multicast,), {}, ""))
