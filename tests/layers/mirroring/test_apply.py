"""How a plan is carried out: order, pace, time, the switch, and the answer to every kind of refusal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.answers import Answer
from mirroring.apply import RETRIES, SECOND_LOOK, Applied, Applier, client_token
from mirroring.memory import UNEXPLAINED, UNSUPPORTED, Refusals
from mirroring.model import CONFIG_TAG, CREATED_TAG, Create, Delete, Modify, Plan, Refused, Session, Trouble
from mirroring.pace import MARGIN, Leave, Pace
from mirroring.repair import config_hash
from mirroring.report import Action, Change

CREATE, MODIFY, DELETE = "CreateTrafficMirrorSession", "ModifyTrafficMirrorSession", "DeleteTrafficMirrorSession"
NOT_YET = "InvalidNetworkInterfaceID.NotFound"
FULL = "TrafficMirrorSourcesPerTargetLimitExceeded"
UNKNOWN = "InvalidParameterValue"


class Time:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 8, tzinfo=UTC)
        self.slept: list[float] = []

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)


@dataclass
class Aws:
    """Takes every write but those that it was told to refuse."""

    time: Time
    takes: float = 0.0  # seconds that a call takes
    calls: list[tuple[str, str]] = field(default_factory=list)  # operation and interface, as they were asked
    tokens: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)  # of creations
    refusals: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # codes, by operation and interface

    def refuse(self, operation: str, interface: str, *codes: str) -> None:
        self.refusals[operation, interface] = list(codes)

    def create(self, session: Session, token: str) -> Session:
        self.tokens.append(token)
        self.targets.append(session.target)
        self._call(CREATE, session)
        return replace(session, id=f"tms-{session.interface}", vni=77)

    def modify(self, before: Session, after: Session) -> Session:
        self._call(MODIFY, before)
        return after

    def retag(self, before: Session, after: Session) -> None:
        self._call("CreateTags", before)

    def delete(self, session: Session) -> None:
        self._call(DELETE, session)

    def _call(self, operation: str, session: Session) -> None:
        self.time.now += timedelta(seconds=self.takes)
        self.calls.append((operation, session.interface))
        if codes := self.refusals.get((operation, session.interface)):
            raise Refused(operation, codes.pop(0), "no")


class Stage:
    """An applier with everything around it."""

    def __init__(self, *, seconds: float = 10_000.0, rate: float = 5.0) -> None:
        self.time = Time()
        self.start = self.time.now
        self.aws = Aws(self.time)
        self.refusals = Refusals(self.time)
        self.pace = Pace(self.time, self.time.sleep)
        self.pace.at(rate)
        self.seconds = seconds
        self.replanned: list[tuple[str, str]] = []
        self.anew: Callable[[], Plan] = Plan
        self.paused: Callable[[], bool] = lambda: False
        self.progress: list[Change] = []

    def apply(self, plan: Plan) -> Applied:
        applier = Applier(
            self.aws,
            owner="stack",
            run="1",
            pace=self.pace,
            leave=Leave(self.pace, self._remaining, self._paused, self.time.now),
            refusals=self.refusals,
            replan=self._replan,
            on_change=self.progress.append,
        )
        return applier.apply(plan)

    def _remaining(self) -> float:
        return self.seconds - (self.time.now - self.start).total_seconds()

    def _paused(self) -> bool:
        return self.paused()

    def _replan(self, instance: str, interface: str) -> Plan:
        self.replanned.append((instance, interface))
        return self.anew()


def session(nth: int, /, **changed: Any) -> Session:
    tags = {CREATED_TAG: "2026-11-23T08:00:00Z", CONFIG_TAG: "?"}
    made = Session("", f"eni-{nth}", "tmt-1", "tmf-1", 1, None, None, f"i-{nth}", tags)
    return replace(made, **changed)


def creation(number: int, others: tuple[str, ...] = (), type_: str = "m5.large") -> Create:
    return Create(session(number), type_, others, "tagged")


def deletion(number: int) -> Delete:
    return Delete(session(number, id=f"tms-{number}"), "stopped", evident=True)


def modification(nth: int, others: tuple[str, ...] = (), /, tags: Mapping[str, str] | None = None, **to: Any) -> Modify:
    before = session(nth, id=f"tms-{nth}")
    after = replace(before, **to, tags=before.tags if tags is None else tags)
    return Modify(before, after, tuple(to), others, "policy changed")


def test_deletes_come_first_then_modifications_then_creations() -> None:
    stage = Stage()
    plan = Plan((creation(3), creation(4)), (modification(2, number=7),), (deletion(1),))
    applied = stage.apply(plan)
    assert stage.aws.calls == [(DELETE, "eni-1"), (MODIFY, "eni-2"), (CREATE, "eni-3"), (CREATE, "eni-4")]
    assert [change.action for change in applied.changes] == [
        Action.DELETE,
        Action.MODIFY,
        Action.CREATE,
        Action.CREATE,
    ]
    assert stage.progress == applied.changes
    assert not applied.failed
    assert not applied.unfinished
    assert not (applied.out_of_time or applied.paused or applied.stopped)


def test_a_change_tells_what_is_and_why() -> None:
    [change] = Stage().apply(Plan(create=(creation(1),))).changes
    assert (change.session.id, change.session.vni, change.reason) == ("tms-eni-1", 77, "tagged")
    [change] = Stage().apply(Plan(modify=(modification(1, number=7),))).changes
    assert change.before is not None
    assert (change.before.number, change.session.number, change.changes) == (1, 7, ("number",))


# Modifications


def test_settings_and_tags_are_two_writes() -> None:
    stage = Stage()
    applied = stage.apply(Plan(modify=(modification(1, number=7, tags={"a": "b"}),)))
    assert stage.aws.calls == [(MODIFY, "eni-1"), ("CreateTags", "eni-1")]
    assert len(applied.changes) == 1


def test_tags_alone_are_one_write() -> None:
    stage = Stage()
    stage.apply(Plan(modify=(modification(1, tags={"a": "b"}),)))
    assert stage.aws.calls == [("CreateTags", "eni-1")]


def test_settings_are_not_modified_twice_because_tags_failed() -> None:
    stage = Stage()
    stage.aws.refuse("CreateTags", "eni-1", "ConcurrentTagAccess")
    applied = stage.apply(Plan(modify=(modification(1, number=7, tags={"a": "b"}),)))
    assert stage.aws.calls == [(MODIFY, "eni-1"), ("CreateTags", "eni-1"), ("CreateTags", "eni-1")]
    assert len(applied.changes) == 1


def test_time_may_run_out_between_the_two_writes() -> None:
    stage = Stage(seconds=MARGIN + 1)
    stage.aws.takes = 2.0
    applied = stage.apply(Plan(modify=(modification(1, number=7, tags={"a": "b"}),)))
    assert stage.aws.calls == [(MODIFY, "eni-1")]
    assert applied.out_of_time
    assert applied.unfinished == {"i-1"}


# Later


def test_what_is_not_visible_yet_waits_for_the_others() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", NOT_YET, NOT_YET)
    applied = stage.apply(Plan(create=(creation(1), creation(2), creation(3))))
    assert [interface for _, interface in stage.aws.calls] == ["eni-1", "eni-2", "eni-3", "eni-1", "eni-1"]
    assert stage.time.slept == pytest.approx([1.0, 2.0])
    assert len(applied.changes) == 3
    assert not applied.failed


def test_a_creation_is_tried_again_under_the_same_token() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "Unreachable")
    stage.apply(Plan(create=(creation(1),)))
    first, second = stage.aws.tokens
    assert first == second


def test_tries_have_an_end_and_then_the_instance_is_looked_at_later() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", *[NOT_YET] * 10)
    applied = stage.apply(Plan(create=(creation(1), creation(2))))
    assert stage.aws.calls.count((CREATE, "eni-1")) == 1 + RETRIES
    assert sum(stage.time.slept) == pytest.approx(15.0)
    [failure] = applied.failed
    assert (failure.action, failure.interface, failure.instance, failure.code, failure.answer) == (
        Action.CREATE,
        "eni-1",
        "i-1",
        NOT_YET,
        Answer.RETRY,
    )
    assert applied.unfinished == {"i-1"}
    assert [change.instance for change in applied.changes] == ["i-2"]


def test_a_wait_that_time_does_not_allow_is_not_begun() -> None:
    stage = Stage(seconds=MARGIN + 2)
    stage.aws.refuse(CREATE, "eni-1", *[NOT_YET] * 10)
    applied = stage.apply(Plan(create=(creation(1),)))
    assert stage.time.slept == pytest.approx([1.0])
    assert applied.out_of_time
    assert applied.unfinished == {"i-1"}
    assert not applied.failed


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "ThrottlingException", "Client.RequestThrottled"])
def test_a_throttled_write_slows_all_that_follow(code: str) -> None:
    stage, quick = Stage(rate=4.0), Stage(rate=4.0)
    stage.aws.refuse(DELETE, "eni-1", code)
    plan = Plan(delete=tuple(deletion(number) for number in range(1, 5)))
    quick.apply(plan)
    applied = stage.apply(plan)
    assert len(applied.changes) == 4
    assert not quick.time.slept
    assert sum(stage.time.slept) >= 1.5  # half of four a second, and no burst


# Pace and time


def test_writes_keep_to_their_rate_after_a_burst() -> None:
    stage = Stage(rate=2.0)
    stage.apply(Plan(create=tuple(creation(number) for number in range(50))))
    assert sum(stage.time.slept) == pytest.approx((50 - 10) / 2.0, abs=1.0)


def test_what_time_does_not_allow_is_unfinished_in_all_phases() -> None:
    stage = Stage(seconds=MARGIN + 5)
    stage.aws.takes = 4.0
    plan = Plan((creation(4), creation(5)), (modification(3, number=2),), (deletion(1), deletion(2)))
    applied = stage.apply(plan)
    assert stage.aws.calls == [(DELETE, "eni-1"), (DELETE, "eni-2")]
    assert applied.out_of_time
    assert applied.unfinished == {"i-3", "i-4", "i-5"}
    assert not applied.stopped


# The switch


def test_nothing_is_written_once_the_switch_is_off_and_nothing_is_left_to_do() -> None:
    stage = Stage()
    stage.aws.takes = 1.0
    stage.paused = lambda: len(stage.aws.calls) >= 2
    applied = stage.apply(Plan(create=(creation(2), creation(3)), delete=(deletion(0), deletion(1))))
    assert stage.aws.calls == [(DELETE, "eni-0"), (DELETE, "eni-1")]
    assert applied.paused
    assert not applied.unfinished
    assert not applied.stopped


def test_a_switch_that_cannot_be_read_ends_the_run() -> None:
    def unreadable() -> bool:
        raise Refused("GetParameter", "AccessDeniedException", "no")

    stage = Stage()
    stage.aws.takes = 1.0
    stage.paused = unreadable
    applied = stage.apply(Plan(create=(creation(1), creation(2))))
    assert "state could not be read" in applied.stopped
    assert applied.unfinished == {"i-2"}
    assert len(stage.aws.calls) == 1


# Look again


def test_a_clash_that_another_run_caused_is_found_on_a_second_look() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", UNKNOWN)
    applied = stage.apply(Plan(create=(creation(1),)))
    assert stage.replanned == [("i-1", "eni-1")]
    assert stage.time.slept == pytest.approx([SECOND_LOOK])
    assert not applied.changes
    assert not applied.failed
    assert not applied.unfinished


def test_a_number_that_was_taken_meanwhile_is_replaced_by_the_next() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", UNKNOWN)
    again = Create(session(1, number=2), "m5.large", (), "tagged")
    stage.anew = lambda: Plan(create=(creation(9), again))
    applied = stage.apply(Plan(create=(creation(1),)))
    [change] = applied.changes
    assert (change.session.interface, change.session.number) == ("eni-1", 2)


def test_a_session_that_somebody_deleted_is_made_anew() -> None:
    stage = Stage()
    stage.aws.refuse(MODIFY, "eni-1", "InvalidTrafficMirrorSessionId.NotFound")
    stage.anew = lambda: Plan(create=(creation(1),))
    applied = stage.apply(Plan(modify=(modification(1, number=7, tags={"a": "b"}),)))
    assert [change.action for change in applied.changes] == [Action.CREATE]


def test_settings_are_modified_again_after_a_second_look() -> None:
    stage = Stage()
    stage.aws.refuse("CreateTags", "eni-1", "InvalidID")
    stage.anew = lambda: Plan(modify=(modification(1, number=7, tags={"a": "b"}),))
    applied = stage.apply(Plan(modify=(modification(1, number=7, tags={"a": "b"}),)))
    assert [operation for operation, _ in stage.aws.calls] == [MODIFY, "CreateTags", MODIFY, "CreateTags"]
    assert len(applied.changes) == 1


def test_what_is_refused_on_the_second_look_too_is_left_alone_for_some_minutes() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", UNKNOWN, UNKNOWN)
    stage.anew = lambda: Plan(create=(creation(1),))
    applied = stage.apply(Plan(create=(creation(1),)))
    [failure] = applied.failed
    assert failure.answer == Answer.QUARANTINE
    assert not applied.unfinished
    assert UNKNOWN in stage.refusals.why("eni-1")
    stage.time.now += UNEXPLAINED
    assert not stage.refusals.why("eni-1")


def test_a_second_look_that_fails_is_left_to_the_next_run() -> None:
    def unreadable() -> Plan:
        raise Refused("DescribeInstances", "InternalError", "no")

    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", UNKNOWN)
    stage.anew = unreadable
    applied = stage.apply(Plan(create=(creation(1),)))
    assert [failure.code for failure in applied.failed] == ["InternalError"]
    assert applied.unfinished == {"i-1"}


# Next target


def test_the_next_target_takes_what_the_first_has_no_room_for() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", FULL, FULL)
    applied = stage.apply(Plan(create=(creation(1, ("tmt-2", "tmt-3")),)))
    assert stage.aws.targets == ["tmt-1", "tmt-2", "tmt-3"]
    [change] = applied.changes
    assert change.session.tags[CONFIG_TAG] == config_hash(replace(change.session, vni=None))
    assert len(set(stage.aws.tokens)) == 3
    assert not applied.failed


def test_a_modification_goes_to_the_next_target_too() -> None:
    stage = Stage()
    stage.aws.refuse(MODIFY, "eni-1", FULL)
    applied = stage.apply(Plan(modify=(modification(1, ("tmt-3",), target="tmt-2"),)))
    [change] = applied.changes
    assert change.session.target == "tmt-3"
    assert change.changes == ("target",)


@pytest.mark.parametrize("asked", [None, 77])
def test_the_hash_says_of_a_vni_what_was_asked_for(asked: int | None) -> None:
    stage = Stage()
    stage.aws.refuse(MODIFY, "eni-1", FULL)
    before = session(1, vni=77)
    after = replace(before, target="tmt-2")
    after = replace(after, tags={CONFIG_TAG: config_hash(replace(after, vni=asked))})
    [change] = stage.apply(Plan(modify=(Modify(before, after, ("target",), ("tmt-3",), "target gone"),))).changes
    assert change.session.vni == 77
    assert change.session.tags[CONFIG_TAG] == config_hash(replace(change.session, vni=asked))


def test_a_modification_of_something_else_may_turn_to_another_target() -> None:
    stage = Stage()
    stage.aws.refuse(MODIFY, "eni-1", FULL)
    [change] = stage.apply(Plan(modify=(modification(1, ("tmt-3",), number=7),))).changes
    assert change.changes == ("target", "number")


def test_where_no_target_is_left_the_remedy_is_told() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", FULL, FULL)
    applied = stage.apply(Plan(create=(creation(1, ("tmt-2",)),)))
    [finding] = applied.findings
    assert finding.trouble is Trouble.TARGET_FULL
    assert (finding.instance, finding.interface) == ("i-1", "eni-1")
    assert [failure.answer for failure in applied.failed] == [Answer.NEXT_TARGET]
    assert not applied.unfinished


# Quarantine


def test_an_interface_that_was_detached_since_the_look_bars_no_type() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "NetworkInterfaceNotSupported")
    applied = stage.apply(Plan(create=tuple(creation(number) for number in (1, 2, 3))))
    assert [change.instance for change in applied.changes] == ["i-2", "i-3"]
    assert stage.refusals.all().keys() == {"eni-1"}
    stage.time.now += UNEXPLAINED
    assert stage.refusals.all() == {}


def test_two_interfaces_of_a_listed_type_that_are_refused_in_turn_bar_it() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "NetworkInterfaceNotSupported")
    stage.aws.refuse(CREATE, "eni-2", "NetworkInterfaceNotSupported")
    applied = stage.apply(Plan(create=tuple(creation(number) for number in (1, 2, 3))))
    assert stage.refusals.all().keys() == {"eni-1", "eni-2", "m5.large"}
    assert [finding.interface for finding in applied.findings] == ["eni-3"]
    stage.time.now += UNEXPLAINED
    assert stage.refusals.all().keys() == {"m5.large"}


def test_a_session_in_between_shows_that_the_type_is_not_to_blame() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "NetworkInterfaceNotSupported")
    stage.aws.refuse(CREATE, "eni-3", "NetworkInterfaceNotSupported")
    applied = stage.apply(Plan(create=tuple(creation(number) for number in (1, 2, 3, 4))))
    assert [change.instance for change in applied.changes] == ["i-2", "i-4"]


def test_an_unsupported_type_costs_one_refused_call() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "NetworkInterfaceNotSupported")
    plan = Plan(create=(creation(1, type_="t2.micro"), creation(2, type_="t2.micro"), creation(3)))
    applied = stage.apply(plan)
    assert stage.aws.calls == [(CREATE, "eni-1"), (CREATE, "eni-3")]
    assert stage.refusals.all().keys() == {"eni-1", "t2.micro"}
    [finding] = applied.findings
    assert (finding.trouble, finding.interface) == (Trouble.QUARANTINED, "eni-2")
    assert not applied.unfinished
    stage.time.now += UNSUPPORTED
    assert stage.refusals.all() == {}


def test_an_interface_that_is_itself_a_target_is_left_alone() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "TrafficMirrorTargetInUseException")
    stage.apply(Plan(create=(creation(1), creation(2))))
    assert stage.refusals.all().keys() == {"eni-1"}


def test_a_target_that_takes_nothing_is_passed_over_by_all() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "InvalidTrafficMirrorTarget")
    applied = stage.apply(Plan(create=(creation(1, ("tmt-2",)), creation(2, ("tmt-2",)), creation(3))))
    assert stage.aws.targets == ["tmt-1", "tmt-2", "tmt-2"]
    assert stage.refusals.all().keys() == {"tmt-1"}
    assert [finding.interface for finding in applied.findings] == ["eni-3"]


def test_a_target_in_quarantine_is_no_alternative() -> None:
    stage = Stage()
    stage.refusals.add("tmt-2", "no")
    stage.aws.refuse(CREATE, "eni-1", FULL)
    stage.apply(Plan(create=(creation(1, ("tmt-2", "tmt-3")),)))
    assert stage.aws.targets == ["tmt-1", "tmt-3"]


def test_a_target_that_takes_nothing_and_no_other_is_told() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "InvalidTrafficMirrorTargetId.NotFound")
    applied = stage.apply(Plan(create=(creation(1),)))
    assert [finding.trouble for finding in applied.findings] == [Trouble.QUARANTINED]
    assert [failure.answer for failure in applied.failed] == [Answer.QUARANTINE]


def test_a_modification_does_not_move_to_a_target_in_quarantine() -> None:
    stage = Stage()
    stage.refusals.add("tmt-2", "no")
    applied = stage.apply(Plan(modify=(modification(1, target="tmt-2"), modification(2, ("tmt-3",), target="tmt-2"))))
    assert stage.aws.calls == [(MODIFY, "eni-2"), ("CreateTags", "eni-2")]
    assert applied.changes[0].session.target == "tmt-3"
    assert [finding.interface for finding in applied.findings] == ["eni-1"]


def test_what_exists_is_repaired_whatever_its_type() -> None:
    stage = Stage()
    stage.refusals.add("m5.large", "no")
    stage.refusals.add("tmt-1", "no")
    stage.apply(Plan(modify=(modification(1, number=7),), delete=(deletion(2),)))
    assert stage.aws.calls == [(DELETE, "eni-2"), (MODIFY, "eni-1")]


def test_tags_that_a_session_cannot_bear_are_not_tried_on_and_on() -> None:
    stage = Stage()
    stage.aws.refuse("CreateTags", "eni-1", "TagPolicyViolation")
    applied = stage.apply(Plan(modify=(modification(1, tags={"a": "b"}),)))
    assert [failure.answer for failure in applied.failed] == [Answer.QUARANTINE]
    assert stage.refusals.all().keys() == {"eni-1"}


def test_a_filter_that_is_gone_is_not_the_interfaces_fault() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "InvalidTrafficMirrorFilterId.NotFound")
    applied = stage.apply(Plan(create=(creation(1),)))
    assert stage.refusals.all() == {}
    assert [finding.trouble for finding in applied.findings] == [Trouble.FILTER_MISSING]
    assert applied.unfinished == {"i-1"}


# Stop, and success


def test_a_stop_leaves_the_rest_for_later_with_an_alarm() -> None:
    stage = Stage()
    stage.aws.refuse(MODIFY, "eni-2", "AuthFailure")
    plan = Plan((creation(4),), (modification(2, number=7), modification(3, number=7)), (deletion(1),))
    applied = stage.apply(plan)
    assert stage.aws.calls == [(DELETE, "eni-1"), (MODIFY, "eni-2")]
    assert "AuthFailure" in applied.stopped
    assert applied.unfinished == {"i-2", "i-3", "i-4"}
    assert [failure.answer for failure in applied.failed] == [Answer.STOP]


def test_one_session_that_we_may_not_touch_may_be_gone_and_does_not_stop_the_rest() -> None:
    stage = Stage()
    stage.aws.refuse(DELETE, "eni-1", "UnauthorizedOperation")
    applied = stage.apply(Plan((creation(4),), (modification(3, number=7),), (deletion(1), deletion(2))))
    assert [change.instance for change in applied.changes] == ["i-2", "i-3", "i-4"]
    assert not applied.stopped
    assert applied.unfinished == {"i-1"}
    assert [failure.code for failure in applied.failed] == ["UnauthorizedOperation"]


def test_a_second_one_stops_the_run() -> None:
    stage = Stage()
    stage.aws.refuse(DELETE, "eni-1", "UnauthorizedOperation")
    stage.aws.refuse(MODIFY, "eni-2", "UnauthorizedOperation")
    applied = stage.apply(Plan((creation(4),), (modification(2, number=7),), (deletion(1),)))
    assert not applied.changes
    assert "UnauthorizedOperation" in applied.stopped
    assert applied.unfinished == {"i-1", "i-2", "i-4"}


def test_a_create_that_we_may_not_make_stops_the_run_at_once() -> None:
    stage = Stage()
    stage.aws.refuse(CREATE, "eni-1", "UnauthorizedOperation")
    applied = stage.apply(Plan(create=(creation(1), creation(2))))
    assert not applied.changes
    assert "UnauthorizedOperation" in applied.stopped


def test_a_session_that_is_gone_already_needs_no_delete() -> None:
    stage = Stage()
    stage.aws.refuse(DELETE, "eni-1", "InvalidTrafficMirrorSessionId.NotFound")
    applied = stage.apply(Plan(delete=(deletion(1), deletion(2))))
    assert [change.instance for change in applied.changes] == ["i-2"]
    assert not applied.failed
    assert not applied.unfinished


def test_a_delete_that_is_refused_for_an_unknown_reason_is_left_to_the_next_run() -> None:
    stage = Stage()
    stage.aws.refuse(DELETE, "eni-1", UNKNOWN)
    applied = stage.apply(Plan(delete=(deletion(1),)))
    assert applied.unfinished == {"i-1"}
    assert stage.replanned == []


# Tokens


@pytest.mark.parametrize(
    "other",
    [
        {"interface": "eni-9"},
        {"target": "tmt-9"},
        {"filter": "tmf-9"},
        {"number": 9},
        {"vni": 9},
        {"packet_length": 900},
        {"description": "i-9"},
        {"tags": {CREATED_TAG: "2026-11-23T08:00:01Z"}},
        {"tags": {CREATED_TAG: "2026-11-23T08:00:00Z", CONFIG_TAG: "?", "mirror:source": "other"}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_token_stands_for_one_creation_in_all_that_is_asked(other: dict[str, Any]) -> None:
    """Else EC2 answers IdempotentParameterMismatch, where two containers have different policies in one second."""
    token = client_token(session(1), "stack", "1")
    assert len(token) == 64
    assert token.isascii()
    assert token == client_token(session(1), "stack", "1")
    assert token != client_token(session(1, **other), "stack", "1")


def test_a_token_is_one_owners_and_one_runs() -> None:
    """Made, deleted and made again within a second, a session must not get the answer of the first."""
    tokens = {client_token(session(1), owner, run) for owner in ("stack", "other") for run in ("1", "2")}
    assert len(tokens) == 4


# Property


codes = st.sampled_from(
    [NOT_YET, FULL, UNKNOWN, "InternalError", "NetworkInterfaceNotSupported", "UnauthorizedOperation", "InvalidID"]
)


@given(
    st.dictionaries(st.integers(1, 6), st.lists(codes, max_size=7)),
    st.floats(MARGIN - 1, 60),
    st.floats(0, 2),
)
def test_every_change_is_made_failed_found_done_by_others_or_unfinished(
    refusals: dict[int, list[str]], seconds: float, takes: float
) -> None:
    stage = Stage(seconds=seconds, rate=2.0)
    stage.aws.takes = takes
    deletions = [deletion(1), deletion(2)]
    modifications = [modification(3, number=7), modification(4, target="tmt-2")]
    creations = [creation(5, ("tmt-2",)), creation(6, type_="t2.micro")]
    for number, given_codes in refusals.items():
        operation = DELETE if number < 3 else MODIFY if number < 5 else CREATE
        stage.aws.refuse(operation, f"eni-{number}", *given_codes)
    applied = stage.apply(Plan(tuple(creations), tuple(modifications), tuple(deletions)))
    settled = {change.instance for change in applied.changes} | {failure.instance for failure in applied.failed}
    settled |= {finding.instance for finding in applied.findings} | {instance for instance, _ in stage.replanned}
    # A delete of what is gone is done, though not by us.
    by_others = {f"i-{number}" for number in (1, 2) if {NOT_YET, "InvalidID"} & set(refusals.get(number, []))}
    assert {f"i-{number}" for number in range(1, 7)} <= settled | applied.unfinished | by_others
    assert not {change.instance for change in applied.changes} & applied.unfinished
    assert (stage.time.now - stage.start).total_seconds() <= max(seconds - MARGIN, 0) + 2 * takes
