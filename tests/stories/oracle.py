"""What a policy wants, said a second time: naively, from the policy's document alone, interface by interface.

Nothing of the planner is used, so that an error there is not repeated here. `complaints` compares the sessions before
and after a full sweep with what the document wants, and says in words what is wrong.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from hashlib import sha256
from itertools import chain
from typing import Any

from mirroring.model import Instance, Interface, Session

UNSUPPORTED = frozenset({"t2.micro"})  # the only type of these tests that EC2 refuses to mirror
SOURCES_OF_AN_INTERFACE = 10
WEEK = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ENDED = ("shutting-down", "terminated")
GRACE = timedelta(minutes=5)
OURS = "mirror:managed-by"


@dataclass(frozen=True)
class Place:
    """A mirror target as it is."""

    kind: str  # nlb | interface
    state: str  # healthy | unhealthy | gone
    interface: str = ""


@dataclass(frozen=True)
class Scene:
    """All that the decision may depend on."""

    document: Mapping[str, Any]
    owner: str
    fleet: Collection[str]  # Auto Scaling groups
    instances: Mapping[str, Instance]
    targets: Mapping[str, Place]  # those that exist
    filters: Collection[str]
    now: datetime


def is_ours(session: Session, scene: Scene) -> bool:
    return session.tags.get(OURS) == scene.owner


def is_young(session: Session, now: datetime) -> bool:
    """Whether a describe of instances may be older than it."""
    created = session.tags.get("mirror:created")
    return created is not None and now - datetime.fromisoformat(created) < GRACE


# Which source has an interface


def source_of(instance: Instance, interface: Interface, scene: Scene) -> Mapping[str, Any] | None:
    """The source whose session the interface is to have, or to keep if the instance does not run."""
    if interface.kind != "interface" or interface.requester_managed:
        return None
    if any(target.interface == interface.id for target in scene.targets.values()):
        return None
    source = _source_of_instance(instance, scene)
    if source is None:
        return None
    wished = source.get("interfaces", "primary")
    if wished == "primary":
        return source if interface.device_index == 0 else None
    return source if wished == "all" or interface.device_index in wished else None


def is_wanted(interface: str, scene: Scene) -> bool:
    """Whether any source selects it."""
    every = ((holder, one) for holder in scene.instances.values() for one in holder.interfaces)
    return any(one.id == interface and source_of(holder, one, scene) is not None for holder, one in every)


def _source_of_instance(instance: Instance, scene: Scene) -> Mapping[str, Any] | None:
    document = scene.document
    if instance.state in ENDED:
        return None
    if instance.state in ("stopping", "stopped") and document.get("delete_on_stop", True):
        return None
    tags = dict(instance.tags)
    if "mirror:until" in tags and datetime.fromisoformat(tags["mirror:until"]) <= scene.now:
        del tags["mirror:until"]
    if tags.get("aws:autoscaling:groupName") in scene.fleet:
        return None
    if "except" in document and _matches(document["except"], instance, tags):
        return None
    for source in document.get("sources", []):
        if _matches(source["match"], instance, tags):
            if "except" in source and _matches(source["except"], instance, tags):
                continue
            share = int(sha256(instance.id.encode()).hexdigest(), 16) / 2**256
            in_share = share < source.get("share", 100) / 100
            return source if in_share and _is_open(source.get("windows", []), scene.now) else None
    return None


def _matches(match: Mapping[str, Any], instance: Instance, tags: Mapping[str, str]) -> bool:
    for tag, values in match.get("tags", {}).items():
        if tag not in tags or (values != "*" and tags[tag] not in values):
            return False
    listed = {"vpcs": instance.vpc, "subnets": instance.subnet, "instances": instance.id}
    if any(actual not in match[key] for key, actual in listed.items() if key in match):
        return False
    named = {"groups": tags.get("aws:autoscaling:groupName"), "names": tags.get("Name")}
    return all(_is_like(actual, match[key]) for key, actual in named.items() if key in match)


def _is_like(value: str | None, patterns: Collection[str]) -> bool:
    return value is not None and any(fnmatchcase(value, pattern) for pattern in patterns)


def _is_open(windows: Sequence[Mapping[str, Any]], now: datetime) -> bool:
    """Windows in UTC, at full hours."""
    if not windows:
        return True
    for window in windows:
        start, end = int(window["from"][:2]), int(window["to"][:2])
        hours = (end - start) % 24 or 24
        for day in (0, 1):
            midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=day)
            opens = midnight + timedelta(hours=start)
            on_that_day = WEEK[midnight.weekday()] in window.get("days", WEEK)
            if on_that_day and opens <= now < opens + timedelta(hours=hours):
                return True
    return False


# What a session is to look like


def number_of(source: Mapping[str, Any], foreign: Collection[Session]) -> int:
    """Preferred; else the next free one above; else the lowest."""
    taken = {session.number for session in foreign}
    wished: int = source.get("session_number", 1)
    return next(number for number in chain(range(wished, 32767), range(1, 32767)) if number not in taken)


def faults(session: Session, source: Mapping[str, Any], instance: str, scene: Scene) -> Iterator[str]:
    """What is wrong with a session, but for its target and number."""
    if session.filter != source["filter"]:
        yield f"{session.id} has filter {session.filter}, not {source['filter']}"
    if source.get("vni") not in (None, session.vni):
        yield f"{session.id} has VNI {session.vni}, not {source['vni']}"
    wished = source.get("packet_length")
    alike = session.packet_length == wished
    if session.target in scene.targets and scene.targets[session.target].kind == "nlb":
        alike = (session.packet_length or 8500) == (wished or 8500)
    if not alike:
        yield f"{session.id} has packet length {session.packet_length}, not {wished}"
    if session.description != instance:
        yield f"{session.id} is described as {session.description}, not {instance}"
    if session.tags.get("mirror:source") != source["name"]:
        yield f"{session.id} bears source {session.tags.get('mirror:source')}, not {source['name']}"
    if session.tags.get("mirror:description", "") != source.get("description", ""):
        yield f"{session.id} bears description {session.tags.get('mirror:description')}"
    if not {"mirror:created", "mirror:config"} <= session.tags.keys():
        yield f"{session.id} lacks tags: it has {dict(session.tags)}"


def usable(source: Mapping[str, Any], scene: Scene) -> list[str]:
    """Targets of a source that take new sessions, but for their room."""
    return [target for target in source["target"] if target in scene.targets and _state(target, scene) == "healthy"]


def broken(source: Mapping[str, Any], scene: Scene) -> bool:
    return source["filter"] not in scene.filters or not any(target in scene.targets for target in source["target"])


def _state(target: str, scene: Scene) -> str:
    return scene.targets[target].state if target in scene.targets else "missing"


def is_full(target: str, sessions: Collection[Session], scene: Scene) -> bool:
    """Whether it may be. AWS counts sources: one with two sessions to a target is counted twice here.

    And a source of a type that EC2 refuses may have been given a place that it then did not take.
    """
    there = [session for session in sessions if session.target == target]
    refused = [one for holder in scene.instances.values() if holder.type in UNSUPPORTED for one in holder.interfaces]
    return scene.targets[target].kind == "interface" and len(there) + len(refused) >= SOURCES_OF_AN_INTERFACE


# A full sweep


def complaints(
    before: Collection[Session],
    after: Collection[Session],
    scene: Scene,
    only: Collection[str] | None = None,
    *,
    refused: bool = False,
) -> list[str]:
    """What is wrong after a full sweep; with `only`, with the interfaces of some instances that run.

    `refused`: AWS may have refused the target that comes first.
    """
    found = [f"foreign {one.id} was {one}" for one in before if not is_ours(one, scene) and one not in after]
    holders = {one.id: (holder, one) for holder in scene.instances.values() for one in holder.interfaces}
    interfaces = holders.keys() | {session.interface for session in after}
    if only is not None:
        interfaces = {interface.id for instance in only for interface in scene.instances[instance].interfaces}
    for interface in sorted(interfaces):
        beside = [session for session in after if session.interface == interface]
        if len(beside) > 3 or len({session.number for session in beside}) < len(beside):
            found.append(f"{interface} has {beside}")
        was = [session for session in before if session.interface == interface and is_ours(session, scene)]
        now = [session for session in beside if is_ours(session, scene)]
        source = source_of(*holders[interface], scene) if interface in holders else None
        if source is None:
            spared = [one for one in now if interface not in holders and is_young(one, scene.now)]
            found += [f"{one.id} mirrors {interface}, which nobody wants" for one in now if one not in spared]
        elif broken(source, scene):
            found += [] if now == was else [f"{interface}: {was} became {now} though {source['name']} is broken"]
        else:
            foreign = [session for session in beside if not is_ours(session, scene)]
            found += _of_interface(was, now, foreign, holders[interface][0], source, after, scene)
            if not refused and not was and now:
                found += _passed_over(now[0], source, after, scene)
    return found


def _passed_over(
    session: Session, source: Mapping[str, Any], all_of_them: Collection[Session], scene: Scene
) -> Iterator[str]:
    """Targets that a new session should have had instead of its own."""
    for target in source["target"]:
        if target == session.target:
            return
        if target in usable(source, scene) and not is_full(target, all_of_them, scene):
            yield f"{session.id}: new on {session.target}, though {target} comes first"


def _of_interface(
    was: Sequence[Session],
    now: Sequence[Session],
    foreign: Sequence[Session],
    instance: Instance,
    source: Mapping[str, Any],
    all_of_them: Collection[Session],
    scene: Scene,
) -> Iterator[str]:
    """One interface that a source selects, whose references exist."""
    where = f"{source['name']} for {instance.id}"
    if len(now) > 1:
        yield f"{where}: {len(now)} sessions of ours"
    roomy = [target for target in usable(source, scene) if not is_full(target, all_of_them, scene)]
    gone = any(_state(session.target, scene) == "gone" for session in was)
    if not now:
        if was and not gone:
            yield f"{where}: {was} is away"
        elif roomy and len(foreign) < 3 and instance.type not in UNSUPPORTED and (was or instance.state == "running"):
            yield f"{where}: no session, though {roomy} would take it"
        return
    session = now[0]
    yield from faults(session, source, instance.id, scene)
    if session.number != number_of(source, foreign):
        yield f"{where}: number {session.number}, beside {[other.number for other in foreign]}"
    if not was:
        if instance.state != "running":
            yield f"{where}: made for an instance that is {instance.state}"
        if session.target not in usable(source, scene):
            yield f"{where}: new on {session.target}, which takes nothing new"
        return
    before = next((one for one in was if one.id == session.id), None)
    if before is None:
        yield f"{where}: {was} was replaced by {session.id}, not changed in place"
        return
    stays = before.target in source["target"] and _state(before.target, scene) in ("healthy", "unhealthy")
    if stays and session.target != before.target:
        yield f"{where}: moved from {before.target} to {session.target} for nothing"
    if not stays and session.target != before.target and session.target not in usable(source, scene):
        yield f"{where}: moved to {session.target}, which takes nothing new"
    if not stays and session.target == before.target and roomy:
        yield f"{where}: still on {session.target}, though {roomy} would take it"
    if source.get("vni") is None and session.vni != before.vni:
        yield f"{where}: VNI {before.vni} became {session.vni}, though any would do"


# A single delete


def may_go(session: Session, seen: Collection[Session], scene: Scene) -> bool:
    """Whether a session of ours may be deleted at all, given all that was seen.

    One that names an instance that has ended may, though another has its interface now: that one gets another.
    """
    holders = {one.id: (holder, one) for holder in scene.instances.values() for one in holder.interfaces}
    source = source_of(*holders[session.interface], scene) if session.interface in holders else None
    named = scene.instances.get(session.description)
    if session.interface not in holders and is_young(session, scene.now):
        return named is not None and named.state in ENDED
    if source is None or (named and named.state in ENDED):
        return True
    if broken(source, scene):
        return False
    beside = [other for other in seen if other.interface == session.interface and is_ours(other, scene)]
    return len(beside) > 1 or _state(session.target, scene) == "gone"
