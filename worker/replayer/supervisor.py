"""The worker's first process: owns the sockets and the shards, answers signals and health checks, changes settings.

Its main thread waits for signals, ends of shards and new settings. A second thread looks at the source of the settings,
which may take its time; a third serves the pages.
"""

import errno
import logging
import random
import resource
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from os import sched_getaffinity
from queue import Empty, SimpleQueue
from time import monotonic

from replayer import LOG_FORMAT, __version__, pages, steering
from replayer.configuration import Source, Unreadable
from replayer.endpoints import Answer, Endpoints
from replayer.fleet import CrashLoop, Fleet, PlaceReading
from replayer.pages import State, totals
from replayer.report import accounting
from replayer.settings import FIXED, Settings, SettingsError, split_address
from replayer.trouble import Watch

GRACE = 5.0  # beyond drain_timeout, for a shard to start or to end
LOOK = 1.0  # the main thread wakes at least so often: the kernel's drop counters are read then
JITTER = 0.2
_STOP = frozenset((signal.SIGTERM, signal.SIGINT))

log = logging.getLogger("replayer.supervisor")


def run(source: Source) -> int:
    """Run the worker until a signal ends it; the exit code. Raises SettingsError before anything is received."""
    logging.basicConfig(format=LOG_FORMAT, level=logging.INFO)
    endpoints = Endpoints()
    groups: list[list[socket.socket]] = []
    try:
        settings = source.load()
        _open_groups(settings, groups)
        supervisor = Supervisor(source, settings, groups)
        supervisor.serve_pages(endpoints)
        return supervisor.run()
    finally:
        endpoints.close()
        for sock in (sock for group in groups for sock in group):
            sock.close()


def _open_groups(settings: Settings, groups: list[list[socket.socket]]) -> None:
    """Open the sockets of all shards, in the shards' order. Raises SettingsError."""
    shards = len(sched_getaffinity(0)) if settings.shards == "auto" else settings.shards
    ports = [("vxlan_port", settings.vxlan_port, steering.vxlan_program(shards))]
    if settings.geneve_port is not None:
        ports.append(("geneve_port", settings.geneve_port, steering.geneve_program(shards)))
    for name, port, program in ports:
        try:
            groups.append(steering.open_group(settings.listen, port, shards, settings.receive_buffer, program))
        except OSError as error:
            raise SettingsError(_bind_error(f"{name} {port} on {settings.listen}", error)) from None


def _bind_error(what: str, error: OSError) -> str:
    remedies = {
        errno.EADDRINUSE: "end the program (or the kernel's VXLAN device) that holds it, or choose another",
        errno.EADDRNOTAVAIL: "write an address of this machine, or 0.0.0.0 for all",
        errno.EAFNOSUPPORT: "write an IPv4 address: this machine has no IPv6",
        errno.EACCES: "choose a port above 1023, or allow CAP_NET_BIND_SERVICE",
    }
    return f"{what}: {error.strerror or error}: {remedies.get(error.errno or 0, 'choose another')}"


