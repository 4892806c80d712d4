"""What stands between a mirrored packet and its worker: judgement of facts that `checkup` has read.

A session exists, costs money and mirrors nothing, without any error, when the NLB has no UDP 4789 listener, when a
security group drops the packets, or when the source's subnet has no route to the target
(https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-targets.html). Each function here looks at one of
these and says what it found, with the remedy.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from mirroring.model import STACK_TAG, VXLAN_PORT, Direction, Filter, Health, Refused, Target, TargetKind

_SHOWN = 3  # examples named in one sentence
_UDP = frozenset({"udp", "17", "-1"})


class Outcome(StrEnum):
    OK = "ok"
    WARNING = "warning"  # mirroring works, but not as well as it could, or it could not be found out
    FAILED = "failed"


@dataclass(frozen=True)
class Answer:
    """One line of a checkup."""

    outcome: Outcome
    about: str
    text: str
    remedy: str = ""  # unless ok


@dataclass(frozen=True)
class Origin:
    """An interface whose packets are to be mirrored; the outer packet comes from its primary address."""

    interface: str
    vpc: str
    subnet: str
    address: str
    groups: tuple[str, ...] = ()
    ipv6: bool = False


@dataclass(frozen=True)
class Permission:
    """An inbound rule of a security group."""

    protocol: str  # as EC2 spells it: udp, 17, or -1 for any
    ports: tuple[int, int] | None = None  # None: any
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()  # prefix lists, whose content is not read


@dataclass(frozen=True)
class Door:
    """Security groups that a mirrored packet has to pass at its target."""

    owner: str  # whose groups: the NLB, or an instance behind it
    groups: tuple[str, ...]
    sees_groups: bool = True  # rules that name the sources' groups work: not so behind an NLB
    through: tuple[str, ...] = ()  # the NLB's own groups: a rule that names one admits what it passes on


@dataclass(frozen=True)
class Place:
    """Where a target is, in the network."""

    vpc: str
    networks: tuple[str, ...]  # of its addresses
    doors: tuple[Door, ...] = ()


@dataclass(frozen=True)
class Balancer:
    """Attributes of an NLB and of the target groups behind its UDP 4789 listener."""

    cross_zone: bool
    sticky: Mapping[str, str]  # target group name → stickiness type; empty text where it is off


@dataclass(frozen=True)
class Route:
    destination: str
    via: str  # local | pcx-… | tgw-… | nat-… | …
    active: bool = True


def parameters(values: Mapping[str, str | None], own: str, default: str, state: str) -> list[Answer]:
    """Are the stack's parameters there?"""
    about = "parameters"
    if values.get(default) is None and values.get(state) is None:
        remedy = "deploy the stack, or name it by --stack and its Region by --region"
        return [Answer(Outcome.FAILED, about, f"neither {default} nor {state} exists: no such stack here", remedy)]
    found = []
    if values.get(default) is None:
        remedy = "deploy the stack again: without it nothing is left to fall back on"
        found.append(Answer(Outcome.FAILED, about, f"{default} does not exist", remedy))
    else:
        found.append(Answer(Outcome.OK, about, f"{default} exists"))
    if values.get(own) is None:
        found.append(Answer(Outcome.OK, about, f"{own} does not exist: the stack's default is in force"))
    else:
        found.append(Answer(Outcome.OK, about, f"{own} exists and wins over the default"))
    return [*found, _state(state, values.get(state))]


def _state(name: str, value: str | None) -> Answer:
    if value == "running":
        return Answer(Outcome.OK, "parameters", f"{name} says running")
    word = "does not exist" if value is None else f"says {value}"
    remedy = f"aws ssm put-parameter --name {name} --type String --value running --overwrite"
    return Answer(Outcome.FAILED, "parameters", f"{name} {word}: nothing is changed", remedy)


