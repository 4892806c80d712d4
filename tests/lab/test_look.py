"""A look at a lab that only pretends: what is a worker, what is shown of it, and what is remembered of who is gone.

A lab that runs is looked at in test_vpc.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self, cast

import pytest

from lab.cloud import events
from lab.cloud.emulator import Emulator
from lab.cloud.post import Posted
from lab.crew import Crew
from lab.fabric.balancer.counts import Count, Counts
from lab.fabric.balancers import Balancer
from lab.fabric.fabric import Fabric
from lab.fabric.taps import Copied, Counters, Period
from lab.images import IMAGES
from lab.look import Looker
from lab.machines import MachineError
from lab.records import Records
from lab.view import Mirror
from replayer.ledger import Ledger, as_dict

type Raw = dict[str, Any]


@dataclass
class _Lab:
    """Everything that a Looker asks."""

    instances: list[Raw] = field(default_factory=list)
    sessions: list[Raw] = field(default_factory=list)
    posted: list[Posted] = field(default_factory=list)
    mirrored: list[Period] = field(default_factory=list)
    fleet: dict[str, Ledger | None] = field(default_factory=dict)  # None: it does not answer
    counts: Counts = field(default_factory=Counts)
    health: dict[tuple[str, str], str] = field(default_factory=dict)
    troubled: dict[str, str] = field(default_factory=dict)
    records: Records = field(default_factory=Records)
    _asked: str = ""

    @property
    def machines(self) -> Self:
        return self

    def client(self, service: str) -> Self:
        return self

    def get_paginator(self, name: str) -> Self:
        self._asked = name
        return self

    def paginate(self) -> Iterator[Raw]:
        """A page for each, so that who reads the first alone is found."""
        if self._asked == "describe_instances":
            yield from ({"Reservations": [{"Instances": [one]}]} for one in self.instances)
        else:
            yield from ({"TrafficMirrorSessions": [one]} for one in self.sessions)

    def events(self, after: int) -> list[Posted]:
        return [one for one in self.posted if one.number > after]

    def check(self) -> None:
        """Nothing is broken."""

    def counters(self) -> Counters:
        return Counters({"tms-1": Copied(110, 9)}, 1, 2)

    def workers(self) -> list[str]:
        return sorted(self.fleet)

    def status(self, name: str) -> Raw:
        ledger = self.fleet[name]
        if ledger is None:
            raise MachineError("it does not answer")
        return {"totals": as_dict(ledger)}


def _instance(name: str, image: str, state: str = "running", **tags: str) -> Raw:
    listed = [{"Key": key, "Value": value} for key, value in tags.items()]
    cards = [{"NetworkInterfaceId": f"eni-{name}"}]
    return {
        "InstanceId": name,
        "ImageId": image,
        "State": {"Name": state},
        "Tags": listed,
        "NetworkInterfaces": cards,
    }


@pytest.fixture
def lab() -> _Lab:
    return _Lab([_instance("i-web", IMAGES["web"], Name="web"), _instance("i-worker", IMAGES["worker"])])


def _looker(lab: _Lab) -> Looker:
    return Looker(cast(Emulator, lab), cast(Fabric, lab), cast(Crew, lab), cast(Balancer, lab))


def test_a_worker_is_what_runs_one_and_everything_else_is_shown_as_an_instance(lab: _Lab) -> None:
    looker = _looker(lab)
    lab.instances.append(_instance("i-other", "ami-of-somebody"))
    assert [(one.id, one.name, one.image) for one in looker.look().instances] == [
        ("i-web", "web", "web"),
        ("i-worker", "", "worker"),  # nothing runs in it yet
        ("i-other", "", "ami-of-somebody"),
    ]

    lab.fleet["i-worker"] = None
    lab.health["group", "i-worker"] = "initial"
    seen = looker.look()
    assert [one.id for one in seen.instances] == ["i-web", "i-other"]
    assert [(one.id, one.health, one.received) for one in seen.workers] == [("i-worker", "initial", 0)]


def test_a_worker_that_is_gone_counts_as_it_last_was_and_lives_no_longer(lab: _Lab) -> None:
    looker = _looker(lab)
    lab.fleet = {"i-worker": Ledger(datagrams=7, socket_drops=1)}
    assert looker.look().reached == {"i-worker": 8}

    lab.fleet = {}
    seen = looker.look()
    assert seen.reached == {}
    assert seen.ledger.datagrams == 7
    assert [(one.id, one.received) for one in seen.workers] == [("i-worker", 7)]


def test_everything_that_is_counted_is_in_it(lab: _Lab) -> None:
    refused = {"no target": 3}
    one = Count(received=10, drops=2, forwarded=7, truncated=1, refused=refused)
    lab.counts = Counts({"tms-1": one}, {"i-worker": 7})
    lab.records.forgotten, lab.records.cut = 4, 5
    lab.troubled = {"i-9": "does not boot"}
    seen = _looker(lab).look()

    assert (seen.mirrored, seen.underway_drops, seen.unsent) == (110, 1, 2)
    assert (seen.balancer.received, seen.balancer.socket_drops, seen.balancer.forwarded) == (10, 2, 7)
    assert (seen.balancer.truncated, seen.balancer.refused, seen.balancer.targets) == (1, refused, {"i-worker": 7})
    assert seen.misread == {"requests forgotten": 4, "lines not read": 0, "requests cut short": 5}
    assert seen.troubled == {"i-9": "does not boot"}


@pytest.mark.parametrize(
    ("session", "periods", "mirror", "since"),
    [
        (False, [], Mirror.NO, None),
        (True, [], Mirror.COMING, None),
        (True, [Period("tms-1", "eni-i-web", "i-web", 5.0)], Mirror.YES, 5.0),
        (False, [Period("tms-1", "eni-i-web", "i-web", 5.0)], Mirror.ENDING, 5.0),
        (False, [Period("tms-1", "eni-i-web", "i-web", 5.0, 6.0)], Mirror.NO, 6.0),
    ],
)
def test_what_becomes_of_packets_is_told_by_the_api_and_the_kernel(
    lab: _Lab, session: bool, periods: list[Period], mirror: Mirror, since: float | None
) -> None:
    other = {"NetworkInterfaceId": "eni-other", "TrafficMirrorSessionId": "tms-0"}
    own = {"NetworkInterfaceId": "eni-i-web", "TrafficMirrorSessionId": "tms-1"}
    lab.sessions, lab.mirrored = [other, own] if session else [other], periods
    web = _looker(lab).look().instances[0]

    assert (web.mirror, web.since, web.session) == (mirror, since, "tms-1" if session else "")


def test_what_happens_is_told_once_and_in_its_order(lab: _Lab) -> None:
    looker = _looker(lab)
    running = events.sample("ec2-instance-running")
    lab.posted = [Posted(1, 3.0, running, 1)]
    lab.mirrored = [Period("tms-1", "eni-i-web", "i-web", 5.0)]
    told = ["event: i-1234567890abcdef0 running", "i-web is mirrored (tms-1)"]
    assert [one.text for one in looker.look().happenings] == told

    lab.mirrored = [Period("tms-1", "eni-i-web", "i-web", 5.0, 6.0)]
    assert [one.text for one in looker.look().happenings] == [*told, "i-web is mirrored no more"]
    assert [one.at for one in looker.look().happenings] == [3.0, 5.0, 6.0]


def test_who_is_gone_is_not_shown(lab: _Lab) -> None:
    lab.instances[0]["State"]["Name"] = "terminated"

    assert [one.id for one in _looker(lab).look().instances] == ["i-worker"]
