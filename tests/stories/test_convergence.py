"""Whatever happens to the account, in whatever order the news arrives: the sessions become what the policy wants.

The real reconciler works on an account in memory, while instances, targets, policies and other tools' sessions change,
events are lost, doubled and late, AWS refuses calls, time runs out, and a second container does the same. What is right
is said by `oracle`, which knows nothing of the planner; what must hold at every write is watched by `histories`.
"""

import os
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from mirroring import lifecycle
from mirroring.answers import Answer
from mirroring.environment import Environment
from mirroring.guards import FREE_DELETES
from mirroring.lifecycle import Lifecycle
from mirroring.memory import ANSWERS, UNSUPPORTED
from mirroring.model import OWNER_TAG, Health, Scope, Trouble
from mirroring.pace import MARGIN
from mirroring.report import Action, Report, count
from mirroring.scope import understand, union
from tests.layers.mirroring import fake_cloud
from tests.stories.histories import EVERYTHING, FLEET, OWNER, PLENTY, Account, Container, documents
from tests.stories.oracle import GRACE, complaints, is_wanted, is_young, may_go

#: EXAMPLES=20 looks twenty times as long for a counter-example.
PATIENCE = int(os.environ.get("EXAMPLES", "1"))

type Deed = tuple[str, tuple[Any, ...]]
type Fault = tuple[tuple[str, str], int, int, bool]  # action and code; how often, after how many; whether it is lost

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
    for code in ("RequestLimitExceeded", "InternalError", "UnauthorizedOperation", "Surprise")
]
REFUSALS += [
    (action, code)
    for action in ("CreateTags", "DeleteTags")
    for code in ("ConcurrentTagAccess", "TagLimitExceeded", "InternalError", "UnauthorizedOperation")
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
WRITES = [st.sampled_from([refusal for refusal in REFUSALS if refusal[0] == action]) for action in dict(REFUSALS)]
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

often = st.sampled_from([1, 1, 2, 9])
few = st.sampled_from([0, 0, 1, 2])
lost = st.sampled_from([False, False, True])
refusals = st.tuples(st.sampled_from(REFUSALS), often, few, lost)
denials = st.sampled_from(["", "", "", "", *sorted({action for action, _ in REFUSALS})])
codes: st.SearchStrategy[list[str]] = st.one_of(
    st.just([]), st.lists(st.sampled_from(["ThrottlingException", "AccessDeniedException"]), max_size=2)
)
throttles = st.one_of(st.none(), st.tuples(st.integers(1, 3), st.sampled_from([0.2, 1.0, 5.0])))
lags = st.one_of(st.just((0, 0)), st.tuples(st.integers(0, 3), st.integers(0, 3)))
whose = st.integers(0, 1)
places = st.integers(0, 7)
numbers = st.sampled_from([1, 1, 2, 3, 32765, 32766])
nlbs = st.sampled_from(["A", "B", "C"])
tags = st.sampled_from(
    [
        {"mirror": "yes"},
        {"mirror": "yes"},
        {"mirror": "yes"},
        {"mirror": "yes", "env": "prod"},
        {"mirror": "no"},
        {"env": "test", "Name": "web1"},
        {"mirror:until": "2026-11-23T09:00:00Z"},
        {"mirror:until": "2027-01-01T00:00:00Z"},
        {},
    ]
)
groups = st.sampled_from(["", "", "web-a", FLEET])
types = st.sampled_from(["m5.large", "m5.large", "m5.large", "t2.micro"])
states = st.sampled_from(["pending", "running", "stopping", "stopped", "shutting-down", "terminated"])
latencies = st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.4]), min_size=1, max_size=5)
budgets = st.sampled_from([PLENTY, PLENTY, PLENTY, 300.0, MARGIN + 5, MARGIN + 1, MARGIN / 2])
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


def deeds(*named: tuple[str, *tuple[st.SearchStrategy[Any], ...]]) -> st.SearchStrategy[Deed]:
    """Methods of Account, each with what it is called with."""
    return st.one_of(*(st.tuples(st.just(name), st.tuples(*arguments)) for name, *arguments in named))


