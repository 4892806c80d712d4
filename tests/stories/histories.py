"""An account to which anything can happen, and containers that reconcile it, with every call of theirs watched.

`Together` runs several of them at once on one clock: each is a thread, of which only one moves at a time, and a call or
a sleep is where the next may go on. Which one is decided by the latencies alone, so that a run repeats.
"""

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import cycle
from typing import Any

from hypothesis import strategies as st

from lab.cloud.faults import ApiError
from mirroring.environment import Environment
from mirroring.model import (
    OWNER_TAG,
    Filter,
    Health,
    Instance,
    Interface,
    Refused,
    Scope,
    Session,
    Target,
)
from mirroring.policy import Policy, PolicyError, load
from mirroring.reconcile import Reconciler
from mirroring.report import Change, Report
from mirroring.store import InForce, NoPolicy, Refusal
from tests.layers.mirroring.fake_cloud import FakeCloud, FakeTime
from tests.stories.oracle import SOURCES_OF_AN_INTERFACE, Place, Scene

OWNER = "traffic-replay"
FLEET = "workers"
PLENTY = 100_000.0  # seconds
_PROMPT = 0.4  # seconds, at most, of a look at the switch
EVERYTHING = Scope(everything=True)


class Killed(BaseException):
    """The container was ended in the middle, as Lambda does at its timeout. No `except Exception` holds it up."""


# Several at once


class _Actor:
    def __init__(self, deed: Callable[[], object], wake: datetime, order: int, back: threading.Semaphore) -> None:
        self.wake = wake
        self.order = order
        self.over = False
        self.killed = False
        self.trouble: BaseException | None = None
        self._deed = deed
        self._back = back
        self._turn = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._turn.acquire()
        try:
            if not self.killed:
                self._deed()
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001  handed to the thread that waits
            self.trouble = error
        self.over = True
        self._back.release()

    def kill(self) -> None:
        self.killed = True

    def go_on(self) -> None:
        """Its own thread moves until it waits again, or ends."""
        self._turn.release()
        self._back.acquire()
        if self.over:
            self._thread.join()

    def wait(self) -> None:
        self._back.release()
        self._turn.acquire()
        if self.killed:
            raise Killed


class Together:
    """A clock for one, or for several at once."""

    def __init__(self, time: FakeTime) -> None:
        self.time = time
        self._actors: list[_Actor] = []
        self._moving: _Actor | None = None
        self._back = threading.Semaphore(0)
        self._order = 0

    def start(self, deed: Callable[[], object], after: float = 0.0) -> _Actor:
        self._order += 1
        actor = _Actor(deed, self.time.now + timedelta(seconds=after), self._order, self._back)
        self._actors.append(actor)
        return actor

    def sleep(self, seconds: float) -> None:
        actor = self._moving
        if actor is None:
            self.time.sleep(seconds)
            return
        self._order += 1
        actor.wake, actor.order = self.time.now + timedelta(seconds=seconds), self._order
        actor.wait()

    def run(self) -> None:
        """Until all are through."""
        try:
            while self._actors:
                actor = min(self._actors, key=lambda one: (one.wake, one.order))
                self.time.now = max(self.time.now, actor.wake)
                self._move(actor)
                if actor.trouble:
                    raise actor.trouble
        finally:
            for actor in list(self._actors):
                actor.killed = True
                self._move(actor)

    def _move(self, actor: _Actor) -> None:
        self._moving = actor
        actor.go_on()
        self._moving = None
        if actor.over:
            self._actors.remove(actor)


# The policy, and the switch


@lru_cache(64)
def _loaded(text: str) -> Policy | PolicyError:
    try:
        return load(text)
    except PolicyError as error:
        return error


