"""The invocation of `autotag`: as `batch` does for sessions, with the findings that its events bring."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from mirroring.autotag import TagChange, TagReport, unfinished
from mirroring.batch import Delivery, settle, unpack
from mirroring.model import Refused, Scope
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


class Bus(Protocol):
    def postpone(self, receipt_handle: str, seconds: int) -> None: ...


class TagShell:
    def __init__(self, autotagger: Run, bus: Bus, telemetry: Telemetry, clock: Callable[[], datetime]) -> None:
        self._autotagger = autotagger
        self._bus = bus
        self._telemetry = telemetry
        self._clock = clock

    def handle(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """What Lambda is answered: the records that are to come again, or the summary of the run."""
        delivery = unpack(event, self._clock())
        self._telemetry.begin([hint.id for hint in delivery.hints])
        self._telemetry.passed_over(delivery.passed_over)
        report = self._run(delivery, lambda: context.get_remaining_time_in_millis() / 1000)
        if delivery.batch is None:
            return report.summary() | {"passed_over": delivery.passed_over}
        return settle(delivery, lambda scope: unfinished(report, scope), self._postpone, in_turn=not report.out_of_time)

    def _run(self, delivery: Delivery, remaining: Callable[[], float]) -> TagReport:
        scope = union(delivery.scopes)
        if not scope.everything and not scope.instances:
            return TagReport(scope)
        # Each change is logged at once, so that it is written even if the invocation is ended.
        report = self._autotagger.run(scope, _findings(delivery), remaining, on_change=self._telemetry.tagged)
        self._telemetry.tag_report(report)
        return report

    def _postpone(self, receipt: str, seconds: int) -> None:
        try:
            self._bus.postpone(receipt, seconds)
        except Refused as refused:
            self._telemetry.not_postponed(str(refused))


def _findings(delivery: Delivery) -> list[FindingEvent]:
    events = [hint.event for hint in delivery.hints if isinstance(hint.event, Mapping)]
    return [finding for event in events if (finding := finding_of(event))]
