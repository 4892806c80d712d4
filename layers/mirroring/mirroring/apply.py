"""Carries out a plan, one call at a time: paced by the write budget, within the time that is left, and stoppable.

Deletes come first, as they free slots, numbers and places at a target; then modifications; then creations. Every
refusal has its answer (see `answers`) and ends at its own change, unless the answer is to stop. A change that is worth
another try waits at the end of its queue, so that one instance that is not visible yet holds nobody up.
"""

import heapq
import json
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Protocol

from mirroring.answers import Answer, answer
from mirroring.memory import UNEXPLAINED, UNSUPPORTED, Refusals
from mirroring.model import (
    CONFIG_TAG,
    Create,
    Delete,
    Finding,
    Modify,
    Plan,
    Refused,
    Session,
    Trouble,
)
from mirroring.pace import Leave, Pace
from mirroring.repair import config_hash
from mirroring.report import Action, Change, Failure
from mirroring.support import may_be_source

#: Tries after the first, 1, 2, 4 and 8 seconds apart.
RETRIES = 4
#: Seconds until a refusal that nothing explained is looked at anew: what another run just made shows by then.
SECOND_LOOK = 2.0


class Writes(Protocol):
    def create(self, session: Session, token: str) -> Session: ...
    def modify(self, before: Session, after: Session) -> Session: ...
    def retag(self, before: Session, after: Session) -> None: ...
    def delete(self, session: Session) -> None: ...


@dataclass
class Applied:
    changes: list[Change] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unfinished: set[str] = field(default_factory=set)  # instances
    out_of_time: bool = False
    paused: bool = False
    stopped: str = ""


@dataclass
class _Attempt:
    change: Create | Modify | Delete
    tries: int = 0
    modified: bool = False  # a modification whose tags are still to be put on
    look: bool = False  # first look at the interface anew
    looked: bool = False