@dataclass
class Parameters:
    """The versions of the stack's policy, and its switch."""

    texts: list[str] = field(default_factory=list)
    paused_since: datetime | None = None
    refusals: list[str] = field(default_factory=list)  # codes that the next calls are answered with

    def read(self) -> InForce:
        self._answer("GetParameters")
        refused: list[Refusal] = []
        for version in range(len(self.texts), 0, -1):
            text = self.texts[version - 1]
            judged = _loaded(text)
            if isinstance(judged, Policy):
                paused = self.paused_since is not None or judged.paused
                return InForce(judged, text, "/stack/policy", version, paused, tuple(refused), "paused" * paused)
            refused.append(Refusal("/stack/policy", version, judged))
        raise NoPolicy("there is none that is valid", tuple(refused))

    def paused(self) -> bool:
        self._answer("GetParameter")
        return self.paused_since is not None

    def _answer(self, operation: str) -> None:
        if self.refusals:
            raise Refused(operation, self.refusals.pop(0), "Injected.")


# A container


@dataclass(frozen=True)
class Write:
    operation: str
    at: datetime
    session: Session


class Watched:
    """The account and the parameters as one container sees them. Each call takes time.

    Every write is held to what must be so whatever happens: a foreign session is neither its object nor changed by it,
    and the switch was looked at within the last second.
    """

    def __init__(self, account: "Account", latencies: Sequence[float]) -> None:
        self.account = account
        self.writes: list[Write] = []
        self.throttled: list[datetime] = []
        self.seen: dict[str, Session] = {}  # sessions that describes have shown in this run
        self.looked = datetime.min.replace(tzinfo=UTC)  # at the switch
        self.saw_pause = False
        self.is_custom = False  # the custom resource, which deletes while all others are held back
        self._latencies = cycle(latencies)
        self._cloud = account.cloud

    def _read[T](self, perform: Callable[[], T], longest: float = PLENTY) -> T:
        """An answer is as old as the call is long."""
        try:
            return perform()
        finally:
            self.account.together.sleep(min(next(self._latencies), longest))

    # Reads

    @property
    def calls(self) -> int:
        return self._cloud.calls

    def marked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        found = self._read(lambda: self._cloud.marked(ids))
        return {name: instance for name, instance in found.items() if name not in self.account.unseen}

    def sessions(self, *, interfaces: Collection[str] = (), instances: Collection[str] = ()) -> list[Session]:
        found = self._read(lambda: self._cloud.sessions(interfaces=interfaces, instances=instances))
        self.seen |= {session.id: session for session in found}
        return found

    def targets(self, ids: Collection[str] | None) -> dict[str, Target]:
        return self._read(lambda: self._cloud.targets(ids))

    def filters(self, ids: Collection[str]) -> dict[str, Filter]:
        return self._read(lambda: self._cloud.filters(ids))

    def may_create(self, session: Session) -> Refused | None:
        return self._read(lambda: self._cloud.may_create(session))

    def read(self) -> InForce:
        found = self._read(self.account.parameters.read, _PROMPT)
        self.looked, self.saw_pause = self.account.time(), found.paused
        return found

    def paused(self) -> bool:
        self.saw_pause = self._read(self.account.parameters.paused, _PROMPT)
        self.looked = self.account.time()
        return self.saw_pause

    # Writes

    def create(self, session: Session, token: str) -> Session:
        assert session.tags.get(OWNER_TAG) == OWNER, f"made without our tag: {session}"
        return self._write("create", session, lambda: self._cloud.create(session, token))

    def modify(self, before: Session, after: Session) -> Session:
        return self._write("modify", before, lambda: self._cloud.modify(before, after))

    def retag(self, before: Session, after: Session) -> None:
        self._write("retag", before, lambda: self._cloud.retag(before, after))

    def delete(self, session: Session) -> None:
        self._write("delete", session, lambda: self._cloud.delete(session))

    def _write[T](self, operation: str, session: Session, perform: Callable[[], T]) -> T:
        now = self.account.time()
        if not self.is_custom:
            assert (now - self.looked).total_seconds() <= 1.0, f"{operation} long after the last look at the switch"
            assert not self.saw_pause, f"{operation} though the last look saw a pause"
        self.writes.append(Write(operation, now, session))

        self.account.together.sleep(next(self._latencies))  # it takes effect as late as it may
        foreign = self.account.foreign()
        assert session.id not in {one.id for one in foreign}, f"{operation} of a foreign session: {session}"
        try:
            return perform()
        except Refused as refused:
            if refused.code == "RequestLimitExceeded":
                self.throttled.append(self.account.time())
            raise
        finally:
            assert self.account.foreign() == foreign, f"{operation} of {session} changed a foreign session"


