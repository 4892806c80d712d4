"""Events as AWS sends them, made from the files of `events/`: the file is the shape, a function fills in the values."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

type Event = dict[str, Any]

FOLDER = Path(__file__).resolve().parents[2] / "events"
ACCOUNT = "123456789012"
REGION = "eu-west-1"


@cache
def _text(name: str) -> str:
    return (FOLDER / f"{name}.json").read_text()


def sample(name: str) -> Event:
    """The event of a file, as it is."""
    event: Event = json.loads(_text(name))
    return event


def instance_state(instance: str, state: str, *, at: datetime, serial: int = 0, region: str = REGION) -> Event:
    event = _envelope("ec2-instance-running", at, serial, region)
    event["resources"] = [_arn(instance, region)]
    event["detail"] = {"instance-id": instance, "state": state}
    return event


def group_launch(
    instance: str,
    group: str,
    *,
    at: datetime,
    serial: int = 0,
    region: str = REGION,
    subnet: str = "",
    zone: str = "",
    cause: str = "",
    warm: bool = False,
) -> Event:
    name = "autoscaling-launch-to-warm-pool" if warm else "autoscaling-launch"
    return _group(name, instance, group, at, serial, region, subnet, zone, cause)


def group_terminate(
    instance: str,
    group: str,
    *,
    at: datetime,
    serial: int = 0,
    region: str = REGION,
    subnet: str = "",
    zone: str = "",
    cause: str = "",
    warm: bool = False,
) -> Event:
    name = "autoscaling-terminate-to-warm-pool" if warm else "autoscaling-terminate"
    return _group(name, instance, group, at, serial, region, subnet, zone, cause)


def _group(
    name: str, instance: str, group: str, at: datetime, serial: int, region: str, subnet: str, zone: str, cause: str
) -> Event:
    event = _envelope(name, at, serial, region)
    detail = event["detail"]
    event["resources"] = [
        event["resources"][0].replace("my-asg", group).replace(REGION, region),
        _arn(instance, region),
    ]
    detail |= {
        "Description": detail["Description"].replace(detail["EC2InstanceId"], instance),
        "AutoScalingGroupName": group,
        "EC2InstanceId": instance,
        "StartTime": event["time"],
        "EndTime": event["time"],
        "ActivityId": _identity(detail["ActivityId"], serial),
        "RequestId": _identity(detail["RequestId"], serial),
        "Cause": cause or detail["Cause"],
        "Details": {"Availability Zone": zone or f"{region}a", "Subnet ID": subnet or detail["Details"]["Subnet ID"]},
    }
    return event


def tag_change(
    instance: str,
    changed: Iterable[str],
    tags: Mapping[str, str],
    *,
    version: int,
    at: datetime,
    serial: int = 0,
    region: str = REGION,
) -> Event:
    event = _envelope("tag-change", at, serial, region)
    event["resources"] = [_arn(instance, region)]
    event["detail"] |= {"changed-tag-keys": list(changed), "tags": dict(tags), "version": version}
    return event


def attach_interface(
    instance: str,
    interface: str,
    device_index: int,
    attachment: str,
    *,
    at: datetime,
    serial: int = 0,
    region: str = REGION,
) -> Event:
    event = _trail("cloudtrail-attach-network-interface", at, serial, region)
    event["detail"]["requestParameters"] = {
        "networkInterfaceId": interface,
        "instanceId": instance,
        "deviceIndex": device_index,
    }
    event["detail"]["responseElements"]["attachmentId"] = attachment
    return event


def detach_interface(attachment: str, *, at: datetime, serial: int = 0, region: str = REGION) -> Event:
    """It names the attachment alone: neither the instance nor the interface."""
    event = _trail("cloudtrail-detach-network-interface", at, serial, region)
    event["detail"]["requestParameters"]["attachmentId"] = attachment
    return event


def _trail(name: str, at: datetime, serial: int, region: str) -> Event:
    event = _envelope(name, at, serial, region)
    event["detail"] |= {"eventTime": event["time"], "awsRegion": region, "eventID": event["id"]}
    return event


def parameter_change(
    name: str, operation: str = "Update", *, at: datetime, serial: int = 0, region: str = REGION
) -> Event:
    event = _envelope("parameter-store-change", at, serial, region)
    event["resources"] = [f"arn:aws:ssm:{region}:{ACCOUNT}:parameter/{name.lstrip('/')}"]
    event["detail"] |= {"name": name, "operation": operation}
    return event


def scheduled(*, at: datetime, serial: int = 0, region: str = REGION) -> Event:
    event = _envelope("scheduled", at, serial, region)
    event["resources"] = [event["resources"][0].replace(REGION, region)]
    return event


def guardduty_finding(
    instance: str,
    kind: str = "Backdoor:EC2/C&CActivity.B!DNS",
    severity: float = 8,
    *,
    at: datetime,
    serial: int = 0,
    region: str = REGION,
) -> Event:
    event = _envelope("guardduty-finding", at, serial, region)
    detail = event["detail"]
    detail |= {"type": kind, "severity": severity, "region": region, "updatedAt": event["time"]}
    detail["resource"]["instanceDetails"]["instanceId"] = instance
    return event


def custom_resource(kind: str, *, response_url: str, serial: int = 0) -> Event:
    """CloudFormation's request; `kind` is Create, Update or Delete."""
    event = sample(f"custom-resource-{kind.lower()}")
    return event | {"ResponseURL": response_url, "RequestId": _identity(event["RequestId"], serial)}


def sqs_batch(events: Iterable[Mapping[str, Any]], *, received: int = 1) -> Event:
    """Events as the queue hands them to the function."""
    record = sample("sqs-batch")["Records"][0]
    return {"Records": [_record(record, number, event, received) for number, event in enumerate(events)]}


def _record(shape: Event, number: int, event: Mapping[str, Any], received: int) -> Event:
    body = json.dumps(event)
    return shape | {
        "messageId": _identity(shape["messageId"], number),
        "receiptHandle": f"{shape['receiptHandle']}{number}",
        "body": body,
        "md5OfBody": hashlib.md5(body.encode()).hexdigest(),
        "attributes": shape["attributes"] | {"ApproximateReceiveCount": str(received)},
    }


def _envelope(name: str, at: datetime, serial: int, region: str) -> Event:
    event = sample(name)
    return event | {
        "id": _identity(event["id"], serial),
        "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": region,
        "account": ACCOUNT,
    }


def _identity(shape: str, serial: int) -> str:
    """An id of the same shape for each serial number."""
    return f"{shape[:-12]}{serial:012x}"


def _arn(instance: str, region: str) -> str:
    return f"arn:aws:ec2:{region}:{ACCOUNT}:instance/{instance}"
