"""Replaying to one destination: keep-alive connections with a bounded queue before them (DESIGN.md rule 5).

A request waits, if at all, in one of two places: behind the request of its lane (client connection) that is not
answered yet, or, once it is its lane's turn, for a connection. Both together are the queue that the settings bound.
Nothing here awaits a request: the loop calls a connection with the bytes that came, `tick` ends what took too long.
Tasks exist only for opening connections and for name lookups.

A destination that cannot be reached fails no request: requests wait for its return until they are dropped as `waited`,
new ones as `queue_full`.
"""

import asyncio
import ssl
from bisect import bisect_left
from collections import deque
from itertools import takewhile
from time import monotonic
from typing import cast
from urllib.parse import urlsplit

from replayer.addresses import Address, Addresses
from replayer.ledger import LATENCY_BOUNDS, DestinationLedger, Dropped, Failed
from replayer.response import BadResponse, ResponseReader, ResponseTooLarge
from replayer.rewrite import Outgoing
from replayer.settings import Destination, host_and_port

IDLE_MOST = 30.0  # tidies up; the server may close an idle connection sooner
# The same where that would lose the request, as it must not be sent twice: less than servers wait before they close an
# idle connection, of which 5 s (Node, Apache) and 2 s (gunicorn) are the shortest usual defaults.
IDLE_MOST_ONCE = 1.5
COPY_MOST = 16 << 10  # bodies up to here are joined to their head, which is cheaper than a second write

_STATUS_CLASSES = ("other", "other", "2xx", "3xx", "4xx", "5xx", "other", "other", "other", "other")


class _Waiting:
    """A queued request. `outgoing` is None once it left the queue: then its place in a line is skipped."""

    __slots__ = ("outgoing", "ready", "retried", "since", "size")

    def __init__(self, outgoing: Outgoing, since: float, size: int) -> None:
        self.outgoing: Outgoing | None = outgoing
        self.since = since
        self.size = size
        self.ready = False  # its lane's turn
        self.retried = False


