"""The way of a mirrored packet: which addresses and ports are let through, from production's interface to a worker."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import pytest

from lab.cloud.intrinsics import TemplateError
from lab.cloud.stack import Stack
from mirroring.model import STACK_TAG
from replayer.settings import Settings, host_and_port, read_yaml, split_address, validate
from tests.deploy.given import given

BLOCKS = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15"]
GROUPS = ("LoadBalancerSecurityGroup", "WorkerSecurityGroup")


class Opening(NamedTuple):
    protocol: str
    first: int
    last: int
    peer: str


@pytest.fixture(scope="module")
def stack() -> Stack:
    return given()


def settings(stack: Stack) -> Settings:
    return validate(read_yaml(stack.resources["WorkerSettings"].properties["Value"], "WorkerSettings"))


def opening(rule: Mapping[str, Any]) -> Opening:
    (peer,) = (value for key, value in rule.items() if key.startswith(("Cidr", "Source", "Destination")))
    return Opening(rule["IpProtocol"], rule.get("FromPort", 0), rule.get("ToPort", 65535), peer)


def lets_in(stack: Stack, group: str) -> set[Opening]:
    alone = stack.of_type("AWS::EC2::SecurityGroupIngress").values()
    return {
        opening(rule)
        for rule in [
            *stack.resources[group].properties.get("SecurityGroupIngress", []),
            *(rule.properties for rule in alone if rule.properties["GroupId"] == stack.ref(group)),
        ]
    }


def lets_out(stack: Stack, group: str) -> set[Opening]:
    alone = stack.of_type("AWS::EC2::SecurityGroupEgress").values()
    return {
        opening(rule)
        for rule in [
            *stack.resources[group].properties["SecurityGroupEgress"],  # without any, AWS lets everything out
            *(rule.properties for rule in alone if rule.properties["GroupId"] == stack.ref(group)),
        ]
    }


def test_these_are_all_security_groups(stack: Stack) -> None:
    assert stack.of_type("AWS::EC2::SecurityGroup").keys() == set(GROUPS)
    for group in GROUPS:
        assert stack.resources[group].properties["VpcId"] == stack.parameters["HandlerVpcId"]


# From production to the load balancer


@pytest.mark.parametrize("number", range(1, 6))
def test_packets_are_let_in_from_each_named_block_and_nowhere_else(number: int) -> None:
    made = given(MirrorSourceCidrs=",".join(BLOCKS[:number]))
    assert lets_in(made, "LoadBalancerSecurityGroup") == {
        Opening("udp", 4789, 4789, block) for block in BLOCKS[:number]
    }


def test_by_default_packets_are_let_in_from_private_addresses(stack: Stack) -> None:
    assert {each.peer for each in lets_in(stack, "LoadBalancerSecurityGroup")} == set(BLOCKS[:3])  # RFC 1918


def test_a_sixth_block_is_refused() -> None:
    """It would be left out without a word, and all packets from there lost."""
    with pytest.raises(TemplateError, match="MirrorSourceCidrs"):
        _ = given(MirrorSourceCidrs=",".join([*BLOCKS, "203.0.113.0/24"])).resources


def test_the_load_balancer_has_its_group_from_the_start_and_is_not_public(stack: Stack) -> None:
    balancer = stack.resources["NetworkLoadBalancer"].properties
    assert balancer["Type"] == "network"
    assert balancer["Scheme"] == "internal"
    assert balancer.get("IpAddressType", "ipv4") == "ipv4"  # dual stack would need subnets with IPv6
    assert balancer["SecurityGroups"] == [stack.ref("LoadBalancerSecurityGroup")]
    assert balancer["Subnets"] == stack.parameters["HandlerSubnetIds"]
    attributes = {each["Key"]: each["Value"] for each in balancer["LoadBalancerAttributes"]}
    assert attributes["load_balancing.cross_zone.enabled"] == "true"


# From the load balancer to a worker


def test_what_leaves_the_load_balancer_enters_a_worker_and_nothing_else_does(stack: Stack) -> None:
    out, into = lets_out(stack, "LoadBalancerSecurityGroup"), lets_in(stack, "WorkerSecurityGroup")
    assert {each.peer for each in out} == {stack.ref("WorkerSecurityGroup")}
    assert {each.peer for each in into} == {stack.ref("LoadBalancerSecurityGroup")}
    assert {each[:3] for each in out} == {each[:3] for each in into} == {("udp", 4789, 4789), ("tcp", 8080, 8080)}


def test_nobody_logs_in_over_the_network(stack: Stack) -> None:
    for group in GROUPS:
        assert not [each for each in lets_in(stack, group) if each.protocol != "udp" and each.first <= 22 <= each.last]


def test_a_worker_reaches_the_test_environment_wherever_it_is(stack: Stack) -> None:
    """An address of its own may be IPv6: docs/worker.md takes any."""
    out = lets_out(stack, "WorkerSecurityGroup")
    assert {each.peer for each in out} == {"0.0.0.0/0", "::/0"}
    assert {each.protocol for each in out} == {"-1"}


def test_ports_are_those_that_a_worker_listens_on(stack: Stack) -> None:
    listens = settings(stack)
    group = stack.resources["WorkerTargetGroup"].properties
    address, health = split_address(listens.health_address)
    assert address == "0.0.0.0"
    assert group["HealthCheckPort"] == str(health) == "8080"
    assert group["Port"] == listens.vxlan_port == 4789
    assert stack.resources["MirrorListener"].properties["Port"] == listens.vxlan_port
    assert split_address(listens.admin_address)[0] == "127.0.0.1"


def test_the_health_check_asks_what_a_worker_answers(stack: Stack) -> None:
    group = stack.resources["WorkerTargetGroup"].properties
    assert group["HealthCheckProtocol"] == "HTTP"
    assert group["HealthCheckPath"] == "/healthz"
    assert group["HealthCheckTimeoutSeconds"] < group["HealthCheckIntervalSeconds"]
    assert group["Matcher"] == {"HttpCode": "200"}


def test_a_sick_worker_is_found_within_half_a_minute_and_a_new_one_too(stack: Stack) -> None:
    """Packets go to a sick one as long as it is not found; boot waits for what the load balancer says of a new one."""
    group = stack.resources["WorkerTargetGroup"].properties
    for count in ("UnhealthyThresholdCount", "HealthyThresholdCount"):
        assert 2 <= group[count] <= 30 / group["HealthCheckIntervalSeconds"]


def test_packets_go_to_workers_and_a_leaving_one_is_given_time(stack: Stack) -> None:
    group = stack.resources["WorkerTargetGroup"].properties
    assert (group["Protocol"], group["TargetType"]) == ("UDP", "instance")
    assert group["VpcId"] == stack.parameters["HandlerVpcId"]
    attributes = {each["Key"]: each["Value"] for each in group["TargetGroupAttributes"]}
    assert attributes == {"deregistration_delay.timeout_seconds": "30"}  # client addresses stay: docs/decisions/0010
    listener = stack.resources["MirrorListener"].properties
    assert listener["Protocol"] == "UDP"
    assert listener["LoadBalancerArn"] == stack.ref("NetworkLoadBalancer")
    assert listener["DefaultActions"] == [{"Type": "forward", "TargetGroupArn": stack.ref("WorkerTargetGroup")}]
    assert stack.resources["WorkerGroup"].properties["TargetGroupARNs"] == [stack.ref("WorkerTargetGroup")]


# What is mirrored


def test_the_target_waits_for_the_listener(stack: Stack) -> None:
    """Without one Traffic Mirroring fails and does not say so."""
    assert "MirrorListener" in stack.needs("TrafficMirrorTarget")
    target = stack.resources["TrafficMirrorTarget"].properties
    assert target["NetworkLoadBalancerArn"] == stack.ref("NetworkLoadBalancer")


@pytest.mark.parametrize("resource", ["TrafficMirrorTarget", "TrafficMirrorFilter"])
def test_target_and_filter_bear_the_stacks_tag(stack: Stack, resource: str) -> None:
    """Roles may use no other (docs/permissions.md)."""
    tags = {tag["Key"]: tag["Value"] for tag in stack.resources[resource].properties["Tags"]}
    assert tags[STACK_TAG] == "replay"


def rules(stack: Stack) -> list[Mapping[str, Any]]:
    return [rule.properties for rule in stack.of_type("AWS::EC2::TrafficMirrorFilterRule").values()]


@pytest.mark.parametrize("port", ["80", "8080"])
def test_requests_to_the_port_are_mirrored_and_nothing_else(port: str) -> None:
    stack = given(FilterByDestinationPort=port)
    found = rules(stack)
    assert {rule["SourceCidrBlock"] for rule in found} == {"0.0.0.0/0", "::/0"}
    assert len({rule["RuleNumber"] for rule in found}) == len(found) == 2
    for rule in found:
        assert rule["TrafficMirrorFilterId"] == stack.ref("TrafficMirrorFilter")
        assert (rule["TrafficDirection"], rule["RuleAction"], rule["Protocol"]) == ("ingress", "accept", 6)
        assert rule["DestinationPortRange"] == {"FromPort": port, "ToPort": port}
        assert "SourcePortRange" not in rule
        assert (":" in rule["SourceCidrBlock"]) == (":" in rule["DestinationCidrBlock"])
    assert settings(stack).http_ports == (int(port),)


@pytest.mark.parametrize(
    ("source", "destination"),
    [("10.1.0.0/16", "0.0.0.0/0"), ("0.0.0.0/0", "10.2.0.0/16"), ("10.1.0.0/16", "10.2.0.0/16")],
)
def test_ipv6_is_mirrored_only_while_nothing_is_left_out(source: str, destination: str) -> None:
    (rule,) = rules(given(FilterBySourceCidrBlock=source, FilterByDestinationCidrBlock=destination))
    assert (rule["SourceCidrBlock"], rule["DestinationCidrBlock"]) == (source, destination)


def test_workers_do_not_mirror_what_they_send(stack: Stack) -> None:
    """A worker's own group is told to functions, which leave it out."""
    for function in ("ReconcileFunction", "AutotagFunction"):
        variables = stack.resources[function].properties["Environment"]["Variables"]
        assert variables["WORKER_GROUPS"] == stack.ref("WorkerGroup")


def test_the_destination_is_the_one_given(stack: Stack) -> None:
    (destination,) = settings(stack).destinations
    assert host_and_port(destination.url) == ("test.internal", 80)
