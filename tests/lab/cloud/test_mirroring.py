"""The model against AWS's documented behaviour, row by row. What page a rule rests on stands in the model itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cloud.api import ACTIONS
from lab.cloud.faults import ApiError
from lab.cloud.mirroring import NetworkInterface, Quotas, TrafficMirroring

NLB = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/mirror/0123456789abcdef"


@dataclass
class Region:
    """Interfaces, load balancers and endpoints that exist."""

    interfaces: dict[str, NetworkInterface] = field(default_factory=dict)
    others: set[str] = field(default_factory=lambda: {NLB, "vpce-1"})

    def interface(self, name: str) -> NetworkInterface | None:
        return self.interfaces.get(name)

    def load_balancer(self, arn: str) -> bool:
        return arn in self.others

    def endpoint(self, name: str) -> bool:
        return name in self.others


class Scene:
    """A model with interfaces eni-0 … eni-199, a target of each kind and a filter."""

    def __init__(self, quotas: Quotas | None = None, target_type: str = "m5.large") -> None:
        interfaces = {f"eni-{n}": NetworkInterface(f"eni-{n}", "m5.large") for n in range(200)}
        interfaces["eni-target"] = NetworkInterface("eni-target", target_type)
        self.region = Region(interfaces)
        self.model = TrafficMirroring(self.region, quotas=quotas)
        self.nlb = self.target(NetworkLoadBalancerArn=NLB)
        self.eni = self.target(NetworkInterfaceId="eni-target")
        self.endpoint = self.target(GatewayLoadBalancerEndpointId="vpce-1")
        self.filter: str = self.call("CreateTrafficMirrorFilter")["TrafficMirrorFilter"]["TrafficMirrorFilterId"]

    def call(self, action: str, **parameters: Any) -> dict[str, Any]:
        return self.model.call(action, parameters)

    def target(self, **parameters: Any) -> str:
        made = self.call("CreateTrafficMirrorTarget", **parameters)
        identity: str = made["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
        return identity

    def parameters(self, interface: str = "eni-0", number: int = 1, **more: Any) -> dict[str, Any]:
        plain = {"TrafficMirrorTargetId": self.nlb, "TrafficMirrorFilterId": self.filter}
        return {**plain, "NetworkInterfaceId": interface, "SessionNumber": number, **more}

    def create(self, interface: str = "eni-0", number: int = 1, **more: Any) -> dict[str, Any]:
        made = self.call("CreateTrafficMirrorSession", **self.parameters(interface, number, **more))
        session: dict[str, Any] = made["TrafficMirrorSession"]
        return session

    def modify(self, session: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        named = {"TrafficMirrorSessionId": session["TrafficMirrorSessionId"], **changes}
        changed: dict[str, Any] = self.call("ModifyTrafficMirrorSession", **named)["TrafficMirrorSession"]
        return changed

    def delete(self, session: Mapping[str, Any]) -> None:
        self.call("DeleteTrafficMirrorSession", TrafficMirrorSessionId=session["TrafficMirrorSessionId"])

    def sessions(self, **parameters: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("DescribeTrafficMirrorSessions", **parameters)["TrafficMirrorSessions"]
        return found

    def rule(self, number: int = 1, **more: Any) -> dict[str, Any]:
        plain = {"TrafficDirection": "ingress", "RuleAction": "accept", "TrafficMirrorFilterId": self.filter}
        plain |= {"SourceCidrBlock": "0.0.0.0/0", "DestinationCidrBlock": "10.0.0.0/8"}
        made = self.call("CreateTrafficMirrorFilterRule", **{**plain, "RuleNumber": number, **more})
        rule: dict[str, Any] = made["TrafficMirrorFilterRule"]
        return rule


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value.code


def tags(**pairs: str) -> list[dict[str, Any]]:
    return [{"ResourceType": "traffic-mirror-session", "Tags": [{"Key": k, "Value": v} for k, v in pairs.items()]}]


# Shapes


def test_a_session_has_the_shape_of_the_api() -> None:
    scene = Scene()
    session = scene.create(VirtualNetworkId=7, Description="web", TagSpecifications=tags(a="b"))
    assert session.pop("TrafficMirrorSessionId").startswith("tms-")
    assert session == {
        "TrafficMirrorTargetId": scene.nlb,
        "TrafficMirrorFilterId": scene.filter,
        "NetworkInterfaceId": "eni-0",
        "OwnerId": "123456789012",
        "PacketLength": 8500,
        "SessionNumber": 1,
        "VirtualNetworkId": 7,
        "Description": "web",
        "Tags": [{"Key": "a", "Value": "b"}],
    }


def test_a_target_has_the_shape_of_the_api() -> None:
    scene = Scene()
    found = scene.call("DescribeTrafficMirrorTargets")["TrafficMirrorTargets"]
    assert [(target["Type"], target["OwnerId"], target["Tags"]) for target in found] == [
        ("network-load-balancer", "123456789012", []),
        ("network-interface", "123456789012", []),
        ("gateway-load-balancer-endpoint", "123456789012", []),
    ]
    assert [found[0]["NetworkLoadBalancerArn"], found[1]["NetworkInterfaceId"]] == [NLB, "eni-target"]
    assert all(target["TrafficMirrorTargetId"].startswith("tmt-") for target in found)


def test_a_filter_shows_its_rules_by_direction_in_their_order() -> None:
    scene = Scene()
    scene.rule(20)
    scene.rule(10, Protocol=6, DestinationPortRange={"FromPort": 80, "ToPort": 81}, Description="http")
    scene.rule(10, TrafficDirection="egress")
    [found] = scene.call("DescribeTrafficMirrorFilters")["TrafficMirrorFilters"]
    assert [rule["RuleNumber"] for rule in found["IngressFilterRules"]] == [10, 20]
    assert [rule["RuleNumber"] for rule in found["EgressFilterRules"]] == [10]
    assert found["IngressFilterRules"][0]["DestinationPortRange"] == {"FromPort": 80, "ToPort": 81}
    assert found["IngressFilterRules"][0]["TrafficMirrorFilterRuleId"].startswith("tmfr-")
    assert found["TrafficMirrorFilterId"].startswith("tmf-") and found["NetworkServices"] == []


def test_an_answer_is_the_callers_to_keep() -> None:
    scene = Scene()
    scene.create()["SessionNumber"] = 99
    scene.sessions()[0]["Tags"].append({"Key": "a", "Value": "b"})
    assert [(session["SessionNumber"], session["Tags"]) for session in scene.sessions()] == [(1, [])]


# Creating sessions: values

WRONG = [
    ({"SessionNumber": 0}, "InvalidParameterValue"),
    ({"SessionNumber": 32767}, "InvalidParameterValue"),
    ({"PacketLength": 0}, "InvalidParameterValue"),
    ({"PacketLength": 8501}, "InvalidParameterValue"),
    ({"VirtualNetworkId": -1}, "InvalidParameterValue"),
    ({"VirtualNetworkId": 1 << 24}, "InvalidParameterValue"),
    ({"NetworkInterfaceId": "eni-unknown"}, "InvalidNetworkInterfaceID.NotFound"),
    ({"TrafficMirrorTargetId": "tmt-0"}, "InvalidTrafficMirrorTargetId.NotFound"),
    ({"TrafficMirrorFilterId": "tmf-0"}, "InvalidTrafficMirrorFilterId.NotFound"),
    ({"NetworkInterfaceId": None}, "MissingParameter"),
    ({"Colour": "green"}, "UnknownParameter"),
    ({"ClientToken": "x" * 65}, "InvalidParameterValue"),
    ({"ClientToken": "é"}, "InvalidParameterValue"),
    ({"TagSpecifications": [{"ResourceType": "instance", "Tags": []}]}, "InvalidParameterValue"),
    ({"TagSpecifications": tags(**{"aws:x": "y"})}, "InvalidParameterValue"),
    ({"TagSpecifications": tags(**{"": "y"})}, "InvalidParameterValue"),
    ({"TagSpecifications": tags(**{"k" * 129: "y"})}, "InvalidParameterValue"),
    ({"TagSpecifications": tags(k="v" * 257)}, "InvalidParameterValue"),
    ({"TagSpecifications": tags(**{f"k{n}": "" for n in range(51)})}, "TagLimitExceeded"),
]


@pytest.mark.parametrize(("wrong", "code"), WRONG)
def test_create_session_refuses(wrong: dict[str, Any], code: str) -> None:
    scene = Scene()
    parameters = {**scene.parameters(), **wrong}
    assert refused(lambda: scene.call("CreateTrafficMirrorSession", **parameters)) == code
    assert scene.sessions() == []


@pytest.mark.parametrize(
    "right",
    [
        {"number": 32766},
        {"PacketLength": 1},
        {"PacketLength": 8500},
        {"VirtualNetworkId": 0},
        {"VirtualNetworkId": (1 << 24) - 1},
        {"TagSpecifications": tags(**{"k" * 128: "v" * 256})},
        {"TagSpecifications": tags(**{f"k{n}": "" for n in range(50)})},
        {"ClientToken": "x" * 64},
    ],
)
def test_create_session_takes(right: dict[str, Any]) -> None:
    scene = Scene()
    session = scene.create(**right)
    assert scene.sessions() == [session]


def test_packet_length_depends_on_the_target() -> None:
    scene = Scene()
    assert scene.create()["PacketLength"] == 8500
    assert "PacketLength" not in scene.create("eni-1", TrafficMirrorTargetId=scene.eni)
    assert "PacketLength" not in scene.create("eni-2", TrafficMirrorTargetId=scene.endpoint)
    assert scene.create("eni-3", TrafficMirrorTargetId=scene.eni, PacketLength=9001)["PacketLength"] == 9001


def test_a_vni_that_nobody_asks_for_is_unique_in_the_account() -> None:
    scene = Scene()
    vnis = [scene.create(f"eni-{n}")["VirtualNetworkId"] for n in range(50)]
    assert len(set(vnis)) == 50 and all(0 <= vni < 1 << 24 for vni in vnis)


def test_the_same_vni_may_be_asked_for_often() -> None:
    scene = Scene()
    assert [scene.create(f"eni-{n}", VirtualNetworkId=5)["VirtualNetworkId"] for n in range(3)] == [5, 5, 5]


# Creating sessions: sources


@pytest.mark.parametrize(
    "interface",
    [
        NetworkInterface("eni-x", "t2.micro"),
        NetworkInterface("eni-x", "m8g.large"),
        NetworkInterface("eni-x", "m7i.metal-24xl"),
        NetworkInterface("eni-x", ""),
        NetworkInterface("eni-x", "m5.large", kind="nat_gateway"),
        NetworkInterface("eni-x", "m5.large", requester_managed=True),
    ],
)
def test_what_cannot_be_a_source(interface: NetworkInterface) -> None:
    scene = Scene()
    scene.region.interfaces["eni-x"] = interface
    assert refused(lambda: scene.create("eni-x")) == "NetworkInterfaceNotSupported"


@pytest.mark.parametrize("instance_type", ["m5.large", "m5.metal", "t3.nano", "u-6tb1.56xlarge", "m4.large"])
def test_what_can_be_a_source(instance_type: str) -> None:
    scene = Scene()
    scene.region.interfaces["eni-x"] = NetworkInterface("eni-x", instance_type)
    assert scene.create("eni-x")


def test_an_interface_is_a_source_or_a_target_but_not_both() -> None:
    scene = Scene()
    scene.create("eni-0")
    assert refused(lambda: scene.create("eni-target")) == "InvalidNetworkInterface.InUse"
    assert refused(lambda: scene.target(NetworkInterfaceId="eni-0")) == "InvalidNetworkInterface.InUse"
    scene.delete(scene.sessions()[0])
    assert scene.target(NetworkInterfaceId="eni-0")


# Limits


def test_three_sessions_on_an_interface() -> None:
    scene = Scene()
    for number in (1, 2, 3):
        scene.create("eni-0", number)
    assert refused(lambda: scene.create("eni-0", 4)) == "TrafficMirrorSessionsPerInterfaceLimitExceeded"
    scene.delete(scene.sessions()[1])
    assert scene.create("eni-0", 4)


def test_a_number_is_used_once_on_an_interface() -> None:
    scene = Scene()
    first = scene.create("eni-0", 1)
    scene.create("eni-1", 1)
    assert refused(lambda: scene.create("eni-0", 1)) == "InvalidParameterValue"
    second = scene.create("eni-0", 2)
    scene.model.number_taken = "SomethingElse"
    assert refused(lambda: scene.modify(second, SessionNumber=1)) == "SomethingElse"
    assert scene.modify(first, SessionNumber=1)["SessionNumber"] == 1


@pytest.mark.parametrize(("target_type", "most"), [("m5.large", 10), ("m5.24xlarge", 100)])
def test_sources_of_an_interface_target(target_type: str, most: int) -> None:
    scene = Scene(target_type=target_type)
    for n in range(most):
        scene.create(f"eni-{n}", TrafficMirrorTargetId=scene.eni)
    full = "TrafficMirrorSourcesPerTargetLimitExceeded"
    assert refused(lambda: scene.create("eni-150", TrafficMirrorTargetId=scene.eni)) == full
    elsewhere = scene.create("eni-150")
    assert refused(lambda: scene.modify(elsewhere, TrafficMirrorTargetId=scene.eni)) == full
    assert scene.create("eni-0", 2, TrafficMirrorTargetId=scene.eni)  # a source is counted once


def test_a_full_target_whose_interface_is_gone_still_has_its_limit() -> None:
    scene = Scene()
    del scene.region.interfaces["eni-target"]
    for n in range(10):
        scene.create(f"eni-{n}", TrafficMirrorTargetId=scene.eni)
    full = "TrafficMirrorSourcesPerTargetLimitExceeded"
    assert refused(lambda: scene.create("eni-10", TrafficMirrorTargetId=scene.eni)) == full


def test_load_balancers_and_endpoints_take_any_number_of_sources() -> None:
    scene = Scene()
    for n in range(101):
        scene.create(f"eni-{n}", 1)
        scene.create(f"eni-{n}", 2, TrafficMirrorTargetId=scene.endpoint)


def test_limits_of_an_account() -> None:
    scene = Scene(Quotas(sessions=1, targets=3, filters=1))
    scene.create("eni-0")
    assert refused(lambda: scene.create("eni-1")) == "TrafficMirrorSessionLimitExceeded"
    assert refused(lambda: scene.target(NetworkLoadBalancerArn=NLB)) == "TrafficMirrorTargetLimitExceeded"
    assert refused(lambda: scene.call("CreateTrafficMirrorFilter")) == "TrafficMirrorFilterLimitExceeded"


def test_the_documented_quotas() -> None:
    assert Quotas() == Quotas(10_000, 3, 10_000, 10_000, 10, 50)


# Modifying and deleting sessions


def test_modify_changes_what_it_names() -> None:
    scene = Scene()
    session = scene.create(VirtualNetworkId=1)
    other = scene.call("CreateTrafficMirrorFilter")["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
    changes = {"TrafficMirrorTargetId": scene.eni, "TrafficMirrorFilterId": other, "SessionNumber": 9}
    changes |= {"PacketLength": 100, "VirtualNetworkId": 2, "Description": "new"}
    assert scene.modify(session, **changes) == {**session, **changes}
    assert scene.sessions() == [{**session, **changes}]


def test_removed_fields_return_to_their_defaults() -> None:
    scene = Scene()
    session = scene.create(VirtualNetworkId=1, PacketLength=100, Description="web")
    changed = scene.modify(session, RemoveFields=["packet-length", "description", "virtual-network-id"])
    assert changed["PacketLength"] == 8500 and "Description" not in changed
    assert changed["VirtualNetworkId"] != 1
    assert "PacketLength" not in scene.modify(session, TrafficMirrorTargetId=scene.eni)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"SessionNumber": 0}, "InvalidParameterValue"),
        ({"PacketLength": 8501}, "InvalidParameterValue"),
        ({"VirtualNetworkId": 1 << 24}, "InvalidParameterValue"),
        ({"TrafficMirrorTargetId": "tmt-0"}, "InvalidTrafficMirrorTargetId.NotFound"),
        ({"TrafficMirrorFilterId": "tmf-0"}, "InvalidTrafficMirrorFilterId.NotFound"),
        ({"RemoveFields": ["session-number"]}, "InvalidParameterValue"),
        ({"RemoveFields": ["description"], "Description": "x"}, "InvalidParameterCombination"),
        ({"NetworkInterfaceId": "eni-1"}, "UnknownParameter"),
        ({"ClientToken": "x"}, "UnknownParameter"),
        ({"TrafficMirrorSessionId": "tms-0"}, "InvalidTrafficMirrorSessionId.NotFound"),
    ],
)
def test_modify_session_refuses(changes: dict[str, Any], code: str) -> None:
    scene = Scene()
    session = scene.create()
    assert refused(lambda: scene.modify(session, **changes)) == code
    assert scene.sessions() == [session]


def test_a_length_that_suits_an_interface_does_not_move_to_a_load_balancer() -> None:
    scene = Scene()
    session = scene.create(TrafficMirrorTargetId=scene.eni, PacketLength=9001)
    assert refused(lambda: scene.modify(session, TrafficMirrorTargetId=scene.nlb)) == "InvalidParameterValue"


def test_delete_is_final() -> None:
    scene = Scene()
    session = scene.create()
    scene.delete(session)
    assert scene.sessions() == []
    for call in (partial(scene.delete, session), partial(scene.modify, session, SessionNumber=2)):
        assert refused(call) == "InvalidTrafficMirrorSessionId.NotFound"
    assert refused(lambda: scene.model.put_tags(session["TrafficMirrorSessionId"], {})) == "InvalidID"


def test_a_session_goes_with_its_interface_and_stays_with_its_target() -> None:
    scene = Scene()
    scene.create("eni-0", 1)
    scene.create("eni-0", 2)
    kept = scene.create("eni-1", TrafficMirrorTargetId=scene.eni)
    del scene.region.interfaces["eni-0"], scene.region.interfaces["eni-target"]
    scene.model.interface_deleted("eni-0")
    scene.model.interface_deleted("eni-target")
    scene.model.interface_deleted("eni-without-any")
    assert scene.sessions() == [kept]


# Targets


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, "InvalidParameterCombination"),
        ({"NetworkInterfaceId": "eni-0", "NetworkLoadBalancerArn": NLB}, "InvalidParameterCombination"),
        ({"NetworkInterfaceId": "eni-unknown"}, "InvalidTrafficMirrorTarget"),
        ({"NetworkInterfaceId": "eni-target"}, "InvalidNetworkInterface.InUse"),
        ({"NetworkLoadBalancerArn": NLB.replace("/net/", "/app/")}, "InvalidNetworkLoadBalancerArn.Malformed"),
        ({"NetworkLoadBalancerArn": NLB + "0"}, "InvalidNetworkLoadBalancerArn.NotFound"),
        ({"GatewayLoadBalancerEndpointId": "vpce-0"}, "InvalidVpcEndpointId.NotFound"),
    ],
)
def test_create_target_refuses(parameters: dict[str, str], code: str) -> None:
    scene = Scene()
    assert refused(lambda: scene.target(**parameters)) == code


def test_a_target_in_use_cannot_be_deleted() -> None:
    scene = Scene()
    session = scene.create()
    delete = partial(scene.call, "DeleteTrafficMirrorTarget", TrafficMirrorTargetId=scene.nlb)
    assert refused(delete) == "TrafficMirrorTargetInUseException"
    scene.modify(session, TrafficMirrorTargetId=scene.eni)
    assert delete() == {"TrafficMirrorTargetId": scene.nlb}
    assert refused(delete) == "InvalidTrafficMirrorTargetId.NotFound"


def test_there_is_no_action_to_modify_a_target() -> None:
    assert refused(lambda: Scene().call("ModifyTrafficMirrorTarget")) == "InvalidAction"


# Filters


def test_a_filter_in_use_cannot_be_deleted() -> None:
    scene = Scene()
    rule = scene.rule()
    session = scene.create()
    delete = partial(scene.call, "DeleteTrafficMirrorFilter", TrafficMirrorFilterId=scene.filter)
    assert refused(delete) == "TrafficMirrorFilterInUse"
    scene.delete(session)
    assert delete() == {"TrafficMirrorFilterId": scene.filter}
    assert refused(delete) == "InvalidTrafficMirrorFilterId.NotFound"
    gone = {"TrafficMirrorFilterRuleId": rule["TrafficMirrorFilterRuleId"]}
    assert refused(lambda: scene.call("DeleteTrafficMirrorFilterRule", **gone)).endswith("RuleId.NotFound")


def test_network_services_of_a_filter() -> None:
    scene = Scene()

    def modify(**change: Any) -> Any:
        named = {"TrafficMirrorFilterId": scene.filter, **change}
        return scene.call("ModifyTrafficMirrorFilterNetworkServices", **named)["TrafficMirrorFilter"]["NetworkServices"]

    assert modify(AddNetworkServices=["amazon-dns"]) == modify(AddNetworkServices=["amazon-dns"]) == ["amazon-dns"]
    assert modify(RemoveNetworkServices=["amazon-dns"]) == []
    assert refused(lambda: modify(AddNetworkServices=["amazon-ntp"])) == "InvalidParameterValue"


def test_ten_rules_in_a_filter() -> None:
    scene = Scene()
    for number in range(1, 11):
        scene.rule(number, TrafficDirection="ingress" if number % 2 else "egress")
    assert refused(lambda: scene.rule(11)) == "TrafficMirrorFilterRuleLimitExceeded"


def test_a_rule_number_is_used_once_in_a_direction() -> None:
    scene = Scene()
    scene.rule(1)
    other = scene.rule(1, TrafficDirection="egress")
    exists = "TrafficMirrorFilterRuleAlreadyExists"
    assert refused(lambda: scene.rule(1)) == exists
    change = {"TrafficMirrorFilterRuleId": other["TrafficMirrorFilterRuleId"], "TrafficDirection": "ingress"}
    assert refused(lambda: scene.call("ModifyTrafficMirrorFilterRule", **change)) == exists


@pytest.mark.parametrize(
    "wrong",
    [
        {"RuleNumber": 0},
        {"RuleNumber": 32767},
        {"TrafficDirection": "sideways"},
        {"RuleAction": "drop"},
        {"SourceCidrBlock": "nowhere"},
        {"SourceCidrBlock": "::/0"},
        {"Protocol": 256},
        {"Protocol": 1, "SourcePortRange": {"FromPort": 1, "ToPort": 2}},
        {"DestinationPortRange": {"FromPort": 1, "ToPort": 2}},
        {"Protocol": 6, "SourcePortRange": {"FromPort": 2, "ToPort": 1}},
        {"Protocol": 6, "DestinationPortRange": {"FromPort": 1, "ToPort": 65536}},
        {"Protocol": 6, "DestinationPortRange": {"FromPort": 1}},
    ],
)
def test_rules_that_are_refused(wrong: dict[str, Any]) -> None:
    scene = Scene()
    assert refused(lambda: scene.rule(**{"number": 1} | wrong)) == "InvalidParameterValue"
    right = scene.rule(5)
    change = {"TrafficMirrorFilterRuleId": right["TrafficMirrorFilterRuleId"], **wrong}
    assert refused(lambda: scene.call("ModifyTrafficMirrorFilterRule", **change)) == "InvalidParameterValue"
    assert scene.call("DescribeTrafficMirrorFilterRules")["TrafficMirrorFilterRules"] == [right]


def test_rules_of_both_ip_versions() -> None:
    scene = Scene()
    assert scene.rule(1) and scene.rule(2, SourceCidrBlock="::/0", DestinationCidrBlock="2001:db8::/32")


def test_a_rule_is_modified_and_deleted() -> None:
    scene = Scene()
    rule = scene.rule(1, Protocol=6, SourcePortRange={"FromPort": 1, "ToPort": 2}, Description="x")
    name = {"TrafficMirrorFilterRuleId": rule["TrafficMirrorFilterRuleId"]}
    fields = ["source-port-range", "protocol", "description"]
    changed = scene.call("ModifyTrafficMirrorFilterRule", **name, RuleNumber=7, RemoveFields=fields)
    left = {key: value for key, value in rule.items() if key not in ("SourcePortRange", "Protocol", "Description")}
    assert changed["TrafficMirrorFilterRule"] == {**left, "RuleNumber": 7}
    assert scene.call("DeleteTrafficMirrorFilterRule", **name) == name
    assert scene.call("DescribeTrafficMirrorFilterRules")["TrafficMirrorFilterRules"] == []


def test_rules_are_described_by_filter() -> None:
    scene = Scene()
    other: str = scene.call("CreateTrafficMirrorFilter")["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
    scene.rule(1)
    rule = scene.rule(1, TrafficMirrorFilterId=other, RuleAction="reject", Protocol=17)

    def describe(**by: Any) -> Any:
        return scene.call("DescribeTrafficMirrorFilterRules", **by)["TrafficMirrorFilterRules"]

    assert describe(TrafficMirrorFilterId=other) == [rule]
    for name, value in (("rule-action", "reject"), ("protocol", "17"), ("traffic-mirror-filter-id", other)):
        assert describe(Filters=[{"Name": name, "Values": [value]}]) == [rule]
    assert refused(lambda: describe(TrafficMirrorFilterId="tmf-0")) == "InvalidTrafficMirrorFilterId.NotFound"


# Describing

SESSION_FILTERS = {
    "description": "web",
    "network-interface-id": "eni-0",
    "owner-id": "123456789012",
    "packet-length": "100",
    "session-number": "3",
    "virtual-network-id": "77",
}


@pytest.mark.parametrize(("name", "value"), SESSION_FILTERS.items())
def test_documented_filters_of_sessions(name: str, value: str) -> None:
    scene = Scene()
    session = scene.create("eni-0", 3, Description="web", PacketLength=100, VirtualNetworkId=77)
    other = scene.create("eni-1")
    by = [{"Name": name, "Values": ["none", value]}]
    assert scene.sessions(Filters=by) == ([session, other] if name == "owner-id" else [session])
    assert scene.sessions(Filters=[{"Name": name, "Values": ["none"]}]) == []


@pytest.mark.parametrize("kind", ["session", "target", "filter"])
def test_sessions_are_found_by_the_ids_of_their_parts(kind: str) -> None:
    scene = Scene()
    session = scene.create("eni-0", TrafficMirrorTargetId=scene.eni)
    value = session[f"TrafficMirror{kind.capitalize()}Id"]
    assert scene.sessions(Filters=[{"Name": f"traffic-mirror-{kind}-id", "Values": [value]}]) == [session]


@pytest.mark.parametrize("name", ["tag:mirror:managed-by", "tag-key", "vpc-id", "source"])
def test_filters_that_are_not_documented_are_refused(name: str) -> None:
    scene = Scene()
    by = [{"Name": name, "Values": ["x"]}]
    for kind in ("Sessions", "Targets", "Filters", "FilterRules"):
        assert refused(partial(scene.call, f"DescribeTrafficMirror{kind}", Filters=by)) == "InvalidParameterValue"


def test_documented_filters_of_targets_and_filters() -> None:
    scene = Scene()
    for name, value, found in (
        ("network-interface-id", "eni-target", scene.eni),
        ("network-load-balancer-arn", NLB, scene.nlb),
        ("traffic-mirror-target-id", scene.endpoint, scene.endpoint),
    ):
        by = [{"Name": name, "Values": [value]}]
        [target] = scene.call("DescribeTrafficMirrorTargets", Filters=by)["TrafficMirrorTargets"]
        assert target["TrafficMirrorTargetId"] == found
    described = scene.call("CreateTrafficMirrorFilter", Description="http")["TrafficMirrorFilter"]
    by = [{"Name": "description", "Values": ["http"]}]
    assert scene.call("DescribeTrafficMirrorFilters", Filters=by)["TrafficMirrorFilters"] == [described]


def test_describe_by_ids_knows_them_all_or_fails() -> None:
    scene = Scene()
    session = scene.create("eni-0")
    scene.create("eni-1")
    name = session["TrafficMirrorSessionId"]
    assert scene.sessions(TrafficMirrorSessionIds=[name]) == [session]
    for kind, key in (("Session", "tms-0"), ("Target", "tmt-0"), ("Filter", "tmf-0"), ("FilterRule", "tmfr-0")):
        parameters = {f"TrafficMirror{kind}Ids": [key]}
        missing = refused(partial(scene.call, f"DescribeTrafficMirror{kind}s", **parameters))
        assert missing == f"InvalidTrafficMirror{kind}Id.NotFound"


def test_sessions_come_in_pages() -> None:
    scene = Scene()
    made = [scene.create(f"eni-{n}") for n in range(12)]
    pages: list[list[Any]] = []
    token: dict[str, str] = {}
    while True:
        answer = scene.call("DescribeTrafficMirrorSessions", MaxResults=5, **token)
        pages.append(answer["TrafficMirrorSessions"])
        if "NextToken" not in answer:
            break
        token = {"NextToken": answer["NextToken"]}
    assert [len(page) for page in pages] == [5, 5, 2]
    assert [session for page in pages for session in page] == made


def test_deletes_between_pages_lose_no_other_session() -> None:
    scene = Scene()
    made = [scene.create(f"eni-{n}") for n in range(10)]
    first = scene.call("DescribeTrafficMirrorSessions", MaxResults=5)
    for session in made[:5]:
        scene.delete(session)
    assert scene.sessions(MaxResults=5, NextToken=first["NextToken"]) == made[5:]


# Idempotency


def test_the_same_token_gives_the_same_session_even_after_its_deletion() -> None:
    scene = Scene()
    first = scene.call("CreateTrafficMirrorSession", **scene.parameters(ClientToken="t"))
    again = scene.call("CreateTrafficMirrorSession", **scene.parameters(ClientToken="t"))
    assert first == again and first["ClientToken"] == "t" and len(scene.sessions()) == 1
    scene.delete(first["TrafficMirrorSession"])
    assert scene.call("CreateTrafficMirrorSession", **scene.parameters(ClientToken="t")) == first
    assert scene.sessions() == []


def test_the_same_token_with_other_parameters_is_refused() -> None:
    scene = Scene()
    scene.create(ClientToken="t")
    assert refused(lambda: scene.create(number=2, ClientToken="t")) == "IdempotentParameterMismatch"
    assert scene.call("CreateTrafficMirrorFilter", ClientToken="t")  # tokens are an action's own


def test_the_token_of_a_refused_or_dry_call_is_still_free() -> None:
    scene = Scene()
    assert refused(lambda: scene.create(number=0, ClientToken="t")) == "InvalidParameterValue"
    assert refused(lambda: scene.create(ClientToken="t", DryRun=True)) == "DryRunOperation"
    assert scene.create(ClientToken="t")


# DryRun and permissions


def dry_calls(scene: Scene) -> dict[str, dict[str, Any]]:
    session, rule = scene.create(), scene.rule()
    by_session = {"TrafficMirrorSessionId": session["TrafficMirrorSessionId"]}
    by_rule = {"TrafficMirrorFilterRuleId": rule["TrafficMirrorFilterRuleId"]}
    new_rule = {key: rule[key] for key in rule if key not in ("TrafficMirrorFilterRuleId", "Tags")}
    return {
        "CreateTrafficMirrorTarget": {"NetworkInterfaceId": "eni-9"},
        "DeleteTrafficMirrorTarget": {"TrafficMirrorTargetId": scene.eni},
        "CreateTrafficMirrorFilter": {},
        "DeleteTrafficMirrorFilter": {"TrafficMirrorFilterId": scene.filter},
        "ModifyTrafficMirrorFilterNetworkServices": {
            "TrafficMirrorFilterId": scene.filter,
            "AddNetworkServices": ["amazon-dns"],
        },
        "CreateTrafficMirrorFilterRule": {**new_rule, "RuleNumber": 9},
        "ModifyTrafficMirrorFilterRule": {**by_rule, "RuleNumber": 9},
        "DeleteTrafficMirrorFilterRule": by_rule,
        "CreateTrafficMirrorSession": scene.parameters("eni-9"),
        "ModifyTrafficMirrorSession": {**by_session, "SessionNumber": 9},
        "DeleteTrafficMirrorSession": by_session,
        "DescribeTrafficMirrorTargets": {},
        "DescribeTrafficMirrorFilters": {},
        "DescribeTrafficMirrorFilterRules": {},
        "DescribeTrafficMirrorSessions": {},
    }


def everything(scene: Scene) -> list[Any]:
    return [scene.call(f"DescribeTrafficMirror{kind}s") for kind in ("Target", "Filter", "FilterRule", "Session")]


@pytest.mark.parametrize("action", ACTIONS)
def test_a_dry_run_says_that_it_would_be_allowed_and_does_nothing(action: str) -> None:
    scene = Scene()
    parameters = dry_calls(scene)[action]
    before = everything(scene)
    assert refused(lambda: scene.call(action, **parameters, DryRun=True)) == "DryRunOperation"
    assert everything(scene) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_a_missing_permission_shows_dry_and_in_earnest(action: str) -> None:
    scene = Scene()
    parameters = dry_calls(scene)[action]
    scene.model.deny(action)
    for dry in (True, False):
        assert refused(partial(scene.call, action, **parameters, DryRun=dry)) == "UnauthorizedOperation"


def test_a_dry_run_finds_what_does_not_exist() -> None:
    scene = Scene()
    gone = refused(lambda: scene.create(TrafficMirrorTargetId="tmt-0", DryRun=True))
    assert gone == "InvalidTrafficMirrorTargetId.NotFound"


def test_a_dry_run_does_not_look_at_limits() -> None:
    scene = Scene()
    for number in (1, 2, 3):
        scene.create("eni-0", number)
    assert refused(lambda: scene.create("eni-0", 4, DryRun=True)) == "DryRunOperation"


def test_tags_at_creation_need_permission_for_tags() -> None:
    scene = Scene()
    scene.model.deny("CreateTags", lambda call: call.get("CreateAction") == "CreateTrafficMirrorSession")
    assert refused(lambda: scene.create(TagSpecifications=tags(a="b"))) == "UnauthorizedOperation"
    assert scene.create()


# Tags


def test_tags_are_put_and_removed() -> None:
    scene = Scene()
    name = scene.create(TagSpecifications=tags(a="1"))["TrafficMirrorSessionId"]
    scene.model.put_tags(name, {"a": "2", "b": "3", "c": "4"})
    scene.model.remove_tags(name, {"b": None, "c": "not this", "d": None})
    assert scene.sessions()[0]["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "c", "Value": "4"}]
    assert scene.model.knows(name) and not scene.model.knows("tms-0")


def test_a_resource_bears_fifty_tags() -> None:
    scene = Scene()
    name = scene.create()["TrafficMirrorSessionId"]
    scene.model.put_tags(name, {f"k{n}": "" for n in range(50)})
    scene.model.put_tags(name, {"k0": "changed"})
    assert refused(lambda: scene.model.put_tags(name, {"one": "more"})) == "TagLimitExceeded"
    assert refused(lambda: scene.model.put_tags(name, {"aws:x": "y"})) == "InvalidParameterValue"


# What the cloud does to callers


def test_a_new_session_shows_after_some_looks() -> None:
    scene = Scene()
    scene.model.visible_after = 2
    session = scene.create()
    assert refused(lambda: scene.delete(session)) == "InvalidTrafficMirrorSessionId.NotFound"
    assert refused(lambda: scene.create(number=1)) == "InvalidParameterValue"  # AWS itself knows
    assert [len(scene.sessions()) for _ in range(3)] == [0, 0, 1]
    scene.delete(session)
    assert scene.model.all_sessions() == []


def test_a_deleted_session_shows_for_some_looks() -> None:
    scene = Scene()
    scene.model.lingers = 2
    session, other = scene.create(TagSpecifications=tags(a="b")), scene.create("eni-1")
    scene.delete(session)
    assert scene.sessions() == [session, other]
    assert refused(lambda: scene.delete(session)) == "InvalidTrafficMirrorSessionId.NotFound"
    assert [len(scene.sessions()) for _ in range(2)] == [2, 1]


def test_a_page_is_one_look_however_many_follow() -> None:
    scene = Scene()
    for n in range(6):
        scene.create(f"eni-{n}")
    scene.model.visible_after = 1
    late = scene.create("eni-6")
    first = scene.call("DescribeTrafficMirrorSessions", MaxResults=5)
    assert scene.sessions(MaxResults=5, NextToken=first["NextToken"])[-1] == late


def test_a_lost_answer_is_found_again_by_its_token() -> None:
    scene = Scene()
    scene.model.fail("CreateTrafficMirrorSession", "InternalError", lost=True)
    assert refused(lambda: scene.create(ClientToken="t")) == "InternalError"
    assert scene.sessions() == [scene.create(ClientToken="t")]


def test_a_failure_in_the_middle_of_the_pages() -> None:
    scene = Scene()
    for n in range(6):
        scene.create(f"eni-{n}")
    scene.model.fail("DescribeTrafficMirrorSessions", "RequestLimitExceeded", when=lambda call: "NextToken" in call)
    first = scene.call("DescribeTrafficMirrorSessions", MaxResults=5)
    again = {"MaxResults": 5, "NextToken": first["NextToken"]}
    assert refused(lambda: scene.sessions(**again)) == "RequestLimitExceeded"
    assert len(scene.sessions(**again)) == 1


def test_writes_faster_than_their_bucket_are_throttled() -> None:
    scene, now = Scene(), [0.0]
    scene.model.throttle(lambda: now[0], burst=2, rate=5)
    scene.create("eni-0")
    scene.create("eni-1")
    assert refused(lambda: scene.create("eni-2")) == "RequestLimitExceeded"
    assert len(scene.sessions()) == 2  # reading is not mutating
    now[0] = 0.2
    assert scene.create("eni-2")


def test_those_who_set_up_a_scene_are_not_hindered() -> None:
    scene = Scene()
    scene.model.faults.clear()
    scene.model.fail("*", "InternalError")
    count = len(scene.model.faults.calls)
    scene.model.perform("CreateTrafficMirrorSession", scene.parameters())
    assert len(scene.model.faults.calls) == count
    assert refused(scene.sessions) == "InternalError"


# Whatever happens


STEPS = st.one_of(
    st.tuples(st.just("create"), st.integers(0, 4), st.integers(1, 4), st.sampled_from(["nlb", "eni"])),
    st.tuples(st.just("modify"), st.integers(0, 20), st.integers(1, 4), st.sampled_from(["nlb", "eni"])),
    st.tuples(st.just("delete"), st.integers(0, 20), st.just(0), st.just("")),
    st.tuples(st.just("interface"), st.integers(0, 4), st.just(0), st.just("")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_no_sequence_of_calls_breaks_a_limit(steps: list[tuple[str, int, int, str]]) -> None:
    scene = Scene()
    for action, which, number, kind in steps:
        present = scene.sessions()
        target = getattr(scene, kind) if kind else ""
        try:
            if action == "create":
                scene.create(f"eni-{which}", number, TrafficMirrorTargetId=target)
            elif action == "interface":
                scene.model.interface_deleted(f"eni-{which}")
            elif present and action == "modify":
                scene.modify(present[which % len(present)], SessionNumber=number, TrafficMirrorTargetId=target)
            elif present:
                scene.delete(present[which % len(present)])
        except ApiError:
            assert scene.sessions() == present  # what is refused changes nothing
        found = scene.sessions()
        by_interface: dict[str, list[int]] = {}
        for session in found:
            by_interface.setdefault(session["NetworkInterfaceId"], []).append(session["SessionNumber"])
        assert all(len(numbers) == len(set(numbers)) <= 3 for numbers in by_interface.values())
        assert len({session["VirtualNetworkId"] for session in found}) == len(found)
