"""Worlds for the planner's tests, without a policy: instances, targets, sessions of ours and of others, and wishes.

`apply` does to a world what AWS does when a plan is carried out, and refuses what AWS refuses. `worlds` draws a world
with what is wanted in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import strategies as st

from mirroring.model import (
    NLB_PACKET_LENGTH,
    OWNER_TAG,
    SESSIONS_PER_INTERFACE,
    Direction,
    Filter,
    Health,
    Instance,
    Interface,
    Plan,
    Rule,
    Session,
    Tags,
    Target,
    TargetKind,
    Unwanted,
    Wanted,
    Wish,
    World,
)
from mirroring.repair import config_hash

OWNER = "traffic-replay"
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
HTTP = Rule(Direction.INGRESS, 100, True, "0.0.0.0/0", "0.0.0.0/0", protocol=6, destination_ports=(80, 80))
FILTERS = {"tmf-a": Filter("tmf-a", (HTTP,)), "tmf-b": Filter("tmf-b", (HTTP,)), "tmf-empty": Filter("tmf-empty")}
VNI_OF_AWS = 7_000_000  # and above: those that nobody asked for


class Refusal(AssertionError):
    """AWS would have refused what the plan asks for."""


@dataclass(frozen=True)
class Case:
    """A world, and what is wanted in it."""

    wanted: Wanted
    world: World
    quarantined: Mapping[str, str]


def an_instance(name: str, *, interfaces: int = 1, state: str = "running") -> Instance:
    """`i-1` has the interfaces `eni-1-0`, `eni-1-1` …"""
    suffix = name.removeprefix("i-")
    attached = tuple(
        Interface(f"eni-{suffix}-{index}", name, index, "vpc-1", "subnet-1") for index in range(interfaces)
    )
    return Instance(name, state, "m5.large", "vpc-1", "subnet-1", interfaces=attached)


def a_target(name: str, health: Health = Health.HEALTHY, capacity: int | None = None) -> Target:
    """A load balancer, or with a capacity an interface."""
    kind = TargetKind.NLB if capacity is None else TargetKind.INTERFACE
    return Target(name, kind, f"behind-{name}", health, capacity=capacity)


def a_wish(interface: str, **changed: object) -> Wish:
    """Of source `web`, for target `tmt-a`."""
    instance = f"i-{interface.split('-')[1]}"
    plain = Wish(interface, instance, "m5.large", "web", "", ("tmt-a",), "tmf-a", 1, None, None)
    return replace(plain, **changed)  # type: ignore[arg-type]


def a_session(name: str, interface: str, tags: Tags | None = None, **changed: object) -> Session:
    """A foreign one, unless tagged as ours."""
    plain = Session(name, interface, "tmt-a", "tmf-a", 1, VNI_OF_AWS, None, "", tags or {})
    return replace(plain, **changed)  # type: ignore[arg-type]


def wanted_of(*wishes: Wish, unwanted: tuple[Unwanted, ...] = ()) -> Wanted:
    return Wanted({wish.interface: wish for wish in wishes}, unwanted)


def a_world(
    *instances: Instance,
    sessions: tuple[Session, ...] = (),
    targets: tuple[Target, ...] = (a_target("tmt-a"), a_target("tmt-b")),
    filters: Mapping[str, Filter] = FILTERS,
    everything: bool = True,
) -> World:
    return World(
        everything,
        frozenset(instance.id for instance in instances),
        {instance.id: instance for instance in instances},
        sessions,
        {target.id: target for target in targets},
        filters,
    )


def apply(plan: Plan, world: World) -> World:
    """The world after a plan was carried out: deletes, modifies, creates."""
    there = {session.id: session for session in world.sessions}
    for delete in plan.delete:
        del there[delete.session.id]
    for modify in plan.modify:
        if there[modify.before.id] != modify.before or modify.after.interface != modify.before.interface:
            raise Refusal(f"{modify.before.id} is another one")
        there[modify.before.id] = _as_aws_keeps(modify.after, world)
        _check(there, modify.after, world)
    for number, create in enumerate(plan.create):
        made = replace(create.session, id=f"tms-new-{len(world.sessions)}-{number}")
        there[made.id] = _as_aws_keeps(made, world, VNI_OF_AWS + number)
        _check(there, made, world)
    return replace(world, sessions=tuple(there.values()))


def _as_aws_keeps(session: Session, world: World, vni: int | None = None) -> Session:
    """With a VNI, and to a load balancer with a packet length."""
    is_nlb = session.target in world.targets and world.targets[session.target].kind is TargetKind.NLB
    length = NLB_PACKET_LENGTH if is_nlb and session.packet_length is None else session.packet_length
    return replace(session, vni=vni if session.vni is None else session.vni, packet_length=length)


def _check(there: Mapping[str, Session], changed: Session, world: World) -> None:
    beside = [session for session in there.values() if session.interface == changed.interface]
    if len(beside) > SESSIONS_PER_INTERFACE:
        raise Refusal(f"{len(beside)} sessions on {changed.interface}")
    if [session.number for session in beside].count(changed.number) > 1:
        raise Refusal(f"number {changed.number} twice on {changed.interface}")
    if not 1 <= changed.number <= 32766:
        raise Refusal(f"number {changed.number}")
    target = world.targets.get(changed.target)
    sources = sum(1 for session in there.values() if session.target == changed.target)
    if world.everything and target and target.capacity is not None and sources > target.capacity:
        before = sum(1 for session in world.sessions if session.target == changed.target)
        if sources > before:  # what was there from the start is not the plan's doing
            raise Refusal(f"{sources} sources of {changed.target}")


_IDS = st.sampled_from(["tmt-a", "tmt-b", "tmt-c", "tmt-d"])
_FILTERS = st.sampled_from([*FILTERS, "tmf-missing"])
_NUMBERS = st.one_of(st.integers(1, 4), st.sampled_from([32765, 32766]))
_VNIS = st.sampled_from([None, 7, 8])
_LENGTHS = st.sampled_from([None, NLB_PACKET_LENGTH, 128])
_TARGETS = st.builds(
    a_target,
    _IDS,
    st.sampled_from([Health.HEALTHY, *Health]),
    st.sampled_from([None, None, 0, 1, 2, 3]),
)


@st.composite
def worlds(draw: st.DrawFn, *, everything: bool | None = None) -> Case:
    """Small, so that numbers, slots and targets get scarce."""
    whole = draw(st.booleans()) if everything is None else everything
    targets = draw(st.lists(_TARGETS, unique_by=lambda target: target.id))
    instances = [
        an_instance(f"i-{number}", interfaces=draw(st.integers(0, 2))) for number in range(draw(st.integers(0, 4)))
    ]
    attached = [interface for instance in instances for interface in instance.interfaces]
    wishes = [_wish(draw, interface) for interface in attached if draw(st.booleans())]
    unwanted = tuple(
        Unwanted(
            instance.id, draw(st.sampled_from(["", f"eni-{instance.id[2:]}-0"])), "not wanted", draw(st.booleans())
        )
        for number, instance in enumerate(instances)
        if draw(st.booleans())
    )
    places = [*(interface.id for interface in attached), "eni-lost"]
    sessions = tuple(session for place in places for session in _sessions(draw, place, wishes))
    world = a_world(*instances, sessions=sessions, targets=tuple(targets), everything=whole)
    refused = draw(st.lists(st.sampled_from([*places, "tmt-a", "m5.large"]), max_size=1))
    return Case(wanted_of(*wishes, unwanted=unwanted), world, dict.fromkeys(refused, "refused of late"))


def _wish(draw: st.DrawFn, interface: Interface) -> Wish:
    return Wish(
        interface.id,
        interface.instance,
        "m5.large",
        draw(st.sampled_from(["web", "api"])),
        draw(st.sampled_from(["", "all of production"])),
        tuple(draw(st.lists(_IDS, min_size=1, max_size=3, unique=True))),
        draw(_FILTERS),
        draw(_NUMBERS),
        draw(_VNIS),
        draw(_LENGTHS),
        create=draw(st.sampled_from([True, True, False])),
    )


def _sessions(draw: st.DrawFn, interface: str, wishes: list[Wish]) -> list[Session]:
    """As many as AWS allows, with distinct numbers; those of ours often look as an earlier plan has left them."""
    numbers = draw(st.lists(_NUMBERS, max_size=SESSIONS_PER_INTERFACE, unique=True))
    found = []
    for index, number in enumerate(numbers):
        session = Session(
            f"tms-{interface}-{index}",
            interface,
            draw(_IDS),
            draw(_FILTERS),
            number,
            draw(st.sampled_from([7, 8, VNI_OF_AWS])),
            draw(_LENGTHS),
            draw(st.sampled_from(["", "i-0", "i-1", "i-gone"])),
        )
        wish = next((wish for wish in wishes if wish.interface == interface), None)
        if wish and draw(st.booleans()):
            session = replace(session, filter=wish.filter, description=wish.instance)
        if draw(st.booleans()):
            hashed = draw(
                st.sampled_from([config_hash(session), config_hash(replace(session, vni=None)), "of another"])
            )
            session = replace(session, tags={OWNER_TAG: OWNER, "mirror:config": hashed, "team": "shop"})
        elif draw(st.booleans()):
            session = replace(session, tags={OWNER_TAG: "another stack"})
        found.append(session)
    return found
