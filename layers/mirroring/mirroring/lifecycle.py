"""The stack's custom resource: the first sweep when it is made, our sessions gone when it is deleted.

AWS bills a session until it is deleted, and a stack that is gone deletes nothing any more. So Delete first writes
`paused` (every reconcile looks at that before it writes), then deletes and looks again until nothing of ours is left,
and then looks twice more, for a session that a reconcile in flight was just creating. It never says SUCCESS while it
sees one. When its time is short, it invokes itself with the same event.

CloudFormation deletes what an Update leaves behind under another physical id or another logical one: the first never
changes here, the second must not change in the template.

Protocol: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-requesttypes.html
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

from mirroring.answers import Answer, answer
from mirroring.budget import Budget
from mirroring.environment import Environment
from mirroring.model import MirroringError, Refused, Session, owned, stamp

#: Deletes a second. EC2's bucket for mirroring writes holds 50 and gains 5 a second, for the whole account and Region.
RATE = 4.0
LOOKS = 3  # in a row that must find nothing of ours
PAUSE = 20.0  # seconds between them: in sum longer than a create in flight may take (13 s, then it has timed out)
FRUITLESS = 6  # looks in a row that see sessions of which none could be deleted, then it gives up
MARGIN = 60.0  # seconds of an invocation kept for a slow list, and for the answer or the next invocation
# CloudFormation waits an hour; Lambda ends a function that invokes itself more than 16 times.
# https://docs.aws.amazon.com/lambda/latest/dg/invocation-recursion.html
LONGEST = timedelta(minutes=55)
MOST_INVOCATIONS = 12
ANSWERS = 4  # attempts to deliver one
REASON_LENGTH = 1000  # characters; an answer may have 4,096 bytes

_PROGRESS = "MirroringProgress"  # what one invocation tells the next, in the event
_DELETE = "DeleteTrafficMirrorSession"


class Sessions(Protocol):
    def sessions(self) -> list[Session]: ...
    def delete(self, session: Session) -> None: ...


class State(Protocol):
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def remove_switch(self) -> None: ...


class Queue(Protocol):
    def enqueue(self, message: dict[str, Any], delay: int) -> None: ...


@dataclass(frozen=True)
class Request:
    """What CloudFormation asks, as far as it could be read."""

    kind: str  # Create | Update | Delete
    url: str  # where the answer goes
    stack: str
    id: str
    logical: str
    physical: str  # empty on Create
    invocation: int = 1
    since: datetime | None = None  # start of the first invocation


@dataclass(frozen=True)
class Outcome:
    status: str  # SUCCESS | FAILED | AGAIN: handed to the next invocation, no answer yet
    reason: str
    deleted: int = 0


class Undelivered(MirroringError):
    """CloudFormation could not be told. Lambda runs an event again whose invocation failed."""


class Lifecycle:
    def __init__(
        self,
        cloud: Sessions,
        state: State,
        queue: Queue,
        again: Callable[[dict[str, Any]], None],  # invoke ourselves, asynchronously, with this event
        environment: Environment,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._cloud = cloud
        self._state = state
        self._queue = queue
        self._again = again
        self._owner = environment.owner
        self._clock = clock
        self._sleep = sleep

    def run(self, event: Mapping[str, Any], remaining: Callable[[], float]) -> Outcome:
        """Do what is asked and tell CloudFormation, whatever happens."""
        request = request_of(event)
        if not request.url:
            raise MirroringError("not a request of CloudFormation: it has no ResponseURL to answer to")
        try:
            outcome = self._do(request, event, remaining)
        except MirroringError as error:
            outcome = Outcome("FAILED", str(error))
        except Exception as error:  # noqa: BLE001  top of the shell: without an answer the stack hangs for an hour
            outcome = Outcome("FAILED", f"unexpected {type(error).__name__}: {error}")
        if outcome.status != "AGAIN":
            deliver(request.url, _body(request, outcome, self._owner), self._sleep)
        return outcome

    def _do(self, request: Request, event: Mapping[str, Any], remaining: Callable[[], float]) -> Outcome:
        match request.kind:
            case "Create":
                return self._create()
            case "Update":
                return Outcome("SUCCESS", "nothing to do: the policy and the schedule see to changes")
            case "Delete":
                return self._delete(request, event, remaining)
        return Outcome("FAILED", f"RequestType is {request.kind!r}, not Create, Update or Delete")

    def _create(self) -> Outcome:
        """The policy is not looked at: a bad one is reported by the sweep, and is no reason to roll back a stack."""
        self._state.resume()
        try:
            self._queue.enqueue({"mode": "sweep", "attempt": 0}, 0)
        except Refused as refusal:
            return Outcome("SUCCESS", f"the first sweep waits for the schedule: {refusal}")
        return Outcome("SUCCESS", "the first sweep is queued")

    def _delete(self, request: Request, event: Mapping[str, Any], remaining: Callable[[], float]) -> Outcome:
        since = request.since or self._clock()
        self._state.pause()
        clearing = _Clearing(self._cloud, self._owner, self._clock, self._sleep)
        outcome = clearing.run(lambda: remaining() < MARGIN or self._clock() - since >= LONGEST)
        if outcome is not None:
            return self._without_switch(outcome) if outcome.status == "SUCCESS" else outcome
        if self._clock() - since >= LONGEST:
            return clearing.failed(f"{LONGEST // timedelta(minutes=1)} minutes were not enough")
        if request.invocation >= MOST_INVOCATIONS:
            return clearing.failed(f"{request.invocation} invocations were not enough")
        self._again({**event, _PROGRESS: {"invocation": request.invocation + 1, "since": stamp(since)}})
        return Outcome("AGAIN", f"invocation {request.invocation} hands over to the next", clearing.deleted)

    def _without_switch(self, outcome: Outcome) -> Outcome:
        """A parameter left behind costs nothing: no reason to fail a delete."""
        try:
            self._state.remove_switch()
        except Refused as refusal:
            return replace(outcome, reason=f"{outcome.reason}; the state parameter is left ({refusal})")
        return outcome


class _Clearing:
    """Deletes our sessions until none is left."""

    def __init__(
        self, cloud: Sessions, owner: str, clock: Callable[[], datetime], sleep: Callable[[float], None]
    ) -> None:
        self._cloud = cloud
        self._owner = owner
        self._clock = clock
        self._sleep = sleep
        self._budget = Budget(RATE, burst=RATE)
        self._left: int | None = None  # sessions of ours at the last look
        self._trouble = ""  # the last refusal
        self._doubted: set[str] = set()  # sessions that we were not allowed to delete, once
        self.deleted = 0

    def run(self, is_short: Callable[[], bool]) -> Outcome | None:
        """How it ended; None if time is short."""
        empty = fruitless = 0
        while not is_short():
            before = self.deleted
            try:
                ours = [session for session in self._cloud.sessions() if owned(session, self._owner)]
                self._left = len(ours)
                empty = 0 if ours else empty + 1
                if empty == LOOKS:
                    return Outcome("SUCCESS", f"none of our sessions is left; {self.deleted} deleted", self.deleted)
                for session in ours:
                    if is_short():
                        return None
                    self._delete(session)
            except Refused as refusal:
                self._trouble = str(refusal)
                empty = 0
                if answer(refusal.operation, refusal.code) is Answer.STOP:
                    return self.failed("our role may not do this, or a quota is reached")
            fruitless = 0 if empty or self.deleted > before else fruitless + 1
            if fruitless == FRUITLESS:
                return self.failed(f"{FRUITLESS} attempts in a row deleted nothing")
            if self.deleted == before:
                self._sleep(PAUSE)
        return None

    def failed(self, why: str) -> Outcome:
        left = "sessions could not be listed" if self._left is None else f"{self._left} of our sessions were left"
        trouble = f" ({self._trouble})" if self._trouble else ""
        remedy = "AWS bills them until they are deleted; delete the stack again to go on"
        return Outcome("FAILED", f"{why}{trouble}. At the last look {left}; {remedy}", self.deleted)

    def _delete(self, session: Session) -> None:
        """Raises what stops us: a session that we may not delete and still see. Others the next look tries again."""
        self._sleep(self._budget.delay(self._clock().timestamp()))
        self._budget.spend(self._clock().timestamp())
        try:
            self._cloud.delete(session)
        except Refused as refusal:
            match answer(_DELETE, refusal.code):
                case Answer.SUCCESS:
                    pass  # gone already: the list lags behind
                case Answer.STOP if session.id in self._doubted:
                    raise
                case Answer.STOP:  # what is gone bears no tag of ours, and may be refused as if it were another's
                    self._trouble = str(refusal)
                    self._doubted.add(session.id)
                    return
                case _:
                    self._trouble = str(refusal)
                    self._budget.throttled(self._clock().timestamp())
                    return
        self.deleted += 1


def request_of(event: Mapping[str, Any]) -> Request:
    """Whatever is missing or of another kind is empty: an answer can still be given."""

    def text(key: str) -> str:
        value = event.get(key)
        return value if isinstance(value, str) else ""

    invocation, since = 1, None
    match event.get(_PROGRESS):
        case {"invocation": int(number), "since": str(moment)}:
            invocation, since = number, datetime.fromisoformat(moment)
    return Request(
        kind=text("RequestType"),
        url=text("ResponseURL"),
        stack=text("StackId"),
        id=text("RequestId"),
        logical=text("LogicalResourceId"),
        physical=text("PhysicalResourceId"),
        invocation=invocation,
        since=since,
    )


def deliver(url: str, body: bytes, sleep: Callable[[float], None]) -> None:
    """PUT an answer to the address that CloudFormation signed."""
    if urlsplit(url).scheme not in ("https", "http"):  # http: the emulators' own
        raise Undelivered("the ResponseURL is no web address")
    trouble = ""
    for attempt in range(ANSWERS):
        if attempt:
            sleep(2.0**attempt)
        # The signature covers an empty content type; urllib would put one of its own.
        request = HttpRequest(url, data=body, method="PUT", headers={"Content-Type": ""})
        try:
            with urlopen(request, timeout=10):
                return
        except HTTPError as error:
            trouble = f"{error.code} {error.reason}"
            error.close()
        except (OSError, HTTPException) as error:
            trouble = str(error)
    raise Undelivered(f"CloudFormation could not be answered in {ANSWERS} attempts, the last: {trouble}")


def _body(request: Request, outcome: Outcome, owner: str) -> bytes:
    answer = {
        "Status": outcome.status,
        "Reason": outcome.reason.encode("ascii", "replace").decode()[:REASON_LENGTH],
        "PhysicalResourceId": request.physical or f"{owner}-lifecycle",
        "StackId": request.stack,
        "RequestId": request.id,
        "LogicalResourceId": request.logical,
    }
    return json.dumps(answer).encode()
