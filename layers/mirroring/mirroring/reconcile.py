"""Looks at the world, decides what is to be done, does it, and reports.

A run reads the scope's instances and sessions anew, always. The policy, targets and filters may be a minute old, which
keeps a look at one instance to three calls; but before anything is modified or deleted for a reason that rests on such
an answer, the answer is read anew and the decision taken anew (`_rests_on`).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol

from mirroring.answers import Answer, answer
from mirroring.apply import Applied, Applier, Writes
from mirroring.collector import put_aside
from mirroring.environment import Environment
from mirroring.guards import cap, guard
from mirroring.memory import Answers, Refusals, Tally, Topic
from mirroring.model import (
    Create,
    Filter,
    Finding,
    Instance,
    Plan,
    Refused,
    Scope,
    Session,
    Target,
    Trouble,
    Wanted,
    World,
    owned,
)
from mirroring.pace import MARGIN, Leave, Pace
from mirroring.permissions import FORBIDDEN, Gate, Permissions
from mirroring.plan import make_plan
from mirroring.policy import SESSIONS_PER_ACCOUNT, Limits, Policy, check_names
from mirroring.report import Action, Change, Failure, Report, count
from mirroring.store import InForce, NoPolicy, Policies, Refusal
from mirroring.wanted import Barred, bar, wanted

#: What a change adds to the number of our sessions.
_MORE = {Action.CREATE: 1, Action.DELETE: -1}
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Cloud(Writes, Gate, Protocol):
    @property
    def calls(self) -> int: ...
    def marked(self, ids: Collection[str] | None) -> dict[str, Instance]: ...
    def sessions(self, *, interfaces: Collection[str] = (), instances: Collection[str] = ()) -> list[Session]: ...
    def targets(self, ids: Collection[str] | None) -> dict[str, Target]: ...
    def filters(self, ids: Collection[str]) -> dict[str, Filter]: ...


@dataclass(frozen=True)
class Decision:
    in_force: InForce
    world: World
    wanted: Wanted
    barred: Barred
    plan: Plan


@dataclass(frozen=True)
class _Checked:
    """What the check of the policy's references found, and what AWS did not answer."""

    findings: tuple[Finding, ...] = ()
    failed: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class _Sight:
    """What is read anew in every run."""

    scope: Scope
    instances: Mapping[str, Instance]
    sessions: tuple[Session, ...]


