"""The invocation of `reconcile`: one run for all that came in, told to logs, metrics and the bus."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from mirroring.announce import Announcer, Announces
from mirroring.delivery import FIRST_DELAY, LONGEST_DELAY, Delivery, Postpones, serve
from mirroring.model import Refused, Scope
from mirroring.report import Change, Report, unfinished
from mirroring.scope import union
from mirroring.telemetry import Telemetry

#: Of the stack's first sweep, which waits for a healthy target: 22 minutes in all. After it the schedule sweeps.
SWEEPS = 10


class Run(Protocol):
    def run(
        self, scope: Scope, remaining: Callable[[], float], *, on_change: Callable[[Change], None] | None = None
    ) -> Report: ...


class Bus(Announces, Postpones, Protocol):
    def enqueue(self, message: Mapping[str, Any], delay: int) -> None: ...


class Shell:
    def __init__(
        self, reconciler: Run, bus: Bus, telemetry: Telemetry, owner: str, clock: Callable[[], datetime]
    ) -> None:
        self._reconciler = reconciler
        self._bus = bus
        self._telemetry = telemetry
        self._owner = owner
        self._clock = clock

    def handle(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        return serve(event, context, self._clock(), self._telemetry, self._bus, self._run, unfinished)

    def _run(self, delivery: Delivery, remaining: Callable[[], float]) -> Report:
        scope = union(delivery.scopes)
        if not scope.everything and not scope.instances:
            return Report(scope)
        announcer = Announcer(self._bus, self._owner, remaining)
        report = self._reconciler.run(scope, remaining, on_change=announcer.add)
        self._telemetry.report(report)
        announcer.send()
        self._telemetry.not_announced(announcer.lost)
        # A record that comes again is the next sweep itself. Another beside it would make two of one, each time.
        comes_again = delivery.batch is not None and unfinished(report, scope)
        if report.waiting and scope.attempt < SWEEPS and not comes_again:
            self._sweep_again(scope.attempt)
        return report

    def _sweep_again(self, attempt: int) -> None:
        try:
            message = {"mode": "sweep", "attempt": attempt + 1}
            self._bus.enqueue(message, min(FIRST_DELAY * attempt, LONGEST_DELAY))
        except Refused as refused:  # what the run did is done; the schedule sweeps, though later
            self._telemetry.not_queued(str(refused))
