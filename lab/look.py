"""Looks at a lab, each as one value: `lab.view.Snapshot`. What is seen is remembered, since workers come and go."""

import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lab.cloud.post import Posted
from lab.fabric.balancer.counts import total
from lab.fabric.taps import Period
from lab.images import IMAGES
from lab.machines import MachineError
from lab.view import Balancer, Happening, Instance, Mirror, Snapshot, Worker
from replayer.ledger import Ledger, add, from_dict

if TYPE_CHECKING:
    from lab.vpc import Lab

#: Happenings that are remembered.
HAPPENINGS = 12

_GROUP = "aws:autoscaling:groupName"
_NAMES = {image: name for name, image in IMAGES.items()}
_GONE = ("shutting-down", "terminated")

type Raw = Mapping[str, Any]


class Looker:
    """One for each lab; any thread, but one at a time."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab
        self._ledgers: dict[str, Ledger] = {}  # of workers, as they last were
        self._events = 0  # number of the last one that was read
        self._periods: dict[tuple[str, float], Period] = {}
        self._happenings: deque[Happening] = deque(maxlen=HAPPENINGS)

    def look(self) -> Snapshot:
        lab = self._lab
        lab.fabric.check()
        lab.records.look()
        workers = lab.crew.machines.workers()
        self._ask(workers)
        periods = list(lab.fabric.mirrored)
        self._hear(lab.cloud.events(self._events), periods)
        pages = lab.ec2.get_paginator("describe_instances").paginate()
        found = [one for page in pages for group in page["Reservations"] for one in group["Instances"]]
        ledger = Ledger()
        for part in self._ledgers.values():
            add(ledger, part)
        now = time.time()
        count = total(lab.balancer.counts)
        return Snapshot(
            at=now,
            instances=self._instances(found, periods, now),
            workers=tuple(self._worker(one) for one in found if _is_worker(one) and one["InstanceId"] in self._ledgers),
            answered=sum(map(len, lab.records.answered.values())),
            received=len(lab.records.received),
            mirrored=lab.fabric.counters().packets,
            balancer=Balancer(count.received, count.drops, count.truncated, dict(count.refused), count.forwarded),
            ledger=ledger,
            happenings=tuple(self._happenings),
        )

    def _ask(self, workers: Iterable[str]) -> None:
        """A worker that does not answer, since it begins, ends or was killed, is what it last was."""
        for name in workers:
            self._ledgers.setdefault(name, Ledger())
            try:
                self._ledgers[name] = from_dict(self._lab.crew.machines.status(name)["totals"])
            except MachineError:
                continue

    def _instances(self, found: Sequence[Raw], periods: Sequence[Period], now: float) -> tuple[Instance, ...]:
        listed = {one["NetworkInterfaceId"]: one["TrafficMirrorSessionId"] for one in self._lab.sessions()}
        rates = self._lab.records.rates(now)
        last = {one.instance: one for one in periods}
        shown = []
        for one in found:
            name, state = one["InstanceId"], one["State"]["Name"]
            if _is_worker(one) or state in _GONE:
                continue
            sessions = [listed[each["NetworkInterfaceId"]] for each in one["NetworkInterfaces"]
                        if each["NetworkInterfaceId"] in listed]  # fmt: skip
            period, rate = last.get(name), rates.get(name)
            mirrored = period is not None and period.until is None
            shown.append(
                Instance(
                    name,
                    _name(one),
                    _NAMES.get(one["ImageId"], ""),
                    state,
                    _MIRROR[bool(sessions), mirrored],
                    sessions[0] if sessions else "",
                    None if period is None else period.since if period.until is None else period.until,
                    rate.production if rate else 0.0,
                    rate.test if rate else 0.0,
                )
            )
        return tuple(shown)

    def _worker(self, one: Raw) -> Worker:
        name = one["InstanceId"]
        health = {target: state for (_, target), state in self._lab.balancer.health.items()}
        ledger = self._ledgers[name]
        replayed = sum(part.replayed for part in ledger.destinations.values())
        return Worker(name, one["State"]["Name"], health.get(name, ""), ledger.datagrams, replayed)

    def _hear(self, events: Sequence[Posted], periods: Iterable[Period]) -> None:
        news = [Happening(one.time, text) for one in events if (text := told(one.event))]
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


def told(event: Raw) -> str:
    """An event of AWS's in a few words; empty for one that nobody asks about."""
    detail = event["detail"]
    match event["detail-type"]:
        case "EC2 Instance State-change Notification":
            return f"event: {detail['instance-id']} {detail['state']}"
        case "Tag Change on Resource":
            [arn] = event["resources"]
            keys = ", ".join(detail["changed-tag-keys"])
            return f"event: tags of {arn.rpartition('/')[2]} changed ({keys})"
        case "Parameter Store Change":
            return f"event: parameter {detail['name']} ({detail['operation'].lower()})"
        case "Scheduled Event":
            return "event: the sweep's schedule"
        case "EC2 Instance Launch Successful":
            return f"event: group {detail['AutoScalingGroupName']} launched {detail['EC2InstanceId']}"
        case "EC2 Instance Terminate Successful":
            return f"event: group {detail['AutoScalingGroupName']} terminated {detail['EC2InstanceId']}"
        case other:
            return f"event: {other}"


def _is_worker(instance: Raw) -> bool:
    return instance["ImageId"] not in IMAGES.values() or _NAMES[instance["ImageId"]] == "worker"


def _name(instance: Raw) -> str:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
    return str(tags.get("Name") or tags.get(_GROUP, ""))
