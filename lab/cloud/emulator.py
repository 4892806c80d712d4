"""An AWS endpoint on loopback, as a process of its own: ministack with what `lab.cloud.launcher` adds to it.

with emulator() as cloud:
    cloud.client("ec2").describe_traffic_mirror_sessions()
    subprocess.run(["sam", "deploy"], env=os.environ | cloud.environment)
    cloud.emit(json.loads(Path("events/ec2-instance-running.json").read_text()))

With `live`, instances have a life: they are pending until whoever runs their machines says that they run, and so on;
the bus learns what AWS would tell it, in weather that can be made bad; Auto Scaling acts.

with emulator(live=True, pace=10) as cloud:
    cloud.report_machine("i-…", "running")
    cloud.bus(lost=0.5, seed=7)
    cloud.events(after=12)

It ends with the `with`, and with its parent however that ends. It keeps nothing.
"""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from lab.cloud.endpoint import ROOT_USER, Endpoint, RefusedError
from lab.cloud.events import REGION
from lab.cloud.post import Posted
from lab.network.processes import stop

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/tools/emulator/bin/python"

_STARTED_WITHIN = 30.0
_ENDED_WITHIN = 10.0
_LOOK = 0.05
_SHOWN = 4000  # characters of the log


class EmulatorError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator; `log` holds its output, and is gone with it."""

    port: int
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes SAM CLI, boto3 and AWS CLI v2 talk to it, as the account's root user."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": ROOT_USER["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": ROOT_USER["aws_secret_access_key"],
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAM_CLI_TELEMETRY": "0",
            "SAM_CLI_POLL_DELAY": "0.5",
        }

    def client(self, service: str, **credentials: str) -> Any:
        """A boto3 client that tries once: the root user's, or that of given `aws_access_key_id`, …"""
        return Endpoint(self.url).client(service, **credentials)

    def emit(self, event: Mapping[str, Any]) -> str:
        """An event as an AWS service would send it, on the default bus; PutEvents refuses such. Its id."""
        return str(self.door("events", event)["id"])

    def report_machine(self, instance: str, state: str) -> None:
        """What became of an instance: running, stopped or terminated. Said twice or too late, it is no news."""
        self.door("machines", {"instance": instance, "state": state})

    def report_health(self, group: str, target: str, state: str, reason: str = "", description: str = "") -> None:
        """What a load balancer found of a target: the ARN of its group, and its id."""
        told = {"group": group, "target": target, "state": state, "reason": reason, "description": description}
        self.door("health", told)

    def bus(
        self,
        *,
        late: float = 0,
        seconds: float = 0,
        doubled: float = 0,
        shuffled: float = 0,
        lost: float = 0,
        seed: int = 1,
    ) -> None:
        """What becomes of the events from now on: shares of them, from 0 to 1. Without any, nothing."""
        weather = {"late": late, "seconds": seconds, "doubled": doubled, "shuffled": shuffled, "lost": lost}
        self.door("bus", {**weather, "seed": seed})

    def sweep(self) -> str:
        """All schedules strike, whatever happens to other events; the id of what they send."""
        return str(self.door("sweep", {})["id"])

    def events(self, after: int = 0) -> list[Posted]:
        """Those with higher numbers, and what became of them; the oldest of very many are forgotten."""
        try:
            return Endpoint(self.url).events(after)
        except RefusedError as error:
            raise EmulatorError(f"the emulator refused this: {error}") from None

    def door(self, name: str, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of a side door to what is said, or to a mere look."""
        try:
            return Endpoint(self.url).door(name, said)
        except RefusedError as error:
            raise EmulatorError(f"the emulator refused this: {error}") from None

    def output(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-_SHOWN:]


@contextmanager
def emulator(
    auth: bool = True,
    live: bool = False,
    pace: float = 1.0,
    listeners: Sequence[socket.socket] = (),
    main: socket.socket | None = None,
) -> Iterator[Emulator]:
    """A fresh account 123456789012 in eu-west-1. `auth`: IAM policies are enforced. `pace`: how many times as fast the
    waits of AWS's services and of functions pass. `main`: a socket that listens on 127.0.0.1, if the port has to be
    known before; the emulator answers on `listeners` too. The caller's sockets stay the caller's, to be closed."""
    if not PYTHON.exists():
        raise EmulatorError(f"{PYTHON} is missing: `make setup` makes it")
    options = ["--pace", str(pace), *(["--auth"] if auth else []), *(["--live"] if live else [])]
    with tempfile.TemporaryDirectory(prefix="emulator-") as scratch:
        if main is None:
            with socket.create_server(("127.0.0.1", 0)) as own:
                running = _start(own, listeners, Path(scratch), options)
        else:
            running = _start(main, listeners, Path(scratch), options)
        try:
            _await_health(running)
            yield running
        except BaseException as error:
            error.add_note(f"The emulator's log ends with:\n{running.output()}")
            raise
        finally:
            stop(running.process, _ENDED_WITHIN)


def _start(main: socket.socket, others: Sequence[socket.socket], scratch: Path, options: Sequence[str]) -> Emulator:
    """It gets a socket that listens already, so that no other process can take its port meanwhile."""
    log = scratch / "emulator.log"
    command = [str(PYTHON), "-m", "lab.cloud.launcher", "--socket", str(main.fileno()), *options]
    command += ["--parent", str(os.getpid()), *(f"--listener={one.fileno()}" for one in others)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "TMPDIR": str(scratch), "LANG": "C.UTF-8"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[one.fileno() for one in (main, *others)],
        )
    return Emulator(main.getsockname()[1], log, process)


def _await_health(running: Emulator) -> None:
    deadline = time.monotonic() + _STARTED_WITHIN
    while not _healthy(running.port):
        if running.process.poll() is not None or time.monotonic() > deadline:
            raise EmulatorError("the emulator did not become healthy")
        time.sleep(_LOOK)


def _healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/_ministack/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
