"""The accounting: what became of every datagram, byte and request.

Five equations hold at every instant (DESIGN: the conservation law); `imbalances` states those that do not:

    arrived            = socket drops + datagrams
    datagrams          = segments + refused
    payload bytes      = framed + duplicate + passed over + given up + held
    framed requests    = selected + passed over                    (per destination)
    selected requests  = replayed + failed + dropped + queued + in flight   (per destination)

Every number is counted where the thing happens; none is derived from the others, so a lost segment shows.
`arrived` is the one sum: a socket does not count what it delivered.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class Refused(StrEnum):
    """Why a datagram yields no segment."""

    SHORT = "short"  # ends inside the VXLAN or GENEVE header
    NOT_VXLAN = "not_vxlan"  # the I flag is missing
    NOT_GENEVE = "not_geneve"  # another version, or a control message
    OTHER_VNI = "other_vni"
    NOT_IP = "not_ip"
    FRAGMENT = "fragment"
    NOT_TCP = "not_tcp"
    MALFORMED = "malformed"  # lengths contradict each other
    TRUNCATED = "truncated"  # cut inside the inner headers
    OTHER_PORT = "other_port"
    LINK_TYPE = "link_type"  # a capture of a kind that is not read
    SHARD_CRASHED = "shard_crashed"  # read from the socket by a shard that died before it counted them


class PassedOver(StrEnum):
    """Why payload bytes are no request to be replayed."""

    TLS = "tls"
    HTTP2 = "http2"
    OTHER_PROTOCOL = "other_protocol"
    UPGRADED = "upgraded"  # Upgrade or CONNECT, from the request on
    JOINED = "joined"  # before the first request of a flow joined mid-stream


class GivenUp(StrEnum):
    """Why payload bytes that belong to requests are not replayed."""

    HOLE = "hole"  # bytes of the request were lost on the way here
    UNPROVEN = "unproven"  # looks like a request after a hole, may be part of a body
    BAD_REQUEST = "bad_request"  # RFC 9112 tells a server to refuse it
    HEAD_TOO_LARGE = "head_too_large"
    BODY_TOO_LARGE = "body_too_large"
    CLOSED = "closed"  # the connection ended inside the request
    EVICTED = "evicted"  # the flow left the full table
    HELD_TOTAL = "held_total"  # the cap on bytes held in total
    ENDED = "ended"  # the worker or the capture ended inside the request
    SHARD_CRASHED = "shard_crashed"


class Unselected(StrEnum):
    """Why a destination does not get a framed request."""

    PERCENTAGE = "percentage"
    METHOD = "method"
    MARKED = "marked"  # bears the mark header: the loop guard


class Failed(StrEnum):
    """Why a request that was sent, or about to be, got no complete answer."""

    TIMEOUT = "timeout"
    CLOSED = "closed"  # the destination closed before the answer was complete
    BAD_RESPONSE = "bad_response"
    RESPONSE_TOO_LARGE = "response_too_large"
    DRAIN = "drain"
    SHARD_CRASHED = "shard_crashed"


class Dropped(StrEnum):
    """Why a selected request never left the queue."""

    QUEUE_FULL = "queue_full"
    QUEUE_BYTES = "queue_bytes"
    WAITED = "waited"  # longer than queue_timeout
    DRAIN = "drain"


#: Upper bounds of the latency histogram, in seconds; one more bucket holds the rest.
LATENCY_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def _zeros(reasons: type[StrEnum]) -> dict[str, int]:
    return {str(reason): 0 for reason in reasons}


@dataclass(slots=True)
class DestinationLedger:
    """Requests of one destination. `queued` and `in_flight` are levels, all others only grow."""

    framed: int = 0
    selected: int = 0
    unkeyed: int = 0  # decided per request for want of the key header; part of selected and passed over
    passed_over: dict[str, int] = field(default_factory=lambda: _zeros(Unselected))
    replayed: int = 0
    failed: dict[str, int] = field(default_factory=lambda: _zeros(Failed))
    dropped: dict[str, int] = field(default_factory=lambda: _zeros(Dropped))
    queued: int = 0
    in_flight: int = 0
    retried: int = 0
    connections: int = 0  # opened so far
    connect_failed: int = 0
    resolve_failed: int = 0
    status: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("2xx", "3xx", "4xx", "5xx", "other"), 0))
    latency: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS) + 1))
    latency_seconds: float = 0.0


@dataclass(slots=True)
class Ledger:
    """One shard's accounting, or the sum of several. `held_*` and `flows` are levels, all others only grow."""

    socket_drops: int = 0
    datagrams: int = 0
    segments: int = 0
    truncated: int = 0  # segments with captured payload shorter than sent
    refused: dict[str, int] = field(default_factory=lambda: _zeros(Refused))

    payload_bytes: int = 0
    framed_bytes: int = 0
    duplicate_bytes: int = 0
    passed_over_bytes: dict[str, int] = field(default_factory=lambda: _zeros(PassedOver))
    given_up_bytes: dict[str, int] = field(default_factory=lambda: _zeros(GivenUp))
    held_bytes: int = 0
    lost_bytes: int = 0  # never arrived: the size of all holes given up; no part of payload_bytes

    framed: int = 0
    given_up: dict[str, int] = field(default_factory=lambda: _zeros(GivenUp))  # requests; a hole counts as one
    holes: int = 0
    resynchronised: int = 0
    passed_over_flows: dict[str, int] = field(default_factory=lambda: _zeros(PassedOver))

    flows: int = 0
    flows_opened: int = 0
    flows_joined: int = 0
    flows_evicted: int = 0
    tombstones: int = 0
    tombstones_evicted: int = 0
    crashes: int = 0
    destinations: dict[str, DestinationLedger] = field(default_factory=dict)

    def destination(self, name: str) -> DestinationLedger:
        """The part of `name`, made at first use."""
        return self.destinations.setdefault(name, DestinationLedger())


