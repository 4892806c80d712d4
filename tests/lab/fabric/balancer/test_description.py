"""Answers of the ELB API, as boto3 gives them."""

from typing import Any

from lab.fabric.balancer.checks import Settings
from lab.fabric.balancer.description import forwards_to, group, settings, shown
from lab.fabric.balancer.table import Target

FORWARD = {"Type": "forward", "TargetGroupArn": "tg"}
ADDRESSES = {"i-1": "10.0.1.1", "i-2": "10.0.1.2", "i-3": "10.0.1.3"}
GROUP: dict[str, Any] = {
    "TargetGroupArn": "tg",
    "Port": 4789,
    "TargetType": "instance",
    "HealthCheckProtocol": "HTTP",
    "HealthCheckPort": "8080",
    "HealthCheckPath": "/healthz",
    "HealthCheckIntervalSeconds": 10,
    "HealthCheckTimeoutSeconds": 6,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 2,
    "Matcher": {"HttpCode": "200"},
}


def registered(name: str, state: str, port: int = 4789) -> dict[str, Any]:
    return {"Target": {"Id": name, "Port": port}, "TargetHealth": {"State": state}}


def test_mirrored_packets_take_the_udp_listener_on_4789_alone() -> None:
    udp = {"Port": 4789, "Protocol": "UDP", "DefaultActions": [FORWARD]}
    several = {"Type": "forward", "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": "a"}, {"TargetGroupArn": "b"}]}}

    assert forwards_to([{"Port": 53, "Protocol": "UDP", "DefaultActions": [several]}, udp]) == "tg"
    assert forwards_to([{**udp, "Protocol": "TCP_UDP", "DefaultActions": [several]}]) == "a"
    assert forwards_to([{**udp, "Protocol": "TCP"}]) is None
    assert forwards_to([{**udp, "Port": 4788}]) is None
    assert forwards_to([]) is None


def test_checks_pass_as_fast_as_time_but_patience_does_not() -> None:
    assert settings(GROUP, 1.0) == Settings("HTTP", 8080, "/healthz", 10.0, 6.0, 2, 2, "200")
    assert settings(GROUP, 10.0) == Settings("HTTP", 8080, "/healthz", 1.0, 6.0, 2, 2, "200")
    assert settings({"HealthCheckPort": "traffic-port"}, 1.0) == Settings("TCP", 0, "/", 30.0, 10.0, 5, 2, "200-399")


def test_targets_are_instances_with_an_address_draining_ones_too() -> None:
    health = [
        registered("i-2", "draining"),
        registered("i-1", "healthy"),
        registered("i-1", "healthy", 4790),
        registered("i-3", "unused"),
        registered("i-4", "initial"),  # its address is not known yet
    ]

    assert group(GROUP, [], health, ADDRESSES, 1.0).targets == (
        Target("i-1", "10.0.1.1", 4789),
        Target("i-2", "10.0.1.2", 4789, draining=True),
    )


def test_with_target_type_ip_the_name_is_the_address() -> None:
    described = {**GROUP, "TargetType": "ip"}

    assert group(described, [], [registered("10.9.9.9", "initial")], {}, 1.0).targets == (
        Target("10.9.9.9", "10.9.9.9", 4789),
    )


def test_stickiness_is_by_source_address_when_it_is_on() -> None:
    on, by = {"Key": "stickiness.enabled", "Value": "true"}, {"Key": "stickiness.type", "Value": "source_ip"}

    assert group(GROUP, [on, by], [], {}, 1.0).by_address
    assert not group(GROUP, [{**on, "Value": "false"}, by], [], {}, 1.0).by_address
    assert not group(GROUP, [], [], {}, 1.0).by_address


def test_only_states_that_checks_decide_are_compared() -> None:
    health = [registered("i-1", "healthy"), registered("i-2", "draining"), registered("i-3", "unused")]

    assert shown(health) == {"i-1": "healthy"}
