import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mirroring.environment import Environment
from mirroring.lifecycle import (
    ANSWERS,
    FRUITLESS,
    LOOKS,
    MARGIN,
    MOST_INVOCATIONS,
    Lifecycle,
    Outcome,
    Undelivered,
    deliver,
)
from mirroring.model import OWNER_TAG, MirroringError, Refused, Scope, Session
from mirroring.reconcile import Reconciler
from mirroring.report import Report
from tests.layers.mirroring.fake_cloud import FakeCloud, FakePolicies, FakeTime
from tests.layers.mirroring.formation import CloudFormation, listening

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
OWNER = "replay"


class Time:
    """A clock that only sleeping and calls move. What is planned for a moment happens when it comes."""

    def __init__(self) -> None:
        self.now = NOW
        self.end = NOW + timedelta(seconds=900)
        self.plans: list[tuple[datetime, Callable[[], None]]] = []

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for due, deed in [plan for plan in self.plans if plan[0] <= self.now]:
            self.plans.remove((due, deed))
            deed()

    def remaining(self) -> float:
        return (self.end - self.now).total_seconds()


@dataclass
class Cloud:
    """Sessions, listed `lag` late: a new one not yet, a deleted one still."""

    time: Time
    lag: timedelta = timedelta(0)
    born: dict[str, datetime] = field(default_factory=dict)
    died: dict[str, datetime] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, list[str]] = field(default_factory=dict)  # operation: codes to come
    deletes: list[datetime] = field(default_factory=list)
    seconds: float = 0.05  # that a call takes

    def create(self, *names: str, owner: str = OWNER) -> None:
        for name in names:
            self.born[name], self.owners[name] = self.time(), owner

    def sessions(self) -> list[Session]:
        self._call("DescribeTrafficMirrorSessions")
        now = self.time() - self.lag
        listed = [name for name in self.born if self.born[name] <= now and self.died.get(name, now) >= now]
        return [_session(name, self.owners[name]) for name in listed if name not in self.died or self.lag]

    def delete(self, session: Session) -> None:
        self.deletes.append(self.time())
        self._call("DeleteTrafficMirrorSession")
        if session.id in self.died:
            raise Refused("DeleteTrafficMirrorSession", "InvalidTrafficMirrorSessionId.NotFound", "gone")
        self.died[session.id] = self.time()

    def left(self, owner: str = OWNER) -> set[str]:
        return {name for name in self.born if name not in self.died and self.owners[name] == owner}

    def _call(self, operation: str) -> None:
        self.time.sleep(self.seconds)
        if codes := self.refusals.get(operation):
            raise Refused(operation, codes.pop(0), "no")


@dataclass
class State:
    values: list[str] = field(default_factory=lambda: ["running"])
    trouble: Exception | None = None
    stuck: Exception | None = None  # the switch cannot be removed

    @property
    def value(self) -> str:
        return self.values[-1]

    def pause(self) -> None:
        self._put("paused")

    def resume(self) -> None:
        self._put("running")

    def remove_switch(self) -> None:
        if self.stuck:
            raise self.stuck
        self._put("")

    def _put(self, value: str) -> None:
        if self.trouble:
            raise self.trouble
        self.values.append(value)


@dataclass
class Queue:
    messages: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    trouble: Exception | None = None

    def enqueue(self, message: dict[str, Any], delay: int) -> None:
        if self.trouble:
            raise self.trouble
        self.messages.append((message, delay))


class InFlight:
    """A cloud whose `at`th create is under way until it is let through."""

    def __init__(self, cloud: FakeCloud, at: int) -> None:
        self._cloud = cloud
        self._at = at
        self.under_way = threading.Event()
        self.go = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cloud, name)

    def create(self, session: Session, token: str) -> Session:
        self._at -= 1
        if self._at == 0:
            self.under_way.set()
            self.go.wait(60)
        return self._cloud.create(session, token)


@pytest.fixture
def formation(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudFormation]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with listening() as server:
        yield server


