"""What a look at the lab shows, as one value: `lab.vpc` fills it, `lab.screen` draws it."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from replayer import ledger as accounting
from replayer.ledger import Ledger, arrived


class Mirror(StrEnum):
    """What becomes of an instance's packets."""

    NO = "not mirrored"
    COMING = "session made"  # EC2 lists a session, the kernel does not mirror yet
    YES = "mirrored"
    ENDING = "session deleted"  # EC2 lists none any more, the kernel still mirrors


@dataclass(frozen=True, slots=True)
class Instance:
    """One of production, or any other that runs no worker; test environment included."""

    id: str
    name: str  # its Name tag, or the Auto Scaling group's name; may be empty
    image: str  # a name of lab.images.IMAGES, or the image's id
    state: str  # as EC2 says it
    mirror: Mirror
    session: str = ""  # tms-…
    since: float | None = None  # seconds since the epoch: how long the mirror's state has been so
    production: float = 0.0  # requests a second that it answered of late
    test: float = 0.0  # requests a second of its clients that the test environment received of late


@dataclass(frozen=True, slots=True)
class Worker:
    """One of the worker fleet."""

    id: str
    state: str  # as EC2 says it
    health: str  # as the target group says it: initial, healthy, unhealthy, draining; empty when not registered
    received: int = 0  # datagrams
    replayed: int = 0  # requests


@dataclass(frozen=True, slots=True)
class Balancer:
    """What stands for the NLB: received = forwarded + refused, and drops on its own socket before."""

    received: int = 0
    socket_drops: int = 0
    truncated: int = 0  # forwarded, though cut to PacketLength
    refused: Mapping[str, int] = field(default_factory=dict)  # by reason, such as no target registered
    forwarded: int = 0
    targets: Mapping[str, int] = field(default_factory=dict)  # forwarded, by target


@dataclass(frozen=True, slots=True)
class Happening:
    """A line of the log that is shown: an event, what the control plane did, what was done in the lab."""

    at: float  # seconds since the epoch
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown. Counts are sums since the lab began; what is gone counts as it last was."""

    at: float  # seconds since the epoch
    instances: tuple[Instance, ...] = ()
    workers: tuple[Worker, ...] = ()
    answered: int = 0  # requests, by production
    received: int = 0  # requests, by the test environment
    troubled: Mapping[str, str] = field(default_factory=dict)  # what went wrong with an instance
    misread: Mapping[str, int] = field(default_factory=dict)  # by what is wrong with the servers' logs
    mirrored: int = 0  # packets that the kernel put into the sessions' VXLAN devices
    unsent: int = 0  # ones that these could not send
    underway_drops: int = 0  # of those mirrored, dropped before they reached the balancer
    balancer: Balancer = Balancer()
    ledger: Ledger = field(default_factory=Ledger)  # of all workers together
    reached: Mapping[str, int] = field(default_factory=dict)  # datagrams at the sockets of each worker that lives
    happenings: tuple[Happening, ...] = ()  # oldest first, the last dozen


def law(snapshot: Snapshot) -> list[tuple[str, str]]:
    """The conservation law, from the kernel's mirror to the test environment: what is counted, and its equation."""
    balancer, ledger = snapshot.balancer, snapshot.ledger
    parts = ledger.destinations.values()
    framed, selected = sum(part.framed for part in parts), sum(part.selected for part in parts)
    passed = sum(_sum(part.passed_over) for part in parts)
    failed, dropped = sum(_sum(part.failed) for part in parts), sum(_sum(part.dropped) for part in parts)
    replayed, queued = sum(part.replayed for part in parts), sum(part.queued for part in parts)
    flying = sum(part.in_flight for part in parts)
    underway = snapshot.mirrored - balancer.received - _dropped(snapshot)
    return [
        (
            "packets",
            f"{snapshot.mirrored:,} mirrored = {balancer.received:,} received by the balancer"
            f" + {_dropped(snapshot):,} dropped + {underway:,} under way",
        ),
        (
            "balancer",
            f"{balancer.received:,} = {_sum(balancer.refused):,} refused + {sum(_sent(snapshot).values()):,} to workers"
            f" + {_elsewhere(snapshot):,} to others or dead ones",
        ),
        (
            "workers",
            f"{arrived(ledger):,} arrived = {ledger.socket_drops:,} dropped by sockets + {ledger.segments:,} segments"
            f" + {_sum(ledger.refused):,} refused",
        ),
        (
            "payload",
            f"{_size(ledger.payload_bytes)} = {_size(ledger.framed_bytes)} framed"
            f" + {_size(ledger.duplicate_bytes)} duplicate + {_size(_sum(ledger.passed_over_bytes))} passed over"
            f" + {_size(_sum(ledger.given_up_bytes))} given up + {_size(ledger.held_bytes)} held",
        ),
        ("requests", f"{framed:,} framed = {selected:,} selected + {passed:,} passed over"),
        (
            "selected",
            f"{selected:,} = {replayed:,} replayed + {failed:,} failed + {dropped:,} dropped + {queued:,} queued"
            f" + {flying:,} in flight",
        ),
    ]


