"""When a write may be made: within the budget of writes and the time that is left, and while the stack is not paused.

`Pace` is kept from run to run, as the API's own account of our calls is; `Leave` is one run's, and once it says no, the
run makes no further write.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from mirroring.budget import Budget
from mirroring.model import Refused

#: Seconds kept for the end of a run: one write that gets no answer (13 s), a look at the state, and the report.
MARGIN = 30.0
#: A last look at the stack's state that is older than this does not count.
STATE_LOOK = timedelta(seconds=1)
LOOKS = 3  # most in a row, where the answer comes too late to count
BURST = 5  # seconds' worth of writes that may go out at once


class Pace:
    """Keeps writes to their rate."""

    def __init__(self, clock: Callable[[], datetime], sleep: Callable[[float], None]) -> None:
        self.clock = clock
        self._sleep = sleep
        self._rate = 0.0
        self._budget = Budget(1.0, 1)

    def at(self, rate: float) -> None:
        if rate != self._rate:
            self._rate, self._budget = rate, Budget(rate, max(1, int(BURST * rate)))

    def wait(self, remaining: Callable[[], float], until: float = 0.0) -> bool:
        """Waits for the budget, and for `until` if that is later. False, at once, where time would run out."""
        now = self.clock().timestamp()
        delay = max(self._budget.delay(now), until - now)
        if remaining() - max(delay, 0.0) < MARGIN:
            return False
        if delay > 0:
            self._sleep(delay)
        return True

    def spend(self) -> None:
        self._budget.spend(self.clock().timestamp())

    def heed(self, refused: Refused) -> None:
        """A write that was refused for its rate slows all that follow."""
        if "Throttl" in refused.code or refused.code == "RequestLimitExceeded":
            self._budget.throttled(self.clock().timestamp())


class Leave:
    """One run's leave to write, until it is out of time, paused, or stopped for another reason."""

    def __init__(self, pace: Pace, remaining: Callable[[], float], look: Callable[[], bool], looked: datetime) -> None:
        """`look` says whether the stack is paused, and `looked` when somebody looked last."""
        self._pace = pace
        self._remaining = remaining
        self._look = look
        self._looked = looked
        self.out_of_time = False
        self.paused = False
        self.stopped = ""  # why, with the remedy

    @property
    def ended(self) -> bool:
        return bool(self.out_of_time or self.paused or self.stopped)

    def wait(self, until: float = 0.0) -> bool:
        """Waits until a write may be made, as far as time and budget go."""
        self.out_of_time = not self._pace.wait(self._remaining, until)
        return not self.out_of_time

    def may_write(self, until: float = 0.0) -> bool:
        """Waits, looks at the stack's state if need be, and takes the write from the budget."""
        if self.ended or not self.wait(until):
            return False
        if not self._fresh() and not self._look_anew():
            return False
        self._pace.spend()
        return True

    def _fresh(self) -> bool:
        return self._pace.clock() - self._looked < STATE_LOOK

    def _look_anew(self) -> bool:
        """Whether the stack runs. The age of an answer counts from the question."""
        for _ in range(LOOKS):
            self._looked = self._pace.clock()
            try:
                self.paused = self._look()
            except Refused as refused:
                self.stopped = f"The stack's state could not be read: {refused}."
            if self.paused or self.stopped:
                return False
            if self._fresh():
                return True
        self.stopped = f"The stack's state was answered too slowly, {LOOKS} times: see how SSM does."
        return False
