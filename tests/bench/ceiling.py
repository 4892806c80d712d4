"""3. The highest rate that one shard holds without losing anything, beside what a bare `recv` loop holds.

A rate is held when no datagram is dropped, every request is replayed, the accounting balances and the answers keep up:
the last one comes within LAG of the last datagram, so that no socket buffer hides that the rate is too high. Short
runs search for it, one of CONFIRM seconds confirms it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console

from lab.network.mirror import VXLAN_PORT
from tests.bench.result import Finding
from tests.bench.rig import Rig
from tests.bench.sender import Order, Played
from tests.bench.subject import Subject, subject
from tests.bench.wrk import GET, ONCE, Kind

LAG = 1.0
CONFIRM = 10.0
STEP = 1.5
PRECISION = 0.06
BACK_OFF = 0.93
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


type Try = Callable[[float, float], Probe]


def measure(rig: Rig, console: Console, probe_seconds: float, confirm_seconds: float) -> list[Finding]:
    """Both kinds of traffic, each for both receivers."""
    findings = []
    for kind, first, wanted in ((GET, WANTED // 2, WANTED), (ONCE, 2_000, None)):
        with subject(rig) as worker:
            console.print(f"  {kind.name}: worker")
            mine = highest(_worker(worker, kind), console, first, probe_seconds, confirm_seconds)
            peak = worker.peak_memory()
        console.print(f"  {kind.name}: recv loop")
        bare = highest(_loop(rig, kind), console, 4 * first, probe_seconds, confirm_seconds)
        findings += _findings(kind, mine, bare, wanted, peak)
    return findings


def highest(attempt: Try, console: Console, first: float, probe: float, confirm: float) -> Probe | None:
    """The run at the highest rate that was held; None if none was. The rate at which the sender is late ends the search."""
    low, high, rate = 0.0, None, first
    while rate <= MOST and (high is None or high - low > PRECISION * high):
        if _shown(console, attempt(rate, probe)).faults:
            high = rate
        else:
            low = rate
        rate = low * STEP if high is None else (low + high) / 2
        if rate < 500:
            return None
    rate = low
    while rate >= 500:
        run = _shown(console, attempt(rate, confirm))
        if not run.faults:
            return run
        rate *= BACK_OFF
    return None


def _worker(worker: Subject, kind: Kind) -> Try:
    def attempt(rate: float, seconds: float) -> Probe:
        outcome = worker.play(kind.name, round(rate * seconds), rate)
        faults = [*outcome.faults(), *_late(outcome.played, rate)]
        if outcome.lag > LAG:
            faults.append(f"the answers came {outcome.lag:.1f} s late")
        return Probe(outcome.played, outcome.cpu.total / outcome.played.seconds, tuple(faults))

    return attempt


def _loop(rig: Rig, kind: Kind) -> Try:
    recording = rig.recordings[kind.name]

    def attempt(rate: float, seconds: float) -> Probe:
        requests = round(rate * seconds)
        count = recording.count(requests)
        rig.listener.expect(count)
        played = rig.sender.play(Order(kind.name, requests, rate, rig.listener.port))
        heard = rig.listener.finish()
        faults = _late(played, rate)
        if heard.datagrams != count:
            faults.append(f"{count - heard.datagrams:,} datagrams lost, {heard.drops:,} of them at the socket")
        if heard.ended - played.ended > LAG:
            faults.append(f"read {heard.ended - played.ended:.1f} s late")
        return Probe(played, heard.cpu / played.seconds, tuple(faults))

    return attempt


def _late(played: Played, rate: float) -> list[str]:
    return [f"the sender managed {played.rate:,.0f}/s only"] if played.rate < _ON_TIME * rate else []


def _shown(console: Console, probe: Probe) -> Probe:
    verdict = f"[red]{'; '.join(probe.faults)}[/]" if probe.faults else "held"
    console.print(
        f"    {probe.played.rate:>9,.0f}/s for {probe.played.seconds:4.1f} s, sender {probe.played.share:.0%}"
        f" of a core, receiver {probe.share:.0%}: {verdict}"
    )
    return probe


def _findings(kind: Kind, mine: Probe | None, bare: Probe | None, wanted: int | None, peak: int) -> list[Finding]:
    if mine is None or bare is None:
        return [Finding(f"3. Highest rate without loss, {kind.name}", _rate(mine), _rate(bare), "–", met=False)]
    senders = f"{mine.played.share:.0%} and {bare.played.share:.0%}"
    ratio = mine.played.rate / bare.played.rate
    met = None if wanted is None else mine.played.rate >= wanted * _ON_TIME
    target = "" if wanted is None else f"at least {wanted:,}/s"
    return [
        Finding(f"3. Highest rate without loss, {kind.name}", _rate(mine), _rate(bare), f"{ratio:.2f}", target, met),
        Finding("   the sender's (Python, sendmmsg) share of a core", senders.split(" and ")[0], senders.split(" and ")[1], ""),
        Finding("   the receiver's share of a core", f"{mine.share:.0%}", f"{bare.share:.0%}", ""),
        Finding("   most memory of the shard", f"{peak / (1 << 20):.0f} MiB", "", "", "at most 200 MiB", peak <= MEMORY_MOST),
    ]


def _rate(probe: Probe | None) -> str:
    return "none" if probe is None else f"{probe.played.rate:,.0f}/s"
