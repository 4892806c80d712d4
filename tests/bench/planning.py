"""5. What a full look of the control plane costs, beside botocore making dicts of the same describe answers.

The look is everything between those dicts and the plan: describe answers made plain, what is wanted, what to change.
How it grows is measured with ready-made dicts, since a hundred pages take the parser minutes.
"""

import gc
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from statistics import median

from rich.console import Console

from mirroring.collector import put_aside
from mirroring.ec2 import Ec2
from mirroring.model import Direction, Filter, Plan, Rule, Target, TargetKind, World
from mirroring.plan import make_plan
from mirroring.policy import load
from mirroring.wanted import Barred, wanted
from tests.bench.describes import FILTER, OTHER, OWNER, POLICY, TARGET, Account, Form, expected_pages
from tests.bench.processes import peak_memory
from tests.bench.result import Finding

INTERFACES = 10_000
MORE = 10 * INTERFACES
MOST_RATIO = 2.0
MOST_MEMORY = 300_000_000
GROWTH = (8.0, 12.0)
_NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
_HTTP = Rule(Direction.INGRESS, 100, True, "0.0.0.0/0", "0.0.0.0/0", protocol=6, destination_ports=(80, 80))


@put_aside()
def look(account: Account) -> tuple[Plan, int]:
    """The plan about a whole account, and the calls that it took to see it."""
    policy = load(POLICY)
    ec2 = Ec2(account, account)
    world = World(
        everything=True,
        asked=frozenset(),
        instances=ec2.marked(None),
        sessions=tuple(ec2.sessions()),
        targets={TARGET: Target(TARGET, TargetKind.NLB, "load balancer")},
        filters={name: Filter(name, (_HTTP,)) for name in (FILTER, OTHER)},
    )
    wishes = wanted(policy, world, _NOW, barred=Barred())
    return make_plan(wishes, world, owner=OWNER, now=_NOW, sources=policy.sources), ec2.calls


def measure(console: Console, rounds: int) -> list[Finding]:
    """Ratio, memory, calls and growth."""
    console.print(f"  {INTERFACES:,} interfaces and sessions, {rounds} rounds")
    parsing, planning = zip(*(_round() for _ in range(rounds)), strict=True)
    console.print(f"  {MORE:,} interfaces and sessions")
    growth = _growth(f"   {MORE:,} interfaces, beside {INTERFACES:,}", rounds)
    return [_ratio(parsing, planning), _memory(), _calls(), growth]


def _round() -> tuple[float, float]:
    """CPU seconds of the parser, and of what comes after it."""
    account = Account(INTERFACES, "xml")
    began = _settled()
    with put_aside():  # as in a look
        account.drain()
    parsing = time.process_time() - began - account.making
    return parsing, _seconds(INTERFACES, "xml") - parsing


def _seconds(interfaces: int, form: Form) -> float:
    """CPU time of a look, without the making of its pages."""
    account = Account(interfaces, form)
    began = _settled()
    look(account)
    return time.process_time() - began - account.making


def _settled() -> float:
    gc.collect()
    return time.process_time()


def _ratio(parsing: tuple[float, ...], planning: tuple[float, ...]) -> Finding:
    ratios = [mine / theirs for mine, theirs in zip(planning, parsing, strict=True)]
    ratio = median(ratios)
    return Finding(
        f"5. A full look and its plan, {INTERFACES:,} interfaces",
        f"{median(planning):.2f} s",
        f"{median(parsing):.2f} s",
        f"{ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"at most {MOST_RATIO:g}",
        ratio <= MOST_RATIO,
    )


def _memory() -> Finding:
    """Of a process of its own, from its start to the plan."""
    command = [sys.executable, "-m", "tests.bench.planning"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = json.loads(done.stdout)
    return Finding(
        "   most memory of its process",
        f"{peak / 1e6:.0f} MB",
        target=f"less than {MOST_MEMORY / 1e6:.0f} MB",
        met=peak < MOST_MEMORY,
    )


def _calls() -> Finding:
    account = Account(INTERFACES, "dicts")
    _, calls = look(account)
    pages = len(list(expected_pages(INTERFACES)))
    return Finding(
        "   describe calls, beside pages", f"{calls}", f"{pages}", f"{calls / pages:.2f}", "at most 1", calls <= pages
    )


def _growth(what: str, rounds: int) -> Finding:
    """Of the best rounds: the least time is the least disturbed."""
    small = min(_seconds(INTERFACES, "dicts") for _ in range(rounds))
    large = min(_seconds(MORE, "dicts") for _ in range(rounds))
    least, most = GROWTH
    met = least <= large / small <= most
    return Finding(what, f"{large:.2f} s", f"{small:.2f} s", f"{large / small:.1f}", f"{least:g} to {most:g}", met)


if __name__ == "__main__":
    look(Account(INTERFACES, "xml"))
    json.dump(peak_memory(os.getpid()), sys.stdout)
