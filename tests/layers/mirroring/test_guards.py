"""The guards: what each of them holds back, and what they let through."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.guards import FREE_DELETES, cap, guard
from mirroring.model import OWNER_TAG, Create, Delete, Finding, Plan, Session, Trouble, World, owned
from mirroring.plan import make_plan
from mirroring.policy import Limits
from tests.layers.mirroring.worlds import NOW, OWNER, Case, a_session, a_wish, a_world, an_instance, apply, worlds
from tests.strategies import examples

FINDING = Finding(Trouble.NO_SLOT, "another one")


def _sessions(count: int, tags: dict[str, str]) -> tuple[Session, ...]:
    return tuple(a_session(f"tms-{tags[OWNER_TAG]}-{number}", f"eni-{number}-0", tags) for number in range(count))


def _world(ours: int, *, everything: bool = True) -> World:
    """With ten foreign sessions as well, which count for nothing."""
    sessions = (*_sessions(ours, {OWNER_TAG: OWNER}), *_sessions(10, {OWNER_TAG: "another stack"}))
    return a_world(an_instance("i-1"), sessions=sessions, everything=everything)


def _plan(evident: int, selected: int) -> Plan:
    doomed = _sessions(evident + selected, {OWNER_TAG: OWNER})
    deletes = tuple(Delete(session, "…", number < evident) for number, session in enumerate(doomed))
    create = Create(a_session("", "eni-x-0"), "m5.large", (), a_wish("eni-x-0").source)
    return Plan(create=(create,), delete=deletes, findings=(FINDING,))


def _tripped(plan: Plan, world: World, **limits: float) -> bool:
    guarded = guard(plan, world, Limits(**limits), owner=OWNER)
    if guarded == plan:
        return False
    kept = plan.kept + len(plan.delete)
    assert guarded == replace(plan, delete=(), held=plan.delete, kept=kept, findings=guarded.findings)
    assert guarded.findings[:-1] == (FINDING,)
    assert guarded.findings[-1].trouble is Trouble.GUARD
    assert guarded.findings[-1].text.startswith(f"{len(plan.delete)} deletes are held back: ")
    return True


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize(("evident", "selected"), [(8, 0), (0, 8), (5, 3)])
def test_more_deletes_than_allowed_are_held_back_whatever_their_reason(
    everything: bool, evident: int, selected: int
) -> None:
    plan, world = _plan(evident, selected), _world(100, everything=everything)
    assert not _tripped(plan, world, deletes=8)
    assert _tripped(plan, world, deletes=7)


def test_too_large_a_fraction_of_ours_is_held_back() -> None:
    assert not _tripped(_plan(0, 10), _world(20))
    assert _tripped(_plan(0, 11), _world(20))
    assert not _tripped(_plan(0, 11), _world(20), delete_fraction=0.6)


def test_what_the_world_ended_does_not_count_towards_the_fraction() -> None:
    assert not _tripped(_plan(19, 1), _world(20))


def test_a_few_deletes_are_never_too_large_a_fraction() -> None:
    assert not _tripped(_plan(0, FREE_DELETES), _world(FREE_DELETES))
    assert _tripped(_plan(0, FREE_DELETES + 1), _world(FREE_DELETES + 1))


def test_a_narrow_scope_knows_no_fraction() -> None:
    assert not _tripped(_plan(0, 20), _world(20, everything=False))


@pytest.mark.parametrize("evident", [True, False])
def test_an_empty_describe_never_deletes(evident: bool) -> None:
    plan = _plan(int(evident), int(not evident))
    assert _tripped(plan, replace(_world(100), instances={}))
    assert not _tripped(plan, replace(_world(100, everything=False), instances={}))


def test_without_a_delete_there_is_nothing_to_hold_back() -> None:
    assert not _tripped(_plan(0, 0), replace(_world(100), instances={}), deletes=0)


@given(worlds(), st.integers(0, 3), st.floats(0, 1), st.lists(st.booleans(), max_size=8))
@examples(100)
def test_all_deletes_or_none_and_never_more_than_allowed(
    case: Case, deletes: int, fraction: float, evident: list[bool]
) -> None:
    doomed = tuple(Delete(session, "…", sure) for session, sure in zip(case.world.sessions, evident, strict=False))
    plan = Plan(delete=doomed)
    guarded = guard(plan, case.world, Limits(deletes=deletes, delete_fraction=fraction), owner=OWNER)
    assert guarded == plan or (guarded.delete == () and guarded.held == doomed and guarded.findings)
    assert len(guarded.delete) <= deletes


# The limit of sessions


def _creating(count: int, *, actual: int = 0, deletes: int = 0) -> Plan:
    creates = tuple(Create(a_session("", f"eni-{number}-0"), "m5.large", (), "…") for number in range(count))
    return replace(_plan(0, deletes), create=creates, actual=actual, kept=actual - deletes)


@pytest.mark.parametrize(
    ("actual", "deletes", "elsewhere", "made"), [(0, 0, 0, 3), (8, 0, 0, 2), (8, 1, 0, 3), (3, 0, 6, 1), (12, 0, 0, 0)]
)
def test_creates_go_as_far_as_the_limit_of_sessions_has_room(
    actual: int, deletes: int, elsewhere: int, made: int
) -> None:
    plan = _creating(3, actual=actual, deletes=deletes)
    capped = cap(plan, Limits(sessions=10), elsewhere=elsewhere)
    assert capped.create == plan.create[:made]
    assert capped == plan if made == 3 else [one.trouble for one in capped.findings[1:]] == [Trouble.LIMIT]
    if made < 3:
        assert f"{3 - made} interfaces get none" in capped.findings[-1].text


def test_what_is_over_the_limit_already_is_no_finding_while_nothing_is_to_be_made() -> None:
    assert cap(_creating(0, actual=20), Limits(sessions=10)).findings == (FINDING,)


def test_deletes_that_are_held_back_make_no_room() -> None:
    """20 of 20 go and 20 come, at a limit of 20: with the deletes held back, none may come."""
    plan = _creating(20, actual=20, deletes=20)
    limits = Limits(sessions=20)
    held = cap(guard(plan, _world(20), limits, owner=OWNER), limits)
    assert (len(held.create), len(held.delete), held.kept) == (0, 0, 20)
    let_through = cap(guard(plan, _world(20), Limits(sessions=20, delete_fraction=1), owner=OWNER), limits)
    assert (len(let_through.create), len(let_through.delete), let_through.kept) == (20, 20, 0)


@given(worlds(everything=True), st.integers(0, 6), st.integers(0, 3))
@examples(150)
def test_no_more_sessions_are_made_than_the_policy_allows_whatever_is_held_back(
    case: Case, most: int, deletes: int
) -> None:
    limits = Limits(sessions=most, deletes=deletes, delete_fraction=1)
    # A delete that is held back frees no place on a target either: that is for AWS's refusal to say.
    roomy = {name: replace(target, capacity=None) for name, target in case.world.targets.items()}
    case = replace(case, world=replace(case.world, targets=roomy))

    def bounded(case: Case) -> Plan:
        plan = make_plan(case.wanted, case.world, owner=OWNER, now=NOW, refused=case.quarantined)
        return cap(guard(plan, case.world, limits, owner=OWNER), limits)

    plan = bounded(case)
    assert plan.actual == plan.kept + len(plan.modify) + len(plan.delete)
    after = apply(plan, case.world)
    assert not plan.create or sum(owned(session, OWNER) for session in after.sessions) <= most
    second = bounded(replace(case, world=after))
    assert not (second.create or second.modify or second.delete)