class Reconciler:
    """One per container. It remembers answers for a minute, refusals for an hour, and the write budget."""

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
        self._answers = Answers(clock)
        self._refusals = Refusals(clock)
        self._pace = Pace(clock, sleep)
        self._permissions = Permissions(cloud, environment.owner, self._pace)
        self._state_seen = _LONG_AGO
        self._ours = Tally(clock)
        self._runs = 0

    def run(
        self, scope: Scope, remaining: Callable[[], float], *, on_change: Callable[[Change], None] | None = None
    ) -> Report:
        """Makes the scope's sessions what the policy wants, as far as time and AWS allow."""
        before = self._cloud.calls
        report = self._run(scope, remaining, on_change)
        return replace(report, calls=self._cloud.calls - before)

    def look(self, scope: Scope) -> Decision:
        """What would be done in this scope, before references are checked. Raises Refused and NoPolicy."""
        return self._bounded(self._look(scope))

    def _run(self, scope: Scope, remaining: Callable[[], float], on_change: Callable[[Change], None] | None) -> Report:
        if not scope.everything and not scope.instances:
            return Report(scope)
        if remaining() < MARGIN:
            return Report(scope, everything=True, out_of_time=True)
        if scope.policy_changed:
            self._refusals.clear()
        self._runs += 1
        try:
            decision = self._look(scope)
            checked = self._check(decision, remaining) if scope.policy_changed or scope.plan_only else _Checked()
            decision = self._bounded(decision)
        except NoPolicy as error:
            return Report(scope, stopped=f"Nothing was changed: {error}", refused=_refusals(error.refused))
        except Refused as refused:
            return _unread(scope, refused)
        report = self._report(scope, decision, checked)
        if report.paused or scope.plan_only:
            return report
        applied = self._apply(decision, remaining, on_change)
        self._learn(applied, decision)
        return _with(report, applied)

    # Look

    def _look(self, scope: Scope) -> Decision:
        """Everything that would be done, whether we may or not."""
        self._answers.begin()
        if scope.everything or scope.policy_changed or scope.plan_only:
            self._answers.forget(Topic)
        with put_aside():
            return self._decide(self._read(scope))

    def _read(self, scope: Scope) -> _Sight:
        if scope.everything:
            # Sessions first: one that another run makes meanwhile, for an instance just launched, is no orphan then.
            sessions = tuple(self._cloud.sessions())
            return _Sight(scope, self._cloud.marked(None), sessions)
        instances = self._cloud.marked(scope.instances)
        running = [instance for instance in instances.values() if instance.state == "running"]
        interfaces = [interface.id for instance in running for interface in instance.interfaces]
        others = sorted(instances.keys() - {instance.id for instance in running})
        if not interfaces and not others:
            return _Sight(scope, instances, ())  # to ask for no interface would be to ask for all sessions
        found = self._cloud.sessions(interfaces=interfaces, instances=others)
        return _Sight(scope, instances, tuple(found))

    # Decide

    def _decide(self, sight: _Sight) -> Decision:
        """At most three times: each time, what a change rests on and is old is asked for anew."""
        while True:
            decision = self._decide_once(sight)
            stale = self._answers.old() & _rests_on(decision)
            if not stale:
                return decision
            self._answers.forget(stale)

    def _decide_once(self, sight: _Sight) -> Decision:
        in_force = self._answers.get(Topic.POLICY, [""], lambda _: {"": self._read_policy()})[""]
        policy, scope, now = in_force.policy, sight.scope, self._clock()
        ours = [session for session in sight.sessions if owned(session, self._environment.owner)]
        named = {target for source in policy.sources for target in source.targets}
        known = self._answers.get(Topic.TARGETS, [""], lambda _: {"": self._cloud.targets(None)})[""]
        barred = bar(self._environment.worker_groups, known.values())
        world = World(
            everything=scope.everything,
            asked=scope.instances,
            instances=sight.instances,
            sessions=sight.sessions,
            targets=self._answers.get(Topic.TARGETS, named | {session.target for session in ours}, self._cloud.targets),
            filters={},
        )
        wishes = wanted(policy, world, now, barred=barred)
        world = replace(world, filters=self._filters(policy, sight, wishes, ours))
        plan = make_plan(
            wishes,
            world,
            owner=self._environment.owner,
            now=now,
            refused=self._refusals.all(),
            sources=policy.sources if scope.everything else (),
        )
        return Decision(in_force, world, wishes, barred, plan)

    def _read_policy(self) -> InForce:
        seen = self._clock()
        in_force = self._store.read()
        self._state_seen = seen
        return in_force

    def _filters(self, policy: Policy, sight: _Sight, wishes: Wanted, ours: Iterable[Session]) -> Mapping[str, Filter]:
        """Those of the policy, of ours, and of whoever else mirrors an interface of ours."""
        beside = {session.filter for session in sight.sessions if session.interface in wishes.wishes}
        ids = {source.filter for source in policy.sources} | {session.filter for session in ours} | beside
        return self._answers.get(Topic.FILTERS, ids, self._cloud.filters)

    # Check

    def _check(self, decision: Decision, remaining: Callable[[], float]) -> _Checked:
        """The policy's references, before the first change."""
        policy, keys = decision.in_force.policy, self._environment.autotag_keys
        self._pace.at(policy.limits.writes_per_second)
        failed = self._permissions.check(decision.wanted, decision.world, remaining)
        problems = () if keys is None else check_names(policy, keys)
        found = (Finding(Trouble.FORBIDDEN, f"{problem.path}: {problem.remedy}") for problem in problems)
        return _Checked(tuple(found), tuple(failed))

    def _bounded(self, decision: Decision) -> Decision:
        """What of it may be done."""
        world, limits = decision.world, decision.in_force.policy.limits
        plan = self._permissions.narrowed(decision.plan, decision.wanted)
        plan = guard(plan, world, limits, owner=self._environment.owner)
        return replace(decision, plan=cap(plan, limits, elsewhere=self._elsewhere(plan, world, limits)))

    def _elsewhere(self, plan: Plan, world: World, limits: Limits) -> int:
        """Sessions of ours that a narrow look does not see, counted anew where a limit below AWS's own asks for it."""
        if world.everything:
            self._ours.count(plan.actual)
        elif self._ours.is_old:
            if not plan.create or limits.sessions >= SESSIONS_PER_ACCOUNT:
                return 0
            self._ours.count(sum(owned(session, self._environment.owner) for session in self._cloud.sessions()))
        return max(0, self._ours.number - plan.actual)

    # Act

    def _apply(
        self, decision: Decision, remaining: Callable[[], float], on_change: Callable[[Change], None] | None
    ) -> Applied:
        self._pace.at(decision.in_force.policy.limits.writes_per_second)

        def note(change: Change) -> None:
            self._ours.add(_MORE.get(change.action, 0))
            if on_change:
                on_change(change)

        applier = Applier(
            self._cloud,
            owner=self._environment.owner,
            run=f"{self._environment.container} {self._runs}",
            pace=self._pace,
            leave=Leave(self._pace, remaining, self._store.paused, self._state_seen),
            refusals=self._refusals,
            replan=self._replan,
            on_change=note,
        )
        return applier.apply(replace(decision.plan, create=_turned(decision.plan.create, self._environment.container)))

    def _replan(self, instance: str, interface: str) -> Plan:
        """What one interface needs now. Deletes are left to the next run, which counts them all at its guards."""
        try:
            decision = self._bounded(self._decide(self._read(Scope(instances=frozenset({instance})))))
        except NoPolicy as error:
            raise Refused("GetParameters", "NoPolicy", str(error)) from error
        return Plan(
            create=tuple(one for one in decision.plan.create if one.session.interface == interface),
            modify=tuple(one for one in decision.plan.modify if one.after.interface == interface),
        )

    def _learn(self, applied: Applied, decision: Decision) -> None:
        """A source that the stack may not serve is left alone after the first refusal, without a check too."""
        for failure in applied.failed:
            wish = decision.wanted.wishes.get(failure.interface)
            if wish and failure.action is not Action.DELETE and failure.code == FORBIDDEN:
                self._permissions.learn(wish.source, failure.text)

    # Report

    def _report(self, scope: Scope, decision: Decision, checked: _Checked) -> Report:
        in_force, plan, world = decision.in_force, decision.plan, decision.world
        ours = [session for session in world.sessions if owned(session, self._environment.owner)]
        orphans = sum(session.description not in world.instances for session in ours) if scope.everything else 0
        mirrored = {one.interface for one in ours} | {one.session.interface for one in plan.create}
        unmet = any(wish.create and wish.interface not in mirrored for wish in decision.wanted.wishes.values())
        return Report(
            scope,
            plan=plan,
            failed=checked.failed,
            findings=plan.findings + checked.findings,
            unfinished=frozenset() if scope.plan_only else _not_there_yet(scope, world),
            paused=in_force.paused,
            why_paused=in_force.why_paused,
            waiting=scope.attempt > 0 and unmet and count(plan.findings, Trouble.TARGET_UNHEALTHY) > 0,
            policy=f"{in_force.parameter}:{in_force.version}",
            refused=_refusals(in_force.refused),
            orphaned=orphans,
        )


