from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.autotag import Autotagger, TagChange, TagReport, unfinished
from mirroring.environment import Environment
from mirroring.model import AUTOTAGGED_TAG, OPT_OUT_TAG, UNTIL_TAG, Instance, Refused, Scope, Tags, stamp
from mirroring.policy import AutotagRule, Finding, Limits, Match, Policy
from mirroring.store import InForce, NoPolicy
from mirroring.tagging import FindingEvent

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
EVERYTHING = Scope(everything=True)
RULES = (
    AutotagRule(name="prod", match=Match(names=("*",)), tags={"env": "prod"}),
    AutotagRule(name="suspect", tags={"suspect": "yes"}, finding=Finding(keep=timedelta(hours=1))),
)
PORTSCAN = FindingEvent("i-1", 8.0, "Recon:EC2/Portscan")


class Time:
    """A clock that only sleeping and calls to AWS move."""

    def __init__(self) -> None:
        self.now = NOW
        self.end = NOW + timedelta(minutes=10)

    def __call__(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def remaining(self) -> float:
        return (self.end - self.now).total_seconds()


@dataclass
class Cloud:
    time: Time
    fleet: dict[str, Instance]
    calls: int = 0
    seconds: float = 0.05  # that a write takes
    refusals: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # operation, instance: codes to come
    meanwhile: dict[str, Instance] = field(default_factory=dict)  # what somebody makes of them after the look
    written: list[tuple[str, str]] = field(default_factory=list)
    at: list[datetime] = field(default_factory=list)

    def unmarked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        self._call("DescribeInstances", "")
        found = {name: one for name, one in self.fleet.items() if ids is None or name in ids}
        self.fleet |= self.meanwhile
        return found

    def put_tags(self, instance: str, tags: Tags) -> None:
        self._write("CreateTags", instance)
        self.fleet[instance] = replace(self.fleet[instance], tags={**self.fleet[instance].tags, **tags})

    def remove_tags(self, instance: str, tags: Tags) -> None:
        self._write("DeleteTags", instance)
        kept = {key: value for key, value in self.fleet[instance].tags.items() if tags.get(key) != value}
        self.fleet[instance] = replace(self.fleet[instance], tags=kept)

    def _write(self, operation: str, instance: str) -> None:
        self.at.append(self.time())
        self.time.sleep(self.seconds)
        self._call(operation, instance)
        self.written.append((operation, instance))

    def _call(self, operation: str, instance: str) -> None:
        self.calls += 1
        if codes := self.refusals.get((operation, instance)):
            raise Refused(operation, codes.pop(0), "no")


@dataclass
class Policies:
    policy: Policy
    is_paused: bool = False
    trouble: Exception | None = None
    looks: int = 0
    pause_at: int = 1_000_000  # the look at which the stack is found paused

    def read(self) -> InForce:
        if self.trouble:
            raise self.trouble
        return InForce(self.policy, "", "/stack/policy", 3, self.is_paused or self.policy.paused)

    def paused(self) -> bool:
        self.looks += 1
        return self.looks >= self.pause_at


class Stage:
    """An autotagger with all that it needs, and what came of it."""

    def __init__(self, *fleet: Instance, rules: tuple[AutotagRule, ...] = RULES, rate: float = 2.0) -> None:
        self.time = Time()
        self.cloud = Cloud(self.time, {one.id: one for one in fleet})
        self.store = Policies(Policy(autotag=rules, limits=Limits(writes_per_second=rate)))
        environment = Environment(autotag_keys=frozenset({"env", "suspect"}))
        self.autotagger = Autotagger(self.cloud, self.store, environment, self.time, self.time.sleep)
        self.logged: list[TagChange] = []

    def run(self, scope: Scope = EVERYTHING, *findings: FindingEvent) -> TagReport:
        return self.autotagger.run(scope, findings, self.time.remaining, on_change=self.logged.append)

    def refuse(self, operation: str, instance: str, *codes: str) -> None:
        self.cloud.refusals[operation, instance] = list(codes)

    def tags(self, instance: str = "i-1") -> Tags:
        return self.cloud.fleet[instance].tags


def named(number: int = 1, **tags: str) -> Instance:
    return Instance(f"i-{number}", "running", "m5.large", tags={"Name": "web", **tags})


def of(*names: str, fresh: frozenset[str] = frozenset()) -> Scope:
    return Scope(instances=frozenset(names), fresh=fresh)


def test_a_launched_instance_gets_its_tags() -> None:
    stage = Stage(named(1), named(2))
    report = stage.run(of("i-1"))
    assert stage.tags() == {"Name": "web", "env": "prod", AUTOTAGGED_TAG: "env"}
    assert stage.tags("i-2") == {"Name": "web"}  # not asked for
    assert (report.unfinished, report.failed, report.policy, report.calls) == (frozenset(), (), "/stack/policy:3", 2)


def test_a_sweep_tags_all_and_a_second_one_writes_nothing() -> None:
    stage = Stage(named(1), named(2))
    assert len(stage.run().changes) == 2
    assert stage.run().changes == ()
    assert stage.cloud.written == [("CreateTags", "i-1"), ("CreateTags", "i-2")]


def test_before_and_after_are_logged() -> None:
    stage = Stage(named(1, env="old", **{AUTOTAGGED_TAG: "env"}))
    report = stage.run()
    assert stage.logged == [TagChange("i-1", {"env": "old"}, {"env": "prod"}, "prod", "asked for by prod")]
    assert report.changes == tuple(stage.logged)


def test_a_finding_puts_on_its_tag_and_the_sweep_takes_it_off() -> None:
    stage = Stage(named(1))
    stage.run(Scope(), PORTSCAN)
    assert stage.tags()["suspect"] == "yes" and stage.tags()[UNTIL_TAG] == stamp(NOW + timedelta(hours=1))
    stage.time.now, stage.time.end = NOW + timedelta(hours=2), NOW + timedelta(hours=3)
    stage.run()
    assert stage.tags() == {"Name": "web", "env": "prod", AUTOTAGGED_TAG: "env"}
    taken = next(change for change in stage.logged if not change.after)
    assert taken.before == {"suspect": "yes", UNTIL_TAG: stamp(NOW + timedelta(hours=1))}


def test_a_finding_about_an_instance_that_is_not_here_is_nothing() -> None:
    """A member account's, or one of GuardDuty's samples."""
    report = Stage().run(of("i-99999999"), replace(PORTSCAN, instance="i-99999999"))
    assert (report.changes, report.unfinished, report.failed) == ((), frozenset(), ())


def test_an_announced_instance_that_does_not_show_yet_is_looked_at_later() -> None:
    report = Stage(named(1)).run(of("i-1", "i-2", fresh=frozenset({"i-1", "i-2"})))
    assert report.unfinished == {"i-2"}
    assert unfinished(report, of("i-2")) and not unfinished(report, of("i-1"))


def test_a_plan_changes_nothing() -> None:
    stage = Stage(named(1))
    report = stage.run(replace(EVERYTHING, plan_only=True))
    assert len(report.plan.put) == 1 and stage.cloud.written == []


def test_paused_changes_nothing() -> None:
    stage = Stage(named(1))
    stage.store.is_paused = True
    report = stage.run()
    assert report.paused and len(report.plan.put) == 1 and stage.cloud.written == []
    assert not unfinished(report, EVERYTHING)


def test_a_stack_that_is_paused_meanwhile_is_written_to_no_further() -> None:
    stage = Stage(*(named(number) for number in range(10)), rate=1.0)
    stage.cloud.seconds = 0.6
    stage.store.pause_at = 2
    report = stage.run()
    assert report.paused and 2 <= len(stage.cloud.written) <= 4
    assert report.unfinished == frozenset()


def test_the_state_is_looked_at_again_before_a_write_when_the_look_is_a_second_old() -> None:
    stage = Stage(*(named(number) for number in range(10, 30)), rate=1.0)
    stage.run()
    # Five at once, as the budget allows, and one a second from then on.
    assert len(stage.cloud.written) == 20
    assert 14 <= stage.store.looks <= 16


def test_writes_keep_to_the_rate() -> None:
    stage = Stage(*(named(number) for number in range(100, 160)), rate=2.0)
    stage.cloud.seconds = 0
    stage.run()
    elapsed = (stage.cloud.at[-1] - stage.cloud.at[0]).total_seconds()
    assert elapsed == pytest.approx(25, abs=1)  # ten at once, and then two a second


def test_throttled_waits_slows_down_and_gets_there() -> None:
    stage = Stage(named(1), named(2))
    stage.refuse("CreateTags", "i-1", "RequestLimitExceeded", "RequestLimitExceeded")
    report = stage.run()
    assert report.failed == () and report.unfinished == frozenset()
    assert stage.cloud.written == [("CreateTags", "i-2"), ("CreateTags", "i-1")]  # the other did not wait
    assert stage.time.now - NOW > timedelta(seconds=3)


def test_throttled_it_writes_half_as_fast_for_a_minute() -> None:
    stage = Stage(*(named(number) for number in range(100, 140)), rate=2.0)
    stage.cloud.seconds = 0
    stage.refuse("CreateTags", "i-100", "RequestLimitExceeded")
    stage.run()
    assert (stage.cloud.at[-1] - stage.cloud.at[0]).total_seconds() == pytest.approx(40, abs=2)


def test_not_visible_yet_is_tried_again_and_then_left_for_later() -> None:
    stage = Stage(named(1), named(2))
    stage.refuse("CreateTags", "i-1", *["InvalidInstanceID.NotFound"] * 9)
    report = stage.run()
    assert report.unfinished == {"i-1"}
    assert [(one.instance, one.code, one.answer) for one in report.failed] == [
        ("i-1", "InvalidInstanceID.NotFound", "retry")
    ]
    assert len(stage.cloud.refusals["CreateTags", "i-1"]) == 5  # four tries
    assert stage.cloud.written == [("CreateTags", "i-2")]
    tries = [stage.cloud.at[0], *stage.cloud.at[2:]]
    waits = [(later - sooner).total_seconds() for sooner, later in pairwise(tries)]
    assert waits == pytest.approx([1, 2, 4], abs=0.2)


@pytest.mark.parametrize("code", ["TagLimitExceeded", "TagPolicyViolation", "SomethingNew"])
def test_what_repeating_cannot_mend_is_reported_and_ends_at_its_instance(code: str) -> None:
    stage = Stage(named(1), named(2))
    stage.refuse("CreateTags", "i-1", code)
    report = stage.run()
    assert [(one.instance, one.code) for one in report.failed] == [("i-1", code)]
    assert report.unfinished == frozenset() and report.stopped == ""
    assert stage.cloud.written == [("CreateTags", "i-2")]


def test_one_instance_that_may_not_be_tagged_holds_up_nobody() -> None:
    stage = Stage(named(1), named(2))
    stage.refuse("CreateTags", "i-1", "UnauthorizedOperation")
    report = stage.run()
    assert report.stopped == "" and report.unfinished == {"i-1"}
    assert stage.cloud.written == [("CreateTags", "i-2")]


def test_three_in_a_row_that_may_not_be_tagged_end_the_run() -> None:
    stage = Stage(*(named(number) for number in range(1, 6)))
    for number in range(1, 6):
        stage.refuse("CreateTags", f"i-{number}", "UnauthorizedOperation")
    report = stage.run()
    assert report.stopped == "CreateTags: UnauthorizedOperation: no."
    assert report.unfinished == {f"i-{number}" for number in range(1, 6)}
    assert [one.instance for one in report.failed] == ["i-1", "i-2", "i-3"]


def test_three_refusals_of_one_rules_tags_end_that_rule_and_no_other() -> None:
    """A tag policy of the organisation refuses them for every instance alike."""
    rules = tuple(
        AutotagRule(name=name, match=Match(names=(name,)), tags={key: "prod"})
        for name, key in (("web", "env"), ("api", "suspect"))
    )
    stage = Stage(*(named(number) for number in range(1, 6)), replace(named(6), tags={"Name": "api"}), rules=rules)
    for number in range(1, 6):
        stage.refuse("CreateTags", f"i-{number}", "TagPolicyViolation")
    report = stage.run()
    assert stage.cloud.calls == 5  # the look, three, and the other rule's
    assert stage.cloud.written == [("CreateTags", "i-6")]
    assert [(one.instance, one.code) for one in report.failed] == [
        (f"i-{number}", "TagPolicyViolation") for number in range(1, 6)
    ]
    assert (report.stopped, report.unfinished) == ("", frozenset())


def test_refusals_of_a_rules_tags_that_are_not_in_a_row_are_those_of_the_instance() -> None:
    stage = Stage(*(named(number) for number in range(1, 8)))
    for number in (1, 2, 4, 5):
        stage.refuse("CreateTags", f"i-{number}", "TagLimitExceeded")
    assert len(stage.run().failed) == 4
    assert [name for _, name in stage.cloud.written] == ["i-3", "i-6", "i-7"]


def test_three_that_are_not_in_a_row_do_not() -> None:
    stage = Stage(*(named(number) for number in range(1, 6)))
    for number in (1, 2, 4):
        stage.refuse("CreateTags", f"i-{number}", "UnauthorizedOperation")
    report = stage.run()
    assert report.stopped == "" and report.unfinished == {"i-1", "i-2", "i-4"}


def test_a_removal_that_is_refused_keeps_the_list_of_our_keys() -> None:
    """Else the keys that were not removed would be nobody's, and stay for ever."""
    tags = {"suspect": "yes", UNTIL_TAG: stamp(NOW), AUTOTAGGED_TAG: f"{UNTIL_TAG} suspect"}
    stage = Stage(named(1, **tags))
    stage.refuse("DeleteTags", "i-1", *["UnauthorizedOperation"] * 4)
    stage.run()
    assert stage.tags() == {"Name": "web", **tags}


def test_a_tag_that_was_changed_since_the_look_is_not_taken_off() -> None:
    """A second finding, say: its moment is not ours to remove."""
    old, new = {UNTIL_TAG: stamp(NOW)}, {UNTIL_TAG: stamp(NOW + timedelta(hours=1))}
    stage = Stage(named(1, **old), rules=())
    stage.cloud.meanwhile["i-1"] = named(1, **new)
    stage.run()
    assert stage.cloud.written == [("DeleteTags", "i-1")]
    assert stage.tags() == {"Name": "web", **new}


def test_a_removal_from_what_is_gone_is_done() -> None:
    stage = Stage(named(1, **{UNTIL_TAG: stamp(NOW)}), rules=())
    stage.refuse("DeleteTags", "i-1", "InvalidInstanceID.NotFound")
    report = stage.run()
    assert (report.failed, report.unfinished) == ((), frozenset())


def test_a_removal_that_worked_is_not_repeated_when_the_rest_is() -> None:
    stage = Stage(named(1, **{UNTIL_TAG: stamp(NOW)}))
    stage.refuse("CreateTags", "i-1", "InternalError")
    stage.run()
    assert stage.cloud.written == [("DeleteTags", "i-1"), ("CreateTags", "i-1")]
    assert len(stage.logged) == 2


def test_when_time_is_short_the_rest_is_unfinished() -> None:
    stage = Stage(*(named(number) for number in range(100, 200)), rate=1.0)
    stage.time.end = NOW + timedelta(seconds=30)
    report = stage.run()
    assert report.out_of_time and unfinished(report, EVERYTHING)
    assert len(report.unfinished) + len(report.changes) == 100
    assert stage.time.remaining() > 10


def test_without_time_nothing_is_read() -> None:
    stage = Stage(named(1))
    stage.time.end = NOW + timedelta(seconds=5)
    report = stage.run(of("i-1"))
    assert (report.everything, report.out_of_time, stage.cloud.calls) == (True, True, 0)
    assert unfinished(report, of("i-1"))


def test_what_cannot_be_read_is_looked_at_later() -> None:
    stage = Stage(named(1))
    stage.refuse("DescribeInstances", "", "Unavailable")
    report = stage.run(of("i-1"))
    assert report.everything and report.stopped == "" and report.failed[0].code == "Unavailable"
    assert unfinished(report, of("i-1"))


def test_what_may_not_be_read_stops_the_run() -> None:
    stage = Stage(named(1))
    stage.refuse("DescribeInstances", "", "UnauthorizedOperation")
    assert stage.run().stopped == "DescribeInstances: UnauthorizedOperation: no"


def test_without_a_policy_nothing_is_done_and_the_reason_told() -> None:
    stage = Stage(named(1))
    stage.store.trouble = NoPolicy("there is no policy", ())
    report = stage.run()
    assert report.stopped == "there is no policy" and not unfinished(report, EVERYTHING)


def test_the_summary_is_json_and_names_what_matters() -> None:
    stage = Stage(named(1, env="theirs"), named(2, **{OPT_OUT_TAG: ""}), named(3))
    stage.refuse("CreateTags", "i-3", "TagLimitExceeded")
    assert stage.run().summary() == {
        "policy": "/stack/policy:3",
        "planned": {"put": 1, "remove": 0},
        "changed": 0,
        "failed": [
            {
                "instance": "i-3",
                "code": "TagLimitExceeded",
                "answer": "quarantine",
                "text": "CreateTags: TagLimitExceeded: no",
            }
        ],
        "passed": [{"instance": "i-1", "reason": "prod asks for env=prod, but somebody else put on env=theirs"}],
        "unfinished": [],
        "plan_only": False,
        "paused": False,
        "stopped": "",
        "calls": 2,
    }


HINTS = st.lists(
    st.one_of(
        st.just((EVERYTHING, ())),
        st.sets(st.sampled_from(["i-1", "i-2", "i-3"]), min_size=1).map(lambda names: (of(*names), ())),
        st.sampled_from(["i-1", "i-2"]).map(lambda name: (of(name), (replace(PORTSCAN, instance=name),))),
    ),
    max_size=6,
)


@given(HINTS, st.data())
def test_any_order_duplication_and_loss_of_events_then_one_sweep(
    hints: list[tuple[Scope, tuple[FindingEvent, ...]]], data: st.DataObject
) -> None:
    fleet = [named(1), named(2, env="theirs"), named(3, **{OPT_OUT_TAG: "x"})]
    found = {finding.instance for _, findings in hints for finding in findings}
    stage, other = Stage(*fleet), Stage(*fleet)
    for scope, findings in [*hints, (EVERYTHING, ())]:
        stage.run(scope, *findings)
    for scope, findings in [*data.draw(st.permutations(hints * 2)), (EVERYTHING, ())]:
        other.run(scope, *findings)
    for name in ("i-1", "i-2", "i-3"):
        mine, theirs = dict(stage.tags(name)), dict(other.tags(name))
        # The moment of a finding is the moment that it is heard of.
        assert (mine.pop(UNTIL_TAG, "") != "") == (theirs.pop(UNTIL_TAG, "") != "") == (name in found)
        assert mine == theirs
    assert stage.run().changes == ()