theirs = st.sampled_from([{"tool": "ids"}, {"tool": "ids"}, {}, {OWNER_TAG: "another stack"}, {OWNER_TAG: ""}])
#: What may happen at any moment, also in the middle of a run.
incidents = deeds(
    ("start", places, tags),
    ("tag", places, tags),
    ("tag", places, st.just({"mirror": "yes"})),
    ("untag", places, st.just("mirror")),
    ("power", places, states),
    ("terminate", places, st.booleans()),
    ("attach", places, st.sampled_from(["interface", "interface", "efa-only"]), st.sampled_from([False, False, True])),
    ("detach", places, st.booleans()),
    ("move", places, places),
    ("ours_goes", places),
    ("ours_changes", places, changes),
    ("ours_changes", places, changes),
    ("twin", numbers, places, nlbs, places),
    ("foreign_comes", numbers, places, nlbs, theirs),
    ("foreign_comes", numbers, places, nlbs, theirs),
    ("foreign_changes", places, numbers),
    ("foreign_goes", places),
    ("foreign_is_adopted", places),
    ("health", nlbs, st.sampled_from([Health.HEALTHY, Health.UNHEALTHY, Health.NO_LISTENER, Health.UNKNOWN])),
    ("demolish", nlbs),
    ("remove", st.sampled_from(["A", "B", "C", "D", "f", "g"])),
    ("write", documents),
    ("write", documents),
    ("write_nonsense",),
    ("lose_policy",),
    ("pause",),
    ("resume",),
)
#: What may happen between two runs.
happenings = incidents | deeds(
    ("fill", st.integers(0, 2)),
    ("launch", st.integers(1, 2), tags, groups, types, st.integers(1, 2), st.sampled_from("12")),
    ("launch", st.integers(1, 2), tags, groups, types, st.integers(1, 2), st.sampled_from("12")),
    # In the middle of a run IAM refuses what this would lead to; no reconciler could.
    ("ours_loses_tag", places, st.sampled_from([OWNER_TAG, "mirror:source", "mirror:config", "mirror:created"])),
)


def refuse(account: Account, fault: Fault) -> None:
    (action, code), times, after, lost = fault
    if lost:
        account.cloud.model.fail(action, "Unreachable", times=times, after=after, lost=True)
    else:
        account.cloud.model.fail(action, code, times=times, after=after)


much = st.lists(happenings, max_size=4)


def lone_run(account: Account, container: Container, scope: Scope, seconds: float = PLENTY) -> Report:
    """A run while nothing else happens: all that it did was right, and what it left undone it tells."""
    model, watched = account.cloud.model, container.watched
    shown = model.perform("DescribeTrafficMirrorSessions", {})["TrafficMirrorSessions"]
    before, scene = account.sessions(), account.scene()
    report = container.run(scope, seconds)
    seen = list({one.id: one for one in [*watched.seen.values(), *before]}.values())
    for change in report.deleted:
        assert may_go(change.session, seen, scene), f"deleted for nothing: {change}"
    if any(failure.action is Action.READ for failure in report.failed) or not report.policy:
        assert account.sessions() == before
    for failure in report.failed:  # what may work later comes again
        if failure.action is not Action.READ and failure.answer in (Answer.RETRY, Answer.STOP):
            assert failure.instance in report.unfinished
    lags = model.visible_after or model.lingers or len(shown) != len(before)
    remembers = container.born < account.unsettled and scene.now - account.unsettled < ANSWERS
    if not lags and not remembers and not told(report):
        assert not complaints(before, account.sessions(), account.scene(), looked_at(report, account), refused=True)
    return report


def told(report: Report) -> bool:
    """Whether it says that something is not as the policy wants it."""
    ended = report.everything or report.stopped or report.paused or report.out_of_time
    return bool(ended or report.failed or EXCUSES & {finding.trouble for finding in report.findings})


