"""What each network interface mirrors, read from the answers of the EC2 API.

https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-sessions.html: sessions are looked at by ascending
number, and the first whose filter takes a packet mirrors it. A session whose target is gone stays, and mirrors nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from lab.fabric.bpf import Cidr, FilterError, Program, Rule, program

type Resource = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Session:
    """A session that mirrors. `balancer` (an ARN) or `address` (an interface's) says where to."""

    id: str
    interface: str
    number: int
    vni: int
    balancer: str
    address: str
    packet_length: int | None  # as the API says it
    ingress: Program
    egress: Program


@dataclass(frozen=True, slots=True)
class Mirroring:
    """Every session, by id: those that mirror, and the reasons why the others do not."""

    sessions: Mapping[str, Session]
    idle: Mapping[str, str]


def read(
    sessions: Iterable[Resource],
    filters: Iterable[Resource],
    targets: Iterable[Resource],
    addresses: Mapping[str, str],
) -> Mirroring:
    """From the lists of the describe actions; `addresses` are those of interfaces, by id."""
    known_filters = {entry["TrafficMirrorFilterId"]: _programs(entry) for entry in filters}
    known_targets = {entry["TrafficMirrorTargetId"]: entry for entry in targets}
    active: dict[str, Session] = {}
    idle: dict[str, str] = {}
    for entry in sessions:
        name, used = entry["TrafficMirrorSessionId"], entry["TrafficMirrorFilterId"]
        way = _way(known_targets.get(entry["TrafficMirrorTargetId"]), entry.get("PacketLength"), addresses)
        made = known_filters.get(used, f"its filter {used} is not there")
        if isinstance(made, str):
            idle[name] = made
        elif isinstance(way, str):
            idle[name] = way
        else:
            active[name] = Session(
                name,
                entry["NetworkInterfaceId"],
                int(entry["SessionNumber"]),
                int(entry["VirtualNetworkId"]),
                *way,
                *made,
            )
    return Mirroring(active, idle)


def _way(
    target: Resource | None, length: int | None, addresses: Mapping[str, str]
) -> tuple[str, str, int | None] | str:
    """Load balancer, address and packet length; or why there is no way."""
    if target is None:
        return "its target is not there"
    if target.get("NetworkLoadBalancerArn"):
        return target["NetworkLoadBalancerArn"], "", length
    if target.get("NetworkInterfaceId"):
        interface = target["NetworkInterfaceId"]
        if interface not in addresses:
            return f"its target, interface {interface}, is not there"
        return "", addresses[interface], length
    return "the lab has no Gateway Load Balancer endpoints: no packet gets there"


def _programs(entry: Resource) -> tuple[Program, Program] | str:
    """Of both directions; or why there are none."""
    try:
        return _program(entry["IngressFilterRules"]), _program(entry["EgressFilterRules"])
    except FilterError as error:
        return f"its filter {entry['TrafficMirrorFilterId']} is too long: {error}"


def _program(rules: Iterable[Resource]) -> Program:
    return program([_rule(entry) for entry in sorted(rules, key=lambda entry: int(entry["RuleNumber"]))])


def _rule(entry: Resource) -> Rule:
    protocol = entry.get("Protocol")
    return Rule(
        accept=entry["RuleAction"] == "accept",
        source=_cidr(entry["SourceCidrBlock"]),
        destination=_cidr(entry["DestinationCidrBlock"]),
        protocol=None if protocol is None else int(protocol),
        source_ports=_ports(entry.get("SourcePortRange")),
        destination_ports=_ports(entry.get("DestinationPortRange")),
    )


def _cidr(text: str) -> Cidr:
    return ip_network(text, strict=False)


def _ports(entry: Resource | None) -> tuple[int, int] | None:
    return (int(entry["FromPort"]), int(entry["ToPort"])) if entry else None
