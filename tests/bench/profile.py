"""Where the worker's CPU time goes: `python -m tests.bench.profile`. The load of the first measurement, or another one.

The shard is sampled by the kernel's profiling timer (see `sampled/sitecustomize.py`), which costs it about a percent;
a second run, unsampled, tells user mode from kernel, and the CPU time per request.
"""

import argparse
import json
import linecache
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lab.network import prerequisites, sandbox
from lab.network.topology import NetworkError
from tests.bench.recording import RecordingError
from tests.bench.rig import Rig, rig
from tests.bench.subject import Outcome, subject
from tests.bench.wrk import GET, ONCE, UPLOAD, Kind

KINDS = {"get": (GET, 20_000.0), "once": (ONCE, 8_000.0), "upload": (UPLOAD, 400.0)}
_SAMPLED = Path(__file__).with_name("sampled")
_SHOWN = 25


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.profile", description=__doc__)
    parser.add_argument("kind", nargs="?", choices=KINDS, default="get", help="what is replayed (default: get)")
    parser.add_argument("--rate", type=float, help="requests a second (default: as the measurement)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each of the two runs (default: 8)")
    options = parser.parse_args()
    kind, rate = KINDS[options.kind]
    problem = prerequisites.complaint()
    if problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        sandbox.enter()
        with rig((kind,)) as bench:
            _profile(bench, kind, options.rate or rate, options.seconds)
    except (sandbox.SandboxError, NetworkError, RecordingError, RuntimeError) as error:
        print(f"profile: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _profile(bench: Rig, kind: Kind, rate: float, seconds: float) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, 130)
    with subject(bench) as worker:
        _say(console, "unsampled", worker.play(kind.name, round(rate * seconds), rate))
    samples = bench.network.directory / "samples.json"
    os.environ |= {"BENCH_SAMPLES": str(samples), "PYTHONPATH": _path()}
    with subject(bench) as worker:
        _say(console, "sampled", worker.play(kind.name, round(rate * seconds), rate))
    seen = json.loads(samples.read_text())
    count = sum(seen["self"].values())
    _table(console, f"CPU time of the shard by function, {count:,} samples: in itself", seen["self"], count)
    _table(console, "by function, with all that it calls", seen["total"], count)
    _table(console, "by line", {_with_source(line): number for line, number in seen["lines"].items()}, count)


def _say(console: Console, name: str, outcome: Outcome) -> None:
    shard, supervisor = outcome.shard, outcome.cpu - outcome.shard
    each = 1e6 / outcome.replayed
    console.print(
        f"{name}: {outcome.played.rate:,.0f} requests/s offered; per request {shard.total * each:.2f} µs in the shard"
        f" ({shard.user * each:.2f} in user mode, {shard.system * each:.2f} in the kernel),"
        f" {supervisor.total * each:.2f} µs in the supervisor"
    )
    for fault in outcome.faults():
        console.print(f"  [red]{fault}[/]")


def _table(console: Console, title: str, counts: Mapping[str, int], count: int) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", show_header=False)
    table.add_column(justify="right")
    table.add_column()
    for name, number in sorted(counts.items(), key=lambda entry: -entry[1])[:_SHOWN]:
        table.add_row(f"{number / count:.1%}", escape(name))
    console.print(table)


def _with_source(place: str) -> str:
    """A line's place and its text."""
    name, _, number = place.partition(":")
    here = Path(sys.modules["replayer"].__file__ or "").with_name(name)
    return f"{place}  {linecache.getline(str(here), int(number)).strip()[:90]}"


def _path() -> str:
    inherited = os.environ.get("PYTHONPATH")
    return str(_SAMPLED) if not inherited else f"{_SAMPLED}{os.pathsep}{inherited}"


if __name__ == "__main__":
    sys.exit(main())
