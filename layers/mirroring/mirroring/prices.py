"""What mirroring costs an hour, at a price that is stated with it.

AWS states its price per interface and hour; a session is billed until it is deleted, whether packets flow or not
(https://docs.aws.amazon.com/vpc/latest/mirroring/what-is-traffic-mirroring.html). We keep one session on an interface,
so that their number times the price is what they cost at most: an interface with a foreign session as well may be
billed once. Load balancer, workers and data transfer come on top.
"""

from dataclasses import dataclass
from decimal import Decimal


@dataclass(frozen=True)
class Price:
    """Of one interface with mirroring for one hour."""

    amount: Decimal
    stated: str  # by whom, for where, and when it was looked up
    currency: str = "USD"


LIST_PRICE = Price(
    Decimal("0.015"), "list price in US East (Ohio) on https://aws.amazon.com/vpc/pricing/ as of 2026-09-20"
)


def per_hour(sessions: int) -> Decimal:
    return sessions * LIST_PRICE.amount


def estimate(sessions: int) -> str:
    """In words, with the price."""
    price = LIST_PRICE
    total = f"{_money(per_hour(sessions))} {price.currency}"
    noun = "session" if sessions == 1 else "sessions"
    return f"at most {total} an hour for {sessions:,} {noun}, at {price.amount} {price.currency} each ({price.stated})"


def _money(amount: Decimal) -> str:
    """To the cent, and finer below one unit."""
    return f"{amount:,.2f}" if amount >= 1 else f"{amount:.3f}"
