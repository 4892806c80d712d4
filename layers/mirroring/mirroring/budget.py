"""How fast we may write: a token bucket, which AWS's throttling slows down.

EC2 refills 5 mutating calls a second for an account and Region, shared with everybody else there
(https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html): a throttled call means that the others
need room.
"""

SLOW_SECONDS = 60.0  # how long a throttled call slows us
LEAST = 1 / 16  # of the rate: throttled on and on, we still move

_WHOLE = 1 - 1e-9  # a token, but for what sums of floats lose


class Budget:
    """`delay` says how long to wait before the next write, `spend` takes its token, `throttled` halves the rate."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate  # tokens a second
        self._burst = burst
        self._tokens = burst
        self._at: float | None = None  # when `_tokens` was true
        self._share = 1.0  # of the rate, until `_slow_until`
        self._slow_until = 0.0

    def delay(self, now: float) -> float:
        """Seconds until a token is there: 0 if one is."""
        self._refill(now)
        missing = 1 - self._tokens
        if self._tokens >= _WHOLE:
            return 0.0
        slow = max(0.0, self._slow_until - now)
        slowly = slow * self._rate * self._share
        if missing <= slowly:
            return missing / (self._rate * self._share)
        return slow + (missing - slowly) / self._rate

    def spend(self, now: float) -> None:
        """One write is sent. Without a token it is owed, and the next one waits longer."""
        self._refill(now)
        self._tokens -= 1

    def throttled(self, now: float) -> None:
        """A write was refused for its rate: no burst, and half the rate for a minute (then a quarter, and so on)."""
        self._refill(now)
        self._tokens = min(self._tokens, 0.0)
        self._share = max(LEAST, self._share / 2) if now < self._slow_until else 0.5
        self._slow_until = now + SLOW_SECONDS

    def _refill(self, now: float) -> None:
        since = now if self._at is None else self._at
        slow = max(0.0, min(now, self._slow_until) - since)
        full = max(0.0, now - max(since, self._slow_until))
        self._tokens = min(self._burst, self._tokens + (slow * self._share + full) * self._rate)
        self._at = max(now, since)
