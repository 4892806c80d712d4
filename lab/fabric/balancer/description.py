"""What the ELB API says of a load balancer, in the balancer's own words (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.fabric.balancer.checks import Settings
from lab.fabric.balancer.table import Group, Target
from lab.network.mirror import VXLAN_PORT

type Answer = Mapping[str, Any]

_PROTOCOLS = ("UDP", "TCP_UDP")

#: UDP flows of a network load balancer are forgotten after this many idle seconds; it cannot be changed.
IDLE = 120.0


def forwards_to(listeners: Iterable[Answer]) -> str | None:
    """The target group that mirrored packets go to. Of several in one action the first; weights are not followed."""
    for listener in listeners:
        if listener.get("Port") == VXLAN_PORT and listener.get("Protocol") in _PROTOCOLS:
            for action in listener.get("DefaultActions", ()):
                if action["Type"] == "forward":
                    several = action.get("ForwardConfig", {}).get("TargetGroups", ())
                    group: str | None = action.get("TargetGroupArn") or (
                        several[0]["TargetGroupArn"] if several else None
                    )
                    return group
    return None


def group(
    described: Answer,
    attributes: Iterable[Answer],
    registered: Iterable[Answer],
    addresses: Mapping[str, str],
    pace: float,
) -> Group:
    """A target group of DescribeTargetGroups, with its attributes, and its targets of DescribeTargetHealth.

    `addresses` are the instances'. A target without one is none yet; of a target at several ports the first counts.
    """
    values = {attribute["Key"]: attribute["Value"] for attribute in attributes}
    sticky = values.get("stickiness.enabled") == "true" and values.get("stickiness.type") == "source_ip"
    targets: dict[str, Target] = {}
    for one in registered:
        name, port = one["Target"]["Id"], one["Target"].get("Port", described["Port"])
        address = name if described.get("TargetType") == "ip" else addresses.get(name)
        state = one["TargetHealth"]["State"]
        if address and state != "unused":
            targets.setdefault(name, Target(name, address, int(port), state == "draining"))
    in_order = tuple(targets[name] for name in sorted(targets))
    return Group(described["TargetGroupArn"], in_order, settings(described, pace), sticky)


def settings(described: Answer, pace: float) -> Settings:
    """The group's health check, `pace` times as often. An answer has as long as on AWS: this machine carries all."""
    port = described.get("HealthCheckPort", "traffic-port")
    return Settings(
        protocol=described.get("HealthCheckProtocol", "TCP"),
        port=0 if port == "traffic-port" else int(port),
        path=described.get("HealthCheckPath") or "/",
        interval=float(described.get("HealthCheckIntervalSeconds", 30)) / pace,
        timeout=float(described.get("HealthCheckTimeoutSeconds", 10)),
        passes=int(described.get("HealthyThresholdCount", 5)),
        failures=int(described.get("UnhealthyThresholdCount", 2)),
        codes=described.get("Matcher", {}).get("HttpCode") or "200-399",
    )


def shown(registered: Sequence[Answer]) -> dict[str, str]:
    """The state that the API shows of each target that is checked."""
    states = {one["Target"]["Id"]: one["TargetHealth"]["State"] for one in registered}
    return {name: state for name, state in states.items() if state in ("initial", "healthy", "unhealthy")}
