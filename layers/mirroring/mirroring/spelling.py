"""How EC2 spells our nouns: its describe answers made plain, and parameters of its writes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mirroring.describe import Raw
from mirroring.model import Direction, Filter, Instance, Interface, Rule, Session, Tags, Target, TargetKind

_RESOURCES = {
    TargetKind.INTERFACE: "NetworkInterfaceId",
    TargetKind.NLB: "NetworkLoadBalancerArn",
    TargetKind.ENDPOINT: "GatewayLoadBalancerEndpointId",
}
#: Attribute of a session, its parameter of ModifyTrafficMirrorSession, and the name by which it is unset.
_SETTINGS = (
    ("target", "TrafficMirrorTargetId", ""),
    ("filter", "TrafficMirrorFilterId", ""),
    ("number", "SessionNumber", ""),
    ("vni", "VirtualNetworkId", "virtual-network-id"),
    ("packet_length", "PacketLength", "packet-length"),
    ("description", "Description", "description"),
)
_UNSET = (None, "")


# Answers


def instances(reservations: list[dict[str, Any]]) -> Iterator[Instance]:
    return (_instance(raw) for one in reservations for raw in one.get("Instances", ()))


def _instance(raw: Raw) -> Instance:
    name = raw["InstanceId"]
    interfaces = [_interface(one, name) for one in raw.get("NetworkInterfaces", ()) if _is_attached(one)]
    if len(interfaces) > 1:
        interfaces.sort(key=lambda interface: (interface.card, interface.device_index))
    return Instance(
        id=name,
        state=raw["State"]["Name"],
        type=raw["InstanceType"],
        vpc=raw.get("VpcId", ""),
        subnet=raw.get("SubnetId", ""),
        tags=_tags(raw),
        interfaces=tuple(interfaces),
    )


def _is_attached(raw: Raw) -> bool:
    """Or about to be. One that is being detached is no source any more."""
    return raw["Attachment"].get("Status") not in ("detaching", "detached")


def _interface(raw: Raw, instance: str) -> Interface:
    return Interface(
        id=raw["NetworkInterfaceId"],
        instance=instance,
        device_index=raw["Attachment"]["DeviceIndex"],
        vpc=raw.get("VpcId", ""),
        subnet=raw.get("SubnetId", ""),
        kind=raw.get("InterfaceType", "interface"),
        card=raw["Attachment"].get("NetworkCardIndex", 0),
    )


def session(raw: Raw) -> Session:
    return Session(
        id=raw["TrafficMirrorSessionId"],
        interface=raw["NetworkInterfaceId"],
        target=raw["TrafficMirrorTargetId"],
        filter=raw["TrafficMirrorFilterId"],
        number=raw["SessionNumber"],
        vni=raw.get("VirtualNetworkId"),
        packet_length=raw.get("PacketLength"),
        description=raw.get("Description", ""),
        tags=_tags(raw),
    )


def written(answer: Raw, tags: Tags) -> Session:
    """The session of a write's answer, which need not repeat the tags."""
    found = session(answer["TrafficMirrorSession"])
    return found if found.tags else replace(found, tags=tags)


def target(raw: Raw) -> Target | None:
    """Nothing of a kind that is newer than this program: sessions with it are left alone, as if it did not show."""
    if raw["Type"] not in TargetKind:
        return None
    kind = TargetKind(raw["Type"])
    return Target(id=raw["TrafficMirrorTargetId"], kind=kind, resource=raw[_RESOURCES[kind]], tags=_tags(raw))


def filter_(raw: Raw) -> Filter:
    """With its rules in the order in which they are evaluated."""
    rules = [*raw.get("IngressFilterRules", ()), *raw.get("EgressFilterRules", ())]
    return Filter(raw["TrafficMirrorFilterId"], tuple(sorted(map(_rule, rules), key=_order)), _tags(raw))


def _order(rule: Rule) -> tuple[bool, int]:
    return rule.direction is Direction.EGRESS, rule.number


def _rule(raw: Raw) -> Rule:
    protocol = raw.get("Protocol", -1)
    return Rule(
        direction=Direction(raw["TrafficDirection"]),
        number=raw["RuleNumber"],
        accept=raw["RuleAction"] == "accept",
        source=raw["SourceCidrBlock"],
        destination=raw["DestinationCidrBlock"],
        protocol=None if protocol < 0 else protocol,
        source_ports=_ports(raw.get("SourcePortRange")),
        destination_ports=_ports(raw.get("DestinationPortRange")),
    )


def _ports(raw: Raw | None) -> tuple[int, int] | None:
    return (raw["FromPort"], raw["ToPort"]) if raw else None


def _tags(raw: Raw) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in raw.get("Tags", ())}


# Parameters


def tag_list(tags: Tags) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def creation(wished: Session) -> dict[str, Any]:
    """Of CreateTrafficMirrorSession."""
    parameters = {
        parameter: getattr(wished, attribute)
        for attribute, parameter, _ in _SETTINGS
        if getattr(wished, attribute) not in _UNSET
    }
    tags = {"ResourceType": "traffic-mirror-session", "Tags": tag_list(wished.tags)}
    return {**parameters, "NetworkInterfaceId": wished.interface, "TagSpecifications": [tags]}


def modification(before: Session, after: Session) -> dict[str, Any]:
    """Of ModifyTrafficMirrorSession: only what differs."""
    changes: dict[str, Any] = {}
    removed = []
    for attribute, parameter, unset in _SETTINGS:
        value = getattr(after, attribute)
        if value == getattr(before, attribute):
            continue
        if value in _UNSET:
            removed.append(unset)
        else:
            changes[parameter] = value
    return {**changes, "RemoveFields": removed} if removed else changes
