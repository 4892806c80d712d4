"""The planner: properties over random worlds, then each decision and its reason by example."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given

from mirroring.model import (
    CONFIG_TAG,
    CREATED_TAG,
    DESCRIPTION_TAG,
    OWNER_TAG,
    SOURCE_TAG,
    Health,
    Plan,
    Session,
    Target,
    Trouble,
    Unwanted,
    Wanted,
    Wish,
    World,
    owned,
    stamp,
)
from mirroring.plan import GRACE, make_plan
from mirroring.policy import load
from mirroring.repair import config_hash
from tests.layers.mirroring.worlds import (
    FILTERS,
    NOW,
    OWNER,
    VNI_OF_AWS,
    Case,
    a_session,
    a_target,
    a_wish,
    a_world,
    an_instance,
    apply,
    wanted_of,
    worlds,
)
from tests.strategies import examples

MOST = 32766  # the highest session number
LATER = NOW + timedelta(hours=1)


def planned(wanted: Wanted, world: World, refused: Mapping[str, str] | None = None) -> Plan:
    return make_plan(wanted, world, owner=OWNER, now=NOW, refused=refused or {})


def of(case: Case) -> Plan:
    return planned(case.wanted, case.world, case.quarantined)


def is_empty(plan: Plan) -> bool:
    return not (plan.create or plan.modify or plan.delete)


def ours(name: str, interface: str, wish: Wish | None = None, **changed: object) -> Session:
    """A session as an earlier plan made it for a wish, and as it was altered since."""
    wish = wish or a_wish(interface)
    asked = Session(
        name, interface, wish.targets[0], wish.filter, wish.number, wish.vni, wish.packet_length, wish.instance
    )
    tags = {OWNER_TAG: OWNER, SOURCE_TAG: wish.source, CREATED_TAG: "2026-11-01T00:00:00Z"}
    tags |= {CONFIG_TAG: config_hash(asked)}
    made = replace(asked, vni=VNI_OF_AWS if wish.vni is None else wish.vni, tags=tags)
    return replace(made, **changed)  # type: ignore[arg-type]


def troubles(plan: Plan) -> list[Trouble]:
    return [finding.trouble for finding in plan.findings]


# Properties


@given(worlds())
@examples(150)
def test_a_plan_can_be_carried_out_and_a_second_one_is_empty(case: Case) -> None:
    after = apply(of(case), case.world)
    second = make_plan(case.wanted, after, owner=OWNER, now=LATER, refused=case.quarantined)
    assert is_empty(second), second
    assert second.kept == second.actual


@given(worlds())
@examples(100)
def test_foreign_sessions_are_neither_touched_nor_in_the_plan(case: Case) -> None:
    plan = of(case)
    named = [modify.before for modify in plan.modify] + [delete.session for delete in plan.delete]
    assert all(owned(session, OWNER) for session in named)
    after = {session.id: session for session in apply(plan, case.world).sessions}
    for session in case.world.sessions:
        assert owned(session, OWNER) or after[session.id] == session


@given(worlds(everything=True))
@examples(150)
def test_every_wish_has_the_one_session_it_asks_for_or_a_finding_says_why_not(case: Case) -> None:
    plan = of(case)
    world = apply(plan, case.world)
    mine = Counter(session.interface for session in world.sessions if owned(session, OWNER))
    mentioned = {finding.interface for finding in plan.findings} | {finding.source for finding in plan.findings}
    sessions = {session.interface: session for session in world.sessions if owned(session, OWNER)}
    for interface, wish in case.wanted.wishes.items():
        if not {interface, wish.source} & mentioned:
            assert mine[interface] == 1 or (not wish.create and not mine[interface])
        if mine[interface] == 1 and wish.filter in FILTERS and not {interface, wish.source} & mentioned:
            _assert_as_asked(sessions[interface], wish, world)
    assert set(mine) <= set(case.wanted.wishes)
    broken = {interface for interface, count in mine.items() if count > 1}
    assert all({case.wanted.wishes[interface].source, interface} & mentioned for interface in broken)


def _assert_as_asked(session: Session, wish: Wish, world: World) -> None:
    assert session.target in wish.targets
    assert session.filter == wish.filter
    assert session.description == wish.instance
    assert wish.vni in (None, session.vni)
    assert (session.packet_length or 8500) == (wish.packet_length or 8500)
    assert session.tags[SOURCE_TAG] == wish.source
    assert session.tags.get(DESCRIPTION_TAG, "") == wish.description
    beside = {other.number for other in world.sessions if other.interface == wish.interface and other != session}
    assert session.number == wish.number or wish.number in beside


@given(worlds())
@examples(80)
def test_the_order_in_which_things_are_listed_decides_nothing(case: Case) -> None:
    def turned[T](mapping: Mapping[str, T]) -> dict[str, T]:
        return dict(reversed(list(mapping.items())))

    instances = {
        name: replace(instance, interfaces=instance.interfaces[::-1])
        for name, instance in turned(case.world.instances).items()
    }
    world = replace(
        case.world, sessions=case.world.sessions[::-1], instances=instances, targets=turned(case.world.targets)
    )
    wanted = Wanted(turned(case.wanted.wishes), case.wanted.unwanted[::-1])
    assert planned(wanted, world, case.quarantined) == of(case)


@given(worlds(everything=False))
@examples(80)
def test_in_a_narrow_scope_what_is_not_in_sight_is_left_alone(case: Case) -> None:
    known = {interface.id for instance in case.world.instances.values() for interface in instance.interfaces}
    for delete in of(case).delete:
        assert delete.session.interface in known or delete.session.description in case.world.instances


@given(worlds())
@examples(100)
def test_the_counts_add_up(case: Case) -> None:
    plan = of(case)
    assert plan.actual == sum(owned(session, OWNER) for session in case.world.sessions)
    assert plan.actual == plan.kept + len(plan.modify) + len(plan.delete)
    assert plan.desired <= len(case.wanted.wishes)


@given(worlds())
@examples(100)
def test_what_is_made_or_moved_refers_to_what_is_there_and_was_not_refused(case: Case) -> None:
    plan = of(case)
    for create in plan.create:
        assert create.session.filter in case.world.filters
        assert not {create.session.interface, create.instance_type} & case.quarantined.keys()
    moved = [modify.after for modify in plan.modify if "target" in modify.changes]
    for session in [*(create.session for create in plan.create), *moved]:
        assert case.world.targets[session.target].health in (Health.HEALTHY, Health.UNKNOWN)
        assert session.target not in case.quarantined


# Creates


def test_a_new_session_has_all_tags_and_leaves_the_vni_to_aws() -> None:
    wish = a_wish("eni-1-0", description="shop " * 100, targets=("tmt-a", "tmt-b"))
    (create,) = planned(wanted_of(wish), a_world(an_instance("i-1"))).create
    session = create.session
    assert session == Session("", "eni-1-0", "tmt-a", "tmf-a", 1, None, None, "i-1", session.tags)
    assert session.tags == {
        OWNER_TAG: OWNER,
        SOURCE_TAG: "web",
        CREATED_TAG: "2026-11-23T08:00:00Z",
        CONFIG_TAG: config_hash(session),
        DESCRIPTION_TAG: wish.description[:256],
    }
    assert (create.instance_type, create.others) == ("m5.large", ("tmt-b",))
    assert create.reason == "source web selects i-1"


@pytest.mark.parametrize(
    ("preferred", "taken", "number"),
    [
        (1, (), 1),
        (1, (2,), 1),
        (1, (1,), 2),
        (1, (1, 2), 3),
        (5, (5,), 6),
        (32766, (32766,), 1),
        (32766, (32766, 1), 2),
    ],
)
def test_the_number_is_the_preferred_one_or_the_next_that_is_free(
    preferred: int, taken: tuple[int, ...], number: int
) -> None:
    foreign = tuple(a_session(f"tms-{taken_by}", "eni-1-0", number=taken_by) for taken_by in taken)
    plan = planned(wanted_of(a_wish("eni-1-0", number=preferred)), a_world(an_instance("i-1"), sessions=foreign))
    assert [create.session.number for create in plan.create] == [number]


def test_three_foreign_sessions_leave_no_slot() -> None:
    foreign = tuple(a_session(f"tms-{number}", "eni-1-0", number=number) for number in (1, 2, 3))
    plan = planned(wanted_of(a_wish("eni-1-0")), a_world(an_instance("i-1"), sessions=foreign))
    assert is_empty(plan)
    assert troubles(plan) == [Trouble.NO_SLOT]
    assert plan.findings[0].interface == "eni-1-0"


def test_three_foreign_sessions_beside_an_instance_that_starts_are_no_trouble_yet() -> None:
    foreign = tuple(a_session(f"tms-{number}", "eni-1-0", number=number) for number in (1, 2, 3))
    plan = planned(wanted_of(a_wish("eni-1-0", create=False)), a_world(an_instance("i-1"), sessions=foreign))
    assert plan == Plan()


def test_nothing_is_made_for_an_instance_that_does_not_run() -> None:
    plan = planned(wanted_of(a_wish("eni-1-0", create=False)), a_world(an_instance("i-1", state="pending")))
    assert plan == Plan()


@pytest.mark.parametrize(
    ("health", "trouble"),
    [
        (Health.UNHEALTHY, Trouble.TARGET_UNHEALTHY),
        (Health.NO_LISTENER, Trouble.TARGET_UNHEALTHY),
        (Health.GONE, Trouble.TARGET_MISSING),
    ],
)
def test_a_target_that_nothing_would_arrive_at_gets_no_new_session_and_says_why(
    health: Health, trouble: Trouble
) -> None:
    told = replace(a_target("tmt-a", health), why="the NLB has no UDP 4789 listener: add one")
    for target in (told, replace(told, why="")):
        plan = planned(wanted_of(a_wish("eni-1-0")), a_world(an_instance("i-1"), targets=(target,)))
        assert is_empty(plan)
        assert troubles(plan) == [trouble]
        assert (target.why or "behind-tmt-a") in plan.findings[0].text
        assert plan.findings[0].text.endswith(" (interfaces that wait for a target: 1)")


def test_a_target_that_is_not_ours_to_ask_is_used() -> None:
    world = a_world(an_instance("i-1"), targets=(a_target("tmt-a", Health.UNKNOWN),))
    plan = planned(wanted_of(a_wish("eni-1-0")), world)
    assert len(plan.create) == 1
    assert not plan.findings


def test_the_next_target_steps_in_and_the_trouble_of_the_first_is_told() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-x", "tmt-a", "tmt-b"))
    world = a_world(an_instance("i-1"), targets=(a_target("tmt-a", Health.UNHEALTHY), a_target("tmt-b")))
    plan = planned(wanted_of(wish), world)
    assert [create.session.target for create in plan.create] == ["tmt-b"]
    assert plan.create[0].others == ()
    assert troubles(plan) == [Trouble.TARGET_MISSING, Trouble.TARGET_UNHEALTHY]
    assert "wait" not in plan.findings[0].text


def test_an_interface_as_a_target_takes_so_many_sources_and_then_the_next_one_is_used() -> None:
    wishes = [a_wish(f"eni-{number}-0", targets=("tmt-a", "tmt-b")) for number in range(1, 6)]
    instances = [an_instance(f"i-{number}") for number in range(1, 6)]
    targets = (a_target("tmt-a", capacity=2), a_target("tmt-b", capacity=2))
    foreign = (a_session("tms-f", "eni-9-0"),)
    plan = planned(wanted_of(*wishes), a_world(*instances, sessions=foreign, targets=targets))
    assert [create.session.target for create in plan.create] == ["tmt-a", "tmt-b", "tmt-b"]
    assert [create.others for create in plan.create] == [("tmt-b",), (), ()]
    assert troubles(plan) == [Trouble.TARGET_FULL, Trouble.TARGET_FULL]
    assert all("(interfaces that wait for a target: 2)" in finding.text for finding in plan.findings)


def test_a_session_that_is_left_alone_takes_its_place_on_a_target() -> None:
    wishes = wanted_of(a_wish("eni-1-0", filter="tmf-x"), a_wish("eni-2-0", source="api"))
    targets = (a_target("tmt-a", capacity=1),)
    world = a_world(an_instance("i-1"), an_instance("i-2"), sessions=(ours("tms-1", "eni-1-0"),), targets=targets)
    plan = planned(wishes, world)
    assert is_empty(plan)
    assert troubles(plan) == [Trouble.FILTER_MISSING, Trouble.TARGET_FULL]


def test_in_a_narrow_scope_nobody_knows_how_full_a_target_is() -> None:
    targets = (a_target("tmt-a", capacity=0),)
    world = a_world(an_instance("i-1"), targets=targets, everything=False)
    assert len(planned(wanted_of(a_wish("eni-1-0")), world).create) == 1


# What is right, and what is changed in place


@pytest.mark.parametrize("everything", [True, False])
def test_what_is_right_is_kept(everything: bool) -> None:
    world = a_world(an_instance("i-1"), sessions=(ours("tms-1", "eni-1-0"),), everything=everything)
    assert planned(wanted_of(a_wish("eni-1-0")), world) == Plan(kept=1, desired=1, actual=1)


def _changed(before: Session, wish: Wish, *foreign: Session, targets: tuple[Target, ...] | None = None) -> Plan:
    known = targets or (a_target("tmt-a"), a_target("tmt-b"), a_target("tmt-eni", capacity=10))
    return planned(wanted_of(wish), a_world(an_instance("i-1"), sessions=(before, *foreign), targets=known))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"targets": ("tmt-b",)}, "policy changed: target tmt-a → tmt-b"),
        ({"filter": "tmf-b", "vni": 7}, f"policy changed: filter tmf-a → tmf-b, vni {VNI_OF_AWS} → 7"),
        ({"packet_length": 128}, "policy changed: packet length unset → 128"),
        ({"number": 5}, "preferred number free: number 1 → 5"),
        ({"instance": "i-2"}, "instance of the interface: description i-1 → i-2"),
    ],
)
def test_a_changed_policy_changes_sessions_in_place(changes: dict[str, object], reason: str) -> None:
    before = ours("tms-1", "eni-1-0")
    wish = a_wish("eni-1-0", **changes)
    plan = _changed(before, wish)
    (modify,) = plan.modify
    assert (modify.before, modify.reason) == (before, reason)
    assert modify.after.tags[CREATED_TAG] == before.tags[CREATED_TAG]
    assert (plan.create, plan.delete) == ((), ())


def test_a_session_altered_by_hand_is_put_right() -> None:
    before = ours("tms-1", "eni-1-0", filter="tmf-b", packet_length=64)
    (modify,) = _changed(before, a_wish("eni-1-0")).modify
    assert modify.changes == ("filter", "packet_length")
    assert modify.reason == "altered by hand: filter tmf-b → tmf-a, packet length 64 → unset"
    assert modify.after.tags == before.tags


def test_a_session_that_was_never_hashed_counts_as_not_altered() -> None:
    before = ours("tms-1", "eni-1-0", filter="tmf-b", tags={OWNER_TAG: OWNER})
    assert _changed(before, a_wish("eni-1-0")).modify[0].reason == "policy changed: filter tmf-b → tmf-a"


def test_tags_alone_are_completed_and_those_of_others_kept() -> None:
    before = ours("tms-1", "eni-1-0")
    before = replace(before, tags={OWNER_TAG: OWNER, DESCRIPTION_TAG: "old", "team": "shop"})
    (modify,) = _changed(before, a_wish("eni-1-0")).modify
    assert modify.changes == ()
    assert modify.reason == "tags completed: mirror:config, mirror:created, mirror:description, mirror:source"
    assert modify.after == replace(before, tags=modify.after.tags)
    assert modify.after.tags["team"] == "shop"
    assert modify.after.tags[CREATED_TAG] == "2026-11-23T08:00:00Z"
    assert DESCRIPTION_TAG not in modify.after.tags


@pytest.mark.parametrize("asked", [None, 8500])
@pytest.mark.parametrize("actual", [None, 8500])
def test_to_a_load_balancer_no_packet_length_is_the_longest(asked: int | None, actual: int | None) -> None:
    wish = a_wish("eni-1-0", packet_length=asked)
    assert not _changed(ours("tms-1", "eni-1-0", wish, packet_length=actual), wish).modify


def test_to_an_interface_no_packet_length_is_the_whole_packet() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-eni",))
    (modify,) = _changed(ours("tms-1", "eni-1-0", wish, packet_length=8500), wish).modify
    assert modify.after.packet_length is None
    assert modify.reason == "policy changed: packet length 8500 → unset"


def test_a_session_makes_way_for_a_foreign_one_and_returns() -> None:
    taken = ours("tms-1", "eni-1-0")
    foreign = a_session("tms-f", "eni-1-0", filter="tmf-empty")
    (modify,) = _changed(taken, a_wish("eni-1-0"), foreign).modify
    assert modify.reason == "a foreign session holds the number: number 1 → 2"
    (back,) = _changed(modify.after, a_wish("eni-1-0")).modify
    assert back.reason == "preferred number free: number 2 → 1"


def test_the_number_of_an_instance_that_does_not_run_is_judged_in_a_look_at_everything_only() -> None:
    wish = a_wish("eni-1-0", create=False)
    session = ours("tms-1", "eni-1-0", a_wish("eni-1-0", number=2))
    world = a_world(an_instance("i-1", state="stopped"), sessions=(session,))
    assert [modify.changes for modify in planned(wanted_of(wish), world).modify] == [("number",)]
    assert is_empty(planned(wanted_of(wish), replace(world, everything=False)))


# Targets of sessions that exist


def test_a_present_target_of_the_list_is_kept_whatever_its_health() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-b", "tmt-a"))
    before = ours("tms-1", "eni-1-0", a_wish("eni-1-0"))
    plan = _changed(before, wish, targets=(a_target("tmt-a", Health.UNHEALTHY), a_target("tmt-b")))
    assert is_empty(plan)
    assert troubles(plan) == [Trouble.TARGET_UNHEALTHY]


def test_a_session_leaves_a_target_that_is_gone() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-a", "tmt-b", "tmt-c"))
    targets = (a_target("tmt-a", Health.GONE), a_target("tmt-b"), a_target("tmt-c"))
    (modify,) = _changed(ours("tms-1", "eni-1-0"), wish, targets=targets).modify
    assert modify.reason == "target gone: target tmt-a → tmt-b"
    assert modify.others == ("tmt-c",)
    (modify,) = _changed(ours("tms-1", "eni-1-0"), wish, targets=targets[1:]).modify
    assert modify.reason == "target gone: target tmt-a → tmt-b"


def test_a_session_to_a_target_that_is_gone_is_deleted_if_there_is_no_other() -> None:
    plan = _changed(ours("tms-1", "eni-1-0"), a_wish("eni-1-0"), targets=(a_target("tmt-a", Health.GONE),))
    (delete,) = plan.delete
    assert delete.reason.startswith("target gone")
    assert not delete.evident
    assert not plan.modify


def test_a_session_stays_where_it_is_while_the_policys_new_target_is_not_ready() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-b",), filter="tmf-b")
    targets = (a_target("tmt-a"), a_target("tmt-b", Health.UNHEALTHY))
    plan = _changed(ours("tms-1", "eni-1-0"), wish, targets=targets)
    assert [modify.changes for modify in plan.modify] == [("filter",)]
    assert "wait for a target: 1" in plan.findings[0].text


def test_a_session_whose_target_is_out_of_sight_stays_on_it_while_there_is_no_other() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-a", "tmt-b"))
    plan = _changed(ours("tms-1", "eni-1-0", packet_length=8500), wish, targets=(a_target("tmt-b", Health.UNHEALTHY),))
    assert is_empty(plan)


def test_who_moves_away_makes_room_for_who_waits() -> None:
    """eni-1 wants where eni-2 is, which wants away from there: two moves, in the order that works."""
    wishes = wanted_of(a_wish("eni-1-0", targets=("tmt-b",)), a_wish("eni-2-0", targets=("tmt-c",)))
    sessions = (
        ours("tms-1", "eni-1-0"),
        ours("tms-2", "eni-2-0", a_wish("eni-2-0", targets=("tmt-b",))),
    )
    targets = (a_target("tmt-a"), a_target("tmt-b", capacity=1), a_target("tmt-c", capacity=1))
    world = a_world(an_instance("i-1"), an_instance("i-2"), sessions=sessions, targets=targets)
    plan = planned(wishes, world)
    assert [modify.reason for modify in plan.modify] == [
        "policy changed: target tmt-b → tmt-c",
        "policy changed: target tmt-a → tmt-b",
    ]
    apply(plan, world)


# Broken references and quarantine


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"filter": "tmf-x"}, [Trouble.FILTER_MISSING, Trouble.TARGET_MISSING]),
        ({"targets": ("tmt-x", "tmt-y")}, [Trouble.TARGET_MISSING, Trouble.TARGET_MISSING]),
    ],
)
def test_a_reference_to_nothing_makes_nothing_and_leaves_alone_what_exists(
    changes: dict[str, object], found: list[Trouble]
) -> None:
    """Not even a second session on the interface, or one to a target that is gone, is taken away."""
    wishes = wanted_of(a_wish("eni-1-0", **changes), a_wish("eni-2-0", **changes))
    sessions = (ours("tms-1", "eni-1-0"), ours("tms-2", "eni-1-0", number=2))
    gone = (a_target("tmt-a", Health.GONE),)
    plan = planned(wishes, a_world(an_instance("i-1"), an_instance("i-2"), sessions=sessions, targets=gone))
    assert is_empty(plan)
    assert plan.kept == 2
    assert troubles(plan) == found


def test_a_filter_without_a_rule_is_used_and_reported() -> None:
    plan = planned(wanted_of(a_wish("eni-1-0", filter="tmf-empty")), a_world(an_instance("i-1")))
    assert len(plan.create) == 1
    assert troubles(plan) == [Trouble.FILTER_EMPTY]


@pytest.mark.parametrize("refused", ["eni-1-0", "m5.large", "tmt-a"])
def test_what_aws_refused_of_late_is_not_asked_for_again(refused: str) -> None:
    plan = planned(wanted_of(a_wish("eni-1-0")), a_world(an_instance("i-1")), {refused: "NetworkInterfaceNotSupported"})
    assert is_empty(plan)
    assert troubles(plan) == [Trouble.QUARANTINED]
    assert "NetworkInterfaceNotSupported" in plan.findings[0].text


def test_quarantine_says_nothing_about_an_instance_that_starts() -> None:
    wish = a_wish("eni-1-0", create=False)
    plan = planned(wanted_of(wish), a_world(an_instance("i-1")), {"m5.large": "NetworkInterfaceNotSupported"})
    assert plan == Plan()


def test_sessions_of_a_type_that_is_refused_now_are_kept_right() -> None:
    world = a_world(an_instance("i-1"), sessions=(ours("tms-1", "eni-1-0", filter="tmf-b"),))
    plan = planned(wanted_of(a_wish("eni-1-0")), world, {"m5.large": "NetworkInterfaceNotSupported"})
    assert len(plan.modify) == 1
    plan = planned(wanted_of(a_wish("eni-1-0")), world, {"eni-1-0": "refused"})
    assert is_empty(plan)
    assert troubles(plan) == [Trouble.QUARANTINED]


# Deletes


def _deleted(session: Session, *unwanted: Unwanted, everything: bool = True) -> list[tuple[str, bool]]:
    world = a_world(an_instance("i-1"), sessions=(session,), everything=everything)
    plan = planned(wanted_of(unwanted=unwanted), world)
    assert is_empty(replace(plan, delete=()))
    return [(delete.reason, delete.evident) for delete in plan.delete]


def test_a_delete_gives_the_reason_that_the_policy_gives() -> None:
    session = ours("tms-1", "eni-1-0")
    entire = Unwanted("i-1", "", "stopped", evident=True)
    precise = Unwanted("i-1", "eni-1-0", "not the primary interface")
    assert _deleted(session, entire) == [("stopped", True)]
    assert _deleted(session, entire, precise) == [("not the primary interface", False)]
    assert _deleted(session) == [("no source of the policy matches", False)]
    assert _deleted(session, everything=False) == [("no source of the policy matches", False)]


def test_a_session_on_an_interface_that_was_detached_is_deleted() -> None:
    session = ours("tms-1", "eni-away", description="i-1")
    detached = ("eni-away is not attached to i-1 any more", True)
    assert _deleted(session) == [detached]
    assert _deleted(session, Unwanted("i-1", "", "no tag")) == [detached]
    assert _deleted(session, Unwanted("i-1", "", "stopped", evident=True)) == [("stopped", True)]


@pytest.mark.parametrize(
    ("state", "goes"), [("running", False), ("stopped", False), ("shutting-down", True), ("terminated", True)]
)
def test_another_instance_out_of_sight_may_have_an_interface_that_went_away(state: str, goes: bool) -> None:
    """But not its session, if the instance that it names has ended."""
    session = ours("tms-1", "eni-away", description="i-1")
    wanted = wanted_of(unwanted=(Unwanted("i-1", "", state, evident=True),))
    for everything in (False, True):
        world = a_world(an_instance("i-1", state=state), sessions=(session,), everything=everything)
        assert bool(planned(wanted, world).delete) == (goes or everything)


def test_orphans_are_deleted_in_a_look_at_everything_only() -> None:
    session = ours("tms-1", "eni-away", description="i-gone")
    assert _deleted(session) == [("orphan: instance i-gone not found", False)]
    assert _deleted(session, everything=False) == []
    nameless = replace(session, description="")
    assert _deleted(nameless) == [("orphan: eni-away is attached to no instance", False)]
    assert _deleted(nameless, everything=False) == []


def made(created: str, name: str, interface: str = "eni-away") -> Session:
    """Of ours, for an instance, at a time that its tag tells."""
    session = ours("tms-1", interface, a_wish("eni-1-0"), description=name)
    return replace(session, tags={**session.tags, CREATED_TAG: created})


@pytest.mark.parametrize("name", ["i-gone", "i-1"], ids=["orphan", "detached"])
def test_what_was_made_just_now_is_not_missed_by_a_describe_that_lags(name: str) -> None:
    just = NOW - GRACE + timedelta(seconds=1)
    assert _deleted(made(stamp(just), name)) == []
    assert len(_deleted(made(stamp(just - timedelta(seconds=1)), name))) == 1


@pytest.mark.parametrize("name", ["i-1", "i-1 on an interface that is there"])
def test_what_ec2_says_has_stopped_or_ended_has_no_grace(name: str) -> None:
    session = made(stamp(NOW), "i-1", "eni-away" if name == "i-1" else "eni-1-0")
    assert _deleted(session, Unwanted("i-1", "", "stopped", evident=True)) == [("stopped", True)]


@pytest.mark.parametrize("created", ["", "yesterday", "2026-11-23T08:00:00", "2999-01-01T00:00:00Z"])
def test_a_tag_that_was_altered_protects_no_orphan(created: str) -> None:
    assert len(_deleted(made(created, "i-gone"))) == 1


def test_an_interface_that_went_to_another_instance_keeps_its_session() -> None:
    (modify,) = _changed(ours("tms-1", "eni-1-0", description="i-gone"), a_wish("eni-1-0")).modify
    assert modify.reason == "instance of the interface: description i-gone → i-1"


def test_of_several_sessions_the_nearest_to_the_wish_stays() -> None:
    right = ours("tms-3", "eni-1-0", number=1, filter="tmf-b")
    others = (ours("tms-1", "eni-1-0", number=2), ours("tms-2", "eni-1-0", number=3))
    plan = _changed(right, a_wish("eni-1-0"), *others)
    assert [modify.before.id for modify in plan.modify] == ["tms-3"]  # the others cannot have its number yet
    assert [(delete.session.id, delete.reason, delete.evident) for delete in plan.delete] == [
        ("tms-1", "surplus: tms-3 mirrors the same interface", True),
        ("tms-2", "surplus: tms-3 mirrors the same interface", True),
    ]


def test_of_equally_near_sessions_that_with_fewer_changes_stays_then_the_smaller_id() -> None:
    wish = a_wish("eni-1-0", number=9)
    first, second, worse = (ours(name, "eni-1-0", number=int(name[-1])) for name in ("tms-1", "tms-2", "tms-3"))
    plan = _changed(replace(worse, id="tms-0", vni=None, filter="tmf-b"), wish, second, first)
    assert [modify.before.id for modify in plan.modify] == ["tms-1"]
    assert [delete.session.id for delete in plan.delete] == ["tms-0", "tms-2"]


def test_of_equally_far_sessions_that_with_a_target_of_the_list_stays() -> None:
    elsewhere = ours("tms-1", "eni-1-0", number=2, target="tmt-x")
    plan = _changed(elsewhere, a_wish("eni-1-0"), ours("tms-2", "eni-1-0", number=3))
    assert [delete.session.id for delete in plan.delete] == ["tms-1"]


# Shadowing


def test_a_session_that_is_kept_or_made_behind_a_foreign_one_is_reported() -> None:
    """The number that it will have counts, not the one that it has."""
    in_front = a_session("tms-f", "eni-1-0", number=2)
    wish = a_wish("eni-1-0", number=5)
    world = a_world(an_instance("i-1"), sessions=(in_front,))
    assert troubles(planned(wanted_of(wish), world)) == [Trouble.SHADOWED]
    kept = ours("tms-1", "eni-1-0", number=1)
    assert troubles(planned(wanted_of(wish), replace(world, sessions=(in_front, kept)))) == [Trouble.SHADOWED]
    assert troubles(planned(wanted_of(replace(wish, number=1)), replace(world, sessions=(in_front, kept)))) == []


# Sources that select nothing


def test_the_references_of_a_source_that_selects_nothing_are_looked_at_too() -> None:
    policy = load("""
        version: 1
        sources:
          - {name: idle, match: {names: nobody}, target: tmt-0123456789abcdef0, filter: tmf-0123456789abcdef0}
    """)
    plan = make_plan(wanted_of(), a_world(), owner=OWNER, now=NOW, sources=policy.sources)
    assert [(one.trouble, one.source) for one in plan.findings] == [
        (Trouble.FILTER_MISSING, "idle"),
        (Trouble.TARGET_MISSING, "idle"),
    ]
    assert planned(wanted_of(), a_world()).findings == ()