class Applier:
    """One run's. `replan` looks at one interface anew, without deletes; `run` tells our creations from earlier ones."""

    def __init__(
        self,
        cloud: Writes,
        *,
        owner: str,
        run: str,
        pace: Pace,
        leave: Leave,
        refusals: Refusals,
        replan: Callable[[str, str], Plan],  # instance, interface
        on_change: Callable[[Change], None],
    ) -> None:
        self._cloud = cloud
        self._owner = owner
        self._run = run
        self._pace = pace
        self._leave = leave
        self._refusals = refusals
        self._replan = replan
        self._on_change = on_change
        self._applied = Applied()
        self._doubted = False

    def apply(self, plan: Plan) -> Applied:
        for changes in (plan.delete, plan.modify, plan.create):
            self._work_off(changes)
        leave = self._leave
        return replace(self._applied, out_of_time=leave.out_of_time, paused=leave.paused, stopped=leave.stopped)

    def _work_off(self, changes: Iterable[Create | Modify | Delete]) -> None:
        """A queue by the time of the next try; those that were not tried yet come first, in their order."""
        queue = [(0.0, order, _Attempt(change)) for order, change in enumerate(changes)]
        order = len(queue)
        while queue and not self._leave.ended:
            due, _, attempt = heapq.heappop(queue)
            delay = self._try(attempt, due)
            if delay is not None:
                heapq.heappush(queue, (self._now() + delay, order := order + 1, attempt))
        if not self._leave.paused:
            self._applied.unfinished.update(_session(attempt.change).description for _, _, attempt in queue)

    def _try(self, attempt: _Attempt, due: float) -> float | None:
        """Seconds until the next try, or None if the change is over and done with."""
        if due > self._now() and not self._leave.wait(due):
            return 0.0
        if attempt.look and not self._look_again(attempt):
            return None
        if not self._allowed(attempt):
            return None
        try:
            done = self._perform(attempt)
        except Refused as refused:
            return self._answer(attempt, refused)
        if done is None:
            return 0.0  # the run has ended
        self._applied.changes.append(done)
        self._on_change(done)
        return None

    def _perform(self, attempt: _Attempt) -> Change | None:
        """The change as it was made, or None if the run ended before."""
        match attempt.change:
            case Delete(session, reason):
                if not self._leave.may_write():
                    return None
                self._cloud.delete(session)
                return Change(Action.DELETE, session, reason)
            case Create(session, instance_type, _, reason):
                if not self._leave.may_write():
                    return None
                made = self._cloud.create(session, client_token(session, self._owner, self._run))
                self._refusals.acquit(instance_type)
                return Change(Action.CREATE, made, reason)
            case Modify(before, after, changes, _, reason):
                if changes and not attempt.modified:
                    if not self._leave.may_write():
                        return None
                    self._cloud.modify(_as_known(before, after), after)
                    attempt.modified = True
                if before.tags != after.tags:
                    if not self._leave.may_write():
                        return None
                    self._cloud.retag(replace(after, tags=before.tags), after)
                return Change(Action.MODIFY, after, reason, changes, before)

    def _answer(self, attempt: _Attempt, refused: Refused) -> float | None:
        """What follows from a refusal: seconds until the next try, or None."""
        given = answer(refused.operation, refused.code)
        if isinstance(attempt.change, Delete) and given in (Answer.REPLAN, Answer.NEXT_TARGET, Answer.QUARANTINE):
            self._fail(attempt, refused, given, again=True)
            return None
        match given:
            case Answer.SUCCESS:
                return None  # it is as it should be, though not by us
            case Answer.RETRY:
                self._pace.heed(refused)
                if attempt.tries == RETRIES:
                    self._fail(attempt, refused, given, again=True)
                    return None
                attempt.tries += 1
                return float(2 ** (attempt.tries - 1))
            case Answer.REPLAN:
                if attempt.looked:
                    self._refusals.add(_session(attempt.change).interface, str(refused), UNEXPLAINED)
                    self._fail(attempt, refused, Answer.QUARANTINE)
                    return None
                attempt.look = True
                return SECOND_LOOK
            case Answer.NEXT_TARGET:
                return self._next_target(attempt, refused, given)
            case Answer.QUARANTINE:
                return self._quarantine(attempt, refused)
            case Answer.STOP:
                if self._no_proof(attempt, refused):
                    self._doubted = True
                else:
                    self._leave.stopped = f"{refused}."
                self._fail(attempt, refused, given, again=True)
                return None

    def _no_proof(self, attempt: _Attempt, refused: Refused) -> bool:
        """Whether a refusal may concern this session alone. The second one of a run is proof.

        A role that may touch only what bears our tag may be refused a session that is gone, as that bears none.
        """
        exists = not isinstance(attempt.change, Create)
        return exists and refused.code == "UnauthorizedOperation" and not self._doubted

    def _quarantine(self, attempt: _Attempt, refused: Refused) -> float | None:
        session = _session(attempt.change)
        if refused.code.startswith("InvalidTrafficMirrorTarget"):
            self._refusals.add(session.target, str(refused))
            return self._next_target(attempt, refused, Answer.QUARANTINE)
        if refused.code.startswith("InvalidTrafficMirrorFilter"):
            # Not the interface's fault. By the next look the plan knows that the filter is gone.
            text = f"Filter {session.filter} does not exist here: name one that does in the policy."
            self._find(Trouble.FILTER_MISSING, session, text)
            self._fail(attempt, refused, Answer.QUARANTINE, again=True)
            return None
        if isinstance(attempt.change, Create) and refused.code == "NetworkInterfaceNotSupported":
            self._unsupported(attempt.change, str(refused))
        else:
            self._refusals.add(session.interface, str(refused))
        self._fail(attempt, refused, Answer.QUARANTINE)
        return None

    def _unsupported(self, change: Create, why: str) -> None:
        """Of a type that AWS lists, the interface is in doubt first: one detached since the look is refused alike."""
        listed, interface = may_be_source(change.instance_type), change.session.interface
        self._refusals.add(interface, why, UNEXPLAINED if listed else UNSUPPORTED)
        if self._refusals.is_second(change.instance_type, interface) or not listed:
            self._refusals.add(change.instance_type, why)

    def _next_target(self, attempt: _Attempt, refused: Refused, given: Answer) -> float | None:
        if self._turn_to_next_target(attempt):
            return 0.0
        session = _session(attempt.change)
        text = f"No target is left: {session.target} refused ({refused.code}). Name another in the source's `target`."
        trouble = Trouble.TARGET_FULL if given is Answer.NEXT_TARGET else Trouble.QUARANTINED
        self._find(trouble, session, text)
        self._fail(attempt, refused, given)
        return None

    def _turn_to_next_target(self, attempt: _Attempt) -> bool:
        assert not isinstance(attempt.change, Delete)  # which needs no target
        free = [target for target in attempt.change.others if not self._refusals.why(target)]
        if free:
            attempt.change = _with_target(attempt.change, free[0], tuple(free[1:]))
        return bool(free)

    def _allowed(self, attempt: _Attempt) -> bool:
        """Whether nothing about the change went into quarantine since it was planned."""
        change = attempt.change
        if isinstance(change, Delete) or (isinstance(change, Modify) and "target" not in change.changes):
            return True
        session = _session(change)
        whole = (session.interface, change.instance_type) if isinstance(change, Create) else (session.interface,)
        why = next((why for name in whole if (why := self._refusals.why(name))), "")
        if not why and (why := self._refusals.why(session.target)) and self._turn_to_next_target(attempt):
            return True
        if why:
            self._find(Trouble.QUARANTINED, session, f"Not tried for a while: {why}")
        return not why

    def _look_again(self, attempt: _Attempt) -> bool:
        """Plans the change's interface anew; whether something is left to do there."""
        session = _session(attempt.change)
        try:
            plan = self._replan(session.description, session.interface)
        except Refused as refused:
            self._fail(attempt, refused, Answer.RETRY, again=True)
            return False
        changes: tuple[Create | Modify, ...] = (*plan.modify, *plan.create)
        anew = [change for change in changes if _session(change).interface == session.interface]
        attempt.look, attempt.looked, attempt.modified = False, True, False
        if anew:
            attempt.change = anew[0]
        return bool(anew)

    def _fail(self, attempt: _Attempt, refused: Refused, given: Answer, *, again: bool = False) -> None:
        session = _session(attempt.change)
        self._applied.failed.append(
            Failure(_action(attempt.change), session.interface, session.description, refused.code, given, str(refused))
        )
        if again:
            self._applied.unfinished.add(session.description)

    def _find(self, trouble: Trouble, session: Session, text: str) -> None:
        self._applied.findings.append(
            Finding(trouble, text, instance=session.description, interface=session.interface, session=session.id)
        )

    def _now(self) -> float:
        return self._pace.clock().timestamp()


