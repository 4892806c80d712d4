"""What to create, modify and delete, so that the sessions of a world become the wanted ones.

Applying the plan gives what is wanted, and a second plan is empty. To be applied in the order delete, modify, create:
the first two free the room on targets that the next one may need. How many of it may be done is the guards' to say.

*Ours and foreign.* Only sessions that bear our owner tag are ever part of a plan. A foreign session keeps its number
and its slot. Of several of ours on one interface the nearest to the wish stays: first the one with the right number,
so that none moves to a number that another one still holds.

*Scopes.* In a look at everything, a session of ours whose instance is not there is an orphan. In a narrower one it is
left alone: the instance may be not visible yet, or not asked for. So is one whose interface went away from an instance
that may come back: another instance, out of sight, may have it now.

*Grace.* A describe of instances may lag behind one of sessions. So that a session was made less than `GRACE` ago says
more than that its instance, or that instance's interface, is not shown.

*Broken references.* Where the source's filter does not exist, or none of its targets, nothing is made and nothing that
exists is touched: a typing error in a policy takes nothing away.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, filterfalse
from types import MappingProxyType

from mirroring.findings import Sessions, in_order, no_slot, of_filters, of_targets, quarantined, shadows
from mirroring.model import (
    CREATED_TAG,
    SESSION_NUMBERS,
    SESSIONS_PER_INTERFACE,
    Create,
    Delete,
    Finding,
    Instance,
    Plan,
    Session,
    Unwanted,
    Wanted,
    Wish,
    World,
    owned,
)
from mirroring.placement import Bars, Room, bars, choose, others, settle, will_do
from mirroring.policy import Source
from mirroring.repair import asked_for, repair, repaired, same_length, tagged

GRACE = timedelta(minutes=5)

_NOTHING: Mapping[str, str] = MappingProxyType({})
_ENDED = frozenset({"shutting-down", "terminated"})


def make_plan(
    wanted: Wanted,
    world: World,
    *,
    owner: str,
    now: datetime,
    refused: Mapping[str, str] = _NOTHING,
    sources: Collection[Source] = (),
) -> Plan:
    """`refused`: ids of interfaces and targets, and instance types, that AWS refused of late, and why.

    `sources`: those whose references are looked at even if they select nothing here.
    """
    ours, foreign = _by_interface(world.sessions, owner)
    wishes = [wanted.wishes[interface] for interface in sorted(wanted.wishes)]
    there = _sort_out(wishes, ours, foreign, world, refused)

    named = {target for wish in wishes for target in wish.targets}
    named |= {target for source in sources for target in source.targets}
    barred = bars(named, world.targets, refused)
    room = Room(world, [*chain.from_iterable(foreign.values()), *there.left_alone, *(was for _, was in there.kept)])
    seats = settle(there.kept, world.targets, barred, room)
    ends = [_mirrors_nothing(session) for wish, session in there.kept if seats[wish.interface] is None]
    deletes = [*_unwanted(wanted, ours, world, now), *there.surplus, *ends]

    right = _keep(there.kept, seats, foreign, world, owner, now)
    modifies = [
        repair(was, after, wish, others(wish, after.target, barred, room), world)
        for was, after, wish in right
        if was != after
    ]
    made = _make(there.vacant, foreign, barred, room, owner, now)

    stuck = [wish for wish, was in there.kept if seats[wish.interface] not in wish.targets]
    final = [(after, wish) for _, after, wish in right] + [(create.session, wish) for create, wish in made.creates]
    findings = [
        *there.findings,
        *of_targets(wishes, [*stuck, *made.waiting], sources, barred, room),
        *of_filters(wishes, sources, world),
        *shadows(final, foreign, world),
    ]
    actual = sum(map(len, ours.values()))
    return Plan(
        create=tuple(create for create, _ in made.creates),
        modify=tuple(modifies),
        delete=tuple(sorted(deletes, key=lambda delete: delete.session.id)),
        kept=actual - len(deletes) - len(modifies),
        desired=sum(1 for wish in wishes if wish.create or wish.interface in ours),
        actual=actual,
        findings=in_order(findings),
    )


# Sorting out


@dataclass(frozen=True)
class _SortedOut:
    kept: list[tuple[Wish, Session]]
    left_alone: list[Session]  # stay exactly as they are
    surplus: list[Delete]
    vacant: list[Wish]  # without a session, and with a slot for one
    findings: list[Finding]


def _by_interface(sessions: Iterable[Session], owner: str) -> tuple[Sessions, Sessions]:
    """Ours, and the others."""
    ours: defaultdict[str, list[Session]] = defaultdict(list)
    foreign: defaultdict[str, list[Session]] = defaultdict(list)
    for session in sessions:
        (ours if owned(session, owner) else foreign)[session.interface].append(session)
    return dict(ours), dict(foreign)


def _sort_out(
    wishes: Iterable[Wish], ours: Sessions, foreign: Sessions, world: World, refused: Mapping[str, str]
) -> _SortedOut:
    """Each wish by what there is on its interface."""
    result = _SortedOut([], [], [], [], [])
    for wish in wishes:
        mine = ours.get(wish.interface, [])
        why = refused.get(wish.interface) or ("" if mine else refused.get(wish.instance_type, ""))
        if why and (mine or wish.create):
            result.findings.append(quarantined(wish, why))
            result.left_alone.extend(mine)
        elif mine and _is_broken(wish, world):
            result.left_alone.extend(mine)
        elif mine:
            nearest = min(mine, key=lambda session: _distance(wish, session, foreign, world))
            result.kept.append((wish, nearest))
            result.surplus.extend(
                Delete(session, f"surplus: {nearest.id} mirrors the same interface", evident=True)
                for session in mine
                if session is not nearest
            )
        elif wish.create and len(foreign.get(wish.interface, ())) >= SESSIONS_PER_INTERFACE:
            result.findings.append(no_slot(wish))
        elif wish.create and wish.filter in world.filters:
            result.vacant.append(wish)
    return result


def _is_broken(wish: Wish, world: World) -> bool:
    return wish.filter not in world.filters or not any(target in world.targets for target in wish.targets)


def _distance(wish: Wish, session: Session, foreign: Sessions, world: World) -> tuple[bool, int, str]:
    """Of a session to a wish: whether its number is wrong, how much else would change, and its id to decide a tie."""
    changes = (
        not will_do(wish, session, world.targets),
        session.filter != wish.filter,
        wish.vni not in (None, session.vni),
        not same_length(wish.packet_length, session.packet_length, world.targets.get(session.target)),
        session.description != wish.instance,
    )
    return session.number != _number(wish, session, foreign, world), sum(changes), session.id


# Deletes


def _unwanted(wanted: Wanted, ours: Sessions, world: World, now: datetime) -> list[Delete]:
    """Sessions of ours on interfaces that the policy does not select."""
    whose = {interface.id: instance for instance in world.instances.values() for interface in instance.interfaces}
    reasons = {(entry.instance, entry.interface): entry for entry in wanted.unwanted}
    found = []
    for interface in ours.keys() - wanted.wishes.keys():
        for session in ours[interface]:
            instance = whose.get(interface)
            reason = (
                _why_not_selected(instance, interface, reasons)
                if instance
                else _why_not_attached(session, reasons, world, now)
            )
            if reason:
                found.append(Delete(session, reason.reason, reason.evident))
    return found


def _why_not_selected(instance: Instance, interface: str, reasons: Mapping[tuple[str, str], Unwanted]) -> Unwanted:
    default = Unwanted(instance.id, interface, "no source of the policy matches")
    return reasons.get((instance.id, interface), reasons.get((instance.id, ""), default))


def _why_not_attached(
    session: Session, reasons: Mapping[tuple[str, str], Unwanted], world: World, now: datetime
) -> Unwanted | None:
    """Why a session goes whose interface no instance in sight has. None leaves it alone."""
    name, interface = session.description, session.interface
    entire = reasons.get((name, ""))
    if entire and entire.evident and (world.everything or world.instances[name].state in _ENDED):
        return entire
    if not world.everything or _is_young(session, now):
        return None
    if name in world.instances:
        return Unwanted(name, interface, f"{interface} is not attached to {name} any more", evident=True)
    if name:
        return Unwanted(name, interface, f"orphan: instance {name} not found")
    return Unwanted("", interface, f"orphan: {interface} is attached to no instance")


def _is_young(session: Session, now: datetime) -> bool:
    """By its tag, which somebody may have altered: one that says nothing, or a time to come, protects nothing."""
    try:
        created = datetime.fromisoformat(session.tags.get(CREATED_TAG, ""))
        return abs(now - created) < GRACE
    except (ValueError, TypeError):  # no time, or one without its zone
        return False


def _mirrors_nothing(session: Session) -> Delete:
    reason = f"target gone: nothing is behind {session.target} any more, and no other target can be used"
    return Delete(session, reason, evident=False)


# Modifies


def _keep(
    kept: Iterable[tuple[Wish, Session]],
    seats: Mapping[str, str | None],
    foreign: Sessions,
    world: World,
    owner: str,
    now: datetime,
) -> list[tuple[Session, Session, Wish]]:
    """Each session that stays, as it is and as it is to be, in an order in which they can be changed."""
    by_interface = {wish.interface: (wish, session) for wish, session in kept}
    found = []
    for interface, target in seats.items():
        if target is not None:
            wish, session = by_interface[interface]
            number = _number(wish, session, foreign, world)
            found.append((session, repaired(session, wish, target, number, world, owner, now), wish))
    return found


def _number(wish: Wish, session: Session, foreign: Sessions, world: World) -> int:
    """The number that a session of ours is to have.

    Of an instance that does not run, a narrow scope knows our own sessions only (see `World`): those keep theirs.
    """
    return _free_number(wish, foreign) if wish.create or world.everything else session.number


def _free_number(wish: Wish, foreign: Sessions) -> int:
    """The preferred one; if a foreign session holds it, the next free one above, else the lowest."""
    taken = {session.number for session in foreign.get(wish.interface, ())}
    numbers = chain(range(wish.number, SESSION_NUMBERS.stop), SESSION_NUMBERS)
    return next(filterfalse(taken.__contains__, numbers))


# Creates


@dataclass(frozen=True)
class _Made:
    creates: list[tuple[Create, Wish]]
    waiting: list[Wish]  # for a target


def _make(vacant: Iterable[Wish], foreign: Sessions, barred: Bars, room: Room, owner: str, now: datetime) -> _Made:
    made = _Made([], [])
    for wish in vacant:
        target = choose(wish, barred, room)
        if target is None:
            made.waiting.append(wish)
        else:
            room.take(target)
            alternatives = others(wish, target, barred, room)
            made.creates.append((_create(wish, target, _free_number(wish, foreign), alternatives, owner, now), wish))
    return made


def _create(wish: Wish, target: str, number: int, alternatives: tuple[str, ...], owner: str, now: datetime) -> Create:
    asked = asked_for(wish, target, number)
    session = replace(asked, tags=tagged(asked, wish, {}, owner, now))
    return Create(session, wish.instance_type, alternatives, f"source {wish.source} selects {wish.instance}")
