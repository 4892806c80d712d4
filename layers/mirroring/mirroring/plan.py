"""What to create, modify and delete, so that the sessions of a world become the wanted ones.

Applying the plan gives what is wanted, and a second plan is empty. To be applied in the order delete, modify, create:
the first two free the room on targets that the next one may need.

*Ours and foreign.* Only sessions that bear our owner tag are ever part of a plan. A foreign session keeps its number
and its slot. Of several of ours on one interface the nearest to the wish stays: first the one with the right number,
so that none moves to a number that another one still holds.

*Scopes.* In a look at everything, a session of ours whose instance is not there is an orphan. In a narrower one it is
left alone: the instance may be not visible yet, or not asked for.

*Broken references.* Where the source's filter does not exist, or none of its targets, nothing is made and nothing that
exists is touched: a typing error in a policy takes nothing away.

*The config tag* holds a hash of what was applied. If a session's settings have another hash, somebody altered them by
hand; if they have the same, but the policy wants others, the policy changed. Two things keep a second plan empty: a VNI
that AWS chose is hashed as "any", as it was asked for, so that either reading of an actual VNI counts as untouched; and
no packet length is hashed as 8500, since an NLB reports the one for the other.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from itertools import chain, filterfalse
from types import MappingProxyType

from mirroring.model import (
    CONFIG_TAG,
    CREATED_TAG,
    DESCRIPTION_TAG,
    NLB_PACKET_LENGTH,
    OWNER_TAG,
    SESSION_NUMBERS,
    SESSIONS_PER_INTERFACE,
    SOURCE_TAG,
    Create,
    Delete,
    Filter,
    Finding,
    Instance,
    Modify,
    Plan,
    Rule,
    Session,
    Tags,
    Target,
    TargetKind,
    Trouble,
    Unwanted,
    Wanted,
    Wish,
    World,
    owned,
    stamp,
)
from mirroring.placement import Bars, Room, bars, choose, full, gone, others, settle, will_do
from mirroring.policy import Limits
from mirroring.shadow import overlap

type Settings = Mapping[str, str | int | None]
type Sessions = Mapping[str, list[Session]]  # by interface

_NOTHING: Mapping[str, str] = MappingProxyType({})
_TAG_LENGTH = 256  # most characters of a tag's value


def make_plan(
    wanted: Wanted,
    world: World,
    *,
    owner: str,
    now: datetime,
    limits: Limits,
    quarantined: Mapping[str, str] = _NOTHING,
    elsewhere: int = 0,
) -> Plan:
    """`quarantined`: ids of interfaces and targets, and instance types, that AWS refused of late, and why.

    `elsewhere`: sessions of ours outside a narrow scope, as last counted; they count towards `limits.sessions`.
    """
    ours, foreign = _by_interface(world.sessions, owner)
    wishes = [wanted.wishes[interface] for interface in sorted(wanted.wishes)]
    there = _sort_out(wishes, ours, foreign, world, quarantined)

    barred = bars({target for wish in wishes for target in wish.targets}, world.targets, quarantined)
    room = Room(world, [*chain.from_iterable(foreign.values()), *there.left_alone, *(was for _, was in there.kept)])
    seats = settle(there.kept, world.targets, barred, room)
    ends = [_mirrors_nothing(session) for wish, session in there.kept if seats[wish.interface] is None]
    deletes = [*_unwanted(wanted, ours, world), *there.surplus, *ends]

    right = _keep(there.kept, seats, foreign, world, owner, now)
    modifies = [_modify(was, after, wish, world, barred, room) for was, after, wish in right if was != after]
    actual = sum(map(len, ours.values()))
    free = max(0, limits.sessions - elsewhere - actual + len(deletes))
    made = _make(there.vacant, foreign, barred, room, free, owner, now)

    stuck = [wish for wish, was in there.kept if seats[wish.interface] not in wish.targets]
    final = [(after, wish) for _, after, wish in right] + [(create.session, wish) for create, wish in made.creates]
    findings = [
        *there.findings,
        *_trouble_of_targets(wishes, [*stuck, *made.waiting], barred, room),
        *_trouble_of_filters(wishes, world),
        *_beyond_limit(made.beyond_limit, limits),
        *_shadows(final, foreign, world),
    ]
    return Plan(
        create=tuple(create for create, _ in made.creates),
        modify=tuple(modifies),
        delete=tuple(sorted(deletes, key=lambda delete: delete.session.id)),
        kept=actual - len(deletes) - len(modifies),
        desired=sum(1 for wish in wishes if wish.create or wish.interface in ours),
        actual=actual,
        findings=tuple(sorted(findings, key=_order)),
    )


def settings_of(session: Session) -> Settings:
    """What a policy decides about a session, for people and for the hash."""
    return {
        "target": session.target,
        "filter": session.filter,
        "number": session.number,
        "vni": session.vni,
        "packet_length": session.packet_length or NLB_PACKET_LENGTH,
    }


def config_hash(session: Session) -> str:
    """Of the settings as asked for: without a VNI if the choice was left to AWS."""
    text = " ".join("any" if value is None else str(value) for value in settings_of(session).values())
    return sha256(text.encode()).hexdigest()[:16]


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
    wishes: Iterable[Wish], ours: Sessions, foreign: Sessions, world: World, quarantined: Mapping[str, str]
) -> _SortedOut:
    """Each wish by what there is on its interface."""
    result = _SortedOut([], [], [], [], [])
    for wish in wishes:
        mine = ours.get(wish.interface, [])
        quarantine = quarantined.get(wish.interface) or ("" if mine else quarantined.get(wish.instance_type, ""))
        if quarantine and (mine or wish.create):
            text = f"{wish.interface} is left as it is for now: {quarantine}"
            result.findings.append(_about(wish, Trouble.QUARANTINED, text))
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
            text = f"{wish.interface} has {SESSIONS_PER_INTERFACE} foreign sessions, as many as it may: delete one"
            result.findings.append(_about(wish, Trouble.NO_SLOT, text))
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
        not _same_length(wish.packet_length, session.packet_length, world.targets.get(session.target)),
        session.description != wish.instance,
    )
    return session.number != _number(wish, session, foreign, world), sum(changes), session.id


# Deletes


def _unwanted(wanted: Wanted, ours: Sessions, world: World) -> list[Delete]:
    """Sessions of ours on interfaces that the policy does not select."""
    whose = {interface.id: instance for instance in world.instances.values() for interface in instance.interfaces}
    reasons = {(entry.instance, entry.interface): entry for entry in wanted.unwanted}
    found = []
    for interface in ours.keys() - wanted.wishes.keys():
        for session in ours[interface]:
            reason = _why_unwanted(session, whose.get(interface), reasons, world)
            if reason:
                found.append(Delete(session, reason.reason, reason.evident))
    return found


def _why_unwanted(
    session: Session, instance: Instance | None, reasons: Mapping[tuple[str, str], Unwanted], world: World
) -> Unwanted | None:
    """Why a session goes; None leaves it alone. `instance`: the one that has its interface, as far as known."""
    if instance:
        default = Unwanted(instance.id, session.interface, "no source of the policy matches")
        entire = reasons.get((instance.id, ""), default)
        return reasons.get((instance.id, session.interface), entire)
    name = session.description
    if name in world.instances:
        detached = Unwanted(name, session.interface, f"{session.interface} is not attached to {name} any more", True)
        entire = reasons.get((name, ""), detached)
        return entire if entire.evident else detached
    if not world.everything:
        return None
    if name:
        return Unwanted(name, session.interface, f"orphan: instance {name} not found")
    return Unwanted("", session.interface, f"orphan: {session.interface} is attached to no instance")


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
            found.append((session, _repaired(session, wish, target, number, world, owner, now), wish))
    return found


def _repaired(
    session: Session, wish: Wish, target: str, number: int, world: World, owner: str, now: datetime
) -> Session:
    same_length = _same_length(wish.packet_length, session.packet_length, world.targets.get(target))
    asked = Session(
        session.id, session.interface, target, wish.filter, number, wish.vni, wish.packet_length, wish.instance
    )
    return replace(
        asked,
        vni=session.vni if wish.vni is None else wish.vni,
        packet_length=session.packet_length if same_length else wish.packet_length,
        tags=_tags(asked, wish, session.tags, owner, now),
    )


def _tags(asked: Session, wish: Wish, present: Tags, owner: str, now: datetime) -> Tags:
    """Ours made right, those of others kept."""
    tags = {key: value for key, value in present.items() if key != DESCRIPTION_TAG}
    tags |= {OWNER_TAG: owner, SOURCE_TAG: wish.source, CONFIG_TAG: config_hash(asked)}
    tags.setdefault(CREATED_TAG, stamp(now))
    if wish.description:
        tags[DESCRIPTION_TAG] = wish.description[:_TAG_LENGTH]
    return tags


def _same_length(asked: int | None, actual: int | None, target: Target | None) -> bool:
    """Whether a packet length is right. Of a target that is out of sight the lenient reading is taken."""
    if target is None or target.kind is TargetKind.NLB:
        return (asked or NLB_PACKET_LENGTH) == (actual or NLB_PACKET_LENGTH)
    return asked == actual


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


def _modify(before: Session, after: Session, wish: Wish, world: World, barred: Bars, room: Room) -> Modify:
    names = ("target", "filter", "number", "vni", "packet_length", "description")
    changes = tuple(name for name in names if getattr(before, name) != getattr(after, name))
    return Modify(
        before,
        after,
        changes,
        others=others(wish, after.target, barred, room) if "target" in changes else (),
        reason=_why_changed(before, after, changes, wish, world),
    )


def _why_changed(before: Session, after: Session, changes: tuple[str, ...], wish: Wish, world: World) -> str:
    if not changes:
        keys = before.tags.keys() | after.tags.keys()
        return "tags completed: " + ", ".join(
            sorted(key for key in keys if before.tags.get(key) != after.tags.get(key))
        )
    steps = ", ".join(
        f"{name.replace('_', ' ')} {_shown(getattr(before, name))} → {_shown(getattr(after, name))}" for name in changes
    )
    return f"{_cause(before, after, changes, wish, world)}: {steps}"


def _cause(before: Session, after: Session, changes: tuple[str, ...], wish: Wish, world: World) -> str:
    if _altered_by_hand(before):
        return "altered by hand"
    if "target" in changes and (before.target not in world.targets or gone(before.target, world.targets)):
        return "target gone"
    if changes == ("number",):
        return "preferred number free" if after.number == wish.number else "a foreign session holds the number"
    if changes == ("description",):
        return "instance of the interface"
    return "policy changed"


def _altered_by_hand(session: Session) -> bool:
    applied = session.tags.get(CONFIG_TAG)
    return applied is not None and applied not in (config_hash(session), config_hash(replace(session, vni=None)))


def _shown(value: str | int | None) -> str:
    return "unset" if value in (None, "") else str(value)


# Creates


@dataclass(frozen=True)
class _Made:
    creates: list[tuple[Create, Wish]]
    waiting: list[Wish]  # for a target
    beyond_limit: int


def _make(
    vacant: Iterable[Wish], foreign: Sessions, barred: Bars, room: Room, free: int, owner: str, now: datetime
) -> _Made:
    """At most `free` new sessions."""
    creates: list[tuple[Create, Wish]] = []
    waiting: list[Wish] = []
    beyond_limit = 0
    for wish in vacant:
        target = choose(wish, barred, room)
        if target is None:
            waiting.append(wish)
        elif len(creates) == free:
            beyond_limit += 1
        else:
            room.take(target)
            creates.append((_create(wish, target, foreign, others(wish, target, barred, room), owner, now), wish))
    return _Made(creates, waiting, beyond_limit)


def _create(
    wish: Wish, target: str, foreign: Sessions, alternatives: tuple[str, ...], owner: str, now: datetime
) -> Create:
    number = _free_number(wish, foreign)
    asked = Session(
        "", wish.interface, target, wish.filter, number, wish.vni, wish.packet_length, description=wish.instance
    )
    session = replace(asked, tags=_tags(asked, wish, {}, owner, now))
    return Create(session, wish.instance_type, alternatives, f"source {wish.source} selects {wish.instance}")


# Findings


def _about(wish: Wish, trouble: Trouble, text: str, session: str = "") -> Finding:
    return Finding(trouble, text, wish.source, wish.instance, wish.interface, session)


def _trouble_of_targets(wishes: Iterable[Wish], waiting: Iterable[Wish], barred: Bars, room: Room) -> list[Finding]:
    """Once per source and target, however many interfaces are concerned. `waiting`: for one of their targets."""
    waits = Counter(wish.source for wish in waiting)
    too_full = {(wish.source, target) for wish in waiting for target in full(wish, barred, room)}
    found = []
    for source, target in sorted({(wish.source, target) for wish in wishes for target in wish.targets}):
        number = f" (interfaces that wait for a target: {waits[source]})" if source in waits else ""
        if target in barred:
            found.append(Finding(barred[target].trouble, barred[target].text + number, source))
        elif (source, target) in too_full:
            remedy = "name a further target in the policy, or a Network Load Balancer, which has no such limit"
            found.append(Finding(Trouble.TARGET_FULL, f"Mirror target {target} is full: {remedy}{number}", source))
    return found


def _trouble_of_filters(wishes: Iterable[Wish], world: World) -> list[Finding]:
    found = []
    for source, name in sorted({(wish.source, wish.filter) for wish in wishes}):
        if name not in world.filters:
            text = f"Filter {name} does not exist here: name one that does in the policy"
            found.append(Finding(Trouble.FILTER_MISSING, text, source))
        elif not world.filters[name].rules:
            text = f"Filter {name} has no rule, so that nothing is mirrored: give it one"
            found.append(Finding(Trouble.FILTER_EMPTY, text, source))
    return found


def _beyond_limit(number: int, limits: Limits) -> list[Finding]:
    if not number:
        return []
    text = f"limits.sessions allows {limits.sessions}: {number} interfaces get none. Select fewer, or raise it"
    return [Finding(Trouble.LIMIT, text)]


def _shadows(final: Iterable[tuple[Session, Wish]], foreign: Sessions, world: World) -> list[Finding]:
    """Foreign sessions in front of ours that may take packets which ours should get."""
    found = []
    for session, wish in final:
        for other in foreign.get(session.interface, ()):
            rule = _shadow(session, other, world) if other.number < session.number else None
            if rule:
                text = (
                    f"Foreign session {other.id} (number {other.number}) stands in front of ours"
                    f" (number {session.number}) on {session.interface}: {rule.direction} rule {rule.number} of its"
                    f" filter {other.filter} accepts packets that ours should get."
                    " Prefer a lower session_number, or narrow that filter"
                )
                found.append(_about(wish, Trouble.SHADOWED, text, other.id))
    return found


def _shadow(ours: Session, theirs: Session, world: World) -> Rule | None:
    """The rule of theirs that accepts what ours should get. A filter out of sight is not accused."""
    return overlap(world.filters[ours.filter], world.filters.get(theirs.filter, Filter(theirs.filter)))


def _order(finding: Finding) -> tuple[str, ...]:
    return finding.trouble, finding.source, finding.interface, finding.session, finding.text
