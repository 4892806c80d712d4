"""`make demo`: real clients, a real server, the kernel's mirror, `replayer run` - and a table that says what arrived.

curl uploads large bodies, some in chunks, one connection each; h2load sends paced GETs and POSTs over connections that
stay. nginx is production and test environment; what each received is read in its own log and, for bodies, in the files
that it wrote.
"""

import argparse
import hashlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from lab import worker
from lab.network import mirror, nginx, prerequisites, sandbox
from lab.network.mirror import VXLAN_PORT, Mirror
from lab.network.nginx import Entry
from lab.network.topology import PROD, TEST, WORKER, Network, NetworkError, stop
from lab.worker import Status

_GET_CLIENTS, _GETS_A_SECOND = 20, 40  # each
_POST_CLIENTS, _POSTS_A_SECOND = 5, 20
_POST_BYTES = 4096
_UPLOAD_MIB = (1, 2, 3, 4, 5)
_UPLOAD_EVERY = 0.6
_UPLOAD_RATE = "4M"  # bytes a second: an uplink, not a memory copy
_PATIENCE = 30.0
_SHOWN = 5


@dataclass(slots=True)
class Arrivals:
    """What production answered, beside what the test environment received."""

    answered: int = 0
    received: int = 0
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)  # more often than production answered them, or never answered
    bodies: int = 0
    spoilt: list[str] = field(default_factory=list)  # bodies that are not what the client sent

    @property
    def exact(self) -> bool:
        """Whether every request arrived exactly once, with its body, and there were some."""
        return bool(self.answered) and not (self.missing or self.surplus or self.spoilt)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the table shows."""

    clients: Counter[str]
    arrivals: Arrivals
    mirrored: int
    status: Status
    exit_code: int

    @property
    def passed(self) -> bool:
        """PASS: exactly once, accounting balanced, a clean end."""
        return self.arrivals.exact and self.status["balanced"] and self.exit_code == 0


def run(seconds: float, keep: Path | None, console: Console) -> Outcome:
    """The demo, in a sandbox that is there already."""
    with Network(keep=keep) as network:
        production = nginx.start(network, "prod", f"{PROD}:80")
        test = nginx.start(network, "test", f"{TEST}:80", keep_bodies=True)
        replayer = worker.start(network, WORKER, VXLAN_PORT, f"http://{TEST}")
        mirror.start(network, Mirror())
        clients = _drive(network, seconds, console)
        with console.status("waiting for the last answers"):
            status = worker.settle(replayer)
        code, _ = worker.end(replayer)
        stop(production.process)
        stop(test.process)
        arrivals = compare(nginx.answered(production), nginx.answered(test), test.directory)
        return Outcome(clients, arrivals, mirror.copied(network), status, code)


def compare(production: list[Entry], test: list[Entry], bodies: Path) -> Arrivals:
    """Both logs as multisets, and each body that the test environment wrote with the hash its client gave."""
    answered = Counter(_name(entry) for entry in production if entry.status == "200")
    received = Counter(_name(entry) for entry in test)
    arrivals = Arrivals(answered.total(), received.total())
    arrivals.missing = list((answered - received).elements())
    arrivals.surplus = list((received - answered).elements())
    for entry in test:
        if entry.sha256:
            arrivals.bodies += 1
            body = (bodies / entry.body).read_bytes() if entry.body else b""
            if hashlib.sha256(body).hexdigest() != entry.sha256:
                arrivals.spoilt.append(_name(entry))
    return arrivals


def _name(entry: Entry) -> str:
    return f"{entry.method} {entry.target}" + (f" ({entry.id})" if entry.id else "")


def _drive(network: Network, seconds: float, console: Console) -> Counter[str]:
    """All clients for `seconds`; how many requests each kind sent."""
    files = [_body(network, f"{size}MiB", size << 20) for size in _UPLOAD_MIB]
    sent, steady = _start_h2load(network, seconds)
    uploads: list[subprocess.Popen[bytes]] = []
    begin = time.monotonic()
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("clients are sending", total=seconds)
        while (elapsed := time.monotonic() - begin) < seconds:
            progress.update(bar, completed=elapsed)
            if elapsed >= len(uploads) * _UPLOAD_EVERY:
                chunked = len(uploads) % 2 == 1
                uploads.append(_upload(network, files[len(uploads) % len(files)], len(uploads), chunked))
                sent["curl, upload in chunks" if chunked else "curl, upload with a length"] += 1
            time.sleep(0.05)
        for process in (*uploads, *steady):
            if process.wait(_PATIENCE):
                raise NetworkError(f"a client failed: {process.args!r}")
    return sent


def _start_h2load(network: Network, seconds: float) -> tuple[Counter[str], list[subprocess.Popen[bytes]]]:
    urls = network.directory / "urls"
    gets = int(_GETS_A_SECOND * seconds)
    urls.write_text("".join(f"http://{PROD}/item/{number}?q=a%20b\n" for number in range(gets)))
    body, digest = _body(network, "post", _POST_BYTES)
    posts = int(_POSTS_A_SECOND * seconds)
    kinds = {
        "h2load, GET, keep-alive": (gets, _GET_CLIENTS, _GETS_A_SECOND, ("-i", str(urls))),
        "h2load, POST, keep-alive": (
            posts, _POST_CLIENTS, _POSTS_A_SECOND,
            ("-d", str(body), "-H", f"X-Lab-Sha256: {digest}", f"http://{PROD}/upload?from=h2load"),
        ),
    }  # fmt: skip
    sent: Counter[str] = Counter()
    processes = []
    for kind, (count, clients, rate, rest) in kinds.items():
        flags = ("--h1", "-t", "1", "-c", str(clients), "-n", str(count * clients), "--rps", str(rate))
        processes.append(network.start("client", ["h2load", *flags, *rest], stdout=subprocess.DEVNULL))
        sent[kind] = count * clients
    return sent, processes


def _upload(network: Network, file: tuple[Path, str], number: int, chunked: bool) -> subprocess.Popen[bytes]:
    path, digest = file
    headers = ["-H", f"X-Lab-Id: {number}", "-H", f"X-Lab-Sha256: {digest}"]
    body = ["-H", "Transfer-Encoding: chunked", "-T", str(path)] if chunked else ["--data-binary", f"@{path}"]
    command = ["curl", "-sS", "--fail", "-o", os.devnull, "--limit-rate", _UPLOAD_RATE, *headers, *body]
    return network.start("client", [*command, f"http://{PROD}/upload/{path.name}?n={number}"])


def _body(network: Network, name: str, size: int) -> tuple[Path, str]:
    """A file of random bytes and its hash."""
    data = random.Random(name).randbytes(size)
    path = network.directory / name
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


def show(outcome: Outcome, console: Console) -> None:
    """The table, then PASS or FAIL."""
    table = Table(show_header=False, title="VPC Traffic Replay on one machine", title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    for rows in (_clients(outcome), _arrivals(outcome.arrivals), _accounting(outcome)):
        for name, value in rows:
            table.add_row(name, value)
        table.add_section()
    console.print(table)
    if outcome.passed:
        console.print(
            "[bold green]PASS[/]  every request that production answered arrived exactly once; the accounting balances"
        )
        return
    console.print("[bold red]FAIL[/]  " + "; ".join(_complaints(outcome)))
    for line in worker.explain(outcome.status) or ["no counter of the worker explains it"]:
        console.print(f"      {line}", highlight=False)
    buffer = outcome.status["receive_buffer"]
    if outcome.status["totals"]["socket_drops"] and buffer["effective"] < buffer["wished"]:
        remedy = f"sudo sysctl -w net.core.rmem_max={buffer['wished']}, or run as root"
        console.print(f"      the receive buffer was too small: {remedy}", highlight=False)


def _clients(outcome: Outcome) -> list[tuple[str, str]]:
    return [(f"sent by {kind}", f"{count:,}") for kind, count in outcome.clients.items()]


def _arrivals(arrivals: Arrivals) -> list[tuple[str, str]]:
    return [
        ("[bold]requests production answered", f"[bold]{arrivals.answered:,}"),
        ("[bold]requests the test environment received", f"[bold]{arrivals.received:,}"),
        ("  missing", f"{len(arrivals.missing):,}"),
        ("  more often than answered", f"{len(arrivals.surplus):,}"),
        ("bodies compared with what the client sent", f"{arrivals.bodies:,}"),
        ("  differing", f"{len(arrivals.spoilt):,}"),
    ]


def _accounting(outcome: Outcome) -> list[tuple[str, str]]:
    totals = outcome.status["totals"]
    (part,) = totals["destinations"].values()
    buffer = outcome.status["receive_buffer"]
    return [
        ("packets the kernel mirrored", f"{outcome.mirrored:,}"),
        (
            "datagrams arrived = socket drops + read",
            f"{outcome.status['arrived']:,} = {totals['socket_drops']:,} + {totals['datagrams']:,}",
        ),
        (
            "read = segments + refused",
            f"{totals['datagrams']:,} = {totals['segments']:,} + {sum(totals['refused'].values()):,}",
        ),
        ("payload bytes", f"{totals['payload_bytes']:,}"),
        ("  in framed requests", f"{totals['framed_bytes']:,}"),
        ("  duplicate", f"{totals['duplicate_bytes']:,}"),
        ("  passed over", f"{sum(totals['passed_over_bytes'].values()):,}"),
        ("  given up", f"{sum(totals['given_up_bytes'].values()):,}"),
        ("  held", f"{totals['held_bytes']:,}"),
        (
            "requests framed = selected + passed over",
            f"{part['framed']:,} = {part['selected']:,} + {sum(part['passed_over'].values()):,}",
        ),
        ("requests replayed", f"{part['replayed']:,}"),
        ("  failed, dropped", f"{sum(part['failed'].values()):,}, {sum(part['dropped'].values()):,}"),
        ("  queued, in flight", f"{part['queued']:,}, {part['in_flight']:,}"),
        ("accounting", "balanced" if outcome.status["balanced"] else "NOT BALANCED"),
        ("receive buffer, effective (wished)", f"{_size(buffer['effective'])} ({_size(buffer['wished'])})"),
    ]


def _complaints(outcome: Outcome) -> list[str]:
    arrivals = outcome.arrivals
    found = {"missing": arrivals.missing, "received more often": arrivals.surplus, "with another body": arrivals.spoilt}
    lines = [f"{len(names):,} {what}, such as {', '.join(names[:_SHOWN])}" for what, names in found.items() if names]
    if not arrivals.answered:
        lines.append("production answered nothing")
    if not outcome.status["balanced"]:
        lines.append("the accounting does not balance")
    if outcome.exit_code:
        lines.append(f"replayer run ended with exit code {outcome.exit_code}")
    return lines


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def main() -> int:
    """0 for PASS, 1 for FAIL, 2 when the machine lacks something, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="make demo", description="Mirror real traffic, replay it, compare.")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the clients send (default 20)")
    keep = Path("demo-files") if os.environ.get("KEEP") else None
    parser.add_argument(
        "--keep",
        type=Path,
        default=keep,
        metavar="DIRECTORY",
        help="copy logs and other files here (KEEP=1: demo-files)",
    )
    arguments = parser.parse_args()
    complaint = prerequisites.complaint()
    if complaint is None and not worker.program().exists():
        complaint = f"the demo needs {worker.program()}: make setup"
    if complaint:
        print(complaint, file=sys.stderr)
        return 2
    console = Console()
    try:
        sandbox.enter()
        outcome = run(arguments.seconds, arguments.keep, console)
    except (NetworkError, sandbox.SandboxError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; nothing is left behind", file=sys.stderr)
        return 130
    show(outcome, console)
    return 0 if outcome.passed else 1


if __name__ == "__main__":
    sys.exit(main())
