"""Reads what a mirrored packet passes on its way and has `diagnosis` judge it: `mirrorctl checkup`.

Only looks and dry runs; nothing is changed. A call that is refused is an answer too: the rest goes on without it.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mirroring import diagnosis
from mirroring.backends import receivers
from mirroring.clients import call
from mirroring.describe import Raw, filtered
from mirroring.diagnosis import Answer, Balancer, Door, Origin, Outcome, Permission, Place, Route
from mirroring.ec2 import Ec2
from mirroring.model import (
    Filter,
    Health,
    Instance,
    Refused,
    Target,
    TargetKind,
    Wish,
)
from mirroring.permissions import sample
from mirroring.policy import Policy, references
from mirroring.reconcile import Decision
from mirroring.support import may_be_source


@dataclass(frozen=True)
class Facts:
    """What was read about the network between sources and targets."""

    origins: tuple[Origin, ...] = ()
    places: Mapping[str, Place] = field(default_factory=dict)  # by target, as far as they could be read
    balancers: Mapping[str, Balancer] = field(default_factory=dict)
    groups: Mapping[str, tuple[Permission, ...]] = field(default_factory=dict)  # inbound rules by security group
    tables: Mapping[str, tuple[Route, ...]] = field(default_factory=dict)  # by subnet
    refused: tuple[Refused, ...] = ()


def check_network(decision: Decision, facts: Facts) -> list[Answer]:
    """Everything that stands in the way of packets, filter by filter and target by target."""
    sources, world, wishes = decision.in_force.policy.sources, decision.world, decision.wanted.wishes
    source_of = {interface: wish.source for interface, wish in wishes.items()}
    found = diagnosis.unreadable(facts.refused)
    for name in dict.fromkeys(source.filter for source in sources):
        if name in world.filters:
            users = {source.name for source in sources if source.filter == name}
            found += diagnosis.rules(world.filters[name], _of(users, facts.origins, source_of))
    for name in dict.fromkeys(target for source in sources for target in source.targets):
        if name in world.targets:
            users = {source.name for source in sources if name in source.targets}
            filters = [world.filters.get(source.filter) for source in sources if source.name in users]
            both = any(one is not None and diagnosis.both_directions(one) for one in filters)
            origins = _of(users, facts.origins, source_of)
            found += _target(world.targets[name], origins, facts, both_directions=both)
    types = Counter(wish.instance_type for wish in {wish.instance: wish for wish in wishes.values()}.values())
    found += diagnosis.types(types, {name for name in types if not may_be_source(name)})
    return found


def _of(sources: Collection[str], origins: Iterable[Origin], source_of: Mapping[str, str]) -> list[Origin]:
    """Those whose packets these sources mirror."""
    return [origin for origin in origins if source_of.get(origin.interface) in sources]


def check_references(decision: Decision, vpcs: Collection[str] | None, owner: str) -> list[Answer]:
    """Do the things exist that the policy names? `vpcs`: those that do, or None if it could not be read."""
    found = []
    things: Mapping[str, Mapping[str, Target | Filter]]
    things = {"target": decision.world.targets, "filter": decision.world.filters}
    for one in references(decision.in_force.policy):
        if one.kind in things:
            thing = things[one.kind].get(one.id)
            found += diagnosis.reference(one.kind, one.id, None if thing is None else thing.tags, owner)
        elif one.kind == "vpc" and vpcs is not None and one.id not in vpcs:
            remedy = "correct it; `aws ec2 describe-vpcs` lists what there is"
            text = f"{one.path} names a VPC that does not exist in this account and Region"
            found.append(Answer(Outcome.FAILED, one.id, text, remedy))
        elif one.kind == "vpc" and vpcs is not None:
            found.append(Answer(Outcome.OK, one.id, "exists"))
    return found


def probe(cloud: Ec2, decision: Decision, owner: str) -> list[Answer]:
    """Dry runs of what the policy would have done, one for each source and target, and each tag key of autotag."""
    found = []
    for wish, target in _samples(decision):
        refused = cloud.may_create(sample(wish, target, owner))
        on = f"{wish.interface} (source {wish.source}) to {target} through {wish.filter}"
        found.append(diagnosis.permission("ec2:CreateTrafficMirrorSession", on, refused))
    instance = next((one for one in decision.world.instances.values() if one.state == "running"), None)
    for key in dict.fromkeys(one.id for one in references(decision.in_force.policy) if one.kind == "tag"):
        if instance is not None:
            on = f"{instance.id}, key {key}"
            found.append(diagnosis.permission("ec2:CreateTags", on, cloud.may_tag(instance.id, key)))
    tried = {wish.source for wish, _ in _samples(decision)}
    for source in decision.in_force.policy.sources:
        if source.name not in tried:
            text = f"source {source.name}: no dry run, as it selects no interface or its target or filter is missing"
            found.append(Answer(Outcome.WARNING, "permissions", text, "see the other lines, or `mirrorctl explain`"))
    return found


def _samples(decision: Decision) -> list[tuple[Wish, str]]:
    """One wish for each source and target of it."""
    wishes = decision.wanted.wishes
    first: dict[str, Wish] = {}
    for interface in sorted(wishes):
        first.setdefault(wishes[interface].source, wishes[interface])
    return [
        (first[source.name], target)
        for source in decision.in_force.policy.sources
        if source.name in first and source.filter in decision.world.filters
        for target in source.targets
        if target in decision.world.targets
    ]


def _target(target: Target, origins: list[Origin], facts: Facts, *, both_directions: bool) -> list[Answer]:
    found = [diagnosis.health(target)]
    if target.id in facts.balancers:
        found += diagnosis.balancer(target.id, facts.balancers[target.id], both_directions=both_directions)
    place = facts.places.get(target.id)
    if place is not None and origins:
        found += diagnosis.doors(target.id, place, origins, facts.groups)
        found += diagnosis.routes(target.id, place, origins, facts.tables)
    return found


class Reader:
    """Asks EC2 and the load balancers for `Facts`."""

    def __init__(self, ec2: Any, elb: Any) -> None:
        self._ec2 = ec2
        self._elb = elb
        self._refused: dict[tuple[str, str], Refused] = {}

    def facts(self, decision: Decision) -> Facts:
        origins = tuple(map(_origin, self._by("network-interface-id", decision.wanted.wishes, *_INTERFACES)))
        named = {target for source in decision.in_force.policy.sources for target in source.targets}
        places: dict[str, Place] = {}
        balancers: dict[str, Balancer] = {}
        for name in sorted(named & decision.world.targets.keys()):
            target = decision.world.targets[name]
            if target.health in (Health.GONE, Health.UNKNOWN):
                continue
            place, balancer = self._look(target, decision.world.instances)
            places |= {name: place} if place else {}
            balancers |= {name: balancer} if balancer else {}
        groups = {group for place in places.values() for door in place.doors for group in door.groups}
        return Facts(
            origins,
            places,
            balancers,
            groups={
                raw["GroupId"]: tuple(map(_permission, raw["IpPermissions"]))
                for raw in self._by("group-id", groups, "DescribeSecurityGroups", "SecurityGroups")
            },
            tables=self._tables(origins),
            refused=tuple(self._refused.values()),
        )

    def vpcs(self, policy: Policy) -> set[str] | None:
        """Those of the policy that exist; None if it could not be read."""
        ids = {one.id for one in references(policy) if one.kind == "vpc"}
        before = len(self._refused)
        found = {raw["VpcId"] for raw in self._by("vpc-id", ids, "DescribeVpcs", "Vpcs")}
        return found if len(self._refused) == before else None

    def _look(self, target: Target, instances: Mapping[str, Instance]) -> tuple[Place | None, Balancer | None]:
        match target.kind:
            case TargetKind.NLB:
                return self._balancer(target.resource)
            case TargetKind.INTERFACE:
                raws = self._by("network-interface-id", [target.resource], *_INTERFACES)
                return next((_place_of_interface(raw) for raw in raws), None), None
            case TargetKind.ENDPOINT:
                found = self._by("vpc-endpoint-id", [target.resource], "DescribeVpcEndpoints", "VpcEndpoints")
                return next((Place(raw["VpcId"], self._networks(raw["SubnetIds"])) for raw in found), None), None

    def _balancer(self, arn: str) -> tuple[Place | None, Balancer | None]:
        found = self._ask(self._elb, "DescribeLoadBalancers", LoadBalancerArns=[arn]).get("LoadBalancers")
        if not found:
            return None, None
        raw = found[0]
        own = tuple(raw.get("SecurityGroups") or ())
        targets = self._target_groups(arn)
        place = Place(
            raw["VpcId"],
            self._networks([zone["SubnetId"] for zone in raw["AvailabilityZones"]]),
            doors=(*_door_of(arn, own), *self._workers(targets.values(), own)),
        )
        attributes = self._attributes(
            self._ask(self._elb, "DescribeLoadBalancerAttributes", LoadBalancerArn=arn).get("Attributes")
        )
        if not attributes or not targets:
            return place, None
        of_groups = {
            name: self._attributes(
                self._ask(self._elb, "DescribeTargetGroupAttributes", TargetGroupArn=group).get("Attributes")
            )
            for name, group in targets.items()
        }
        everywhere = attributes.get(_CROSS_ZONE) == "true"
        return place, Balancer(
            cross_zone=all(
                one.get(_CROSS_ZONE, "") == "true" or (everywhere and one.get(_CROSS_ZONE) != "false")
                for one in of_groups.values()
            ),
            sticky={
                name: one.get("stickiness.type", "") if one.get("stickiness.enabled") == "true" else ""
                for name, one in of_groups.items()
                if one
            },
        )

    def _target_groups(self, arn: str) -> dict[str, str]:
        """Name and ARN of the groups that get mirrored packets."""
        arns = receivers(self._ask(self._elb, "DescribeListeners", LoadBalancerArn=arn).get("Listeners", ()))
        if not arns:
            return {}
        groups = self._ask(self._elb, "DescribeTargetGroups", TargetGroupArns=arns).get("TargetGroups", ())
        return {raw["TargetGroupName"]: raw["TargetGroupArn"] for raw in groups}

    def _workers(self, groups: Iterable[str], through: tuple[str, ...]) -> Iterator[Door]:
        """The security groups of the instances behind an NLB, each set of them once."""
        ids = {
            raw["Target"]["Id"]
            for group in groups
            for raw in self._ask(self._elb, "DescribeTargetHealth", TargetGroupArn=group).get(
                "TargetHealthDescriptions", ()
            )
        }
        instances = {name for name in ids if name.startswith("i-")}
        reservations = self._by("instance-id", instances, "DescribeInstances", "Reservations")
        seen: dict[tuple[str, ...], str] = {}
        for reservation in reservations:
            for raw in reservation.get("Instances", ()):
                own = _groups_of_primary(raw)
                seen.setdefault(own, raw["InstanceId"])
        yield from (Door(name, own, sees_groups=False, through=through) for own, name in sorted(seen.items()) if own)

    def _networks(self, subnets: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted(raw["CidrBlock"] for raw in self._by("subnet-id", subnets, "DescribeSubnets", "Subnets")))

    def _tables(self, origins: Iterable[Origin]) -> dict[str, tuple[Route, ...]]:
        """The routes of each source subnet: its own table's, or else its VPC's main one's."""
        subnets = {origin.subnet: origin.vpc for origin in origins}
        of_subnet: dict[str, tuple[Route, ...]] = {}
        of_vpc: dict[str, tuple[Route, ...]] = {}
        for raw in self._by("vpc-id", set(subnets.values()), "DescribeRouteTables", "RouteTables"):
            routes = tuple(route for one in raw["Routes"] for route in _route(one))
            for association in raw["Associations"]:
                if association.get("Main"):
                    of_vpc[raw["VpcId"]] = routes
                if subnet := association.get("SubnetId"):
                    of_subnet[subnet] = routes
        chosen = {subnet: of_subnet.get(subnet, of_vpc.get(vpc)) for subnet, vpc in subnets.items()}
        return {subnet: routes for subnet, routes in chosen.items() if routes is not None}

    def _attributes(self, raws: Iterable[Raw] | None) -> dict[str, str]:
        return {raw["Key"]: raw["Value"] for raw in raws or ()}

    def _by(self, name: str, values: Collection[str], operation: str, key: str) -> list[Raw]:
        """What a filter finds; nothing of an operation that is refused, which is noted."""
        try:
            return list(filtered(self._ec2, operation, key, name, values))
        except Refused as refused:
            self._note(refused)
            return []

    def _ask(self, client: Any, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return call(client, operation, **arguments)
        except Refused as refused:
            self._note(refused)
            return {}

    def _note(self, refused: Refused) -> None:
        self._refused.setdefault((refused.operation, refused.code), refused)


_CROSS_ZONE = "load_balancing.cross_zone.enabled"
_INTERFACES = ("DescribeNetworkInterfaces", "NetworkInterfaces")


def _groups_of_primary(instance: Raw) -> tuple[str, ...]:
    """Of the interface that an NLB sends to."""
    for interface in instance.get("NetworkInterfaces", ()):
        attachment = interface["Attachment"]
        if attachment["DeviceIndex"] == attachment.get("NetworkCardIndex", 0) == 0:
            return tuple(sorted(group["GroupId"] for group in interface["Groups"]))
    return ()


def _origin(raw: Raw) -> Origin:
    return Origin(
        raw["NetworkInterfaceId"],
        raw["VpcId"],
        raw["SubnetId"],
        raw["PrivateIpAddress"],
        groups=tuple(group["GroupId"] for group in raw.get("Groups", ())),
        ipv6=bool(raw.get("Ipv6Addresses")),
    )


def _place_of_interface(raw: Raw) -> Place:
    groups = tuple(group["GroupId"] for group in raw.get("Groups", ()))
    return Place(raw["VpcId"], (raw["PrivateIpAddress"],), tuple(_door_of(raw["NetworkInterfaceId"], groups)))


def _door_of(owner: str, groups: tuple[str, ...]) -> Iterator[Door]:
    if groups:
        yield Door(owner, groups)


def _permission(raw: Raw) -> Permission:
    ports = (raw["FromPort"], raw["ToPort"]) if "FromPort" in raw else None
    return Permission(
        raw["IpProtocol"],
        ports,
        networks=(
            *(one["CidrIp"] for one in raw.get("IpRanges", ())),
            *(one["CidrIpv6"] for one in raw.get("Ipv6Ranges", ())),
        ),
        groups=tuple(one["GroupId"] for one in raw.get("UserIdGroupPairs", ())),
        lists=tuple(one["PrefixListId"] for one in raw.get("PrefixListIds", ())),
    )


def _route(raw: Raw) -> Iterator[Route]:
    """A route to a network; one to a prefix list says nothing that can be judged here."""
    destination = raw.get("DestinationCidrBlock") or raw.get("DestinationIpv6CidrBlock")
    if destination:
        via = next((raw[key] for key in _VIA if raw.get(key)), "an unknown gateway")
        yield Route(destination, via, active=raw.get("State", "active") == "active")


_VIA = (
    "VpcPeeringConnectionId",
    "TransitGatewayId",
    "GatewayId",
    "NatGatewayId",
    "NetworkInterfaceId",
    "LocalGatewayId",
    "CarrierGatewayId",
    "EgressOnlyInternetGatewayId",
    "CoreNetworkArn",
)
