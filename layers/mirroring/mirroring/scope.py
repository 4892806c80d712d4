"""Reads an event as a hint where to look.

Every source of events is best effort, at least once, and unordered: what an event says about state, tags or interfaces
may be out of date or repeated, so nothing but the instance's id is taken from it. An event that is not known or not
well formed is no error: it gives no scope, and the reason.

Shapes: https://docs.aws.amazon.com/eventbridge/latest/ref/events-ref-ec2.html and the pages of the other services;
docs/events.md lists them with what each asks for.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mirroring.model import Scope

#: So long after an event that announces an instance, the instance may not be describable yet. After it, it never will.
FRESH = timedelta(minutes=15)

_INSTANCE = re.compile(r"i-[0-9A-Za-z-]{1,60}")
_INSTANCE_ARN = re.compile(r"arn:[\w-]+:ec2:[\w-]*:\d*:instance/(?P<id>i-[0-9A-Za-z-]{1,60})")
_EVERYTHING = Scope(everything=True)


@dataclass(frozen=True)
class Understood:
    """What an event asks for: a scope, or nothing and why."""

    scope: Scope | None
    why: str = ""


def understand(event: object, now: datetime | None = None) -> Understood:
    """Takes an EventBridge event or a message of our own; raises nothing whatever it is.

    `now` tells whether an instance that the event announces counts as fresh; without it none does.
    """
    if not isinstance(event, Mapping):
        return Understood(None, "not an object")
    if "mode" in event:
        return _message(event)
    source, kind, detail = event.get("source"), event.get("detail-type"), event.get("detail")
    if not isinstance(detail, Mapping):
        detail = {}
    match source, kind:
        case "aws.ec2", "EC2 Instance State-change Notification":
            coming = detail.get("state") == "running" and _recent(event, now)
            return _instances([detail.get("instance-id")], "instance-id", fresh=coming)
        case "aws.autoscaling", "EC2 Instance Launch Successful" | "EC2 Instance Terminate Successful":
            if detail.get("Destination") == "WarmPool":
                return Understood(None, "moves into a warm pool: its EC2 state change tells what came of it")
            coming = kind == "EC2 Instance Launch Successful" and _recent(event, now)
            return _instances([detail.get("EC2InstanceId")], "EC2InstanceId", fresh=coming)
        case "aws.tag", "Tag Change on Resource":
            return _tags(event, detail)
        case "aws.ec2", "AWS API Call via CloudTrail":
            return _call(detail)
        case "aws.guardduty", "GuardDuty Finding":
            named = _at(detail, "resource", "instanceDetails", "instanceId")
            return _instances([named], "instanceId")
        case "aws.ssm", "Parameter Store Change":
            return Understood(Scope(everything=True, policy_changed=True))
        case (("aws.events" | "aws.scheduler"), "Scheduled Event"):
            return Understood(_EVERYTHING)
    return Understood(None, f"unknown event: source {source!r}, detail-type {kind!r}"[:300])


def union(scopes: Iterable[Scope]) -> Scope:
    """One look that answers all of them.

    Who asks for a plan has asked for no change: beside others that want changes made, such a scope is left out.
    """
    every = tuple(scopes)
    real = tuple(scope for scope in every if not scope.plan_only) or every
    return Scope(
        everything=any(scope.everything for scope in real),
        instances=frozenset().union(*(scope.instances for scope in real)),
        policy_changed=any(scope.policy_changed for scope in real),
        plan_only=any(scope.plan_only for scope in real),
        fresh=frozenset().union(*(scope.fresh for scope in real)),
        attempt=max((scope.attempt for scope in real), default=0),
    )


def _message(message: Mapping[Any, Any]) -> Understood:
    """Ours: `{"mode": "plan" | "sweep" | "reconcile", …}`."""
    mode, named = message["mode"], message.get("instances", [])
    if not isinstance(named, list):
        return Understood(None, "`instances` is not a list")
    match mode:
        case "sweep" if "attempt" not in message:
            return Understood(_EVERYTHING)
        case "sweep":
            attempt = message["attempt"]
            if isinstance(attempt, bool) or not isinstance(attempt, int):
                return Understood(None, "`attempt` is not a whole number")
            return Understood(Scope(everything=True, attempt=max(1, attempt)))
        case "reconcile":
            return _instances(named, "instances")
        case "plan":
            ids = _ids(named)
            if named and not ids:
                return Understood(None, "no instance id in `instances`")
            return Understood(Scope(everything=not ids, instances=ids, plan_only=True))
    return Understood(None, f"unknown mode {mode!r}"[:300])


def _tags(event: Mapping[Any, Any], detail: Mapping[Any, Any]) -> Understood:
    """The tags it carries, and their version, are passed over: an older one may come after a newer one."""
    if detail.get("service") != "ec2" or detail.get("resource-type") != "instance":
        return Understood(None, "tags of something else than an instance")
    resources = event.get("resources")
    arns = [arn for arn in resources if isinstance(arn, str)] if isinstance(resources, list) else []
    return _instances([found["id"] for arn in arns if (found := _INSTANCE_ARN.fullmatch(arn))], "resources")


def _call(detail: Mapping[Any, Any]) -> Understood:
    """CloudTrail tells of refused calls and of dry runs too; both bear an error code."""
    if detail.get("eventSource") != "ec2.amazonaws.com":
        return Understood(None, "a call to another service than EC2")
    if detail.get("errorCode"):
        return Understood(None, "a call that was refused, or a dry run")
    match detail.get("eventName"):
        case "AttachNetworkInterface":
            return _instances([_at(detail, "requestParameters", "instanceId")], "requestParameters.instanceId")
        case "DetachNetworkInterface":
            return Understood(_EVERYTHING)  # names the attachment alone, and that is gone
    return Understood(None, f"a call that changes no interface of an instance: {detail.get('eventName')!r}"[:300])


def _instances(values: Collection[object], key: str, *, fresh: bool = False) -> Understood:
    ids = _ids(values)
    if not ids:
        return Understood(None, f"no instance id in `{key}`")
    return Understood(Scope(instances=ids, fresh=ids if fresh else frozenset()))


def _ids(values: Collection[object]) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str) and _INSTANCE.fullmatch(value))


def _at(value: object, *keys: str) -> object:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _recent(event: Mapping[Any, Any], now: datetime | None) -> bool:
    """Whether the event is of the last minutes: one that was redelivered for a day announces nothing any more."""
    time = event.get("time")
    if now is None or not isinstance(time, str):
        return False
    try:
        then = datetime.fromisoformat(time)
    except ValueError:
        return False
    # Without a zone it is UTC, as all times of EventBridge are.
    return now - (then if then.tzinfo else then.replace(tzinfo=UTC)) < FRESH
