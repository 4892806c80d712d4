"""Instances as network namespaces, named by their ids, with their network interfaces."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from lab.fabric import router
from lab.fabric.router import Port

type Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface at its place; `index` is the device index, 0 for eth0."""

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
            place = int(attachment["DeviceIndex"])
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
    return base64.b64decode(encoded).decode(errors="replace")


class Hosts:
    """The namespaces that are there, and the devices of their interfaces."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self.ports: dict[str, Port] = {}  # by interface
        self._names = count(1)

    def add(self, host: Host) -> None:
        """Make it, its links up."""
        router.connect([self._port(host, interface) for interface in host.interfaces])
        self.hosts[host.instance] = host

    def follow(self, host: Host) -> None:
        """A host that is there already gets the interfaces that it has now, and its tags."""
        before = self.hosts[host.instance]
        host = replace(host, user_data=before.user_data)
        if host == before:
            return
        gone = set(before.interfaces) - set(host.interfaces)
        come = [interface for interface in host.interfaces if interface not in before.interfaces]
        if gone:
            router.disconnect([self.ports.pop(interface.id) for interface in gone])
        if come:
            router.connect([self._port(host, interface) for interface in come], new=False)
        self.hosts[host.instance] = host

    def remove(self, instances: Iterable[str]) -> None:
        """Those of which nothing runs any more."""
        doomed = [interface.id for instance in instances for interface in self.hosts.pop(instance).interfaces]
        router.remove([self.ports.pop(interface) for interface in doomed])

    def _port(self, host: Host, interface: Interface) -> Port:
        outer = f"eni{next(self._names)}"
        inner = f"eth{interface.index}"
        port = Port(host.instance, inner, outer, interface.address, interface.mac, index=interface.index)
        self.ports[interface.id] = port
        return port