class _Connection(asyncio.Protocol):
    """One connection: being opened, idle, or with one request in flight."""

    __slots__ = (
        *("address", "outgoing", "pool", "reader", "retire", "retried"),
        *("since", "size", "streamed", "transport", "unsent", "used"),
    )

    def __init__(self, pool: "Pool", address: Address, limit: int, now: float) -> None:
        self.pool = pool
        self.address = address
        self.transport: asyncio.Transport | None = None
        self.reader = ResponseReader(limit)
        self.outgoing: Outgoing | None = None
        self.size = 0  # of the request in flight
        self.since = now  # when it began to open, to send or to be idle
        self.used = False  # an answer came over it
        self.retried = False  # the request in flight had a connection before
        self.unsent = False  # the request is to be written at the end of this turn of the loop
        self.streamed = False  # its body is not joined to its head
        self.retire = False  # not to be used again

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.pool._connected(self)

    def data_received(self, data: bytes) -> None:
        outgoing = self.outgoing
        if outgoing is None or self.unsent:  # nothing was asked
            self.pool._ended(self, clean=False)
            return
        try:
            status = self.reader.receive(data, outgoing.method)
        except BadResponse:
            self.pool._failed(self, outgoing, Failed.BAD_RESPONSE)
        except ResponseTooLarge:
            self.pool._failed(self, outgoing, Failed.RESPONSE_TOO_LARGE)
        else:
            if status:
                self.pool._answered(self, outgoing, status)

    def eof_received(self) -> None:
        self.pool._ended(self, clean=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool._ended(self, clean=exc is None)


class Pool:
    """Keep-alive connections to one destination. Needs a running loop; `now` is time.monotonic().

    What waits and what is in flight together have at most `queue_bytes` bytes. A request that is larger by itself is
    admitted while the pool holds no other, so that none is too large to ever be sent.
    """

    def __init__(self, destination: Destination, ledger: DestinationLedger) -> None:
        self.held = 0  # bytes of the requests that wait or are in flight
        self._loop = asyncio.get_running_loop()
        self._ledger = ledger
        self._destination = destination
        self._host, self._port = host_and_port(destination.url)
        self._tls = tls_context(destination)

        self._waiting: dict[_Waiting, None] = {}  # the queue, in the order of submission
        self._ready: deque[_Waiting] = deque()  # those whose lane's turn it is
        # The lanes with a request ready or in flight, each with those that wait behind it.
        self._lanes: dict[bytes, deque[_Waiting] | None] = {}

        self._connections: set[_Connection] = set()
        self._opening: dict[_Connection, asyncio.Task[None]] = {}
        self._unsent: list[_Connection] = []  # with a request to be written at the end of this turn of the loop
        self._idle: dict[_Connection, None] = {}  # the last one in is the first one out
        self._connect_trouble = ""
        self._aborted = False
        self._addresses = Addresses(self._host, self._port, ledger, self._resolved, monotonic())

    @property
    def pending(self) -> int:
        """Requests queued or in flight."""
        return len(self._waiting) + len(self._connections) - len(self._idle) - len(self._opening)

    @property
    def trouble(self) -> str:
        """Why the last connection could not be opened, or else why the last lookup failed; empty once one succeeded."""
        return self._connect_trouble or self._addresses.trouble

    def submit(self, outgoing: Outgoing, now: float) -> None:
        """Send the request, or queue it, or drop it if the queue is full."""
        size = len(outgoing.head) + len(outgoing.body)
        lane = outgoing.lane
        if self.held and self.held + size > self._destination.queue_bytes:
            self._ledger.dropped[Dropped.QUEUE_BYTES] += 1
        elif self._idle and lane not in self._lanes and (outgoing.idempotent or self._fresh(now)):
            self.held += size
            self._lanes[lane] = None
            self._send(self._idle.popitem()[0], outgoing, size, now)
        else:
            self._enqueue(outgoing, size, now)

    def tick(self, now: float) -> None:
        """End what took too long, look the name up, try addresses that failed. To be called every 50 to 100 ms."""
        self._end_late(now)
        self._drop_late(now)
        self._addresses.tick(now)
        self._pump(now)
        self._probe(now)

    def refresh(self, destination: Destination) -> None:
        """Other limits and timeouts for the same url. Connections that no longer fit are closed once idle."""
        if destination.tls_verify != self._destination.tls_verify:
            self._tls = tls_context(destination)
            self._retire(list(self._connections))
        self._destination = destination
        self._retire(list(self._connections)[destination.connections :])
        self._pump(monotonic())

    def abort(self) -> None:
        """Close everything; what was queued is dropped, what was in flight failed. Needs a further turn of the loop."""
        self._aborted = True
        for waiting in list(self._waiting):
            self._drop(waiting, Dropped.DRAIN)
        self._ready.clear()
        for connection in list(self._connections):
            if connection.outgoing is not None:
                self._failed(connection, connection.outgoing, Failed.DRAIN)
            else:
                self._close(connection)
        self._addresses.close()

    # Requests: queued, sent, answered.

    def _enqueue(self, outgoing: Outgoing, size: int, now: float) -> None:
        if self._aborted:
            self._ledger.dropped[Dropped.DRAIN] += 1
        elif len(self._waiting) >= self._destination.queue:
            self._ledger.dropped[Dropped.QUEUE_FULL] += 1
        else:
            self.held += size
            waiting = _Waiting(outgoing, now, size)
            self._note_waiting(waiting)
            self._line_up(waiting, outgoing.lane, now)

    def _line_up(self, waiting: _Waiting, lane: bytes, now: float) -> None:
        if lane not in self._lanes:
            self._lanes[lane] = None
            self._make_ready(waiting)
            self._pump(now)
            return
        followers = self._lanes[lane]
        if followers is None:
            self._lanes[lane] = deque((waiting,))
        else:
            followers.append(waiting)

    def _make_ready(self, waiting: _Waiting) -> None:
        waiting.ready = True
        self._ready.append(waiting)

    def _note_waiting(self, waiting: _Waiting) -> None:
        self._waiting[waiting] = None
        self._ledger.queued += 1

    def _forget_waiting(self, waiting: _Waiting) -> None:
        waiting.outgoing = None
        del self._waiting[waiting]
        self._ledger.queued -= 1

    def _pump(self, now: float) -> None:
        """Hand ready requests to idle connections, and open connections for those left over."""
        ready, idle = self._ready, self._idle
        while ready:
            waiting = ready[0]
            outgoing = waiting.outgoing
            if outgoing is not None:
                if not idle or not (outgoing.idempotent or self._fresh(now)):
                    self._open(now)
                    return
                self._forget_waiting(waiting)
                connection = idle.popitem()[0]
                self._send(connection, outgoing, waiting.size, now)
                connection.retried = waiting.retried
            ready.popleft()

    def _fresh(self, now: float) -> bool:
        """Whether the idle connection whose turn it is can be trusted with a request that must not be sent twice.

        If not, neither can the others, which are idle for longer: nothing was answered in all that time. They are
        closed to make room for new ones.
        """
        if next(reversed(self._idle)).since > now - IDLE_MOST_ONCE:
            return True
        for connection in list(self._idle):
            self._close(connection)
        return False

    def _send(self, connection: _Connection, outgoing: Outgoing, size: int, now: float) -> None:
        connection.outgoing = outgoing
        connection.size = size
        connection.since = now
        connection.retried = False
        self._ledger.in_flight += 1
        connection.unsent = True
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent.append(connection)

    def _write(self) -> None:
        """Write what was handed out in this turn of the loop, one after the other: together each costs less."""
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            outgoing, transport = connection.outgoing, connection.transport
            if outgoing is None or transport is None or not connection.unsent:
                continue
            connection.unsent = False
            body = outgoing.body
            if not body:
                transport.write(outgoing.head)
            elif len(body) <= COPY_MOST:
                transport.write(outgoing.head + body)
            else:
                connection.streamed = True
                transport.writelines((outgoing.head, body))

    def _answered(self, connection: _Connection, outgoing: Outgoing, status: int) -> None:
        now = monotonic()
        seconds = now - connection.since
        ledger = self._ledger
        ledger.in_flight -= 1
        ledger.replayed += 1
        ledger.status[_STATUS_CLASSES[status // 100]] += 1
        ledger.latency[bisect_left(LATENCY_BOUNDS, seconds)] += 1
        ledger.latency_seconds += seconds
        connection.outgoing = None
        connection.used = True
        self.held -= connection.size
        self._next_of(outgoing.lane)
        if connection.retire or not connection.reader.reusable or (connection.streamed and _unsent(connection)):
            self._close(connection)
        else:
            connection.streamed = False
            connection.since = now
            self._idle[connection] = None
        if self._ready:
            self._pump(now)

    def _failed(self, connection: _Connection, outgoing: Outgoing, reason: Failed) -> None:
        self._ledger.in_flight -= 1
        self._ledger.failed[reason] += 1
        connection.outgoing = None
        self.held -= connection.size
        self._close(connection)
        self._next_of(outgoing.lane)
        self._pump(monotonic())

    def _next_of(self, lane: bytes) -> None:
        """The lane's request is over: the next one's turn, if there is one."""
        followers = self._lanes.pop(lane)
        if followers:
            self._lanes[lane] = followers
            self._make_ready(followers.popleft())

    def _retry(self, connection: _Connection, outgoing: Outgoing) -> None:
        connection.outgoing = None
        self._close(connection)
        self._ledger.in_flight -= 1
        self._ledger.retried += 1
        waiting = _Waiting(outgoing, monotonic(), connection.size)
        waiting.ready = waiting.retried = True
        self._note_waiting(waiting)
        self._ready.appendleft(waiting)
        # Not at once: idle connections may have been closed in the same moment, and the loop is about to say so.
        self._loop.call_soon(self._pump, waiting.since)

    def _drop_late(self, now: float) -> None:
        oldest = now - self._destination.queue_timeout
        for waiting in list(takewhile(lambda waiting: waiting.since <= oldest, self._waiting)):
            self._drop(waiting, Dropped.WAITED)

    def _drop(self, waiting: _Waiting, reason: Dropped) -> None:
        """Give up a queued request that is the first of its lane's queued ones."""
        outgoing = waiting.outgoing
        assert outgoing is not None
        self._forget_waiting(waiting)
        self.held -= waiting.size
        self._ledger.dropped[reason] += 1
        if waiting.ready:
            self._next_of(outgoing.lane)
        else:
            followers = self._lanes[outgoing.lane]
            assert followers is not None
            followers.popleft()

    # Connections: opened, lost, closed.

    def _open(self, now: float) -> None:
        """Open connections to addresses that work, as many as requests are ready; `_probe` sees to the others."""
        room = self._destination.connections - len(self._connections)
        if room <= 0:
            return
        lacking = len(self._ready) - sum(address.opening for address in self._addresses.working())
        for _ in range(min(room, lacking)):
            address = self._addresses.least_used()
            if address is None:
                return
            self._connect(address, now)

    def _probe(self, now: float) -> None:
        """Try addresses that failed, while requests wait or other addresses are in use."""
        if not self._ready and len(self._connections) == len(self._opening):
            return
        for address in self._addresses.due(now):
            if len(self._connections) < self._destination.connections:
                self._connect(address, now)
                self._addresses.probed(address, now)

    def _connect(self, address: Address, now: float) -> None:
        connection = _Connection(self, address, self._destination.response_limit, now)
        self._connections.add(connection)
        address.connections += 1
        address.opening += 1
        self._opening[connection] = self._loop.create_task(self._establish(connection))

    async def _establish(self, connection: _Connection) -> None:
        try:
            await self._loop.create_connection(
                lambda: connection,
                connection.address.host,
                self._port,
                ssl=self._tls,
                server_hostname=self._host if self._tls else None,
            )
        except (OSError, ValueError) as error:  # ValueError: a name that TLS cannot express
            self._unreachable(connection, str(error) or type(error).__name__)

    def _connected(self, connection: _Connection) -> None:
        if self._opening.pop(connection, None) is None:  # given up a moment ago
            if connection.transport is not None:
                connection.transport.abort()
            return
        address = connection.address
        address.opening -= 1
        returned = self._addresses.succeeded(address)
        self._connect_trouble = ""
        self._ledger.connections += 1
        connection.since = now = monotonic()
        if connection.retire:
            self._close(connection)
        else:
            self._idle[connection] = None
        if returned:
            self._share_out()
        self._pump(now)

    def _unreachable(self, connection: _Connection, trouble: str) -> None:
        if connection not in self._opening:
            return
        now = monotonic()
        address = connection.address
        self._close(connection)
        self._connect_trouble = f"{address.host} port {self._port}: {trouble}"
        self._ledger.connect_failed += 1
        self._addresses.failed(address, now)
        self._pump(now)

    def _ended(self, connection: _Connection, *, clean: bool) -> None:
        """The destination closed the connection, or sent what nobody asked for."""
        if connection not in self._connections or connection in self._opening:
            return
        outgoing = connection.outgoing
        if outgoing is None:
            self._close(connection)
        elif status := connection.reader.close() if clean else 0:
            self._answered(connection, outgoing, status)
        elif not connection.retried and (
            connection.unsent or (connection.used and outgoing.idempotent and not connection.reader.started)
        ):
            self._retry(connection, outgoing)
        else:
            self._failed(connection, outgoing, Failed.CLOSED)

    def _close(self, connection: _Connection) -> None:
        self._connections.remove(connection)
        self._idle.pop(connection, None)
        connection.address.connections -= 1
        task = self._opening.pop(connection, None)
        if task is not None:
            connection.address.opening -= 1
            task.cancel()
        if connection.transport is not None:
            connection.transport.abort()

    def _retire(self, connections: list[_Connection]) -> None:
        for connection in connections:
            connection.retire = True
            if connection in self._idle:
                self._close(connection)

    def _end_late(self, now: float) -> None:
        limits = self._destination
        started = now - limits.connect_timeout
        for connection in [entry for entry in self._opening if entry.since <= started]:
            self._unreachable(connection, f"no connection within {limits.connect_timeout:g} s")
        sent = now - limits.timeout
        for connection in [entry for entry in self._connections if entry.outgoing is not None and entry.since <= sent]:
            if connection.outgoing is not None:
                self._failed(connection, connection.outgoing, Failed.TIMEOUT)
        used = now - IDLE_MOST
        for connection in [entry for entry in self._idle if entry.since <= used]:
            self._close(connection)

    # The destination's addresses.

    def _resolved(self, arrived: bool) -> None:
        """Go over to the addresses of a lookup; connections to others are retired."""
        self._retire([connection for connection in self._connections if connection.address not in self._addresses])
        if arrived:
            self._share_out()
        self._pump(monotonic())

    def _share_out(self) -> None:
        """An address came, or came back: retire the connections to others above a fair share."""
        working = self._addresses.working()
        share = -(-len(self._connections) // max(len(working), 1))
        for address in working:
            self._retire([connection for connection in self._connections if connection.address is address][share:])


def tls_context(destination: Destination) -> ssl.SSLContext | None:
    """How an https destination is connected to: with its certificate verified, unless told not to. None for http."""
    if urlsplit(destination.url).scheme != "https":
        return None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    if not destination.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unsent(connection: _Connection) -> bool:
    """Whether part of the request still waits to be written."""
    return connection.transport is not None and connection.transport.get_write_buffer_size() > 0