class Stage:
    """A stack's custom resource with all around it."""

    def __init__(self, formation: CloudFormation) -> None:
        self.formation = formation
        self.time = Time()
        self.cloud = Cloud(self.time)
        self.state = State()
        self.queue = Queue()
        self.handed_over: list[dict[str, Any]] = []
        self.lifecycle = Lifecycle(
            self.cloud,
            self.state,
            self.queue,
            self.handed_over.append,
            Environment(owner=OWNER),
            self.time,
            self.time.sleep,
        )

    def request(self, kind: str, **more: Any) -> dict[str, Any]:
        return {
            "RequestType": kind,
            "ResponseURL": self.formation.url,
            "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/replay/1",
            "RequestId": "r-1",
            "ResourceType": "Custom::Mirroring",
            "LogicalResourceId": "Sessions",
            "ResourceProperties": {},
        } | more

    def run(self, kind: str, **more: Any) -> Outcome:
        return self.lifecycle.run(self.request(kind, **more), self.time.remaining)

    def delete(self) -> Outcome:
        return self.run("Delete", PhysicalResourceId="replay-lifecycle")

    def delete_to_the_end(self) -> Outcome:
        """With as many invocations as it asks for."""
        outcome = self.delete()
        while outcome.status == "AGAIN":
            self.time.end = self.time.now + timedelta(seconds=900)
            outcome = self.lifecycle.run(json.loads(json.dumps(self.handed_over[-1])), self.time.remaining)
        return outcome


@pytest.fixture
def stage(formation: CloudFormation) -> Stage:
    return Stage(formation)


def _session(name: str, owner: str) -> Session:
    return Session(name, "eni-1", "tmt-1", "tmf-1", 1, None, None, "i-1", {OWNER_TAG: owner})


def _names(count: int) -> list[str]:
    return [f"tms-{number}" for number in range(count)]


def test_create_lets_the_stack_run_and_queues_the_first_sweep(stage: Stage) -> None:
    stage.state.pause()
    stage.run("Create")
    assert stage.state.value == "running"
    assert stage.queue.messages == [({"mode": "sweep", "attempt": 0}, 0)]
    assert stage.formation.answer == {
        "Status": "SUCCESS",
        "Reason": "the first sweep is queued",
        "PhysicalResourceId": "replay-lifecycle",
        "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/replay/1",
        "RequestId": "r-1",
        "LogicalResourceId": "Sessions",
    }


def test_the_answer_has_the_empty_content_type_that_the_address_is_signed_for(stage: Stage) -> None:
    stage.run("Create")
    assert stage.formation.headers[0]["Content-Type"] == ""


def test_create_does_not_roll_back_a_stack_whose_first_sweep_must_wait_for_the_schedule(stage: Stage) -> None:
    stage.queue.trouble = Refused("SendMessage", "AccessDenied", "no")
    stage.run("Create")
    assert stage.formation.answer["Status"] == "SUCCESS"
    assert stage.formation.answer["Reason"].startswith("the first sweep waits for the schedule: SendMessage")


def test_create_fails_if_the_stack_would_stay_paused_for_ever(stage: Stage) -> None:
    stage.state.trouble = Refused("PutParameter", "AccessDeniedException", "no")
    assert stage.run("Create").status == "FAILED"
    assert stage.formation.answer["Reason"] == "PutParameter: AccessDeniedException: no"


def test_update_changes_nothing_and_keeps_the_physical_id_whatever_it_was(stage: Stage) -> None:
    stage.cloud.create("tms-1")
    stage.run("Update", PhysicalResourceId="of-another-version")
    assert (stage.state.value, stage.queue.messages, stage.cloud.left()) == ("running", [], {"tms-1"})
    assert stage.formation.answer["Status"] == "SUCCESS"
    assert stage.formation.answer["PhysicalResourceId"] == "of-another-version"


def test_delete_pauses_and_removes_our_sessions_and_no_others(stage: Stage) -> None:
    stage.cloud.create(*_names(3))
    stage.cloud.create("tms-theirs", owner="another-stack")
    outcome = stage.delete()
    assert (outcome.status, outcome.deleted) == ("SUCCESS", 3)
    assert stage.state.values == ["running", "paused", ""]
    assert stage.cloud.left() == set() and stage.cloud.left("another-stack") == {"tms-theirs"}
    assert stage.formation.answer["Status"] == "SUCCESS"


def test_a_switch_that_cannot_be_removed_fails_no_delete(stage: Stage) -> None:
    stage.state.stuck = Refused("DeleteParameter", "AccessDeniedException", "no")
    outcome = stage.delete()
    assert outcome.status == "SUCCESS"
    assert outcome.reason.endswith("the state parameter is left (DeleteParameter: AccessDeniedException: no)")


def test_a_delete_that_fails_leaves_the_switch_at_paused(stage: Stage) -> None:
    stage.cloud.refusals["DescribeTrafficMirrorSessions"] = ["UnauthorizedOperation"]
    assert stage.delete().status == "FAILED"
    assert stage.state.values == ["running", "paused"]


