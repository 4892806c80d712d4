"""An instance's life in any order of calls and reports."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cloud.faults import ApiError
from lab.cloud.states import CALLS, CODES, REPORTS, called, reported

DEEDS = st.lists(st.sampled_from([*CALLS, *REPORTS]))

#: What AWS lets follow upon what.
NEXT = {
    "pending": {"running", "shutting-down", "terminated"},
    "running": {"stopping", "shutting-down"},
    "stopping": {"stopped", "shutting-down"},
    "stopped": {"pending", "terminated"},
    "shutting-down": {"terminated"},
    "terminated": set[str](),
}


def after(deed: str, state: str) -> str:
    if deed in REPORTS:
        return reported(deed, state)
    with suppress(ApiError):
        return called(deed, "i-1", state)
    return state


@given(DEEDS)
def test_states_follow_as_on_aws(deeds: list[str]) -> None:
    state = "pending"
    for deed in deeds:
        then = after(deed, state)
        assert then == state or then in NEXT[state]
        state = then


@given(DEEDS)
def test_said_twice_is_said_once(deeds: list[str]) -> None:
    once = twice = "pending"
    for deed in deeds:
        once, twice = after(deed, once), after(deed, after(deed, twice))
    assert once == twice


@given(DEEDS)
def test_every_instance_can_be_terminated(deeds: list[str]) -> None:
    state = "pending"
    for deed in [*deeds, "TerminateInstances", "terminated"]:
        state = after(deed, state)
    assert state == "terminated"


def test_a_late_report_brings_nothing_back() -> None:
    assert reported("running", "shutting-down") == "shutting-down"
    assert reported("stopped", "pending") == "pending"
    assert reported("terminated", "running") == "running"


def test_a_machine_that_does_not_come_up_is_terminated() -> None:
    assert reported("terminated", "pending") == "terminated"


@pytest.mark.parametrize(
    ("action", "state", "deed"),
    [
        ("StartInstances", "stopping", "started"),
        ("StartInstances", "terminated", "started"),
        ("StopInstances", "pending", "stopped"),
        ("StopInstances", "shutting-down", "stopped"),
    ],
)
def test_a_call_out_of_place_is_refused(action: str, state: str, deed: str) -> None:
    with pytest.raises(
        ApiError, match=f"IncorrectInstanceState: The instance 'i-1' is not in a state from which it can be {deed}"
    ):
        called(action, "i-1", state)


def test_a_machine_says_one_of_three_things() -> None:
    with pytest.raises(ValueError, match="a machine is running, stopped, terminated, not 'ready'"):
        reported("ready", "pending")
    assert CODES.keys() == NEXT.keys()