def settle(account: Account, container: Container) -> None:
    """One full sweep, when all is calm and what was quarantined may be tried again: then all is right, and stays so."""
    account.calm()
    account.write({**account.named, "limits": {"deletes": 10_000, "delete_fraction": 1}})
    account.time.now = account.time().replace(minute=5, second=0) + UNSUPPORTED + timedelta(hours=1)
    before, scene, written = account.sessions(), account.scene(), len(container.watched.writes)
    report = container.run(EVERYTHING)
    assert not (report.stopped or report.paused or report.everything or report.out_of_time)
    assert not complaints(before, account.sessions(), scene)
    for write in container.watched.writes[written:]:
        assert write.operation != "create" or is_wanted(write.session.interface, scene), f"tried in vain: {write}"
    again = container.reconciler.look(EVERYTHING).plan
    assert (again.create, again.modify, again.delete) == ((), (), ())
    there = account.sessions()
    container.run(EVERYTHING)
    assert account.sessions() == there


def looked_at(report: Report, account: Account) -> list[str] | None:
    """Instances that are to be as the policy wants them now. None: all."""
    if report.scope.everything:
        return None
    found = [account.cloud.machines.get(name) for name in report.scope.instances - report.unfinished]
    return [instance.id for instance in found if instance and instance.state == "running"]


class Histories(RuleBasedStateMachine):
    """An account and two containers. Each rule is something that may happen; `settles` may be asked for at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account()
        self.containers = [Container(self.account), Container(self.account)]

    @initialize(document=documents, rest=st.booleans())
    def begins(self, document: dict[str, Any], rest: bool) -> None:
        """So that there is something to lose."""
        plain = {"name": "first", "match": {"tags": {"mirror": ["yes"]}}, "target": ["A", "B"], "filter": "f"}
        begin(self.account, document if rest else {"version": 1, "sources": [plain, *document["sources"]]})

    @rule(refusals=st.lists(refusals, max_size=2), denied=denials, codes=codes, throttle=throttles, lag=lags)
    def trouble(
        self,
        refusals: list[Fault],
        denied: str,
        codes: list[str],
        throttle: tuple[int, float] | None,
        lag: tuple[int, int],
    ) -> None:
        model = self.account.cloud.model
        for refusal in refusals:
            refuse(self.account, refusal)
        if denied:
            model.deny(denied)
        self.account.parameters.refusals += codes
        if throttle:
            model.throttle(self.account.time.seconds, burst=throttle[0], rate=throttle[1])
        model.visible_after, model.lingers = lag

    @rule(seconds=st.sampled_from([1, 30, 61, 400, 3601, 7200, 36_000]), recovers=st.sampled_from([True, True, False]))
    def time_passes(self, seconds: int, recovers: bool) -> None:
        self.account.time.pass_by(seconds)
        if recovers:
            self.account.recover()

    # The functions

    def happens(self, deeds: list[Deed]) -> None:
        self.account.time.pass_by(1)  # two containers tell what they make apart by the second
        for deed in deeds:
            self.account.do(deed)

    @rule(which=whose, delays=latencies)
    def restarts(self, which: int, delays: list[float]) -> None:
        self.containers[which] = Container(self.account, delays)

    @rule(first=much, which=whose, heard=st.lists(places, max_size=4), again=st.booleans(), seconds=budgets)
    def hears(self, first: list[Deed], which: int, heard: list[int], again: bool, seconds: float) -> None:
        """Some of the news, in any order; some of it twice."""
        self.happens(first)
        news = self.account.news[::-1]
        events = [news[index] for index in heard if index < len(news)]
        if not again:
            self.account.news = [event for event in self.account.news if event not in events]
        now = self.account.time()
        scopes = [scope for event in events if (scope := understand(event, now).scope)]
        lone_run(self.account, self.containers[which], union(scopes), seconds)

    @rule(first=much, which=whose, seconds=budgets, changed=st.booleans())
    def sweeps(self, first: list[Deed], which: int, seconds: float, changed: bool) -> None:
        self.happens(first)
        self.account.news.clear()
        lone_run(self.account, self.containers[which], Scope(everything=True, policy_changed=changed), seconds)

    @rule(first=much, place=places, delays=latencies)
    def looks_at_one(self, first: list[Deed], place: int, delays: list[float]) -> None:
        """A container that remembers nothing."""
        self.happens(first)
        if found := self.account.instance(place):
            lone_run(self.account, Container(self.account, delays), Scope(instances=frozenset({found.id})), PLENTY)

    @rule(which=whose)
    def sees_no_instance(self, which: int) -> None:
        self.account.unseen.update(self.account.cloud.machines)
        report = self.containers[which].run(EVERYTHING)
        self.account.unseen.clear()
        assert not report.deleted
        old = [session for session in self.account.ours() if not is_young(session, self.account.time())]
        if report.plan.actual and old and not report.paused:
            assert count(report.findings, Trouble.GUARD)

    @rule(
        first=much,
        scopes=st.lists(st.one_of(st.none(), places), min_size=1, max_size=2),
        starts=st.lists(st.sampled_from([0.0, 0.0, 0.05, 0.3, 2.0]), min_size=2, max_size=2),
        happen=st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.2, 0.45, 1.0, 2.5, 70.0]), incidents), max_size=4),
        killed=st.sampled_from([None, None, 0.1, 0.4, 1.3]),
    )
    def at_once(
        self,
        first: list[Deed],
        scopes: list[int | None],
        starts: list[float],
        happen: list[tuple[float, Deed]],
        killed: float | None,
    ) -> None:
        """Up to two containers and the account's own life, call by call. One may be ended in the middle."""
        self.happens(first)
        runners = []
        for container, place, start in zip(self.containers, scopes, starts, strict=False):
            found = None if place is None else self.account.instance(place)
            scope = Scope(instances=frozenset({found.id})) if found else EVERYTHING
            runners.append(self.account.together.start(partial(container.run, scope), start))
        for after, deed in happen:
            self.account.together.start(partial(self.account.do, deed), after)
        if killed is not None:
            self.account.together.start(runners[0].kill, killed)
        self.account.together.run()
        if killed is not None:
            self.containers[0] = Container(self.account)

    # What is true in the end

    @rule(which=st.integers(0, 2))
    def settles(self, which: int) -> None:
        assert [words for one in self.containers for words in too_quick(one, rate=2)] == []
        settle(self.account, [*self.containers, Container(self.account)][which])

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


