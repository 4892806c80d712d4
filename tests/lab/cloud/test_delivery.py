"""A schedule's event reaches the targets of its own rule."""

import json
from collections.abc import Iterator

import pytest

from lab.cloud.emulator import Emulator, emulator
from lab.cloud.events import ACCOUNT, REGION, sample


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    with emulator(auth=False) as cloud:
        yield cloud


def _queue(cloud: Emulator, rule: str, state: str) -> str:
    """Where a schedule of this name sends to."""
    sqs, bus = cloud.client("sqs"), cloud.client("events")
    queue: str = sqs.create_queue(QueueName=rule)["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{rule}"
    grant = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**grant, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    bus.put_rule(Name=rule, ScheduleExpression="rate(15 minutes)", State=state)
    bus.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    return queue


def test_a_schedule_strikes_where_it_is_named_and_enabled(cloud: Emulator) -> None:
    queues = {rule: _queue(cloud, rule, state) for rule, state in (("one", "ENABLED"), ("other", "ENABLED"))}
    queues["off"] = _queue(cloud, "off", "DISABLED")
    named = [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{rule}" for rule in ("one", "off")]
    event = {**sample("scheduled"), "resources": named}
    cloud.emit(event)
    sqs = cloud.client("sqs")
    received = {rule: sqs.receive_message(QueueUrl=queue).get("Messages", []) for rule, queue in queues.items()}
    assert {rule: len(messages) for rule, messages in received.items()} == {"one": 1, "other": 0, "off": 0}
    assert json.loads(received["one"][0]["Body"]) == event
