"""What went through the balancer. Of each session: received = forwarded + refused, at every instant.

The kernel's drops come before that: what a session's device sent = drops + received + what lies in the socket.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

#: Sessions that are counted one by one; of those that are gone, the oldest are added up under EARLIER for others.
MAX_SESSIONS = 1024
#: Targets, likewise, whether they are gone or not.
MAX_TARGETS = 4096
EARLIER = "earlier"


@dataclass(slots=True)
class Count:
    """Datagrams of one session; `truncated` and `bytes` (of payload, as sent on) are of those forwarded."""

    received: int = 0
    drops: int = 0
    forwarded: int = 0
    truncated: int = 0
    bytes: int = 0
    refused: dict[str, int] = field(default_factory=dict)  # by reason


@dataclass(frozen=True, slots=True)
class Counts:
    """All that the balancer counts. `moved` and `evicted` are flows, `flows` how many there are."""

    sessions: Mapping[str, Count] = field(default_factory=dict)
    targets: Mapping[str, int] = field(default_factory=dict)
    flows: int = 0
    moved: int = 0
    evicted: int = 0


def total(counts: Counts) -> Count:
    """All sessions as one."""
    whole = Count()
    for count in counts.sessions.values():
        add(whole, count)
    return whole


def add(whole: Count, count: Count) -> None:
    whole.received += count.received
    whole.drops += count.drops
    whole.forwarded += count.forwarded
    whole.truncated += count.truncated
    whole.bytes += count.bytes
    for reason, number in count.refused.items():
        whole.refused[reason] = whole.refused.get(reason, 0) + number


def shorten(sessions: dict[str, Count], open_sessions: frozenset[str], most: int = MAX_SESSIONS) -> None:
    """Add up the oldest sessions that are gone, until `most` are counted; open ones stay whatever their number."""
    single = [name for name in sessions if name != EARLIER]
    gone = [name for name in single if name not in open_sessions]
    for name in gone[: max(0, len(single) - most)]:
        add(sessions.setdefault(EARLIER, Count()), sessions.pop(name))


def count_target(targets: dict[str, int], name: str, most: int = MAX_TARGETS) -> None:
    """One more datagram; what all targets got stays the sum."""
    if name not in targets and len(targets) >= most:
        earlier = targets.pop(EARLIER, 0)
        targets[EARLIER] = earlier + targets.pop(next(iter(targets)))
    targets[name] = targets.get(name, 0) + 1


def to_json(counts: Counts) -> dict[str, Any]:
    return asdict(counts)


def from_json(values: dict[str, Any]) -> Counts:
    sessions = {name: Count(**count) for name, count in values["sessions"].items()}
    return Counts(**{**values, "sessions": sessions})
