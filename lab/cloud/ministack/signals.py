"""Auto Scaling groups in stacks of a live emulator: CloudFormation waits for them.

A group with a CreationPolicy is made when enough of its instances have signalled. A worker's user data signals once the
load balancer finds it healthy; the machines of the lab run no user data, so here that health is the signal. Times pass
`pace` times as fast. A group that is deleted is gone when its last instance is.
https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-attribute-creationpolicy.html
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ministack.services import autoscaling, cloudformation  # type: ignore[import-not-found]
from ministack.services.cloudformation import (  # type: ignore[import-not-found]
    engine,
    provisioners,
    stacks,
    wait_conditions,
)

from lab.cloud import hooks
from lab.cloud.listing import Resource
from lab.cloud.ministack import scaling
from lab.cloud.ministack.scaling import Scaling

type Properties = Mapping[str, Any]
type Made = tuple[str, dict[str, Any]]

KIND = "AWS::AutoScaling::AutoScalingGroup"
#: Seconds for the last instance of a deleted group to go, beside its draining: a worker's machine takes 16 s at most,
#: and some may wait for their turn. At the lab's pace all of it is shorter than CloudFormation's clients wait (60 s);
#: who lets time pass as on AWS needs more patient ones.
PATIENCE = 40.0
_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class Waiting:
    """For the signals of a group's members, but for those that were known before."""

    stack: str
    logical_id: str
    known: frozenset[str]


def live(groups: Scaling) -> None:
    makers = hooks.table(provisioners, "_RESOURCE_HANDLERS")[KIND]
    hooks.entry(makers, "create", "logical_id props stack_name", partial(_creating, groups))
    hooks.entry(makers, "update", "physical_id old_props new_props stack_name logical_id", partial(_updating, groups))
    hooks.entry(makers, "delete", "physical_id props", partial(_deleting, groups))
    hooks.function(provisioners, "_asg_delete", "physical_id props", lambda _: _not_yet)
    hooks.function(stacks, "_runs_on_worker_thread", "resource_type", _on_worker_thread)


def look(groups: Scaling) -> None:
    """Members that are healthy signal, where a stack waits for that; it takes each once."""
    for record in autoscaling._asgs.values():
        if waiting := record.get("_waiting"):
            for instance in groups.healthy(record):
                if instance not in waiting.known:
                    wait_conditions.signal_resource(waiting.stack, waiting.logical_id, instance, "SUCCESS")


def _on_worker_thread(original: Callable[[str], bool]) -> Callable[[str], bool]:
    """Waiting there keeps nobody else from being served."""
    return lambda kind: kind == KIND or original(kind)


def _creating(groups: Scaling, original: Callable[..., Made]) -> Callable[..., Made]:
    def create(logical_id: str, properties: Properties, stack: str) -> Made:
        name, attributes = original(logical_id, properties, stack)
        record = autoscaling._asgs[name]
        record["TargetGroupARNs"] = _listed(properties)
        signal = attribute("CreationPolicy", "ResourceSignal", logical_id, stack)
        try:
            if signal is not None:
                wanted = wait_conditions.validate_count(signal.get("Count"), logical_id)
                await_signals(groups, record, logical_id, stack, wanted, signal.get("Timeout"))
        except (RuntimeError, TimeoutError):
            _discard(groups, name)
            raise
        return name, attributes

    return create


def attribute(policy: str, name: str, logical_id: str, stack: str) -> Properties | None:
    """A resource's CreationPolicy or UpdatePolicy, with references resolved."""
    definition = provisioners._cfn_wait_condition_definition(stack, logical_id)
    found = (definition.get(policy) or {}).get(name)
    if found is None:
        return None
    running = cloudformation._stacks[stack]
    parameters = {one["ParameterKey"]: {"Value": one["ParameterValue"]} for one in running["Parameters"]}
    resources, conditions = running.get("_resources", {}), running["_conditions"]
    resolved: Properties = engine._resolve_refs(found, resources, parameters, conditions, {}, stack, running["StackId"])
    return resolved


