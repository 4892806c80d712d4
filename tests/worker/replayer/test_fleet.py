"""What a dead shard leaves to the totals, and what becomes of a stuck one."""

import os
import signal
import socket
import subprocess
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from replayer import fleet, snapshot
from replayer.fleet import Place, Process, legacy
from replayer.ledger import Ledger, as_dict, imbalances
from replayer.snapshot import Snapshot

COUNT = st.integers(0, 10**9)


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """A balanced ledger with everything pending that can be."""
    ledger = Ledger(
        segments=draw(COUNT),
        framed_bytes=draw(COUNT),
        held_bytes=draw(COUNT),
        flows=draw(COUNT),
        tombstones=draw(COUNT),
    )
    ledger.refused["not_ip"] = draw(COUNT)
    ledger.datagrams = ledger.segments + ledger.refused["not_ip"]
    ledger.payload_bytes = ledger.framed_bytes + ledger.held_bytes
    for name in draw(st.sets(st.sampled_from(["http://a", "http://b"]))):
        part = ledger.destination(name)
        part.replayed, part.queued, part.in_flight = draw(COUNT), draw(COUNT), draw(COUNT)
        part.framed = part.selected = part.replayed + part.queued + part.in_flight
    return ledger


def snapshot_of(ledger: Ledger) -> Snapshot:
    values: dict[str, Any] = as_dict(ledger)
    return Snapshot(pid=1, at=0.0, generation=1, draining=False, trouble={}, ledger=values)


@given(ledger=ledgers(), unseen=COUNT)
def test_nothing_stays_pending_and_the_law_holds(ledger: Ledger, unseen: int) -> None:
    assert imbalances(ledger) == []
    left = legacy(snapshot_of(ledger), ledger.datagrams + unseen)
    assert imbalances(left) == []
    assert left.held_bytes == left.flows == left.tombstones == 0
    assert left.datagrams == ledger.datagrams + unseen
    assert left.refused["shard_crashed"] == unseen
    assert left.given_up_bytes["shard_crashed"] == ledger.held_bytes
    for name, part in left.destinations.items():
        before = ledger.destinations[name]
        assert part.queued == part.in_flight == 0
        assert part.failed["shard_crashed"] == before.queued + before.in_flight


def test_a_shard_that_died_before_its_first_snapshot() -> None:
    left = legacy(None, 5)
    assert left.datagrams == left.refused["shard_crashed"] == 5
    assert imbalances(left) == []


def test_a_shard_that_does_not_listen_is_ended() -> None:
    ours, theirs = socket.socketpair()
    memory = snapshot.create("stuck")
    with ours, theirs, subprocess.Popen(["sleep", "60"]) as popen:
        ours.settimeout(0.05)
        process = Process(popen, exited=-1, control=ours, memory=memory, live=snapshot.live_counter(memory))
        fleet._send(Place(0, [], process=process), b"order\n")
        assert popen.poll() is None
        fleet._send(Place(0, [], process=process), b"x" * 10_000_000)
        assert popen.wait(10) == -signal.SIGKILL
    os.close(memory)
