"""EC2 as the control plane sees it: describe answers made plain, and the few writes.

Everything is read in pages, by filters where a scope is known (an unknown id in a filter is merely absent, where one in
an id list fails the call), and never by `tag:` filters, which are not documented for mirroring's resources. Whether a
target would get its packets is asked here too: a session with a dead target has no state that would say so.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import batched
from typing import Any

from mirroring.clients import WRITE_ATTEMPTS, Meter, call, client, pages
from mirroring.model import (
    VXLAN_PORT,
    Direction,
    Filter,
    Health,
    Instance,
    Interface,
    Refused,
    Rule,
    Session,
    Tags,
    Target,
    TargetKind,
)
from mirroring.support import sources_per_target

type Raw = Mapping[str, Any]  # as botocore gives it

PAGE = 1000  # most that EC2 takes; without any, EC2 counts the call against a bucket half as large
VALUES = 200  # of one filter

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
_ALLOWED = "DryRunOperation"


@dataclass(frozen=True)
class _Condition:
    """Of what is behind a target."""

    health: Health
    why: str = ""
    capacity: int | None = None


class Ec2:
    """`ec2` reads, `writer` writes: a client of one attempt, so that our budget decides when to try again."""

    def __init__(self, ec2: Any, elb: Any, writer: Any = None) -> None:
        self._ec2 = ec2
        self._elb = elb
        self._writer = ec2 if writer is None else writer
        self._meter = Meter(self._ec2, self._elb, self._writer)
        self._account = ""  # ours, as soon as an instance or a session has told it

    @property
    def calls(self) -> int:
        """Requests sent, botocore's own retries included."""
        return self._meter.calls

    # Reading

    def instances(self, ids: Collection[str] | None) -> dict[str, Instance]:
        """Those that exist, with their interfaces; None asks for all of the Region."""
        managed = [{"Name": "requester-managed", "Values": ["true"]}]
        if ids is None:
            reservations = self._list("DescribeInstances", "Reservations")
            interfaces = self._list("DescribeNetworkInterfaces", "NetworkInterfaces", managed)
        else:
            reservations = self._by("DescribeInstances", "Reservations", "instance-id", ids)
            interfaces = self._by(
                "DescribeNetworkInterfaces", "NetworkInterfaces", "attachment.instance-id", ids, managed
            )
        # The reservations first: an interface attached meanwhile must not pass for one that nobody else manages.
        found = list(reservations)
        others = {raw["NetworkInterfaceId"] for raw in interfaces}
        for reservation in found:
            self._account = reservation.get("OwnerId") or self._account
        return {raw["InstanceId"]: _instance(raw, others) for one in found for raw in one.get("Instances", ())}

    def sessions(self, *, interfaces: Collection[str] = (), instances: Collection[str] = ()) -> list[Session]:
        """On these interfaces, and those whose description names one of these instances; of neither any: all."""
        what = ("DescribeTrafficMirrorSessions", "TrafficMirrorSessions")
        if interfaces or instances:
            raws = [
                *self._by(*what, "network-interface-id", interfaces),
                *self._by(*what, "description", instances),
            ]
        else:
            raws = list(self._list(*what))
        for raw in raws:
            self._account = raw.get("OwnerId") or self._account
        return list({raw["TrafficMirrorSessionId"]: _session(raw) for raw in raws}.values())

    def targets(self, ids: Collection[str] | None) -> dict[str, Target]:
        """Those that exist, with their health; None asks for all that are visible, without it."""
        what = ("DescribeTrafficMirrorTargets", "TrafficMirrorTargets")
        if ids is None:
            return {raw["TrafficMirrorTargetId"]: _target(raw) for raw in self._list(*what)}
        found = [(_target(raw), raw.get("OwnerId", "")) for raw in self._by(*what, "traffic-mirror-target-id", ids)]
        conditions = self._conditions([target for target, owner in found if not self._is_foreign(owner)])
        return {target.id: self._judged(target, owner, conditions) for target, owner in found}

    def filters(self, ids: Collection[str]) -> dict[str, Filter]:
        """Those that exist, with their rules."""
        raws = self._by("DescribeTrafficMirrorFilters", "TrafficMirrorFilters", "traffic-mirror-filter-id", ids)
        return {raw["TrafficMirrorFilterId"]: _filter(raw) for raw in raws}

    # Writing

    def create(self, session: Session, token: str) -> Session:
        """The session as AWS made it. The same token makes no second one."""
        answer = self._write("CreateTrafficMirrorSession", **_creation(session), ClientToken=token)
        return _as_answered(answer, session.tags)

    def modify(self, before: Session, after: Session) -> Session:
        """Only what differs is sent; tags are `retag`'s."""
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
        if removed:
            changes["RemoveFields"] = removed
        if not changes:
            return before
        answer = self._write("ModifyTrafficMirrorSession", TrafficMirrorSessionId=before.id, **changes)
        return _as_answered(answer, before.tags)

    def retag(self, before: Session, after: Session) -> None:
        """The tags of `after` instead of those of `before`."""
        new = {key: value for key, value in after.tags.items() if before.tags.get(key) != value}
        if new:
            self.put_tags(before.id, new)
        if gone := before.tags.keys() - after.tags.keys():
            self.remove_tags(before.id, gone)

    def delete(self, session: Session) -> None:
        self._write("DeleteTrafficMirrorSession", TrafficMirrorSessionId=session.id)

    def put_tags(self, resource: str, tags: Tags) -> None:
        self._write("CreateTags", Resources=[resource], Tags=_tag_list(tags))

    def remove_tags(self, resource: str, keys: Collection[str]) -> None:
        self._write("DeleteTags", Resources=[resource], Tags=[{"Key": key} for key in sorted(keys)])

    # Asking whether a write would be allowed

    def allowed(self, operation: str, **arguments: Any) -> Refused | None:
        """A dry run: nothing, or why AWS would refuse."""
        try:
            self._write(operation, **arguments, DryRun=True)
        except Refused as refused:
            if refused.code != _ALLOWED:
                return refused
        return None

    def may_create(self, session: Session) -> Refused | None:
        return self.allowed("CreateTrafficMirrorSession", **_creation(session))

    def may_tag(self, instance: str, key: str) -> Refused | None:
        return self.allowed("CreateTags", Resources=[instance], Tags=[{"Key": key, "Value": ""}])

    # What is behind a target

    def _is_foreign(self, owner: str) -> bool:
        return bool(owner and self._account and owner != self._account)

    def _judged(self, target: Target, owner: str, conditions: Mapping[str, _Condition]) -> Target:
        condition = conditions.get(target.resource)
        if condition is None or (condition.health is Health.GONE and owner != self._account):
            condition = _Condition(
                Health.UNKNOWN,
                f"account {owner} owns {target.id}: whether its packets arrive can only be seen there",
            )
        return replace(target, health=condition.health, why=condition.why, capacity=condition.capacity)

    def _conditions(self, targets: Iterable[Target]) -> dict[str, _Condition]:
        """By resource, of these targets."""
        by_kind: dict[TargetKind, list[str]] = {kind: [] for kind in TargetKind}
        for target in targets:
            by_kind[target.kind].append(target.resource)
        return {
            **self._interfaces(by_kind[TargetKind.INTERFACE]),
            **{name: self._endpoint(name) for name in by_kind[TargetKind.ENDPOINT]},
            **{arn: self._balancer(arn) for arn in by_kind[TargetKind.NLB]},
        }

    def _interfaces(self, ids: Collection[str]) -> dict[str, _Condition]:
        raws = {
            raw["NetworkInterfaceId"]: raw
            for raw in self._by("DescribeNetworkInterfaces", "NetworkInterfaces", "network-interface-id", ids)
        }
        holders = {_holder(raw) for raw in raws.values()} - {""}
        reservations = self._by("DescribeInstances", "Reservations", "instance-id", holders)
        instances = {raw["InstanceId"]: raw for one in reservations for raw in one.get("Instances", ())}
        return {name: _interface_condition(name, raws.get(name), instances) for name in ids}

    def _endpoint(self, name: str) -> _Condition:
        try:
            answer = call(self._ec2, "DescribeVpcEndpoints", VpcEndpointIds=[name])
        except Refused as refused:
            if not refused.code.endswith(".NotFound"):
                raise
            return _endpoint_condition(name, "deleted")
        (raw,) = answer["VpcEndpoints"]
        return _endpoint_condition(name, raw["State"].lower())  # AWS spells it both ways

    def _balancer(self, arn: str) -> _Condition:
        name = _short(arn)
        try:
            listeners = list(pages(self._elb, "DescribeListeners", "Listeners", LoadBalancerArn=arn))
        except Refused as refused:
            if not refused.code.startswith("LoadBalancerNotFound"):
                raise
            return _Condition(
                Health.GONE, f"load balancer {name} does not exist: make a new target and name it in the policy"
            )
        listening = [raw for raw in listeners if raw["Port"] == VXLAN_PORT and raw["Protocol"] in ("UDP", "TCP_UDP")]
        if not listening:
            return _Condition(
                Health.NO_LISTENER,
                f"load balancer {name} has no UDP listener on port {VXLAN_PORT}, so nothing arrives: add one",
            )
        groups = sorted({group for raw in listening for group in _groups(raw)})
        states = [state for group in groups for state in self._states(group)]
        if "healthy" in states:
            return _Condition(Health.HEALTHY)
        return _Condition(
            Health.UNHEALTHY,
            f"none of the {len(states)} workers behind load balancer {name} is healthy{_counted(states)}: "
            "look at their health check and the group's size",
        )

    def _states(self, group: str) -> list[str]:
        answer = call(self._elb, "DescribeTargetHealth", TargetGroupArn=group)  # elbv2 gives all at once
        return [raw["TargetHealth"]["State"] for raw in answer["TargetHealthDescriptions"]]

    # Calls

    def _list(self, operation: str, key: str, filters: Collection[Raw] = ()) -> Iterator[dict[str, Any]]:
        arguments = {"Filters": list(filters)} if filters else {}
        return pages(self._ec2, operation, key, MaxResults=PAGE, **arguments)

    def _by(
        self, operation: str, key: str, name: str, values: Collection[str], filters: Collection[Raw] = ()
    ) -> Iterator[dict[str, Any]]:
        """What a filter finds, in as many calls as its values need: none at all without a value."""
        for chunk in batched(sorted(set(values)), VALUES, strict=False):
            yield from self._list(operation, key, [{"Name": name, "Values": list(chunk)}, *filters])

    def _write(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return call(self._writer, operation, **arguments)


def connect(*, profile: str | None = None, region: str | None = None) -> Ec2:
    """EC2 as the user's settings reach it."""

    def of(service: str, **options: Any) -> Any:
        return client(service, profile=profile, region=region, **options)

    return Ec2(of("ec2"), of("elbv2"), of("ec2", attempts=WRITE_ATTEMPTS))


# Widening


def _tags(raw: Raw) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in raw.get("Tags", ())}