_OF_TARGETS = frozenset((Trouble.TARGET_MISSING, Trouble.TARGET_UNHEALTHY, Trouble.TARGET_FULL))


def _rests_on(decision: Decision) -> frozenset[Topic]:
    """What, besides the world as it was just read, the plan's deletes, modifications and missing creates rest on."""
    plan = decision.plan
    judged = decision.wanted.wishes.keys() | decision.barred.targets
    by_target = any(one.session.interface in judged for one in plan.delete)
    by_target |= any("target" in one.changes for one in plan.modify)
    by_target |= any(finding.trouble in _OF_TARGETS for finding in plan.findings)  # its event may be the only one
    by_policy = bool(plan.delete or plan.modify)
    return frozenset([Topic.POLICY] * by_policy + [Topic.TARGETS] * by_target)


def _not_there_yet(scope: Scope, world: World) -> frozenset[str]:
    """Instances that an event announced and EC2 does not show yet as running, with interfaces.

    One that was stopped before may be shown as that for a while.
    """
    return frozenset(name for name in scope.fresh if not _is_there(world.instances.get(name)))


def _is_there(instance: Instance | None) -> bool:
    """Or was, and has ended."""
    if instance is None:
        return False
    return instance.state in ("shutting-down", "terminated") or (
        instance.state == "running" and bool(instance.interfaces)
    )


def _turned(creates: tuple[Create, ...], container: str) -> tuple[Create, ...]:
    """From another one on in each container, so that two sweeps at once do not meet at every single create."""
    if not creates or not container:
        return creates
    first = int.from_bytes(sha256(container.encode()).digest()) % len(creates)
    return creates[first:] + creates[:first]


def _refusals(refused: Iterable[Refusal]) -> tuple[str, ...]:
    return tuple(map(str, refused))


def _unread(scope: Scope, refused: Refused) -> Report:
    """Half a look is none: nothing is changed."""
    given = answer(refused.operation, refused.code)
    return Report(
        scope,
        failed=(Failure(Action.READ, "", "", refused.code, given, str(refused)),),
        everything=True,
        stopped=f"Nothing was changed: {refused}" if given is Answer.STOP else "",
    )


def _with(report: Report, applied: Applied) -> Report:
    made = {action: tuple(one for one in applied.changes if one.action is action) for action in Action}
    return replace(
        report,
        created=made[Action.CREATE],
        modified=made[Action.MODIFY],
        deleted=made[Action.DELETE],
        failed=report.failed + tuple(applied.failed),
        findings=report.findings + tuple(applied.findings),
        unfinished=report.unfinished | applied.unfinished,
        out_of_time=applied.out_of_time,
        paused=applied.paused,
        why_paused="the stack was paused while the run was under way" if applied.paused else "",
        stopped=applied.stopped,
    )
