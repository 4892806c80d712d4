"""What comes in: events, and the SQS batches that bring them."""

import json
from collections.abc import Mapping
from typing import Any


def state(instance: str, value: str = "running") -> dict[str, Any]:
    return {
        "id": f"event-{instance}",
        "source": "aws.ec2",
        "detail-type": "EC2 Instance State-change Notification",
        "time": "2026-11-23T08:00:00Z",
        "detail": {"instance-id": instance, "state": value},
    }


SWEEP = {"id": "sweep", "source": "aws.events", "detail-type": "Scheduled Event", "detail": {}}


def record(number: int, body: object, received: int = 1) -> dict[str, Any]:
    return {
        "messageId": f"m-{number}",
        "receiptHandle": f"r-{number}",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": str(received)},
        "eventSource": "aws:sqs",
    }


def batch(*bodies: object, received: int = 1) -> dict[str, Any]:
    return {"Records": [record(number, body, received) for number, body in enumerate(bodies, 1)]}


def failures(answer: Mapping[str, Any]) -> set[str]:
    return {one["itemIdentifier"] for one in answer["batchItemFailures"]}
