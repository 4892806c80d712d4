"""Reassembly of one direction of one TCP connection: segments in any order in, chunks of the stream in order out.

Sequence numbers are widened to plain offsets by the first function that sees them (`unwrap`); nothing further in knows
of wrap-around. The first offset lies above 2³², so that whatever precedes it is positive too.

A flow whose SYN was seen starts at a known offset. Any other is *joining*: its segments are held for a moment, since
earlier ones may be late, and it starts at the earliest. A segment that was truncated leaves a hole of known size; so
does a lost one, once something behind it has come. Whoever calls decides how long a hole may wait (`deadline`), then
`give_up_hole` goes on behind it, and says how much was lost: bytes are never joined across a hole.
"""

from heapq import heappop, heappush

from replayer.decap import FIN, RST, SYN
from replayer.http1 import Framer
from replayer.ledger import GivenUp, Ledger, PassedOver

#: (bytes lost just before, data, ACK number of the segment, offset of the data)
type Chunk = tuple[int, bytes, int, int]

#: (first offset, next offset) of an earlier connection with the same addresses and ports.
type Span = tuple[int, int]

#: What is further ahead is of another connection: no sender has as much under way, and the sequence numbers of a port
#: used again begin so far ahead within a second or so (RFC 6528, Linux: one each 64 ns).
WINDOW = 16 << 20
#: How far before the point of joining late segments are looked for.
LATE = 1 << 20
#: Segments of one flow that may be held, whatever their size.
MOST_PIECES = 4096

_MASK = 0xFFFF_FFFF


def unwrap(seq: int, near: int) -> int:
    """The stream offset congruent to a 32-bit `seq` that lies closest to `near`."""
    return near + ((seq - near + 0x8000_0000) & _MASK) - 0x8000_0000