class Container:
    """A function's container: its reconciler, with a memory of its own."""

    def __init__(self, account: "Account", latencies: Sequence[float] = (0.0,)) -> None:
        self.account = account
        self.born = account.time()
        self.watched = Watched(account, latencies)
        self.reports: list[Report] = []
        environment = Environment(owner=OWNER, worker_groups=frozenset({FLEET}))
        self.reconciler = Reconciler(self.watched, self.watched, environment, account.time, account.together.sleep)

    def run(self, scope: Scope, seconds: float = PLENTY, on_change: Callable[[Change], None] | None = None) -> Report:
        """One invocation. It ends within its time, whatever happens."""
        start = self.account.time.seconds()
        self.watched.seen.clear()

        def remaining() -> float:
            return seconds - (self.account.time.seconds() - start)

        report = self.reconciler.run(scope, remaining, on_change=on_change)
        assert remaining() >= 0, f"{-remaining()} s too late"
        self.reports.append(report)
        return report


# The account


@dataclass
class Account:
    """One with three load balancers and an interface as targets, and two filters.

    A deed picks what it is done to by a number: the one at that place, if any. What AWS refuses does not happen.
    """

    cloud: FakeCloud = field(default_factory=FakeCloud)
    parameters: Parameters = field(default_factory=Parameters)
    time: FakeTime = field(default_factory=FakeTime)
    document: dict[str, Any] = field(default_factory=dict)
    named: Mapping[str, Any] = field(default_factory=dict)  # the same, with this account's names
    news: list[dict[str, Any]] = field(default_factory=list)  # events that nobody has heard of yet

    def __post_init__(self) -> None:
        self.together = Together(self.time)
        self.unseen: set[str] = set()  # instances that no describe shows, though they exist
        self.unsettled = self.time.now  # when something changed that containers remember
        self.targets = {"A": self.cloud.nlb_target(), "B": self.cloud.nlb_target(), "C": self.cloud.nlb_target()}
        self.targets |= {"D": self.cloud.eni_target(), "none": "tmt-00000000000000000"}
        self.filters = {"f": self.cloud.filter(), "g": self.cloud.filter([443]), "none": "tmf-00000000000000000"}
        self._apart = set(self.cloud.machines)
        self._hosts = set(self.cloud.machines)
        self.write({"version": 1})

    def fill(self, left: int) -> None:
        """Others take the places of the interface target."""
        others = self.cloud.launch(SOURCES_OF_AN_INTERFACE - left)
        self._apart |= set(others)
        for other in others:
            interface = self.cloud.machines[other].interfaces[0].id
            with suppress(ApiError):
                self.cloud.somebody_creates(self._like_theirs(interface, "D", "f", 1))

    # What there is

    def sessions(self) -> list[Session]:
        return self.cloud.all_sessions()

    def foreign(self) -> list[Session]:
        return [session for session in self.sessions() if session.tags.get(OWNER_TAG) != OWNER]

    def ours(self) -> list[Session]:
        return [session for session in self.sessions() if session.tags.get(OWNER_TAG) == OWNER]

    def instances(self) -> list[Instance]:
        """Those that are at play; the last is a target's."""
        at_play = [machine for name, machine in sorted(self.cloud.machines.items()) if name not in self._apart]
        return at_play + [self.cloud.machines[name] for name in sorted(self._hosts) if name in self.cloud.machines]

    def interfaces(self) -> list[Interface]:
        return [interface for instance in self.instances() for interface in instance.interfaces]

    def instance(self, number: int) -> Instance | None:
        found = [one for one in self.instances() if one.state not in ("shutting-down", "terminated")]
        return found[number % len(found)] if found else None

    def interface(self, number: int) -> Interface | None:
        found = self.interfaces()
        return found[number % len(found)] if found else None

    def scene(self) -> Scene:
        targets = {name: self._place(name) for name in self.cloud.model.targets}
        return Scene(
            self.document,
            OWNER,
            {FLEET},
            dict(self.cloud.machines),
            targets,
            set(self.cloud.model.filters),
            self.time(),
        )

    def _place(self, target: str) -> Place:
        resource = self.cloud.model.targets[target].get("NetworkInterfaceId", "")
        if resource:
            holder = next((one for one in self.cloud.machines.values() if resource in _ids(one)), None)
            state = "gone" if holder is None else "healthy" if holder.state == "running" else "unhealthy"
            return Place("interface", state, resource)
        health = self.cloud.health[target]
        states = {Health.HEALTHY: "healthy", Health.UNKNOWN: "healthy", Health.GONE: "gone"}
        return Place("nlb", states.get(health, "unhealthy"))

    # What happens. Each deed gives the events that tell of it.

    def do(self, deed: tuple[str, tuple[Any, ...]]) -> None:
        """By its name."""
        getattr(self, deed[0])(*deed[1])

    def launch(
        self,
        n: int,
        tags: Mapping[str, str],
        group: str = "",
        type: str = "m5.large",  # noqa: A002  AWS's own word
        interfaces: int = 1,
        vpc: str = "1",
    ) -> None:
        place = {"vpc": f"vpc-{vpc}", "subnet": f"subnet-{vpc}"}
        for name in self.cloud.launch(n, tags=tags, group=group, type=type, interfaces=interfaces, **place):
            self._tell_state(name, "running")

    def start(self, number: int, tags: Mapping[str, str]) -> None:
        self.power(number, "running")
        self.tag(number, tags)

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        if found := self.instance(number):
            self.cloud.tag([found.id], tags)
            self._tell_tags(found.id)

    def untag(self, number: int, key: str) -> None:
        if found := self.instance(number):
            self.cloud.untag([found.id], [key])
            self._tell_tags(found.id)

    def power(self, number: int, state: str) -> None:
        if found := self.instance(number):
            self.cloud.set_state([found.id], state)
            self._tell_state(found.id, state)
            self._unsettle()

    def terminate(self, number: int, vanishes: bool) -> None:
        if found := self.instance(number):
            (self.cloud.vanish if vanishes else self.cloud.terminate)([found.id])
            self._tell_state(found.id, "terminated")
            self._unsettle()

    def attach(self, number: int, kind: str, managed: bool) -> None:
        if found := self.instance(number):
            self.cloud.attach(found.id, kind=kind, requester_managed=managed)
            self._tell_call("AttachNetworkInterface", {"instanceId": found.id})

    def detach(self, number: int, delete: bool) -> None:
        if found := self.interface(number):
            self.cloud.detach(found.id, delete=delete)
            self._tell_call("DetachNetworkInterface", {"attachmentId": "eni-attach-1"})
            self._unsettle()

    def move(self, number: int, to: int) -> None:
        found, other = self.interface(number), self.instance(to)
        if found and other and found.device_index and other.id != found.instance:
            self.cloud.detach(found.id)
            self.cloud.attach(other.id, found.id)
            self._tell_call("AttachNetworkInterface", {"instanceId": other.id})

    def health(self, target: str, health: Health) -> None:
        if self.cloud.health.get(self.targets[target]) not in (None, Health.GONE) and target != "D":
            self.cloud.health[self.targets[target]] = health
            self._unsettle()

    def demolish(self, target: str) -> None:
        if self.targets[target] in self.cloud.model.targets and target != "D":
            self.cloud.delete_load_balancer(self.targets[target])
            self._unsettle()

    def remove(self, name: str) -> None:
        """A target or a filter, unless something uses it."""
        known = {**self.targets, **self.filters}[name]
        with suppress(ApiError):
            self.cloud.model.perform("DeleteTrafficMirrorFilter", {"TrafficMirrorFilterId": known})
        with suppress(ApiError):
            self.cloud.delete_target(known)
        self._unsettle()

    def foreign_comes(self, number: int, place: int, target: str, tags: Mapping[str, str]) -> None:
        if found := self.interface(place):
            made = self._like_theirs(found.id, target, "f", number)
            with suppress(ApiError):
                self.cloud.somebody_creates(replace(made, tags=dict(tags)))

    def foreign_changes(self, which: int, number: int) -> None:
        if found := _at(self.foreign(), which):
            self._alter(found, number=number)

    def foreign_goes(self, which: int) -> None:
        if found := _at(self.foreign(), which):
            self._drop(found)

    def twin(self, number: int, place: int, target: str, named: int) -> None:
        """A session with our tag, though not by us: such as a second container's, or a copy by hand."""
        if found := self.interface(place):
            other = self.instance(named)
            name = other.id if other and named % 2 else found.instance
            made = self._like_theirs(found.id, target, "f", number)
            with suppress(ApiError):
                self.cloud.somebody_creates(replace(made, description=name, tags={OWNER_TAG: OWNER}))

    def ours_goes(self, which: int) -> None:
        if found := _at(self.ours(), which):
            self._drop(found)

    def ours_changes(self, which: int, changes: Mapping[str, Any]) -> None:
        if found := _at(self.ours(), which):
            named = {"target": self.targets, "filter": self.filters}
            self._alter(found, **{key: named.get(key, {}).get(value, value) for key, value in changes.items()})

    def ours_loses_tag(self, which: int, key: str) -> None:
        if found := _at(self.ours(), which):
            with suppress(ApiError):
                self.cloud.model.remove_tags(found.id, {key: None})

    def foreign_is_adopted(self, which: int) -> None:
        if found := _at(self.foreign(), which):
            with suppress(ApiError):
                self.cloud.model.put_tags(found.id, {OWNER_TAG: OWNER})

    def write(self, document: Mapping[str, Any]) -> None:
        """A policy, in which targets and filters have the names of this account."""
        self.named = document
        sources = [
            source
            | {"target": [self.targets[name] for name in source["target"]], "filter": self.filters[source["filter"]]}
            for source in document.get("sources", [])
        ]
        self.document = {**document, "sources": sources}
        self._put(_text(self.document))

    def write_nonsense(self) -> None:
        """Refused: the version before stays in force."""
        self._put("sources: [")

    def lose_policy(self) -> None:
        self.parameters.texts.clear()
        self.unsettled = self.time.now

    def pause(self) -> None:
        self.parameters.paused_since = self.parameters.paused_since or self.time.now

    def remove_switch(self) -> None:
        self.pause()  # what is gone holds back too

    def resume(self) -> None:
        self.parameters.paused_since = None
        self.unsettled = self.time.now

    def recover(self) -> None:
        """No call fails any more, what is done from now on shows at once, and there is a policy, in force."""
        self.cloud.model.faults.clear()
        self.cloud.model.visible_after = self.cloud.model.lingers = 0
        self.parameters.refusals.clear()
        self.resume()
        if not self.parameters.texts or self.parameters.texts[-1] != _text(self.document):
            self._put(_text(self.document))

    def calm(self) -> None:
        """Nothing is amiss any more, and everything shows."""
        self.recover()
        for _ in range(5):
            self.cloud.model.perform("DescribeTrafficMirrorSessions", {})

    # How

    def _put(self, text: str) -> None:
        self.parameters.texts.append(text)
        self.unsettled = self.time.now
        detail = {"operation": "Update", "name": "/stack/policy"}
        self._tell("aws.ssm", "Parameter Store Change", detail)

    def _unsettle(self) -> None:
        self.unsettled = self.time.now

    def _like_theirs(self, interface: str, target: str, rules: str, number: int) -> Session:
        return Session(
            "", interface, self.targets[target], self.filters[rules], number, None, None, "theirs", {"tool": "ids"}
        )

    def _drop(self, session: Session) -> None:
        with suppress(ApiError):
            self.cloud.somebody_deletes(session.id)

    def _alter(self, session: Session, **changes: Any) -> None:
        with suppress(ApiError):
            self.cloud.somebody_modifies(session.id, **changes)

    def _tell_state(self, instance: str, state: str) -> None:
        self._tell("aws.ec2", "EC2 Instance State-change Notification", {"instance-id": instance, "state": state})

    def _tell_tags(self, instance: str) -> None:
        detail = {"service": "ec2", "resource-type": "instance", "tags": {"mirror": "out of date"}}
        self._tell(
            "aws.tag", "Tag Change on Resource", detail, [f"arn:aws:ec2:eu-west-1:123456789012:instance/{instance}"]
        )

    def _tell_call(self, name: str, parameters: Mapping[str, str]) -> None:
        detail = {"eventSource": "ec2.amazonaws.com", "eventName": name, "requestParameters": parameters}
        self._tell("aws.ec2", "AWS API Call via CloudTrail", detail)

    def _tell(self, source: str, kind: str, detail: Mapping[str, Any], resources: Sequence[str] = ()) -> None:
        time = self.time().isoformat()
        self.news.append(
            {"source": source, "detail-type": kind, "time": time, "detail": dict(detail), "resources": list(resources)}
        )


