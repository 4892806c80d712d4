"""The kernel's mirroring, made equal to what the EC2 API says.

At the outer end of an interface, tc's egress is what goes into the instance (a mirror filter's `ingress`), tc's ingress
what leaves it. Per session and direction there is one cls_bpf filter, its priority the session's number: tc stops at
the first filter that takes a packet, as AWS stops at the first session. The copy goes into the session's VXLAN device,
and on from `nitro` with the interface's own address as its source, to the balancer's port for that session.

A session keeps its device, and with it its port, as long as its VNI and its interface stay the same; else a new device
comes before the old one goes. New filters are in place before old ones are removed, and one that changes is exchanged
in one step, so that what both states mirror is mirrored throughout. Only while two sessions of one interface exchange
their numbers may packets of one be missed.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from lab.fabric.bpf import Program, spelled
from lab.fabric.router import NITRO, ROUTER, UNDERLAY, UNDERLAY_OF_BALANCER, VPC_MTU, Port
from lab.fabric.sessions import Session
from lab.network.namespaces import inside, ip, plain_frames, tc

#: UDP ports of VXLAN devices: more than the 10,000 sessions that an account may have, below those that the kernel hands
#: out by itself (from 32768 on). They are given out in turn, so that none is used again soon.
PORTS = range(20_000, 32_768)

#: Periods, and sessions that are gone, that are remembered: a run of the lab makes some dozens. Of more, the oldest
#: periods are forgotten, and the oldest sessions are added up as one.
MOST_REMEMBERED = 10_000
EARLIER = "earlier"

_DIRECTIONS = ("egress", "ingress")  # tc's, of a session's ingress and egress

type Plan = Mapping[int, Tap]  # by UDP port


class TapsError(Exception):
    """A cap of this module is reached."""


@dataclass(frozen=True, slots=True)
class Tap:
    """A session at the device that it mirrors."""

    session: Session
    at: Port


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` until `until` (wall clock; None: still) the kernel had one set of a session's filters in place.

    Both ends lie within the time in which it surely had them.
    """

    session: str
    interface: str
    instance: str
    since: float
    until: float | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """What a session's VXLAN device sent: packets, and their bytes from the IP header on."""

    packets: int = 0
    octets: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """Of the kernel's mirroring since it began. `packets - dropped` arrived where the balancer listens."""

    sessions: Mapping[str, Copied]  # those that are gone too
    dropped: int  # on the way to the balancer
    unsent: int  # by VXLAN devices; not among what they sent

    @property
    def packets(self) -> int:
        return sum(one.packets for one in self.sessions.values())


@dataclass(frozen=True, slots=True)
class _Device:
    """Why a session needs a VXLAN device of its own: if any of this changes, it gets another."""

    session: str
    vni: int
    address: str
    outer: str


@dataclass(frozen=True, slots=True)
class _Filter:
    """What stands at a place."""

    program: Program
    port: int


type _Place = tuple[str, str, int]  # device, direction, priority


@dataclass(slots=True)
class _Tally:
    """Of VXLAN devices that are no more."""

    sessions: dict[str, Copied] = field(default_factory=dict)
    unsent: int = 0


