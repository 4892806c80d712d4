"""How a session of ours becomes what a wish asks for, in place, and why that is needed.

*The config tag* holds a hash of what was applied. If a session's settings have another hash, somebody altered them by
hand; if they have the same, but the policy wants others, the policy changed. Two things keep a second plan empty: a VNI
that AWS chose is hashed as "any", as it was asked for, so that either reading of an actual VNI counts as untouched; and
no packet length is hashed as 8500, since an NLB reports the one for the other.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

from mirroring.model import (
    CONFIG_TAG,
    CREATED_TAG,
    DESCRIPTION_TAG,
    NLB_PACKET_LENGTH,
    OWNER_TAG,
    SOURCE_TAG,
    TAG_VALUE_LENGTH,
    Modify,
    Session,
    Tags,
    Target,
    TargetKind,
    Wish,
    World,
    stamp,
)
from mirroring.placement import gone

type Settings = Mapping[str, str | int | None]


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


def asked_for(wish: Wish, target: str, number: int) -> Session:
    """As a wish asks for it, before it has an id and tags."""
    return Session("", wish.interface, target, wish.filter, number, wish.vni, wish.packet_length, wish.instance)


def tagged(asked: Session, wish: Wish, present: Tags, owner: str, now: datetime) -> Tags:
    """Our tags made right, those of others kept."""
    tags = {key: value for key, value in present.items() if key != DESCRIPTION_TAG}
    tags |= {OWNER_TAG: owner, SOURCE_TAG: wish.source, CONFIG_TAG: config_hash(asked)}
    tags.setdefault(CREATED_TAG, stamp(now))
    if wish.description:
        tags[DESCRIPTION_TAG] = wish.description[:TAG_VALUE_LENGTH]
    return tags


def repaired(
    session: Session, wish: Wish, target: str, number: int, world: World, owner: str, now: datetime
) -> Session:
    """A session as it is to be, without a change that would change nothing."""
    asked = asked_for(wish, target, number)
    # What a session has may be its old target's default: at a new target only what is asked for counts.
    alike = target == session.target and same_length(
        wish.packet_length, session.packet_length, world.targets.get(target)
    )
    return replace(
        asked,
        id=session.id,
        vni=session.vni if wish.vni is None else wish.vni,
        packet_length=session.packet_length if alike else wish.packet_length,
        tags=tagged(asked, wish, session.tags, owner, now),
    )


def same_length(asked: int | None, actual: int | None, target: Target | None) -> bool:
    """Whether a packet length is right. Of a target that is out of sight the lenient reading is taken."""
    if target is None or target.kind is TargetKind.NLB:
        return (asked or NLB_PACKET_LENGTH) == (actual or NLB_PACKET_LENGTH)
    return asked == actual


def repair(before: Session, after: Session, wish: Wish, others: tuple[str, ...], world: World) -> Modify:
    """The modification that makes the one of the other. `others`: targets to try, where the target changes."""
    names = ("target", "filter", "number", "vni", "packet_length", "description")
    changes = tuple(name for name in names if getattr(before, name) != getattr(after, name))
    reason = _reason(before, after, changes, wish, world)
    return Modify(before, after, changes, others if "target" in changes else (), reason)


def _reason(before: Session, after: Session, changes: tuple[str, ...], wish: Wish, world: World) -> str:
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