def unreadable(refusals: Sequence[Refused]) -> list[Answer]:
    """What could not be looked at, and so is not known."""
    return [
        Answer(
            Outcome.FAILED,
            "permissions",
            f"could not look: {refused}",
            f"allow {refused.operation} to these credentials, and run checkup again",
        )
        for refused in refusals
    ]


def reference(kind: str, identifier: str, tags: Mapping[str, str] | None, owner: str) -> list[Answer]:
    """Does a target or filter exist, and may the stack's roles use it (None: not found)?"""
    about = f"{kind} {identifier}"
    if tags is None:
        remedy = f"correct the policy's {kind}; `aws ec2 describe-traffic-mirror-{kind}s` lists what there is"
        return [Answer(Outcome.FAILED, about, "does not exist in this account and Region", remedy)]
    if tags.get(STACK_TAG) != owner:
        remedy = f"aws ec2 create-tags --resources {identifier} --tags Key={STACK_TAG},Value={owner}"
        return [Answer(Outcome.FAILED, about, f"lacks the tag {STACK_TAG}={owner}: the stack may not use it", remedy)]
    return [Answer(Outcome.OK, about, f"exists, bears {STACK_TAG}={owner}")]


def health(target: Target) -> Answer:
    """Would packets that are sent to the target arrive?"""
    about = f"target {target.id}"
    if target.health is Health.HEALTHY:
        what = f"has a UDP {VXLAN_PORT} listener and a healthy target" if target.kind is TargetKind.NLB else "is there"
        return Answer(Outcome.OK, about, f"{target.kind} {_short(target.resource)} {what}")
    outcome = Outcome.WARNING if target.health is Health.UNKNOWN else Outcome.FAILED
    return Answer(outcome, about, f"{target.kind} {_short(target.resource)} is {target.health}", target.why)


def balancer(target: str, facts: Balancer, *, both_directions: bool) -> list[Answer]:
    """Is the NLB set up as mirrored traffic needs it?"""
    about = f"target {target}"
    found = []
    if facts.cross_zone:
        found.append(Answer(Outcome.OK, about, "cross-zone load balancing is on"))
    else:
        remedy = "set load_balancing.cross_zone.enabled=true on the NLB"
        text = "cross-zone load balancing is off: a zone without a healthy worker, or one added later, gets nothing"
        found.append(Answer(Outcome.WARNING, about, text, remedy))
    return found + [_sticky(about, group, kind, both_directions) for group, kind in sorted(facts.sticky.items())]


def _sticky(about: str, group: str, kind: str, both_directions: bool) -> Answer:
    if kind == "source_ip":
        return Answer(Outcome.OK, about, f"target group {group}: stickiness by source_ip is on")
    if not both_directions:
        text = f"target group {group}: stickiness is off, which suits a filter of one direction"
        return Answer(Outcome.OK, about, text)
    remedy = "set stickiness.enabled=true and stickiness.type=source_ip on the target group"
    text = f"target group {group}: stickiness is off: a connection's two directions may reach different workers"
    return Answer(Outcome.WARNING, about, text, remedy)


def rules(filter_: Filter, origins: Sequence[Origin]) -> list[Answer]:
    """Does the filter let anything through, of both IP versions where sources have both?"""
    about = f"filter {filter_.id}"
    accepted = [rule for rule in filter_.rules if rule.accept]
    if not accepted:
        what = "has no rule" if not filter_.rules else "has no rule that accepts"
        remedy = "add a rule: aws ec2 create-traffic-mirror-filter-rule"
        return [Answer(Outcome.FAILED, about, f"{what}: nothing is mirrored", remedy)]
    found = [Answer(Outcome.OK, about, f"accepts by {counted(len(accepted), 'rule')}")]
    if not any(rule.direction is Direction.INGRESS for rule in accepted):
        remedy = "add an ingress rule for the server's port"
        text = "has no ingress rule that accepts: requests to these instances are not mirrored"
        found.append(Answer(Outcome.WARNING, about, text, remedy))
    versions = {ip_network(rule.source, strict=False).version for rule in accepted}
    with_ipv6 = [origin.interface for origin in origins if origin.ipv6]
    if 6 not in versions and with_ipv6:
        remedy = "add the same rules with IPv6 networks (::/0)"
        text = f"has no IPv6 rule, but {_named(with_ipv6, 'source')} an IPv6 address: that traffic is not mirrored"
        found.append(Answer(Outcome.WARNING, about, text, remedy))
    if 4 not in versions:
        remedy = "add the same rules with IPv4 networks (0.0.0.0/0)"
        found.append(Answer(Outcome.WARNING, about, "has no IPv4 rule: IPv4 traffic is not mirrored", remedy))
    return found


