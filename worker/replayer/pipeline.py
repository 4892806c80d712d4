"""The pure part of the worker as a whole: datagrams in, framed requests out, and what each destination gets of them.

    decap ─Segment→ flows, reassembly ─Chunk→ http1 ─Request→ Route: selection → rewrite ─Outgoing→

Nothing here waits, logs or reads a clock. All that happens is counted in the ledger.
"""

from collections.abc import Callable, Collection, Sequence

from replayer.decap import Segment, Tunnels, frame, geneve, vxlan
from replayer.flows import FlowTable
from replayer.head import Request
from replayer.http1 import Rules
from replayer.ledger import DestinationLedger, Ledger, Refused, Unselected
from replayer.rewrite import Outgoing, Rewriter
from replayer.selection import Selector
from replayer.settings import Destination, Settings

type Unwrap = Callable[[bytes, Collection[int] | None, Collection[int] | None], Segment | Refused]


class Pipeline:
    """Datagrams in, framed requests out. `now` is a clock that does not go back; `expire` wants a call every 50 ms."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rules = Rules(ledger, settings.caps.head, settings.caps.body, _names(settings))
        self._table = FlowTable(settings.caps, self._rules, ledger)
        self._accept(settings)

    def reconfigure(self, settings: Settings) -> None:
        """Take other settings into force; the flows go on."""
        self._rules.configure(settings.caps.head, settings.caps.body, _names(settings))
        self._table.reconfigure(settings.caps)
        self._accept(settings)

    def _accept(self, settings: Settings) -> None:
        self._ports: Collection[int] | None = frozenset(settings.http_ports) or None
        self._vnis: Collection[int] | None = frozenset(settings.vnis) or None
        self._tunnels = Tunnels(settings.vxlan_port, settings.geneve_port)

    def receive_all(self, datagrams: Sequence[bytes], now: float, unwrap: Unwrap = vxlan) -> list[Request]:
        """The requests that datagrams complete, in their order. All are decapsulated, then all followed: work of one
        kind in a row costs less than in turns with another."""
        ledger, ports, vnis = self._ledger, self._ports, self._vnis
        ledger.datagrams += len(datagrams)
        follow = self._table.receive
        out: list[Request] = []
        for segment in [unwrap(datagram, ports, vnis) for datagram in datagrams]:
            if isinstance(segment, tuple):
                ledger.segments += 1
                out += follow(segment, now)
            else:
                ledger.refused[segment] += 1
        return out

    def receive(self, datagram: bytes, now: float) -> list[Request]:
        """The requests that a VXLAN datagram completes."""
        return self.receive_all((datagram,), now)

    def receive_geneve(self, datagram: bytes, now: float) -> list[Request]:
        """The requests that a GENEVE datagram completes."""
        return self.receive_all((datagram,), now, geneve)

    def receive_frame(self, link_type: int, data: bytes, now: float) -> list[Request]:
        """The requests that a captured frame completes; `link_type` is a pcap LINKTYPE number."""
        return self.receive_all(
            (data,), now, lambda data, ports, vnis: frame(link_type, data, ports, vnis, self._tunnels)
        )

    def expire(self, now: float) -> list[Request]:
        """The requests that time alone brings: behind holes given up, of flows joined, proven by silence."""
        return self._table.expire(now)

    def close(self, now: float) -> list[Request]:
        """The input has ended: nothing is held afterwards, all of it is accounted for."""
        return self._table.close(now)


def _names(settings: Settings) -> set[bytes]:
    """All header fields that any stage looks at."""
    names = {settings.mark_header.lower().encode()}
    for destination in settings.destinations:
        names |= Selector(settings, destination).names() | Rewriter(settings, destination).names()
    return names


class Route:
    """The way of requests to one destination: chosen, then rewritten."""

    def __init__(self, settings: Settings, destination: Destination, ledger: DestinationLedger) -> None:
        self._ledger = ledger
        self._selector = Selector(settings, destination)
        self._everything = self._selector.everything
        self._mark = settings.mark_header.lower().encode()
        self._methods = frozenset(method.encode() for method in destination.methods)
        self._rewrite: Callable[[Request], Outgoing] = Rewriter(settings, destination).rewrite

    def outgoing(self, request: Request) -> Outgoing | None:
        """The request as the destination gets it, or None; either is counted."""
        ledger = self._ledger
        ledger.framed += 1
        if self._mark in request.names:
            ledger.passed_over[Unselected.MARKED] += 1
            return None
        if self._methods and request.method not in self._methods:
            ledger.passed_over[Unselected.METHOD] += 1
            return None
        if not self._everything:
            selected, keyed = self._selector.select(request)
            ledger.unkeyed += not keyed
            if not selected:
                ledger.passed_over[Unselected.PERCENTAGE] += 1
                return None
        ledger.selected += 1
        return self._rewrite(request)