class Taps:
    """All sessions in the kernel."""

    def __init__(self, clock: Callable[[], float] = time.time, most: int = MOST_REMEMBERED) -> None:
        self.forgotten = 0  # periods
        self._clock, self._most = clock, most
        self._periods: dict[int, Period] = {}  # by number, in order
        self._numbers = count()
        self._given: dict[_Device, int] = {}  # ports
        self._next = 0
        self._plan: Plan = {}  # what the kernel does
        self._filters: dict[_Place, _Filter] = {}
        self._tapped: set[str] = set()  # devices that take filters
        self._open: dict[str, int] = {}  # session → its period's number
        self._gone = _Tally()
        self._counting = threading.Lock()  # between a device's last count and its end nobody else counts

    @property
    def periods(self) -> list[Period]:
        """In the order of their beginnings; those that last are always among them."""
        return list(self._periods.values())

    def plan(self, sessions: Iterable[Session], ports: Mapping[str, Port]) -> Plan:
        """For all sessions whose interfaces are there. The kernel is left alone, but ports are given out."""
        taps = [Tap(session, ports[session.interface]) for session in sessions if session.interface in ports]
        devices = {_device(tap): tap for tap in taps}
        given = {one: port for one, port in self._given.items() if one in devices or port in self._plan}
        taken = set(given.values())
        for device in devices:
            if device not in given:
                given[device] = self._free(taken)
                taken.add(given[device])
        self._given = given
        return {given[device]: tap for device, tap in devices.items()}

    def apply(self, wanted: Plan) -> None:
        """Make the kernel's mirroring equal to a plan. It costs nothing when it is so already."""
        if wanted == self._plan:
            return
        filters = _filters(wanted)
        new = {place: one for place, one in filters.items() if self._filters.get(place) != one}
        old = self._filters.keys() - filters.keys()
        before, after = _contents(self._plan), _contents(wanted)
        self._end(name for name in before if before[name] != after.get(name))
        self._make({port: tap for port, tap in wanted.items() if port not in self._plan})
        tc([*self._entrances(new), *(_replaced(place, new[place]) for place in sorted(new, key=lambda one: one[2]))])
        self._tapped.update(place[0] for place in new)
        self._begin({tap.session.id: tap for tap in wanted.values() if tap.session.id in after})
        tc([f"filter delete dev {device} {way} protocol all prio {number}" for device, way, number in sorted(old)])
        self._filters = filters
        self._unmake({port: tap for port, tap in self._plan.items() if port not in wanted}, wanted)
        self._plan = dict(wanted)

    def withdraw(self, ports: Mapping[str, Port]) -> None:
        """Stop mirroring these interfaces, whose devices are about to go."""
        self.apply({port: tap for port, tap in self._plan.items() if tap.session.interface not in ports})
        self._tapped -= {port.outer for port in ports.values()}

    @property
    def current(self) -> Plan:
        """What the kernel mirrors now."""
        return self._plan

    def counters(self) -> Counters:
        with self._counting:
            statistics = _statistics(ROUTER)
            sessions, unsent = dict(self._gone.sessions), self._gone.unsent
            for device, port in list(self._given.items()):
                if (name := _name(port)) in statistics:
                    sent, lost = statistics[name]
                    sessions[device.session] = _sum(sessions.get(device.session, Copied()), sent)
                    unsent += lost
        return Counters(sessions, _statistics(NITRO)[UNDERLAY][1], unsent)

    def _free(self, taken: Collection[int]) -> int:
        for step in range(len(PORTS)):
            turn = (self._next + step) % len(PORTS)
            if PORTS[turn] not in taken:
                self._next = turn + 1
                return PORTS[turn]
        raise TapsError(f"all {len(PORTS)} ports of VXLAN devices are in use: delete mirror sessions")

    def _make(self, taps: Plan) -> None:
        """New VXLAN devices: their outer side stays in the namespace that they are made in."""
        lines = []
        for port, tap in taps.items():
            address = tap.at.address
            ends = f"local {address} remote {UNDERLAY_OF_BALANCER} dstport {port} nolearning"
            device = f"link add {_name(port)} netns {ROUTER} mtu {VPC_MTU} type vxlan id {tap.session.vni} {ends}"
            lines += [f"address replace {address}/32 dev lo", device]
        ip(lines, NITRO)
        ip([f"link set {_name(port)} up" for port in taps])
        plain_frames([_name(port) for port in taps])

    def _unmake(self, taps: Plan, left: Plan) -> None:
        with self._counting:
            statistics = _statistics(ROUTER) if taps else {}
            for port, tap in taps.items():
                sent, lost = statistics[_name(port)]
                name = tap.session.id
                self._gone.sessions[name] = _sum(self._gone.sessions.get(name, Copied()), sent)
                self._gone.unsent += lost
                del self._given[_device(tap)]
            _add_up(self._gone.sessions, self._most)
            ip([f"link delete {_name(port)}" for port in taps])
        idle = {tap.at.address for tap in taps.values()} - {tap.at.address for tap in left.values()}
        ip([f"address delete {address}/32 dev lo" for address in sorted(idle)], NITRO)

    def _entrances(self, filters: Iterable[_Place]) -> list[str]:
        """Devices that get their first filter get the qdisc that takes filters."""
        new = {place[0] for place in filters} - self._tapped
        return [f"qdisc replace dev {device} clsact" for device in sorted(new)]

    def _begin(self, taps: Mapping[str, Tap]) -> None:
        now = self._clock()
        for name, tap in taps.items():
            if name not in self._open:
                number = self._open[name] = next(self._numbers)
                self._periods[number] = Period(name, tap.session.interface, tap.at.namespace, now)

    def _end(self, sessions: Iterable[str]) -> None:
        now = self._clock()
        for name in sessions:
            if (number := self._open.pop(name, None)) is None:
                continue  # the plan failed that would have begun it anew
            self._periods[number] = replace(self._periods[number], until=now)
        over = [number for number, period in self._periods.items() if period.until is not None]
        for number in over[: max(0, len(self._periods) - self._most)]:
            del self._periods[number]
            self.forgotten += 1


def _device(tap: Tap) -> _Device:
    return _Device(tap.session.id, tap.session.vni, tap.at.address, tap.at.outer)


def _contents(plan: Plan) -> dict[str, object]:
    """What makes a session's period one: where it mirrors, in which place and what. Of those that mirror at all."""
    sessions = [(tap.at, tap.session) for tap in plan.values() if tap.session.ingress or tap.session.egress]
    return {one.id: (at, one.number, one.ingress, one.egress) for at, one in sessions}


def _filters(plan: Plan) -> dict[_Place, _Filter]:
    return {
        (tap.at.outer, way, tap.session.number): _Filter(program, port)
        for port, tap in plan.items()
        for way, program in zip(_DIRECTIONS, (tap.session.ingress, tap.session.egress), strict=True)
        if program
    }


def _replaced(place: _Place, one: _Filter) -> str:
    device, way, number = place
    where = f"dev {device} {way} protocol all prio {number} handle 1"
    return (
        f'filter replace {where} bpf bytecode "{spelled(one.program)}" '
        f"action mirred egress mirror dev {_name(one.port)}"
    )


def _name(port: int) -> str:
    return f"vx{port}"


def _statistics(namespace: str) -> dict[str, tuple[Copied, int]]:
    """Device → what it sent, and how many packets it could not send. Columns as in Linux' net/core/net-procfs.c."""
    with inside(namespace):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    rows = {name.strip(): values.split() for name, _, values in (line.partition(":") for line in lines)}
    return {name: (Copied(int(row[9]), int(row[8])), int(row[10]) + int(row[11])) for name, row in rows.items()}


def _sum(one: Copied, other: Copied) -> Copied:
    return Copied(one.packets + other.packets, one.octets + other.octets)


def _add_up(sessions: dict[str, Copied], most: int) -> None:
    """The oldest, until `most` are left beside their sum."""
    single = [name for name in sessions if name != EARLIER]
    for name in single[: max(0, len(single) - most)]:
        sessions[EARLIER] = _sum(sessions.get(EARLIER, Copied()), sessions.pop(name))