def too_quick_though_throttled(container: Container, rate: float) -> list[str]:
    """In the minute after a throttled write half the rate is too much already, and there is no burst."""
    times = [write.at.timestamp() for write in container.watched.writes]
    return [
        f"{len(later)} writes in {later[-1] - then} s after a throttled one"
        for then in (moment.timestamp() for moment in container.watched.throttled)
        for count in range(1, sum(then < time <= then + 60 for time in times) + 1)
        if len(later := [time for time in times if time > then][:count]) > rate / 2 * (later[-1] - then) + 1e-6
    ]


Histories.TestCase.settings = settings(max_examples=100 * PATIENCE, stateful_step_count=30)
TestHistories = Histories.TestCase


# The same, closer together


def begin(account: Account, document: dict[str, Any]) -> None:
    """Three instances with something that may be mirrored, and something that never is."""
    account.launch(2, {"mirror": "yes"}, interfaces=2)
    account.launch(1, {"mirror": "yes", "env": "prod"}, group="web-a", vpc="2")
    account.attach(0, "interface", managed=True)
    account.attach(1, "efa-only", managed=False)
    account.write(document)


@settings(max_examples=250 * PATIENCE)
@given(document=documents, happened=st.lists(happenings, max_size=25), later=documents, swept=st.booleans())
def test_one_sweep_makes_of_any_world_what_the_policy_wants(
    document: dict[str, Any], happened: list[Deed], later: dict[str, Any], swept: bool
) -> None:
    account = Account()
    begin(account, document)
    container = Container(account)
    if swept:
        container.run(EVERYTHING)
    for deed in happened:
        account.do(deed)
    if swept:
        account.write(later)
    settle(account, container)