def test_delete_after_a_create_that_failed_succeeds(stage: Stage) -> None:
    """CloudFormation then makes up a physical id of its own, or there is none."""
    assert stage.run("Delete", PhysicalResourceId="stack-Sessions-1ABC").status == "SUCCESS"
    assert stage.formation.answer["PhysicalResourceId"] == "stack-Sessions-1ABC"


def test_delete_without_a_physical_id_succeeds(stage: Stage) -> None:
    assert stage.run("Delete").status == "SUCCESS"
    assert stage.formation.answer["PhysicalResourceId"] == "replay-lifecycle"


def test_delete_keeps_to_its_share_of_the_writes(stage: Stage) -> None:
    stage.cloud.create(*_names(200))
    stage.delete()
    seconds = (stage.cloud.deletes[-1] - stage.cloud.deletes[0]).total_seconds()
    assert len(stage.cloud.deletes) == 200
    assert 200 / seconds < 4.2


def test_a_session_that_a_reconcile_in_flight_creates_is_removed_too(stage: Stage) -> None:
    """Its call was on the way when the stack was paused, and lands after the first empty look."""
    stage.cloud.create(*_names(2))
    stage.time.plans.append((NOW + timedelta(seconds=33), lambda: stage.cloud.create("tms-late")))
    outcome = stage.delete()
    assert (outcome.status, outcome.deleted, stage.cloud.left()) == ("SUCCESS", 3, set())


@pytest.mark.parametrize("at", [1, 4, 12])
@pytest.mark.parametrize("sleeps", [0, 1, 2])
def test_delete_while_a_reconcile_runs(formation: CloudFormation, at: int, sleeps: int) -> None:
    """The real one, in a thread of its own: its create is under way at the pause, and lands so many sleeps later."""
    cloud, time = FakeCloud(), FakeTime()
    target, rules = cloud.nlb_target(), cloud.filter([80])
    cloud.launch(30, tags={"mirror": "yes"})
    policies = FakePolicies(
        f"{{version: 1, sources: [{{name: web, match: {{tags: {{mirror: '*'}}}}, target: {target}, filter: {rules}}}]}}"
    )
    slow = InFlight(cloud, at)
    environment = Environment(owner=OWNER)
    reports: list[Report] = []

    def reconcile() -> None:
        reconciler = Reconciler(slow, policies, environment, time, time.sleep)
        reports.append(reconciler.run(Scope(everything=True), lambda: 600.0))

    reconciling = threading.Thread(target=reconcile)
    naps: list[float] = []

    def land() -> None:
        if not slow.go.is_set() and len(naps) >= sleeps:
            slow.go.set()
            reconciling.join(60)

    def sleep(seconds: float) -> None:
        time.sleep(seconds)
        if seconds >= 1:
            naps.append(seconds)
            land()

    class Switch(State):
        def pause(self) -> None:
            policies.is_paused = True
            super().pause()
            land()

    reconciling.start()
    assert slow.under_way.wait(60)
    lifecycle = Lifecycle(cloud, Switch(), Queue(), _never, environment, time, sleep)
    event = {"RequestType": "Delete", "ResponseURL": formation.url, "PhysicalResourceId": "x"}
    outcome = lifecycle.run(event, lambda: 900.0)
    reconciling.join(60)
    assert outcome.status == "SUCCESS"
    assert [session for session in cloud.all_sessions() if session.tags[OWNER_TAG] == OWNER] == []
    assert reports[0].paused and at <= len(reports[0].created) < 30
    assert outcome.deleted == len(reports[0].created)


def _never(event: dict[str, Any]) -> None:
    raise AssertionError("no second invocation")


def test_it_looks_long_enough_for_a_call_that_takes_until_its_timeout(stage: Stage) -> None:
    stage.delete()
    assert stage.time.now - NOW > timedelta(seconds=33)


@pytest.mark.parametrize("lag", [1, 5, 15])
def test_a_list_that_lags_behind_shows_the_late_one_in_time(stage: Stage, lag: int) -> None:
    stage.cloud.lag = timedelta(seconds=lag)
    stage.cloud.create(*_names(5))
    stage.time.sleep(60)
    stage.time.plans.append((NOW + timedelta(seconds=70), lambda: stage.cloud.create("tms-late")))
    outcome = stage.delete_to_the_end()
    assert (outcome.status, stage.cloud.left()) == ("SUCCESS", set())


