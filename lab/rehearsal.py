"""Everything together, once: clients → production, its mirror → (relay) → the worker → a recorder, and the verdict.

`python -m lab.rehearsal --help` does by hand what the end-to-end tests do.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lab import recorder, relay, worker
from lab.clients import client
from lab.impairment import Impairment
from lab.network import mirror, nginx, prerequisites, sandbox
from lab.network.mirror import VXLAN_PORT, Mirror
from lab.network.processes import stop
from lab.network.topology import PROD, TEST, WORKER, Network, NetworkError
from lab.verdict import Verdict, compare
from lab.worker import Status

_BEHIND_RELAY = 14789
_LISTENING_WITHIN = 10.0
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What to rehearse. An impairment puts the relay on the mirror path."""

    rate: float = 2000
    seconds: float = 10
    connections: int = 150
    once: int = 30
    mix: str = "lossless"
    seed: int = 1
    impairment: Impairment | None = None
    both: bool = False
    flags: tuple[str, ...] = ()  # of `replayer run`
    keep: Path | None = None  # where the run's files are copied to


@dataclass(slots=True)
class Report:
    """What came of it."""

    verdict: Verdict
    clients: client.Summary
    mirrored: int  # packets that the kernel copied
    status: Status  # the worker's, when all was over
    exit_code: int
    output: str  # of the worker
    relayed: relay.Report | None

    def summary(self) -> str:
        """All that a reader of a failure needs, in some lines."""
        counts = {name: value for name, value in asdict(self.verdict).items() if isinstance(value, int)}
        lines = [f"compared: {counts}", f"clients: {asdict(self.clients)}", f"mirrored: {self.mirrored}"]
        if self.relayed:
            lines.append(f"relay: { ({**asdict(self.relayed), 'lost': len(self.relayed.lost)}) }")
        for kind, found in self.verdict.faults().items():
            lines.append(f"{kind}: {len(found)}, such as {found[:_SHOWN]}")
        return "\n".join([*lines, *worker.explain(self.status), f"exit code {self.exit_code}", self.output[-4000:]])


@dataclass(slots=True)
class _Stage:
    """The parts that run, and the files that they write."""

    network: Network
    production: nginx.Server
    recorder: subprocess.Popen[bytes]
    worker: worker.Worker
    relay: subprocess.Popen[bytes] | None = None
    files: dict[str, Path] = field(default_factory=dict)


def run(plan: Plan) -> Report:
    """Rehearse in a sandbox that is there already."""
    with Network(keep=plan.keep) as network:
        stage = _build(network, plan)
        mirror.start(network, Mirror(both=plan.both))
        summary = _drive(stage, plan)
        if stage.relay:
            stop(stage.relay)
        final = worker.settle(stage.worker)
        code, output = worker.end(stage.worker)
        stop(stage.recorder)
        stop(stage.production.process)
        relayed = relay.read(stage.files["relay"]) if stage.relay else None
        verdict = compare(
            client.read(stage.files["clients"]),
            [entry.id for entry in nginx.answered(stage.production)],
            recorder.read(stage.files["recorder"]),
            relayed.lost if relayed else (),
        )
        return Report(verdict, summary, mirror.copied(network), final, code, output, relayed)


def _build(network: Network, plan: Plan) -> _Stage:
    files = {name: network.directory / f"{name}.json" for name in ("clients", "recorder", "relay")}
    production = nginx.start(network, "prod", f"{PROD}:80")
    test = network.start_python("test", "lab.recorder", f"{TEST}:80", str(files["recorder"]))
    _until_listening(network, "test", "tcp", 80)
    listen, port = ("127.0.0.1", _BEHIND_RELAY) if plan.impairment else (WORKER, VXLAN_PORT)
    stage = _Stage(
        network, production, test, worker.start(network, listen, port, f"http://{TEST}", *plan.flags), files=files
    )
    if plan.impairment:
        flags = [text for name, value in asdict(plan.impairment).items() for text in (f"--{name}", str(value))]
        ends = (f"{WORKER}:{VXLAN_PORT}", f"{listen}:{port}", str(files["relay"]))
        stage.relay = network.start_python("worker", "lab.relay", *ends, *flags)
        _until_listening(network, "worker", "udp", VXLAN_PORT)
    return stage


def _drive(stage: _Stage, plan: Plan) -> client.Summary:
    names = ("rate", "seconds", "connections", "once", "mix", "seed")
    flags = [text for name in names for text in (f"--{name}", str(getattr(plan, name)))]
    command = [sys.executable, "-m", "lab.clients.client", f"{PROD}:80", str(stage.files["clients"]), *flags]
    process = stage.network.start("client", command, stdout=subprocess.PIPE)
    output, _ = process.communicate()
    if process.returncode:
        raise NetworkError(f"the clients failed with exit code {process.returncode}")
    values = json.loads(output)
    del values["seconds"]
    return client.Summary(**values)


def _until_listening(network: Network, namespace: str, protocol: str, port: int) -> None:
    """Wait for a socket on `port`."""
    deadline = time.monotonic() + _LISTENING_WITHIN
    wanted = f":{port:04X} "
    while not any(wanted in line.split("rem_address")[0][:24] for line in _sockets(network, namespace, protocol)):
        if time.monotonic() > deadline:
            raise NetworkError(f"nobody listens on {protocol} port {port} in {namespace}")
        time.sleep(0.02)


def _sockets(network: Network, namespace: str, protocol: str) -> list[str]:
    return network.run(namespace, "cat", f"/proc/net/{protocol}").splitlines()[1:]


def main() -> int:
    """Rehearse by hand."""
    parser = argparse.ArgumentParser(
        description="Rehearse the worker on mirrored traffic; exit 1 if anything was amiss."
    )
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--mix", choices=client.MIXES, default="lossless")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--both", action="store_true", help="mirror responses too")
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy the run's files here")
    for name in ("drop", "reorder", "duplicate"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help="percent of the mirrored datagrams")
    arguments = vars(parser.parse_args())
    shares = [arguments.pop(name) for name in ("drop", "reorder", "duplicate")]
    drop, reorder, duplicate = shares
    impairment = Impairment(drop, reorder, duplicate, seed=arguments["seed"]) if any(shares) else None
    if complaint := prerequisites.complaint():
        print(complaint, file=sys.stderr)
        return 2
    try:
        sandbox.enter()
        report = run(Plan(**arguments, impairment=impairment))
    except (NetworkError, sandbox.SandboxError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.summary())
    return 1 if report.verdict.faults() or not report.status["balanced"] else 0


if __name__ == "__main__":
    sys.exit(main())
