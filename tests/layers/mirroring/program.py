"""mirrorctl run inside of this process, on a clock of its own."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mirroring.cli import parse, run
from mirroring.desk import Outside

DEFAULT, OWN = "/vpc-traffic-replay/policy-default", "/vpc-traffic-replay/policy"
STATE = "/vpc-traffic-replay/state"


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Time passes where somebody sleeps."""

    def __init__(self, minutes: float = 0) -> None:
        self.now = datetime(2026, 11, 23, 8, tzinfo=UTC) + timedelta(minutes=minutes)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def mirrorctl(
    *arguments: str,
    answer: str | None = None,
    err: io.StringIO | None = None,
    columns: int = 200,
    minutes: float = 0,  # since the hour at which commands begin
) -> Result:
    """One command in this process; `answer` is what somebody types when asked."""
    clock, out, err = Clock(minutes), io.StringIO(), err or io.StringIO()
    ask: Callable[[str], str] | None = None if answer is None else lambda _: answer
    outside = Outside(out, err, {"COLUMNS": str(columns), "TERM": "xterm"}, clock, clock.sleep, ask)
    code = run(parse(arguments, os.environ), outside)
    return Result(code, out.getvalue(), err.getvalue())
