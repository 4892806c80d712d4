"""Whether a target is healthy: what a check says, and what a row of checks makes of the target.

https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html: a new target is healthy
after one check passed; after that, UnhealthyThresholdCount failures in a row make it unhealthy, HealthyThresholdCount
successes healthy again. That a new target becomes unhealthy by the same number of failures is assumed.
"""

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Settings:
    """A target group's health check; `port` 0 is the port that the target gets its traffic on."""

    protocol: str = "TCP"
    port: int = 0
    path: str = "/"
    interval: float = 30.0
    timeout: float = 10.0
    passes: int = 5
    failures: int = 2
    codes: str = "200-399"


class State(StrEnum):
    """In the words of DescribeTargetHealth."""

    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Health:
    """A target's state; `row` counts the passes in a row, failures as negative numbers; `fault` is the last one's."""

    state: State = State.INITIAL
    row: int = 0
    fault: str = ""


def judge(health: Health, fault: str, settings: Settings) -> Health:
    """The health after one more check, which failed by `fault` or passed."""
    row = min(health.row, 0) - 1 if fault else max(health.row, 0) + 1
    state = health.state
    if row >= (1 if state is State.INITIAL else settings.passes):
        state = State.HEALTHY
    elif -row >= settings.failures:
        state = State.UNHEALTHY
    return Health(state, row, fault)


def verdict(line: bytes, codes: str) -> str:
    """What is wrong with an answer that begins with `line`; empty when nothing is."""
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not (len(code) == 3 and code.isdigit()):
        return "the answer is not HTTP"
    return "" if _among(int(code), codes) else f"answered with status {int(code)}, not {codes}"


def _among(code: int, codes: str) -> bool:
    """`codes` as in Matcher.HttpCode: `200`, `200,302` or `200-399`."""
    for part in codes.split(","):
        first, _, last = part.strip().partition("-")
        if int(first) <= code <= int(last or first):
            return True
    return False
