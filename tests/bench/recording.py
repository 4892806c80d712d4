"""Recordings: datagrams that the kernel mirrored while a real client talked to a real server.

A recording holds connections from their SYN on, cut behind the last whole request before anything is missing, comes
twice or out of order, so that a program which replays it must replay exactly `requests` requests. wrk sends the same
request again and again: a request ends wherever a connection has sent a multiple of its size.
"""

import signal
import socket
import subprocess
import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from replayer.decap import SYN, Segment, vxlan

_LARGEST = 65536
_QUIET = 0.3
_PATIENCE = 10.0
_MASK = 0xFFFF_FFFF


class RecordingError(Exception):
    """The mirror brought nothing that can be played; the text is one line."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Datagrams one behind the other. `ends` is where each ends; `marks[i]` of them bring requests 0 to i, the last
    mark all that follows too."""

    name: str
    data: bytearray
    ends: "array[int]"
    marks: "array[int]"

    @property
    def requests(self) -> int:
        """How many requests it holds."""
        return len(self.marks)

    def count(self, requests: int) -> int:
        """How many datagrams bring so many requests, when the recording is played again and again."""
        times, rest = divmod(requests, len(self.marks))
        return times * len(self.ends) + (self.marks[rest - 1] if rest else 0)

    def batches(self, size: int) -> Iterator[list[bytes]]:
        """The datagrams, some at a time."""
        start = 0
        for first in range(0, len(self.ends), size):
            batch = []
            for end in self.ends[first : first + size]:
                batch.append(bytes(self.data[start:end]))
                start = end
            yield batch


def record(sock: socket.socket, client: subprocess.Popen[bytes], most: int) -> list[bytes]:
    """What arrives at `sock` until the client has ended; it is told to when `most` datagrams have come."""
    datagrams: list[bytes] = []
    sock.settimeout(_QUIET)
    since = time.monotonic()
    while True:
        try:
            datagrams.append(sock.recv(_LARGEST))
        except TimeoutError:
            if client.poll() is not None:
                return datagrams
            if time.monotonic() - since > _PATIENCE and not datagrams:
                raise RecordingError("the mirror brings nothing") from None
        if len(datagrams) == most:
            client.send_signal(signal.SIGINT)


@dataclass(slots=True)
class _Stream:
    """One connection as the recording shows it."""

    following: int
    size: int = 0
    last: int = -1  # the last datagram at which no request was unfinished, before it was torn
    torn: bool = False  # a segment, or the SYN, is missing, came twice or out of order


def assemble(name: str, datagrams: Iterable[bytes]) -> Recording:
    """The connections among the datagrams. Raises RecordingError when there is none."""
    streams: dict[bytes, _Stream] = {}
    read: list[tuple[bytes, Segment, _Stream]] = []
    length = 0
    for datagram in datagrams:
        segment = vxlan(datagram, None, None)
        if not isinstance(segment, tuple):
            continue
        key, seq, _, flags, data, _ = segment
        length = length or _request_size(data)
        stream = streams.get(key)
        if stream is None or flags & SYN:
            stream = streams[key] = _Stream(seq + 1 & _MASK, torn=not flags & SYN)
        elif data and seq != stream.following:
            stream.torn = True
        stream.following = stream.following + len(data) & _MASK
        stream.size += len(data)
        if length and not stream.torn and stream.size % length == 0:
            stream.last = len(read)
        read.append((datagram, segment, stream))
    kept = [entry for number, entry in enumerate(read) if number <= entry[2].last]
    recording = _lay_out(name, kept, length)
    if not recording.requests:
        raise RecordingError(f"{name}: no whole connection among {len(read)} datagrams")
    return recording


def _lay_out(name: str, kept: list[tuple[bytes, Segment, _Stream]], length: int) -> Recording:
    data, ends, marks = bytearray(), array("Q"), array("Q")
    sizes: dict[int, int] = {}
    for datagram, segment, stream in kept:
        data += datagram
        ends.append(len(data))
        size = sizes[id(stream)] = sizes.get(id(stream), 0) + len(segment[4])
        if segment[4] and size % length == 0:
            marks.append(len(ends))
    if marks:
        marks[-1] = len(ends)
    return Recording(name, data, ends, marks)


def _request_size(first: bytes) -> int:
    """The length of the request that begins with `first`; 0 if none does."""
    head, blank, _ = first.partition(b"\r\n\r\n")
    if not blank:
        return 0
    lengths = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return len(head) + 4 + (int(lengths[0]) if lengths else 0)
