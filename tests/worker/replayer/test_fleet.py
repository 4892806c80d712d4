"""What a dead shard leaves to the totals, and what becomes of one that is stuck, hangs or cannot be started."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer import fleet, snapshot, steering
from replayer.fleet import CRASHES, HUNG, STALE, CrashLoop, Fleet, Place, Process, legacy
from replayer.ledger import Ledger, as_dict, imbalances
from replayer.settings import Destination, Settings
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
    return Snapshot(at=0.0, generation=1, draining=False, trouble={}, ledger=values)


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


SETTINGS = Settings(destinations=(Destination(url="http://127.0.0.1:1"),))


@pytest.fixture
def one_shard() -> Iterator[Fleet]:
    """A fleet of one, not yet started."""
    [sock] = steering.open_group("127.0.0.1", 0, 1, 1 << 20, steering.vxlan_program(1))
    shards = Fleet([[sock]])
    yield shards
    shards.kill()
    shards.reap(monotonic(), draining=True)
    sock.close()


def until(look: Callable[[], bool]) -> None:
    deadline = monotonic() + 30
    while not look():
        assert monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.01)


def pid_of(shards: Fleet) -> int | None:
    return shards.read()[0].pid


def test_a_shard_that_hangs_is_ended_and_replaced(one_shard: Fleet) -> None:
    one_shard.adopt(SETTINGS, 1, monotonic())
    until(lambda: one_shard.read()[0].alive)
    first = pid_of(one_shard)
    assert first is not None
    os.kill(first, signal.SIGSTOP)

    silent = monotonic() + STALE  # as if so much time had passed
    one_shard.end_hung(silent)
    one_shard.end_hung(silent + HUNG - 1)
    one_shard.reap(silent)
    assert pid_of(one_shard) == first
    one_shard.end_hung(silent + HUNG)

    def crashed() -> bool:
        one_shard.reap(silent)
        return one_shard.read()[0].ledger.crashes == 1

    until(crashed)
    due = one_shard.next_restart()
    assert due is not None
    one_shard.restart(due)
    until(lambda: one_shard.read()[0].alive)
    assert pid_of(one_shard) not in (None, first)


def test_a_shard_that_is_heard_again_does_not_hang(one_shard: Fleet) -> None:
    one_shard.adopt(SETTINGS, 1, monotonic())
    until(lambda: one_shard.read()[0].alive)
    first = pid_of(one_shard)
    pause = monotonic() + 10 * HUNG  # the machine stood still: the shard will tick before the next look
    one_shard.end_hung(pause)
    one_shard.end_hung(monotonic())
    one_shard.end_hung(pause + HUNG)
    one_shard.reap(pause)
    assert pid_of(one_shard) == first
    assert one_shard.read()[0].ledger.crashes == 0


def test_a_shard_that_never_speaks_hangs_too(one_shard: Fleet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mute = tmp_path / "mute"
    mute.write_text("#!/bin/sh\nexec sleep 60\n")
    mute.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(mute))
    one_shard.adopt(SETTINGS, 1, 0.0)
    assert one_shard.read()[0].since_tick is None
    one_shard.end_hung(0.0)
    one_shard.end_hung(HUNG)

    def ended() -> bool:
        one_shard.reap(HUNG)
        return pid_of(one_shard) is None

    until(ended)


def test_a_shard_that_cannot_be_started_is_a_crash(one_shard: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    open_before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/nowhere/python")
        one_shard.adopt(SETTINGS, 1, 100.0)
        assert one_shard.next_restart() == pytest.approx(100.1)
        assert one_shard.exits() == []
        one_shard.restart(101.0)
        assert one_shard.read()[0].ledger.crashes == 2
    assert set(os.listdir("/proc/self/fd")) == open_before
    one_shard.restart(102.0)
    until(lambda: one_shard.read()[0].alive)
    assert one_shard.next_restart() is None


def test_a_fleet_that_never_starts_is_a_crash_loop(one_shard: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    one_shard.adopt(SETTINGS, 1, 0.0)
    with pytest.raises(CrashLoop, match=r"shard 0 cannot be started: .*No such file.*: crash 5 within 30 s"):
        for second in range(1, 10):
            one_shard.restart(float(second))
    assert one_shard.read()[0].ledger.crashes == CRASHES
    one_shard.drain(0.0)  # its last attempt is no loop
    assert one_shard.exits() == []
