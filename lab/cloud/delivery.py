"""Events in ministack: side doors for those that AWS services send, and delivery only where AWS would deliver.

ministack refuses sources of `aws.` in PutEvents, as AWS does, and its services send next to none: `POST /_lab/events`
hands one event, of the shape of `events/*.json`, to the part of ministack that matches rules. Id, time and all else
stay as given. In a live emulator events take the way of `lab.cloud.post`: all are remembered, and the way can be bad.

ministack delivers into any queue. AWS needs the queue's policy to let the rule in, and puts what it may not deliver
into the target's dead-letter queue: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
"""

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any

from ministack.core.arn import parse_arn  # type: ignore[import-not-found]
from ministack.core.iam_evaluator import (  # type: ignore[import-not-found]
    EvalContext,
    evaluate_resource_policy,
)
from ministack.core.responses import (  # type: ignore[import-not-found]
    get_account_id,
    get_region,
    set_request_account_id,
    set_request_region,
)
from ministack.services import eventbridge, sqs  # type: ignore[import-not-found]

from lab.cloud import doors, events, hooks
from lab.cloud.doors import Body
from lab.cloud.post import Post, Weather

type Event = Mapping[str, Any]

EVENTS = "events.amazonaws.com"
SCHEDULED = ("aws.events", "Scheduled Event")
#: Events in one answer.
PAGE = 1000
_NEEDED = ("id", "source", "detail-type", "account", "region", "time", "resources", "detail")

_log = logging.getLogger(__name__)
_serials = count(1)


# The doors


def open_doors(live: bool) -> None:
    doors.register("/_lab/events", partial(_enter, POST.send if live else emit))
    if live:
        hooks.function(eventbridge, "_tick_scheduled_rules", "", lambda _: _strike_nothing)
        doors.register("/_lab/events", _listed, "GET")
        doors.register("/_lab/bus", _turn)
        doors.register("/_lab/sweep", _sweep)


def _enter(send: Callable[[Event], object], event: Body) -> Body:
    if missing := [name for name in _NEEDED if name not in event]:
        raise ValueError(f"POST one event; without {', '.join(missing)} it is none")
    send(event)
    return {"id": event["id"]}


def _listed(query: Body) -> Body:
    return {"events": [asdict(one) for one in POST.happened(int(query.get("after", 0)), PAGE)]}


def _turn(weather: Body) -> Body:
    try:
        POST.turn(Weather(**weather))
    except TypeError as error:
        raise ValueError(f"no such weather: {error}") from None
    return {}


def _sweep(_: Body) -> Body:
    """Strikes for all schedules at once. AWS sends each an event of its own."""
    schedules = [rule["Arn"] for rule in eventbridge._rules.values() if _is_schedule(rule)]
    if not schedules:
        raise ValueError("there is no enabled rule with a schedule: is the stack deployed?")
    event = {**made(events.scheduled), "resources": schedules}
    POST.send(event, surely=True)
    return {"id": event["id"]}


# Events


def made(shape: Callable[..., Event], *what: Any, **more: Any) -> Event:
    """One of `lab.cloud.events`, that happens now: made(events.instance_state, "i-…", "running")"""
    return shape(*what, **more, at=datetime.now(UTC), serial=next(_serials), region=get_region())


def tell(shape: Callable[..., Event], *what: Any, **more: Any) -> None:
    """The bus learns of it, as well as the weather lets it."""
    POST.send(made(shape, *what, **more))


def emit(event: Event) -> None:
    """An event of any source, on the default bus of its account and Region, at once."""
    set_request_account_id(event["account"])
    set_request_region(event["region"])
    record = {
        "EventId": event["id"],
        "Source": event["source"],
        "DetailType": event["detail-type"],
        "Detail": json.dumps(event["detail"]),
        "EventBusName": "default",
        "Time": int(datetime.fromisoformat(event["time"]).timestamp()),
        "Resources": event["resources"],
        "Account": event["account"],
        "Region": event["region"],
    }
    eventbridge._events_log_list().append(record)
    if (event["source"], event["detail-type"]) == SCHEDULED:
        _strike(record)
    else:
        eventbridge._dispatch_event(record)


#: The way that events take in a live emulator.
POST = Post(emit)


def _strike(record: Event) -> None:
    """A schedule's event goes to the targets of the rule that it names; no pattern is asked."""
    for name, rule in eventbridge._rules.items():
        if rule["Arn"] in record["Resources"] and _is_schedule(rule):
            for target in eventbridge._targets.get(name, []):
                eventbridge._invoke_target(target, record, rule)


def _strike_nothing() -> None:
    """In a live emulator schedules strike when they are told to: what they repair shall be seen until then, and their
    events are among those that happened."""


def _is_schedule(rule: Mapping[str, Any]) -> bool:
    return bool(rule["ScheduleExpression"]) and rule["State"] == "ENABLED"


# Delivery


def strict() -> None:
    hooks.function(eventbridge, "_invoke_target", "target event rule view", _invoking)


def _invoking(original: Callable[..., None]) -> Callable[..., None]:
    def invoke_target(target: Mapping[str, Any], event: Any, rule: Mapping[str, Any], view: Any = None) -> None:
        why = _refused(target.get("Arn", ""), rule["Arn"])
        if why is None:
            original(target, event, rule, view)
            return
        letters = (target.get("DeadLetterConfig") or {}).get("Arn", "")
        if not letters or _refused(letters, rule["Arn"]) is not None:
            _log.warning("%s of rule %s: event dropped: %s", target["Arn"], rule["Arn"], why)
            return
        original({**target, "Arn": letters}, event, rule, view)
        told = {"RULE_ARN": rule["Arn"], "TARGET_ARN": target["Arn"], "ERROR_CODE": why}
        sqs._queue_by_arn(letters)["messages"][-1]["message_attributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in told.items()
        }

    return invoke_target


def _refused(arn: str, rule: str) -> str | None:
    """Why a rule cannot send to a queue. Targets that are no queues are ministack's business."""
    if ":sqs:" not in arn:
        return None
    queue = sqs._queue_by_arn(arn)
    if queue is None:
        return "NO_RESOURCE"
    return None if _lets_in(queue["attributes"].get("Policy") or "", arn, rule) else "NO_PERMISSIONS"


def _lets_in(policy: str, queue: str, rule: str) -> bool:
    context = EvalContext(
        principal_arn="*",
        principal_type="Service",
        principal_account="",
        action="sqs:SendMessage",
        resource_arn=queue,
        region=parse_arn(queue).region,
        service_context={"aws:sourcearn": rule, "aws:sourceaccount": get_account_id()},
    )
    return bool(policy) and evaluate_resource_policy(policy, context, service=EVENTS).decision == "Allow"
