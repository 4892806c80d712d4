"""All pages of all lists are read, each from the action that has it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lab.fabric.sight import see

ANY = {"SourceCidrBlock": "0.0.0.0/0", "DestinationCidrBlock": "0.0.0.0/0"}
RULE = {"RuleNumber": 1, "RuleAction": "accept", **ANY}


def interface(number: int) -> dict[str, Any]:
    place = {"InstanceId": f"i-{number}", "DeviceIndex": 0}
    address = {"PrivateIpAddress": f"10.0.0.{number}", "MacAddress": f"02:00:00:00:00:0{number}"}
    return {"NetworkInterfaceId": f"eni-{number}", "Attachment": place, **address}


def instance(number: int) -> dict[str, Any]:
    return {"InstanceId": f"i-{number}", "ImageId": "ami-1", "State": {"Name": "running"}}


def session(number: int) -> dict[str, Any]:
    names = {"TrafficMirrorSessionId": f"tms-{number}", "NetworkInterfaceId": f"eni-{number}"}
    to = {"TrafficMirrorTargetId": f"tmt-{number}", "TrafficMirrorFilterId": "tmf-1"}
    return {**names, **to, "SessionNumber": 1, "VirtualNetworkId": 7, "PacketLength": 8500}


class Ec2:
    """One entry on each page."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        mirror_filter = {"TrafficMirrorFilterId": "tmf-1", "IngressFilterRules": [RULE], "EgressFilterRules": []}
        targets = [
            {"TrafficMirrorTargetId": "tmt-1", "NetworkLoadBalancerArn": "arn:lb"},
            {"TrafficMirrorTargetId": "tmt-2", "NetworkInterfaceId": "eni-1"},
        ]
        self._lists: Mapping[str, tuple[str, Sequence[Any]]] = {
            "instances": ("Reservations", [{"Instances": [instance(1)]}, {"Instances": [instance(2)]}]),
            "network_interfaces": ("NetworkInterfaces", [interface(1), interface(2)]),
            "traffic_mirror_sessions": ("TrafficMirrorSessions", [session(1), session(2)]),
            "traffic_mirror_filters": ("TrafficMirrorFilters", [{**mirror_filter}]),
            "traffic_mirror_targets": ("TrafficMirrorTargets", targets),
        }

    def get_paginator(self, action: str) -> "Ec2":
        self.asked.append(action.removeprefix("describe_"))
        return self

    def paginate(self) -> Iterator[dict[str, Any]]:
        key, entries = self._lists[self.asked[-1]]
        yield from ({key: [entry]} for entry in entries)


def test_everything_is_seen() -> None:
    ec2 = Ec2()
    seen = see(ec2)
    assert {name: one.host.interfaces[0].address for name, one in seen.instances.items()} == {
        "i-1": "10.0.0.1",
        "i-2": "10.0.0.2",
    }
    assert {name: (one.balancer, one.address) for name, one in seen.mirroring.sessions.items()} == {
        "tms-1": ("arn:lb", ""),
        "tms-2": ("", "10.0.0.1"),
    }
    assert seen.balancers == {"tmt-1": "arn:lb", "tmt-2": None}


def test_what_a_session_names_is_looked_for_after_it() -> None:
    ec2 = Ec2()
    see(ec2)
    assert ec2.asked.index("traffic_mirror_sessions") < ec2.asked.index("traffic_mirror_filters")
    assert ec2.asked.index("traffic_mirror_sessions") < ec2.asked.index("traffic_mirror_targets")
