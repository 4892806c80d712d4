"""An EC2 in memory: the reconciler's `Cloud` on the strict model of Traffic Mirroring, with instances as plain values.

Quick enough for property tests; test_fake_cloud.py drives it and the real `Ec2` through the same steps. Faults,
missing permissions, delayed visibility and the log of calls are the model's:

    cloud = FakeCloud()
    target, rules = cloud.nlb_target(), cloud.filter()
    web = cloud.launch(tags={"mirror": "yes"})
    cloud.model.fail("DescribeInstances", "RequestLimitExceeded", when=lambda call: "NextToken" in call)
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import batched, count
from typing import Any

from lab.cloud.faults import ApiError
from lab.cloud.mirroring import NetworkInterface, Quotas, TrafficMirroring
from mirroring.model import (
    GROUP_TAG,
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
from mirroring.policy import load
from mirroring.store import InForce
from mirroring.support import sources_per_target

PAGE = 1000
VALUES = 200
RESOURCES = {
    TargetKind.INTERFACE: "NetworkInterfaceId",
    TargetKind.NLB: "NetworkLoadBalancerArn",
    TargetKind.ENDPOINT: "GatewayLoadBalancerEndpointId",
}
PARAMETERS = {
    "target": "TrafficMirrorTargetId",
    "filter": "TrafficMirrorFilterId",
    "number": "SessionNumber",
    "vni": "VirtualNetworkId",
    "packet_length": "PacketLength",
    "description": "Description",
}
REMOVABLE = {"vni": "virtual-network-id", "packet_length": "packet-length", "description": "description"}


class FakeCloud:
    def __init__(self, quotas: Quotas | None = None) -> None:
        self.model = TrafficMirroring(self, quotas=quotas)
        self.health: dict[str, Health] = {}  # of targets; those not named are healthy
        self._machines: dict[str, Instance] = {}
        self._holders: dict[str, Instance] = {}  # by interface
        self._loose: dict[str, Interface] = {}  # interfaces without an instance
        self._gone: set[str] = set()  # load balancers that were deleted
        self._serials = count(1)

    @property
    def machines(self) -> Mapping[str, Instance]:
        """What describe shows, terminated instances too until they vanish."""
        return self._machines

    @property
    def calls(self) -> int:
        return len(self.model.faults.calls)

    # What the model asks

    def interface(self, name: str) -> NetworkInterface | None:
        holder = self._holders.get(name)
        if holder is None:
            return NetworkInterface(name) if name in self._loose else None
        [found] = [interface for interface in holder.interfaces if interface.id == name]
        return NetworkInterface(name, holder.type, found.kind, found.requester_managed)

    def load_balancer(self, arn: str) -> bool:
        return arn not in self._gone

    def endpoint(self, name: str) -> bool:
        return name not in self._gone

    # What happens in the account

    def put(self, *instances: Instance) -> None:
        """Instances as they are from now on. An interface that none of them has any more is deleted."""
        for instance in instances:
            before = self._machines.get(instance.id)
            self._machines[instance.id] = instance
            self._holders.update({interface.id: instance for interface in instance.interfaces})
            for interface in before.interfaces if before else ():
                if interface.id not in {kept.id for kept in instance.interfaces}:
                    self._holders.pop(interface.id, None)
                    if interface.id not in self._loose:
                        self.model.interface_deleted(interface.id)

    def launch(
        self,
        n: int = 1,
        *,
        vpc: str = "vpc-1",
        subnet: str = "subnet-1",
        tags: Mapping[str, str] | None = None,
        type: str = "m5.large",  # noqa: A002  AWS's own word
        group: str = "",
        interfaces: int = 1,
    ) -> list[str]:
        bears = dict(tags or {}) | ({GROUP_TAG: group} if group else {})
        launched = []
        for serial in (next(self._serials) for _ in range(n)):
            name = f"i-{serial:017x}"
            held = tuple(
                Interface(f"eni-{serial:08x}{index:09x}", name, index, vpc, subnet) for index in range(interfaces)
            )
            launched.append(Instance(name, "running", type, vpc, subnet, bears, held))
        self.put(*launched)
        return [instance.id for instance in launched]

    def set_state(self, instances: Iterable[str], state: str) -> None:
        self.put(*(replace(self._machines[instance], state=state) for instance in instances))

    def start(self, instances: Iterable[str]) -> None:
        self.set_state(instances, "running")

    def stop(self, instances: Iterable[str]) -> None:
        self.set_state(instances, "stopped")

    def terminate(self, instances: Iterable[str]) -> None:
        """Their interfaces and the sessions on those go too; describe still shows them for an hour."""
        for instance in instances:
            bare = replace(self._machines[instance], state="terminated", vpc="", subnet="", interfaces=())
            self.put(bare)

    def vanish(self, instances: Iterable[str]) -> None:
        for instance in instances:
            self.put(replace(self._machines[instance], interfaces=()))
            del self._machines[instance]

    def tag(self, instances: Iterable[str], tags: Mapping[str, str]) -> None:
        self.put(*(replace(self._machines[name], tags={**self._machines[name].tags, **tags}) for name in instances))

    def untag(self, instances: Iterable[str], keys: Collection[str]) -> None:
        for found in [self._machines[name] for name in instances]:
            self.put(replace(found, tags={key: value for key, value in found.tags.items() if key not in keys}))

    def attach(
        self,
        instance: str,
        interface: str = "",
        *,
        device_index: int | None = None,
        kind: str = "interface",
        requester_managed: bool = False,
    ) -> str:
        """A further interface, new unless named; its id."""
        found = self._machines[instance]
        if device_index is None:
            device_index = 1 + max((held.device_index for held in found.interfaces), default=-1)
        interface = interface or f"eni-{next(self._serials):017x}"
        self._loose.pop(interface, None)
        held = Interface(interface, instance, device_index, found.vpc, found.subnet, kind, requester_managed)
        attached = sorted((*found.interfaces, held), key=lambda one: one.device_index)
        self.put(replace(found, interfaces=tuple(attached)))
        return interface

    def detach(self, interface: str, *, delete: bool = False) -> None:
        holder = self._holders[interface]
        [held] = [one for one in holder.interfaces if one.id == interface]
        if not delete:
            self._loose[interface] = held
        self.put(replace(holder, interfaces=tuple(one for one in holder.interfaces if one.id != interface)))

    def nlb_target(self, health: Health = Health.HEALTHY, tags: Mapping[str, str] | None = None) -> str:
        serial = next(self._serials)
        arn = f"arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/mirror-{serial}/{serial:016x}"
        return self._new_target({"NetworkLoadBalancerArn": arn}, health, tags)

    def endpoint_target(self, health: Health = Health.HEALTHY, tags: Mapping[str, str] | None = None) -> str:
        return self._new_target({"GatewayLoadBalancerEndpointId": f"vpce-{next(self._serials):017x}"}, health, tags)

    def eni_target(self, type: str = "m5.large", tags: Mapping[str, str] | None = None) -> str:  # noqa: A002
        [worker] = self.launch(type=type)
        return self._new_target({"NetworkInterfaceId": self._machines[worker].interfaces[0].id}, Health.HEALTHY, tags)

    def _new_target(self, resource: Mapping[str, str], health: Health, tags: Mapping[str, str] | None) -> str:
        bears = _specification("traffic-mirror-target", tags or {})
        made = self.model.perform("CreateTrafficMirrorTarget", {**resource, **bears})
        target: str = made["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
        self.health[target] = health
        return target

    def delete_load_balancer(self, target: str) -> None:
        """What is behind a target goes; the target stays and leads nowhere."""
        self._gone.update(self.model.targets[target].get(name, "") for name in RESOURCES.values())
        self.health[target] = Health.GONE

    def delete_target(self, target: str) -> None:
        self.model.perform("DeleteTrafficMirrorTarget", {"TrafficMirrorTargetId": target})

    def filter(
        self, ports: Sequence[int] = (80,), *, egress: bool = False, tags: Mapping[str, str] | None = None
    ) -> str:
        bears = _specification("traffic-mirror-filter", tags or {})
        made = self.model.perform("CreateTrafficMirrorFilter", bears)
        name: str = made["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
        rule = {"TrafficMirrorFilterId": name, "RuleAction": "accept", "Protocol": 6}
        rule |= {"SourceCidrBlock": "0.0.0.0/0", "DestinationCidrBlock": "0.0.0.0/0"}
        for number, port in enumerate(ports, 1):
            only = {"FromPort": port, "ToPort": port}
            ways = {"ingress": "DestinationPortRange"} | ({"egress": "SourcePortRange"} if egress else {})
            for direction, side in ways.items():
                place = {"TrafficDirection": direction, "RuleNumber": 100 * number, side: only}
                self.model.perform("CreateTrafficMirrorFilterRule", {**rule, **place})
        return name

    def somebody_creates(self, session: Session) -> Session:
        """Another tool's session, or one made by hand: no fault or missing permission hinders it."""
        made = self.model.perform("CreateTrafficMirrorSession", _creation(session))
        return _session(made["TrafficMirrorSession"])

    def somebody_modifies(self, session: str, **changes: Any) -> None:
        named = {PARAMETERS[attribute]: value for attribute, value in changes.items()}
        self.model.perform("ModifyTrafficMirrorSession", {"TrafficMirrorSessionId": session, **named})

    def somebody_deletes(self, session: str) -> None:
        self.model.perform("DeleteTrafficMirrorSession", {"TrafficMirrorSessionId": session})

    def all_sessions(self) -> list[Session]:
        """What there is, visible or not, without a call."""
        return [_session(raw) for raw in self.model.all_sessions()]

    # reconcile.Cloud

    def marked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        found = self._described(ids)
        if ids is None:
            managed = [one for instance in found for one in instance.interfaces if one.requester_managed]
            self._paged("DescribeNetworkInterfaces", len(managed), {})
        for chunk in batched(sorted(set(ids or ())), VALUES, strict=False):
            filters = {"Filters": [{"Name": "attachment.instance-id", "Values": list(chunk)}]}
            self._paged("DescribeNetworkInterfaces", 0, filters)
        return {instance.id: instance for instance in found}

    def unmarked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        return {
            instance.id: replace(
                instance, interfaces=tuple(replace(one, requester_managed=False) for one in instance.interfaces)
            )
            for instance in self._described(ids)
        }

    def _described(self, ids: Collection[str] | None) -> list[Instance]:
        if ids is None:
            self._paged("DescribeInstances", len(self._machines), {})
            return list(self._machines.values())
        for chunk in batched(sorted(set(ids)), VALUES, strict=False):
            filters = {"Filters": [{"Name": "instance-id", "Values": list(chunk)}]}
            self._paged("DescribeInstances", len(chunk), filters)
        return [self._machines[name] for name in ids if name in self._machines]

    def sessions(self, *, interfaces: Collection[str] = (), instances: Collection[str] = ()) -> list[Session]:
        if not interfaces and not instances:
            raws = list(self._listed("DescribeTrafficMirrorSessions", "TrafficMirrorSessions", {}))
        else:
            raws = [
                raw
                for name, values in (("network-interface-id", interfaces), ("description", instances))
                for raw in self._by("DescribeTrafficMirrorSessions", "TrafficMirrorSessions", name, values)
            ]
        return list({raw["TrafficMirrorSessionId"]: _session(raw) for raw in raws}.values())

    def targets(self, ids: Collection[str] | None) -> dict[str, Target]:
        what = ("DescribeTrafficMirrorTargets", "TrafficMirrorTargets")
        if ids is None:
            return {raw["TrafficMirrorTargetId"]: _target(raw) for raw in self._listed(*what, {})}
        raws = self._by(*what, "traffic-mirror-target-id", ids)
        return self._judged([_target(raw) for raw in raws])

    def filters(self, ids: Collection[str]) -> dict[str, Filter]:
        what = ("DescribeTrafficMirrorFilters", "TrafficMirrorFilters")
        raws = self._by(*what, "traffic-mirror-filter-id", ids)
        return {raw["TrafficMirrorFilterId"]: _filter(raw) for raw in raws}

    def create(self, session: Session, token: str) -> Session:
        made = self._call("CreateTrafficMirrorSession", {**_creation(session), "ClientToken": token})
        return _session(made["TrafficMirrorSession"])

    def modify(self, before: Session, after: Session) -> Session:
        changed = [name for name in PARAMETERS if getattr(before, name) != getattr(after, name)]
        unset = [REMOVABLE[name] for name in changed if getattr(after, name) in (None, "")]
        named = {PARAMETERS[name]: getattr(after, name) for name in changed if getattr(after, name) not in (None, "")}
        if not changed:
            return before
        removal = {"RemoveFields": unset} if unset else {}
        made = self._call("ModifyTrafficMirrorSession", {"TrafficMirrorSessionId": before.id, **named, **removal})
        return _session(made["TrafficMirrorSession"])

    def retag(self, before: Session, after: Session) -> None:
        new = {key: value for key, value in after.tags.items() if before.tags.get(key) != value}
        if new:
            self.put_tags(before.id, new)
        if gone := {key: value for key, value in before.tags.items() if key not in after.tags}:
            self.remove_tags(before.id, gone)

    def delete(self, session: Session) -> None:
        self._call("DeleteTrafficMirrorSession", {"TrafficMirrorSessionId": session.id})

    def put_tags(self, resource: str, tags: Tags) -> None:
        with self._refusing("CreateTags", {"Resources": [resource], "Tags": _tag_list(tags)}):
            if resource.startswith("tm"):
                self.model.put_tags(resource, tags)
            else:
                self._exists(resource)
                self.tag([resource], tags)

    def remove_tags(self, resource: str, tags: Tags) -> None:
        with self._refusing("DeleteTags", {"Resources": [resource], "Tags": _tag_list(tags)}):
            if resource.startswith("tm"):
                self.model.remove_tags(resource, tags)
            else:
                self._exists(resource)
                present = self._machines[resource].tags
                self.untag([resource], [key for key, value in tags.items() if present.get(key) == value])

    def may_create(self, session: Session) -> Refused | None:
        return self._allowed("CreateTrafficMirrorSession", _creation(session))

    def may_tag(self, instance: str, key: str) -> Refused | None:
        parameters = {"Resources": [instance], "Tags": [{"Key": key, "Value": ""}], "DryRun": True}
        try:
            with self._refusing("CreateTags", parameters):
                self._exists(instance)
        except Refused as refused:
            return refused
        return None

    # How

    def _judged(self, targets: Sequence[Target]) -> dict[str, Target]:
        """With the calls that it costs to ask for the health of what is behind them."""
        kinds = [target.kind for target in targets]
        if TargetKind.INTERFACE in kinds:
            self._paged("DescribeNetworkInterfaces", 0, {})
            if any(target.resource in self._holders for target in targets):
                self._paged("DescribeInstances", 0, {})
        if TargetKind.ENDPOINT in kinds:
            self._paged("DescribeVpcEndpoints", 0, {})
        judged = {target.id: self._as_it_is(target) for target in targets}
        for target in judged.values():
            if target.kind is TargetKind.NLB:
                self._paged("DescribeListeners", 0, {})
            if target.kind is TargetKind.NLB and target.health in (Health.HEALTHY, Health.UNHEALTHY):
                self._paged("DescribeTargetHealth", 0, {})
        return judged

    def _as_it_is(self, target: Target) -> Target:
        health, capacity = self.health.get(target.id, Health.HEALTHY), None
        if target.kind is TargetKind.INTERFACE:
            holder = self._holders.get(target.resource)
            health = Health.GONE if holder is None else health
            capacity = sources_per_target(holder.type) if holder else None
            if holder is not None and holder.state != "running":
                health = Health.UNHEALTHY
        why = "" if health is Health.HEALTHY else f"{target.id} is {health}"
        return replace(target, health=health, why=why, capacity=capacity)

    def _exists(self, instance: str) -> None:
        if instance not in self._machines:
            raise ApiError("InvalidInstanceID.NotFound", f"The instance ID '{instance}' does not exist")

    def _allowed(self, action: str, parameters: Mapping[str, Any]) -> Refused | None:
        try:
            self._call(action, {**parameters, "DryRun": True})
        except Refused as refused:
            if refused.code != "DryRunOperation":
                return refused
        return None

    def _call(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self.model.call(action, parameters)
        except ApiError as error:
            raise Refused(action, error.code, error.message) from error

    @contextmanager
    def _refusing(self, action: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """A call that is not the model's own, with its faults around it."""
        try:
            with self.model.faults.around(action, parameters):
                yield
        except ApiError as error:
            raise Refused(action, error.code, error.message) from error

    def _paged(self, action: str, items: int, parameters: Mapping[str, Any]) -> None:
        for number in range(max(1, -(-items // PAGE))):
            more = {"NextToken": str(number)} if number else {}
            with self._refusing(action, {**parameters, "MaxResults": PAGE, **more}):
                pass

    def _by(self, action: str, key: str, name: str, values: Collection[str]) -> Iterator[dict[str, Any]]:
        for chunk in batched(sorted(set(values)), VALUES, strict=False):
            yield from self._listed(action, key, {"Filters": [{"Name": name, "Values": list(chunk)}]})

    def _listed(self, action: str, key: str, parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            answer = self._call(action, {**parameters, "MaxResults": PAGE, **token})
            yield from answer[key]
            if "NextToken" not in answer:
                return
            token = {"NextToken": answer["NextToken"]}


@dataclass
class FakePolicies:
    """reconcile.Policies: a policy's text, and whether everything is paused."""

    text: str
    is_paused: bool = False
    version: int = 1
    looks: int = field(default=0)  # at the switch

    def read(self) -> InForce:
        policy = load(self.text)
        return InForce(policy, self.text, "/traffic-replay/policy", self.version, self.is_paused or policy.paused)

    def paused(self) -> bool:
        self.looks += 1
        return self.is_paused

    def write(self, text: str) -> None:
        self.text, self.version = text, self.version + 1


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self, now: datetime = datetime(2026, 11, 23, 8, tzinfo=UTC)) -> None:
        self.now = now
        self.slept = 0.0

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.pass_by(seconds)

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def _creation(session: Session) -> dict[str, Any]:
    given = {PARAMETERS[name]: getattr(session, name) for name in PARAMETERS}
    named = {name: value for name, value in given.items() if value not in (None, "")}
    return {
        "NetworkInterfaceId": session.interface,
        **named,
        **_specification("traffic-mirror-session", session.tags),
    }


def _specification(kind: str, tags: Tags) -> dict[str, Any]:
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": _tag_list(tags)}]} if tags else {}


def _tag_list(tags: Tags) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def _tags(raw: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in raw["Tags"]}


def _session(raw: Mapping[str, Any]) -> Session:
    settings: dict[str, Any] = {name: raw.get(parameter) for name, parameter in PARAMETERS.items()}
    settings["description"] = raw.get("Description", "")
    return Session(id=raw["TrafficMirrorSessionId"], interface=raw["NetworkInterfaceId"], tags=_tags(raw), **settings)


def _target(raw: Mapping[str, Any]) -> Target:
    kind = TargetKind(raw["Type"])
    return Target(raw["TrafficMirrorTargetId"], kind, raw[RESOURCES[kind]], tags=_tags(raw))


def _filter(raw: Mapping[str, Any]) -> Filter:
    rules = tuple(_rule(rule) for rule in (*raw["IngressFilterRules"], *raw["EgressFilterRules"]))
    return Filter(raw["TrafficMirrorFilterId"], rules, _tags(raw))


def _rule(raw: Mapping[str, Any]) -> Rule:
    def ports(side: str) -> tuple[int, int] | None:
        return (raw[side]["FromPort"], raw[side]["ToPort"]) if side in raw else None

    return Rule(
        Direction(raw["TrafficDirection"]),
        raw["RuleNumber"],
        raw["RuleAction"] == "accept",
        raw["SourceCidrBlock"],
        raw["DestinationCidrBlock"],
        raw.get("Protocol"),
        ports("SourcePortRange"),
        ports("DestinationPortRange"),
    )