def imbalances(snapshot: Snapshot) -> list[str]:
    """The equations that do not hold, in words. While packets are under way, one may not."""
    balancer, sent = snapshot.balancer, _sent(snapshot)
    sums = {
        "mirrored = received by the balancer + dropped": (
            snapshot.mirrored,
            balancer.received + _dropped(snapshot),
        ),
        "received by the balancer = forwarded + refused": (
            balancer.received,
            balancer.forwarded + _sum(balancer.refused),
        ),
        **{f"forwarded to {name} = arrived there": (sent[name], count) for name, count in snapshot.reached.items()},
    }
    found = [f"{law}: {left:,} ≠ {right:,}" for law, (left, right) in sums.items() if left != right]
    return found + accounting.imbalances(snapshot.ledger)


def troubles(snapshot: Snapshot) -> list[str]:
    """What went wrong on the way, as far as it is counted; empty when nothing did."""
    balancer, ledger = snapshot.balancer, snapshot.ledger
    counts = Counter(
        {
            "not sent by the kernel": snapshot.unsent,
            "dropped on the way to the balancer": snapshot.underway_drops,
            "dropped by the balancer's socket": balancer.socket_drops,
            "truncated by the balancer": balancer.truncated,
            **{f"refused by the balancer: {reason}": count for reason, count in balancer.refused.items()},
            "dropped by the workers' sockets": ledger.socket_drops,
            "crashes of a shard": ledger.crashes,
            **{f"requests given up: {reason}": count for reason, count in ledger.given_up.items()},
            **{f"servers' logs: {what}": count for what, count in snapshot.misread.items()},
        }
    )
    for part in ledger.destinations.values():
        counts.update({f"replays failed: {reason}": count for reason, count in part.failed.items()})
        counts.update({f"requests dropped: {reason}": count for reason, count in part.dropped.items()})
    found = [f"{name}: {count:,}" for name, count in counts.items() if count]
    found += [f"{name}: {words}" for name, words in snapshot.troubled.items()]
    return found + [f"does not balance: {law}" for law in accounting.imbalances(ledger)]


def _dropped(snapshot: Snapshot) -> int:
    return snapshot.underway_drops + snapshot.balancer.socket_drops


def _sent(snapshot: Snapshot) -> dict[str, int]:
    """What the balancer forwarded to each worker that lives."""
    return {name: snapshot.balancer.targets.get(name, 0) for name in snapshot.reached}


def _elsewhere(snapshot: Snapshot) -> int:
    return snapshot.balancer.forwarded - sum(_sent(snapshot).values())


def _sum(reasons: Mapping[str, int]) -> int:
    return sum(reasons.values())


def _size(count: int) -> str:
    """Whole bytes while they are few."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1_000_000:,.1f} M"
