"""The demo's story, told to a lab that only pretends: what is done, in which order, and what is waited for."""

from collections.abc import Callable
from itertools import count
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from lab import story
from lab.show import Show
from lab.tally import Window
from lab.traffic import Mix
from lab.view import Snapshot
from lab.vpc import PRODUCTION, Lab
from replayer.ledger import Ledger


class _Lab:
    """Does at once what it is told, and the product's part too; writes down what was done."""

    def __init__(self) -> None:
        self.deeds: list[str] = []
        self.autoscaling, self.traffic = self, self
        self._names = count(1)
        self._members: list[str] = []
        self._tagged_group = False
        self._windows: dict[str, list[Window]] = {}

    def deploy(self) -> None:
        self.deeds.append("deploy")

    def drive(self, mix: Mix) -> None:
        self.deeds.append("drive")

    def group(self, name: str, n: int, *, tags: dict[str, str]) -> None:
        assert not PRODUCTION.items() & tags.items()
        self.deeds.append(f"group of {n}")
        self._grow(n)

    def scale(self, name: str, n: int) -> None:
        self.deeds.append(f"scale to {n}")
        self._grow(n)

    def members(self, name: str) -> list[str]:
        return [*self._members]

    def windows(self) -> dict[str, list[Window]]:
        return self._windows

    def tag(self, instance: str, tags: dict[str, str]) -> None:
        assert tags == PRODUCTION
        self.deeds.append(f"tag {instance}")
        self._windows[instance] = [Window(0)]

    def untag(self, instance: str, *keys: str) -> None:
        assert keys == tuple(PRODUCTION)
        self.deeds.append(f"untag {instance}")
        self._windows[instance] = [Window(0, 1)]

    def create_or_update_tags(self, Tags: list[dict[str, object]]) -> None:
        [tag] = Tags
        assert (tag["ResourceId"], tag["PropagateAtLaunch"]) == (story.GROUP, True)
        assert {tag["Key"]: tag["Value"]} == PRODUCTION
        self.deeds.append("tag the group")
        self._tagged_group = True

    def stop(self, instance: str) -> None:
        self.deeds.append(f"stop clients of {instance}")

    def _grow(self, n: int) -> None:
        while len(self._members) < n:
            self._members.append(name := f"i-{next(self._names)}")
            if self._tagged_group:
                self._windows[name] = [Window(0)]


class _Show:
    """Time passes only while somebody waits."""

    def __init__(self, looks: list[Ledger]) -> None:
        self.stages: list[str] = []
        self.clock = 0.0
        self._looks = iter(looks)
        self.last: Snapshot | None = None

    def stage(self, title: str) -> None:
        self.stages.append(title)

    def pause(self, seconds: float) -> None:
        self.clock += seconds
        self.last = Snapshot(0, ledger=next(self._looks, self.last.ledger if self.last else Ledger()))

    def wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        assert done(), what

    def now(self) -> float:
        return self.clock


def test_the_story_in_its_order() -> None:
    lab, show, pictures = _Lab(), _Show([]), []
    grown = story.tell(cast(Lab, lab), cast(Show, show), lambda: pictures.append(len(lab.deeds)), show.now)

    assert lab.deeds == [
        "deploy", "drive", "group of 2", "tag i-1", "tag i-2", "tag the group", "scale to 6", "untag i-1",
        *(f"stop clients of i-{number}" for number in range(1, 7)),
    ]  # fmt: skip
    assert grown == [f"i-{number}" for number in range(1, 7)]
    assert len(show.stages) == story.STAGES
    assert pictures == [lab.deeds.index("untag i-1")]


def test_windows_that_last_are_told_from_those_that_do_not() -> None:
    assert story.none_open([])
    assert story.none_open([Window(1, 2), Window(3, 4)])
    assert not story.none_open([Window(1, 2), Window(3)])


def _ledger(replayed: int, queued: int, in_flight: int) -> Ledger:
    made = Ledger(framed=replayed)
    part = made.destination("http://test")
    part.replayed, part.queued, part.in_flight = replayed, queued, in_flight
    return made


_LEDGERS = st.builds(_ledger, st.integers(0, 3), st.integers(0, 1), st.integers(0, 1))


@given(st.lists(_LEDGERS, max_size=60))
def test_it_settles_when_nothing_moved_for_long_enough(looks: list[Ledger]) -> None:
    show = _Show([*looks, _ledger(4, 0, 0)])
    story.settle(cast(Show, show), show.now)

    assert show.last is not None
    assert not story.busy(show.last.ledger)
    assert show.clock >= story.QUIET_FOR


def test_it_does_not_wait_for_ever() -> None:
    show = _Show([_ledger(number, 1, 0) for number in range(1000)])
    story.settle(cast(Show, show), show.now)

    assert story.QUIET_WITHIN <= show.clock < story.QUIET_WITHIN + 1
