"""Events in ministack: a side door for those that AWS services send, and delivery only where AWS would deliver.

ministack refuses sources of `aws.` in PutEvents, as AWS does, and its services send next to none: `POST /_lab/events`
hands one event, of the shape of `events/*.json`, to the part of ministack that matches rules. Id, time and all else
stay as given.

ministack delivers into any queue. AWS needs the queue's policy to let the rule in, and puts what it may not deliver
into the target's dead-letter queue: https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-dlq.html
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from ministack.core.arn import parse_arn  # type: ignore[import-not-found]
from ministack.core.iam_evaluator import (  # type: ignore[import-not-found]
    EvalContext,
    evaluate_resource_policy,
)
from ministack.core.responses import (  # type: ignore[import-not-found]
    get_account_id,
    set_request_account_id,
    set_request_region,
)
from ministack.services import eventbridge, sqs  # type: ignore[import-not-found]

from lab.cloud import hooks

type Event = Mapping[str, Any]
type Application = Callable[[Any, Any, Any], Awaitable[None]]

DOOR = "/_lab/events"
EVENTS = "events.amazonaws.com"
SCHEDULED = ("aws.events", "Scheduled Event")
_NEEDED = ("id", "source", "detail-type", "account", "region", "time", "resources", "detail")

_log = logging.getLogger(__name__)


# The door


def with_door(application: Application) -> Application:
    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != DOOR:
            await application(scope, receive, send)
            return
        status, answer = _enter(scope["method"], await _body(receive))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return serve


async def _body(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _enter(method: str, body: bytes) -> tuple[int, dict[str, str]]:
    try:
        event = json.loads(body)
        missing = [name for name in _NEEDED if name not in event]
    except (ValueError, TypeError) as error:
        return 400, {"message": f"no event: {error}"}
    if method != "POST" or missing:
        return 400, {"message": f"POST one event; without {', '.join(missing) or 'anything'} it is none"}
    emit(event)
    return 200, {"id": event["id"]}


def emit(event: Event) -> None:
    """An event of any source, on the default bus of its account and Region."""
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


def _strike(record: Event) -> None:
    """A schedule's event goes to the targets of the rule that it names; no pattern is asked."""
    for name, rule in eventbridge._rules.items():
        if rule["Arn"] in record["Resources"] and rule["ScheduleExpression"] and rule["State"] == "ENABLED":
            for target in eventbridge._targets.get(name, []):
                eventbridge._invoke_target(target, record, rule)


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