def await_signals(
    groups: Scaling, record: Resource, logical_id: str, stack: str, count: int, timeout: Any, known: Iterable[str] = ()
) -> None:
    seconds = wait_conditions.validate_resource_signal_timeout(timeout, logical_id) / groups.pace
    identity = provisioners._cr_stack_id(stack)
    record["_waiting"] = Waiting(identity, logical_id, frozenset(known))
    try:
        token = wait_conditions.register_slot(identity)
        wait_conditions.wait_for(token, identity, stack, logical_id, KIND, count, seconds)
    except TimeoutError as error:
        healthy = len({*groups.healthy(record)} - {*known})
        text = f"Received {healthy} SUCCESS signal(s) out of {count}: the load balancer found no more instances healthy"
        raise TimeoutError(f"{text} within {seconds:g} s.") from error
    finally:
        del record["_waiting"]


def _updating(groups: Scaling, original: Callable[..., Made]) -> Callable[..., Made]:
    """A change that fails is undone here: ministack takes it that nothing was done yet."""

    def update(name: str, old: Properties, new: Properties, stack: str, logical_id: str | None = None) -> Made:
        def change(before: Properties, after: Properties) -> Made:
            made = original(name, before, _sized(after, name, desired), stack, logical_id)
            autoscaling._asgs[made[0]]["TargetGroupARNs"] = _listed(after)
            return made

        desired = autoscaling._asgs.get(name, {}).get("DesiredCapacity")
        made = change(old, new)
        rolling = attribute("UpdatePolicy", "AutoScalingRollingUpdate", str(logical_id), stack)
        if rolling is None or made[0] != name:
            return made
        try:
            _roll(groups, autoscaling._asgs[name], str(logical_id), stack, rolling)
        except (RuntimeError, TimeoutError, ValueError):
            change(new, old)
            _roll(groups, autoscaling._asgs[name], str(logical_id), stack, rolling)
            raise
        return made

    return update


def _sized(properties: Properties, name: str, desired: int | None) -> Properties:
    """A desired capacity that the template does not name stays as the group has it, within the bounds."""
    replaced = properties.get("AutoScalingGroupName", name) != name
    if "DesiredCapacity" in properties or desired is None or replaced:
        return properties
    least, most = int(properties["MinSize"]), int(properties["MaxSize"])
    return {**properties, "DesiredCapacity": max(least, min(desired, most))}


def _listed(properties: Properties) -> list[str]:
    return list(properties.get("TargetGroupARNs") or [])


def _roll(groups: Scaling, record: Resource, logical_id: str, stack: str, policy: Properties) -> None:
    """Members of another launch template or version are replaced, a batch at a time: where MinInstancesInService wants
    it, new ones come before old ones go. The health of new ones is waited for, whether the policy says so or not."""
    desired = record["DesiredCapacity"]
    while old := scaling.outdated(record)[: int(policy.get("MaxBatchSize", 1))]:
        known = [member.instance for member in scaling.members_of(record)]
        spare = max(desired - int(policy.get("MinInstancesInService", 0)), 0)
        scaling.dismiss(record, old[:spare], desired + len(old[spare:]))
        try:
            await_signals(groups, record, logical_id, stack, len(old), policy.get("PauseTime"), known)
        except (RuntimeError, TimeoutError):
            well = [*known, *groups.healthy(record)]
            ill = [one.instance for one in scaling.members_of(record) if one.instance not in well]
            scaling.dismiss(record, ill, desired)
            raise
        scaling.dismiss(record, old[spare:], desired)
        _await_end(groups, record, partial(_without, record, old))


def _without(record: Resource, instances: Iterable[str]) -> bool:
    return not {*instances} & {member.instance for member in scaling.members_of(record)}


def _deleting(groups: Scaling, original: Callable[..., None]) -> Callable[..., None]:
    def delete(name: str, properties: Properties) -> None:
        _discard(groups, name)
        original(name, properties)

    return delete


def _not_yet(physical_id: str, props: Properties) -> None:
    """A group that was replaced is deleted twice, first where nobody may wait."""


def _discard(groups: Scaling, name: str) -> None:
    """Waits for its instances' end."""
    record = autoscaling._asgs.get(name)
    if record is not None:
        scaling.delete(record)
        _await_end(groups, record, lambda: name not in autoscaling._asgs)


def _await_end(groups: Scaling, record: Resource, ended: Callable[[], bool]) -> None:
    patience = PATIENCE + groups.draining(record)
    deadline = time.monotonic() + patience
    while not ended():
        if time.monotonic() > deadline:
            left = ", ".join(member.instance for member in scaling.members_of(record))
            text = f"{record['AutoScalingGroupName']} still has instances after {patience:g} s: {left}"
            raise ValueError(f"{text}. Does anybody run the machines?")
        time.sleep(_LOOK)
