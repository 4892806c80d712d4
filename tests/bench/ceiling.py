"""3. The highest rate that one shard holds without losing anything, beside what a bare `recv` loop holds.

A rate is held when no datagram is dropped, every request is replayed, the accounting balances and the answers keep up:
the last one comes within LAG of the last datagram, so that no socket buffer hides that the rate is too high. Short
runs search for it, one of CONFIRM seconds confirms it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from tests.bench.result import Finding
from tests.bench.rig import Rig
from tests.bench.sender import Order, Played
from tests.bench.subject import Subject, subject
from tests.bench.wrk import GET, ONCE, Kind

LAG = 0.5
CONFIRM = 10.0
STEP = 1.5
PRECISION = 0.06
BACK_OFF = 0.92
LEAST = 500.0
MOST = 1_000_000
MEMORY_MOST = 200 << 20
WANTED = 40_000
_ON_TIME = 0.97  # of the rate asked for: less, and it is the sender that does not keep up


@dataclass(frozen=True, slots=True)
class Probe:
    """One run. `faults` is empty when the rate was held."""

    played: Played
    share: float  # of a core, of the one who received
    faults: tuple[str, ...]
    punctual: bool  # the sender kept up


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The highest rate that was held. With `at_least` nobody knows more: the sender cannot send faster."""

    probe: Probe
    at_least: bool

    def __str__(self) -> str:
        return f"{'≥ ' if self.at_least else ''}{self.probe.played.rate:,.0f}/s"


type Try = Callable[[float, float], Probe]


def measure(rig: Rig, console: Console, probe_seconds: float, confirm_seconds: float) -> list[Finding]:
    """Both kinds of traffic, each for both receivers."""
    findings = []
    for kind, first, wanted in ((GET, WANTED // 2, WANTED), (ONCE, 5_000, None)):
        with subject(rig) as worker:
            console.print(f"  {kind.name}: worker")
            mine = highest(_worker(worker, kind), console, first, probe_seconds, confirm_seconds)
            peak = worker.peak_memory()
        console.print(f"  {kind.name}: recv loop")
        bare = highest(_loop(rig, kind), console, 4 * first, probe_seconds, confirm_seconds)
        findings += _findings(kind, mine, bare, wanted, peak)
    return findings


def highest(attempt: Try, console: Console, first: float, probe: float, confirm: float) -> Ceiling | None:
    """The highest rate that is held; None if none is."""
    low, high, rate = 0.0, None, first
    punctual = True
    while rate <= MOST and (high is None or high - low > PRECISION * high):
        run = _shown(console, attempt(rate, probe))
        if run.faults:
            high, punctual = rate, run.punctual
        else:
            low = rate
        rate = low * STEP if high is None else (low + high) / 2
        if rate < LEAST:
            return None
    rate = low
    while rate >= LEAST:
        run = _shown(console, attempt(rate, confirm))
        if not run.faults:
            return Ceiling(run, at_least=not punctual)
        rate, punctual = rate * BACK_OFF, run.punctual
    return None


def _worker(worker: Subject, kind: Kind) -> Try:
    def attempt(rate: float, seconds: float) -> Probe:
        outcome = worker.play(kind.name, round(rate * seconds), rate)
        faults = outcome.faults()
        if outcome.lag > LAG:
            faults.append(f"the answers came {outcome.lag:.1f} s late")
        return _probe(outcome.played, rate, outcome.cpu.total, faults)

    return attempt


def _loop(rig: Rig, kind: Kind) -> Try:
    recording = rig.recordings[kind.name]

    def attempt(rate: float, seconds: float) -> Probe:
        requests = round(rate * seconds)
        count = recording.count(requests)
        rig.listener.expect(count)
        played = rig.sender.play(Order(kind.name, requests, rate, rig.listener.port))
        heard = rig.listener.finish()
        faults = []
        if heard.datagrams != count:
            faults.append(f"{count - heard.datagrams:,} datagrams lost, {heard.drops:,} of them at the socket")
        if heard.ended - played.ended > LAG:
            faults.append(f"read {heard.ended - played.ended:.1f} s late")
        return _probe(played, rate, heard.cpu, faults)

    return attempt


def _probe(played: Played, rate: float, cpu: float, faults: list[str]) -> Probe:
    punctual = played.rate >= _ON_TIME * rate
    if not punctual:
        faults.append(f"the sender managed {played.rate:,.0f}/s only")
    return Probe(played, cpu / played.seconds, tuple(faults), punctual)


def _shown(console: Console, probe: Probe) -> Probe:
    verdict = f"[red]{'; '.join(probe.faults)}[/]" if probe.faults else "held"
    console.print(
        f"    {probe.played.rate:>9,.0f}/s for {probe.played.seconds:4.1f} s, sender {probe.played.share:.0%}"
        f" of a core, receiver {probe.share:.0%}: {verdict}"
    )
    return probe


def _findings(kind: Kind, mine: Ceiling | None, bare: Ceiling | None, wanted: int | None, peak: int) -> list[Finding]:
    what = f"3. Highest rate without loss, {kind.name}"
    if mine is None or bare is None:
        return [Finding(what, str(mine or "none"), str(bare or "none"), met=False)]
    run, loop = mine.probe, bare.probe
    ratio = run.played.rate / loop.played.rate
    met = None if wanted is None else run.played.rate >= wanted * _ON_TIME
    target = "" if wanted is None else f"at least {wanted:,}/s"
    small = peak <= MEMORY_MOST
    return [
        Finding(what, str(mine), str(bare), f"{ratio:.2f}", target, met),
        Finding(
            "   share of a core: the sender (Python, sendmmsg)", f"{run.played.share:.0%}", f"{loop.played.share:.0%}"
        ),
        Finding("   share of a core: the receiver", f"{run.share:.0%}", f"{loop.share:.0%}"),
        Finding("   most memory of the shard", f"{peak / (1 << 20):.0f} MiB", target="at most 200 MiB", met=small),
    ]
