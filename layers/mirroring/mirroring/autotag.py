"""Puts tags on instances as the policy's autotag rules ask, and takes off what has expired.

The same discipline as for sessions: events are hints, describe is the truth, every write waits for the budget and looks
whether the stack is paused, each refusal has its answer and ends at its own instance. What is to be done is `tagging`'s
to say; an instance whose removal was refused gets no new list of our keys, or the keys would be nobody's.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from mirroring.answers import Answer, answer
from mirroring.environment import Environment
from mirroring.model import Instance, MirroringError, Refused, Scope, Tags
from mirroring.pace import MARGIN, Leave, Pace
from mirroring.store import Policies
from mirroring.tagging import FindingEvent, PutTags, RemoveTags, TagPlan, plan_tags

RETRIES = 3  # after the first try, 1, 2 and 4 seconds apart
REFUSALS = 3  # in a row: for want of permission, then the rest is not tried; of one rule's tags, then that rule's
LISTED = 200  # most entries of each list in a summary


class Cloud(Protocol):
    @property
    def calls(self) -> int: ...
    def unmarked(self, ids: Collection[str] | None) -> dict[str, Instance]: ...
    def put_tags(self, instance: str, tags: Tags) -> None: ...
    def remove_tags(self, instance: str, tags: Tags) -> None: ...


@dataclass(frozen=True)
class TagChange:
    """A change that was made: the tags that it touched, as they were and as they are."""

    instance: str
    before: Tags
    after: Tags
    rule: str
    reason: str


@dataclass(frozen=True)
class TagFailure:
    instance: str
    code: str
    answer: str
    text: str


@dataclass(frozen=True)
class TagReport:
    scope: Scope
    plan: TagPlan = field(default_factory=TagPlan)
    changes: tuple[TagChange, ...] = ()
    failed: tuple[TagFailure, ...] = ()
    unfinished: frozenset[str] = frozenset()  # instances to look at again, later
    everything: bool = False  # all of the scope is unfinished: it could not be read
    out_of_time: bool = False
    paused: bool = False
    stopped: str = ""  # why the run ended early: an alarm
    policy: str = ""  # parameter and version in force
    calls: int = 0

    def summary(self) -> dict[str, Any]:
        return {
            "policy": self.policy,
            "planned": {"put": len(self.plan.put), "remove": len(self.plan.remove)},
            "changed": len(self.changes),
            "failed": [
                {"instance": one.instance, "code": one.code, "answer": one.answer, "text": one.text}
                for one in self.failed[:LISTED]
            ],
            # An instance that is gone, or opted out, is nothing to act upon.
            "passed": [{"instance": one.instance, "reason": one.reason} for one in self.plan.passed if not one.evident][
                :LISTED
            ],
            "unfinished": "everything" if self.everything else sorted(self.unfinished)[:LISTED],
            "plan_only": self.scope.plan_only,
            "paused": self.paused,
            "stopped": self.stopped,
            "calls": self.calls,
        }


@dataclass
class _Step:
    """All that is still to be done to one instance."""

    instance: Instance
    remove: RemoveTags | None
    put: PutTags | None


@dataclass
class _Run:
    """One run's own state."""

    leave: Leave
    on_change: Callable[[TagChange], None] | None
    changes: list[TagChange] = field(default_factory=list)
    failed: list[TagFailure] = field(default_factory=list)
    unfinished: set[str] = field(default_factory=set)
    refused: int = 0  # in a row, for want of permission
    lasting: dict[str, list[Refused]] = field(default_factory=dict)  # by rule, in a row: tags that cannot be borne


class _Ended(Exception):
    """No further write in this run."""


