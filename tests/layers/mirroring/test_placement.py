"""Targets: which take something new, how much room they have, and where kept sessions end up."""

from dataclasses import replace

import pytest

from mirroring.model import Health, Session, Target, Trouble, Wish
from mirroring.placement import Room, bars, choose, full, gone, others, settle, will_do
from tests.layers.mirroring.worlds import a_session, a_target, a_wish, a_world


def _known(*targets: Target) -> dict[str, Target]:
    return {target.id: target for target in targets}


@pytest.mark.parametrize(
    ("health", "trouble"),
    [
        (Health.HEALTHY, None),
        (Health.UNKNOWN, None),
        (Health.UNHEALTHY, Trouble.TARGET_UNHEALTHY),
        (Health.NO_LISTENER, Trouble.TARGET_UNHEALTHY),
        (Health.GONE, Trouble.TARGET_MISSING),
    ],
)
def test_health_decides_what_takes_something_new(health: Health, trouble: Trouble | None) -> None:
    found = bars(["tmt-a"], _known(a_target("tmt-a", health)), {})
    assert (found["tmt-a"].trouble if found else None) == trouble
    assert gone("tmt-a", _known(a_target("tmt-a", health))) == (health is Health.GONE)


@pytest.mark.parametrize("health", [Health.UNHEALTHY, Health.GONE])
def test_the_reason_is_the_one_that_was_found_out_about_the_target(health: Health) -> None:
    told = replace(a_target("tmt-a", health), why="look at its health check")
    assert bars(["tmt-a"], _known(told), {})["tmt-a"].text == "Mirror target tmt-a: look at its health check"


def test_a_target_that_is_not_there_or_was_refused_takes_nothing() -> None:
    found = bars(["tmt-x", "tmt-a"], _known(a_target("tmt-a")), {"tmt-a": "InvalidTrafficMirrorTarget"})
    assert found["tmt-x"].trouble is Trouble.TARGET_MISSING
    assert found["tmt-a"].trouble is Trouble.QUARANTINED
    assert "InvalidTrafficMirrorTarget" in found["tmt-a"].text
    assert not gone("tmt-x", {})


def test_room_is_what_the_sessions_there_leave_and_without_a_capacity_unlimited() -> None:
    world = a_world(targets=(a_target("tmt-a", capacity=2), a_target("tmt-b")))
    room = Room(world, [a_session("tms-1", "eni-1-0"), a_session("tms-2", "eni-2-0", target="tmt-b")])
    wish = a_wish("eni-3-0", targets=("tmt-a", "tmt-b"))
    assert (choose(wish, {}, room), others(wish, "tmt-a", {}, room)) == ("tmt-a", ("tmt-b",))
    room.take("tmt-a")
    assert (choose(wish, {}, room), others(wish, "tmt-b", {}, room)) == ("tmt-b", ())
    assert full(wish, {}, room) == {"tmt-a"}
    room.free("tmt-a")
    room.free("tmt-b")
    assert choose(wish, {}, room) == "tmt-a"
    assert full(wish, {}, room) == set()


def test_a_narrow_scope_counts_no_room() -> None:
    room = Room(a_world(targets=(a_target("tmt-a", capacity=0),), everything=False), [])
    assert room.has("tmt-a")


def test_barred_targets_are_no_choice_and_not_called_full() -> None:
    world = a_world(targets=(a_target("tmt-a", Health.UNHEALTHY, capacity=0), a_target("tmt-b", Health.UNHEALTHY)))
    barred = bars(["tmt-a", "tmt-b"], world.targets, {})
    wish = a_wish("eni-1-0", targets=("tmt-a", "tmt-b"))
    room = Room(world, [])
    assert choose(wish, barred, room) is None
    assert others(wish, "tmt-x", barred, room) == ()
    assert full(wish, barred, room) == set()


@pytest.mark.parametrize(
    ("listed", "targets", "stays"),
    [
        (("tmt-b", "tmt-a"), (a_target("tmt-a", Health.UNHEALTHY),), True),
        (("tmt-b",), (a_target("tmt-a"),), False),
        (("tmt-a",), (), False),
        (("tmt-a",), (a_target("tmt-a", Health.GONE),), False),
    ],
)
def test_a_listed_target_that_exists_will_do(listed: tuple[str, ...], targets: tuple[Target, ...], stays: bool) -> None:
    assert will_do(a_wish("eni-1-0", targets=listed), a_session("tms-1", "eni-1-0"), _known(*targets)) is stays


def _settled(*kept: tuple[str, str, str], targets: tuple[Target, ...]) -> list[tuple[str, str | None]]:
    """Each kept as (interface, present target, wanted target)."""
    pairs: list[tuple[Wish, Session]] = [
        (a_wish(interface, targets=(wanted,)), a_session(f"tms-{interface}", interface, target=present))
        for interface, present, wanted in kept
    ]
    world = a_world(targets=targets)
    room = Room(world, [session for _, session in pairs])
    ids = {wanted for _, _, wanted in kept}
    return list(settle(pairs, world.targets, bars(ids, world.targets, {}), room).items())


def test_a_chain_of_moves_is_resolved_from_its_end() -> None:
    targets = tuple(a_target(f"tmt-{name}", capacity=1) for name in "abcd")
    chain = [("eni-1-0", "tmt-a", "tmt-b"), ("eni-2-0", "tmt-b", "tmt-c"), ("eni-3-0", "tmt-c", "tmt-d")]
    assert _settled(*chain, targets=targets) == [("eni-3-0", "tmt-d"), ("eni-2-0", "tmt-c"), ("eni-1-0", "tmt-b")]


def test_who_is_where_it_should_be_stays_and_needs_no_room() -> None:
    targets = (a_target("tmt-a", Health.UNHEALTHY, capacity=1), a_target("tmt-b", capacity=1))
    kept = [("eni-1-0", "tmt-a", "tmt-a"), ("eni-2-0", "tmt-b", "tmt-b"), ("eni-3-0", "tmt-b", "tmt-a")]
    assert _settled(*kept, targets=targets) == [("eni-1-0", "tmt-a"), ("eni-2-0", "tmt-b"), ("eni-3-0", "tmt-b")]


def test_two_that_want_each_others_place_stay() -> None:
    targets = (a_target("tmt-a", capacity=1), a_target("tmt-b", capacity=1))
    swap = [("eni-1-0", "tmt-a", "tmt-b"), ("eni-2-0", "tmt-b", "tmt-a")]
    assert _settled(*swap, targets=targets) == [("eni-1-0", "tmt-a"), ("eni-2-0", "tmt-b")]


def test_who_cannot_leave_a_target_that_is_gone_has_no_seat() -> None:
    targets = (a_target("tmt-a", Health.GONE), a_target("tmt-b", Health.UNHEALTHY))
    assert _settled(("eni-1-0", "tmt-a", "tmt-b"), targets=targets) == [("eni-1-0", None)]
