"""Whatever happens to the account, in whatever order the news arrives: the sessions become what the policy wants.

The real reconciler works on an account in memory, while instances, targets, policies and other tools' sessions change,
events are lost, doubled and late, AWS refuses calls, time runs out, and a second container does the same. What is right
is said by `oracle`, which knows nothing of the planner; what must hold at every write is watched by `histories`.
"""

import json
import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mirroring import lifecycle
from mirroring.apply import MARGIN
from mirroring.environment import Environment
from mirroring.guards import FREE_DELETES
from mirroring.lifecycle import Lifecycle
from mirroring.memory import ANSWERS, UNSUPPORTED
from mirroring.model import OWNER_TAG, Health, Scope, Trouble
from mirroring.report import Action, Report, count
from mirroring.scope import scope_of, union
from tests.layers.mirroring import fake_cloud
from tests.stories.histories import EVERYTHING, FLEET, OWNER, PLENTY, Account, Container, documents
from tests.stories.oracle import complaints, is_ours, may_go

#: EXAMPLES=20 looks twenty times as long for a counter-example.
PATIENCE = int(os.environ.get("EXAMPLES", "1"))

#: What AWS may answer to which call, of each class that has an answer of ours.
REFUSALS = [
    ("CreateTrafficMirrorSession", code)
    for code in (
        "RequestLimitExceeded",
        "InternalError",
        "InvalidNetworkInterfaceID.NotFound",
        "InvalidParameterValue",
        "TrafficMirrorSessionsPerInterfaceLimitExceeded",
        "TrafficMirrorSourcesPerTargetLimitExceeded",
        "NetworkInterfaceNotSupported",
        "InvalidTrafficMirrorTarget",
        "InvalidTrafficMirrorTargetId.NotFound",
        "InvalidTrafficMirrorFilterId.NotFound",
        "UnauthorizedOperation",
        "TrafficMirrorSessionLimitExceeded",
        "IdempotentParameterMismatch",
        "NeverHeardOf",
    )
]
REFUSALS += [
    ("ModifyTrafficMirrorSession", code)
    for code in (
        "Throttling",
        "InvalidTrafficMirrorSessionId.NotFound",
        "TrafficMirrorSourcesPerTargetLimitExceeded",
        "InvalidTrafficMirrorTarget",
        "UnauthorizedOperation",
        "InvalidParameterValue",
    )
]
REFUSALS += [
    ("DeleteTrafficMirrorSession", code)
    for code in ("RequestLimitExceeded", "InvalidTrafficMirrorSessionId.NotFound", "UnauthorizedOperation", "Surprise")
]
REFUSALS += [
    (action, code)
    for action in ("CreateTags", "DeleteTags")
    for code in ("ConcurrentTagAccess", "TagLimitExceeded", "InvalidID", "UnauthorizedOperation")
]
LOOKS = (
    "DescribeInstances",
    "DescribeNetworkInterfaces",
    "DescribeTrafficMirrorSessions",
    "DescribeTrafficMirrorTargets",
    "DescribeTrafficMirrorFilters",
    "DescribeListeners",
    "DescribeTargetHealth",
)
REFUSALS += [(action, code) for action in LOOKS for code in ("RequestLimitExceeded", "UnauthorizedOperation")]

#: Findings that say why a run left something as it was.
EXCUSES = {
    Trouble.QUARANTINED,
    Trouble.LIMIT,
    Trouble.GUARD,
    Trouble.FORBIDDEN,
    Trouble.TARGET_FULL,
    Trouble.FILTER_MISSING,
    Trouble.TARGET_MISSING,
}

