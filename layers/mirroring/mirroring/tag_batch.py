"""The invocation of `autotag`: as `batch` does for sessions, with the findings that its events bring."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from mirroring.autotag import TagChange, TagReport, unfinished
from mirroring.delivery import Delivery, Postpones, serve
from mirroring.model import Scope
from mirroring.scope import union
from mirroring.tagging import FindingEvent, finding_of
from mirroring.telemetry import Telemetry


class Run(Protocol):
    def run(
        self,
        scope: Scope,
        findings: Sequence[FindingEvent],
        remaining: Callable[[], float],
        *,
        on_change: Callable[[TagChange], None] | None = None,
    ) -> TagReport: ...


class TagShell:
    def __init__(self, autotagger: Run, bus: Postpones, telemetry: Telemetry, clock: Callable[[], datetime]) -> None:
        self._autotagger = autotagger
        self._bus = bus
        self._telemetry = telemetry
        self._clock = clock

    def handle(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        return serve(event, context, self._clock(), self._telemetry, self._bus, self._run, unfinished)

    def _run(self, delivery: Delivery, remaining: Callable[[], float]) -> TagReport:
        scope = union(delivery.scopes)
        if not scope.everything and not scope.instances:
            return TagReport(scope)
        # Each change is logged at once, so that it is written even if the invocation is ended.
        report = self._autotagger.run(scope, _findings(delivery), remaining, on_change=self._telemetry.tagged)
        self._telemetry.tag_report(report)
        return report


def _findings(delivery: Delivery) -> list[FindingEvent]:
    events = [hint.event for hint in delivery.hints if isinstance(hint.event, Mapping)]
    return [finding for event in events if (finding := finding_of(event))]
