"""Which target a datagram goes to.

https://docs.aws.amazon.com/elasticloadbalancing/latest/network/introduction.html: a UDP flow is told by source and
destination, address and port each, and stays with its target for its life. Here the destination is always the
balancer's listener for mirrored packets, so that the source tells flows of one balancer apart. With stickiness
(`source_ip`) its address alone does.

- A flow that was idle for 120 s is forgotten (network-load-balancers.html).
- New flows go to healthy targets; where none is healthy, to all registered ones (fail open,
  target-group-health-checks.html). A draining target gets no new flows and keeps those it has
  (edit-target-group-attributes.html).
- A flow whose target is unhealthy or gone goes to another one with its next datagram. AWS tells of TCP only, where it
  ends such connections; for UDP this is assumed. So is that the health of draining targets is still looked at.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from lab.fabric.balancer.checks import State

#: The longest unused flow is forgotten for a new one.
MAX_FLOWS = 1 << 17

type Source = tuple[str, int]


@dataclass(slots=True)
class _Flow:
    target: str
    used: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The targets that new flows may go to, in a fixed order, and those that keep the flows they have."""

    new: tuple[str, ...] = ()
    keep: frozenset[str] = frozenset()


def choose(states: Mapping[str, State], draining: Collection[str]) -> Choice:
    """Who takes part, by the states of all targets, draining ones too."""
    registered = sorted(states.keys() - set(draining))
    healthy = [name for name in registered if states[name] is State.HEALTHY]
    new = tuple(healthy or registered)
    leaving = (name for name in draining if states.get(name, State.UNHEALTHY) is not State.UNHEALTHY)
    return Choice(new, frozenset(new).union(leaving))


class FlowTable:
    """One balancer's flows. `now` never goes back."""

    def __init__(self, idle: float, by_address: bool = False, most: int = MAX_FLOWS) -> None:
        self.choice = Choice()
        self.idle = idle
        self.by_address = by_address
        self.moved = 0  # flows that went from one target to another
        self.evicted = 0  # flows forgotten because of the cap
        self._most = most
        self._flows: OrderedDict[Source | str, _Flow] = OrderedDict()  # in the order of their last use

    def __len__(self) -> int:
        return len(self._flows)

    def find(self, source: Source, now: float) -> str | None:
        """The target of a datagram from `source`, or None where no target may take it."""
        self._forget(now - self.idle)
        key = source[0] if self.by_address else source
        flow = self._flows.get(key)
        if flow is None:
            if (target := _pick(key, self.choice.new)) is None:
                return None
            if len(self._flows) >= self._most:
                self._flows.popitem(last=False)
                self.evicted += 1
            self._flows[key] = _Flow(target, now)
            return target
        if flow.target not in self.choice.keep:
            if (target := _pick(key, self.choice.new)) is None:
                return None
            flow.target = target
            self.moved += 1
        flow.used = now
        self._flows.move_to_end(key)
        return flow.target

    def forget(self, now: float) -> None:
        """Drop what is idle, though no datagram comes."""
        self._forget(now - self.idle)

    def _forget(self, since: float) -> None:
        flows = self._flows
        while flows and next(iter(flows.values())).used <= since:
            flows.popitem(last=False)


def _pick(key: Source | str, targets: Sequence[str]) -> str | None:
    """By a hash of what tells the flow, so that flows spread evenly and the same one goes the same way again."""
    if not targets:
        return None
    digest = blake2b(repr(key).encode(), digest_size=8).digest()
    return targets[int.from_bytes(digest) % len(targets)]
