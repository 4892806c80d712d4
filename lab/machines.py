"""The software of instances, run where their network namespaces are.

with Machines(directory, cloud.url) as machines:
    machines.boot(host)
    machines.halt(host)

`boot` waits for a server until it answers. It does not wait for a worker: `running` says nothing of an instance's
software on EC2 either, the load balancer's health checks do. Logs stay when an instance is gone.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import worker
from lab.cloud.emulator import ROOT
from lab.cloud.endpoint import ROOT_USER
from lab.cloud.events import REGION
from lab.fabric.hosts import Host
from lab.images import Duty, Software, duty
from lab.network import nginx
from lab.network.namespaces import inside
from lab.network.nginx import Server
from lab.network.processes import stop
from lab.worker import Status

#: Where a worker serves /status, unless its settings say otherwise: template.yaml's do not.
ADMIN = ("127.0.0.1", 8081)

_PORT = 80
_POLL = 3.0  # seconds between a worker's looks at its settings
_PATIENCE = 16.0  # a worker waits 10 s for answers, unless its settings say otherwise, and then ends by force
_GONE_WITHIN = 5.0
_ANSWER_WITHIN = 5.0
_LOOK = 0.01
_SAID = 300  # characters of a log


class MachineError(Exception):
    """Software of an instance does not do what it was asked to; the text is one line."""


@dataclass(frozen=True, slots=True)
class _Running:
    duty: Duty
    process: subprocess.Popen[bytes]
    log: Path


class Machines:
    """What runs in all instances. Any thread may call it."""

    def __init__(self, directory: Path, endpoint_url: str) -> None:
        self.directory = directory
        self._endpoint_url = endpoint_url
        self._running: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def boot(self, host: Host) -> None:
        """Start what the instance is there for. Raises UserDataError; NetworkError when a server does not start."""
        its = duty(host.image, host.user_data)
        if its.software is Software.NOTHING:
            return
        folder = self.directory / host.instance
        folder.mkdir(parents=True, exist_ok=True)
        _clear(host.instance)
        running = self._worker(host, its, folder) if its.software is Software.WORKER else _server(host, its, folder)
        with self._lock:
            self._running[host.instance] = running

    def halt(self, host: Host) -> None:
        """End it, and whatever else runs in the instance: asked first, then by force."""
        with self._lock:
            running = self._running.pop(host.instance, None)
        if running is not None:
            stop(running.process, _PATIENCE)
        _clear(host.instance)

    def close(self) -> None:
        """End all of them at once, by force."""
        with self._lock:
            running = dict(self._running)
            self._running.clear()
        for instance in running:
            _clear(instance)
        for one in running.values():
            stop(one.process)

    def kill(self, instance: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to all that runs in an instance, which goes on to be `running`.

        SIGKILL leaves nothing: not even what a parent started anew before its own turn came.
        """
        if number == signal.SIGKILL:
            _clear(instance)
        else:
            _send(_processes(instance), number)

    def log(self, instance: str) -> Path:
        """A server's access log, or a worker's own; also when the instance is gone."""
        folder = self.directory / instance
        requests = nginx.log_of(folder)
        return requests if requests.exists() else folder / "replayer.log"

    def workers(self) -> list[str]:
        """The instances that run a worker, be it alive or not."""
        with self._lock:
            return sorted(name for name, one in self._running.items() if one.duty.software is Software.WORKER)

    def ended(self) -> dict[str, str]:
        """The instances whose software ended by itself, or was killed, each with its last words."""
        with self._lock:
            running = dict(self._running)
        return {name: _words(one) for name, one in running.items() if one.process.poll() is not None}

    def status(self, instance: str) -> Status:
        """A worker's /status. Raises MachineError."""
        try:
            with inside(instance):
                connection = HTTPConnection(*ADMIN, timeout=_ANSWER_WITHIN)
                connection.connect()
            try:
                connection.request("GET", "/status")
                document: Status = json.loads(connection.getresponse().read())
            finally:
                connection.close()
        except (OSError, HTTPException, ValueError) as error:
            raise MachineError(f"{instance} does not give its /status on {ADMIN[0]}:{ADMIN[1]}: {error}") from None
        return document

    def _worker(self, host: Host, its: Duty, folder: Path) -> _Running:
        log = folder / "replayer.log"
        command = [str(worker.program()), "run", "--config", f"ssm:{its.settings}"]
        command += ["--shards", "1", "--poll-interval", f"{_POLL:g}"]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONUNBUFFERED": "1",
            "AWS_ENDPOINT_URL": self._endpoint_url,
            "AWS_ACCESS_KEY_ID": ROOT_USER["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": ROOT_USER["aws_secret_access_key"],
            "AWS_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return _Running(its, _start(host.instance, command, log, environment), log)


def _server(host: Host, its: Duty, folder: Path) -> _Running:
    name = host.instance
    command = nginx.prepare(folder, name, str(_PORT), keep_bodies=its.software is Software.TEST)
    server = Server(folder, _start(name, command, folder / "output", os.environ))
    try:
        nginx.await_start(server, name)
    except BaseException:
        stop(server.process)
        raise
    return _Running(its, server.process, folder / "error.log")


def _start(instance: str, command: list[str], output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """What a thread starts begins in the namespace that the thread is in."""
    with output.open("ab") as log, inside(instance):
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
        )


def _words(running: _Running) -> str:
    said = running.log.read_text(errors="replace").strip() if running.log.exists() else ""
    last = said.splitlines()[-1][-_SAID:] if said else "it said nothing"
    return f"exit status {running.process.returncode}: {last}"


def _clear(instance: str) -> None:
    """End by force whatever runs in a namespace. Raises MachineError when anything stays."""
    deadline = time.monotonic() + _GONE_WITHIN
    children = set[int]()
    while left := _processes(instance):
        children |= {process for process in left if _parent(process) != os.getpid()}
        _send(left, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise MachineError(f"{instance}: processes {sorted(left)} do not end")
        time.sleep(_LOOK)
    for process in children:
        _reap(process)


def _reap(process: int) -> None:
    """One whose parent has ended is a child of the sandbox's first process, mostly this one, and stays in the table of
    processes until that looks at it. Who started a process himself looks himself."""
    with suppress(ChildProcessError):
        os.waitpid(process, 0)


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has ended
        return os.getpid()


def _send(processes: Collection[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):  # it ended by itself
            os.kill(process, number)


def _processes(instance: str) -> set[int]:
    """Those in a namespace, but for this one. One that has ended and was not waited for has no namespace any more."""
    try:
        namespace = os.stat(f"/run/netns/{instance}").st_ino
    except FileNotFoundError:
        return set()
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if os.stat(f"/proc/{entry.name}/ns/net").st_ino == namespace:
                    found.add(int(entry.name))
            except OSError:
                pass  # it has ended
    return found
