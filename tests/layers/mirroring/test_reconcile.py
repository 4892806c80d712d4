"""One run after another against an account in memory: what is read, decided, held back, done and reported."""

import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.environment import Environment
from mirroring.memory import ANSWERS, UNSUPPORTED
from mirroring.model import CONFIG_TAG, OWNER_TAG, Health, Instance, Refused, Scope, Session, Tags, Trouble
from mirroring.pace import MARGIN
from mirroring.plan import GRACE
from mirroring.policy import PolicyError, load
from mirroring.reconcile import Reconciler
from mirroring.report import Change, Report, count
from mirroring.store import InForce, NoPolicy, Refusal
from tests.layers.mirroring.fake_cloud import FakeCloud, FakePolicies, FakeTime

OWNER = "traffic-replay"
WEB = {"mirror": "yes"}
EVERYTHING = Scope(everything=True)


def policy(target: str, rules: str, **more: Any) -> str:
    source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}, "target": target, "filter": rules}
    top = {key: more.pop(key) for key in ("limits", "paused", "delete_on_stop", "autotag") if key in more}
    return json.dumps({"version": 1, "sources": [source | more], **top})


@dataclass
class Story:
    """An account, a policy for what is tagged `mirror: yes`, and one container's reconciler."""

    cloud: FakeCloud = field(default_factory=FakeCloud)
    environment: Environment = field(default_factory=lambda: Environment(owner=OWNER))

    def __post_init__(self) -> None:
        self.target, self.rules = self.cloud.nlb_target(), self.cloud.filter()
        self.policies = FakePolicies(policy(self.target, self.rules))
        self.time = FakeTime()
        self.reconciler = self.container()

    def container(self) -> Reconciler:
        return Reconciler(self.cloud, self.policies, self.environment, self.time, self.time.sleep)

    def write(self, **more: Any) -> None:
        self.policies.write(policy(more.pop("target", self.target), more.pop("filter", self.rules), **more))

    def run(self, scope: Scope = EVERYTHING, seconds: float = 10_000.0) -> Report:
        self.time.pass_by(1)  # as no two runs of one container are in the same second
        start = self.time.seconds()
        return self.reconciler.run(scope, lambda: seconds - (self.time.seconds() - start))

    def about(self, *instances: str, fresh: bool = False) -> Report:
        named = frozenset(instances)
        return self.run(Scope(instances=named, fresh=named if fresh else frozenset()))

    @property
    def ours(self) -> list[Session]:
        found = [session for session in self.cloud.all_sessions() if session.tags.get(OWNER_TAG) == OWNER]
        return sorted(found, key=lambda session: session.description)

    @property
    def mirrored(self) -> list[str]:
        return [session.description for session in self.ours]

    def calls(self) -> Counter[str]:
        """Since the last time that somebody asked."""
        made = Counter(call.action for call in self.cloud.model.faults.calls)
        self.cloud.model.faults.calls.clear()
        return made

    def foreign(self, instance: str, number: int, tags: Tags | None = None) -> Session:
        interface = self.cloud.machines[instance].interfaces[0].id
        return self.cloud.somebody_creates(
            Session("", interface, self.target, self.rules, number, None, None, "theirs", tags or {"tool": "ids"})
        )


def done(report: Report) -> tuple[int, int, int]:
    return len(report.created), len(report.modified), len(report.deleted)


def troubles(report: Report) -> set[Trouble]:
    return {finding.trouble for finding in report.findings}


@pytest.fixture
def story() -> Story:
    return Story()


# What is done


def test_a_sweep_mirrors_what_the_policy_selects_and_a_second_does_nothing(story: Story) -> None:
    web = story.cloud.launch(3, tags=WEB)
    story.cloud.launch(2)
    report = story.run()
    assert done(report) == (3, 0, 0)
    assert story.mirrored == web
    assert (report.plan.desired, report.plan.actual, report.policy) == (3, 0, "/traffic-replay/policy:1")
    second = story.run()
    assert done(second) == (0, 0, 0)
    assert (second.plan.desired, second.plan.actual, second.plan.kept) == (3, 3, 3)
    assert not second.findings
    assert not second.unfinished


def test_an_event_is_a_look_at_its_instance_alone(story: Story) -> None:
    one, _ = story.cloud.launch(2, tags=WEB)
    assert done(story.about(one)) == (1, 0, 0)
    assert story.mirrored == [one]


