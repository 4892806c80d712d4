"""The loop that makes namespaces and the kernel's mirroring equal to what the EC2 API says.

    router.build()
    fabric = Fabric(cloud, machines, pace)
    fabric.start()
    fabric.wait("it runs", lambda: "i-…" in fabric.hosts, 10)
    fabric.close()

A look reads the API's lists and acts on what differs. Instances go through these stages:

    pending, running        namespace made ─ software boots ─ up ("running" is told)
    stopping, shutting-down software halts ─ namespace removed ("stopped" or "terminated" is told)

Booting and halting take time and happen in threads; all else happens in the look, so that nothing is done twice. A
machine that came up is told of before the next look reads the API: that look cannot take it for one that waits.

Nothing but the public API is read, as anybody could read it. Sessions are read before filters and targets: what a
session names was there before it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from lab.fabric import hosts, sessions
from lab.fabric.balancers import Balancer
from lab.fabric.hosts import Host, Hosts, Instance
from lab.fabric.router import Port
from lab.fabric.routes import Route
from lab.fabric.sessions import Mirroring
from lab.fabric.taps import Counters, Period, Plan, Taps
from lab.network import sandbox

_LOOK = 0.25  # seconds between two looks
_GLANCE = 0.02  # seconds between two tries of `wait`
_AT_ONCE = 4  # machines that boot or halt

_log = logging.getLogger(__name__)

_ALIVE = ("pending", "running")

#: What is told when software has ended, by the state that asked for it.
_ENDS = {"stopping": "stopped", "shutting-down": "terminated"}


class FabricError(Exception):
    """What was waited for did not come about."""


class Cloud(Protocol):
    """The emulator, live."""

    def client(self, service: str) -> Any: ...

    def report_machine(self, instance: str, state: str) -> None: ...

    def report_health(self, group: str, target: str, state: str, reason: str = "", description: str = "") -> None: ...


class Machines(Protocol):
    """The software of instances. Both are called in threads; they return when it is done."""

    def boot(self, host: Host) -> None: ...

    def halt(self, host: Host) -> None: ...


class Balancing(Protocol):
    """What stands for the load balancers: `lab.fabric.balancers.Balancer`."""

    def start(self) -> None: ...

    def look(
        self, targets: Mapping[str, str | None], routes: Sequence[Route], addresses: Mapping[str, str]
    ) -> None: ...

    def close(self) -> None: ...


class Fabric:
    """From `start` to `close`, in a sandbox. Any thread in the sandbox's own network namespace may call it."""

    def __init__(
        self,
        cloud: Cloud,
        machines: Machines,
        pace: float,
        directory: Path = sandbox.FILES,
        balancer: Balancing | None = None,
    ) -> None:
        self.balancer = balancer or Balancer(cloud, pace, directory)
        self.failure: BaseException | None = None
        self.idle: Mapping[str, str] = {}  # sessions that mirror nothing, and why
        self._cloud, self._machines = cloud, machines
        self._ec2 = cloud.client("ec2")
        self._hosts, self._taps = Hosts(), Taps()
        self._up: set[str] = set()
        self._tasks: dict[str, tuple[Future[None], str]] = {}  # instance → its boot or halt, and what to tell then
        self._pool = ThreadPoolExecutor(_AT_ONCE, "machine")
        self._thread = threading.Thread(target=self._loop, name="fabric", daemon=True)
        self._looking = threading.Lock()
        self._news, self._closing = threading.Event(), threading.Event()

    def start(self) -> None:
        """The router is there: `router.build`, in this thread's network namespace."""
        self.balancer.start()
        self._thread.start()

    def close(self) -> None:
        """All software ends, all instances' namespaces go."""
        self._closing.set()
        self._news.set()
        if self._thread.ident:
            self._thread.join()
        self._pool.shutdown(cancel_futures=True)
        halted = {name for name, (task, told) in self._tasks.items() if told != "running" and not task.cancelled()}
        running = [host for name, host in self._hosts.hosts.items() if name not in halted]
        try:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._machines.halt, running))
        finally:
            self._taps.withdraw(self._hosts.ports)
            self.balancer.close()
            self._hosts.remove(list(self._hosts.hosts))

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The instances whose software is up."""
        return {name: host for name, host in self._hosts.hosts.copy().items() if name in self._up}

    @property
    def mirrored(self) -> Sequence[Period]:
        """When each session's filters were in place."""
        return self._taps.periods.copy()

    def counters(self) -> Counters:
        return self._taps.counters()

    def check(self) -> None:
        """Raises what ended the loop, if anything did."""
        if self.failure:
            raise self.failure

    def wait[T](self, what: str, condition: Callable[[], T], seconds: float) -> T:
        """What `condition` gives as soon as it gives something; `what` says what is waited for."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            self.check()
            if time.monotonic() > deadline:
                raise FabricError(f"{what}: not within {seconds:g} s, the last look gave {found!r}")
            time.sleep(_GLANCE)
        return found

    def look(self) -> None:
        """One look, and what follows from it; machines then boot or halt on their own."""
        with self._looking:
            self._conclude()
            instances, addresses, mirroring, targets = self._read()
            self._log_idle(mirroring)
            self._withdraw(instances)
            for instance in instances.values():
                self._treat(instance)
            for name in self._up - instances.keys():
                self._halt(self._hosts.hosts[name], "")
            self._mirror(mirroring, targets, addresses)

    def _loop(self) -> None:
        try:
            while not self._closing.is_set():
                self._news.clear()
                self.look()
                self._news.wait(_LOOK)
        except BaseException as error:  # noqa: BLE001 - whoever waits or checks raises it
            self.failure = error

    def _read(self) -> tuple[dict[str, Instance], dict[str, str], Mirroring, dict[str, str | None]]:
        """Instances, interfaces' addresses, sessions, and the load balancers of mirror targets."""
        found = [entry for part in self._pages("instances", "Reservations") for entry in part["Instances"]]
        interfaces = list(self._pages("network_interfaces", "NetworkInterfaces"))
        listed = list(self._pages("traffic_mirror_sessions", "TrafficMirrorSessions"))
        filters = self._pages("traffic_mirror_filters", "TrafficMirrorFilters")
        targets = list(self._pages("traffic_mirror_targets", "TrafficMirrorTargets"))
        addresses = {entry["NetworkInterfaceId"]: entry["PrivateIpAddress"] for entry in interfaces}
        mirroring = sessions.read(listed, filters, targets, addresses)
        balancers = {entry["TrafficMirrorTargetId"]: entry.get("NetworkLoadBalancerArn") for entry in targets}
        return hosts.read(found, interfaces), addresses, mirroring, balancers

    def _pages(self, what: str, key: str) -> Iterator[Any]:
        for page in self._ec2.get_paginator(f"describe_{what}").paginate():
            yield from page[key]

    # Instances

    def _treat(self, instance: Instance) -> None:
        name = instance.host.instance
        if name in self._tasks:
            return
        if _stays(instance):
            if name in self._up:
                self._hosts.follow(instance.host)
            else:
                self._boot(instance.host)
        elif name in self._up and instance.state not in _ALIVE:
            self._halt(self._hosts.hosts[name], _ENDS.get(instance.state, ""))
        elif instance.state in _ENDS:
            self._cloud.report_machine(name, _ENDS[instance.state])

    def _boot(self, host: Host) -> None:
        answer = self._ec2.describe_instance_attribute(InstanceId=host.instance, Attribute="userData")
        host = replace(host, user_data=hosts.user_data(answer))
        self._hosts.add(host)
        self._begin(self._machines.boot, host, "running")

    def _halt(self, host: Host, end: str) -> None:
        self._up.discard(host.instance)
        self._begin(self._machines.halt, host, end)

    def _begin(self, deed: Callable[[Host], None], host: Host, told: str) -> None:
        task = self._pool.submit(deed, host)
        self._tasks[host.instance] = (task, told)
        task.add_done_callback(lambda _: self._news.set())

    def _conclude(self) -> None:
        """Machines that have booted or halted since the last look."""
        for name, (task, told) in list(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[name]
            task.result()
            if told == "running":
                self._up.add(name)
            else:
                its = self._hosts.hosts[name].interfaces
                self._taps.withdraw({one.id: self._hosts.ports[one.id] for one in its})
                self._hosts.remove([name])
            if told:
                self._cloud.report_machine(name, told)

    # Mirroring

    def _withdraw(self, instances: Mapping[str, Instance]) -> None:
        """Interfaces that are detached are mirrored no longer, before they go."""
        gone: dict[str, Port] = {}
        for name in self._up & instances.keys():
            if _stays(instances[name]):
                left = set(self._hosts.hosts[name].interfaces) - set(instances[name].host.interfaces)
                gone |= {one.id: self._hosts.ports[one.id] for one in left}
        if gone:
            self._taps.withdraw(gone)

    def _mirror(self, mirroring: Mirroring, targets: Mapping[str, str | None], addresses: Mapping[str, str]) -> None:
        """The balancer knows a way before packets come, and for as long as they may."""
        wanted = self._taps.plan(mirroring.sessions.values(), self._hosts.ports)
        primary = {name: host.interfaces[0].address for name, host in self._hosts.hosts.items()}
        self.balancer.look(targets, _routes({**self._taps.current, **wanted}), primary)
        self._taps.apply(wanted)

    def _log_idle(self, mirroring: Mirroring) -> None:
        """Each reason once."""
        for name, reason in mirroring.idle.items():
            if self.idle.get(name) != reason:
                _log.warning("session %s mirrors nothing: %s", name, reason)
        self.idle = mirroring.idle


def _stays(instance: Instance) -> bool:
    """An instance without interfaces has none yet, or is about to end."""
    return instance.state in _ALIVE and bool(instance.host.interfaces)


def _routes(plan: Plan) -> list[Route]:
    taps = [(port, tap.session) for port, tap in sorted(plan.items())]
    return [Route(port, one.id, one.balancer, one.address, one.packet_length) for port, one in taps]
