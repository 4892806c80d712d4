"""A shard's accounting in shared memory, which outlives the shard: one memory file each.

    8 bytes                     datagrams read so far, stored once per wake-up
    slot 0, slot 1, sparse      number, length and checksum, then JSON; written in turn

The writer overwrites the older slot only, and a slot counts only if its checksum fits. So there is always a whole
snapshot, at whatever instant the writer is killed, and a reader that meets a half-written slot takes the other one.
Nothing is locked. What a dead shard did after its last snapshot is known by its count of datagrams alone.
"""

import json
import mmap
import os
import struct
import zlib
from dataclasses import dataclass, fields
from typing import Any

_SLOTS = (mmap.PAGESIZE, 1 << 30)  # offsets; a memory file costs only the pages that were written
_HEADER = struct.Struct("=QII")
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a shard says of itself."""

    at: float  # CLOCK_MONOTONIC: when the receive loop's timer last ran
    generation: int  # of the settings in force
    draining: bool  # it has heard that it is to end
    trouble: dict[str, str]  # destination → why it could not be reached last
    ledger: dict[str, Any]  # ledger.as_dict


def create(name: str) -> int:
    """A memory file for one writer and any number of readers."""
    fd = os.memfd_create(name)
    os.ftruncate(fd, _SLOTS[0])
    return fd


def live_counter(fd: int) -> "memoryview[int]":
    """The count of datagrams: item 0, stored and loaded as one word."""
    return memoryview(mmap.mmap(fd, mmap.PAGESIZE)).cast("Q")


class Writer:
    """The only writer of a memory file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._number = 0

    def write(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the one that readers get."""
        self._number += 1
        values = {entry.name: getattr(snapshot, entry.name) for entry in fields(snapshot)}
        body = json.dumps(values, separators=(",", ":")).encode()
        header = _HEADER.pack(self._number, len(body), _checksum(self._number, body))
        data = memoryview(header + body)
        at = _SLOTS[self._number % 2]
        while data:
            written = os.pwrite(self._fd, data, at)
            data, at = data[written:], at + written


def read(fd: int) -> Snapshot | None:
    """The newest whole snapshot; None before the first one."""
    for _ in range(_TRIES):
        whole = [slot for at in _SLOTS if (slot := _read_slot(fd, at)) is not None]
        if whole:
            return Snapshot(**json.loads(max(whole)[1]))
        if os.fstat(fd).st_size == _SLOTS[0]:
            return None
    return None


def _read_slot(fd: int, at: int) -> tuple[int, bytes] | None:
    header = os.pread(fd, _HEADER.size, at)
    if len(header) < _HEADER.size:
        return None
    number, length, checksum = _HEADER.unpack(header)
    body = os.pread(fd, length, at + _HEADER.size)
    if not number or len(body) != length or _checksum(number, body) != checksum:
        return None
    return number, body


def _checksum(number: int, body: bytes) -> int:
    return zlib.crc32(body, number & 0xFFFF_FFFF)
