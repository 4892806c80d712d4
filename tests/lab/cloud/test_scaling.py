"""The decision alone, and in a world that loses, delays and doubles whatever it is told."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lab.cloud.scaling import (
    MOST_ACTIVITIES,
    MOST_LAUNCHES,
    Decision,
    Group,
    Member,
    Phase,
    Seen,
    check_sizes,
    decide,
    dismissed,
    remembered,
)

SUBNETS = ("subnet-a", "subnet-b")
RUNNING, HEALTHY = Seen("running"), Seen("running", ("healthy",))


def serving(name: str, joined: float = 0.0, since: float = 0.0) -> Member:
    return Member(name, SUBNETS[0], joined, phase=Phase.SERVING, since=since)


def decision(
    group: Group, members: list[Member], seen: Mapping[str, Seen] | None = None, now: float = 100.0
) -> Decision:
    return decide(group, members, seen or {member.instance: HEALTHY for member in members}, now)


def test_a_group_grows_over_its_subnets_in_turn() -> None:
    decided = decision(Group(3, SUBNETS), [])
    assert decided.launch == ("subnet-a", "subnet-b", "subnet-a")
    assert decision(Group(2, SUBNETS), [serving("i-1")]).launch == ("subnet-b",)


def test_it_launches_so_many_at_a_look_and_no_more() -> None:
    assert len(decision(Group(MOST_LAUNCHES + 5, SUBNETS), []).launch) == MOST_LAUNCHES


def test_one_that_runs_comes_into_service_once() -> None:
    decided = decision(Group(1, SUBNETS), [Member("i-1", SUBNETS[0], 0.0)], {"i-1": RUNNING})
    assert decided.enter == ("i-1",) and decided.members == (serving("i-1", since=100.0),)
    assert decision(Group(1, SUBNETS), [*decided.members], {"i-1": RUNNING}).enter == ()


def test_the_oldest_leaves_drains_and_ends() -> None:
    group, members = Group(1, SUBNETS), [serving("i-2", joined=2), serving("i-1", joined=1)]
    first = decision(group, members)
    assert (first.leave, first.end) == (("i-1",), ())
    draining = {"i-2": HEALTHY, "i-1": Seen("running", ("draining",))}
    second = decision(group, [*first.members], draining)
    assert (second.leave, second.end) == ((), ())
    third = decision(group, [*second.members], {"i-2": HEALTHY, "i-1": RUNNING})
    assert third.end == ("i-1",)
    down = decision(group, [*third.members], {"i-2": HEALTHY, "i-1": Seen("shutting-down")})
    assert (down.end, down.forget) == ((), ())
    assert decision(group, [*down.members], {"i-2": HEALTHY, "i-1": Seen("terminated")}).forget == ("i-1",)


def test_who_has_to_hurry_does_not_drain() -> None:
    decided = decision(Group(0, SUBNETS, hurried=True), [serving("i-1")])
    assert (decided.leave, decided.end) == (("i-1",), ("i-1",))


@pytest.mark.parametrize(
    ("state", "forgotten"), [("stopping", False), ("stopped", False), ("terminated", True), ("", True)]
)
def test_what_is_stopped_or_terminated_by_hand_is_replaced(state: str, forgotten: bool) -> None:
    decided = decision(Group(1, SUBNETS), [serving("i-1")], {"i-1": Seen(state, ("healthy",))})
    assert decided.launch == ("subnet-a",)
    assert (decided.forget == ("i-1",)) is forgotten and (decided.leave == ("i-1",)) is not forgotten


def test_one_that_is_shut_down_by_hand_leaves_the_target_groups_at_once() -> None:
    decided = decision(Group(1, SUBNETS), [serving("i-1")], {"i-1": Seen("shutting-down", ("healthy",))})
    assert (decided.leave, decided.end, decided.launch) == (("i-1",), (), ("subnet-a",))


@pytest.mark.parametrize(("now", "balanced", "replaced"), [(129, True, False), (130, True, True), (130, False, False)])
def test_the_unhealthy_are_replaced_after_the_grace_period(now: float, balanced: bool, replaced: bool) -> None:
    group = Group(1, SUBNETS, grace=30, balanced=balanced)
    decided = decision(group, [serving("i-1", since=100)], {"i-1": Seen("running", ("healthy", "unhealthy"))}, now)
    assert (decided.leave == ("i-1",)) is replaced and (decided.launch == ("subnet-a",)) is replaced
    assert ("health check" in decided.members[0].unhealthy) is replaced


def test_one_that_is_told_to_go_goes() -> None:
    group, members = Group(2, SUBNETS), [serving("i-1"), Member("i-2", SUBNETS[1], 0.0)]
    told = dismissed(group, dismissed(group, members, "i-1", 5.0), "i-2", 5.0)
    assert [member.phase for member in told] == [Phase.DRAINING, Phase.ENDING]
    assert dismissed(group, told, "i-1", 6.0) == told, "told twice, it does not hurry"
    decided = decision(group, [*told], {"i-1": HEALTHY, "i-2": Seen("pending")})
    assert (decided.leave, decided.end, len(decided.launch)) == (("i-1",), ("i-2",), 2)


def test_a_group_has_possible_sizes() -> None:
    check_sizes(1, 3, 2)
    for sizes in ((2, 1, 2), (1, 3, 4), (1, 3, 0), (-1, 3, 2)):
        with pytest.raises(ValueError, match="must be between"):
            check_sizes(*sizes)


class World(RuleBasedStateMachine):
    """Instances and targets as AWS has them, one group, and deeds that are done in full, or not yet."""

    @initialize(balanced=st.booleans(), grace=st.sampled_from([0.0, 10.0]))
    def begin(self, balanced: bool, grace: float) -> None:
        self.group = Group(2, SUBNETS, grace, balanced)
        self.now, self.born = 0.0, 0
        self.members: tuple[Member, ...] = ()
        self.states: dict[str, str] = {}
        self.health: dict[str, str] = {}
        self.entered: list[str] = []
        self.left: list[str] = []
        self.forgotten: list[str] = []

    def seen(self) -> dict[str, Seen]:
        names = [member.instance for member in self.members]
        return {name: Seen(self.states[name], (self.health[name],) if name in self.health else ()) for name in names}

    @rule()
    def look(self) -> None:
        before, seen = self.members, self.seen()
        decided = decide(self.group, before, seen, self.now)
        self.check(decided, seen)
        for name in decided.enter:
            self.entered.append(name)
            self.health[name] = "initial"
        for name in decided.leave:
            self.left.append(name)
            self.health[name] = "draining"
        for name in decided.end:
            self.states[name] = "terminated" if self.states[name] == "stopped" else "shutting-down"
        for name in decided.forget:
            self.forgotten.append(name)
            self.health.pop(name, None)
        self.members = decided.members
        for subnet in decided.launch:
            self.born += 1
            self.states[f"i-{self.born}"] = "pending"
            self.members = (*self.members, Member(f"i-{self.born}", subnet, self.now))
        again = decide(self.group, self.members, self.seen(), self.now)
        assert not again.enter and not again.leave and not again.launch, "a second look finds nothing to do"

    def check(self, decided: Decision, seen: Mapping[str, Seen]) -> None:
        staying = [member for member in decided.members if member.counts]
        assert len(staying) + len(decided.launch) == max(len(staying), self.group.desired) == self.group.desired
        assert all(seen[name].state == "running" for name in decided.enter)
        assert all(seen[name].gone for name in decided.forget)
        assert all(not seen[name].health for name in decided.end), "none ends before it has drained"

    @rule(more=st.floats(0, 20))
    def time_passes(self, more: float) -> None:
        self.now += more

    @rule(desired=st.integers(0, 5))
    def somebody_scales(self, desired: int) -> None:
        self.group = replace(self.group, desired=desired)

    @rule(pick=st.integers(0), report=st.sampled_from(["running", "stopped", "terminated"]))
    def a_machine_reports(self, pick: int, report: str) -> None:
        """In time, too late, or for the second time."""
        news = {"running": "pending", "stopped": "stopping", "terminated": "shutting-down"}
        self.change(pick, lambda state: report if state == news[report] else state)

    @rule(pick=st.integers(0), state=st.sampled_from(["stopping", "shutting-down", "terminated"]))
    def somebody_meddles(self, pick: int, state: str) -> None:
        self.change(pick, lambda now: state if now in ("pending", "running", "stopped") else now)

    @rule(pick=st.integers(0), health=st.sampled_from(["healthy", "unhealthy"]))
    def a_balancer_reports(self, pick: int, health: str) -> None:
        names = sorted(self.health)
        if names and self.health[names[pick % len(names)]] != "draining":
            self.health[names[pick % len(names)]] = health

    @rule(pick=st.integers(0))
    def a_target_is_drained(self, pick: int) -> None:
        names = sorted(name for name, health in self.health.items() if health == "draining")
        if names:
            del self.health[names[pick % len(names)]]

    def change(self, pick: int, to: Callable[[str], str]) -> None:
        if self.states:
            name = f"i-{1 + pick % len(self.states)}"
            self.states[name] = to(self.states[name])

    @invariant()
    def each_comes_and_goes_once(self) -> None:
        if hasattr(self, "members"):
            assert len(self.entered) == len(set(self.entered)) and len(self.forgotten) == len(set(self.forgotten))
            assert not {member.instance for member in self.members} & set(self.forgotten)

    def teardown(self) -> None:
        """Left alone, with machines that obey and targets that are well, it becomes what it should be."""
        if not hasattr(self, "members"):
            return
        orders = {"pending": "running", "stopping": "stopped", "shutting-down": "terminated"}
        for _ in range(8):
            self.look()
            self.states = {name: orders.get(state, state) for name, state in self.states.items()}
            self.health = {name: "healthy" for name, health in self.health.items() if health != "draining"}
        self.look()
        assert [member.phase for member in self.members] == [Phase.SERVING] * self.group.desired
        assert all(self.states[member.instance] == "running" for member in self.members)
        ours = {member.instance for member in self.members}
        assert all(state in ("terminated", "") for name, state in self.states.items() if name not in ours)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_group_remembers_its_last_activities() -> None:
    activities: list[int] = []
    for number in range(MOST_ACTIVITIES + 5):
        activities = remembered(number, activities)
    assert activities == [*range(MOST_ACTIVITIES + 4, 4, -1)]
