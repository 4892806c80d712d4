"""Which bytes of which connection no surviving datagram carried.

Reads VXLAN datagrams that the lab's own kernel made (IPv4, no VLAN), on its own and not with the worker's code.
Positions count from the first byte after the SYN; a port that is used again begins a new connection.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.clients.exchange import DECOYS

_VXLAN_AND_ETHERNET = 8 + 14
_SYN = 0x02


@dataclass(frozen=True, slots=True)
class Lost:
    """A range of bytes of the connection that used the client's `port` for the `nth` time."""

    port: int
    nth: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Inner:
    ports: tuple[int, int]
    seq: int
    syn: bool
    payload: bytes


@dataclass(slots=True)
class _Stream:
    nth: int
    first: int  # sequence number of byte 0
    reached: int = 0  # where its sender has come to; what is sent below it is sent again
    lost: list[tuple[int, int]] = field(default_factory=list)


class Losses:
    """All connections to one port of the server, told of each datagram in the order of the mirror."""

    def __init__(self, port: int = 80) -> None:
        self._port = port
        self._streams: dict[int, list[_Stream]] = {}
        self.decoys = 0  # segments that begin with the text of a request inside a body

    def tell(self, datagram: bytes, survived: bool) -> None:
        """One mirrored datagram, and whether any copy of it goes on to the worker."""
        inner = _inner(datagram)
        if inner is None or inner.ports[1] != self._port:
            return
        if inner.payload.startswith(DECOYS):
            self.decoys += 1
        stream = self._stream(inner)
        if stream is None or not inner.payload:
            return
        start = (inner.seq - stream.first) & 0xFFFF_FFFF
        end = start + len(inner.payload)
        if survived:
            stream.lost = [part for hole in stream.lost for part in _without(hole, start, end)]
        elif end > stream.reached:
            stream.lost.append((max(start, stream.reached), end))
        stream.reached = max(stream.reached, end)

    def lost(self) -> list[Lost]:
        """All that was lost so far."""
        return [
            Lost(port, stream.nth, *hole)
            for port, streams in self._streams.items()
            for stream in streams
            for hole in stream.lost
        ]

    def _stream(self, inner: _Inner) -> _Stream | None:
        streams = self._streams.setdefault(inner.ports[0], [])
        if inner.syn:
            first = (inner.seq + 1) & 0xFFFF_FFFF
            if not streams or streams[-1].first != first:
                streams.append(_Stream(len(streams), first))
        return streams[-1] if streams else None


def touches(lost: Sequence[Lost], start: int, end: int) -> bool:
    """Whether a hole of one connection lies in the range."""
    return any(hole.start < end and start < hole.end for hole in lost)


def _without(hole: tuple[int, int], start: int, end: int) -> list[tuple[int, int]]:
    """What remains of a hole after bytes from `start` to `end` came after all."""
    parts = ((hole[0], min(hole[1], start)), (max(hole[0], end), hole[1]))
    return [(a, b) for a, b in parts if a < b]


def _inner(datagram: bytes) -> _Inner | None:
    frame = datagram[_VXLAN_AND_ETHERNET:]
    if len(frame) < 40 or datagram[20:22] != b"\x08\x00" or frame[0] >> 4 != 4 or frame[9] != 6:
        return None
    (total,) = struct.unpack_from("!H", frame, 2)
    tcp = (frame[0] & 15) * 4
    source, target, seq = struct.unpack_from("!HHI", frame, tcp)
    data = tcp + (frame[tcp + 12] >> 4) * 4
    return _Inner((source, target), seq, bool(frame[tcp + 13] & _SYN), frame[data:total])