def _text(document: Mapping[str, Any]) -> str:
    """JSON is YAML."""
    return json.dumps(document)


def _ids(instance: Instance) -> set[str]:
    return {interface.id for interface in instance.interfaces}


def _at(sessions: Sequence[Session], which: int) -> Session | None:
    return sessions[which % len(sessions)] if sessions else None


# Policies

_MATCHES = st.sampled_from(
    [
        *[{"tags": {"mirror": ["yes"]}}] * 6,
        {"tags": {"mirror": "*"}},
        {"tags": {"mirror": "*"}},
        {"tags": {"mirror": ["yes", "no"], "env": "*"}},
        {"tags": {"mirror:until": "*"}},
        {"tags": {"env": ["prod", "test"]}, "vpcs": ["vpc-1"]},
        {"vpcs": ["vpc-1", "vpc-2"]},
        {"subnets": ["subnet-2"]},
        {"groups": ["web-*"]},
        {"names": ["web?"]},
        {"instances": ["i-00000000000000009", "i-0000000000000000a"]},
    ]
)
_EXEMPT = st.sampled_from([{"tags": {"env": ["prod"]}}, {"groups": ["web-?"]}, {"vpcs": ["vpc-2"], "names": ["*"]}])
_WINDOWS = st.fixed_dictionaries(
    {"from": st.sampled_from(["08:00", "22:00", "00:00"]), "to": st.sampled_from(["09:00", "18:00", "06:00"])},
    optional={"days": st.lists(st.sampled_from(["mon", "tue", "sun"]), min_size=1, unique=True)},
)
_TARGETS = st.sampled_from("A A A A B B B C C C D D none".split())
_SOURCES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["web", "api", "all"]),
        "match": _MATCHES,
        "target": st.lists(_TARGETS, min_size=1, max_size=3, unique=True),
        "filter": st.sampled_from("f f f f f g g g g none".split()),
    },
    optional={
        "except": _EXEMPT,
        "description": st.sampled_from(["all of production", "a test"]),
        "interfaces": st.sampled_from(["primary", "all", "all", [0, 1], [1]]),
        "share": st.sampled_from([100, 100, 100, 50, 10]),
        "session_number": st.sampled_from([1, 2, 3, 32766]),
        "vni": st.sampled_from([7, 8]),
        "packet_length": st.sampled_from([128, 8500]),
        "windows": st.one_of(st.just([]), st.just([]), st.lists(_WINDOWS, min_size=1, max_size=2)),
    },
)
_LIMITS = st.fixed_dictionaries(
    {},
    optional={
        "deletes": st.sampled_from([0, 1, 100]),
        "delete_fraction": st.sampled_from([0, 0.2, 1]),
        "sessions": st.sampled_from([0, 1, 3, 100]),
    },
)
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "sources": st.lists(_SOURCES, min_size=1, max_size=3, unique_by=lambda source: str(source["name"])),
    },
    optional={"except": _EXEMPT, "delete_on_stop": st.booleans(), "limits": _LIMITS},
)
