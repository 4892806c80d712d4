"""1. What replaying a GET costs the worker, over what sending one costs wrk."""

from rich.console import Console

from lab.network.topology import TEST
from tests.bench import wrk
from tests.bench.result import Finding, Rounds
from tests.bench.rig import Rig
from tests.bench.subject import subject
from tests.bench.wrk import GET, Kind

RATE = 20_000
#: As many connections as the worker's pool has, unless told otherwise.
YARDSTICK = Kind(GET.name, connections=64)


def measure(rig: Rig, console: Console, rounds: int, seconds: int) -> list[Finding]:
    """CPU time per request of both, in turns. Raises RuntimeError when the worker loses a request."""
    figures = Rounds([], [])
    with subject(rig) as worker:
        for number in range(rounds):
            reference = wrk.run(rig.network, "worker", TEST, YARDSTICK, max(1, seconds // 2))
            outcome = worker.play(GET.name, RATE * seconds, RATE)
            figures.subject.append(outcome.cpu_per_request)
            figures.yardstick.append(reference.cpu_per_request)
            supervisor = (outcome.cpu.total - outcome.shard.total) / outcome.cpu.total
            console.print(
                f"  round {number + 1}: worker {outcome.cpu_per_request * 1e6:.2f} µs"
                f" ({outcome.shard.user / outcome.shard.total:.0%} user mode, supervisor {supervisor:.0%};"
                f" {outcome.played.rate:,.0f}/s offered), wrk {reference.cpu_per_request * 1e6:.2f} µs"
                f" ({reference.requests / reference.seconds:,.0f}/s): {figures.ratios[-1]:.2f}"
            )
            for fault in outcome.faults():
                console.print(f"    [red]{fault}[/]")
    return [figures.finding("1. CPU per replayed GET, over wrk's", most=3.5, aim=2.5)]