@settings(max_examples=200 * PATIENCE)
@given(
    document=documents,
    later=documents,
    happened=st.lists(happenings, max_size=6),
    faults=st.lists(st.one_of(*(st.tuples(codes, often, few, lost) for codes in WRITES)), min_size=1),
    denied=denials,
    narrow=st.booleans(),
)
def test_every_refusal_is_overcome_or_told(
    document: dict[str, Any],
    later: dict[str, Any],
    happened: list[Deed],
    faults: list[Fault],
    denied: str,
    narrow: bool,
) -> None:
    account = Account()
    begin(account, document)
    lone_run(account, Container(account), EVERYTHING)
    for deed in happened:
        account.do(deed)
    account.write(later)
    account.recover()
    for fault in faults:
        refuse(account, fault)
    if denied:
        account.cloud.model.deny(denied)
    container = Container(account)
    for one in account.instances() if narrow else ():
        account.time.pass_by(1)
        lone_run(account, container, Scope(instances=frozenset({one.id})))
    account.time.pass_by(1)
    lone_run(account, container, EVERYTHING)
    assert too_quick(container, rate=2) == []
    settle(account, container)


@settings(max_examples=150 * PATIENCE)
@given(
    document=documents,
    later=documents,
    healths=st.lists(st.tuples(nlbs, st.sampled_from([*Health])), max_size=2),
    seconds=st.integers(1, 58),
)
def test_what_is_remembered_deletes_and_alters_nothing(
    document: dict[str, Any], later: dict[str, Any], healths: list[tuple[str, Health]], seconds: int
) -> None:
    """A container that knows the policy and the targets of a minute ago, after another one that knows today's."""
    account = Account()
    begin(account, document)
    stale = Container(account)
    stale.run(EVERYTHING)
    account.time.pass_by(1)
    account.write({**later, "limits": {"deletes": 100, "delete_fraction": 1}})
    for target, health in healths:
        account.health(target, health)
    Container(account).run(EVERYTHING)
    there = account.sessions()
    account.time.pass_by(seconds)
    for one in account.instances():
        stale.run(Scope(instances=frozenset({one.id})))
    assert [session for session in there if session not in account.sessions()] == []


@settings(max_examples=150 * PATIENCE)
@given(
    document=documents,
    first=st.lists(happenings, max_size=5),
    runs=st.lists(
        st.tuples(st.one_of(st.none(), places), st.sampled_from([0.0, 0.05, 0.3, 1.0, 2.0]), latencies),
        min_size=2,
        max_size=3,
    ),
    during=st.lists(st.tuples(st.floats(0, 4), incidents), max_size=3),
    lag=lags,
)
def test_several_at_once_do_no_harm(
    document: dict[str, Any],
    first: list[Deed],
    runs: list[tuple[int | None, float, list[float]]],
    during: list[tuple[float, Deed]],
    lag: tuple[int, int],
) -> None:
    account = Account()
    begin(account, document)
    for deed in first:
        account.do(deed)
    account.cloud.model.visible_after, account.cloud.model.lingers = lag
    containers = []
    for place, start, delays in runs:
        found = None if place is None else account.instance(place)
        scope = Scope(instances=frozenset({found.id})) if found else EVERYTHING
        containers.append(Container(account, delays))
        account.together.start(partial(containers[-1].run, scope), start)
    for after, deed in during:
        account.together.start(partial(account.do, deed), after)
    account.together.run()
    settle(account, containers[0])


@pytest.mark.parametrize("state", ["running", "stopped"])
@pytest.mark.parametrize("news", ["old", "old new", "new old", "new"])
def test_an_interface_that_moves_keeps_its_session(state: str, news: str) -> None:
    """Whichever of the two instances is looked at first: the one that lost it does not say that nobody has it."""
    account = Account()
    account.launch(2, {"mirror": "yes"}, interfaces=2)
    source = {"name": "web", "match": {"tags": {"mirror": "*"}}, "interfaces": "all", "target": ["A"], "filter": "f"}
    account.write({"version": 1, "sources": [source]})
    container = Container(account)
    container.run(EVERYTHING)
    account.time.pass_by(GRACE.total_seconds())
    [old, new] = [instance.id for instance in account.instances()[:2]]
    [moved] = [session for session in account.ours() if session.interface == account.interfaces()[1].id]
    account.move(1, 1)
    account.power(0, state)
    for name in news.split():
        container.run(Scope(instances=frozenset({{"old": old, "new": new}[name]})))
        assert moved.id in {session.id for session in account.ours()}
    container.run(EVERYTHING)
    [now] = [session for session in account.ours() if session.id == moved.id]
    assert now.description == new
    assert complaints(account.sessions(), account.sessions(), account.scene()) == []


