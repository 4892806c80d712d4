"""Deeds in a lab that stands, from outside it: EC2's own API, the side doors of the emulator, no more."""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab.cloud.endpoint import Endpoint
from lab.happenings import told
from lab.images import IMAGES

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_TYPE = "m5.large"


class DeedError(Exception):
    """What was asked for cannot be done; the text says why, in a line."""


def reach(environment: Mapping[str, str]) -> Endpoint:
    """Loopback alone: these deeds are not for an AWS account."""
    url = environment.get("AWS_ENDPOINT_URL", "")
    if not url:
        raise DeedError("AWS_ENDPOINT_URL is not set: paste the exports that the lab printed into this terminal")
    if urlsplit(url).hostname not in _LOOPBACK:
        raise DeedError(f"AWS_ENDPOINT_URL is {url}: no lab of this machine")
    return Endpoint(url)


# The deeds: each gives lines to print


def launch(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    ec2 = lab.client("ec2")
    request: dict[str, Any] = {"ImageId": IMAGES[options.image], "InstanceType": _TYPE}
    request |= {"MinCount": options.number, "MaxCount": options.number, "SubnetId": options.subnet or _subnet(ec2)}
    if options.tag:
        request["TagSpecifications"] = [{"ResourceType": "instance", "Tags": _tags(options.tag)}]
    for one in ec2.run_instances(**request)["Instances"]:
        yield f"{one['InstanceId']} {one['State']['Name']} {one.get('PrivateIpAddress', '')}"


def tag(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    instances, tags = _apart(options.words)
    if not tags:
        raise DeedError("which tag? write KEY=VALUE behind the instances")
    lab.client("ec2").create_tags(Resources=instances, Tags=_tags([pair(word) for word in tags]))
    yield from instances


def untag(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    instances, keys = _apart(options.words)
    if not keys:
        raise DeedError("which tag? write its key behind the instances")
    lab.client("ec2").delete_tags(Resources=instances, Tags=[{"Key": key} for key in keys])
    yield from instances


def stop(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    yield from _changed(lab.client("ec2").stop_instances(InstanceIds=options.instances)["StoppingInstances"])


def start(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    yield from _changed(lab.client("ec2").start_instances(InstanceIds=options.instances)["StartingInstances"])


def terminate(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    yield from _changed(lab.client("ec2").terminate_instances(InstanceIds=options.instances)["TerminatingInstances"])


def scale(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    scaling = lab.client("autoscaling")
    groups = {raw["AutoScalingGroupName"]: raw for raw in scaling.describe_auto_scaling_groups()["AutoScalingGroups"]}
    if options.group not in groups:
        raise DeedError(f"no group {options.group!r}; there are: {', '.join(sorted(groups)) or 'none'}")
    group = groups[options.group]
    bounds = {"MinSize": min(group["MinSize"], options.number), "MaxSize": max(group["MaxSize"], options.number)}
    scaling.update_auto_scaling_group(AutoScalingGroupName=options.group, DesiredCapacity=options.number, **bounds)
    yield f"{options.group}: {group['DesiredCapacity']} → {options.number}"


def policy(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    try:
        text = Path(options.file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DeedError(f"{options.file} cannot be read: {error}") from None
    name = f"/{options.stack}/policy"
    answer = lab.client("ssm").put_parameter(Name=name, Value=text, Type="String", Overwrite=True)
    yield f"{name}, version {answer['Version']}: `mirrorctl policy show --stack {options.stack}` tells what is in force"


def sweep(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    lab.door("sweep", {})
    yield "the schedule struck: the control plane looks at everything"


def bus(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    shares = {name: getattr(options, name) for name in ("late", "seconds", "doubled", "shuffled", "lost", "seed")}
    lab.door("bus", shares)
    said = [f"{name} {value:g}" for name, value in shares.items() if value and name != "seed"]
    yield f"events from now on: {', '.join(said) or 'as they come, once and in order'}"


def events(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    for one in lab.events(options.after):
        at = time.strftime("%H:%M:%S", time.localtime(one.time))
        fate = f"{len(one.sent)} of {one.copies} delivered" if one.copies else "lost"
        yield f"{one.number:>5} {at} {told(one.event)} ({fate})"


def status(lab: Endpoint, options: argparse.Namespace) -> Iterator[str]:
    ec2 = lab.client("ec2")
    sessions: dict[str, list[str]] = {}
    for page in ec2.get_paginator("describe_traffic_mirror_sessions").paginate():
        for raw in page["TrafficMirrorSessions"]:
            sessions.setdefault(raw["NetworkInterfaceId"], []).append(raw["TrafficMirrorSessionId"])
    for raw in _instances(ec2):
        own = [one for card in raw.get("NetworkInterfaces", []) for one in sessions.get(card["NetworkInterfaceId"], [])]
        tags = {one["Key"]: one["Value"] for one in raw.get("Tags", [])}
        shown = " ".join(f"{key}={value}" for key, value in sorted(tags.items()) if not key.startswith("aws:"))
        mirrored = ", ".join(own) or "not mirrored"
        address = raw.get("PrivateIpAddress") or ""
        yield f"{raw['InstanceId']} {raw['State']['Name']:<13} {address:<15} {mirrored:<24} {shown}".rstrip()


def _instances(ec2: Any) -> Iterator[dict[str, Any]]:
    for page in ec2.get_paginator("describe_instances").paginate():
        for reservation in page["Reservations"]:
            yield from reservation["Instances"]


def _subnet(ec2: Any) -> str:
    """That of a production instance, the last one launched."""
    found = [raw for raw in _instances(ec2) if raw["ImageId"] == IMAGES["web"] and raw.get("SubnetId")]
    if not found:
        raise DeedError("production has no instance whose subnet could be taken: name one by --subnet")
    subnet: str = max(found, key=lambda raw: raw["LaunchTime"])["SubnetId"]
    return subnet


def _changed(states: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in states:
        yield f"{one['InstanceId']} {one['PreviousState']['Name']} → {one['CurrentState']['Name']}"


def _tags(pairs: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs]


def _apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Instances, and what stands behind them."""
    instances = [word for word in words if word.startswith("i-")]
    if not instances:
        raise DeedError("which instances? write their ids first: i-…")
    return instances, [word for word in words if not word.startswith("i-")]


def pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise DeedError(f"{text!r} is no tag: write KEY=VALUE")
    return key, value
