"""The loop that makes namespaces and the kernel's mirroring equal to what the EC2 API says.

    router.build()
    fabric = Fabric(cloud, machines, pace)
    fabric.start()
    fabric.wait("it runs", lambda: "i-…" in fabric.hosts, 10)
    fabric.close()

A look reads the API's lists and acts on what differs. Instances go through these stages:

    pending, running        namespace made ─ software boots ─ up ("running" is told)
    stopping, shutting-down software halts ─ namespace removed ("stopped" or "terminated" is told)

An error stays with its instance, and `troubled` says what it was. One whose software does not come up runs without it,
as on EC2; one whose network cannot be made is terminated. What ends the fabric is an error of what all share, if looks
have it again and again.

Booting and halting take time and happen in threads; all else happens in the look, so that nothing is done twice. A
machine that came up is told of before the next look reads the API: that look cannot take it for one that waits.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lab.fabric import hosts
from lab.fabric.balancers import Balancer
from lab.fabric.cloud import Cloud
from lab.fabric.hosts import Host, Hosts, Instance, Interface
from lab.fabric.routes import Route
from lab.fabric.sessions import Mirroring
from lab.fabric.sight import see
from lab.fabric.taps import Counters, Period, Plan, Taps
from lab.network import sandbox
from lab.network.namespaces import NetworkError

_LOOK = 0.25  # seconds between two looks
_GLANCE = 0.02  # seconds between two tries of `wait`
_AT_ONCE = 4  # machines that boot, and that halt: these may take their time, and keep nobody waiting who boots

#: Looks that fail in a row until the fabric ends.
MOST_FAILURES = 5

#: Instances whose trouble is remembered; the oldest are forgotten. The log has all.
MOST_TROUBLED = 1000

_log = logging.getLogger(__name__)

_ALIVE = ("pending", "running")

#: What is told when software has ended, by the state that asked for it.
_ENDS = {"stopping": "stopped", "shutting-down": "terminated"}


class FabricError(Exception):
    """What was waited for did not come about, or will not, as the loop has ended."""


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
        self.troubled: Mapping[str, str] = {}  # instances that something went wrong with, and what; also those gone
        self._cloud, self._machines = cloud, machines
        self._ec2 = cloud.client("ec2")
        self._hosts, self._taps = Hosts(), Taps()
        self._up: set[str] = set()
        self._refused: dict[str, Host] = {}  # hosts whose change was tried and failed
        self._tasks: dict[str, tuple[Future[None], str]] = {}  # instance → its boot or halt, and what to tell then
        self._boots, self._halts = (ThreadPoolExecutor(_AT_ONCE, name) for name in ("boot", "halt"))
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
        for pool in (self._boots, self._halts):
            pool.shutdown(cancel_futures=True)
        halted = {name for name, (task, told) in self._tasks.items() if told != "running" and not task.cancelled()}
        running = [host for name, host in self._hosts.hosts.items() if name not in halted]
        with ExitStack() as last:  # each, whatever becomes of the others; from the bottom up
            last.callback(self._hosts.remove, list(self._hosts.hosts))
            last.callback(self.balancer.close)
            last.callback(self._taps.withdraw, dict(self._hosts.ports))
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                list(pool.map(self._finish, running))

    @property
    def hosts(self) -> Mapping[str, Host]:
        """The instances whose software is up."""
        return {name: host for name, host in self._hosts.hosts.copy().items() if name in self._up}

    @property
    def mirrored(self) -> Sequence[Period]:
        """When each session's filters were in place."""
        return self._taps.periods

    def counters(self) -> Counters:
        return self._taps.counters()

    def check(self) -> None:
        """Raises a FabricError that says what ended the loop, if anything did."""
        if self.failure:
            raise FabricError(f"the fabric ended: {self.failure}") from self.failure

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
            seen = see(self._ec2)
            self._log_idle(seen.mirroring)
            self._take_away(seen.instances)
            self._treat(one for one in seen.instances.values() if _stays(one))
            self._mirror(seen.mirroring, seen.balancers)
            self._treat(one for one in seen.instances.values() if not _stays(one))  # now that nothing is sent to them
            for name in self._up - seen.instances.keys():
                self._halt(self._hosts.hosts[name], "")

    def _loop(self) -> None:
        failures = 0
        while not self._closing.is_set():
            self._news.clear()
            try:
                self.look()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the top of a thread: the next look sees everything anew
                failures += 1
                _log.warning("a look failed: %s", error)
                if failures == MOST_FAILURES:
                    self.failure = error  # whoever waits or checks says so
                    return
            self._news.wait(_LOOK)

    # Instances

    def _treat(self, instances: Iterable[Instance]) -> None:
        for instance in instances:
            name = instance.host.instance
            if name in self._tasks:
                continue
            if _stays(instance):
                if name in self._up:
                    self._follow(instance.host)
                else:
                    self._boot(instance.host)
            elif name in self._up and instance.state not in _ALIVE:
                self._halt(self._hosts.hosts[name], _ENDS.get(instance.state, ""))
            elif instance.state in _ENDS:
                self._cloud.report_machine(name, _ENDS[instance.state])

    def _boot(self, host: Host) -> None:
        answer = self._ec2.describe_instance_attribute(InstanceId=host.instance, Attribute="userData")
        try:
            host = replace(host, user_data=hosts.user_data(answer))
            self._hosts.add(host)
        except Exception as error:  # noqa: BLE001 - the top of what concerns this instance alone
            self._trouble(host.instance, error)
            self._cloud.report_machine(host.instance, "terminated")
            return
        self._begin(self._boots.submit(self._machines.boot, host), host, "running")

    def _follow(self, host: Host) -> None:
        """What failed is tried again when the instance has changed again."""
        if self._refused.get(host.instance) == host:
            return
        try:
            self._hosts.follow(host)
        except Exception as error:  # noqa: BLE001 - likewise
            self._refused[host.instance] = host
            self._trouble(host.instance, error)

    def _halt(self, host: Host, end: str) -> None:
        self._up.discard(host.instance)
        self._refused.pop(host.instance, None)
        self._begin(self._halts.submit(self._machines.halt, host), host, end)

    def _begin(self, task: Future[None], host: Host, told: str) -> None:
        self._tasks[host.instance] = (task, told)
        task.add_done_callback(lambda _: self._news.set())

    def _conclude(self) -> None:
        """Machines that have booted or halted since the last look."""
        for name, (task, told) in list(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[name]
            if error := task.exception():
                self._trouble(name, error)
            if told == "running":
                self._up.add(name)
            else:
                self._remove(name)
            if told:
                self._cloud.report_machine(name, told)

    def _remove(self, name: str) -> None:
        its = self._hosts.hosts[name].interfaces
        self._taps.withdraw({one.id: self._hosts.ports[one.id] for one in its})
        try:
            self._hosts.remove([name])
        except NetworkError as error:
            self._trouble(name, error)

    def _finish(self, host: Host) -> None:
        """The last halt. The others go on whatever comes of it."""
        try:
            self._machines.halt(host)
        except Exception as error:  # noqa: BLE001 - the top of a thread
            self._trouble(host.instance, error)

    def _trouble(self, name: str, error: BaseException) -> None:
        words = str(error) or type(error).__name__
        _log.error("instance %s: %s", name, words)
        self.troubled = noted(self.troubled, name, words)

    # Mirroring

    def _take_away(self, instances: Mapping[str, Instance]) -> None:
        """Interfaces that have left their hosts, those that boot or halt too, before any is connected: it may have
        moved. They are mirrored no longer then."""
        gone: dict[str, list[Interface]] = {}
        for name, host in self._hosts.hosts.items():
            found = instances.get(name)
            if found is None or found.host.interfaces or found.state not in _ALIVE:
                has = found.host.interfaces if found else ()
                gone[name] = [one for one in host.interfaces if one not in has]
        if lost := {one.id: self._hosts.ports[one.id] for its in gone.values() for one in its}:
            self._taps.withdraw(lost)
        for name, its in gone.items():
            self._hosts.disconnect(name, its)

    def _mirror(self, mirroring: Mirroring, targets: Mapping[str, str | None]) -> None:
        """The balancer knows a way before packets come, and for as long as they may."""
        wanted = self._taps.plan(mirroring.sessions.values(), self._hosts.ports)
        primary = {name: host.interfaces[0].address for name, host in self._hosts.hosts.items() if host.interfaces}
        self.balancer.look(targets, _routes({**self._taps.current, **wanted}), primary)
        self._taps.apply(wanted)

    def _log_idle(self, mirroring: Mirroring) -> None:
        """Each reason once."""
        for name, reason in mirroring.idle.items():
            if self.idle.get(name) != reason:
                _log.warning("session %s mirrors nothing: %s", name, reason)
        self.idle = mirroring.idle


def noted(troubled: Mapping[str, str], name: str, words: str, most: int = MOST_TROUBLED) -> dict[str, str]:
    """With what went wrong first with one more instance, or else."""
    more = {**troubled, name: f"{troubled[name]}; {words}" if name in troubled else words}
    return dict(list(more.items())[-most:])


def _stays(instance: Instance) -> bool:
    """An instance without interfaces has none yet, or is about to end."""
    return instance.state in _ALIVE and bool(instance.host.interfaces)


def _routes(plan: Plan) -> list[Route]:
    taps = [(port, tap.session) for port, tap in sorted(plan.items())]
    return [Route(port, one.id, one.balancer, one.address, one.packet_length) for port, one in taps]