def _tag_list(tags: Tags) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _instance(raw: Raw, managed: Collection[str]) -> Instance:
    name = raw["InstanceId"]
    attached = [one for one in raw.get("NetworkInterfaces", ()) if _is_attached(one)]
    if len(attached) > 1:
        attached.sort(key=_position)
    return Instance(
        id=name,
        state=raw["State"]["Name"],
        type=raw["InstanceType"],
        vpc=raw.get("VpcId", ""),
        subnet=raw.get("SubnetId", ""),
        tags=_tags(raw),
        interfaces=tuple(_interface(one, name, managed) for one in attached),
    )


def _is_attached(raw: Raw) -> bool:
    """Or about to be. One that is being detached is no source any more."""
    return raw["Attachment"].get("Status") not in ("detaching", "detached")


def _position(raw: Raw) -> tuple[int, int]:
    """Device indexes begin anew on each network card; the primary interface is the first of the first."""
    attachment = raw["Attachment"]
    return attachment.get("NetworkCardIndex", 0), attachment["DeviceIndex"]


def _interface(raw: Raw, instance: str, managed: Collection[str]) -> Interface:
    name = raw["NetworkInterfaceId"]
    return Interface(
        id=name,
        instance=instance,
        device_index=raw["Attachment"]["DeviceIndex"],
        vpc=raw.get("VpcId", ""),
        subnet=raw.get("SubnetId", ""),
        kind=raw.get("InterfaceType", "interface"),
        requester_managed=name in managed,
    )