class Supervisor:
    """Everything but the shards' own state."""

    def __init__(self, source: Source, settings: Settings, groups: list[list[socket.socket]]) -> None:
        self._state = State(settings, steering.effective_buffer(groups[0][0]))
        self._fleet = Fleet(groups)
        self._wake = _Wake()
        self._looker = _Looker(source, self._wake, settings.poll_interval)
        self._bound = {"health": "", "admin": ""}
        self._watch = Watch()

    def serve_pages(self, endpoints: Endpoints) -> None:
        """Bind the health and admin addresses. Raises SettingsError."""
        settings = self._state.settings

        def page(show: Callable[[State, Sequence[PlaceReading]], Answer]) -> Callable[[], Answer]:
            return lambda: show(self._state, self._fleet.read())

        open_to_all = {"/healthz": page(pages.health)}
        admin = {**open_to_all, "/metrics": page(pages.prometheus), "/status": page(pages.status)}
        addresses = (("health", settings.health_address, open_to_all), ("admin", settings.admin_address, admin))
        for name, address, served in addresses:
            try:
                self._bound[name] = endpoints.serve(*split_address(address), served)
            except OSError as error:
                raise SettingsError(_bind_error(f"{name}_address {address}", error)) from None

    def run(self) -> int:
        """Start the shards, serve until a signal or a crash loop, drain; the exit code."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with self._wake:
            self._say_hello()
            try:
                self._fleet.adopt(self._state.settings, self._state.generation, monotonic())
                self._looker.start()
                code = self._serve()
            except CrashLoop as loop:
                log.critical("%s", loop)
                code = 1
            code = self._drain() or code
        print(accounting(totals(self._fleet.read()), self._watch.last), flush=True)
        return code

    def _say_hello(self) -> None:
        settings = self._state.settings
        ports = f"{settings.vxlan_port} (VXLAN)"
        if settings.geneve_port is not None:
            ports += f" and {settings.geneve_port} (GENEVE)"
        log.info(
            "replayer %s receives on %s port %s, shards: %d, receive buffer %s; /healthz on %s, /metrics and /status"
            " on %s; replays to %s",
            __version__, settings.listen, ports, len(self._fleet), _size(self._state.receive_buffer),
            self._bound["health"], self._bound["admin"], ", ".join(entry.url for entry in settings.destinations),
        )  # fmt: skip
        if self._state.receive_buffer < settings.receive_buffer:
            log.warning(
                "the receive buffer is %s, %s were wished for:"
                " run `sysctl -w net.core.rmem_max=%d` or allow CAP_NET_ADMIN",
                _size(self._state.receive_buffer), _size(settings.receive_buffer), settings.receive_buffer,
            )  # fmt: skip

    def _serve(self) -> int:
        while True:
            signals = self._wait(self._fleet.next_restart())
            if stop := signals & _STOP:
                seconds = self._state.settings.drain_timeout
                log.info("%s: no more is received, answers are waited for up to %g s", stop.pop().name, seconds)
                return 0
            if signal.SIGHUP in signals:
                self._looker.look()
            now = monotonic()
            self._fleet.end_hung(now)
            self._fleet.reap(now)
            self._fleet.restart(now)
            for found in self._looker.found():
                self._consider(found, now)
            self._tell_of_trouble(now)

    def _tell_of_trouble(self, now: float) -> None:
        """Log what began and what ended at the destinations. Reads the fleet, which wants to be read often."""
        troubles = {url: trouble for place in self._fleet.read() for url, trouble in place.trouble.items()}
        for url, trouble in self._watch.look([entry.url for entry in self._state.settings.destinations], troubles, now):
            if trouble:
                log.warning("trouble with %s: %s", url, trouble)
            else:
                log.info("trouble with %s has ended", url)

    def _wait(self, until: float | None) -> set[signal.Signals]:
        """The signals that have come; returns too when a shard ends, when new settings came, and from time to time."""
        timeout = LOOK if until is None else min(LOOK, max(0.0, until - monotonic()))
        return self._wake.wait(self._fleet.exits(), timeout)

    def _consider(self, found: Settings | SettingsError, now: float) -> None:
        """Put new settings into force, or count and log why the old ones stay."""
        state = self._state
        fault = str(found) if isinstance(found, SettingsError) else _fixed_changes(state.settings, found)
        if isinstance(found, Unreadable) and fault == state.config_error:
            return  # told already, and nothing has changed since
        if isinstance(found, SettingsError) or fault is not None:
            log.error("settings refused, those in force stay: %s", fault)
            self._state = replace(state, config_errors=state.config_errors + 1, config_error=fault)
            return
        self._state = replace(state, config_error=None)
        if found == state.settings:
            if state.config_error is not None:
                log.info("settings are good again: they are those in force")
            return
        generation = state.generation + 1
        self._state = replace(self._state, settings=found, generation=generation)
        self._looker.interval = found.poll_interval
        self._fleet.adopt(found, generation, now)
        urls = ", ".join(entry.url for entry in found.destinations)
        log.info("settings changed, version %d: replays to %s", generation, urls)

    def _drain(self) -> int:
        """End the shards; an exit code if a second signal cut it short."""
        drops = totals(self._fleet.read()).socket_drops
        self._state = replace(self._state, draining=True)
        timeout = self._state.settings.drain_timeout
        self._fleet.drain(timeout)
        deadline, code = monotonic() + timeout + GRACE, 0
        while self._fleet.exits() and monotonic() < deadline:
            if stop := self._wait(deadline) & _STOP:
                code = 128 + stop.pop()
                break
            now = monotonic()
            self._tell_of_trouble(now)
            self._fleet.end_hung(now)
            self._fleet.reap(now, draining=True)
        self._fleet.kill()
        self._fleet.reap(monotonic(), draining=True)
        if late := totals(self._fleet.read()).socket_drops - drops:
            log.info("%d datagrams came while draining; they are among the socket drops", late)
        return code


class _Wake:
    """What the main thread waits on: signals, and nudges of other threads."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> None:
        for number in (*_STOP, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)

    def nudge(self) -> None:
        """Make `wait` return."""
        with suppress(BlockingIOError):  # full: it is about to return anyway
            self._writer.send(b"\0")

    def wait(self, descriptors: list[int], timeout: float) -> set[signal.Signals]:
        """The signals received, once any came, a descriptor is readable, somebody nudged or time is up."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._reader, selectors.EVENT_READ)
            for descriptor in descriptors:
                selector.register(descriptor, selectors.EVENT_READ)
            selector.select(timeout)
        try:
            return {signal.Signals(number) for number in self._reader.recv(4096) if number}
        except BlockingIOError:
            return set()


class _Looker:
    """The thread that looks at the source of the settings: when asked, and from time to time where it is polled."""

    def __init__(self, source: Source, wake: _Wake, interval: float) -> None:
        self.interval = interval
        self._source = source
        self._wake = wake
        self._asked = threading.Event()
        self._found: SimpleQueue[Settings | SettingsError] = SimpleQueue()
        self.start: Callable[[], None] = threading.Thread(target=self._run, name="settings", daemon=True).start

    def look(self) -> None:
        """Look now."""
        self._asked.set()

    def found(self) -> list[Settings | SettingsError]:
        """What was found since the last call."""
        results = []
        with suppress(Empty):
            while True:
                results.append(self._found.get_nowait())
        return results

    def _run(self) -> None:
        while True:
            jittered = self.interval * random.uniform(1 - JITTER, 1 + JITTER)
            self._asked.wait(jittered if self._source.polled else None)
            self._asked.clear()
            found = self._look()
            if found is not None:
                self._found.put(found)
                self._wake.nudge()

    def _look(self) -> Settings | SettingsError | None:
        try:
            return self._source.poll()
        except SettingsError as error:
            return error
        except Exception as error:  # noqa: BLE001 - the thread's top: counted, told once; the next look may do
            return Unreadable(f"{self._source.place}: {type(error).__name__}: {error}")


def _fixed_changes(old: Settings, new: Settings) -> str | None:
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in FIXED)
    changes = [f"{name} ({before} → {after})" for name, before, after in pairs if before != after]
    if not changes:
        return None
    return f"a running worker cannot change {', '.join(changes)}: restart it, or take the change back"


def _size(size: int) -> str:
    return f"{size / (1 << 20):.4g} MiB" if size >= 1 << 20 else f"{size / (1 << 10):.4g} KiB"
