"""What the fabric sees of the account: nothing but the public EC2 API, as anybody could read it.

Sessions are read before filters and targets: what a session names was there before it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.fabric import hosts, sessions
from lab.fabric.hosts import Instance
from lab.fabric.sessions import Mirroring


@dataclass(frozen=True, slots=True)
class Sight:
    """At one time, or nearly."""

    instances: Mapping[str, Instance]
    mirroring: Mirroring
    balancers: Mapping[str, str | None]  # of mirror targets: ARNs


def see(ec2: Any) -> Sight:
    """By a boto3 client. Raises what that raises."""
    found = [entry for part in _pages(ec2, "instances", "Reservations") for entry in part["Instances"]]
    interfaces = list(_pages(ec2, "network_interfaces", "NetworkInterfaces"))
    listed = list(_pages(ec2, "traffic_mirror_sessions", "TrafficMirrorSessions"))
    filters = list(_pages(ec2, "traffic_mirror_filters", "TrafficMirrorFilters"))
    targets = list(_pages(ec2, "traffic_mirror_targets", "TrafficMirrorTargets"))
    addresses = {entry["NetworkInterfaceId"]: entry["PrivateIpAddress"] for entry in interfaces}
    balancers = {entry["TrafficMirrorTargetId"]: entry.get("NetworkLoadBalancerArn") for entry in targets}
    return Sight(hosts.read(found, interfaces), sessions.read(listed, filters, targets, addresses), balancers)


def _pages(ec2: Any, what: str, key: str) -> Iterator[Any]:
    for page in ec2.get_paginator(f"describe_{what}").paginate():
        yield from page[key]