def _session(raw: Raw) -> Session:
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


def _as_answered(answer: Raw, tags: Tags) -> Session:
    """A write's answer, which need not repeat the tags."""
    session = _session(answer["TrafficMirrorSession"])
    return session if session.tags else replace(session, tags=tags)


def _target(raw: Raw) -> Target:
    kind = TargetKind(raw["Type"])
    return Target(id=raw["TrafficMirrorTargetId"], kind=kind, resource=raw[_RESOURCES[kind]], tags=_tags(raw))


def _filter(raw: Raw) -> Filter:
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


# Narrowing


def _creation(session: Session) -> dict[str, Any]:
    """Parameters of CreateTrafficMirrorSession."""
    parameters = {
        parameter: getattr(session, attribute)
        for attribute, parameter, _ in _SETTINGS
        if getattr(session, attribute) not in _UNSET
    }
    tags = {"ResourceType": "traffic-mirror-session", "Tags": _tag_list(session.tags)}
    return {**parameters, "NetworkInterfaceId": session.interface, "TagSpecifications": [tags]}


# Judging what is behind a target


def _holder(raw: Raw) -> str:
    """The instance that an interface is attached to, or nothing."""
    attachment = raw.get("Attachment", {})
    return attachment.get("InstanceId", "") if attachment.get("Status") == "attached" else ""