def test_what_is_deleted_makes_room_in_the_same_sweep() -> None:
    account = Account()
    account.fill(left=3)
    account.launch(3, {"mirror": "yes"})
    source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}, "target": ["D"], "filter": "f"}
    account.write({"version": 1, "sources": [source]})
    container = Container(account)
    container.run(EVERYTHING)
    assert len(account.ours()) == 3
    for _ in range(3):
        account.untag(0, "mirror")
        account.power(0, "terminated")
    account.launch(3, {"mirror": "yes"})
    before = account.sessions()
    report = container.run(EVERYTHING)
    assert complaints(before, account.sessions(), account.scene()) == []
    assert (len(report.deleted), len(report.created), report.failed) == (3, 3, ())


# No delete at all


def mirrored(n: int, *, age: timedelta = GRACE, **limits: float) -> tuple[Account, Container]:
    """An account with so many mirrored instances, and the container that did it some time ago."""
    account = Account()
    account.launch(n, {"mirror": "yes"})
    source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}, "target": ["A", "B"], "filter": "f"}
    account.write({"version": 1, "sources": [source], "limits": limits})
    container = Container(account)
    container.run(EVERYTHING)
    assert len(account.ours()) == n
    account.time.pass_by(age.total_seconds())
    return account, container


@settings(max_examples=60 * PATIENCE)
@given(
    n=st.sampled_from([1, 4, 11, 12, 13, 14]),
    ends=st.sampled_from(["uv", "vv", "su", "s", "uuu ", "u   ", "suv", " "]).flatmap(
        lambda kinds: st.lists(st.sampled_from(kinds), min_size=14, max_size=14)
    ),
    most=st.sampled_from([0, 3, 6, 100, 100, 100]),
    fraction=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    narrow=st.booleans(),
    young=st.booleans(),
    again=st.booleans(),
)
def test_no_run_deletes_more_than_its_limits(
    n: int, ends: list[str], most: int, fraction: float, narrow: bool, young: bool, again: bool
) -> None:
    age = GRACE / 2 if young else GRACE
    account, container = mirrored(n, age=age, deletes=most, delete_fraction=fraction)
    names = [instance.id for instance in account.instances()[:n]]
    selected = evident = 0
    for name, end in zip(names, ends, strict=False):
        if end == "u":
            account.cloud.untag([name], ["mirror"])
        elif end == "v":
            account.unseen.add(name)
        elif end == "s":
            account.cloud.stop([name])
        selected += end == "u" or (end == "v" and not narrow and not young)
        evident += end == "s"
    before = account.sessions()
    asked = Scope(instances=frozenset(names)) if narrow else EVERYTHING
    report = (Container(account) if again else container).run(asked)
    too_many = selected + evident > most or (not narrow and selected > max(FREE_DELETES, fraction * n))
    if too_many:
        assert account.sessions() == before
        assert [finding.trouble for finding in report.findings] == [Trouble.GUARD] * (selected + evident > 0)
    else:
        assert len(report.deleted) == selected + evident
        assert not report.findings


@settings(max_examples=60 * PATIENCE)
@given(
    action=st.sampled_from([*LOOKS, "GetParameters", "policy"]),
    code=st.sampled_from(["RequestLimitExceeded", "UnauthorizedOperation", "InternalError", "Unreachable", "Unheard"]),
    page=st.booleans(),
    scope=st.sampled_from(["everything", "policy", "narrow"]),
    warm=st.booleans(),
)
def test_half_a_look_and_no_policy_change_nothing(action: str, code: str, page: bool, scope: str, warm: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fake_cloud, "PAGE", 5)
        account, container = mirrored(7)
        names = frozenset(instance.id for instance in account.instances())
        for name in list(names)[:4]:
            account.cloud.untag([name], ["mirror"])
        account.twin(3, 1, "B", 0)
        account.launch(2, {"mirror": "yes"})
        before = account.sessions()
        lists = ("DescribeInstances", "DescribeTrafficMirrorSessions")
        if action == "GetParameters":
            account.parameters.refusals = [code]
        elif action == "policy":
            account.parameters.texts = ["sources: [", "version: 2"]
        elif page and action in lists and scope != "narrow":
            account.cloud.model.fail(action, code, times=99, when=lambda call: "NextToken" in call)
        else:
            account.cloud.model.fail(action, code, times=99)
        asked = {
            "everything": EVERYTHING,
            "policy": Scope(everything=True, policy_changed=True),
            "narrow": Scope(instances=names),
        }[scope]
        report = (container if warm else Container(account)).run(asked)
        assert account.sessions() == before
        if action == "policy":
            assert "Nothing was changed" in report.stopped
            assert len(report.refused) == 2
        else:
            [failure] = report.failed
            assert (failure.action, failure.code, report.everything) == (Action.READ, code, True)