def test_ten_thousand_sessions_take_several_invocations_and_less_than_the_hour(stage: Stage) -> None:
    stage.cloud.create(*_names(10_000))
    outcome = stage.delete_to_the_end()
    assert (outcome.status, stage.cloud.left()) == ("SUCCESS", set())
    assert 2 <= len(stage.handed_over) <= 4
    assert stage.time.now - NOW < timedelta(minutes=55)
    assert [answer["Status"] for answer in stage.formation.answers] == ["SUCCESS"]


def test_when_time_is_short_it_hands_over_the_same_event_and_does_not_answer(stage: Stage) -> None:
    stage.cloud.create(*_names(400))
    stage.time.end = NOW + timedelta(seconds=MARGIN + 20)
    assert stage.delete().status == "AGAIN"
    assert stage.formation.answers == []
    (event,) = stage.handed_over
    assert event.items() >= stage.request("Delete", PhysicalResourceId="replay-lifecycle").items()
    assert stage.time.remaining() > MARGIN / 2


def test_it_fails_after_so_many_invocations(stage: Stage) -> None:
    """A function of too short a timeout gets nowhere; Lambda would end the loop without an answer."""
    stage.cloud.create("tms-1")
    event = stage.request("Delete", PhysicalResourceId="replay-lifecycle")
    stage.time.end = NOW + timedelta(seconds=MARGIN)
    for _ in range(MOST_INVOCATIONS - 1):
        stage.time.end = stage.time.now
        assert stage.lifecycle.run(event, stage.time.remaining).status == "AGAIN"
        event = stage.handed_over[-1]
    assert stage.lifecycle.run(event, stage.time.remaining).status == "FAILED"
    assert stage.formation.answer["Reason"].startswith("12 invocations were not enough. At the last look sessions")


def test_it_fails_before_cloudformation_stops_waiting(stage: Stage) -> None:
    stage.cloud.create(*_names(20_000))
    outcome = stage.delete_to_the_end()
    assert outcome.status == "FAILED"
    assert timedelta(minutes=54) < stage.time.now - NOW < timedelta(minutes=57)
    reason = stage.formation.answer["Reason"]
    assert reason.startswith("55 minutes were not enough. At the last look ")
    assert reason.endswith("AWS bills them until they are deleted; delete the stack again to go on")


def test_a_second_delete_goes_on_where_the_first_one_failed(stage: Stage) -> None:
    stage.cloud.create(*_names(14_000))
    assert stage.delete_to_the_end().status == "FAILED"
    stage.time.end = stage.time.now + timedelta(seconds=900)
    assert stage.delete_to_the_end().status == "SUCCESS"
    assert stage.cloud.left() == set()


@pytest.mark.parametrize(
    ("operation", "attempts"), [("DeleteTrafficMirrorSession", 2), ("DescribeTrafficMirrorSessions", 1)]
)
def test_without_the_permission_it_soon_fails_and_says_so(stage: Stage, operation: str, attempts: int) -> None:
    stage.cloud.create("tms-1")
    stage.cloud.refusals[operation] = ["UnauthorizedOperation"] * 99
    stage.delete()
    assert stage.formation.answer["Status"] == "FAILED"
    assert f"{operation}: UnauthorizedOperation" in stage.formation.answer["Reason"]
    assert len(stage.cloud.refusals[operation]) == 99 - attempts


def test_one_refusal_may_be_of_a_session_that_is_gone_and_is_no_failure(stage: Stage) -> None:
    stage.cloud.create("tms-1", "tms-2")
    stage.cloud.refusals["DeleteTrafficMirrorSession"] = ["UnauthorizedOperation"]
    stage.delete()
    assert stage.formation.answer["Status"] == "SUCCESS"
    assert stage.cloud.left() == set()


def test_throttled_it_slows_down_and_gets_there(stage: Stage) -> None:
    stage.cloud.create(*_names(60))
    stage.cloud.refusals["DeleteTrafficMirrorSession"] = ["RequestLimitExceeded"]
    assert stage.delete().status == "SUCCESS"
    assert stage.cloud.left() == set()
    assert stage.cloud.deletes[59] - stage.cloud.deletes[1] > timedelta(seconds=28)  # half of four a second


def test_a_look_that_fails_is_not_an_empty_one(stage: Stage) -> None:
    stage.cloud.refusals["DescribeTrafficMirrorSessions"] = ["Unavailable"] * (FRUITLESS - 1)
    stage.cloud.create("tms-1")
    assert stage.delete().status == "SUCCESS"
    assert stage.cloud.left() == set()


