"""What a run found and did, as a value that logs, metrics, the bus and tables are made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mirroring.model import SOURCE_TAG, Finding, Plan, Scope, Session, Trouble

#: Most entries of each list in a summary: a Lambda answers with 6 MB at most, and logs lines of 256 KB.
LISTED = 200

_NO_PLAN = Plan()


class Action(StrEnum):
    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    READ = "read"


_PAST = {Action.CREATE: "created", Action.MODIFY: "modified", Action.DELETE: "deleted"}


@dataclass(frozen=True)
class Change:
    """A change that was made."""

    action: Action
    session: Session  # as it is now, or as it was when it was deleted
    reason: str
    changes: tuple[str, ...] = ()  # of a modification: the names of Session's attributes
    before: Session | None = None  # of a modification

    @property
    def instance(self) -> str:
        return self.session.description

    @property
    def source(self) -> str:
        return self.session.tags.get(SOURCE_TAG, "")


@dataclass(frozen=True)
class Failure:
    """A change that AWS refused, and what was made of it."""

    action: Action
    interface: str
    instance: str
    code: str
    answer: str
    text: str


@dataclass(frozen=True)
class Report:
    scope: Scope
    plan: Plan = _NO_PLAN  # what was to be done, after the guards
    created: tuple[Change, ...] = ()
    modified: tuple[Change, ...] = ()
    deleted: tuple[Change, ...] = ()
    failed: tuple[Failure, ...] = ()
    findings: tuple[Finding, ...] = ()  # the plan's, and those of the changes
    unfinished: frozenset[str] = frozenset()  # instances to look at again, later
    everything: bool = False  # all of the scope is unfinished: it could not be read
    out_of_time: bool = False  # what is unfinished is so only because time ran out
    paused: bool = False
    why_paused: str = ""  # one sentence with the remedy
    waiting: bool = False  # the stack's first sweep found no healthy target yet
    stopped: str = ""  # why the run ended early, with the remedy: an alarm
    policy: str = ""  # parameter and version in force
    refused: tuple[str, ...] = ()  # newer policies that were refused, with their errors
    orphaned: int = 0  # sessions of ours whose instance is gone; known of full looks alone
    calls: int = 0  # of the EC2 and load balancer APIs

    @property
    def changes(self) -> tuple[Change, ...]:
        return self.deleted + self.modified + self.created

    @property
    def policy_invalid(self) -> bool:
        """Whether a newer policy was refused, or none is valid: then the run stopped, though AWS refused nothing."""
        return bool(self.refused or (self.stopped and not self.policy and not self.failed))

    def summary(self) -> dict[str, Any]:
        """For JSON: what a function answers, and what is logged once per run."""
        return {
            "policy": self.policy,
            "refused": list(self.refused[:LISTED]),
            "desired": self.plan.desired,
            "actual": self.plan.actual,
            "kept": self.plan.kept,
            "planned": _planned(self.plan) if self.scope.plan_only or self.paused else _counts(self.plan),
            "held_back": len(self.plan.held),
            "created": len(self.created),
            "modified": len(self.modified),
            "deleted": len(self.deleted),
            "failed": [
                {"action": one.action, "interface": one.interface, "instance": one.instance, "code": one.code}
                | {"answer": one.answer, "text": one.text}
                for one in self.failed[:LISTED]
            ],
            "findings": [
                {"trouble": one.trouble, "text": one.text} | _named(one, "source", "instance", "interface", "session")
                for one in self.findings[:LISTED]
            ],
            "unfinished": "everything" if self.everything else sorted(self.unfinished)[:LISTED],
            "plan_only": self.scope.plan_only,
            "paused": self.why_paused or self.paused,
            "waiting": self.waiting,
            "stopped": self.stopped,
            "calls": self.calls,
        }


def announcement(change: Change, owner: str) -> dict[str, Any]:
    """The detail of our own event, `Mirror Session Changed` (docs/events.md)."""
    detail: dict[str, Any] = {
        "version": 1,
        "owner": owner,
        "action": _PAST[change.action],
        "reason": change.reason,
        "source": change.source,
        "instance-id": change.instance,
        "session": _settings(change.session),
    }
    if change.before:
        detail |= {"changes": list(change.changes), "before": _settings(change.before)}
    return detail


def _settings(session: Session) -> dict[str, Any]:
    return {
        "id": session.id,
        "interface": session.interface,
        "target": session.target,
        "filter": session.filter,
        "number": session.number,
        "vni": session.vni,
        "packet-length": session.packet_length,
    }


def unfinished(report: Report, scope: Scope) -> bool:
    """Whether this scope, of those that the run answered, is to be looked at again."""
    if report.everything:
        return True
    return bool(report.unfinished if scope.everything else report.unfinished & scope.instances)


def count(findings: Iterable[Finding], trouble: Trouble) -> int:
    return sum(finding.trouble is trouble for finding in findings)


def _counts(plan: Plan) -> dict[str, Any]:
    return {"create": len(plan.create), "modify": len(plan.modify), "delete": len(plan.delete)}


def _planned(plan: Plan) -> dict[str, Any]:
    """Counts and, as nothing of it will show as done, the changes themselves."""
    return _counts(plan) | {
        "changes": [
            *(_planned_one(Action.DELETE, one.session, one.reason) for one in plan.delete[:LISTED]),
            *(
                _planned_one(Action.MODIFY, one.after, one.reason) | {"changes": list(one.changes)}
                for one in plan.modify[:LISTED]
            ),
            *(_planned_one(Action.CREATE, one.session, one.reason) for one in plan.create[:LISTED]),
        ]
    }


def _planned_one(action: Action, session: Session, reason: str) -> dict[str, Any]:
    return {
        "action": action,
        "instance": session.description,
        "reason": reason,
        "source": session.tags.get(SOURCE_TAG, ""),
    } | _named(session, "id", "interface", "target", "filter", "number")


def _named(value: object, *names: str) -> dict[str, Any]:
    """Those of its attributes that are not empty."""
    return {name: held for name in names if (held := getattr(value, name))}
