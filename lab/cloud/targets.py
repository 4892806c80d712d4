"""The health of a target group's targets: what DescribeTargetHealth shows of each, and when.

    registered → initial → as the load balancer reports → (deregistered) draining → gone

Sources: https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html (states and
reasons) and …/latest/network/edit-target-group-attributes.html#deregistration-delay. A report can be late: one about a
target that left, or is leaving, says nothing any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

#: What a load balancer can report of a target.
REPORTED = ("initial", "healthy", "unhealthy")


@dataclass(frozen=True, slots=True)
class Health:
    """In DescribeTargetHealth's words."""

    state: str
    reason: str = ""
    description: str = ""


REGISTERING = Health("initial", "Elb.RegistrationInProgress", "Target registration is in progress")
CHECKING = Health("initial", "Elb.InitialHealthChecking", "Initial health checks in progress")
HEALTHY = Health("healthy")
DRAINING = Health("draining", "Target.DeregistrationInProgress", "Target deregistration is in progress")
ABSENT = Health("unused", "Target.NotRegistered", "Target is not registered to the target group")
IDLE = Health("unused", "Target.NotInUse", "Target group is not configured to receive traffic from the load balancer")


@dataclass(frozen=True, slots=True)
class Target:
    port: int
    health: Health = REGISTERING
    gone: float | None = None  # when the draining is over

    @property
    def draining(self) -> bool:
        return self.gone is not None


type Targets = Mapping[str, Target]


def follow(targets: Targets, registered: Mapping[str, int], now: float, delay: float) -> Targets:
    """The group's targets now, as these are registered at these ports. Whatever is no longer drains for the delay."""
    followed = {}
    for name, target in targets.items():
        if name in registered and not target.draining:
            followed[name] = target
        elif name not in registered:
            gone = now + delay if target.gone is None else target.gone
            if now < gone:
                followed[name] = Target(target.port, DRAINING, gone)
    return followed | {name: Target(port) for name, port in registered.items() if name not in followed}


def told(targets: Targets, name: str, health: Health) -> Targets:
    """The group's targets after a report."""
    target = targets.get(name)
    if target is None or target.draining:
        return targets
    return {**targets, name: replace(target, health=health)}


def reported(state: str, reason: str = "", description: str = "") -> Health:
    """A report as it was made, with the usual words where it has none."""
    if state not in REPORTED:
        raise ValueError(f"a load balancer reports {', '.join(REPORTED)} of a target, not {state!r}")
    if state == "initial" and not reason:
        return CHECKING
    if state == "unhealthy" and not reason:
        return Health(state, "Target.FailedHealthChecks", description or "Health checks failed")
    return Health(state, reason, description)
