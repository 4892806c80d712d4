"""The health of targets: as reported, and gone when the draining is over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cloud.targets import CHECKING, DRAINING, HEALTHY, REGISTERING, Target, Targets, follow, reported, told

DELAY = 30.0
PORTS = {"i-1": 4789, "i-2": 4789}


def states(targets: Targets) -> dict[str, str]:
    return {name: target.health.state for name, target in targets.items()}


def test_a_target_is_initial_until_somebody_reports() -> None:
    targets = follow({}, PORTS, 0, DELAY)
    assert targets == {name: Target(4789, REGISTERING) for name in PORTS}
    assert states(told(targets, "i-1", HEALTHY)) == {"i-1": "healthy", "i-2": "initial"}


def test_one_that_is_deregistered_drains_for_the_delay() -> None:
    targets = told(follow({}, PORTS, 0, DELAY), "i-1", HEALTHY)
    left = follow(targets, {"i-2": 4789}, 10, DELAY)
    assert left["i-1"] == Target(4789, DRAINING, 40)
    assert follow(left, {"i-2": 4789}, 39.9, DELAY)["i-1"] == left["i-1"]
    assert states(follow(left, {"i-2": 4789}, 40, DELAY)) == {"i-2": "initial"}


def test_a_late_report_says_nothing() -> None:
    targets = follow(follow({}, PORTS, 0, DELAY), {"i-2": 4789}, 0, DELAY)
    assert told(targets, "i-1", HEALTHY) == targets == told(targets, "i-3", HEALTHY)


def test_one_that_is_registered_again_begins_again() -> None:
    targets = told(follow({}, PORTS, 0, DELAY), "i-1", HEALTHY)
    back = follow(follow(targets, {"i-2": 4789}, 0, DELAY), PORTS, 5, DELAY)
    assert back["i-1"] == Target(4789, REGISTERING)


def test_without_a_delay_nothing_drains() -> None:
    assert follow(follow({}, PORTS, 0, 0), {}, 0, 0) == {}


def test_reports_have_words() -> None:
    assert reported("initial") == CHECKING
    assert reported("unhealthy").reason == "Target.FailedHealthChecks"
    assert reported("unhealthy", "Target.Timeout", "Request timed out").reason == "Target.Timeout"
    with pytest.raises(ValueError, match="reports initial, healthy, unhealthy of a target, not 'fine'"):
        reported("fine")


NAMES = st.sampled_from(["i-1", "i-2", "i-3"])
STEPS = st.lists(
    st.tuples(
        st.floats(0, 20), st.frozensets(NAMES), st.lists(st.tuples(NAMES, st.sampled_from(["healthy", "unhealthy"])))
    )
)


@given(STEPS)
def test_whatever_happens_the_registered_are_shown_and_the_others_drain(
    steps: list[tuple[float, frozenset[str], list[tuple[str, str]]]],
) -> None:
    targets: Targets = {}
    now, left = 0.0, dict[str, float]()
    before: frozenset[str] = frozenset()
    for pause, registered, reports in steps:
        now += pause
        left = {name: at for name, at in left.items() if name not in registered} | dict.fromkeys(
            before - registered, now
        )
        targets = follow(targets, dict.fromkeys(registered, 80), now, DELAY)
        assert follow(targets, dict.fromkeys(registered, 80), now, DELAY) == targets
        for name, state in reports:
            targets = told(targets, name, reported(state))
        draining = {name for name, target in targets.items() if target.draining}
        assert draining == {name for name, at in left.items() if now < at + DELAY}
        assert targets.keys() - draining == registered
        before = registered
