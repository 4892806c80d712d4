"""Snapshots: whole at every instant, whatever the writer is doing or was doing when it was killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import replayer
from replayer import snapshot
from replayer.snapshot import Snapshot

WRITER = """
import sys
from replayer.snapshot import Snapshot, Writer, live_counter
fd = int(sys.argv[1])
writer, live, number = Writer(fd), live_counter(fd), 0
while True:
    number += 1
    live[0] = number
    ledger = {"first": number, "padding": "x" * (number * 997 % 20_000), "last": number}
    writer.write(Snapshot(at=0.0, generation=number, draining=False, trouble={}, ledger=ledger))
"""


@pytest.fixture
def memory() -> Iterator[int]:
    fd = snapshot.create("test")
    yield fd
    os.close(fd)


def numbered(number: int, **ledger: Any) -> Snapshot:
    return Snapshot(at=1.5, generation=number, draining=False, trouble={}, ledger=ledger)


def test_there_is_none_before_the_first(memory: int) -> None:
    assert snapshot.read(memory) is None
    assert snapshot.live_counter(memory)[0] == 0


def test_the_newest_is_read(memory: int) -> None:
    writer = snapshot.Writer(memory)
    for number, size in enumerate((10, 100_000, 5, 1, 2_000_000, 3)):
        written = numbered(number, padding="y" * size)
        writer.write(written)
        assert snapshot.read(memory) == written


def test_a_write_that_stops_anywhere_leaves_the_one_before(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = snapshot.Writer(memory)
    writer.write(numbered(1, padding="a" * 400))
    writer.write(numbered(2, padding="b" * 300))
    whole = os.pwrite

    class Killed(BaseException):
        pass

    def stop_after(size: int) -> None:
        def pwrite(fd: int, data: memoryview, at: int) -> int:
            whole(fd, data[:size], at)
            raise Killed

        monkeypatch.setattr(os, "pwrite", pwrite)

    for size in range(350):
        stop_after(size)
        successor = snapshot.Writer(memory)
        successor._number = 2
        with pytest.raises(Killed):
            successor.write(numbered(3, padding="c" * 350))
        assert snapshot.read(memory) == numbered(2, padding="b" * 300)


def test_one_that_was_never_whole_is_none(memory: int) -> None:
    os.pwrite(memory, b"\x01" * 30, 4096)
    assert snapshot.read(memory) is None


@pytest.mark.parametrize("reads", [1, 30, 300])
def test_a_writer_that_is_killed_at_any_instant(memory: int, reads: int) -> None:
    path = {"PYTHONPATH": str(Path(replayer.__file__).parent.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(memory)], pass_fds=[memory], env={**os.environ, **path}
    ) as writer:
        seen = 0
        while seen < reads:
            found = snapshot.read(memory)
            if found is None:
                assert writer.poll() is None
                continue
            assert found.ledger["first"] == found.ledger["last"] == found.generation
            seen += 1
        writer.kill()
    last = snapshot.read(memory)
    assert last is not None
    assert last.ledger["first"] == last.ledger["last"] == last.generation
    assert snapshot.live_counter(memory)[0] - last.generation in (0, 1)
