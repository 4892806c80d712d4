"""Which requests had to arrive at the test environment, and which did.

A request is told by its name, method and target: the clients give each one a target of its own. (Names that come
several times are counted; what is said of them is right then, but less sharp.) What production answered falls into

- due: wholly inside a window, a time in which its instance was mirrored. It arrives exactly once.
- straddling: partly inside one, or nearer to an edge than the clocks are good for. It arrives once at most.
- excused: due, were it not for something that befell the replay at that time, such as a worker's end. Once at most.
- unanswered: without a 200, so maybe sent in part. Once at most.
- outside: while its instance was not mirrored. It does not arrive.

An arrival beyond that is surplus. So is one that production knows nothing of, unless it came at a break: a server that
ends leaves requests unread that were mirrored on their way to it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from math import inf

#: Seconds. A server that has to wait for its turn, on a machine that carries all, reads a request later than the kernel
#: mirrored it.
MARGIN = 1.0

#: Under this name stand the arrivals that no instance answered for.
NOBODY = ""


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A time, by the clock of the wall. `until` is infinite while it lasts."""

    since: float
    until: float = inf


@dataclass(frozen=True, slots=True)
class Answered:
    """One request, as production's log tells it."""

    name: str
    since: float  # its first byte was read
    until: float  # its answer was given
    complete: bool = True  # it was answered with 200


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as the test environment's log tells it."""

    name: str
    intact: bool | None = None  # the body is what the client sent; None where that is not known
    at: float = 0.0


class Lot(Enum):
    """What has to become of a request."""

    DUE = auto()
    STRADDLING = auto()
    EXCUSED = auto()
    UNANSWERED = auto()
    OUTSIDE = auto()


@dataclass(slots=True)
class Tally:
    """The sum of one instance, or of all. Lists hold names, one for each time."""

    lots: Counter[Lot] = field(default_factory=Counter)  # of the requests that production answered
    arrived: int = 0  # due ones
    spared: int = 0  # straddling, excused and unanswered ones that arrived all the same, and what came at a break
    bodies: int = 0  # compared
    missing: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    spoilt: list[str] = field(default_factory=list)  # the body is another

    @property
    def due(self) -> int:
        return self.lots[Lot.DUE]


def tally(
    answered: Mapping[str, Iterable[Answered]],
    received: Iterable[Received],
    mirrored: Mapping[str, Iterable[Window]],
    excuses: Iterable[Window] = (),
    breaks: Sequence[Window] = (),
    margin: float = MARGIN,
) -> dict[str, Tally]:
    """The sum of each instance. `answered` and `mirrored` are by instance, `excuses` and `breaks` for all of them."""
    excused = joined(excuses)
    sorted_out = {
        instance: _sort(requests, joined(mirrored.get(instance, ())), excused, margin)
        for instance, requests in answered.items()
    }
    tallies = {instance: Tally(one.lots) for instance, one in sorted_out.items()}
    owners = {name: instance for instance, one in sorted_out.items() for name in one.names}
    left, bodies = Counter[str](), dict[str, list[bool]]()
    for entry in received:
        if entry.name in owners or not any(_near(entry.at, entry.at, window, margin) for window in breaks):
            left[entry.name] += 1
        else:
            tallies.setdefault(NOBODY, Tally()).spared += 1
        if entry.intact is not None:
            bodies.setdefault(entry.name, []).append(entry.intact)
    for instance, one in sorted_out.items():
        arrived = one.due & left
        left -= arrived
        tallies[instance].arrived = arrived.total()
        tallies[instance].missing = sorted((one.due - arrived).elements())
    for instance, one in sorted_out.items():
        spared = one.allowed & left
        left -= spared
        tallies[instance].spared = spared.total()
    for name in sorted(left):
        _owner(tallies, owners, name).surplus += [name] * left[name]
    for name in sorted(bodies):
        own = _owner(tallies, owners, name)
        own.bodies += len(bodies[name])
        own.spoilt += [name] * bodies[name].count(False)
    return tallies


def joined(windows: Iterable[Window]) -> list[Window]:
    """The same time in windows that are apart, in order."""
    apart: list[Window] = []
    for window in sorted(windows):
        if apart and window.since <= apart[-1].until:
            apart[-1] = Window(apart[-1].since, max(apart[-1].until, window.until))
        else:
            apart.append(window)
    return apart


def without(windows: Iterable[Window], others: Iterable[Window]) -> list[Window]:
    """What is left of the time when that of others is taken out; apart, in order."""
    left = joined(windows)
    for other in others:
        parts = [
            part
            for one in left
            for part in (Window(one.since, min(one.until, other.since)), Window(max(one.since, other.until), one.until))
        ]
        left = [part for part in parts if part.since < part.until]
    return left


def lot(request: Answered, mirrored: Sequence[Window], excuses: Sequence[Window], margin: float = MARGIN) -> Lot:
    """Of one request. The windows of each sequence are apart."""
    if not any(_near(request.since, request.until, window, margin) for window in mirrored):
        return Lot.OUTSIDE
    if not request.complete:
        return Lot.UNANSWERED
    if not any(_within(request, window, margin) for window in mirrored):
        return Lot.STRADDLING
    return Lot.EXCUSED if any(_near(request.since, request.until, window, margin) for window in excuses) else Lot.DUE


def total(tallies: Iterable[Tally]) -> Tally:
    """All together."""
    whole = Tally()
    for part in tallies:
        whole.lots.update(part.lots)
        whole.arrived += part.arrived
        whole.spared += part.spared
        whole.bodies += part.bodies
        whole.missing += part.missing
        whole.surplus += part.surplus
        whole.spoilt += part.spoilt
    return whole


@dataclass(slots=True)
class _Sorted:
    """The requests of one instance: how many of each lot, and how often each name must and may arrive."""

    lots: Counter[Lot] = field(default_factory=Counter)
    due: Counter[str] = field(default_factory=Counter)
    allowed: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)


def _sort(
    requests: Iterable[Answered], mirrored: Sequence[Window], excuses: Sequence[Window], margin: float
) -> _Sorted:
    result = _Sorted()
    for request in requests:
        its = lot(request, mirrored, excuses, margin)
        result.lots[its] += 1
        result.names.add(request.name)
        if its is Lot.DUE:
            result.due[request.name] += 1
        elif its is not Lot.OUTSIDE:
            result.allowed[request.name] += 1
    return result


def _owner(tallies: dict[str, Tally], owners: Mapping[str, str], name: str) -> Tally:
    """The sum that a name belongs to: its instance's, or nobody's."""
    return tallies.setdefault(owners.get(name, NOBODY), Tally())


def _within(request: Answered, window: Window, margin: float) -> bool:
    return window.since + margin <= request.since and request.until <= window.until - margin


def _near(since: float, until: float, window: Window, margin: float) -> bool:
    return window.since - margin <= until and since <= window.until + margin
