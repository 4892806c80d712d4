"""The invocation of `reconcile`: one run for all that came in, told to logs, metrics and the bus."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

from mirroring.bus import Unsent
from mirroring.delivery import FIRST_DELAY, LONGEST_DELAY, Delivery, Postpones, serve
from mirroring.model import Scope
from mirroring.report import Change, Report, announcement, unfinished
from mirroring.scope import union
from mirroring.telemetry import Telemetry

#: Of the stack's first sweep, which waits for a healthy target: half an hour in all. After it the schedule sweeps.
SWEEPS = 10


class Run(Protocol):
    def run(
        self, scope: Scope, remaining: Callable[[], float], *, on_change: Callable[[Change], None] | None = None
    ) -> Report: ...


class Bus(Postpones, Protocol):
    def announce(self, details: Iterable[Mapping[str, Any]]) -> tuple[Unsent, ...]: ...
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
        report = self._reconciler.run(scope, remaining)
        self._telemetry.report(report)
        unsent = self._bus.announce([announcement(change, self._owner) for change in report.changes])
        self._telemetry.not_announced(event.code for event in unsent)
        if report.waiting and scope.attempt < SWEEPS:
            message = {"mode": "sweep", "attempt": scope.attempt + 1}
            self._bus.enqueue(message, min(FIRST_DELAY * scope.attempt, LONGEST_DELAY))
        return report