def client_token(session: Session, owner: str, run: str) -> str:
    """The same for every try of a run to create one session, and another for whatever differs, if only the run.

    A session that was made, deleted and is made again within a second must not get the answer of the first.
    """
    return sha256(json.dumps([owner, run, asdict(session)], sort_keys=True).encode()).hexdigest()


def _as_known(before: Session, after: Session) -> Session:
    """The packet length that is shown may be the old target's own default: a new target is told which one to have."""
    if before.target == after.target or after.packet_length is None:
        return before
    return replace(before, packet_length=None)


def _session(change: Create | Modify | Delete) -> Session:
    return change.after if isinstance(change, Modify) else change.session


def _action(change: Create | Modify | Delete) -> Action:
    match change:
        case Create():
            return Action.CREATE
        case Modify():
            return Action.MODIFY
        case Delete():
            return Action.DELETE


def _with_target(change: Create | Modify, target: str, others: Collection[str]) -> Create | Modify:
    """The hash of the settings in its tags follows."""
    planned = _session(change)
    session = replace(planned, target=target)
    # A VNI that was left to AWS is hashed as that, also where the session has one by now.
    left_to_aws = planned.tags.get(CONFIG_TAG) == config_hash(replace(planned, vni=None))
    asked = replace(session, vni=None) if left_to_aws else session
    session = replace(session, tags={**session.tags, CONFIG_TAG: config_hash(asked)})
    reason = f"{change.reason}; to {target}, as {planned.target} does not take it"
    if isinstance(change, Create):
        return replace(change, session=session, others=tuple(others), reason=reason)
    changes = change.changes if "target" in change.changes else ("target", *change.changes)
    return replace(change, after=session, changes=changes, others=tuple(others), reason=reason)