def both_directions(filter_: Filter) -> bool:
    return {rule.direction for rule in filter_.rules if rule.accept} == set(Direction)


def doors(
    target: str, place: Place, origins: Sequence[Origin], groups: Mapping[str, Sequence[Permission]]
) -> list[Answer]:
    """Do the target's security groups admit UDP 4789 from every source?"""
    return [_door(f"target {target}", door, origins, groups) for door in place.doors]


def _door(about: str, door: Door, origins: Sequence[Origin], groups: Mapping[str, Sequence[Permission]]) -> Answer:
    named = f"security group {', '.join(door.groups)} of {_short(door.owner)}"
    unread = [group for group in door.groups if group not in groups]
    if unread:
        remedy = f"look at its inbound rules: UDP {VXLAN_PORT} from the sources must be allowed"
        return Answer(Outcome.WARNING, about, f"{named}: {', '.join(unread)} could not be read", remedy)
    inbound = [rule for group in door.groups for rule in groups[group] if _is_vxlan(rule)]
    shut = [origin for origin in origins if not any(_admits(rule, origin, door) for rule in inbound)]
    if not shut:
        return Answer(Outcome.OK, about, f"{named} admits UDP {VXLAN_PORT} from {_all(origins)}")
    lists = sorted({prefix for rule in inbound for prefix in rule.lists})
    if lists:
        remedy = f"see that {', '.join(lists)} holds the sources' addresses"
        text = f"{named} admits UDP {VXLAN_PORT} by a prefix list, which checkup does not read"
        return Answer(Outcome.WARNING, about, text, remedy)
    addresses = _some([origin.address for origin in shut])
    remedy = (
        f"aws ec2 authorize-security-group-ingress --group-id {door.groups[0]} --protocol udp --port {VXLAN_PORT} "
        "--cidr NETWORK-OF-THE-SOURCES"
    )
    text = f"{named} drops UDP {VXLAN_PORT} from {len(shut)} of {counted(len(origins), 'source')} ({addresses})"
    return Answer(Outcome.FAILED, about, text, remedy)


def _is_vxlan(rule: Permission) -> bool:
    if rule.protocol not in _UDP:
        return False
    return rule.ports is None or rule.protocol == "-1" or rule.ports[0] <= VXLAN_PORT <= rule.ports[1]


def _admits(rule: Permission, origin: Origin, door: Door) -> bool:
    if door.sees_groups and set(rule.groups) & set(origin.groups):
        return True
    if set(rule.groups) & set(door.through):
        return True
    return any(ip_address(origin.address) in ip_network(network, strict=False) for network in rule.networks)


def routes(target: str, place: Place, origins: Sequence[Origin], tables: Mapping[str, Sequence[Route]]) -> list[Answer]:
    """Does every source subnet have a route to the target: within its VPC, by peering or by a transit gateway?"""
    about = f"target {target}"
    subnets = sorted({(origin.subnet, origin.vpc) for origin in origins})
    away = [subnet for subnet, vpc in subnets if vpc != place.vpc]
    found = []
    if len(away) < len(subnets):
        text = (
            f"{counted(len(subnets) - len(away), 'source subnet')} in the target's own VPC {place.vpc}: no route needed"
        )
        found.append(Answer(Outcome.OK, about, text))
    ways: dict[str, list[str]] = {}
    for subnet in away:
        fault, via = _way(place, tables.get(subnet))
        if fault:
            found.append(_no_way(about, subnet, place, fault))
        else:
            ways.setdefault(via, []).append(subnet)
    for via, reached in sorted(ways.items()):
        found.append(Answer(Outcome.OK, about, f"{_named(reached, 'source subnet')} a route by {via}"))
    return found