# Time


@settings(max_examples=40 * PATIENCE)
@given(
    n=st.integers(1, 40),
    rate=st.sampled_from([0.1, 0.5, 1, 2, 5]),
    delays=latencies,
    seconds=st.sampled_from([MARGIN - 1, MARGIN + 0.5, MARGIN + 3, MARGIN + 20, 300.0]),
    throttle=st.one_of(st.none(), st.tuples(st.integers(1, 4), st.sampled_from([0.1, 0.5, 2.0]))),
    busy=st.lists(st.floats(0, 30), min_size=1, max_size=4),
)
def test_writes_are_paced_and_a_run_ends_in_time(
    n: int, rate: float, delays: list[float], seconds: float, throttle: tuple[int, float] | None, busy: list[float]
) -> None:
    """From run to run of a container too. What a run leaves, the next one does."""
    account = Account()
    account.launch(n, {"mirror": "yes"})
    source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}, "target": ["A"], "filter": "f"}
    account.write({"version": 1, "sources": [source], "limits": {"writes_per_second": rate}})
    if throttle:
        account.cloud.model.throttle(account.time.seconds, burst=throttle[0], rate=throttle[1])
    container = Container(account, delays)
    for pause in busy:
        report = container.run(EVERYTHING, seconds)
        left = {instance.id for instance in account.instances()[:n]} - {one.description for one in account.ours()}
        assert left == set() or report.everything or report.unfinished == left
        assert seconds >= MARGIN or not report.changes
        account.time.pass_by(pause)
    assert too_quick(container, rate) == []
    assert not throttle or too_quick_though_throttled(container, rate) == []
    account.cloud.model.faults.clear()
    account.time.pass_by(60)
    container.run(EVERYTHING)
    assert len(account.ours()) == n


@settings(max_examples=60 * PATIENCE)
@given(
    delays=latencies,
    moment=st.floats(0, 12),
    turn=st.sampled_from(["make", "move", "delete"]),
)
def test_a_pause_ends_a_run_within_a_second(delays: list[float], moment: float, turn: str) -> None:
    """`Watched` holds every write to it; here it is that nothing more is written, and that it goes on afterwards."""
    account, _ = mirrored(6, deletes=100, delete_fraction=1, writes_per_second=0.5)
    container = Container(account, delays)
    if turn == "make":
        account.launch(6, {"mirror": "yes"})
    elif turn == "move":
        account.write({**account.named, "sources": [{**account.named["sources"][0], "filter": "g"}]})
    else:
        account.write({"version": 1, "limits": account.named["limits"]})
    start = account.time()
    account.together.start(partial(container.run, EVERYTHING))
    account.together.start(account.pause, moment)
    account.together.run()
    [report] = container.reports
    last = max((write.at for write in container.watched.writes), default=start)
    assert (last - start).total_seconds() <= moment + 1.5
    left = complaints(account.sessions(), account.sessions(), account.scene())
    assert report.paused or not left
    account.resume()
    account.time.pass_by(60)
    container.run(EVERYTHING)
    assert complaints(account.sessions(), account.sessions(), account.scene()) == []