places = st.integers(0, 7)
numbers = st.sampled_from([1, 1, 2, 3, 32765, 32766])
nlbs = st.sampled_from(["A", "B", "C"])
tags = st.sampled_from(
    [
        {"mirror": "yes"},
        {"mirror": "yes", "env": "prod"},
        {"mirror": "no"},
        {"env": "test", "Name": "web1"},
        {"mirror:until": "2026-11-23T09:00:00Z"},
        {"mirror:until": "2027-01-01T00:00:00Z"},
        {},
    ]
)
states = st.sampled_from(["pending", "running", "stopping", "stopped", "shutting-down", "terminated"])
latencies = st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.4]), min_size=1, max_size=5)
budgets = st.sampled_from([PLENTY, PLENTY, PLENTY, 300.0, 25.0, 21.0, 5.0])
changes = st.sampled_from(
    [
        {"number": 9},
        {"number": 2},
        {"filter": "g"},
        {"target": "C"},
        {"vni": 7},
        {"packet_length": 64},
        {"description": "by hand"},
        {"number": 1, "filter": "f", "target": "B"},
    ]
)
#: What may happen while a run is under way: a method of Account, and with what.
incidents = st.one_of(
    st.tuples(st.just("tag"), st.tuples(places, tags)),
    st.tuples(st.just("untag"), st.tuples(places, st.just("mirror"))),
    st.tuples(st.just("power"), st.tuples(places, states)),
    st.tuples(st.just("terminate"), st.tuples(places, st.booleans())),
    st.tuples(st.just("detach"), st.tuples(places, st.booleans())),
    st.tuples(st.just("move"), st.tuples(places, places)),
    st.tuples(st.just("ours_goes"), st.tuples(places)),
    st.tuples(st.just("ours_changes"), st.tuples(places, changes)),
    st.tuples(st.just("foreign_comes"), st.tuples(numbers, places, nlbs, st.just({"tool": "ids"}))),
    st.tuples(st.just("foreign_goes"), st.tuples(places)),
    st.tuples(st.just("demolish"), st.tuples(nlbs)),
    st.tuples(st.just("write"), st.tuples(documents)),
    st.tuples(st.just("lose_policy"), st.just(())),
    st.tuples(st.just("pause"), st.just(())),
)