def test_a_session_follows_its_instance(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.about(web)
    story.cloud.untag([web], ["mirror"])
    assert done(story.about(web)) == (0, 0, 1)
    story.cloud.tag([web], WEB)
    assert done(story.about(web)) == (1, 0, 0)
    story.cloud.stop([web])
    assert done(story.about(web)) == (0, 0, 1)
    story.cloud.start([web])
    assert done(story.about(web)) == (1, 0, 0)
    story.cloud.terminate([web])
    assert done(story.about(web)) == (0, 0, 0)  # AWS deleted it with the interface
    assert story.mirrored == []


def test_a_terminated_instance_whose_interface_stays_loses_its_session(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.run()
    story.cloud.set_state([web], "terminated")
    assert done(story.about(web)) == (0, 0, 1)


def test_what_was_altered_by_hand_is_repaired(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.run()
    story.cloud.somebody_modifies(story.ours[0].id, number=9)
    report = story.about(web)
    assert done(report) == (0, 1, 0)
    assert "by hand" in report.modified[0].reason
    assert story.ours[0].number == 1


def test_what_was_deleted_by_hand_is_made_anew_under_another_token(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.run()
    story.cloud.somebody_deletes(story.ours[0].id)
    assert done(story.about(web)) == (1, 0, 0)
    assert story.mirrored == [web]


def test_a_changed_policy_changes_sessions_in_place(story: Story) -> None:
    story.cloud.launch(2, tags=WEB)
    story.run()
    ids = {session.id for session in story.ours}
    other = story.cloud.nlb_target()
    story.write(target=other, vni=77, packet_length=200)
    report = story.run(Scope(everything=True, policy_changed=True))
    assert done(report) == (0, 2, 0)
    assert {session.id for session in story.ours} == ids
    assert {(session.target, session.vni, session.packet_length) for session in story.ours} == {(other, 77, 200)}
    assert done(story.run()) == (0, 0, 0)


@pytest.mark.parametrize("length", [None, 200, 8500])
def test_a_packet_length_goes_along_to_another_kind_of_target(story: Story, length: int | None) -> None:
    """The 8500 that a load balancer shows may be its own default, and does not stay with the session."""
    story.cloud.launch(tags=WEB)
    story.run()
    other = story.cloud.eni_target()
    for target, shown in ((other, length), (story.target, length or 8500), (other, length)):
        story.write(target=target, packet_length=length)
        assert done(story.run()) == (0, 1, 0)
        assert [(session.target, session.packet_length) for session in story.ours] == [(target, shown)]
        assert done(story.run()) == (0, 0, 0)


def test_progress_is_told(story: Story) -> None:
    story.cloud.launch(2, tags=WEB)
    told: list[Change] = []
    report = story.reconciler.run(EVERYTHING, lambda: 100.0, on_change=told.append)
    assert tuple(told) == report.created


def test_nothing_asked_is_nothing_done(story: Story) -> None:
    story.cloud.launch(tags=WEB)
    story.calls()
    assert story.run(Scope()) == Report(Scope())
    assert not story.calls()


# Whose they are


def test_foreign_sessions_are_never_touched(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    theirs = story.foreign(web, 1)
    other = story.foreign(web, 7, {OWNER_TAG: "another stack"})
    story.run()
    assert story.ours[0].number == 2
    story.cloud.untag([web], ["mirror"])
    story.run()
    assert {session.id for session in story.cloud.all_sessions()} == {theirs.id, other.id}


def test_a_foreign_session_in_front_is_reported(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    theirs = story.foreign(web, 1)
    [finding] = story.run().findings
    assert (finding.trouble, finding.session) == (Trouble.SHADOWED, theirs.id)


def test_the_worker_fleet_and_targets_are_not_mirrored() -> None:
    story = Story(environment=Environment(owner=OWNER, worker_groups=frozenset({"workers"})))
    story.cloud.launch(2, tags=WEB, group="workers")
    story.cloud.eni_target()
    story.cloud.tag([name for name, machine in story.cloud.machines.items() if not machine.tags], WEB)
    assert done(story.run()) == (0, 0, 0)


def test_a_mirrored_instance_that_becomes_a_target_loses_its_session(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.about(web)
    known = story.cloud.machines[web].interfaces[0].id
    story.cloud.somebody_deletes(story.ours[0].id)
    story.cloud.model.perform("CreateTrafficMirrorTarget", {"NetworkInterfaceId": known})
    assert done(story.about(web))[2] == 0
    story.time.pass_by(ANSWERS.total_seconds())
    assert done(story.about(web)) == (0, 0, 0)
    assert story.mirrored == []


# Guards


def test_an_empty_describe_deletes_nothing(story: Story) -> None:
    web = story.cloud.launch(8, tags=WEB)
    story.run()
    story.time.pass_by(GRACE.total_seconds())
    kept = dict(story.cloud.machines)
    story.cloud._machines.clear()
    report = story.run()
    assert done(report) == (0, 0, 0)
    assert Trouble.GUARD in troubles(report)
    assert report.orphaned == 8
    story.cloud._machines.update(kept)
    assert story.mirrored == web
    assert not report.unfinished  # it would loop


def test_too_many_deletes_are_held_back_and_all_else_goes_on(story: Story) -> None:
    story.write(limits={"deletes": 2})
    old = story.cloud.launch(3, tags=WEB)
    story.run()
    new = story.cloud.launch(tags=WEB)
    story.cloud.untag(old, ["mirror"])
    report = story.run()
    assert done(report) == (1, 0, 0)
    assert Trouble.GUARD in troubles(report)
    assert story.mirrored == sorted(old + new)


def test_orphans_are_deleted_and_counted_by_a_look_at_everything_alone(story: Story) -> None:
    web = story.cloud.launch(4, tags=WEB)
    story.run()
    story.time.pass_by(GRACE.total_seconds())
    interface = story.cloud.machines[web[0]].interfaces[0].id
    story.cloud.detach(interface)
    story.cloud.vanish(web[:1])
    assert done(story.about(web[0])) == (0, 0, 0)
    report = story.run()
    assert done(report) == (0, 0, 1)
    assert report.orphaned == 1


def test_the_limit_of_sessions_holds_in_a_narrow_look_too(story: Story) -> None:
    story.write(limits={"sessions": 2})
    story.cloud.launch(2, tags=WEB)
    story.run()
    [third] = story.cloud.launch(tags=WEB)
    story.run()
    report = story.about(third)
    assert done(report) == (0, 0, 0)
    assert Trouble.LIMIT in troubles(report)


def test_the_limit_of_sessions_holds_from_one_narrow_look_to_the_next(story: Story) -> None:
    story.write(limits={"sessions": 3})
    for web in story.cloud.launch(2, tags=WEB):
        story.about(web)
    story.run()
    reports = [story.about(web) for web in story.cloud.launch(3, tags=WEB)]
    assert [len(report.created) for report in reports] == [1, 0, 0]
    assert Trouble.LIMIT in troubles(reports[-1])
    story.cloud.terminate(story.mirrored[:1])
    story.time.pass_by(ANSWERS.total_seconds())  # what was counted is too old then
    assert done(story.about(*story.cloud.launch(tags=WEB))) == (1, 0, 0)


def test_a_new_container_counts_before_it_makes_more_than_the_limit_of_sessions(story: Story) -> None:
    story.write(limits={"sessions": 3})
    story.cloud.launch(2, tags=WEB)
    story.run()
    new = story.cloud.launch(3, tags=WEB)
    story.reconciler = story.container()
    assert done(story.about(*new)) == (1, 0, 0)
    story.calls()
    story.about(*new)
    assert story.calls()["DescribeTrafficMirrorSessions"] == 1  # it has counted


def test_without_a_limit_nobody_counts(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.calls()
    assert done(story.about(web)) == (1, 0, 0)
    assert story.calls()["DescribeTrafficMirrorSessions"] == 1


def test_what_a_guard_holds_back_makes_no_room_for_others(story: Story) -> None:
    story.write(limits={"sessions": 8, "deletes": 5})
    old = story.cloud.launch(8, tags=WEB)
    story.run()
    story.cloud.untag(old, ["mirror"])
    story.cloud.launch(8, tags=WEB)
    report = story.run()
    assert troubles(report) == {Trouble.GUARD, Trouble.LIMIT}
    assert done(report) == (0, 0, 0)
    assert report.plan.kept == 8
    assert story.mirrored == old


def test_what_was_made_just_now_is_no_orphan_of_a_describe_that_lags(story: Story) -> None:
    web = story.cloud.launch(4, tags=WEB)
    story.run()
    hidden = story.cloud._machines.pop(web[0])
    assert done(story.run()) == (0, 0, 0)
    story.time.pass_by(GRACE.total_seconds())
    assert done(story.run()) == (0, 0, 1)
    story.cloud._machines[web[0]] = hidden


def test_a_look_at_a_stopped_instance_takes_nothing_from_the_one_that_has_its_interface_now(story: Story) -> None:
    old, new = story.cloud.launch(2, tags=WEB)
    story.about(old)
    moved = story.cloud.machines[old].interfaces[0]
    bare = replace(story.cloud.machines[old], interfaces=(), state="stopped")
    having = replace(moved, instance=new, device_index=0)
    story.cloud._machines[old] = bare
    story.cloud.put(replace(story.cloud.machines[new], interfaces=(having,)))
    assert done(story.about(old)) == (0, 0, 0)
    assert done(story.run()) == (0, 1, 0)
    assert story.mirrored == [new]


# The switch, and plans


def test_a_plan_changes_nothing(story: Story) -> None:
    story.cloud.launch(2, tags=WEB)
    report = story.run(Scope(everything=True, plan_only=True, fresh=frozenset({"i-unheard-of"})))
    assert len(report.plan.create) == 2
    assert done(report) == (0, 0, 0)
    assert story.mirrored == []
    assert not report.unfinished


def test_a_pause_reports_and_changes_nothing(story: Story) -> None:
    story.cloud.launch(2, tags=WEB)
    story.policies.is_paused = True
    report = story.run()
    assert report.paused
    assert len(report.plan.create) == 2
    assert story.mirrored == []
    story.policies.is_paused = False
    story.write(paused=True)
    assert story.run().paused
    assert story.mirrored == []


def test_a_pause_in_the_middle_of_a_run_ends_it(story: Story) -> None:
    story.write(limits={"writes_per_second": 0.5})
    story.cloud.launch(8, tags=WEB)
    sleep = story.time.sleep

    def pause_while_waiting(seconds: float) -> None:
        sleep(seconds)
        story.policies.is_paused = True

    story.reconciler = Reconciler(story.cloud, story.policies, story.environment, story.time, pause_while_waiting)
    report = story.run()
    assert 0 < len(report.created) < 8
    assert report.paused
    assert "under way" in report.why_paused
    assert not report.unfinished


# The policy


@dataclass
class Broken:
    """A store whose newest policies are invalid."""

    in_force: InForce | None
    refused: tuple[Refusal, ...]

    def read(self) -> InForce:
        if self.in_force is None:
            raise NoPolicy("no version of /p is valid", self.refused)
        return replace(self.in_force, refused=self.refused)

    def paused(self) -> bool:
        return False


def invalid() -> Refusal:
    with pytest.raises(PolicyError) as error:
        load("version: 2")
    return Refusal("/p", 2, error.value)


def test_a_refused_policy_is_reported_and_the_one_before_stays_in_force(story: Story) -> None:
    web = story.cloud.launch(tags=WEB)
    story.policies = Broken(story.policies.read(), (invalid(),))  # type: ignore[assignment]
    story.reconciler = story.container()
    report = story.run()
    assert story.mirrored == web
    [refused] = report.refused
    assert refused.startswith("/p:2: ")
    assert not report.stopped


def test_without_a_policy_nothing_is_changed_and_nothing_loops(story: Story) -> None:
    story.cloud.launch(tags=WEB)
    story.run()
    story.policies = Broken(None, (invalid(),))  # type: ignore[assignment]
    story.reconciler = story.container()
    report = story.run()
    assert "no version of /p is valid" in report.stopped
    assert len(report.refused) == 1
    assert len(story.ours) == 1
    assert not report.everything
    assert not report.unfinished


# Reading fails


@pytest.mark.parametrize(
    "action",
    ["DescribeInstances", "DescribeNetworkInterfaces", "DescribeTrafficMirrorSessions", "DescribeTrafficMirrorTargets"],
)
def test_half_a_look_is_none(story: Story, action: str) -> None:
    web = story.cloud.launch(2, tags=WEB)
    story.run()
    story.cloud.untag(web, ["mirror"])
    story.cloud.model.faults.fail(action, "InternalError")
    report = story.run()
    assert report.everything
    assert done(report) == (0, 0, 0)
    assert [failure.code for failure in report.failed] == ["InternalError"]
    assert not report.stopped
    assert story.mirrored == web


def test_a_page_that_fails_is_half_a_look(story: Story) -> None:
    story.cloud.launch(1001, tags=WEB)
    story.cloud.model.faults.fail("DescribeInstances", "InternalError", when=lambda call: "NextToken" in call)
    assert story.run(Scope(everything=True, plan_only=True)).everything


def test_a_look_that_is_forbidden_is_an_alarm(story: Story) -> None:
    story.cloud.model.faults.deny("DescribeTrafficMirrorSessions")
    report = story.run()
    assert report.everything
    assert "UnauthorizedOperation" in report.stopped


def test_no_look_is_begun_that_time_does_not_allow(story: Story) -> None:
    story.calls()
    report = story.run(seconds=MARGIN - 1)
    assert report.everything
    assert report.out_of_time
    assert not story.calls()


# Not there yet


def test_an_announced_instance_that_is_not_visible_is_looked_at_later(story: Story) -> None:
    assert story.about("i-0a", fresh=True).unfinished == {"i-0a"}
    assert story.about("i-0a").unfinished == frozenset()


@pytest.mark.parametrize("state", ["pending", "running"])
def test_an_announced_instance_that_is_not_ready_is_looked_at_later(story: Story, state: str) -> None:
    [web] = story.cloud.launch(tags=WEB, interfaces=0 if state == "running" else 1)
    story.cloud.set_state([web], state)
    report = story.about(web, fresh=True)
    assert report.unfinished == {web}
    assert done(report) == (0, 0, 0)


@pytest.mark.parametrize("state", ["stopping", "stopped"])
def test_an_announced_instance_that_is_still_shown_as_stopped_is_looked_at_later(story: Story, state: str) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.cloud.set_state([web], state)
    assert story.about(web, fresh=True).unfinished == {web}
    story.cloud.start([web])
    assert done(story.about(web, fresh=True)) == (1, 0, 0)


@pytest.mark.parametrize("state", ["shutting-down", "terminated"])
def test_an_announced_instance_that_has_ended_is_done_with(story: Story, state: str) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.cloud.set_state([web], state)
    assert not story.about(web, fresh=True).unfinished


def test_an_unheard_of_instance_costs_no_look_at_all_sessions(story: Story) -> None:
    story.about("i-0a")
    story.calls()
    story.about("i-0a")
    assert "DescribeTrafficMirrorSessions" not in story.calls()


# Targets


def test_an_unhealthy_target_gets_no_new_sessions_and_keeps_those_it_has(story: Story) -> None:
    [old] = story.cloud.launch(tags=WEB)
    story.run()
    story.cloud.health[story.target] = Health.UNHEALTHY
    story.cloud.launch(tags=WEB)
    report = story.run()
    assert story.mirrored == [old]
    assert Trouble.TARGET_UNHEALTHY in troubles(report)
    assert not report.waiting


def test_the_first_sweep_waits_for_a_healthy_target(story: Story) -> None:
    story.cloud.health[story.target] = Health.NO_LISTENER
    first = Scope(everything=True, attempt=1)
    assert not story.run(first).waiting  # nobody wants it
    story.cloud.launch(tags=WEB)
    assert story.run(first).waiting
    story.cloud.health[story.target] = Health.HEALTHY
    assert not story.run(first).waiting
    assert len(story.ours) == 1


def test_a_full_target_leads_to_the_next() -> None:
    story = Story()
    full, other = story.cloud.eni_target(), story.cloud.nlb_target()
    story.policies.write(
        json.dumps(
            {
                "version": 1,
                "sources": [
                    {
                        "name": "web",
                        "match": {"tags": {"mirror": ["yes"]}},
                        "target": [full, other],
                        "filter": story.rules,
                    }
                ],
            }
        )
    )
    web = story.cloud.launch(12, tags=WEB)
    for name in web:  # one by one: nobody sees that the target fills up
        story.about(name)
    assert Counter(session.target for session in story.ours) == {full: 10, other: 2}
    assert done(story.run()) == (0, 0, 0)


def test_a_target_that_is_gone_is_replaced_or_its_sessions_end(story: Story) -> None:
    story.cloud.launch(2, tags=WEB)
    story.run()
    story.cloud.delete_load_balancer(story.target)
    other = story.cloud.nlb_target()
    story.write(target=other)
    assert done(story.run()) == (0, 2, 0)
    story.cloud.delete_load_balancer(other)
    report = story.run()
    assert story.ours == []
    assert len(report.deleted) == 2


# Refusals


def test_an_unsupported_type_is_left_alone_for_an_hour(story: Story) -> None:
    story.cloud.launch(3, tags=WEB, type="t2.micro")
    report = story.run()
    assert [failure.code for failure in report.failed] == ["NetworkInterfaceNotSupported"]
    assert not report.unfinished
    story.calls()
    again = story.run()
    assert story.calls()["CreateTrafficMirrorSession"] == 0
    assert count(again.findings, Trouble.QUARANTINED) == 3
    story.time.pass_by(UNSUPPORTED.total_seconds())
    story.run()
    assert story.calls()["CreateTrafficMirrorSession"] == 1


def test_a_changed_policy_ends_every_quarantine(story: Story) -> None:
    story.cloud.launch(1, tags=WEB, type="t2.micro")
    story.run()
    story.calls()
    story.run(Scope(everything=True, policy_changed=True))
    assert story.calls()["CreateTrafficMirrorSession"] == 2  # a dry run and a try


def test_a_session_that_another_container_just_made_is_found_on_the_second_look(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    other = story.container()
    other.run(EVERYTHING, lambda: 100.0)
    [made] = story.ours
    # The first look of ours came a moment before it was visible.
    sessions = story.cloud.sessions
    blind = iter([True])
    story.cloud.sessions = lambda **asked: [] if next(blind, False) else sessions(**asked)  # type: ignore[method-assign]
    report = story.about(web)
    assert [session.id for session in story.ours] == [made.id]
    assert not report.failed
    assert not report.unfinished


def test_a_second_look_deletes_nothing(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.run()
    story.cloud.somebody_modifies(story.ours[0].id, number=9)
    story.cloud.model.faults.fail("ModifyTrafficMirrorSession", "InvalidParameterValue")
    untagged = iter([True])
    sleep = story.time.sleep

    def untag_meanwhile(seconds: float) -> None:
        sleep(seconds)
        if next(untagged, False):
            story.cloud.untag([web], ["mirror"])

    story.reconciler = Reconciler(story.cloud, story.policies, story.environment, story.time, untag_meanwhile)
    assert done(story.about(web)) == (0, 0, 0)
    assert story.mirrored == [web]
    assert done(story.about(web)) == (0, 0, 1)


def test_a_policy_that_is_lost_before_the_second_look_leaves_the_instance_for_later(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.cloud.model.faults.fail("CreateTrafficMirrorSession", "InvalidParameterValue")
    sleep = story.time.sleep

    def lose_meanwhile(seconds: float) -> None:
        sleep(seconds + ANSWERS.total_seconds())
        story.policies.read = Broken(None, ()).read  # type: ignore[method-assign]

    story.reconciler = Reconciler(story.cloud, story.policies, story.environment, story.time, lose_meanwhile)
    report = story.about(web)
    assert [failure.code for failure in report.failed] == ["NoPolicy"]
    assert report.unfinished == {web}


class Overtaken(FakeCloud):
    """Between a sweep's two looks, an instance is launched and another container mirrors it."""

    meanwhile: Callable[[], object] | None = None

    def sessions(self, *, interfaces: Collection[str] = (), instances: Collection[str] = ()) -> list[Session]:
        found = super().sessions(interfaces=interfaces, instances=instances)
        self._overtake()
        return found

    def marked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        found = super().marked(ids)
        self._overtake()
        return found

    def _overtake(self) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()


def test_what_another_container_mirrors_during_a_sweep_is_no_orphan() -> None:
    cloud = Overtaken()
    story = Story(cloud)
    other = story.container()

    def meanwhile() -> None:
        launched = cloud.launch(tags=WEB)
        story.time.pass_by(1)
        other.run(Scope(instances=frozenset(launched)), lambda: 1000.0)

    cloud.meanwhile = meanwhile
    assert not story.run().deleted
    assert len(story.ours) == 1


def test_a_number_taken_meanwhile_is_replaced_by_the_next(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    create = story.cloud.create
    taken = iter([True])

    def create_late(session: Session, token: str) -> Session:
        if next(taken, False):
            story.foreign(web, 1)
        return create(session, token)

    story.cloud.create = create_late  # type: ignore[method-assign]
    assert done(story.about(web)) == (1, 0, 0)
    assert story.ours[0].number == 2


def first_made(container: str) -> int:
    """Which of 40 instances a container's sweep mirrors first."""
    story = Story(environment=Environment(owner=OWNER, container=container))
    web = story.cloud.launch(40, tags=WEB)
    report = story.run()
    assert sorted(change.instance for change in report.created) == web
    return web.index(report.created[0].instance)


def test_two_containers_begin_with_different_creations() -> None:
    assert first_made("") == 0
    assert len({first_made(container) for container in ("", "a", "b")}) == 3
    assert first_made("a") == first_made("a")


def test_a_session_made_again_within_a_second_is_a_new_one(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    now = story.time.now

    def look_at_once() -> list[str]:
        story.time.now = now
        story.reconciler.run(Scope(instances=frozenset({web})), lambda: 1000.0)
        return story.mirrored

    assert look_at_once() == [web]
    story.cloud.untag([web], ["mirror"])
    assert look_at_once() == []
    story.cloud.tag([web], WEB)
    assert look_at_once() == [web]


def test_time_that_runs_out_leaves_the_rest_for_later(story: Story) -> None:
    web = story.cloud.launch(30, tags=WEB)
    report = story.run(seconds=MARGIN + 5)
    assert report.out_of_time
    assert 0 < len(report.created) < 30
    assert report.unfinished == set(web) - set(story.mirrored)
    assert done(story.run())[0] == len(report.unfinished)


def test_a_lost_answer_makes_no_second_session(story: Story) -> None:
    story.cloud.launch(tags=WEB)
    story.cloud.model.faults.fail("CreateTrafficMirrorSession", "Unreachable", lost=True)
    report = story.run()
    assert len(story.ours) == 1
    assert len(report.created) == 1


# References


def with_two_sources(story: Story) -> str:
    """`web` may be served, `db` names a filter that the stack may not use; its id."""
    bad = story.cloud.filter()
    sources = [
        {"name": name, "match": {"tags": {"role": [name]}}, "target": story.target, "filter": rules}
        for name, rules in (("web", story.rules), ("db", bad))
    ]
    story.policies.write(json.dumps({"version": 1, "sources": sources}))
    story.cloud.model.faults.deny("CreateTrafficMirrorSession", lambda call: call.get("TrafficMirrorFilterId") == bad)
    return bad


def test_a_source_beyond_the_boundary_is_left_alone_and_the_others_go_on(story: Story) -> None:
    web, db = (story.cloud.launch(2, tags={"role": role}) for role in ("web", "db"))
    bad = with_two_sources(story)
    report = story.run(Scope(everything=True, policy_changed=True))
    assert story.mirrored == web
    [finding] = [one for one in report.findings if one.trouble is Trouble.FORBIDDEN]
    assert finding.source == "db"
    assert bad in finding.text
    assert not report.failed
    assert not report.stopped
    assert db[0] not in report.unfinished
    assert done(story.about(db[0])) == (0, 0, 0)  # remembered


def test_what_a_forbidden_source_has_is_not_touched_either(story: Story) -> None:
    [db] = story.cloud.launch(tags={"role": "db"})
    story.write(match={"tags": {"role": ["db"]}})
    story.run()
    before = story.ours
    with_two_sources(story)
    assert done(story.run(Scope(everything=True, policy_changed=True))) == (0, 0, 0)
    assert story.ours == before
    assert story.mirrored == [db]


def test_references_are_checked_in_a_plan_by_one_dry_run_for_each_vpc(story: Story) -> None:
    for vpc in ("vpc-1", "vpc-2"):
        story.cloud.launch(3, tags=WEB, vpc=vpc)
    story.calls()
    report = story.run(Scope(everything=True, plan_only=True))
    assert story.calls()["CreateTrafficMirrorSession"] == 2
    assert not report.findings
    assert story.mirrored == []


def test_references_are_not_checked_in_every_run(story: Story) -> None:
    [web] = story.cloud.launch(tags=WEB)
    story.run()
    story.calls()
    story.run()
    story.about(web)
    assert "CreateTrafficMirrorSession" not in story.calls()


def test_a_boundary_that_nobody_checked_is_learnt_from_the_first_refusal(story: Story) -> None:
    web, db = (story.cloud.launch(2, tags={"role": role}) for role in ("web", "db"))
    with_two_sources(story)
    first = story.about(*db)
    assert "UnauthorizedOperation" in first.stopped
    assert first.unfinished == set(db)
    second = story.run()
    assert story.mirrored == web
    assert Trouble.FORBIDDEN in troubles(second)
    assert not second.stopped


def test_a_boundary_that_was_moved_is_learnt_from_the_next_check(story: Story) -> None:
    story.cloud.launch(tags={"role": "db"})
    with_two_sources(story)
    story.run(Scope(everything=True, policy_changed=True))
    story.cloud.model.faults.clear()
    assert done(story.run(Scope(everything=True, policy_changed=True))) == (1, 0, 0)


def test_a_dry_run_that_fails_otherwise_forbids_nothing(story: Story) -> None:
    story.cloud.launch(tags=WEB)
    story.cloud.model.faults.fail(
        "CreateTrafficMirrorSession", "InternalError", when=lambda call: bool(call.get("DryRun"))
    )
    assert done(story.run(Scope(everything=True, policy_changed=True))) == (1, 0, 0)


def test_references_that_do_not_exist_are_not_tried(story: Story) -> None:
    story.write(target="tmt-0123456789abcdef0")
    story.cloud.launch(tags=WEB)
    story.calls()
    report = story.run(Scope(everything=True, plan_only=True))
    assert "CreateTrafficMirrorSession" not in story.calls()
    assert troubles(report) == {Trouble.TARGET_MISSING}


@pytest.mark.parametrize(
    ("allowed", "named"),
    [(None, []), ({"mirror", "cost-centre"}, []), ({"mirror"}, ["cost-centre"]), ((), ["mirror", "cost-centre"])],
)
def test_tag_keys_beyond_the_boundary_are_reported(allowed: Collection[str] | None, named: list[str]) -> None:
    keys = None if allowed is None else frozenset(allowed)
    story = Story(environment=Environment(owner=OWNER, autotag_keys=keys))
    rule = {"name": "production", "match": {"groups": ["web"]}, "tags": {"mirror": "yes", "cost-centre": "7"}}
    story.write(autotag=[rule])
    report = story.run(Scope(everything=True, plan_only=True))
    assert [finding.trouble for finding in report.findings] == [Trouble.FORBIDDEN] * len(named)
    assert all(key in finding.text for key, finding in zip(named, report.findings, strict=True))


def test_the_references_of_a_source_that_selects_nothing_are_reported(story: Story) -> None:
    story.write(target="tmt-0123456789abcdef0", filter="tmf-0123456789abcdef0")
    report = story.run(Scope(everything=True, policy_changed=True))
    assert troubles(report) == {Trouble.TARGET_MISSING, Trouble.FILTER_MISSING}
    story.cloud.launch()
    assert not story.about(*story.cloud.machines).findings  # an event is not about them


def test_a_dry_run_without_an_answer_is_a_failure_of_the_report(story: Story) -> None:
    story.cloud.launch(tags=WEB)
    story.cloud.model.faults.fail(
        "CreateTrafficMirrorSession", "RequestLimitExceeded", times=99, when=lambda call: bool(call.get("DryRun"))
    )
    report = story.run(Scope(everything=True, policy_changed=True))
    assert [failure.code for failure in report.failed] == ["RequestLimitExceeded"]
    assert done(report) == (1, 0, 0)


# Calls: the budget of a warm look, and what is never taken from memory


def warm(story: Story) -> str:
    """A mirrored instance, in a container that just looked at it."""
    [web] = story.cloud.launch(tags=WEB)
    story.about(web)
    story.time.pass_by(5)
    story.about(web)
    story.calls()
    return web


READS_OF_POLICY = "GetParameters"


@pytest.fixture
def counted(story: Story, monkeypatch: pytest.MonkeyPatch) -> Story:
    """Reads of the policy are calls as well."""
    read = story.policies.read

    def counting() -> InForce:
        with story.cloud.model.faults.around(READS_OF_POLICY, {}):
            return read()

    monkeypatch.setattr(story.policies, "read", counting)
    return story


WRITES = {"CreateTrafficMirrorSession", "ModifyTrafficMirrorSession", "DeleteTrafficMirrorSession", "CreateTags"}


@pytest.mark.parametrize(
    ("happens", "expected"),
    [
        (lambda story, web: None, (0, 0, 0)),
        (lambda story, web: story.cloud.untag([web], ["mirror"]), (0, 0, 1)),
        (lambda story, web: story.cloud.stop([web]), (0, 0, 1)),
        (lambda story, web: story.cloud.terminate([web]), (0, 0, 0)),
        (lambda story, web: story.cloud.set_state([web], "terminated"), (0, 0, 1)),
        (lambda story, web: story.cloud.somebody_deletes(story.ours[0].id), (1, 0, 0)),
        (lambda story, web: story.cloud.somebody_modifies(story.ours[0].id, number=9), (0, 1, 0)),
        (lambda story, web: story.cloud.attach(web), (0, 0, 0)),
        (lambda story, web: story.cloud.vanish([web]), (0, 0, 0)),
    ],
    ids=["nothing", "untagged", "stopped", "terminated", "kept", "deleted", "altered", "attached", "vanished"],
)
def test_a_warm_look_at_one_instance_is_four_calls_beside_the_change(
    counted: Story, happens: Any, expected: tuple[int, int, int]
) -> None:
    web = warm(counted)
    happens(counted, web)
    report = counted.about(web)
    calls = counted.calls()
    assert done(report) == expected
    assert sum(number for action, number in calls.items() if action not in WRITES) <= 4
    assert report.calls == sum(number for action, number in calls.items())


def test_a_warm_look_at_a_new_instance_is_three_calls_and_one_creation(counted: Story) -> None:
    warm(counted)
    [new] = counted.cloud.launch(tags=WEB)
    report = counted.about(new)
    assert done(report) == (1, 0, 0)
    assert counted.calls() == {
        "DescribeInstances": 1,
        "DescribeNetworkInterfaces": 1,
        "DescribeTrafficMirrorSessions": 1,
        "CreateTrafficMirrorSession": 1,
    }


def test_memory_lasts_a_minute(counted: Story) -> None:
    web = warm(counted)
    counted.time.pass_by(ANSWERS.total_seconds())
    counted.about(web)
    calls = counted.calls()
    assert calls[READS_OF_POLICY] == 1
    assert calls["DescribeTrafficMirrorTargets"] == 2
    assert calls["DescribeTrafficMirrorFilters"] == 1


@pytest.mark.parametrize(
    "scope",
    [EVERYTHING, Scope(instances=frozenset({"i-0a"}), policy_changed=True), Scope(everything=True, plan_only=True)],
)
def test_a_sweep_a_changed_policy_and_a_plan_remember_nothing(counted: Story, scope: Scope) -> None:
    warm(counted)
    counted.run(scope)
    assert counted.calls()[READS_OF_POLICY] == 1


def test_a_policy_from_memory_deletes_nothing(counted: Story) -> None:
    web = warm(counted)
    counted.cloud.untag([web], ["mirror"])
    counted.cloud.tag([web], {"role": "web"})
    counted.write(match={"tags": {"role": ["web"]}})
    report = counted.about(web)
    assert done(report)[2] == 0
    assert counted.mirrored == [web]
    assert report.policy == "/traffic-replay/policy:2"


def test_a_target_from_memory_moves_and_deletes_nothing(counted: Story) -> None:
    web = warm(counted)
    counted.cloud.health[counted.target] = Health.GONE
    counted.time.pass_by(ANSWERS.total_seconds())
    counted.policies.is_paused = True
    counted.about(web)  # remembers that the target is gone
    counted.policies.is_paused = False
    counted.cloud.health[counted.target] = Health.HEALTHY
    counted.calls()
    assert done(counted.about(web)) == (0, 0, 0)
    assert counted.mirrored == [web]
    assert counted.calls()["DescribeTrafficMirrorTargets"] == 2


def test_a_target_that_was_unhealthy_a_moment_ago_is_looked_at_again_before_a_new_instance_goes_without(
    counted: Story,
) -> None:
    warm(counted)
    counted.cloud.health[counted.target] = Health.UNHEALTHY
    counted.time.pass_by(ANSWERS.total_seconds())
    counted.about(counted.cloud.launch(tags=WEB)[0])  # remembers that
    counted.cloud.health[counted.target] = Health.HEALTHY
    late = counted.cloud.launch(tags=WEB)[0]
    assert done(counted.about(late)) == (1, 0, 0)
    counted.calls()
    counted.about(late)
    assert counted.calls()["DescribeTrafficMirrorTargets"] == 0  # a healthy one is remembered


def test_another_target_is_chosen_from_what_was_read_anew(counted: Story) -> None:
    web = warm(counted)
    other = counted.cloud.nlb_target()
    counted.cloud.health[other] = Health.UNHEALTHY
    counted.write(target=other)
    report = counted.about(web)  # the policy in memory is the old one, and nothing is amiss by it
    assert done(report) == (0, 0, 0)
    counted.cloud.somebody_modifies(counted.ours[0].id, number=9)
    report = counted.about(web)  # repair rests on the policy: it is read anew, and names an unhealthy target
    assert counted.ours[0].target == counted.target
    assert Trouble.TARGET_UNHEALTHY in troubles(report)


def test_a_run_counts_its_calls(story: Story) -> None:
    story.cloud.launch(tags=WEB)
    story.calls()
    report = story.run()
    assert report.calls == sum(story.calls().values())


# Property: whatever is lost, doubled or out of order, one sweep repairs.

deeds = st.lists(
    st.tuples(
        st.sampled_from(["tag", "untag", "stop", "start", "terminate", "launch", "alter", "delete", "foreign", "look"]),
        st.integers(0, 5),
        st.booleans(),
    ),
    max_size=14,
)


def act(story: Story, deed: str, instance: str) -> None:
    machine = story.cloud.machines[instance]
    alive = machine.state in ("running", "stopped")
    mine = [session.id for session in story.ours if session.description == instance]
    match deed:
        case "tag" if alive:
            story.cloud.tag([instance], WEB)
        case "untag" if alive:
            story.cloud.untag([instance], ["mirror"])
        case "stop" if alive:
            story.cloud.stop([instance])
        case "start" if alive:
            story.cloud.start([instance])
        case "terminate":
            story.cloud.terminate([instance])
        case "launch":
            story.cloud.launch(tags=WEB)
        case "alter" if mine:
            story.cloud.somebody_modifies(mine[0], filter=story.cloud.filter([443]))
        case "delete" if mine:
            story.cloud.somebody_deletes(mine[0])
        case "foreign" if alive and len(story.cloud.all_sessions()) < 3:
            taken = {session.number for session in story.cloud.all_sessions()}
            story.foreign(instance, next(number for number in range(1, 9) if number not in taken))


@given(deeds)
def test_whatever_happened_and_whoever_looked_one_sweep_repairs(happened: list[tuple[str, int, bool]]) -> None:
    story = Story()
    story.write(limits={"delete_fraction": 1, "deletes": 1000})
    story.cloud.launch(3, tags=WEB)
    containers = [story.reconciler, story.container()]
    for deed, number, heard in happened:
        known = sorted(story.cloud.machines)
        instance = known[number % len(known)]
        act(story, deed, instance)
        story.time.pass_by(7)
        if heard:
            story.reconciler = containers[number % 2]
            story.about(instance, fresh=deed == "launch")
    story.run()
    second = story.run(Scope(everything=True, plan_only=True))
    assert (second.plan.create, second.plan.modify, second.plan.delete) == ((), (), ())
    wanted = sorted(
        name
        for name, machine in story.cloud.machines.items()
        if machine.state == "running" and machine.tags.get("mirror") == "yes"
    )
    assert story.mirrored == wanted
    assert all(session.filter == story.rules and CONFIG_TAG in session.tags for session in story.ours)


def test_a_refused_look_of_a_plan_is_raised_to_who_asked_for_it(story: Story) -> None:
    story.cloud.model.faults.fail("DescribeInstances", "InternalError")
    with pytest.raises(Refused, match="InternalError"):
        story.reconciler.look(EVERYTHING)
