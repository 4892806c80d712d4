"""Framing of HTTP/1.x requests (RFC 9112) in one direction of one connection, seen from outside.

A server reads the same bytes, but it reads all of them. Here bytes may be lost, and the connection may have been open
for hours when its first segment is seen. Three rules follow:

- Bytes are never joined across a hole. Inside a body whose length is known the hole is skipped by length, and the
  next request begins at the exact byte. Elsewhere the position is lost, and the framer searches.
- While it searches, only a segment that begins with a complete, valid request head of a `FINDABLE` method can be a
  request, and only if its ACK number shows that the server has answered since the broken request: a body is sent
  under one ACK number, so text in it that looks like a request is told apart. An interim `100 Continue` is no answer;
  hence `INTERIM`.
- What is found that way is on probation: held until a later segment shows that the server answered it too. Data that
  follows at its end under the same ACK number shows that it was part of a body, or cannot be told from one.

Everything that is not framed is counted with its reason, in `Rules.ledger`, where it happens.
"""

import re
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field

from replayer.chunked import Chunked
from replayer.head import (
    BAD,
    CHUNKED,
    FRAMING,
    Request,
    begins_request,
    body_length,
    head_at,
    line_at,
    line_like,
    other_protocol,
    splitter,
    upgrades,
    valid_host,
    whole_head,
)
from replayer.ledger import GivenUp, Ledger, PassedOver

#: An answer that moves the ACK number by no more than this may be an interim one (`HTTP/1.1 100 Continue` has 25).
INTERIM = 32

#: ACK numbers do not fall along a stream but by segments sent anew; one further back is of another connection.
SETBACK = 1 << 20

#: Up to here a request line is checked with every segment of it, further on at its end: tiny segments cost no more.
CHECKED = 256

#: No request is shorter (`GET / HTTP/1.0` and the blank line), so a shorter hole holds no whole one.
SHORTEST = 18

#: Methods that a request found by searching may have: the registered ones (RFC 9110 §16.1.1), so that the rest of a
#: torn request line (`ET / HTTP/1.1`) is none. Those that are another's end (BIND of UNBIND) are left out; but for
#: PATCH, which is too common.
FINDABLE = frozenset(
    b"ACL BASELINE-CONTROL CHECKIN COPY DELETE GET HEAD LABEL MERGE MKACTIVITY MKCALENDAR MKCOL MKREDIRECTREF "
    b"MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY REBIND REPORT SEARCH TRACE UNBIND "
    b"UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL".split()
)

_MASK = 0xFFFF_FFFF

# Phases of a framer. BOUNDARY: between requests. PROVING: the same, on probation.
_BOUNDARY, _PROVING, _HEAD, _BODY, _CHUNKED, _SEARCHING, _PASSING = range(7)


@dataclass(slots=True)
class Rules:
    """What all framers of a worker share."""

    ledger: Ledger
    head_limit: int
    body_limit: int
    names: InitVar[Iterable[bytes]] = ()
    split: re.Pattern[bytes] = field(init=False)
    proving: list["Framer"] = field(default_factory=list)  # new on probation: the caller watches their time

    def __post_init__(self, names: Iterable[bytes]) -> None:
        self.configure(self.head_limit, self.body_limit, names)

    def configure(self, head_limit: int, body_limit: int, names: Iterable[bytes]) -> None:
        """Take other limits into force; `names` are the fields, in lower case, that heads are split at."""
        self.head_limit = head_limit
        self.body_limit = body_limit
        self.split = splitter({b"host", b"connection", *FRAMING, *names})

    def split_head(self, head: bytes) -> tuple[list[bytes], list[bytes]]:
        """The parts of a head, and the names among them in lower case."""
        parts = self.split.split(head)
        return parts, [name.lower() for name in parts[1::3]]


def answered(ack: int, before: int) -> bool:
    """Whether the server answered between two ACK numbers of the client, by more than an interim response."""
    return INTERIM < (ack - before & _MASK) < 0x8000_0000


