"""2. What replaying a 64 KiB POST costs the worker, over what receiving its datagrams costs a bare `recv` loop."""

import time

from rich.console import Console

from replayer.ledger import Ledger
from replayer.pipeline import Pipeline
from replayer.settings import Settings
from replayer.shard import BATCH
from tests.bench.recording import Recording
from tests.bench.result import Finding, Rounds
from tests.bench.rig import Rig
from tests.bench.sender import Order
from tests.bench.subject import subject
from tests.bench.wrk import UPLOAD

RATE = 1_000
AT_ONCE, TIMES = 20, 50  # POSTs that the smallest socket buffer holds, and how often they are read


def measure(rig: Rig, console: Console, rounds: int, seconds: int) -> list[Finding]:
    """CPU time per POST: of the worker, of its pure part alone, and of the loop; in turns."""
    recording = rig.recordings[UPLOAD.name]
    per_post = len(recording.ends) / recording.requests
    replayed, framed, paced = Rounds([], []), Rounds([], []), Rounds([], [])
    with subject(rig) as worker:
        for number in range(rounds):
            reference = _receive(rig, recording)
            outcome = worker.play(UPLOAD.name, RATE * seconds, RATE)
            alone = _frame(recording)
            replayed.subject.append(outcome.cpu_per_request)
            framed.subject.append(alone)
            replayed.yardstick.append(reference)
            framed.yardstick.append(reference)
            paced.subject.append(outcome.cpu_per_request)
            paced.yardstick.append(_receive_paced(rig, recording, RATE * seconds))
            console.print(
                f"  round {number + 1}: replayed {outcome.cpu_per_request * 1e6:.1f} µs"
                f" ({outcome.shard.user / outcome.shard.total:.0%} user mode), framed alone {alone * 1e6:.1f} µs,"
                f" recv loop {reference * 1e6:.1f} µs for {per_post:.1f} datagrams:"
                f" {replayed.ratios[-1]:.2f} and {framed.ratios[-1]:.2f};"
                f" recv loop under the same load {paced.yardstick[-1] * 1e6:.1f} µs: {paced.ratios[-1]:.2f}"
            )
            for fault in outcome.faults():
                console.print(f"    [red]{fault}[/]")
    return [
        replayed.finding("2. CPU per 64 KiB POST, over a recv loop's", most=4, aim=2.5),
        paced.finding("   over a recv loop's under the same load"),
        framed.finding("   its decapsulation, reassembly and framing alone"),
    ]


def _receive(rig: Rig, recording: Recording) -> float:
    """Seconds of CPU that the bare loop needs per POST. It reads them when all have arrived: were it to wait for each
    datagram, most of its time would be spent on falling asleep and waking up, which one with work to do is spared.
    """
    count, used = recording.count(AT_ONCE), 0.0
    for _ in range(TIMES):
        rig.sender.play(Order(recording.name, AT_ONCE, 1_000_000, rig.listener.port))
        rig.listener.expect(count)
        heard = rig.listener.finish()
        if heard.datagrams != count:
            raise RuntimeError(f"the recv loop lost {count - heard.datagrams:,} of {count:,} datagrams")
        used += heard.cpu
    return used / (AT_ONCE * TIMES)


def _receive_paced(rig: Rig, recording: Recording, requests: int) -> float:
    """Seconds of CPU that the loop needs per POST when they come as they come to the worker."""
    count = recording.count(requests)
    rig.listener.expect(count)
    rig.sender.play(Order(recording.name, requests, RATE, rig.listener.port))
    heard = rig.listener.finish()
    if heard.datagrams != count:
        raise RuntimeError(f"the recv loop lost {count - heard.datagrams:,} of {count:,} datagrams")
    return heard.cpu / requests


def _frame(recording: Recording) -> float:
    """Seconds of CPU that the pipeline needs per POST, without receiving and replaying."""
    ledger, used = Ledger(), 0.0
    receive = Pipeline(Settings(), ledger).receive_all
    for batch in recording.batches(BATCH):  # copied one after the other: as near to the processor as if just received
        before = time.process_time()
        receive(batch, 0.0)
        used += time.process_time() - before
    if ledger.framed != recording.requests:
        raise RuntimeError(f"{ledger.framed:,} of {recording.requests:,} requests framed")
    return used / recording.requests
