"""The cost estimate: its arithmetic, and that the price is stated with it."""

from decimal import Decimal

import pytest

from mirroring.prices import LIST_PRICE, estimate, per_hour


def test_the_estimate_names_the_price_and_where_it_is_from() -> None:
    assert estimate(1200) == (
        "at most 18.00 USD an hour for 1,200 sessions, at 0.015 USD each"
        " (list price in US East (Ohio) on https://aws.amazon.com/vpc/pricing/ as of 2026-09-20)"
    )


@pytest.mark.parametrize(("sessions", "total"), [(0, "0"), (1, "0.015"), (3, "0.045"), (10_000, "150")])
def test_the_sum_is_exact(sessions: int, total: str) -> None:
    assert per_hour(sessions) == Decimal(total)
    assert per_hour(sessions) == sessions * LIST_PRICE.amount


def test_a_small_sum_is_not_rounded_to_nothing() -> None:
    assert "0.015 USD an hour for 1 session" in estimate(1)