def _way(place: Place, table: Sequence[Route] | None) -> tuple[str, str]:
    """What stands in the way, or by what the target is reached."""
    if table is None:
        return "its route table could not be read", ""
    via = []
    for network in place.networks:
        route = _longest(table, ip_network(network, strict=False))
        if route is None:
            return f"no route to {network}", ""
        if not route.active:
            return f"the route to {network} by {route.via} is a black hole", ""
        if not route.via.startswith(("pcx-", "tgw-", "vpce-")):
            return f"the route to {network} leads to {route.via}", ""
        via.append(route.via)
    return "", ", ".join(dict.fromkeys(via))


def _longest(table: Sequence[Route], network: IPv4Network | IPv6Network) -> Route | None:
    """The most specific route that covers a network."""
    best: tuple[int, Route] | None = None
    for route in table:
        destination = ip_network(route.destination, strict=False)
        covers = destination.version == network.version and destination.supernet_of(network)  # type: ignore[arg-type]
        if covers and (best is None or destination.prefixlen > best[0]):
            best = destination.prefixlen, route
    return best[1] if best else None


def _no_way(about: str, subnet: str, place: Place, fault: str) -> Answer:
    remedy = f"add a route by VPC peering or a transit gateway to the route table of {subnet}, and one back"
    return Answer(Outcome.FAILED, about, f"source subnet {subnet} does not reach VPC {place.vpc}: {fault}", remedy)


def types(instance_types: Mapping[str, int], unsupported: Collection[str]) -> list[Answer]:
    """Instance types (with how many of each) that AWS does not list as sources. A hint: EC2's own answer decides."""
    about = "instance types"
    found = [
        Answer(
            Outcome.WARNING,
            about,
            f"{name} ({counted(count, 'instance')}) is not among the types that AWS lists as mirror sources",
            "leave these instances out by `except`, or change their type; EC2's answer decides, not this list",
        )
        for name, count in sorted(instance_types.items())
        if name in unsupported
    ]
    if found:
        return list(found)
    if not instance_types:
        return [Answer(Outcome.WARNING, about, "the policy selects no instance", "see `mirrorctl explain INSTANCE`")]
    return [
        Answer(Outcome.OK, about, f"{counted(len(instance_types), 'type')} of the selected instances can be mirrored")
    ]


def permission(action: str, on: str, refused: Refused | None) -> Answer:
    """What a dry run said. It speaks of the credentials that were used, not of the stack's own roles."""
    if refused is None:
        return Answer(Outcome.OK, "permissions", f"{action} on {on} is allowed (dry run)")
    if refused.code == "UnauthorizedOperation":
        remedy = f"allow {action} to these credentials; the stack's functions have roles of their own"
    else:
        remedy = "correct what the answer names, then run checkup again"
    return Answer(Outcome.FAILED, "permissions", f"{action} on {on}: {refused.code}: {refused.message}", remedy)


def wrong(answers: Sequence[Answer]) -> bool:
    return any(answer.outcome is Outcome.FAILED for answer in answers)


def counted(number: int, noun: str) -> str:
    """`1 session`, `2,000 sessions`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _all(origins: Sequence[Origin]) -> str:
    return "the source" if len(origins) == 1 else f"all {len(origins):,} sources"


def _named(names: Sequence[str], noun: str) -> str:
    """`2 sources (a, b) have`, `source a has`."""
    return f"{noun} {names[0]} has" if len(names) == 1 else f"{len(names):,} {noun}s ({_some(names)}) have"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN:,} more"


def _short(resource: str) -> str:
    """An ARN's telling part: `net/name/id` of a load balancer."""
    return resource.partition("loadbalancer/")[2] or resource