class Flow:
    """The state of one flow. `next` is the offset that comes next; -1 while joining."""

    __slots__ = (
        "_order",
        "before",
        "closed",
        "end",
        "framer",
        "held",
        "held_bytes",
        "joined",
        "key",
        "next",
        "start",
        "timed",
    )

    def __init__(self, key: bytes, framer: Framer, start: int, following: int) -> None:
        self.key = key
        self.framer = framer
        self.start = start
        self.next = following
        self.end = -1  # where the stream ends, once FIN or RST said so
        self.joined = False  # the SYN was not seen
        self.before: Span | None = None
        self.held_bytes = 0
        self.timed = False  # the caller's: a timer is set
        self.closed = False
        #: What waits, behind a hole or to join: offset → data, ACK number, time of arrival.
        self.held: dict[int, tuple[bytes, int, float]] | None = None
        self._order: list[int] = []  # heap of their offsets

    @property
    def joining(self) -> bool:
        """Where the stream starts is not known yet."""
        return self.next < 0

    @property
    def since(self) -> float:
        """When the first of what is held came; only while something is."""
        assert self.held is not None
        return self.held[self._order[0]][2]

    def full(self, size: int, most: int) -> bool:
        """Whether `size` more bytes would be more than may be held."""
        return self.held is not None and (self.held_bytes + size > most or len(self.held) >= MOST_PIECES)

    def offset(self, seq: int) -> int:
        """The offset of a 32-bit sequence number."""
        return unwrap(seq, self.start if self.next < 0 else self.next)

    def strange(self, offset: int, size: int) -> bool:
        """Whether a segment cannot belong to this connection."""
        if 0 <= self.end < offset + size:
            return True  # nothing follows a FIN
        if self.next < 0:
            return abs(offset - self.start) > WINDOW
        late = LATE if self.joined else 1  # a keep-alive probe sends the byte before the first
        return offset < self.start - late or offset + size > self.next + WINDOW

    def receive(
        self, offset: int, ack: int, flags: int, data: bytes, missing: int, now: float, ledger: Ledger
    ) -> list[Chunk]:
        """Take one segment that is not `strange`; returns what is in order now."""
        if flags & SYN:
            offset += 1
            if self.next < 0:
                self.start = self.next = offset
                self._forget_before(offset, ledger)
        beyond = offset + len(data) + missing
        ending = flags & (FIN | RST) and self._may_end(beyond if flags & FIN else offset)
        if ending:
            self.end = beyond if flags & FIN else offset
        out: list[Chunk] = []
        if self.next < 0:
            self.hold(offset, data, ack, now, ledger)
        elif offset > self.next:
            if data:
                self.hold(offset, data, ack, now, ledger)
        elif data:
            self._deliver(offset, data, ack, ledger, out, 0)
        last = beyond if missing else self.end
        if (missing or ending) and (self.next < 0 or last > self.next):
            self.hold(last, b"", ack, now, ledger)
        if self.held is not None and self.next >= 0:
            self._drain(ledger, out)
        return out

    def _may_end(self, end: int) -> bool:
        """Whether a FIN or RST is this connection's: a late one of the connection before has data behind it."""
        return end >= max(self.next, self.start if self.next >= 0 else 0, *(self.held or (0,)))

    def begin(self, ledger: Ledger) -> list[Chunk]:
        """Joining is over: the stream starts at the earliest byte held."""
        self.start = self.next = self._order[0]
        self.joined = True
        out: list[Chunk] = []
        self._drain(ledger, out)
        return out

    def give_up_hole(self, ledger: Ledger) -> list[Chunk]:
        """The hole before what is held will not fill: go on behind it."""
        assert self.held is not None
        offset = self._order[0]
        lost = offset - self.next
        ledger.holes += 1
        ledger.lost_bytes += lost
        self.next = offset
        out: list[Chunk] = []
        data, ack, _ = self._pop(ledger)
        self._deliver(offset, data, ack, ledger, out, lost)
        if self.held is not None:
            self._drain(ledger, out)
        return out

    def take_behind(self, offset: int, ledger: Ledger) -> list[tuple[int, bytes, int, float]]:
        """Hand out what is held at or behind `offset`: distance from there, data, ACK number, time of arrival."""
        taken = []
        kept: list[tuple[int, tuple[bytes, int, float]]] = []
        while self.held is not None:
            at = self._order[0]
            piece = self._pop(ledger)
            if at >= offset:
                taken.append((at - offset, *piece))
            else:
                kept.append((at, piece))
        for at, piece in kept:
            self.hold(at, *piece, ledger)
        return taken

    def drop_held(self, reason: GivenUp, ledger: Ledger) -> None:
        """Give up what is held out of order."""
        ledger.given_up_bytes[reason] += self.held_bytes
        ledger.held_bytes -= self.held_bytes
        self.held_bytes = 0
        self.held = None
        self._order = []

    def _deliver(self, offset: int, data: bytes, ack: int, ledger: Ledger, out: list[Chunk], lost: int) -> None:
        """Append the part of `data` that is new; `offset` is not beyond `next`."""
        known = self.next - offset
        if known:
            if offset < self.start and self.joined:
                early = min(self.start - offset, len(data))
                ledger.passed_over_bytes[PassedOver.JOINED] += early
                ledger.duplicate_bytes += min(known, len(data)) - early
            else:
                ledger.duplicate_bytes += min(known, len(data))
            data = data[known:]
        if data or lost:
            out.append((lost, data, ack, self.next))
            self.next += len(data)

    def _drain(self, ledger: Ledger, out: list[Chunk]) -> None:
        while self.held is not None and self._order[0] <= self.next:
            offset = self._order[0]
            data, ack, _ = self._pop(ledger)
            if data:
                self._deliver(offset, data, ack, ledger, out, 0)
            elif offset == self.next:
                out.append((0, data, ack, offset))

    def hold(self, offset: int, data: bytes, ack: int, now: float, ledger: Ledger) -> None:
        """Keep `data` until the stream comes to `offset`."""
        if self.held is None:
            self.held = {}
        earlier = self.held.get(offset)
        if earlier is None:
            heappush(self._order, offset)
            added = len(data)
        elif len(earlier[0]) >= len(data):
            ledger.duplicate_bytes += len(data)
            return
        else:
            ledger.duplicate_bytes += len(earlier[0])
            added = len(data) - len(earlier[0])
            now = earlier[2]
        self.held[offset] = (data, ack, now)
        self.held_bytes += added
        ledger.held_bytes += added

    def _pop(self, ledger: Ledger) -> tuple[bytes, int, float]:
        assert self.held is not None
        piece = self.held.pop(heappop(self._order))
        self.held_bytes -= len(piece[0])
        ledger.held_bytes -= len(piece[0])
        if not self.held:
            self.held = None
        return piece

    def _forget_before(self, offset: int, ledger: Ledger) -> None:
        """The SYN says where the stream starts: what was held before it is of an earlier connection."""
        while self.held is not None and self._order[0] < offset:
            at = self._order[0]
            data, ack, now = self._pop(ledger)
            early = min(offset - at, len(data))
            ledger.duplicate_bytes += early
            if len(data) > early:
                self.hold(offset, data[early:], ack, now, ledger)
