"""What a run leaves behind in logs and metrics. The planner knows none of it.

Logs are JSON, under the id of the event as correlation id: one line per run, and one per change, failure, finding and
refused policy, up to a number of each. Metrics are written to the log too (EMF), in the namespace below with the
stack's name as dimension `service`. Gauges, such as how many sessions are desired, come from looks at everything alone:
a narrow look does not know.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TextIO

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit, single_metric

from mirroring.autotag import TagChange, TagReport
from mirroring.lifecycle import Outcome
from mirroring.model import Finding, Trouble
from mirroring.report import Change, Report, count

NAMESPACE = "VpcTrafficReplay"
#: Most lines of one kind that a run logs. The summary has the counts.
LINES = 100

#: What a narrow look finds too. All other troubles are states of the world that only a sweep sees all of.
_OF_RUNS = frozenset({Trouble.GUARD, Trouble.FORBIDDEN})
_NAMES = {Trouble.GUARD: "guard_tripped", Trouble.LIMIT: "limit_reached"}


class Telemetry:
    def __init__(self, owner: str, stream: TextIO | None = None) -> None:
        self._owner = owner
        self._log = Logger(service=owner, stream=stream)

    def begin(self, ids: Sequence[str]) -> None:
        """What follows belongs to these events."""
        self._log.set_correlation_id(ids[0] if ids else None)
        self._log.append_keys(events=list(ids[:LINES]))

    def passed_over(self, whys: Collection[str]) -> None:
        """Events that ask for nothing: once each, as they do not come again."""
        for why in whys:
            self._log.info("Passed over", why=why)
        if whys:
            self._publish({"passed_over": len(whys)})

    def report(self, report: Report) -> None:
        level = self._log.error if report.stopped else self._log.info
        level("Reconciled", report=report.summary())
        for why in report.refused[:LINES]:
            self._log.error("Policy refused", why=why)
        for finding in report.findings[:LINES]:
            self._finding(finding)
        for change in report.changes[:LINES]:
            self._change(change)
        for failure in report.failed[:LINES]:
            self._log.warning(
                failure.text,
                action=failure.action,
                interface=failure.interface,
                instance=failure.instance,
                code=failure.code,
                answer=failure.answer,
            )
        self._publish(metrics_of(report))
        for code, number in sorted(Counter(failure.code for failure in report.failed).items()):
            self._failed(code, number)

    def not_announced(self, counts: Mapping[str, int]) -> None:
        """Events of our own that did not reach the bus, by code. What they tell of was done, and stays."""
        for code, number in sorted(counts.items()):
            self._log.warning("Not announced", code=code, count=number)
        if counts:
            self._publish({"not_announced": sum(counts.values())})

    def not_postponed(self, text: str) -> None:
        """A record that will come again sooner than it should."""
        self._log.warning("Not postponed", why=text)

    def not_queued(self, text: str) -> None:
        """A sweep that will not follow this one; the next is the schedule's."""
        self._log.warning("Not queued", why=text)

    def tagged(self, change: TagChange) -> None:
        """The audit log of the autotagger."""
        self._log.info(
            "Tagged",
            instance=change.instance,
            before=dict(change.before),
            after=dict(change.after),
            rule=change.rule,
            reason=change.reason,
        )

    def tag_report(self, report: TagReport) -> None:
        level = self._log.error if report.stopped else self._log.info
        level("Autotag", **report.summary())
        self._publish(
            {
                "autotag_changed": len(report.changes),
                "autotag_failed": len(report.failed),
                "autotag_unfinished": _unfinished(report),
                "autotag_stopped": int(bool(report.stopped)),
            }
        )

    def lifecycle(self, event: Mapping[str, Any], outcome: Outcome) -> None:
        """The event itself is not logged: the address in it is a secret."""
        self._log.set_correlation_id(event.get("RequestId"))
        level = self._log.error if outcome.status == "FAILED" else self._log.info
        level("Lifecycle", request=event.get("RequestType"), **asdict(outcome))

    def _change(self, change: Change) -> None:
        session = change.session
        self._log.info(
            "Changed",
            action=change.action,
            reason=change.reason,
            source=change.source,
            instance=change.instance,
            interface=session.interface,
            session=session.id,
        )

    def _finding(self, finding: Finding) -> None:
        self._log.warning(
            finding.text,
            trouble=finding.trouble,
            source=finding.source,
            instance=finding.instance,
            interface=finding.interface,
            session=finding.session,
        )

    def _publish(self, values: dict[str, float]) -> None:
        metrics = EphemeralMetrics(namespace=NAMESPACE, service=self._owner)
        for name, value in values.items():
            metrics.add_metric(name=name, unit=MetricUnit.Count, value=value)
        metrics.flush_metrics()

    def _failed(self, code: str, number: int) -> None:
        service = {"service": self._owner}
        with single_metric(
            "failed", MetricUnit.Count, number, namespace=NAMESPACE, default_dimensions=service
        ) as metric:
            metric.add_dimension("code", code)


def metrics_of(report: Report) -> dict[str, float]:
    """Of one run. Counts are there when they are 0 too, so that an alarm has something to look at."""
    plan, findings = report.plan, report.findings
    values = {
        "created": len(report.created),
        "modified": len(report.modified),
        "deleted": len(report.deleted),
        "failed": len(report.failed),
        "unfinished": _unfinished(report),
        "policy_invalid": int(report.policy_invalid),
        "paused": int(report.paused),
        "stopped": int(bool(report.stopped)),
        "calls": report.calls,
    } | {metric_of(trouble): count(findings, trouble) for trouble in _OF_RUNS}
    if report.scope.everything and report.policy:
        values |= {
            "desired": plan.desired,
            "actual": plan.actual + len(report.created) - len(report.deleted),
            "orphaned": report.orphaned,
        } | {metric_of(trouble): count(findings, trouble) for trouble in Trouble if trouble not in _OF_RUNS}
    return dict(values)


def metric_of(trouble: Trouble) -> str:
    """The metric that counts findings of this kind."""
    return _NAMES.get(trouble, trouble.replace("-", "_"))


def _unfinished(report: Report | TagReport) -> int:
    """Instances to look at again; a sweep of which nothing could be read is one."""
    return max(len(report.scope.instances), 1) if report.everything else len(report.unfinished)
