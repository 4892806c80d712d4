"""An AWS endpoint on loopback, as a process of its own: ministack with what `lab.cloud.launcher` adds to it.

with emulator() as cloud:
    cloud.client("ec2").describe_traffic_mirror_sessions()
    subprocess.run(["sam", "deploy"], env=os.environ | cloud.environment)
    cloud.emit(json.loads(Path("events/ec2-instance-running.json").read_text()))

It ends with the `with`, and with its parent however that ends. It keeps nothing.
"""

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from lab.cloud.events import REGION
from lab.network.topology import stop

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/tools/emulator/bin/python"

#: ministack takes this key for the account's root user, whom no policy limits.
ROOT_USER = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}

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
        config = Config(retries={"total_max_attempts": 1}, read_timeout=120)
        return boto3.session.Session().client(
            service, region_name=REGION, endpoint_url=self.url, config=config, **(credentials or ROOT_USER)
        )

    def emit(self, event: Mapping[str, Any]) -> str:
        """An event as an AWS service would send it, on the default bus; PutEvents refuses such. Its id."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/_lab/events", json.dumps(dict(event)))
            answer = connection.getresponse()
            body = answer.read().decode()
        finally:
            connection.close()
        if answer.status != 200:
            raise EmulatorError(f"the emulator refused the event: {body}")
        identity: str = json.loads(body)["id"]
        return identity

    def output(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-_SHOWN:]


@contextmanager
def emulator(auth: bool = True) -> Iterator[Emulator]:
    """A fresh account 123456789012 in eu-west-1; with `auth`, IAM policies are enforced."""
    if not PYTHON.exists():
        raise EmulatorError(f"{PYTHON} is missing: `make setup` makes it")
    with tempfile.TemporaryDirectory(prefix="emulator-") as scratch:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            running = _start(listener, Path(scratch), auth)
        try:
            _await_health(running)
            yield running
        except BaseException as error:
            error.add_note(f"The emulator's log ends with:\n{running.output()}")
            raise
        finally:
            stop(running.process, _ENDED_WITHIN)


def _start(listener: socket.socket, scratch: Path, auth: bool) -> Emulator:
    """It gets a socket that listens already, so that no other process can take its port meanwhile."""
    log = scratch / "emulator.log"
    command = [str(PYTHON), "-m", "lab.cloud.launcher", "--socket", str(listener.fileno())]
    command += ["--parent", str(os.getpid()), *(["--auth"] if auth else [])]
    environment = {"PATH": os.environ["PATH"], "HOME": str(scratch), "TMPDIR": str(scratch), "LANG": "C.UTF-8"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(listener.fileno(),),
        )
    return Emulator(listener.getsockname()[1], log, process)


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
