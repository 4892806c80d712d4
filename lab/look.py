"""Looks at a lab, each as one value: `lab.view.Snapshot`. What is seen is remembered, since workers come and go."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lab.cloud.emulator import Emulator
from lab.cloud.post import Posted
from lab.crew import Crew
from lab.fabric.balancer.counts import total
from lab.fabric.balancers import Balancer as Process
from lab.fabric.fabric import Fabric
from lab.fabric.taps import Period
from lab.happenings import told
from lab.images import IMAGES
from lab.machines import MachineError
from lab.view import Balancer, Happening, Instance, Mirror, Snapshot, Worker
from replayer.ledger import Ledger, add, arrived, from_dict

#: Happenings that are remembered.
HAPPENINGS = 12

_GROUP = "aws:autoscaling:groupName"
_NAMES = {image: name for name, image in IMAGES.items()}
_GONE = ("shutting-down", "terminated")

type Raw = Mapping[str, Any]


class Looker:
    """One for each lab; any thread, but one at a time."""

    def __init__(self, cloud: Emulator, fabric: Fabric, crew: Crew, balancer: Process) -> None:
        self._cloud, self._fabric, self._crew, self._balancer = cloud, fabric, crew, balancer
        self._ec2 = cloud.client("ec2")
        self._ledgers: dict[str, Ledger] = {}  # of workers, as they last were
        self._events = 0  # number of the last one that was read
        self._periods: dict[tuple[str, float], Period] = {}
        self._happenings: deque[Happening] = deque(maxlen=HAPPENINGS)

    def look(self) -> Snapshot:
        self._fabric.check()
        records = self._crew.records
        records.look()
        living = self._ask()
        periods = list(self._fabric.mirrored)
        self._hear(self._cloud.events(self._events), periods)
        found = [one for group in self._pages("instances", "Reservations") for one in group["Instances"]]
        ledger = Ledger()
        for part in self._ledgers.values():
            add(ledger, part)
        misread = {
            "requests forgotten": records.forgotten,
            "lines not read": records.broken,
            "requests cut short": records.cut,
        }
        now = time.time()
        copied, counts = self._fabric.counters(), self._balancer.counts
        count = total(counts)
        return Snapshot(
            at=now,
            instances=self._instances(found, periods, now),
            workers=tuple(self._worker(one) for one in found if one["InstanceId"] in self._ledgers),
            answered=sum(map(len, records.answered.values())),
            received=len(records.received),
            troubled=self._fabric.troubled,
            misread=misread,
            mirrored=copied.packets,
            unsent=copied.unsent,
            underway_drops=copied.dropped,
            balancer=Balancer(
                count.received, count.drops, count.truncated, dict(count.refused), count.forwarded, dict(counts.targets)
            ),
            ledger=ledger,
            reached={name: arrived(self._ledgers[name]) for name in living},
            happenings=tuple(self._happenings),
        )

    def _pages(self, what: str, key: str) -> Iterator[Raw]:
        for page in self._ec2.get_paginator(f"describe_{what}").paginate():
            yield from page[key]

    def _ask(self) -> list[str]:
        """The workers that answer. One that does not, since it begins, ends or was killed, is what it last was."""
        living = []
        for name in self._crew.machines.workers():
            self._ledgers.setdefault(name, Ledger())
            try:
                self._ledgers[name] = from_dict(self._crew.machines.status(name)["totals"])
            except MachineError:
                continue
            living.append(name)
        return living

    def _instances(self, found: Sequence[Raw], periods: Sequence[Period], now: float) -> tuple[Instance, ...]:
        """Those that run no worker, as far as is known."""
        sessions = {
            one["NetworkInterfaceId"]: one["TrafficMirrorSessionId"]
            for one in self._pages("traffic_mirror_sessions", "TrafficMirrorSessions")
        }
        rates = self._crew.records.rates(now)
        last = {one.instance: one for one in periods}
        shown = []
        for one in found:
            name, image, state = one["InstanceId"], str(one["ImageId"]), one["State"]["Name"]
            if name in self._ledgers or state in _GONE:
                continue
            own = [sessions[card["NetworkInterfaceId"]] for card in one["NetworkInterfaces"]
                   if card["NetworkInterfaceId"] in sessions]  # fmt: skip
            period, rate = last.get(name), rates.get(name)
            mirrored = period is not None and period.until is None
            shown.append(
                Instance(
                    name,
                    _name(one),
                    _NAMES.get(image, image),
                    state,
                    _MIRROR[bool(own), mirrored],
                    own[0] if own else "",
                    None if period is None else period.since if period.until is None else period.until,
                    rate.production if rate else 0.0,
                    rate.test if rate else 0.0,
                )
            )
        return tuple(shown)

    def _worker(self, one: Raw) -> Worker:
        name = one["InstanceId"]
        health = {target: state for (_, target), state in self._balancer.health.items()}
        ledger = self._ledgers[name]
        replayed = sum(part.replayed for part in ledger.destinations.values())
        return Worker(name, one["State"]["Name"], health.get(name, ""), ledger.datagrams, replayed)

    def _hear(self, events: Sequence[Posted], periods: Iterable[Period]) -> None:
        news = [Happening(one.time, f"event: {told(one.event)}") for one in events]
        self._events = events[-1].number if events else self._events
        for period in periods:
            key = period.session, period.since
            before = self._periods.get(key)
            if before is None:
                news.append(Happening(period.since, f"{period.instance} is mirrored ({period.session})"))
            if period.until is not None and (before is None or before.until is None):
                news.append(Happening(period.until, f"{period.instance} is mirrored no more"))
            self._periods[key] = period
        self._happenings.extend(sorted(news, key=lambda one: one.at))


#: By whether EC2 lists a session, and whether the kernel mirrors.
_MIRROR = {
    (False, False): Mirror.NO,
    (True, False): Mirror.COMING,
    (True, True): Mirror.YES,
    (False, True): Mirror.ENDING,
}


def _name(instance: Raw) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
    return str(tags.get("Name") or tags.get(_GROUP, ""))
