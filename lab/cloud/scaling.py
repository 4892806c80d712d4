"""Auto Scaling's decision: a group, its members, what was found of their instances, and the time → what to do.

A member's way, and what each step needs:

    pending ──running──▸ serving ──leaves──▸ draining ──drained──▸ ending ──terminated──▸ forgotten
       └─────────────────────────leaves─────────────────────────────▴

A member leaves because the group has one too many (the oldest goes), because its instance was stopped or terminated by
hand, or because the load balancer finds it unhealthy after the grace period. One that leaves is replaced at once, as it
no longer counts. The decision follows from what is found at each look, whatever was found before: any report may be
lost, late or doubled.

https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-health-checks.html: an ELB health check counts
after the grace period, which begins when the instance comes into service; a stopped instance is unhealthy.
https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html: AWS first looks at the
zones' balance and the launch template's age. Here the oldest goes: with subnets taken in turn mostly the same.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

#: Launched at one look; the rest at the next ones.
MOST_LAUNCHES = 20
#: Activities that a group remembers; the oldest are forgotten, as AWS's are after six weeks.
MOST_ACTIVITIES = 100


class Phase(Enum):
    """A member's, with the way that DescribeAutoScalingGroups shows it."""

    PENDING = "pending"
    SERVING = "serving"
    DRAINING = "draining"
    ENDING = "ending"


SHOWN: Mapping[Phase, str] = {
    Phase.PENDING: "Pending",
    Phase.SERVING: "InService",
    Phase.DRAINING: "Terminating",
    Phase.ENDING: "Terminating",
}


@dataclass(frozen=True, slots=True)
class Group:
    desired: int
    subnets: tuple[str, ...]
    grace: float = 0.0  # seconds in service before the load balancer's word counts
    balanced: bool = False  # whether it counts at all: HealthCheckType ELB
    hurried: bool = False  # ForceDelete: nobody waits for the draining


@dataclass(frozen=True, slots=True)
class Member:
    instance: str
    subnet: str
    joined: float
    template: str = ""  # and its version, as it was launched: lt-…:3
    phase: Phase = Phase.PENDING
    since: float = 0.0  # when this phase began
    unhealthy: str = ""  # why, if that is why it leaves

    @property
    def counts(self) -> bool:
        return self.phase in (Phase.PENDING, Phase.SERVING)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found of an instance: EC2's state, empty when there is none; its health in each target group that has
    it."""

    state: str = ""
    health: tuple[str, ...] = ()

    @property
    def gone(self) -> bool:
        return self.state in ("", "terminated")


@dataclass(frozen=True, slots=True)
class Decision:
    """The members as they will be, and the deeds that this takes, in this order. An instance to launch joins them."""

    members: tuple[Member, ...]
    enter: tuple[str, ...]  # into the target groups
    leave: tuple[str, ...]  # the target groups
    end: tuple[str, ...]  # instances to terminate
    forget: tuple[str, ...]
    launch: tuple[str, ...]  # subnets


def decide(group: Group, members: Sequence[Member], seen: Mapping[str, Seen], now: float) -> Decision:
    """Once the deeds are done, and nothing else happens, the next decision has none but for launches left over."""
    looked = [_look(group, member, seen.get(member.instance, Seen()), now) for member in members]
    kept = [member for member in looked if member is not None]
    surplus = len([member for member in kept if member.counts]) - group.desired
    for place in _oldest(kept, surplus):
        kept[place] = _leaving(group, kept[place], now)
    before = {member.instance: member for member in members}
    return Decision(
        tuple(kept),
        enter=tuple(
            one.instance for one in kept if one.phase is Phase.SERVING and before[one.instance].phase is Phase.PENDING
        ),
        leave=tuple(one.instance for one in kept if _registered(one, seen)),
        end=tuple(one.instance for one in kept if one.phase is Phase.ENDING and _lives(one, seen)),
        forget=tuple(member.instance for member, one in zip(members, looked, strict=True) if one is None),
        launch=tuple(_places(group.subnets, kept, min(-surplus, MOST_LAUNCHES))),
    )


def dismissed(group: Group, members: Sequence[Member], instance: str, now: float) -> tuple[Member, ...]:
    """The members once somebody has told this one to go."""
    return tuple(
        _leaving(group, member, now) if member.instance == instance and member.counts else member for member in members
    )


def remembered[T](newest: T, activities: Sequence[T]) -> list[T]:
    """The newest comes first."""
    return [newest, *activities[: MOST_ACTIVITIES - 1]]


def check_sizes(least: int, most: int, desired: int) -> None:
    """A ValueError unless a group can be so."""
    if not 0 <= least <= desired <= most:
        bounds = f"the specified min size:{least} and max size:{most}"
        raise ValueError(f"Desired capacity:{desired} must be between {bounds}")


def _look(group: Group, member: Member, seen: Seen, now: float) -> Member | None:
    """What becomes of one member; None when its instance is no more."""
    if seen.gone:
        return None
    if seen.state == "shutting-down":
        return _moved(member, Phase.ENDING, now)
    match member.phase:
        case Phase.PENDING if seen.state == "running":
            return _moved(member, Phase.SERVING, now)
        case Phase.PENDING | Phase.SERVING if seen.state in ("stopping", "stopped"):
            return _leaving(group, member, now, f"it was found {seen.state}")
        case Phase.SERVING if group.balanced and "unhealthy" in seen.health and now - member.since >= group.grace:
            return _leaving(group, member, now, "the load balancer's health check failed")
        case Phase.DRAINING if group.hurried or not seen.health:
            return _moved(member, Phase.ENDING, now)
    return member


def _leaving(group: Group, member: Member, now: float, unhealthy: str = "") -> Member:
    served = member.phase is Phase.SERVING and not group.hurried
    return _moved(replace(member, unhealthy=unhealthy), Phase.DRAINING if served else Phase.ENDING, now)


def _moved(member: Member, phase: Phase, now: float) -> Member:
    return replace(member, phase=phase, since=now)


def _oldest(members: Sequence[Member], surplus: int) -> list[int]:
    """Places of those that are too many."""
    counting = [place for place, member in enumerate(members) if member.counts]
    return sorted(counting, key=lambda place: members[place].joined)[: max(surplus, 0)]


def _registered(member: Member, seen: Mapping[str, Seen]) -> bool:
    """Whether a target group has one that leaves, and was not told yet."""
    return not member.counts and any(health != "draining" for health in seen[member.instance].health)


def _lives(member: Member, seen: Mapping[str, Seen]) -> bool:
    return seen[member.instance].state != "shutting-down"


def _places(subnets: Sequence[str], members: Sequence[Member], missing: int) -> Iterator[str]:
    """Subnets in turn: each time the one with the fewest."""
    taken = Counter(member.subnet for member in members if member.counts)
    for _ in range(max(missing, 0) if subnets else 0):
        subnet = min(subnets, key=lambda name: taken[name])
        taken[subnet] += 1
        yield subnet
