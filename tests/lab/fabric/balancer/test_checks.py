"""A row of checks against what AWS says of thresholds; answers against the matcher."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.fabric.balancer.checks import Health, Settings, State, judge, verdict

REFUSED = "Connection refused"


def after(checks: list[bool], settings: Settings) -> Health:
    health = Health()
    for passed in checks:
        health = judge(health, "" if passed else REFUSED, settings)
    return health


def test_a_new_target_is_healthy_after_one_check_and_unhealthy_after_the_threshold() -> None:
    settings = Settings(passes=5, failures=2)

    assert after([], settings).state is State.INITIAL
    assert after([True], settings).state is State.HEALTHY
    assert after([False], settings).state is State.INITIAL
    assert after([False, False], settings) == Health(State.UNHEALTHY, -2, REFUSED)
    assert after([False, True], settings).state is State.HEALTHY


def test_a_target_that_failed_needs_all_its_passes_in_a_row() -> None:
    settings = Settings(passes=3, failures=2)

    assert after([True, False, True, False], settings).state is State.HEALTHY
    assert after([True, False, False], settings).state is State.UNHEALTHY
    assert after([True, False, False, True, True, False, True, True], settings).state is State.UNHEALTHY
    assert after([True, False, False, True, True, True], settings) == Health(State.HEALTHY, 3)


@given(st.lists(st.booleans()), st.integers(2, 5), st.integers(2, 5))
def test_the_state_changes_only_at_the_end_of_a_long_enough_row(checks: list[bool], passes: int, failures: int) -> None:
    settings = Settings(passes=passes, failures=failures)
    before, now = after(checks[:-1], settings).state, after(checks, settings).state

    if before is now:
        return
    if now is State.UNHEALTHY:
        assert checks[-failures:] == [False] * failures
    elif before is State.INITIAL:
        assert checks[-1]
    else:
        assert checks[-passes:] == [True] * passes


@given(st.lists(st.booleans()), st.integers(2, 5), st.integers(2, 5))
def test_a_long_enough_row_always_decides(checks: list[bool], passes: int, failures: int) -> None:
    settings = Settings(passes=passes, failures=failures)

    assert after([*checks, *[False] * failures], settings).state is State.UNHEALTHY
    assert after([*checks, *[True] * passes], settings).state is State.HEALTHY


@pytest.mark.parametrize(
    ("line", "codes", "fault"),
    [
        (b"HTTP/1.1 200 OK\r\n", "200", ""),
        (b"HTTP/1.0 204\r\n", "200-399", ""),
        (b"HTTP/1.1 302 Found\r\n", "200, 301-302", ""),
        (b"HTTP/1.1 503 Service Unavailable\r\n", "200-399", "answered with status 503, not 200-399"),
        (b"HTTP/1.1 201 Created\r\n", "200,202", "answered with status 201, not 200,202"),
        (b"HTTP/1.1 20\r\n", "200", "the answer is not HTTP"),
        (b"SSH-2.0-OpenSSH\r\n", "200", "the answer is not HTTP"),
        (b"", "200", "the answer is not HTTP"),
    ],
)
def test_an_answer_passes_by_its_status(line: bytes, codes: str, fault: str) -> None:
    assert verdict(line, codes) == fault


@given(st.binary())
def test_any_answer_gets_a_verdict_and_no_other_protocol_passes(line: bytes) -> None:
    assert verdict(line, "0-999")
    assert verdict(b"HTTP/1.1 " + line, "0-999") in ("", "the answer is not HTTP")
