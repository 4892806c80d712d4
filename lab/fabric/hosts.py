"""Instances as network namespaces, named by their ids, with their network interfaces."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from lab.fabric import router
from lab.fabric.router import Port

type Resource = Mapping[str, Any]

_CARD = 100  # more than a card has interfaces


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface at its place; `index` is the device index, 0 for eth0. Those of a further network card have
    numbers of their own: 101 is the second of the second card."""

    id: str
    address: str
    mac: str
    index: int


@dataclass(frozen=True, slots=True)
class Host:
    """What an instance is, as far as it can be seen from outside it."""

    instance: str
    image: str
    interfaces: tuple[Interface, ...]
    tags: Mapping[str, str]
    user_data: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance in a state of EC2's, its user data still unread."""

    state: str
    host: Host


def read(instances: Iterable[Resource], interfaces: Iterable[Resource]) -> dict[str, Instance]:
    """From the lists of the describe actions, by id. An interface's place is read where the interface is described."""
    attached: dict[str, list[Interface]] = {}
    for entry in interfaces:
        attachment = entry.get("Attachment") or {}
        if "InstanceId" in attachment:
            place = int(attachment["DeviceIndex"]) + _CARD * int(attachment.get("NetworkCardIndex") or 0)
            made = Interface(entry["NetworkInterfaceId"], entry["PrivateIpAddress"], entry["MacAddress"], place)
            attached.setdefault(attachment["InstanceId"], []).append(made)
    found = {}
    for entry in instances:
        name = entry["InstanceId"]
        its = tuple(sorted(attached.get(name, ()), key=lambda one: one.index))
        tags = {tag["Key"]: tag["Value"] for tag in entry.get("Tags", ())}
        found[name] = Instance(entry["State"]["Name"], Host(name, entry["ImageId"], its, tags, ""))
    return found


def user_data(answer: Resource) -> str:
    """From DescribeInstanceAttribute; empty when the launch gave none. What is no text is shown with marks in it."""
    encoded = (answer.get("UserData") or {}).get("Value") or ""
    try:
        return base64.b64decode(encoded, validate=True).decode(errors="replace")
    except ValueError:  # a launch template may hold anything
        return str(encoded)


class Hosts:
    """The namespaces that are there, and the devices of their interfaces."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.ports: dict[str, Port] = {}  # by interface
        self._names = count(1)

    def add(self, host: Host) -> None:
        """Make it, its links up."""
        self._connect(host, host.interfaces)
        self.hosts[host.instance] = host

    def follow(self, host: Host) -> None:
        """A host that is there already gets the interfaces that it has now, and its tags. If an interface cannot be
        connected, none of the new ones is."""
        before = self.hosts[host.instance]
        host = replace(host, user_data=before.user_data)
        if host == before:
            return
        gone = [interface for interface in before.interfaces if interface not in host.interfaces]
        self.disconnect(host.instance, gone)
        come = [interface for interface in host.interfaces if interface not in before.interfaces]
        left = tuple(interface for interface in host.interfaces if interface in before.interfaces)
        self.hosts[host.instance] = replace(host, interfaces=left)
        if come:
            self._connect(host, come, new=False)
        self.hosts[host.instance] = host

    def disconnect(self, instance: str, interfaces: Sequence[Interface]) -> None:
        """A host loses these interfaces."""
        host = self.hosts[instance]
        left = tuple(one for one in host.interfaces if one not in interfaces)
        self.hosts[instance] = replace(host, interfaces=left)
        if interfaces:
            router.disconnect([self.ports.pop(one.id) for one in interfaces])

    def remove(self, instances: Iterable[str]) -> None:
        """Those of which nothing runs any more."""
        doomed = [interface.id for instance in instances for interface in self.hosts.pop(instance).interfaces]
        router.remove([self.ports.pop(interface) for interface in doomed])

    def _connect(self, host: Host, interfaces: Sequence[Interface], new: bool = True) -> None:
        ports = {one.id: self._port(host, one) for one in interfaces}
        router.connect(list(ports.values()), new)
        self.ports |= ports

    def _port(self, host: Host, interface: Interface) -> Port:
        outer, inner = f"eni{next(self._names)}", f"eth{interface.index}"
        return Port(host.instance, inner, outer, interface.address, interface.mac, index=interface.index)
