"""Our nouns and EC2's words for them: what is missing in an answer, and what is left out of a call."""

from dataclasses import replace
from typing import Any

import pytest

from mirroring import spelling
from mirroring.model import Direction, Instance, Interface, Rule, Session, Target, TargetKind

SESSION = Session("tms-1", "eni-1", "tmt-1", "tmf-1", 1, 77, 200, "i-1", {"b": "2", "a": ""})
BARE = {
    "TrafficMirrorSessionId": "tms-1",
    "NetworkInterfaceId": "eni-1",
    "TrafficMirrorTargetId": "tmt-1",
    "TrafficMirrorFilterId": "tmf-1",
    "SessionNumber": 7,
}


def test_instances_of_all_reservations() -> None:
    def raw(name: str, **more: Any) -> dict[str, Any]:
        return {"InstanceId": name, "State": {"Name": "running"}, "InstanceType": "m5.large", **more}

    def attached(name: str, index: int, **more: Any) -> dict[str, Any]:
        return {"NetworkInterfaceId": name, "Attachment": {"DeviceIndex": index, **more}}

    interfaces = [
        attached("eni-3", 0, NetworkCardIndex=1),
        attached("eni-2", 1),
        attached("eni-4", 2, Status="detaching"),
        {**attached("eni-1", 0, Status="attaching"), "VpcId": "vpc-1", "SubnetId": "subnet-1", "InterfaceType": "efa"},
    ]
    reservations = [{"Instances": [raw("i-1"), raw("i-2", NetworkInterfaces=interfaces)]}, {}]
    assert list(spelling.instances(reservations)) == [
        Instance("i-1", "running", "m5.large"),
        Instance(
            "i-2",
            "running",
            "m5.large",
            interfaces=(
                Interface("eni-1", "i-2", 0, "vpc-1", "subnet-1", "efa"),
                Interface("eni-2", "i-2", 1, "", ""),
                Interface("eni-3", "i-2", 0, "", "", card=1),
            ),
        ),
    ]


def test_a_session_with_no_more_than_it_must_have() -> None:
    assert spelling.session(BARE) == Session("tms-1", "eni-1", "tmt-1", "tmf-1", 7, None, None, "")


def test_an_answer_need_not_repeat_the_tags() -> None:
    told = {"TrafficMirrorSession": {**BARE, "Tags": [{"Key": "a", "Value": "1"}]}}
    assert spelling.written({"TrafficMirrorSession": BARE}, {"b": "2"}).tags == {"b": "2"}
    assert spelling.written(told, {"b": "2"}).tags == {"a": "1"}


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (TargetKind.INTERFACE, "NetworkInterfaceId"),
        (TargetKind.NLB, "NetworkLoadBalancerArn"),
        (TargetKind.ENDPOINT, "GatewayLoadBalancerEndpointId"),
    ],
)
def test_targets(kind: TargetKind, key: str) -> None:
    raw = {"TrafficMirrorTargetId": "tmt-1", "Type": str(kind), key: "x"}
    assert spelling.target(raw) == Target("tmt-1", kind, "x")


def test_a_target_of_a_kind_that_is_new_to_us_is_none() -> None:
    assert spelling.target({"TrafficMirrorTargetId": "tmt-1", "Type": "packet-broker"}) is None


def test_rules_in_the_order_in_which_they_are_evaluated() -> None:
    def rule(way: Direction, number: int, **more: Any) -> dict[str, Any]:
        place = {"TrafficDirection": str(way), "RuleNumber": number, "RuleAction": "accept"}
        return {**place, "SourceCidrBlock": "::/0", "DestinationCidrBlock": "::/0", **more}

    ports = {"Protocol": 6, "DestinationPortRange": {"FromPort": 80, "ToPort": 81}}
    raw = {
        "TrafficMirrorFilterId": "tmf-1",
        "EgressFilterRules": [rule(Direction.EGRESS, 1, Protocol=-1)],
        "IngressFilterRules": [rule(Direction.INGRESS, 2, **ports), rule(Direction.INGRESS, 1, RuleAction="reject")],
    }
    assert spelling.filter_(raw).rules == (
        Rule(Direction.INGRESS, 1, False, "::/0", "::/0"),
        Rule(Direction.INGRESS, 2, True, "::/0", "::/0", 6, None, (80, 81)),
        Rule(Direction.EGRESS, 1, True, "::/0", "::/0"),
    )


def test_a_creation_says_what_is_set() -> None:
    tags = {"ResourceType": "traffic-mirror-session", "Tags": [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "2"}]}
    always = {
        "NetworkInterfaceId": "eni-1",
        "TrafficMirrorTargetId": "tmt-1",
        "TrafficMirrorFilterId": "tmf-1",
        "SessionNumber": 1,
        "TagSpecifications": [tags],
    }
    set_too = {"VirtualNetworkId": 77, "PacketLength": 200, "Description": "i-1"}
    assert spelling.creation(SESSION) == always | set_too
    assert spelling.creation(replace(SESSION, vni=None, packet_length=None, description="")) == always
    assert spelling.creation(replace(SESSION, vni=0))["VirtualNetworkId"] == 0


@pytest.mark.parametrize(
    ("changes", "parameters"),
    [
        ({}, {}),
        ({"tags": {}, "id": "", "interface": "eni-2"}, {}),  # nothing that a modification could change
        ({"number": 2, "target": "tmt-2"}, {"SessionNumber": 2, "TrafficMirrorTargetId": "tmt-2"}),
        ({"vni": None}, {"RemoveFields": ["virtual-network-id"]}),
        ({"vni": 0}, {"VirtualNetworkId": 0}),
        (
            {"filter": "tmf-2", "packet_length": None, "description": ""},
            {"TrafficMirrorFilterId": "tmf-2", "RemoveFields": ["packet-length", "description"]},
        ),
    ],
)
def test_a_modification_says_what_differs(changes: dict[str, Any], parameters: dict[str, Any]) -> None:
    assert spelling.modification(SESSION, replace(SESSION, **changes)) == parameters