def as_dict(ledger: Ledger | DestinationLedger) -> dict[str, Any]:
    """The ledger as JSON-ready values, keys as the fields' names."""
    values = {entry.name: getattr(ledger, entry.name) for entry in fields(ledger)}
    if isinstance(ledger, Ledger):
        values["destinations"] = {name: as_dict(part) for name, part in ledger.destinations.items()}
    return values


def from_dict(values: Mapping[str, Any]) -> Ledger:
    """The inverse of `as_dict`."""
    parts = {name: DestinationLedger(**part) for name, part in values["destinations"].items()}
    return Ledger(**{**values, "destinations": parts})


def add(total: Ledger, part: Ledger) -> None:
    """Add every number of `part` to `total`."""
    for name, destination in part.destinations.items():
        _add(total.destination(name), destination)
    _add(total, part)


def _add(total: Ledger | DestinationLedger, part: Ledger | DestinationLedger) -> None:
    for entry in fields(total):
        mine, theirs = getattr(total, entry.name), getattr(part, entry.name)
        if entry.name == "destinations":
            continue
        if isinstance(mine, dict):
            for key, value in theirs.items():
                mine[key] = mine.get(key, 0) + value
        elif isinstance(mine, list):
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]
        else:
            setattr(total, entry.name, mine + theirs)


def arrived(ledger: Ledger) -> int:
    """Datagrams that reached the sockets, read or dropped."""
    return ledger.socket_drops + ledger.datagrams


def equations(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """The law, equation by equation: both sides."""
    sums = {
        "datagrams = segments + refused": (ledger.datagrams, ledger.segments + sum(ledger.refused.values())),
        "payload bytes = framed + duplicate + passed over + given up + held": (
            ledger.payload_bytes,
            ledger.framed_bytes
            + ledger.duplicate_bytes
            + sum(ledger.passed_over_bytes.values())
            + sum(ledger.given_up_bytes.values())
            + ledger.held_bytes,
        ),
    }
    for name, part in ledger.destinations.items():
        sums[f"{name}: framed = selected + passed over"] = (
            part.framed,
            part.selected + sum(part.passed_over.values()),
        )
        sums[f"{name}: selected = replayed + failed + dropped + queued + in flight"] = (
            part.selected,
            part.replayed + sum(part.failed.values()) + sum(part.dropped.values()) + part.queued + part.in_flight,
        )
    return sums


def imbalances(ledger: Ledger) -> list[str]:
    """The equations that do not hold, in words; empty when the ledger balances."""
    return [f"{law}: {left} ≠ {right}" for law, (left, right) in equations(ledger).items() if left != right]
