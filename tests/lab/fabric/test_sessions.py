"""What sessions mean, read from the answers of the strict model: nothing here invents a shape of the API."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest

from lab.cloud.mirroring import NetworkInterface, TrafficMirroring
from lab.fabric.bpf import Rule, program
from lab.fabric.sessions import Mirroring, Session, read

BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/mirror/0123456789abcdef"
EVERYTHING = ip_network("0.0.0.0/0")


class Account:
    """Three interfaces, a load balancer and an endpoint."""

    addresses: Mapping[str, str] = {"eni-1": "10.0.0.4", "eni-2": "10.0.0.5", "eni-3": "10.0.0.6"}

    def interface(self, name: str) -> NetworkInterface | None:
        return NetworkInterface(name, "c5.large") if name in self.addresses else None

    def load_balancer(self, arn: str) -> bool:
        return arn == BALANCER

    def endpoint(self, name: str) -> bool:
        return name == "vpce-1"


@pytest.fixture
def model() -> TrafficMirroring:
    return TrafficMirroring(Account())


def target(model: TrafficMirroring, **named: str) -> str:
    name: str = model.call("CreateTrafficMirrorTarget", named)["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
    return name


def filters(model: TrafficMirroring) -> str:
    name: str = model.call("CreateTrafficMirrorFilter", {})["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
    return name


def rule(model: TrafficMirroring, name: str, number: int, direction: str = "ingress", **more: Any) -> None:
    blocks = {"SourceCidrBlock": "0.0.0.0/0", "DestinationCidrBlock": "0.0.0.0/0"}
    about = {"TrafficMirrorFilterId": name, "RuleNumber": number, "TrafficDirection": direction}
    model.call("CreateTrafficMirrorFilterRule", {"RuleAction": "accept"} | blocks | about | more)


def session(model: TrafficMirroring, to: str, by: str, interface: str = "eni-1", number: int = 1, **more: Any) -> str:
    names = {"NetworkInterfaceId": interface, "TrafficMirrorTargetId": to, "TrafficMirrorFilterId": by}
    answer = model.call("CreateTrafficMirrorSession", names | {"SessionNumber": number} | more)
    name: str = answer["TrafficMirrorSession"]["TrafficMirrorSessionId"]
    return name


def seen(model: TrafficMirroring, addresses: Mapping[str, str] = Account.addresses) -> Mirroring:
    lists = [
        model.call(f"DescribeTrafficMirror{kind}", {})[f"TrafficMirror{kind}"]
        for kind in ("Sessions", "Filters", "Targets")
    ]
    for entry in lists[1]:  # nothing says that rules are listed in order
        entry["IngressFilterRules"].reverse()
    return read(lists[0], lists[1], lists[2], addresses)


def test_a_session_to_a_load_balancer(model: TrafficMirroring) -> None:
    by = filters(model)
    rule(model, by, 10, Protocol=6, DestinationPortRange={"FromPort": 80, "ToPort": 80})
    name = session(model, target(model, NetworkLoadBalancerArn=BALANCER), by, VirtualNetworkId=7, number=3)

    web = program([Rule(True, EVERYTHING, EVERYTHING, 6, None, (80, 80))])
    assert seen(model) == Mirroring({name: Session(name, "eni-1", 3, 7, BALANCER, "", 8500, web, ())}, {})


def test_a_session_to_an_interface_goes_to_its_address(model: TrafficMirroring) -> None:
    name = session(model, target(model, NetworkInterfaceId="eni-2"), filters(model), PacketLength=100)

    found = seen(model).sessions[name]
    assert (found.balancer, found.address, found.packet_length) == ("", "10.0.0.5", 100)


def test_rules_come_in_the_order_of_their_numbers_each_in_its_direction(model: TrafficMirroring) -> None:
    by = filters(model)
    rule(model, by, 200, SourceCidrBlock="10.0.0.7/8")
    rule(model, by, 100, RuleAction="reject", Protocol=17, SourcePortRange={"FromPort": 1, "ToPort": 9})
    rule(model, by, 50, "egress", SourceCidrBlock="::/0", DestinationCidrBlock="2001:db8::/32")
    name = session(model, target(model, NetworkLoadBalancerArn=BALANCER), by)

    found = seen(model).sessions[name]
    reject = Rule(False, EVERYTHING, EVERYTHING, 17, (1, 9))
    assert found.ingress == program([reject, Rule(True, ip_network("10.0.0.0/8"), EVERYTHING)])
    assert found.egress == program([Rule(True, ip_network("::/0"), ip_network("2001:db8::/32"))])


def test_without_a_way_a_session_mirrors_nothing_and_says_why(model: TrafficMirroring) -> None:
    by = filters(model)
    to_interface = session(model, target(model, NetworkInterfaceId="eni-3"), by)
    to_endpoint = session(model, target(model, GatewayLoadBalancerEndpointId="vpce-1"), by, number=2)

    found = seen(model, {"eni-1": "10.0.0.4"})
    assert found.sessions == {}
    assert "eni-3, is not there" in found.idle[to_interface]
    assert "Gateway" in found.idle[to_endpoint]


def test_what_was_deleted_between_two_lists_mirrors_nothing(model: TrafficMirroring) -> None:
    to = target(model, NetworkLoadBalancerArn=BALANCER)
    name = session(model, to, filters(model))
    listed = model.call("DescribeTrafficMirrorSessions", {})["TrafficMirrorSessions"]
    shown = model.call("DescribeTrafficMirrorFilters", {})["TrafficMirrorFilters"]

    assert "target is not there" in read(listed, shown, [], {}).idle[name]
    targets = model.call("DescribeTrafficMirrorTargets", {})["TrafficMirrorTargets"]
    assert "filter" in read(listed, [], targets, {}).idle[name]


def test_a_filter_with_too_many_rules_is_its_sessions_trouble_alone(model: TrafficMirroring) -> None:
    to, long, short = target(model, NetworkLoadBalancerArn=BALANCER), filters(model), filters(model)
    bad, good = session(model, to, long), session(model, to, short, number=2)
    listed, shown, targets = (
        model.call(f"DescribeTrafficMirror{kind}", {})[f"TrafficMirror{kind}"]
        for kind in ("Sessions", "Filters", "Targets")
    )
    block = {"SourceCidrBlock": "10.0.0.0/8", "DestinationCidrBlock": "10.0.0.0/8"}
    [one] = [entry for entry in shown if entry["TrafficMirrorFilterId"] == long]
    one["IngressFilterRules"] = [{"RuleNumber": number, "RuleAction": "accept", **block} for number in range(500)]

    found = read(listed, shown, targets, Account.addresses)
    assert found.sessions.keys() == {good}
    assert "use fewer rules" in found.idle[bad]
