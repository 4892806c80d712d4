"""`python -m tests.bench`: the five measurements, or those named. A missed target is shown, and is no error."""

import argparse
import os
import sys
from dataclasses import dataclass

from rich.console import Console

from lab.network import prerequisites, sandbox
from lab.network.topology import NetworkError
from tests.bench import ceiling, gets, memory, planning, uploads
from tests.bench.processes import busy
from tests.bench.recording import RecordingError
from tests.bench.result import Finding, show
from tests.bench.rig import Rig, rig
from tests.bench.wrk import GET, ONCE, UPLOAD

MEASUREMENTS = {
    "get": ("1. CPU per replayed GET", (GET,)),
    "upload": ("2. CPU per 64 KiB POST", (UPLOAD,)),
    "ceiling": ("3. Highest rate without loss", (GET, ONCE)),
    "memory": ("4. Memory per idle flow", (GET,)),
}
PLANNING = "plan"  # of the control plane: needs no network


@dataclass(frozen=True, slots=True)
class Length:
    """How long to measure."""

    rounds: int
    seconds: int  # of one round
    probe: float
    confirm: float
    recording: float  # of the usual length


FULL = Length(rounds=5, seconds=5, probe=2.0, confirm=ceiling.CONFIRM, recording=1.0)
QUICK = Length(rounds=2, seconds=2, probe=1.0, confirm=2.0, recording=0.4)


def main() -> int:
    """The exit code: 0 whenever everything could be measured."""
    options = _options()
    length = QUICK if options.quick else FULL
    names = options.measurements or [*MEASUREMENTS, PLANNING]
    data_path = [name for name in names if name != PLANNING]
    problem = prerequisites.complaint() if data_path else ""
    if problem:
        print(problem, file=sys.stderr)
        return 2
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 130)
    try:
        if data_path:
            sandbox.enter()
        others = busy(1.0)
        console.print(f"{os.cpu_count()} cores, {others:.0%} of them in use before anything of the bench runs")
        if data_path:
            _run(data_path, length, console)
        if PLANNING in names:
            _plan(length, console)
    except (sandbox.SandboxError, NetworkError, RecordingError, RuntimeError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _options() -> argparse.Namespace:
    known = [*MEASUREMENTS, PLANNING]
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__,
        epilog="examples: make bench; make bench ARGS='get upload'; make bench ARGS=--quick",
    )  # fmt: skip
    parser.add_argument("measurements", nargs="*", metavar="MEASUREMENT", help=f"some of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="short rounds and few: a first impression, minutes less")
    options = parser.parse_args()
    for name in options.measurements:
        if name not in known:
            parser.error(f"there is no measurement {name!r}: choose from {', '.join(known)}")
    return options


def _run(names: list[str], length: Length, console: Console) -> None:
    kinds = tuple(dict.fromkeys(kind for name in names for kind in MEASUREMENTS[name][1]))
    console.print(f"recording, mirrored by the kernel: {', '.join(kind.name for kind in kinds)}")
    findings: list[Finding] = []
    with rig(kinds, length.recording) as bench:
        for recording in bench.recordings.values():
            size = len(recording.data) / len(recording.ends)
            console.print(
                f"  {recording.name}: {recording.requests:,} requests in {len(recording.ends):,} datagrams"
                f" of {size:,.0f} bytes on average"
            )
        for name in names:
            console.print(MEASUREMENTS[name][0])
            findings += _measure(name, bench, console, length)
    show(console, "What the data path costs (medians; in brackets the extremes of the rounds)", findings)


def _plan(length: Length, console: Console) -> None:
    console.print("5. A full look of the control plane")
    findings = planning.measure(console, length.rounds)
    show(console, "What the control plane costs (CPU, medians; in brackets the extremes)", findings, "control plane")


def _measure(name: str, bench: Rig, console: Console, length: Length) -> list[Finding]:
    if name == "get":
        return gets.measure(bench, console, length.rounds, length.seconds)
    if name == "upload":
        return uploads.measure(bench, console, length.rounds, length.seconds)
    if name == "ceiling":
        return ceiling.measure(bench, console, length.probe, length.confirm)
    return memory.measure(bench.recordings[GET.name])


if __name__ == "__main__":
    sys.exit(main())
