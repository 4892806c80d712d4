"""Flows against a plain model: any datagrams, any change of targets, any time between them."""

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lab.fabric.balancer.checks import State
from lab.fabric.balancer.flows import Choice, FlowTable, choose

IDLE = 12.0
NAMES = st.sampled_from("abcd")
SOURCES = st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2"]), st.integers(1, 4))


class Flows(RuleBasedStateMachine):
    """The model keeps each flow's target and last use, and knows no order, no hash."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.table = FlowTable(IDLE)
        self.model: dict[tuple[str, int], tuple[str, float]] = {}

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, IDLE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(states=st.dictionaries(NAMES, st.sampled_from(State)), draining=st.sets(NAMES))
    def change(self, states: dict[str, State], draining: set[str]) -> None:
        self.table.choice = choose(states, draining & states.keys())

    @rule(source=SOURCES)
    def datagram(self, source: tuple[str, int]) -> None:
        known, used = self.model.get(source, ("", -IDLE))
        went = self.table.find(source, self.now)
        if self.now - used < IDLE and known in self.table.choice.keep:
            assert went == known
        elif self.table.choice.new:
            assert went in self.table.choice.new
        else:
            assert went is None
        if went:
            self.model[source] = (went, self.now)

    @invariant()
    def no_flow_is_forgotten_early_or_kept_idle(self) -> None:
        self.table.forget(self.now)
        assert len(self.table) == sum(self.now - used < IDLE for _, used in self.model.values())


TestFlows = Flows.TestCase


H, U, I = State.HEALTHY, State.UNHEALTHY, State.INITIAL  # noqa: E741


@pytest.mark.parametrize(
    ("states", "draining", "new", "keep"),
    [
        ({"a": H, "b": H}, "", "ab", "ab"),
        ({"a": H, "b": U, "c": I}, "", "a", "a"),
        ({"a": H, "b": H}, "b", "a", "ab"),  # a draining target keeps its flows, and gets no more
        ({"a": H, "b": U}, "b", "a", "a"),  # unless it has died
        ({"a": U, "b": I}, "", "ab", "ab"),  # fail open
        ({"a": U, "b": H}, "b", "a", "ab"),  # healthy but draining: the other is all there is
        ({"a": H}, "a", "", "a"),
        ({}, "", "", ""),
    ],
)
def test_who_takes_part(states: dict[str, State], draining: str, new: str, keep: str) -> None:
    assert choose(states, set(draining)) == Choice(tuple(new), frozenset(keep))


def spread(table: FlowTable, flows: int = 3000) -> Counter[str | None]:
    return Counter(table.find(("10.0.0.5", 32768 + number), 0.0) for number in range(flows))


def test_flows_of_one_address_spread_evenly() -> None:
    table = FlowTable(IDLE)
    table.choice = choose({"a": H, "b": H, "c": H}, ())

    assert set(spread(table)) == {"a", "b", "c"}
    assert all(900 < number < 1100 for number in spread(table).values())


def test_with_stickiness_all_of_one_address_goes_one_way() -> None:
    table = FlowTable(IDLE, by_address=True)
    table.choice = choose({"a": H, "b": H, "c": H}, ())
    ways = {table.find((f"10.0.0.{host}", port), 0.0) for port in (1, 2, 3) for host in range(40)}

    assert len(spread(table)) == 1
    assert ways == {"a", "b", "c"}
    assert len(table) == 40


def test_only_the_flows_of_a_target_that_fails_move() -> None:
    table = FlowTable(IDLE)
    sources = [("10.0.0.5", port) for port in range(300)]
    table.choice = choose({"a": H, "b": H, "c": H}, ())
    before = {source: table.find(source, 0.0) for source in sources}
    table.choice = choose({"a": H, "b": U, "c": H}, ())
    after = {source: table.find(source, 1.0) for source in sources}

    assert {source for source in sources if before[source] != after[source]} == {
        source for source in sources if before[source] == "b"
    }
    assert table.moved == Counter(before.values())["b"]


def test_a_full_table_forgets_the_flow_that_is_longest_unused() -> None:
    table = FlowTable(IDLE, most=3)
    table.choice = choose({"a": H}, ())
    for port in (1, 2, 3):
        table.find(("10.0.0.1", port), 0.0)
    table.find(("10.0.0.1", 1), 1.0)
    table.choice = choose({"a": H, "b": H}, {"a"})  # who is remembered stays with a, who is new goes to b
    table.find(("10.0.0.1", 4), 2.0)

    assert (len(table), table.evicted) == (3, 1)
    assert table.find(("10.0.0.1", 1), 3.0) == "a"
    assert table.find(("10.0.0.1", 2), 3.0) == "b"
