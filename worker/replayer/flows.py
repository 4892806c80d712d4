"""The table of flows: which stream a segment belongs to, and what its end leaves behind.

A flow leaves by FIN, by RST, because its addresses and ports are used anew, or as the least recently used of a full
table. It leaves a tombstone for some seconds: a late copy of one of its segments is then a duplicate, no new flow, and
one that goes on behind its end (an evicted flow, an RST that overtook data) resumes at the exact byte.

`receive` is on the per-packet path: in order, nothing held, no flag set is the case that it is written for.
"""

from collections import OrderedDict, deque
from heapq import heappop, heappush
from typing import NamedTuple

from replayer.decap import FIN, RST, SYN, Segment
from replayer.head import Request
from replayer.http1 import Framer, Rules, Tail
from replayer.ledger import GivenUp, Ledger
from replayer.reassembly import LATE, Chunk, Flow, unwrap
from replayer.settings import Caps

_MASK = 0xFFFF_FFFF
_FLAGS = SYN | FIN | RST
_BASE = 1 << 32


class Tombstone(NamedTuple):
    """What is remembered of a flow that left. `ended`: by FIN or RST, so that nothing can follow."""

    start: int
    next: int
    ended: bool
    until: float
    tail: Tail


class FlowTable:
    """All flows of a shard."""

    def __init__(self, caps: Caps, rules: Rules, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rules = rules
        self._flows: OrderedDict[bytes, Flow] = OrderedDict()
        self._tombstones: OrderedDict[bytes, Tombstone] = OrderedDict()
        self._timers: list[tuple[float, int, Flow]] = []
        self._timer_number = 0
        self._probations: deque[Framer] = deque()
        self.reconfigure(caps)

    def reconfigure(self, caps: Caps) -> None:
        """Take other caps and rules into force; flows beyond a smaller cap leave as the next ones come."""
        self._caps = caps
        self._held_total = caps.held_total
        for flow in self._flows.values():
            flow.framer.resplit()

    def receive(self, segment: Segment, now: float) -> list[Request]:
        """The requests that a segment completes."""
        key, seq, ack, flags, data, missing = segment
        size = len(data)
        ledger = self._ledger
        ledger.payload_bytes += size
        flow = self._flows.get(key)
        if flow is not None and not flags & _FLAGS and flow.next & _MASK == seq and flow.held is None and not missing:
            if not size:
                return flow.framer.acknowledged(ack)
            offset = flow.next
            flow.next = offset + size
            self._flows.move_to_end(key)
            out = flow.framer.receive(0, data, ack, offset, now)
            if ledger.held_bytes > self._held_total:
                self._relieve(0, now, out)
            return out
        return self._receive(flow, segment, now)

    def expire(self, now: float) -> list[Request]:
        """What time alone decides: joins begin, holes are given up, probations and tombstones end."""
        out: list[Request] = []
        timers = self._timers
        while timers and timers[0][0] <= now:
            flow = heappop(timers)[2]
            flow.timed = False
            while not flow.closed and flow.held is not None and self._due(flow) <= now:
                self._unblock(flow, now, out)
            self._settle(flow, now, out)
        self._end_probations(now, out)
        while self._tombstones and next(iter(self._tombstones.values())).until <= now:
            self._tombstones.popitem(last=False)
        self._ledger.tombstones = len(self._tombstones)
        return out

    def close(self, now: float) -> list[Request]:
        """End every flow; nothing is held afterwards."""
        out: list[Request] = []
        for flow in list(self._flows.values()):
            while not flow.closed and flow.held is not None:
                self._unblock(flow, now, out)
            if not flow.closed:
                self._close(flow, GivenUp.ENDED, now, out)
        return out

    # ------------------------------------------------------------------ the general path of a segment

    def _receive(self, flow: Flow | None, segment: Segment, now: float) -> list[Request]:
        key, seq, ack, flags, data, missing = segment
        out: list[Request] = []
        early: list[tuple[int, bytes, int, float]] = []
        self._ledger.truncated += bool(missing)
        if flow is not None and self._is_foreign(flow, segment):
            if _within(flow.before, seq, len(data)):
                self._ledger.duplicate_bytes += len(data)
                return out
            if flags & _FLAGS == SYN:  # what came before it seemed to be far ahead in the old connection
                early = flow.take_behind(flow.offset(seq) + 1, self._ledger)
            self._close(flow, GivenUp.CLOSED, now, out)
            flow = None
        if flow is None:
            flow = self._open(segment, now, out)
            if flow is None:
                return out
            for distance, early_data, early_ack, came in early:
                flow.hold(flow.next + distance, early_data, early_ack, came, self._ledger)
        else:
            self._flows.move_to_end(key)
        offset = flow.offset(seq)
        if not self._make_room(flow, offset, len(data), now, out):
            return out
        if not data and not flags & _FLAGS and not missing and flow.next == offset:
            out += flow.framer.acknowledged(ack)
        self._deliver(flow, flow.receive(offset, ack, flags, data, missing, now, self._ledger), now, out)
        if self._ledger.held_bytes > self._held_total:
            self._relieve(0, now, out)
        self._settle(flow, now, out)
        return out

    def _is_foreign(self, flow: Flow, segment: Segment) -> bool:
        """Whether a segment is of another connection with the same addresses and ports."""
        _, seq, _, flags, data, _ = segment
        offset = flow.offset(seq)
        if flags & SYN:
            return not flow.joining and offset + 1 != flow.start
        return flow.strange(offset, len(data)) and bool(data)

    def _open(self, segment: Segment, now: float, out: list[Request]) -> Flow | None:
        """The flow that a segment begins or resumes; None if it is but a late copy, or says nothing."""
        key, seq, _, flags, data, _ = segment
        tombstone = self._tombstones.get(key)
        if tombstone is not None:
            if tombstone.until <= now:
                self._bury(key)
                tombstone = None
            else:
                kin, offset = _kin(tombstone, segment)
                if kin and (not data or offset + len(data) <= tombstone.next):
                    self._ledger.duplicate_bytes += len(data)
                    return None
                if kin:
                    self._bury(key)
                    flow = self._add(key, tombstone.start, tombstone.next, out, now)
                    flow.framer.resume(tombstone.tail)
                    return flow
                if not data and not flags & SYN:
                    return None
        if flags & RST and not data:
            return None
        if tombstone is not None:
            self._bury(key)
        first = _BASE + seq
        flow = self._add(key, first, first + 1 if flags & SYN else -1, out, now)
        if flags & SYN:
            flow.start = first + 1
        if tombstone is not None:
            flow.before = (tombstone.start, tombstone.next)
        return flow

    def _add(self, key: bytes, start: int, following: int, out: list[Request], now: float) -> Flow:
        while len(self._flows) >= self._caps.flows:
            self._ledger.flows_evicted += 1
            self._close(next(iter(self._flows.values())), GivenUp.EVICTED, now, out)
        flow = Flow(key, Framer(self._rules, key), start, following)
        self._flows[key] = flow
        self._ledger.flows_opened += 1
        self._ledger.flows = len(self._flows)
        return flow

    def _make_room(self, flow: Flow, offset: int, size: int, now: float, out: list[Request]) -> bool:
        """Make room for a segment that must wait, by giving up this flow's holes, then others' bytes."""
        while flow.held is not None and (flow.joining or offset > flow.next):
            if not flow.full(size, self._caps.held_per_flow):
                break
            self._unblock(flow, now, out)
        if flow.closed:
            self._ledger.given_up_bytes[GivenUp.CLOSED] += size
            return False
        if (flow.joining or offset > flow.next) and self._ledger.held_bytes + size > self._held_total:
            self._relieve(size, now, out)
            followed = flow.key in self._flows
            if not followed or self._ledger.held_bytes + size > self._held_total:
                self._ledger.given_up_bytes[GivenUp.HELD_TOTAL] += size
                if flow.joining and followed:
                    self._close(flow, GivenUp.HELD_TOTAL, now, out)
                return False
        return True

    def _relieve(self, size: int, now: float, out: list[Request]) -> None:
        """Too much is held: give up what the least recently used flows hold, until a good part is free again."""
        enough = min(self._held_total - size, self._held_total * 3 // 4)
        for flow in list(self._flows.values()):
            if self._ledger.held_bytes <= enough:
                return
            if flow.joining:
                self._close(flow, GivenUp.HELD_TOTAL, now, out)
            else:
                flow.drop_held(GivenUp.HELD_TOTAL, self._ledger)
                flow.framer.abandon(GivenUp.HELD_TOTAL)

    def _deliver(self, flow: Flow, chunks: list[Chunk], now: float, out: list[Request]) -> None:
        for lost, data, ack, offset in chunks:
            out += flow.framer.receive(lost, data, ack, offset, now)

    def _settle(self, flow: Flow, now: float, out: list[Request]) -> None:
        """After any change: the flow is closed at its end, or timed while it waits."""
        if flow.closed:
            return
        if 0 <= flow.end <= flow.next:
            self._close(flow, GivenUp.CLOSED, now, out)
        elif flow.held is not None and not flow.timed:
            flow.timed = True
            self._timer_number += 1
            heappush(self._timers, (self._due(flow), self._timer_number, flow))

    # ------------------------------------------------------------------ time

    def _due(self, flow: Flow) -> float:
        return flow.since + (self._caps.join_timeout if flow.joining else self._caps.hole_timeout)

    def _unblock(self, flow: Flow, now: float, out: list[Request]) -> None:
        """Wait no longer: start a joining flow, or go on behind a hole."""
        if flow.joining:
            self._ledger.flows_joined += 1
            flow.framer.join()
            self._deliver(flow, flow.begin(self._ledger), now, out)
        else:
            self._deliver(flow, flow.give_up_hole(self._ledger), now, out)
        if 0 <= flow.end <= flow.next:
            self._settle(flow, now, out)

    def _end_probations(self, now: float, out: list[Request]) -> None:
        self._probations.extend(self._rules.proving)
        self._rules.proving.clear()
        for _ in range(len(self._probations)):
            if self._probations[0].since + self._caps.hole_timeout > now:
                break
            framer = self._probations.popleft()
            out += framer.outwait()
            if framer.on_probation:  # still reading: look again
                framer.since = now
                self._probations.append(framer)

    # ------------------------------------------------------------------ ends

    def _close(self, flow: Flow, reason: GivenUp, now: float, out: list[Request]) -> None:
        flow.closed = True
        flow.drop_held(reason, self._ledger)
        out += flow.framer.close(reason)
        del self._flows[flow.key]
        self._ledger.flows = len(self._flows)
        if flow.joining or not self._caps.tombstones:
            return
        if len(self._tombstones) >= self._caps.tombstones:
            self._tombstones.popitem(last=False)
            self._ledger.tombstones_evicted += 1
        self._tombstones[flow.key] = Tombstone(
            flow.start, flow.next, flow.end >= 0, now + self._caps.tombstone_timeout, flow.framer.tail()
        )
        self._ledger.tombstones = len(self._tombstones)

    def _bury(self, key: bytes) -> None:
        del self._tombstones[key]
        self._ledger.tombstones = len(self._tombstones)


def _kin(tombstone: Tombstone, segment: Segment) -> tuple[bool, int]:
    """Whether a segment is of the connection that left the tombstone, and its offset there."""
    _, seq, _, flags, data, _ = segment
    offset = unwrap(seq, tombstone.next)
    if flags & SYN:
        return offset + 1 == tombstone.start, offset + 1
    furthest = tombstone.next if tombstone.ended else tombstone.next + LATE
    return tombstone.start - 1 <= offset and offset + len(data) <= furthest, offset


def _within(span: tuple[int, int] | None, seq: int, size: int) -> bool:
    """Whether a segment lies in an earlier connection's span."""
    if span is None:
        return False
    offset = unwrap(seq, span[1])
    return span[0] - 1 <= offset and offset + size <= span[1]