def _interface_condition(name: str, raw: Raw | None, instances: Mapping[str, Raw]) -> _Condition:
    if raw is None:
        return _Condition(Health.GONE, f"interface {name} does not exist: make a new target and name it in the policy")
    holder = instances.get(_holder(raw))
    if holder is None:
        why = f"interface {name} is not attached to an instance: attach it to the one that listens"
        return _Condition(Health.UNHEALTHY, why, sources_per_target(""))
    capacity = sources_per_target(holder["InstanceType"])
    state = holder["State"]["Name"]
    if state != "running":
        why = f"instance {holder['InstanceId']}, which has interface {name}, is {state}: start it"
        return _Condition(Health.UNHEALTHY, why, capacity)
    return _Condition(Health.HEALTHY, capacity=capacity)


def _endpoint_condition(name: str, state: str) -> _Condition:
    if state == "available":
        return _Condition(Health.HEALTHY)
    if state in ("deleting", "deleted"):
        return _Condition(
            Health.GONE, f"endpoint {name} does not exist any more: make a new target and name it in the policy"
        )
    return _Condition(
        Health.UNHEALTHY,
        f"endpoint {name} is {state}, not available: accept it in the endpoint service, or make a new one",
    )


def _groups(listener: Raw) -> Iterator[str]:
    """Target groups that a listener forwards to."""
    for action in listener.get("DefaultActions", ()):
        forward = action.get("ForwardConfig", {}).get("TargetGroups", ())
        yield from (group["TargetGroupArn"] for group in forward)
        if not forward and "TargetGroupArn" in action:
            yield action["TargetGroupArn"]


def _short(arn: str) -> str:
    """arn:aws:elasticloadbalancing:…:loadbalancer/net/name/id → name"""
    return arn.split("/")[-2] if arn.count("/") >= 2 else arn


def _counted(states: Collection[str]) -> str:
    counts = [f"{list(states).count(state)} {state}" for state in sorted(set(states))]
    return f" ({', '.join(counts)})" if counts else ""