class Autotagger:
    def __init__(
        self,
        cloud: Cloud,
        store: Policies,
        environment: Environment,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._cloud = cloud
        self._store = store
        self._environment = environment
        self._clock = clock
        self._pace = Pace(clock, sleep)

    def run(
        self,
        scope: Scope,
        findings: Sequence[FindingEvent],
        remaining: Callable[[], float],
        *,
        on_change: Callable[[TagChange], None] | None = None,
    ) -> TagReport:
        calls = self._cloud.calls
        ids = scope.instances | {finding.instance for finding in findings}
        looked = self._clock()
        if remaining() < MARGIN:
            return TagReport(scope, everything=True, out_of_time=True)
        try:
            in_force = self._store.read()
            instances = self._cloud.unmarked(None if scope.everything else ids)
        except Refused as refusal:
            return self._unread(scope, refusal, calls)
        except MirroringError as error:  # no policy is in force: to try again would not help
            return TagReport(scope, stopped=str(error))
        policy = in_force.policy
        allowed = self._environment.autotag_keys or frozenset()
        plan = plan_tags(policy, instances.values(), self._clock(), allowed=allowed, findings=findings)
        leave = Leave(self._pace, remaining, self._store.paused, looked)
        leave.paused = in_force.paused
        run = _Run(leave, on_change)
        run.unfinished |= scope.fresh - instances.keys()
        if not scope.plan_only and not leave.paused:
            self._pace.at(policy.limits.writes_per_second)
            self._apply(_steps(plan, instances), run)
        return TagReport(
            scope,
            plan,
            tuple(run.changes),
            tuple(run.failed),
            frozenset(run.unfinished),
            out_of_time=leave.out_of_time,
            paused=leave.paused,
            stopped=leave.stopped,
            policy=f"{in_force.parameter}:{in_force.version}",
            calls=self._cloud.calls - calls,
        )

    def _unread(self, scope: Scope, refusal: Refused, calls: int) -> TagReport:
        given = answer(refusal.operation, refusal.code)
        return TagReport(
            scope,
            failed=(TagFailure("", refusal.code, given, str(refusal)),),
            everything=True,
            stopped=str(refusal) if given is Answer.STOP else "",
            calls=self._cloud.calls - calls,
        )

    def _apply(self, steps: Iterable[_Step], run: _Run) -> None:
        """In rounds: what is worth another try waits for all others, so that no instance holds them up."""
        waiting = list(steps)
        due = 0.0
        for tries in range(RETRIES + 1):
            last = tries == RETRIES
            waiting = [step for step in waiting if run.leave.ended or not self._try(step, run, due, last=last)]
            if run.leave.ended or not waiting:
                break
            due = self._now() + 2**tries
        if not run.leave.paused:
            run.unfinished.update(step.instance.id for step in waiting)

    def _try(self, step: _Step, run: _Run, due: float, *, last: bool) -> bool:
        """Whether the instance is over and done with."""
        try:
            self._perform(step, run, due)
        except _Ended:
            return False
        except Refused as refusal:
            return self._refusal(step, refusal, run, last=last)
        run.refused = 0
        return True

    def _perform(self, step: _Step, run: _Run, due: float) -> None:
        tags = step.instance.tags
        if step.remove:
            self._may_write(run, due)
            try:
                self._cloud.remove_tags(step.instance.id, step.remove.tags)
            except Refused as refusal:
                if answer("DeleteTags", refusal.code) is not Answer.SUCCESS:
                    raise
            self._changed(run, TagChange(step.instance.id, step.remove.tags, {}, "", step.remove.reason))
            step.remove = None
        if put := step.put:
            known = run.lasting.get(put.rule, [])
            if len(known) >= REFUSALS:  # a tag policy's, say: it would refuse the same for every other instance
                raise Refused(known[0].operation, known[0].code, known[0].message)
            self._may_write(run, due)
            self._cloud.put_tags(put.instance, put.tags)
            run.lasting.pop(put.rule, None)
            before = {key: tags[key] for key in put.tags if key in tags}
            self._changed(run, TagChange(put.instance, before, put.tags, put.rule, put.reason))

    def _refusal(self, step: _Step, refusal: Refused, run: _Run, *, last: bool) -> bool:
        instance, given = step.instance.id, answer(refusal.operation, refusal.code)
        self._pace.heed(refusal)
        if given is Answer.RETRY and not last:
            return False
        run.failed.append(TagFailure(instance, refusal.code, given, str(refusal)))
        if given is Answer.QUARANTINE and step.put:
            run.lasting.setdefault(step.put.rule, []).append(refusal)
        if given is Answer.STOP:
            run.unfinished.add(instance)
            run.refused += 1
            if run.refused == REFUSALS:
                run.leave.stopped = f"{refusal}."
        return given is not Answer.RETRY

    def _may_write(self, run: _Run, due: float) -> None:
        """Waits for its turn; raises _Ended if there is none in this run any more."""
        if not run.leave.may_write(due):
            raise _Ended

    def _changed(self, run: _Run, change: TagChange) -> None:
        run.changes.append(change)
        if run.on_change:
            run.on_change(change)

    def _now(self) -> float:
        return self._clock().timestamp()


def unfinished(report: TagReport, scope: Scope) -> bool:
    """Whether this scope, of those that the run answered, is to be looked at again."""
    return report.everything or bool(report.unfinished if scope.everything else report.unfinished & scope.instances)


def _steps(plan: TagPlan, instances: Mapping[str, Instance]) -> list[_Step]:
    remove = {one.instance: one for one in plan.remove}
    put = {one.instance: one for one in plan.put}
    return [_Step(instances[name], remove.get(name), put.get(name)) for name in sorted(remove.keys() | put.keys())]