class Framer:
    """The requests in one direction of one connection."""

    __slots__ = (
        "_ack",
        "_body",
        "_broken",
        "_buffer",
        "_floor",
        "_fresh",
        "_left",
        "_pending",
        "_phase",
        "_reason",
        "_request",
        "_rules",
        "_size",
        "key",
        "since",
    )

    def __init__(self, rules: Rules, key: bytes) -> None:
        self.key = key
        self.since = 0.0  # when the probation began
        self._rules = rules
        self._phase = _BOUNDARY
        self._fresh = True  # no request yet: the connection may speak another protocol
        self._ack = -1  # the last ACK number at the stream's position
        self._buffer: bytearray | None = None  # an incomplete head
        self._request: Request | None = None  # whose body is being read
        self._body: bytearray | Chunked | None = None
        self._left = 0  # of a body with a length
        self._size = 0  # bytes held of the request being read
        self._broken: GivenUp | None = None  # the request being read is given up, its bytes as they come
        self._floor = -1  # searching: the ACK number that must be passed
        self._reason: GivenUp | PassedOver = PassedOver.JOINED  # for bytes that are passed over, or searched
        self._pending: list[Request] | None = None  # on probation: no request yet, or the one that waits for its proof

    # ------------------------------------------------------------------ what happens to the stream

    def receive(self, lost: int, data: bytes, ack: int, offset: int, now: float) -> list[Request]:
        """The requests that `data` completes; it begins at `offset`, behind a hole of `lost` bytes."""
        if not lost:
            if self._phase == _BOUNDARY:
                match = whole_head(data)
                if match is not None and 0 not in data and data.count(10) == data.count(13):
                    parts, names = self._rules.split_head(data)
                    method, target, version = match.groups()
                    if (
                        names.count(b"host") == 1
                        and FRAMING.isdisjoint(names)
                        and target[0] == 0x2F
                        and method != b"CONNECT"
                        and len(data) <= self._rules.head_limit
                        and valid_host(parts[3 * names.index(b"host") + 2])
                    ):
                        ledger = self._rules.ledger
                        ledger.framed += 1
                        ledger.framed_bytes += len(data)
                        self._ack = ack
                        self._fresh = False
                        return [Request(method, target, version, data, parts, names, self.key, offset, now, len(data))]
            elif self._phase == _BODY:
                size = len(data)
                if size < self._left and self._broken is None and self._pending is None:
                    self._body += data  # type: ignore[operator]  # a body with a length is a bytearray
                    self._left -= size
                    self._size += size
                    self._rules.ledger.held_bytes += size
                    self._ack = ack
                    return []
        return self._receive(lost, data, ack, offset, now)

    def acknowledged(self, ack: int) -> list[Request]:
        """The client acknowledged without sending: which answers it has is evidence."""
        if self._ack < 0 or (ack - self._ack & _MASK) < 0x8000_0000:
            self._ack = ack
        if self._phase == _PROVING and self._pending and answered(ack, self._floor):
            return self._release()
        return []

    def join(self) -> None:
        """The stream is seen from somewhere in its middle."""
        self._search(PassedOver.JOINED, -1)

    def resume(self, tail: "Tail") -> None:
        """Go on where a framer of the same stream stopped."""
        self._ack = tail.ack
        self._fresh = False
        if isinstance(tail.state, PassedOver):
            self._phase, self._reason = _PASSING, tail.state
        elif tail.state is not None:
            self._search(tail.state, tail.ack)

    def outwait(self) -> list[Request]:
        """Nothing has contradicted the requests on probation for long enough."""
        return self._release() if self._phase == _PROVING and self._pending else []

    def resplit(self) -> None:
        """The rules name other fields: split anew what was split already and is not out yet."""
        for request in (*(self._pending or ()), *((self._request,) if self._request else ())):
            request.parts, request.names = self._rules.split_head(request.head)

    @property
    def on_probation(self) -> bool:
        """Requests are held, or will be, until they are proven."""
        return self._pending is not None

    def abandon(self, reason: GivenUp) -> None:
        """Give up the request being read and free its bytes; its end is still found where the length is known."""
        if self._phase == _HEAD:
            self._give_up(reason)
            self._search(reason, self._ack)
        elif self._phase in (_BODY, _CHUNKED) and self._broken is None:
            self._give_up(reason)
            self._broken = reason
            if isinstance(self._body, Chunked):
                self._body.discard()
            else:
                self._body = None
        elif self._phase == _PROVING:
            self._search(reason, self._floor)

    def close(self, reason: GivenUp) -> list[Request]:
        """The stream ends here: an incomplete request is given up for `reason`."""
        if self._phase == _HEAD or (self._phase in (_BODY, _CHUNKED) and self._broken is None):
            self._give_up(reason)
        if self._phase == _PROVING and self._pending:
            return self._release()
        self._discard_pending()
        return []

    def tail(self) -> "Tail":
        """What a framer that resumes this stream must know."""
        if self._phase == _PASSING and isinstance(self._reason, PassedOver):
            return Tail(self._ack, self._reason)
        if self._phase in (_BOUNDARY, _PROVING):
            return Tail(self._ack, None)
        return Tail(self._ack, self._reason if isinstance(self._reason, GivenUp) else GivenUp.CLOSED)

    # ------------------------------------------------------------------ the general path

    def _receive(self, lost: int, data: bytes, ack: int, offset: int, now: float) -> list[Request]:
        out: list[Request] = []
        if self._pending is not None and answered(ack, self._floor):
            if self._phase == _PROVING:
                out += self._release()
            else:  # an answer in the middle of it: this was none
                self._disprove()
        elif self._pending and lost and not data:
            out += self._release()
        if lost:
            self._hole(lost, ack)
        at, size = 0, len(data)
        while at < size:
            if self._pending and self._phase == _PROVING:
                self._disprove()
            if self._phase <= _HEAD:
                at = self._read_head(data, at, ack, offset, now, out)
            elif self._phase == _BODY:
                at = self._read_body(data, at, now, out)
            elif self._phase == _CHUNKED:
                at = self._read_chunked(data, at, ack, now, out)
            else:
                at = self._read_other(data, at, ack, now)
        self._ack = ack
        return out

    def _hole(self, lost: int, ack: int) -> None:
        if self._phase == _BODY:
            self.abandon(GivenUp.HOLE)
            if lost <= self._left:
                self._left -= lost
                if not self._left:
                    self._end_broken()
                return
            self._search(GivenUp.HOLE, self._ack)
        elif self._phase == _CHUNKED and isinstance(self._body, Chunked):
            self.abandon(GivenUp.HOLE)
            if not self._body.skip(lost):
                self._search(GivenUp.HOLE, self._ack)
        elif self._phase == _HEAD:
            self.abandon(GivenUp.HOLE)
        elif self._phase in (_BOUNDARY, _PROVING):
            self._rules.ledger.given_up[GivenUp.HOLE] += 1
            # What follows a hole too short for a whole request is of the broken one.
            self._search(GivenUp.HOLE, ack if lost < SHORTEST else self._ack)
        elif self._phase == _SEARCHING and self._floor < 0:
            self._floor = self._ack

    def _read_head(self, data: bytes, at: int, ack: int, offset: int, now: float, out: list[Request]) -> int:
        ledger = self._rules.ledger
        new = len(data) - at
        if self._buffer is None:
            self._buffer = bytearray(data[at:])
            searched = 0
        else:
            searched = max(0, len(self._buffer) - 3)
            self._buffer += data[at:]
        buffer = self._buffer
        blank = 4 if buffer.startswith(b"\r\n\r\n") else 2 if buffer.startswith(b"\r\n") else 0
        end = buffer.find(b"\r\n\r\n", max(searched, blank)) + 4
        if end == 3:
            return self._await_head(buffer, blank, new, len(data), ack)
        surplus = len(buffer) - end
        begin = offset + len(data) - len(buffer)
        self._size += new - surplus
        ledger.held_bytes += new - surplus
        self._buffer = None
        head = bytes(buffer[blank:end])
        match = head_at(head)
        if end > self._rules.head_limit:
            self._refuse(GivenUp.HEAD_TOO_LARGE, ack)
        elif match is None or match.end() != len(head):
            self._refuse_head(head, ack)
        else:
            parts, names = self._rules.split_head(head)
            method, target, version = match.groups()
            request = Request(method, target, version, head, parts, names, self.key, begin, now, 0)
            self._begin(request, ack, out)
        return len(data) - surplus

    def _await_head(self, buffer: bytearray, blank: int, new: int, size: int, ack: int) -> int:
        """The head is incomplete: hold it if it can become one."""
        self._size += new
        self._rules.ledger.held_bytes += new
        self._phase = _HEAD
        if len(buffer) > self._rules.head_limit:
            self._refuse(GivenUp.HEAD_TOO_LARGE, ack)
        elif (len(buffer) - new <= CHECKED or 0x0A in buffer[-new:]) and not begins_request(buffer, blank):
            self._refuse_head(bytes(buffer[blank : blank + 64]), ack)
        return size

    def _begin(self, request: Request, ack: int, out: list[Request]) -> None:
        """A head is complete: find out how its body is framed (RFC 9112 §6.3)."""
        length = body_length(request)
        if length == BAD:
            self._refuse(GivenUp.BAD_REQUEST, ack)
            return
        if request.method == b"CONNECT" or upgrades(request):
            self._pass(PassedOver.UPGRADED)
            return
        self._fresh = False
        self._request = request
        if not length:
            self._complete(out)
            return
        if length == CHUNKED:
            self._phase = _CHUNKED
            self._body = Chunked(self._rules.head_limit)
            return
        self._phase = _BODY
        self._left = length
        self._body = bytearray()
        if length > self._rules.body_limit:
            self.abandon(GivenUp.BODY_TOO_LARGE)

    def _read_body(self, data: bytes, at: int, now: float, out: list[Request]) -> int:
        took = min(self._left, len(data) - at)
        self._left -= took
        if self._broken is not None:
            self._rules.ledger.given_up_bytes[self._broken] += took
            if not self._left:
                self._end_broken()
            return at + took
        assert isinstance(self._body, bytearray) and self._request is not None
        self._body += data[at : at + took]
        self._size += took
        self._rules.ledger.held_bytes += took
        if not self._left:
            self._request.body = self._body
            self._request.at = now
            self._complete(out)
        return at + took

    def _read_chunked(self, data: bytes, at: int, ack: int, now: float, out: list[Request]) -> int:
        coding = self._body
        assert isinstance(coding, Chunked) and self._request is not None
        end = coding.receive(data, at)
        if self._broken is None:
            self._size += end - at
            self._rules.ledger.held_bytes += end - at
            if max(coding.announced, self._size >> 1) > self._rules.body_limit:
                self.abandon(GivenUp.BODY_TOO_LARGE)
        else:
            self._rules.ledger.given_up_bytes[self._broken] += end - at
        if coding.bad:
            if self._broken is None:
                self._refuse(GivenUp.BAD_REQUEST, ack)
            else:
                self._search(self._broken, ack)
        elif coding.done:
            if self._broken is not None:
                self._end_broken()
            else:
                self._request.chunked = True
                self._request.body = coding.body or b""
                self._request.trailers = bytes(coding.trailers)
                self._request.at = now
                self._complete(out)
        return end

    def _read_other(self, data: bytes, at: int, ack: int, now: float) -> int:
        """Passing over, or searching for a segment that begins with a request."""
        if self._phase == _SEARCHING and not at:
            first = self._floor < 0
            match = line_at(data) if first else head_at(data)
            if match is not None and match[1] in FINDABLE and (first or answered(ack, self._floor)):
                self._phase = _PROVING
                self._floor = ack
                self._pending = []
                self.since = now
                self._rules.proving.append(self)
                return at
            if first and self._reason is PassedOver.JOINED:
                self._rules.ledger.passed_over_flows[PassedOver.JOINED] += 1
            if first or (self._floor - ack & _MASK) > SETBACK:
                self._floor = ack  # whatever this is, nothing under its ACK number can be told from it
            if self._fresh and (protocol := other_protocol(data)) is not None:
                self._pass(protocol)
            elif match is not None:
                self._rules.ledger.given_up[GivenUp.UNPROVEN] += 1
                self._count(GivenUp.UNPROVEN, len(data))
                return len(data)
        self._count(self._reason, len(data) - at)
        return len(data)

    # ------------------------------------------------------------------ the ends of a request

    def _complete(self, out: list[Request]) -> None:
        request, self._request, self._body = self._request, None, None
        assert request is not None
        request.size, self._size = self._size, 0
        if self._pending is not None:
            self._pending.append(request)
            self._phase = _PROVING
        else:
            self._phase = _BOUNDARY
            self._frame(request)
            out.append(request)

    def _frame(self, request: Request) -> None:
        ledger = self._rules.ledger
        ledger.held_bytes -= request.size
        ledger.framed_bytes += request.size
        ledger.framed += 1

    def _release(self) -> list[Request]:
        """The requests on probation are proven."""
        proven, self._pending = self._pending or [], None
        for request in proven:
            self._frame(request)
        self._phase = _BOUNDARY
        if isinstance(self._reason, GivenUp):
            self._rules.ledger.resynchronised += 1
        return proven

    def _disprove(self) -> None:
        """What is on probation was part of a body, or cannot be told from it."""
        if self._size:
            self._give_up(GivenUp.UNPROVEN)
        self._search(GivenUp.UNPROVEN, self._floor)

    def _discard_pending(self) -> None:
        for request in self._pending or ():
            self._rules.ledger.held_bytes -= request.size
            self._rules.ledger.given_up[GivenUp.UNPROVEN] += 1
            self._rules.ledger.given_up_bytes[GivenUp.UNPROVEN] += request.size
        self._pending = None

    def _give_up(self, reason: GivenUp) -> None:
        """Count the request being read as given up, and free what is held of it."""
        ledger = self._rules.ledger
        ledger.given_up[reason] += 1
        ledger.given_up_bytes[reason] += self._size
        ledger.held_bytes -= self._size
        self._size = 0
        self._buffer = None

    def _end_broken(self) -> None:
        self._broken = None
        self._request = self._body = None
        self._phase = _BOUNDARY if self._pending is None else _PROVING

    def _refuse(self, reason: GivenUp, ack: int) -> None:
        self._give_up(reason)
        self._search(reason, ack)

    def _refuse_head(self, begin: bytes, ack: int) -> None:
        """What stands where a request should is none: another protocol, or a bad request."""
        protocol = other_protocol(begin)
        if protocol is None and self._fresh and not line_like(begin):
            protocol = PassedOver.OTHER_PROTOCOL
        if protocol is not None and (self._fresh or protocol is PassedOver.HTTP2):
            self._pass(protocol)
        else:
            self._refuse(GivenUp.BAD_REQUEST, ack)

    def _pass(self, reason: PassedOver) -> None:
        """From the bytes held of this request on, the stream is none of ours."""
        ledger = self._rules.ledger
        self._discard_pending()
        ledger.held_bytes -= self._size
        ledger.passed_over_bytes[reason] += self._size
        ledger.passed_over_flows[reason] += 1
        self._size = 0
        self._buffer = self._request = self._body = None
        self._phase, self._reason = _PASSING, reason

    def _search(self, reason: GivenUp | PassedOver, floor: int) -> None:
        """The position is lost: bytes count for `reason` until a request begins whose ACK number passes `floor`."""
        if self._pending is not None:
            floor = self._floor
            self._discard_pending()
        self._buffer = self._request = self._body = self._broken = None
        self._phase, self._reason, self._floor = _SEARCHING, reason, floor

    def _count(self, reason: GivenUp | PassedOver, size: int) -> None:
        if isinstance(reason, GivenUp):
            self._rules.ledger.given_up_bytes[reason] += size
        else:
            self._rules.ledger.passed_over_bytes[reason] += size


@dataclass(slots=True, frozen=True)
class Tail:
    """How a framer left its stream: `state` is None between requests, else why bytes were left."""

    ack: int
    state: GivenUp | PassedOver | None
