"""Which target a session gets.

The present one while it will do; else the first of its source's list that exists, is healthy and has room. Health bars
only what is new: a session on a target that has become unhealthy stays, and works again when the target does.

An interface as a target takes 10 sources, or 100 on the largest instances; a load balancer and an endpoint take any
number. Room is counted in a look at everything only. Elsewhere most sessions of a target are not in sight, every
target counts as having room, and AWS's refusal leads to the next one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mirroring.model import Health, Session, Target, Trouble, Wish, World


@dataclass(frozen=True)
class Bar:
    """Why nothing new goes to a target."""

    trouble: Trouble
    text: str  # one sentence, with the remedy


type Bars = Mapping[str, Bar]


def bars(ids: Collection[str], targets: Mapping[str, Target], quarantined: Mapping[str, str]) -> Bars:
    """Those of the targets that take nothing new."""
    found = {name: _bar(name, targets.get(name), quarantined.get(name)) for name in sorted(ids)}
    return {name: bar for name, bar in found.items() if bar}


def _bar(name: str, target: Target | None, quarantine: str | None) -> Bar | None:
    if target is None:
        remedy = "name a target that does in the policy, or have it shared with this account"
        return Bar(Trouble.TARGET_MISSING, f"Mirror target {name} does not exist here: {remedy}")
    if target.health is Health.GONE:
        what = target.why or f"{target.resource} does not exist any more: make a new target and name it in the policy"
        return Bar(Trouble.TARGET_MISSING, f"Mirror target {name}: {what}")
    if target.health in (Health.UNHEALTHY, Health.NO_LISTENER):
        what = target.why or f"{target.resource} is {target.health}: run `mirrorctl checkup`"
        return Bar(Trouble.TARGET_UNHEALTHY, f"Mirror target {name}: {what}")
    if quarantine:
        return Bar(Trouble.QUARANTINED, f"Mirror target {name} is left out for now: {quarantine}")
    return None


class Room:
    """How many more sources each target takes."""

    def __init__(self, world: World, present: Iterable[Session]) -> None:
        """`present`: the sessions that stay, or move later."""
        limited = (target for target in world.targets.values() if target.capacity is not None)
        self._left = {target.id: target.capacity or 0 for target in limited} if world.everything else {}
        for session in present:
            self.take(session.target)

    def has(self, target: str) -> bool:
        return self._left.get(target, 1) > 0

    def take(self, target: str) -> None:
        if target in self._left:
            self._left[target] -= 1

    def free(self, target: str) -> None:
        if target in self._left:
            self._left[target] += 1


def choose(wish: Wish, bars: Bars, room: Room) -> str | None:
    """The first target that takes a new session."""
    return next((target for target in wish.targets if target not in bars and room.has(target)), None)


def full(wish: Wish, bars: Bars, room: Room) -> set[str]:
    """Targets of a wish that would do, but have no room."""
    return {target for target in wish.targets if target not in bars and not room.has(target)}


def others(wish: Wish, chosen: str, bars: Bars, room: Room) -> tuple[str, ...]:
    """Those to try when the chosen one turns out to be full."""
    usable = (target for target in wish.targets if target not in bars and room.has(target))
    return tuple(target for target in usable if target != chosen)


def will_do(wish: Wish, session: Session, targets: Mapping[str, Target]) -> bool:
    """Whether a session can stay where it is."""
    return session.target in wish.targets and session.target in targets and not gone(session.target, targets)


def gone(name: str, targets: Mapping[str, Target]) -> bool:
    """Whether AWS still has the target, but nothing is behind it: a session to it mirrors nothing and is billed."""
    return name in targets and targets[name].health is Health.GONE


def settle(
    kept: Sequence[tuple[Wish, Session]], targets: Mapping[str, Target], bars: Bars, room: Room
) -> dict[str, str | None]:
    """The target of each kept session by interface, in an order in which they can be applied. None: mirrors nothing.

    Who must move frees room where it was, which may be what another one waits for: so again, until nobody moves.
    Who cannot move stays, so that a policy's new target that is not ready yet interrupts nothing.
    """
    seats: dict[str, str | None] = {wish.interface: was.target for wish, was in kept if will_do(wish, was, targets)}
    waiting = [(wish, was) for wish, was in kept if wish.interface not in seats]
    moved = True
    while moved:
        moved = False
        for wish, was in waiting:
            seat = choose(wish, bars, room)
            if seat is not None:
                seats[wish.interface] = seat
                room.free(was.target)
                room.take(seat)
                moved = True
        waiting = [(wish, was) for wish, was in waiting if wish.interface not in seats]
    seats |= {wish.interface: None if gone(was.target, targets) else was.target for wish, was in waiting}
    return seats