def test_looks_that_must_be_empty_are_counted_anew_after_one_that_failed(stage: Stage) -> None:
    looks: list[int] = []
    sessions = stage.cloud.sessions

    def counted() -> list[Session]:
        looks.append(1)
        if len(looks) == LOOKS:
            raise Refused("DescribeTrafficMirrorSessions", "Unavailable", "no")
        return sessions()

    stage.cloud.sessions = counted  # type: ignore[method-assign]  # the fake's own
    assert stage.delete().status == "SUCCESS"
    assert len(looks) == 2 * LOOKS


def test_what_cannot_be_deleted_ends_in_failure_not_in_a_lie(stage: Stage) -> None:
    stage.cloud.create(*_names(2))
    stage.cloud.refusals["DeleteTrafficMirrorSession"] = ["SomethingNew"] * 999
    stage.delete()
    answer = stage.formation.answer
    assert answer["Status"] == "FAILED"
    assert answer["Reason"].startswith(
        f"{FRUITLESS} attempts in a row deleted nothing (DeleteTrafficMirrorSession: Some"
    )
    assert "2 of our sessions were left" in answer["Reason"]


def test_a_state_that_cannot_be_written_fails_before_anything_is_deleted(stage: Stage) -> None:
    """A reconcile would make the sessions anew."""
    stage.cloud.create("tms-1")
    stage.state.trouble = Refused("PutParameter", "AccessDeniedException", "no")
    assert stage.delete().status == "FAILED"
    assert stage.cloud.left() == {"tms-1"}


def test_a_hand_over_that_is_refused_fails(stage: Stage) -> None:
    def refuse(event: dict[str, Any]) -> None:
        raise Refused("Invoke", "AccessDeniedException", "no")

    stage.lifecycle = Lifecycle(
        stage.cloud, stage.state, stage.queue, refuse, Environment(owner=OWNER), stage.time, stage.time.sleep
    )
    stage.time.end = NOW
    assert stage.delete().status == "FAILED"
    assert stage.formation.answer["Reason"] == "Invoke: AccessDeniedException: no"


def test_an_error_of_our_own_is_answered_too(stage: Stage) -> None:
    stage.state.trouble = ZeroDivisionError("oh")
    stage.delete()
    assert stage.formation.answer["Reason"] == "unexpected ZeroDivisionError: oh"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"RequestType": "Rename"}, "RequestType is 'Rename', not Create, Update or Delete"),
        ({"RequestType": None}, "RequestType is '', not Create, Update or Delete"),
        ({"RequestType": ["Delete"], "StackId": 7}, "RequestType is '', not Create, Update or Delete"),
    ],
)
def test_a_malformed_request_is_answered_with_failure(stage: Stage, change: dict[str, Any], reason: str) -> None:
    stage.run("Create", **change)
    assert (stage.formation.answer["Status"], stage.formation.answer["Reason"]) == ("FAILED", reason)


@pytest.mark.parametrize("event", [{}, {"RequestType": "Delete"}, {"RequestType": "Delete", "ResponseURL": 5}])
def test_without_an_address_there_is_nobody_to_answer_and_nothing_is_done(stage: Stage, event: dict[str, Any]) -> None:
    stage.cloud.create("tms-1")
    with pytest.raises(MirroringError, match="no ResponseURL"):
        stage.lifecycle.run(event, stage.time.remaining)
    assert stage.cloud.left() == {"tms-1"}


def test_an_answer_is_sent_again_until_it_is_taken(stage: Stage) -> None:
    stage.formation.statuses = [500, 503]
    stage.run("Update")
    assert stage.formation.puts == 3
    assert stage.formation.answer["Status"] == "SUCCESS"


def test_an_answer_that_is_never_taken_fails_the_invocation_which_lambda_repeats(stage: Stage) -> None:
    stage.formation.statuses = [403] * 9
    with pytest.raises(Undelivered, match=r"4 attempts, the last: 403 Forbidden"):
        stage.run("Update")
    assert stage.formation.puts == ANSWERS
    assert stage.time.now - NOW == timedelta(seconds=2 + 4 + 8)


def test_nobody_listens(stage: Stage) -> None:
    with CloudFormation() as closed:
        url = closed.url
    with pytest.raises(Undelivered, match="could not be answered"):
        deliver(url, b"{}", stage.time.sleep)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "answer"])
def test_only_web_addresses_are_answered(url: str) -> None:
    with pytest.raises(Undelivered, match="no web address"):
        deliver(url, b"{}", lambda _: None)


def test_a_long_reason_still_fits_an_answer(stage: Stage) -> None:
    stage.state.trouble = Refused("PutParameter", "Huge", 'ü"' * 5000)
    stage.delete()
    assert len(json.dumps(stage.formation.answer)) <= 4096
