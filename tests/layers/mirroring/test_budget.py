"""Write budget: never faster than the bucket allows, slower after a throttled call, and never stuck."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirroring.budget import LEAST, SLOW_SECONDS, Budget

rates = st.floats(0.1, 5)
bursts = st.integers(1, 20)
pauses = st.lists(st.floats(0, 30), min_size=1, max_size=40)


def drain(budget: Budget, now: float) -> None:
    while budget.delay(now) == 0:
        budget.spend(now)


def test_a_burst_goes_at_once_and_then_one_after_the_other() -> None:
    budget = Budget(2, 3)
    for _ in range(3):
        assert budget.delay(100) == 0
        budget.spend(100)
    assert budget.delay(100) == pytest.approx(0.5)
    assert budget.delay(100.25) == pytest.approx(0.25)
    assert budget.delay(100.5) == 0


def test_an_idle_budget_fills_to_its_burst_and_no_further() -> None:
    budget = Budget(2, 3)
    drain(budget, 0)
    drain(budget, 1000)  # would hold 2,000 tokens without a limit
    assert budget.delay(1000) > 0
    budget = Budget(2, 3)
    drain(budget, 0)
    sent = 0
    while budget.delay(1000) == 0:
        budget.spend(1000)
        sent += 1
    assert sent == 3


def test_a_write_without_a_token_is_owed() -> None:
    budget = Budget(1, 1)
    budget.spend(0)
    budget.spend(0)
    assert budget.delay(0) == pytest.approx(2)


def test_a_throttled_call_ends_the_burst_and_halves_the_rate_for_a_minute() -> None:
    budget = Budget(2, 10)
    budget.delay(0)
    budget.throttled(0)
    assert budget.delay(0) == pytest.approx(1)  # one token a second instead of two
    drain(budget, SLOW_SECONDS)
    assert budget.delay(SLOW_SECONDS) == pytest.approx(0.5)


def test_each_throttled_call_within_the_minute_halves_again_down_to_the_least() -> None:
    budget = Budget(1, 1)
    expected = [2, 4, 8, 16, 16, 16]
    assert expected[-1] == 1 / LEAST
    for seconds in expected:
        budget.throttled(0)
        assert budget.delay(0) == pytest.approx(seconds)


def test_the_next_throttled_call_after_the_minute_starts_from_the_full_rate() -> None:
    budget = Budget(1, 1)
    budget.throttled(0)
    budget.throttled(0)
    budget.throttled(SLOW_SECONDS)
    assert budget.delay(SLOW_SECONDS) == pytest.approx(2)


def test_a_wait_that_outlasts_the_slow_minute_ends_at_the_full_rate() -> None:
    budget = Budget(0.02, 1)
    budget.throttled(0)  # for a minute 0.01 a second: 0.6 of a token, then 0.4 at 0.02 a second
    assert budget.delay(0) == pytest.approx(60 + 20)


def test_a_clock_that_goes_back_gives_no_token_and_takes_none() -> None:
    budget = Budget(1, 1)
    budget.spend(100)
    assert budget.delay(50) == pytest.approx(1)
    assert budget.delay(101) == 0


@settings(max_examples=60)
@given(rates, bursts, pauses)
def test_no_span_of_time_holds_more_writes_than_burst_and_rate(rate: float, burst: int, between: list[float]) -> None:
    """Whoever waits as told, whatever else he waits for."""
    budget = Budget(rate, burst)
    now = 0.0
    sent: list[float] = []
    for pause in between:
        now += pause if len(sent) % 3 else 0.0
        now += budget.delay(now)
        budget.spend(now)
        sent.append(now)
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            assert last - first + 1 <= burst + rate * (sent[last] - sent[first]) + 1e-6


@settings(max_examples=60)
@given(
    rates, bursts, st.lists(st.tuples(st.sampled_from(["spend", "throttled", "wait"]), st.floats(0, 90)), max_size=30)
)
def test_after_the_delay_a_token_is_there_and_not_before(
    rate: float, burst: int, steps: list[tuple[str, float]]
) -> None:
    budget = Budget(rate, burst)
    now = 0.0
    for step, pause in steps:
        if step == "spend":
            budget.spend(now)
        elif step == "throttled":
            budget.throttled(now)
        now += pause
    delay = budget.delay(now)
    assert 0 <= delay <= (len(steps) + 1) / (rate * LEAST)
    if delay > 1e-3:
        assert budget.delay(now + delay * 0.99) > 0
    assert budget.delay(now + delay) == pytest.approx(0, abs=1e-6)