def test_a_policy_that_goes_in_the_middle_of_a_run_raises_nothing() -> None:
    """A second look, when what was read a minute ago is not remembered any more."""
    account = Account()
    account.launch(8, {"mirror": "yes"})
    source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}, "target": ["A"], "filter": "f"}
    account.write({"version": 1, "sources": [source], "limits": {"writes_per_second": 0.1}})
    account.cloud.model.fail("CreateTrafficMirrorSession", "InvalidParameterValue", after=7)
    container = Container(account)
    account.together.start(partial(container.run, EVERYTHING))
    account.together.start(account.lose_policy, ANSWERS.total_seconds())
    account.together.run()
    [report] = container.reports
    assert len(account.ours()) == 7
    [failure] = report.failed
    assert failure.instance in report.unfinished


# The stack is deleted while reconciles are in flight

#: Seconds that a call is in flight, at most 33 (then it has timed out), and looks that then do not show what it made.
SLOW = [([0.0, 0.1, 0.7, 20.0, 32.0], 0), ([0.0, 0.1, 0.7, 5.0], 1)]


@settings(max_examples=150 * PATIENCE)
@given(
    n=st.integers(0, 12),
    there=st.booleans(),
    starts=st.lists(st.sampled_from([0.0, 0.1, 1.0, 5.0, 25.0]), min_size=2, max_size=2),
    begins=st.sampled_from([0.0, 0.3, 1.2, 3.7, 6.0]),
    own=st.sampled_from([[0.05], [0.5], [5.0, 0.1]]),
    slow=st.sampled_from(SLOW).flatmap(
        lambda slow: st.tuples(st.lists(st.sampled_from(slow[0]), min_size=1, max_size=7), st.integers(0, slow[1]))
    ),
    lingers=st.integers(0, 2),
    refusals=st.lists(
        st.tuples(
            st.sampled_from(["DeleteTrafficMirrorSession", "DescribeTrafficMirrorSessions"]),
            st.sampled_from(["RequestLimitExceeded", "InternalError", "UnauthorizedOperation"]),
            st.sampled_from([1, 3, 99]),
        ),
        max_size=2,
    ),
)
def test_a_deleted_stack_leaves_no_session_of_ours_or_says_so(
    n: int,
    there: bool,
    starts: list[float],
    begins: float,
    own: list[float],
    slow: tuple[list[float], int],
    lingers: int,
    refusals: list[tuple[str, str, int]],
) -> None:
    account = Account()
    account.launch(n, {"mirror": "yes"})
    account.foreign_comes(1, 0, "A", {"tool": "ids"})
    source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}, "target": ["A", "B"], "filter": "f"}
    account.write({"version": 1, "sources": [source]})
    if there:
        Container(account).run(EVERYTHING)
    foreign = account.foreign()
    delays, account.cloud.model.visible_after = slow
    account.cloud.model.lingers = lingers
    for action, code, times in refusals:
        account.cloud.model.fail(action, code, times=times)
    outcomes: list[lifecycle.Outcome] = []
    event: dict[str, Any] = {"RequestType": "Delete", "ResponseURL": "https://127.0.0.1/"}
    requests = [event]
    watched = Container(account, own).watched
    watched.is_custom = True
    custom = Lifecycle(
        watched,
        account,
        NoQueue(),
        requests.append,
        Environment(owner=OWNER),
        account.time,
        account.together.sleep,
    )

    def left_until(end: float) -> float:
        return end - account.time.seconds()

    def delete() -> None:
        while requests:
            outcomes.append(custom.run(requests.pop(), partial(left_until, account.time.seconds() + 200)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lifecycle, "deliver", lambda url, body, sleep: None)
        for start in starts:
            account.together.start(lambda: Container(account, delays).run(EVERYTHING, 900.0), start)
        account.together.start(delete, begins)
        account.together.run()
    assert outcomes[-1].status in ("SUCCESS", "FAILED")
    assert all(outcome.status == "AGAIN" for outcome in outcomes[:-1])
    if outcomes[-1].status == "SUCCESS":
        assert account.ours() == []
    else:
        assert refusals, outcomes[-1]
    assert account.foreign() == foreign


class NoQueue:
    def enqueue(self, message: dict[str, Any], delay: int) -> None:
        raise AssertionError("nothing is queued by a Delete")