class Histories(RuleBasedStateMachine):
    """An account and two containers. Each rule is something that may happen; `settles` may be asked for at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account()
        self.containers = [Container(self.account), Container(self.account)]

    @initialize(document=documents, rest=st.booleans())
    def begins(self, document: dict[str, Any], rest: bool) -> None:
        """So that there is something to lose."""
        self.account.launch(2, tags={"mirror": "yes"}, interfaces=2)
        self.account.launch(1, tags={"mirror": "yes", "env": "prod"}, vpc="vpc-2", subnet="subnet-2", group="web-a")
        plain = {"name": "first", "match": {"tags": {"mirror": ["yes"]}}, "target": ["A", "B"], "filter": "f"}
        self.account.write(document if rest else {"version": 1, "sources": [plain, *document["sources"]]})

    # The account

    @rule(
        n=st.integers(1, 2),
        bears=tags,
        group=st.sampled_from(["", "", "web-a", FLEET]),
        kind=st.sampled_from(["m5.large", "m5.large", "m5.large", "t2.micro"]),
        interfaces=st.integers(1, 2),
        vpc=st.sampled_from(["1", "2"]),
    )
    def launch(self, n: int, bears: dict[str, str], group: str, kind: str, interfaces: int, vpc: str) -> None:
        place = {"vpc": f"vpc-{vpc}", "subnet": f"subnet-{vpc}"}
        self.account.launch(n, tags=bears, group=group, type=kind, interfaces=interfaces, **place)

    @rule(left=st.integers(0, 2))
    def fill(self, left: int) -> None:
        self.account.fill(left)

    @rule(incident=incidents)
    def happens(self, incident: tuple[str, tuple[Any, ...]]) -> None:
        getattr(self.account, incident[0])(*incident[1])

    @rule(
        number=places,
        kind=st.sampled_from(["interface", "interface", "efa-only", "branch"]),
        managed=st.sampled_from([False, False, True]),
    )
    def attach(self, number: int, kind: str, managed: bool) -> None:
        self.account.attach(number, kind, managed)

    @rule(nlb=nlbs, health=st.sampled_from([Health.HEALTHY, Health.UNHEALTHY, Health.NO_LISTENER, Health.UNKNOWN]))
    def health(self, nlb: str, health: Health) -> None:
        self.account.health(nlb, health)

    @rule(name=st.sampled_from(["A", "B", "C", "D", "f", "g"]))
    def remove(self, name: str) -> None:
        self.account.remove(name)

    @rule(number=numbers, place=places, nlb=nlbs, named=places)
    def twin(self, number: int, place: int, nlb: str, named: int) -> None:
        self.account.twin(number, place, nlb, named)

    @rule(which=places, number=numbers)
    def foreign_changes(self, which: int, number: int) -> None:
        self.account.foreign_changes(which, number)

    @rule(number=numbers, place=places, nlb=nlbs, owner=st.sampled_from(["another stack", ""]))
    def foreign_of_a_stack(self, number: int, place: int, nlb: str, owner: str) -> None:
        self.account.foreign_comes(number, place, nlb, {OWNER_TAG: owner})

    @rule(which=places)
    def foreign_is_adopted(self, which: int) -> None:
        self.account.foreign_is_adopted(which)

    @rule(which=places, key=st.sampled_from(["mirror:managed-by", "mirror:source", "mirror:config", "mirror:created"]))
    def ours_loses_tag(self, which: int, key: str) -> None:
        self.account.ours_loses_tag(which, key)

    @rule(document=documents)
    def write(self, document: dict[str, Any]) -> None:
        self.account.write(document)

    @rule()
    def write_nonsense(self) -> None:
        self.account.write_nonsense()

    @rule()
    def resume(self) -> None:
        self.account.resume()

    # AWS

    @rule(
        refusal=st.sampled_from(REFUSALS), times=st.sampled_from([1, 1, 2, 9]), after=st.integers(0, 2), lost=st.booleans()
    )
    def refuses(self, refusal: tuple[str, str], times: int, after: int, lost: bool) -> None:
        self.account.cloud.model.fail(*refusal, times=times, after=after)
        if lost:
            self.account.cloud.model.fail(refusal[0], "Unreachable", times=times, after=after, lost=True)

    @rule(action=st.sampled_from([action for action, _ in REFUSALS]))
    def forbids(self, action: str) -> None:
        self.account.cloud.model.deny(action)

    @rule(codes=st.lists(st.sampled_from(["ThrottlingException", "AccessDeniedException"]), max_size=3))
    def parameters_refuse(self, codes: list[str]) -> None:
        self.account.parameters.refusals += codes

    @rule(burst=st.integers(1, 3), rate=st.sampled_from([0.2, 1, 5]))
    def throttles(self, burst: int, rate: float) -> None:
        self.account.cloud.model.throttle(self.account.time.seconds, burst=burst, rate=rate)

    @rule(new=st.integers(0, 3), old=st.integers(0, 3))
    def lags(self, new: int, old: int) -> None:
        self.account.cloud.model.visible_after, self.account.cloud.model.lingers = new, old

    @rule()
    def recovers(self) -> None:
        self.account.cloud.model.faults.clear()

    @rule(seconds=st.sampled_from([1, 30, 61, 400, 3601, 7200, 36_000]))
    def time_passes(self, seconds: int) -> None:
        self.account.time.pass_by(seconds)

    # The functions

    @rule(which=st.integers(0, 1), delays=latencies)
    def restarts(self, which: int, delays: list[float]) -> None:
        self.containers[which] = Container(self.account, delays)

    @rule(which=st.integers(0, 1), heard=st.lists(places, max_size=4), again=st.booleans(), seconds=budgets)
    def hears(self, which: int, heard: list[int], again: bool, seconds: float) -> None:
        """Some of the news, in any order; some of it twice."""
        events = [self.account.news[index] for index in heard if index < len(self.account.news)]
        if not again:
            self.account.news = [event for event in self.account.news if event not in events]
        now = self.account.time()
        scopes = [scope for event in events if (scope := scope_of(event, now))]
        self.lone_run(self.containers[which], union(scopes), seconds)

    @rule()
    def nobody_hears(self) -> None:
        self.account.news.clear()

    @rule(which=st.integers(0, 1), seconds=budgets, changed=st.booleans())
    def sweeps(self, which: int, seconds: float, changed: bool) -> None:
        self.lone_run(self.containers[which], Scope(everything=True, policy_changed=changed), seconds)

    @rule(place=places, delays=latencies)
    def looks_at_one(self, place: int, delays: list[float]) -> None:
        if found := self.account.instance(place):
            self.lone_run(Container(self.account, delays), Scope(instances=frozenset({found.id})), PLENTY)

    @rule(which=st.integers(0, 1))
    def sees_no_instance(self, which: int) -> None:
        watched = self.containers[which].watched
        watched.blind = True
        report = self.lone_run(self.containers[which], EVERYTHING, PLENTY)
        watched.blind = False
        assert not report.deleted
        if report.plan.actual and not report.paused:
            assert count(report.findings, Trouble.GUARD)

    @rule(
        scopes=st.lists(st.one_of(st.none(), places), min_size=1, max_size=2),
        starts=st.lists(st.sampled_from([0.0, 0.0, 0.05, 0.3, 2.0]), min_size=2, max_size=2),
        happen=st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.2, 0.45, 1.0, 2.5, 70.0]), incidents), max_size=3),
        killed=st.sampled_from([None, None, 0.1, 0.4, 1.3]),
    )
    def at_once(
        self,
        scopes: list[int | None],
        starts: list[float],
        happen: list[tuple[float, tuple[str, tuple[Any, ...]]]],
        killed: float | None,
    ) -> None:
        """Up to two containers and the account's own life, call by call. One may be ended in the middle."""
        runners = []
        for container, place, start in zip(self.containers, scopes, starts, strict=False):
            found = None if place is None else self.account.instance(place)
            scope = Scope(instances=frozenset({found.id})) if found else EVERYTHING
            runners.append(self.account.together.start(lambda run=container.run, on=scope: run(on), start))
        for after, (deed, arguments) in happen:
            self.account.together.start(lambda do=getattr(self.account, deed), on=arguments: do(*on), after)
        if killed is not None:
            self.account.together.start(runners[0].kill, killed)
        self.account.together.run()
        if killed is not None:
            self.containers[0] = Container(self.account)

    def lone_run(self, container: Container, scope: Scope, seconds: float) -> Report:
        """A run while nothing else happens: all that it did was right, and what it left undone it tells."""
        before, scene = self.account.sessions(), self.account.scene()
        report = container.run(scope, seconds)
        after = self.account.sessions()
        seen = list({one.id: one for one in [*container.watched.seen.values(), *before]}.values())
        for change in report.deleted:
            assert may_go(change.session, seen, scene), f"deleted for nothing: {change}"
        if any(failure.action is Action.READ for failure in report.failed) or report.policy == "":
            assert before == after
        lagging = self.account.cloud.model.visible_after or self.account.cloud.model.lingers
        remembers = container.born < self.account.unsettled and scene.now - self.account.unsettled < ANSWERS
        if not lagging and not remembers and not self.lagged and not container.watched.blind:
            self.check_honesty(report, before, after)
        return report

    @property
    def lagged(self) -> bool:
        described = self.account.cloud.model.perform("DescribeTrafficMirrorSessions", {})["TrafficMirrorSessions"]
        return len(described) != len(self.account.sessions())

    def check_honesty(self, report: Report, before: list[Any], after: list[Any]) -> None:
        """What is not as the policy wants it is told: in findings, failures, or as unfinished."""
        told = report.failed or report.everything or report.stopped or report.paused or report.out_of_time
        if told or EXCUSES & {finding.trouble for finding in report.findings}:
            return
        scene = self.account.scene()
        if report.scope.everything:
            assert complaints(before, after, scene) == []
            return
        found = [scene.instances[name] for name in report.scope.instances - report.unfinished if name in scene.instances]
        running = [instance.id for instance in found if instance.state == "running"]
        assert complaints(before, after, scene, running) == []

    # What is true in the end

    @rule(which=st.integers(0, 2))
    def settles(self, which: int) -> None:
        """One full sweep, when all is calm and what was quarantined may be tried again."""
        self.account.calm()
        self.account.write({**self.account.named, "limits": {"deletes": 10_000, "delete_fraction": 1}})
        hour = self.account.time().replace(minute=5, second=0)
        self.account.time.now = hour + UNSUPPORTED + timedelta(hours=1)
        assert [told for one in self.containers for told in too_quick(one, rate=2)] == []
        container = [*self.containers, Container(self.account)][which]
        before = self.account.sessions()
        report = container.run(EVERYTHING)
        assert not (report.stopped or report.paused or report.everything or report.out_of_time)
        assert complaints(before, self.account.sessions(), self.account.scene()) == []
        again = container.reconciler.look(EVERYTHING).plan
        assert (again.create, again.modify, again.delete) == ((), (), ())
        there = self.account.sessions()
        container.run(EVERYTHING)
        assert self.account.sessions() == there

    def teardown(self) -> None:
        self.settles(0)


def too_quick(container: Container, rate: float) -> list[str]:
    """Spans in which more was written than the rate and its burst, of five seconds' worth, allow."""
    times = [write.at.timestamp() for write in container.watched.writes]
    burst = max(1, int(5 * rate))
    return [
        f"{last - first + 1} writes in {times[last] - times[first]} s"
        for first in range(len(times))
        for last in range(first, len(times))
        if last - first + 1 > burst + rate * (times[last] - times[first]) + 1e-6
    ]


Histories.TestCase.settings = settings(max_examples=40 * PATIENCE, stateful_step_count=30)
TestHistories = Histories.TestCase
