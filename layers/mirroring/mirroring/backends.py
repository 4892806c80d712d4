"""What is behind a mirror target, and whether packets sent there would arrive.

A session with a dead target has no state that would say so: it exists, is billed, and mirrors nothing.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mirroring.clients import call, pages
from mirroring.describe import Raw, filtered
from mirroring.model import VXLAN_PORT, Health, Refused, Target, TargetKind
from mirroring.support import sources_per_target


@dataclass(frozen=True)
class Condition:
    """Of what is behind a target."""

    health: Health
    why: str = ""  # see Target
    capacity: int | None = None


class Backends:
    def __init__(self, ec2: Any, elb: Any) -> None:
        self._ec2 = ec2
        self._elb = elb

    def conditions(self, targets: Iterable[Target]) -> dict[str, Condition]:
        """By resource, of these targets."""
        by_kind: dict[TargetKind, list[str]] = {kind: [] for kind in TargetKind}
        for target in targets:
            by_kind[target.kind].append(target.resource)
        return {
            **self._interfaces(by_kind[TargetKind.INTERFACE]),
            **{name: self._endpoint(name) for name in by_kind[TargetKind.ENDPOINT]},
            **{arn: self._balancer(arn) for arn in by_kind[TargetKind.NLB]},
        }

    def _interfaces(self, ids: Collection[str]) -> dict[str, Condition]:
        found = filtered(self._ec2, "DescribeNetworkInterfaces", "NetworkInterfaces", "network-interface-id", ids)
        raws = {raw["NetworkInterfaceId"]: raw for raw in found}
        holders = {_holder(raw) for raw in raws.values()} - {""}
        reservations = filtered(self._ec2, "DescribeInstances", "Reservations", "instance-id", holders)
        instances = {raw["InstanceId"]: raw for one in reservations for raw in one.get("Instances", ())}
        return {name: _interface_condition(name, raws.get(name), instances) for name in ids}

    def _endpoint(self, name: str) -> Condition:
        try:
            answer = call(self._ec2, "DescribeVpcEndpoints", VpcEndpointIds=[name])
        except Refused as refused:
            if not refused.code.endswith(".NotFound"):
                raise
            return _endpoint_condition(name, "deleted")
        states = [raw["State"].lower() for raw in answer["VpcEndpoints"]]  # AWS spells it both ways
        return _endpoint_condition(name, states[0] if states else "")

    def _balancer(self, arn: str) -> Condition:
        name = _short(arn)
        try:
            listeners = list(pages(self._elb, "DescribeListeners", "Listeners", LoadBalancerArn=arn))
        except Refused as refused:
            if not refused.code.startswith("LoadBalancerNotFound"):
                raise
            return Condition(
                Health.GONE, f"load balancer {name} does not exist: make a new target and name it in the policy"
            )
        if not any(map(_is_vxlan, listeners)):
            return Condition(
                Health.NO_LISTENER,
                f"load balancer {name} has no UDP listener on port {VXLAN_PORT}, so nothing arrives: add one",
            )
        states = [state for group in receivers(listeners) for state in self._states(group)]
        if "healthy" in states:
            return Condition(Health.HEALTHY)
        return Condition(
            Health.UNHEALTHY,
            f"none of the {len(states)} workers behind load balancer {name} is healthy{_counted(states)}: "
            "look at their health check and the group's size",
        )

    def _states(self, group: str) -> list[str]:
        answer = call(self._elb, "DescribeTargetHealth", TargetGroupArn=group)  # elbv2 gives all at once
        return [raw["TargetHealth"]["State"] for raw in answer["TargetHealthDescriptions"]]


def receivers(listeners: Iterable[Raw]) -> list[str]:
    """ARNs of the target groups that get mirrored packets."""
    return sorted({group for raw in listeners if _is_vxlan(raw) for group in _forwards(raw)})


def _is_vxlan(listener: Raw) -> bool:
    return listener["Port"] == VXLAN_PORT and listener["Protocol"] in ("UDP", "TCP_UDP")


def _forwards(listener: Raw) -> Iterator[str]:
    """The target groups that a listener forwards to."""
    for action in listener.get("DefaultActions", ()):
        forward = action.get("ForwardConfig", {}).get("TargetGroups", ())
        yield from (group["TargetGroupArn"] for group in forward)
        if not forward and "TargetGroupArn" in action:
            yield action["TargetGroupArn"]


def _holder(raw: Raw) -> str:
    """The instance that an interface is attached to, or nothing."""
    attachment = raw.get("Attachment", {})
    return attachment.get("InstanceId", "") if attachment.get("Status") == "attached" else ""


def _interface_condition(name: str, raw: Raw | None, instances: Mapping[str, Raw]) -> Condition:
    if raw is None:
        return Condition(Health.GONE, f"interface {name} does not exist: make a new target and name it in the policy")
    holder = instances.get(_holder(raw))
    if holder is None:
        why = f"interface {name} is not attached to an instance: attach it to the one that listens"
        return Condition(Health.UNHEALTHY, why, sources_per_target(""))
    capacity = sources_per_target(holder["InstanceType"])
    state = holder["State"]["Name"]
    if state != "running":
        why = f"instance {holder['InstanceId']}, which has interface {name}, is {state}: start it"
        return Condition(Health.UNHEALTHY, why, capacity)
    return Condition(Health.HEALTHY, capacity=capacity)


def _endpoint_condition(name: str, state: str) -> Condition:
    if state == "available":
        return Condition(Health.HEALTHY)
    if not state:  # neither there nor refused as unknown: no reason to end its sessions
        return Condition(Health.UNKNOWN, f"EC2 says nothing about endpoint {name}: look whether it exists")
    if state in ("deleting", "deleted"):
        return Condition(
            Health.GONE, f"endpoint {name} does not exist any more: make a new target and name it in the policy"
        )
    return Condition(
        Health.UNHEALTHY,
        f"endpoint {name} is {state}, not available: accept it in the endpoint service, or make a new one",
    )


def _short(arn: str) -> str:
    """arn:aws:elasticloadbalancing:…:loadbalancer/net/name/id → name"""
    return arn.split("/")[-2] if arn.count("/") >= 2 else arn


def _counted(states: Collection[str]) -> str:
    counts = [f"{list(states).count(state)} {state}" for state in sorted(set(states))]
    return f" ({', '.join(counts)})" if counts else ""
