"""The program under test, run as a user runs it: `replayer run` in its namespace, watched through its own pages."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.network.processes import stop
from lab.network.topology import Network, NetworkError

_HEALTH, _ADMIN = "127.0.0.1:8080", "127.0.0.1:8081"
_STARTED_WITHIN = 20.0
_SETTLED_WITHIN = 30.0
_SETTLED_FOR = 2.0  # longer than a hole may wait to be filled
_ENDED_WITHIN = 30.0
_LOOK = 0.1

type Status = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Worker:
    """A running `replayer run`; `output` holds its log and, in the end, its accounting."""

    network: Network
    process: subprocess.Popen[bytes]
    output: Path


def program() -> Path:
    """`.venv/bin/replayer`, or what REPLAYER names."""
    return Path(os.environ.get("REPLAYER") or Path(sys.executable).with_name("replayer"))


def start(network: Network, listen: str, port: int, destination: str, *flags: str) -> Worker:
    """Run it, and wait until it is healthy. Raises NetworkError with its own words when it is not."""
    output = network.directory / "replayer.log"
    command = [str(program()), "run", "--destination", destination, "--listen", listen, "--vxlan-port", str(port)]
    command += ["--http-ports", "80", "--health-address", _HEALTH, "--admin-address", _ADMIN, *flags]
    with output.open("wb") as log:
        process = network.start("worker", command, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + _STARTED_WITHIN
    while not _healthy(network):
        if process.poll() is not None or time.monotonic() > deadline:
            raise NetworkError(f"replayer run did not become healthy: {output.read_text().strip()[-500:]}")
        time.sleep(_LOOK)
    return Worker(network, process, output)


def status(worker: Worker) -> Status:
    """Its /status."""
    document: Status = json.loads(
        worker.network.run("worker", "curl", "-sS", "--max-time", "5", f"http://{_ADMIN}/status")
    )
    return document


def settle(worker: Worker) -> Status:
    """Wait until nothing has arrived, waited or been on its way for a while; its /status then."""
    deadline = time.monotonic() + _SETTLED_WITHIN
    last, since = status(worker), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(_LOOK)
        now = status(worker)
        if _busy(now) or now["totals"] != last["totals"]:
            since = time.monotonic()
        elif time.monotonic() - since >= _SETTLED_FOR:
            return now
        last = now
    return last


def end(worker: Worker) -> tuple[int, str]:
    """SIGTERM; the exit code and all that it printed."""
    code = stop(worker.process, _ENDED_WITHIN)
    return code, worker.output.read_text()


def explain(status: Status) -> list[str]:
    """The counters that tell where requests may have been lost, as `name: number`."""
    totals = status["totals"]
    found = {"socket_drops": totals["socket_drops"], "crashes": totals["crashes"], "truncated": totals["truncated"]}
    groups = {
        "refused": totals["refused"],
        "given_up": totals["given_up"],
        "passed_over_flows": totals["passed_over_flows"],
    }
    for url, part in totals["destinations"].items():
        for name in ("passed_over", "failed", "dropped"):
            groups[f"{url} {name}"] = part[name]
        found |= {f"{url} {level}": part[level] for level in ("queued", "in_flight")}
    for name, reasons in groups.items():
        found |= {f"{name}.{reason}": count for reason, count in reasons.items()}
    lines = [f"{name}: {count:,}" for name, count in found.items() if count]
    return lines + [f"not balanced: {law}" for law in status["imbalances"]]


def _busy(status: Status) -> bool:
    parts = status["totals"]["destinations"].values()
    return any(part["queued"] or part["in_flight"] for part in parts)


def _healthy(network: Network) -> bool:
    try:
        network.run("worker", "curl", "-sS", "--fail", "--max-time", "2", f"http://{_HEALTH}/healthz")
    except NetworkError:
        return False
    return True
