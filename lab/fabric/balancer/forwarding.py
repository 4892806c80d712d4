"""The sockets: datagrams come in on their session's port and go out by a raw socket, with their sender's address."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from select import select
from time import monotonic

from lab.fabric.balancer.checks import State
from lab.fabric.balancer.counts import Count, Counts, count_target, shorten
from lab.fabric.balancer.flows import FlowTable, choose
from lab.fabric.balancer.packets import cut, packet
from lab.fabric.balancer.table import Group, Table
from lab.fabric.routes import Route
from lab.network.mirror import VXLAN_PORT
from lab.relay import enlarge

NO_LISTENER = f"no load balancer with a UDP listener on {VXLAN_PORT}"
NO_TARGET = "no registered target"

_SO_MEMINFO, _MEMINFO_DROPS = 55, 8  # linux/sock_diag.h
_LONGEST = 65535
_SENT_WITHIN = 0.1
_BATCH = 64  # datagrams of one session before another one's turn


@dataclass(slots=True)
class _Entrance:
    route: Route
    receiver: socket.socket
    count: Count
    drops: int = 0  # of this socket, in `count` already


@dataclass(slots=True)
class _Behind:
    """What stands behind a balancer's listener."""

    flows: FlowTable
    group: str
    draining: frozenset[str]
    targets: dict[str, tuple[str, int]]


class Forwarding:
    """Passes on what the table says, as long as the event loop runs."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._entrances: dict[int, _Entrance] = {}
        self._behind: dict[str, _Behind] = {}
        self._sessions: dict[str, Count] = {}
        self._targets: dict[str, int] = {}
        self._moved = self._evicted = 0  # of balancers that are gone
        self._raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._raw.setblocking(False)

    def tell(self, table: Table, states: Callable[[str], Mapping[str, State]]) -> None:
        """From now on by this table; `states` gives those of a group's targets."""
        for arn in self._behind.keys() - table.groups.keys():
            gone = self._behind.pop(arn).flows
            self._moved, self._evicted = self._moved + gone.moved, self._evicted + gone.evicted
        for arn, group in table.groups.items():
            flows = self._behind[arn].flows if arn in self._behind else FlowTable(table.idle)
            flows.idle, flows.by_address = table.idle, group.by_address
            self._behind[arn] = _behind(flows, group)
        self.choose(states)
        routes = {route.port: route for route in table.routes}
        for port, entrance in list(self._entrances.items()):
            if port not in routes or routes[port].session != entrance.route.session:
                self._close(port)
        for port, route in routes.items():
            if port in self._entrances:
                self._entrances[port].route = route
            else:
                self._open(route)
        shorten(self._sessions, frozenset(route.session for route in table.routes))

    def choose(self, states: Callable[[str], Mapping[str, State]]) -> None:
        """A target's state changed."""
        for behind in self._behind.values():
            behind.flows.choice = choose(states(behind.group), behind.draining)

    def counts(self) -> Counts:
        """Up to now."""
        now = monotonic()
        for entrance in self._entrances.values():
            _count_drops(entrance)
        tables = [behind.flows for behind in self._behind.values()]
        for table in tables:
            table.forget(now)
        return Counts(
            self._sessions,
            self._targets,
            sum(len(table) for table in tables),
            self._moved + sum(table.moved for table in tables),
            self._evicted + sum(table.evicted for table in tables),
        )

    def close(self) -> None:
        """After passing on what has come."""
        for port in list(self._entrances):
            self._close(port)
        self._raw.close()

    def _open(self, route: Route) -> None:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enlarge(receiver)
        receiver.setblocking(False)
        receiver.bind(("", route.port))
        entrance = _Entrance(route, receiver, self._sessions.setdefault(route.session, Count()))
        self._entrances[route.port] = entrance
        self._loop.add_reader(receiver, self._receive, entrance)

    def _close(self, port: int) -> None:
        entrance = self._entrances.pop(port)
        self._loop.remove_reader(entrance.receiver)
        while self._receive(entrance):
            pass  # what lies in the socket; nothing more comes: a session's route ends after its packets do
        _count_drops(entrance)
        entrance.receiver.close()

    def _receive(self, entrance: _Entrance) -> bool:
        """Whether more may wait than one batch."""
        now, receive, count = monotonic(), entrance.receiver.recvfrom, entrance.count
        for _ in range(_BATCH):
            try:
                datagram, source = receive(_LONGEST)
            except BlockingIOError:
                return False
            count.received += 1
            if refusal := self._pass_on(entrance.route, count, datagram, source, now):
                count.refused[refusal] = count.refused.get(refusal, 0) + 1
        return True

    def _pass_on(self, route: Route, count: Count, datagram: bytes, source: tuple[str, int], now: float) -> str:
        """Why it was not sent; empty when it was."""
        if route.balancer:
            behind = self._behind.get(route.balancer)
            if behind is None:
                return NO_LISTENER
            name = behind.flows.find(source, now)
            if name is None:
                return NO_TARGET
            target = behind.targets[name]
        else:
            name, target = route.address, (route.address, VXLAN_PORT)
        payload = cut(datagram, route.packet_length)
        try:
            self._send(packet(source, target, payload), target[0])
        except OSError as error:
            return f"not sent: {error.strerror}"
        count.forwarded += 1
        count.bytes += len(payload)
        count.truncated += len(payload) < len(datagram)
        count_target(self._targets, name)
        return ""

    def _send(self, whole: bytes, address: str) -> None:
        """Waits a little where the kernel has not got rid yet of what was sent before."""
        try:
            self._raw.sendto(whole, (address, 0))
        except BlockingIOError:
            select([], [self._raw], [], _SENT_WITHIN)
            self._raw.sendto(whole, (address, 0))


def _behind(flows: FlowTable, group: Group) -> _Behind:
    draining = frozenset(target.id for target in group.targets if target.draining)
    return _Behind(flows, group.arn, draining, {target.id: (target.address, target.port) for target in group.targets})


def _count_drops(entrance: _Entrance) -> None:
    """What the kernel dropped because the socket was full."""
    information = entrance.receiver.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_MEMINFO_DROPS + 1))
    drops = struct.unpack(f"={_MEMINFO_DROPS + 1}I", information)[_MEMINFO_DROPS]
    entrance.count.drops += drops - entrance.drops
    entrance.drops = drops
