"""The way of events to the bus. AWS promises of most no more than best effort: they come late, twice, in another order,
or not at all (https://docs.aws.amazon.com/eventbridge/latest/ref/event-delivery-level.html). Here `Weather` says how
bad it is, and what becomes of an event follows from the weather and the event's number alone, so that it can be had
again.

    post = Post(deliver)                         # a thread calls `deliver` with each copy when its time has come
    post.turn(Weather(late=0.5, seconds=3))      # of the events from now on, each second one comes 3 s late
    post.send(event)
    post.happened(after=7)                       # events 8, 9, …, and what became of them
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count, islice
from random import Random
from time import monotonic, time
from typing import Any

type Event = Mapping[str, Any]

#: Seconds in which the second copy of a doubled event follows the first.
DOUBLED_WITHIN = 1.0
#: Seconds by which a shuffled event is held back at most: what comes meanwhile overtakes it.
SHUFFLED_WITHIN = 1.0
MOST_LATE = 3600.0
#: Events that are remembered: of more the oldest are forgotten, which shows in the numbers of those that are left.
REMEMBERED = 10_000
#: Copies that may wait: of more, new ones are lost.
MOST_WAITING = 10_000

_log = logging.getLogger(__name__)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Weather:
    """Shares of the events, from 0 to 1; what is late comes `seconds` later."""

    late: float = 0
    seconds: float = 0
    doubled: float = 0
    shuffled: float = 0
    lost: float = 0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("late", "doubled", "shuffled", "lost"):
            share = getattr(self, name)
            if not _is_number(share) or not 0 <= share <= 1:
                raise ValueError(f"{name} is a share from 0 to 1, not {share!r}")
        if not _is_number(self.seconds) or not 0 <= self.seconds <= MOST_LATE:
            raise ValueError(f"seconds are from 0 to {MOST_LATE:g}, not {self.seconds!r}")
        if type(self.seed) is not int:
            raise ValueError(f"seed is a whole number, not {self.seed!r}")


FINE = Weather()


def departures(weather: Weather, number: int) -> tuple[float, ...]:
    """Seconds after which each copy goes out; none if the event is lost. `number` counts since the weather turned."""
    random = Random(f"{weather.seed} {number}").random
    is_lost, is_late, is_shuffled, is_doubled, held, gap = (random() for _ in range(6))  # each knob has its own
    if is_lost < weather.lost:
        return ()
    first = weather.seconds if is_late < weather.late else 0.0
    first += held * SHUFFLED_WITHIN if is_shuffled < weather.shuffled else 0.0
    return (first, first + gap * DOUBLED_WITHIN) if is_doubled < weather.doubled else (first,)


@dataclass(slots=True)
class Posted:
    """An event and its fate: lost if there are no copies."""

    number: int
    time: float  # when it happened, in seconds of the epoch
    event: Event
    copies: int
    sent: list[float] = field(default_factory=list)  # when copies went out


class Post:
    def __init__(self, deliver: Callable[[Event], None], remembered: int = REMEMBERED) -> None:
        self._deliver = deliver
        self._changed = threading.Condition()
        self._numbers = count(1)
        self._weather, self._since_turn = FINE, count(1)
        self._waiting: list[tuple[float, int, int, Posted]] = []  # a heap: by time, then by number and copy
        self._posted: deque[Posted] = deque(maxlen=remembered)
        self._carrier: threading.Thread | None = None

    def turn(self, weather: Weather) -> None:
        """Of the events from now on; what waits already goes as was decided."""
        with self._changed:
            self._weather, self._since_turn = weather, count(1)

    def send(self, event: Event, *, surely: bool = False) -> int:
        """Its number; `surely` sends it at once and once, whatever the weather."""
        with self._changed:
            delays = departures(FINE, 0) if surely else departures(self._weather, next(self._since_turn))
            if len(self._waiting) + len(delays) > MOST_WAITING:
                _log.error("event %s is lost: %d wait already", event["id"], len(self._waiting))
                delays = ()
            posted = Posted(next(self._numbers), time(), event, len(delays))
            self._posted.append(posted)
            now = monotonic()
            for copy, delay in enumerate(delays):
                heappush(self._waiting, (now + delay, posted.number, copy, posted))
            if self._carrier is None:
                self._carrier = threading.Thread(target=self._carry, name="post", daemon=True)
                self._carrier.start()
            self._changed.notify()
            return posted.number

    def happened(self, after: int = 0, most: int = REMEMBERED) -> list[Posted]:
        """The first events with a higher number than `after`, as they stand now."""
        with self._changed:
            found = islice((one for one in self._posted if one.number > after), most)
            return [Posted(one.number, one.time, one.event, one.copies, [*one.sent]) for one in found]

    def _carry(self) -> None:
        while True:
            posted = self._next()
            try:
                self._deliver(posted.event)
            except Exception:  # noqa: BLE001  the top of a thread: one event's failure is no other's
                _log.exception("event %s was not delivered", posted.event["id"])
                continue
            with self._changed:
                posted.sent.append(time())

    def _next(self) -> Posted:
        with self._changed:
            while not self._waiting or self._waiting[0][0] > monotonic():
                self._changed.wait(self._waiting[0][0] - monotonic() if self._waiting else None)
            return heappop(self._waiting)[3]
