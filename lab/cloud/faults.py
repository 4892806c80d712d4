"""What can happen to any call: it is refused, throttled or lost, permission is missing; and all calls are counted."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

type Parameters = Mapping[str, Any]
type When = Callable[[Parameters], bool]


class ApiError(Exception):
    """An answer of the API that says no. Codes: https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html"""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass
class Fault:
    """Fails the calls of an action (or any, `*`) that `when` picks: `times` of them, after letting `after` pass."""

    action: str
    code: str
    message: str
    times: float
    after: int
    when: When
    lost: bool  # the call takes effect, only its answer is lost


@dataclass(frozen=True)
class Denial:
    action: str
    when: When


@dataclass
class Bucket:
    """A token bucket for each action that `covers` picks (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html)."""

    covers: Callable[[str], bool]
    clock: Callable[[], float]
    burst: float
    rate: float
    levels: dict[str, tuple[float, float]] = field(default_factory=dict)  # tokens, and when they were counted

    def take(self, action: str) -> bool:
        now = self.clock()
        tokens, then = self.levels.get(action, (self.burst, now))
        tokens = min(self.burst, tokens + (now - then) * self.rate)
        self.levels[action] = (tokens - 1, now) if tokens >= 1 else (tokens, now)
        return tokens >= 1


@dataclass(frozen=True)
class Call:
    action: str
    parameters: Parameters


class Faults:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._faults: list[Fault] = []
        self._denials: list[Denial] = []
        self._buckets: list[Bucket] = []

    def fail(
        self,
        action: str,
        code: str,
        *,
        times: float = 1,
        after: int = 0,
        when: When | None = None,
        lost: bool = False,
        message: str = "Injected.",
    ) -> None:
        self._faults.append(Fault(action, code, message, times, after, when or always, lost))

    def deny(self, action: str, when: When | None = None) -> None:
        self._denials.append(Denial(action, when or always))

    def throttle(
        self, covers: Callable[[str], bool], clock: Callable[[], float], *, burst: float = 50, rate: float = 5
    ) -> None:
        self._buckets.append(Bucket(covers, clock, burst, rate))

    def clear(self) -> None:
        """No faults, denials, or limits of rate any more."""
        self._faults.clear()
        self._denials.clear()
        self._buckets.clear()

    def authorise(self, action: str, parameters: Parameters) -> None:
        if any(denial.action == action and denial.when(parameters) for denial in self._denials):
            raise ApiError("UnauthorizedOperation", f"You are not authorized to perform: ec2:{action}.")

    @contextmanager
    def around(self, action: str, parameters: Parameters) -> Iterator[None]:
        """Everything that can happen to a call before and after what it does."""
        self.calls.append(Call(action, dict(parameters)))
        if not all(bucket.take(action) for bucket in self._buckets if bucket.covers(action)):
            raise ApiError("RequestLimitExceeded", "Request limit exceeded.")
        fault = self._due(action, parameters)
        if fault is not None and not fault.lost:
            raise ApiError(fault.code, fault.message)
        self.authorise(action, parameters)
        yield
        if fault is not None:
            raise ApiError(fault.code, fault.message)

    def _due(self, action: str, parameters: Parameters) -> Fault | None:
        for fault in self._faults:
            if fault.action not in (action, "*") or not fault.when(parameters):
                continue
            if fault.after > 0:
                fault.after -= 1
            elif fault.times > 0:
                fault.times -= 1
                return fault
        return None


def always(parameters: Parameters) -> bool:
    return True
