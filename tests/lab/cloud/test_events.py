"""Events of the files, and made from them."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from moto.events.models import EventPattern

from lab.cloud import events
from lab.cloud.events import Event

AT = datetime(2026, 11, 23, 9, 30, 1, tzinfo=UTC)
FILES = sorted(path.stem for path in events.FOLDER.glob("*.json"))
BUS_EVENTS = [name for name in FILES if not name.startswith(("custom-resource", "sqs-batch"))]

#: What is made, and from which file.
MADE: list[tuple[str, Callable[[], Event]]] = [
    ("ec2-instance-running", lambda: events.instance_state("i-9", "running", at=AT, serial=999)),
    ("ec2-instance-stopped", lambda: events.instance_state("i-9", "stopped", at=AT, serial=999)),
    ("ec2-instance-terminated", lambda: events.instance_state("i-9", "terminated", at=AT, serial=999)),
    ("autoscaling-launch", lambda: events.group_launch("i-9", "web", at=AT, serial=999)),
    ("autoscaling-launch-to-warm-pool", lambda: events.group_launch("i-9", "web", at=AT, serial=999, warm=True)),
    ("autoscaling-terminate", lambda: events.group_terminate("i-9", "web", at=AT, serial=999)),
    ("autoscaling-terminate-to-warm-pool", lambda: events.group_terminate("i-9", "web", at=AT, serial=999, warm=True)),
    ("tag-change", lambda: events.tag_change("i-9", ["a"], {"a": "b"}, version=2, at=AT, serial=999)),
    ("cloudtrail-attach-network-interface", lambda: events.attach_interface("i-9", "eni-9", 1, "x", at=AT, serial=999)),
    ("cloudtrail-detach-network-interface", lambda: events.detach_interface("x", at=AT, serial=999)),
    ("parameter-store-change", lambda: events.parameter_change("/own/policy", at=AT, serial=999)),
    ("scheduled", lambda: events.scheduled(at=AT, serial=999)),
    ("guardduty-finding", lambda: events.guardduty_finding("i-9", at=AT, serial=999)),
]

#: The rules that the stack has in front of its queue.
PATTERNS = {
    "state": {
        "source": ["aws.ec2"],
        "detail-type": ["EC2 Instance State-change Notification"],
        "detail": {"state": ["running", "stopping", "stopped", "shutting-down", "terminated"]},
    },
    "group": {
        "source": ["aws.autoscaling"],
        "detail-type": ["EC2 Instance Launch Successful", "EC2 Instance Terminate Successful"],
    },
    "tag": {
        "source": ["aws.tag"],
        "detail-type": ["Tag Change on Resource"],
        "detail": {"service": ["ec2"], "resource-type": ["instance"]},
    },
    "interface": {
        "source": ["aws.ec2"],
        "detail-type": ["AWS API Call via CloudTrail"],
        "detail": {
            "eventSource": ["ec2.amazonaws.com"],
            "eventName": ["AttachNetworkInterface", "DetachNetworkInterface"],
            "errorCode": [{"exists": False}],
        },
    },
    "parameter": {"source": ["aws.ssm"], "detail-type": ["Parameter Store Change"]},
    "schedule": {"source": ["aws.events"], "detail-type": ["Scheduled Event"]},
    "finding": {"source": ["aws.guardduty"], "detail-type": ["GuardDuty Finding"]},
}


def matched(event: Event) -> list[str]:
    patterns = {name: EventPattern.load(json.dumps(pattern)) for name, pattern in PATTERNS.items()}
    return [name for name, pattern in patterns.items() if pattern.matches_event(cast("Any", event))]


def keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items()}
    return type(value).__name__


def test_every_event_of_the_bus_can_be_made() -> None:
    assert sorted({name for name, _ in MADE}) == BUS_EVENTS


@pytest.mark.parametrize(("name", "make"), MADE)
def test_what_is_made_has_the_shape_of_its_file(name: str, make: Callable[[], Event]) -> None:
    made, sample = make(), events.sample(name)
    if name == "tag-change":
        del made["detail"]["tags"], sample["detail"]["tags"]
    assert keys(made) == keys(sample)
    assert made["time"] == "2026-11-23T09:30:01Z" and made["id"] != sample["id"]
    same = ("source", "detail-type", "account", "region", "version")
    assert [made.get(key) for key in same] == [sample.get(key) for key in same]
    if name not in ("cloudtrail-detach-network-interface", "scheduled", "parameter-store-change"):
        assert "i-9" in json.dumps(made) and "i-1234567890abcdef0" not in json.dumps(made)


@pytest.mark.parametrize("name", BUS_EVENTS)
def test_each_file_matches_the_rule_that_brings_it(name: str) -> None:
    rules = {"ec2": "state", "autoscaling": "group", "tag": "tag", "cloudtrail": "interface"}
    rules |= {"parameter": "parameter", "scheduled": "schedule", "guardduty": "finding"}
    assert matched(events.sample(name)) == [rules[name.partition("-")[0]]]


def test_a_pending_instance_and_a_failed_call_match_no_rule() -> None:
    assert matched(events.instance_state("i-9", "pending", at=AT)) == []
    failed = events.detach_interface("x", at=AT)
    failed["detail"]["errorCode"] = "Client.UnauthorizedOperation"
    assert matched(failed) == []


def test_a_return_to_the_warm_pool_says_so() -> None:
    assert events.group_terminate("i-9", "web", at=AT, warm=True)["detail"]["Destination"] == "WarmPool"
    assert events.group_launch("i-9", "web", at=AT, warm=True)["detail"]["Destination"] == "WarmPool"
    assert events.group_terminate("i-9", "web", at=AT)["detail"]["Destination"] == "EC2"


def test_regions_show_everywhere() -> None:
    event = events.group_launch("i-9", "web", at=AT, region="us-east-1", subnet="subnet-9")
    assert event["region"] == "us-east-1" and "eu-west-1" not in json.dumps(event)
    assert event["detail"]["Details"] == {"Availability Zone": "us-east-1a", "Subnet ID": "subnet-9"}


def test_an_activity_has_its_place_and_its_cause() -> None:
    event = events.group_launch("i-9", "web", at=AT, serial=7, subnet="subnet-9", zone="eu-west-1b", cause="It is so.")
    assert event["detail"]["Details"] == {"Availability Zone": "eu-west-1b", "Subnet ID": "subnet-9"}
    assert event["detail"]["Cause"] == "It is so."
    other = events.group_launch("i-9", "web", at=AT, serial=8)
    for name in ("ActivityId", "RequestId"):
        assert event["detail"][name] != other["detail"][name]


def test_the_queue_wraps_events() -> None:
    first, second = events.scheduled(at=AT), events.instance_state("i-9", "running", at=AT)
    records = events.sqs_batch([first, second], received=3)["Records"]
    assert [json.loads(record["body"]) for record in records] == [first, second]
    assert len({record["messageId"] for record in records}) == len({r["receiptHandle"] for r in records}) == 2
    assert {record["attributes"]["ApproximateReceiveCount"] for record in records} == {"3"}
    for record in (*records, *events.sample("sqs-batch")["Records"]):
        assert record["md5OfBody"] == hashlib.md5(record["body"].encode()).hexdigest()
        assert record["eventSource"] == "aws:sqs"


def test_the_batch_of_the_file_holds_two_events_of_the_others() -> None:
    bodies = [json.loads(record["body"]) for record in events.sample("sqs-batch")["Records"]]
    assert bodies == [events.sample("ec2-instance-running"), events.sample("tag-change")]


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
def test_requests_of_cloudformation(kind: str) -> None:
    request = events.custom_resource(kind, response_url="http://127.0.0.1:1/answer", serial=5)
    assert (request["RequestType"], request["ResponseURL"]) == (kind, "http://127.0.0.1:1/answer")
    assert ("PhysicalResourceId" in request) == (kind != "Create")
    assert ("OldResourceProperties" in request) == (kind == "Update")
    assert request["RequestId"] != events.sample(f"custom-resource-{kind.lower()}")["RequestId"]


def test_a_sample_is_the_callers_to_change() -> None:
    events.sample("scheduled")["detail"]["x"] = 1
    assert events.sample("scheduled")["detail"] == {}
