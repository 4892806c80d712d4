"""Events on their way: what becomes of them follows from the weather, and nothing else disturbs them."""

import threading
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cloud.post import (
    DOUBLED_WITHIN,
    FINE,
    MOST_LATE,
    MOST_WAITING,
    SHUFFLED_WITHIN,
    Event,
    Post,
    Posted,
    Weather,
    departures,
)
from tests.waiting import until

SHARES = st.floats(0, 1)
WEATHERS = st.builds(
    Weather,
    late=SHARES,
    seconds=st.floats(0, MOST_LATE),
    doubled=SHARES,
    shuffled=SHARES,
    lost=SHARES,
    seed=st.integers(),
)


def event(name: str) -> Event:
    return {"id": name}


class Bus:
    """Where a post delivers to."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.post = Post(self.deliver)

    def deliver(self, event: Event) -> None:
        if event["id"] == "broken":
            raise RuntimeError("no such rule")
        self.got.append(event["id"])

    def send(self, *names: str, **how: Any) -> None:
        for name in names:
            self.post.send(event(name), **how)

    def all_sent(self) -> list[Posted]:
        """Once every copy is out."""

        def look() -> list[Posted]:
            fates = self.post.happened()
            return fates if all(len(one.sent) == one.copies for one in fates) else []

        return until("all are sent", look)


# Decisions


@given(WEATHERS, st.integers(1, 10**6))
def test_an_event_goes_out_once_or_twice_or_never_and_not_too_late(weather: Weather, number: int) -> None:
    delays = departures(weather, number)
    assert len(delays) <= 2 and [*delays] == sorted(delays)
    for delay in delays:
        assert 0 <= delay <= weather.seconds + SHUFFLED_WITHIN + DOUBLED_WITHIN
    assert delays == departures(weather, number)


@given(WEATHERS, st.integers(1, 10**6))
def test_each_knob_turns_alone(weather: Weather, number: int) -> None:
    assert departures(replace(weather, lost=1), number) == ()
    calm = replace(weather, lost=0, doubled=0, shuffled=0)
    assert departures(calm, number) in ((0.0,), (weather.seconds,))
    assert departures(replace(calm, late=0), number) == (0.0,)
    assert departures(replace(calm, late=1), number) == (weather.seconds,)
    single, twice = (departures(replace(weather, lost=0, doubled=share), number) for share in (0, 1))
    assert len(single) == 1 and len(twice) == 2 and twice[0] == single[0]


def test_shares_are_shares() -> None:
    weather = Weather(late=0.25, seconds=10, doubled=0.5, lost=0.1)
    fates = [departures(weather, number) for number in range(1, 4001)]
    lost = sum(not delays for delays in fates) / 4000
    late = sum(bool(delays) and delays[0] >= 10 for delays in fates) / 4000
    doubled = sum(len(delays) == 2 for delays in fates) / 4000
    assert lost == pytest.approx(0.1, abs=0.02)
    assert late == pytest.approx(0.25 * 0.9, abs=0.03) and doubled == pytest.approx(0.5 * 0.9, abs=0.03)


def test_another_seed_is_another_fate() -> None:
    fates = {tuple(departures(Weather(lost=0.5, seed=seed), number) for number in range(20)) for seed in range(5)}
    assert len(fates) == 5


@pytest.mark.parametrize(
    ("knobs", "reason"),
    [
        ({"lost": 1.1}, "lost is a share from 0 to 1, not 1.1"),
        ({"late": -0.1}, "late is a share"),
        ({"doubled": "all"}, "doubled is a share"),
        ({"shuffled": True}, "shuffled is a share"),
        ({"lost": float("nan")}, "lost is a share"),
        ({"seconds": 3601}, "seconds are from 0 to 3600, not 3601"),
        ({"seed": 0.5}, "seed is a whole number"),
    ],
)
def test_there_is_no_such_weather(knobs: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Weather(**knobs)


# The way


def test_in_fine_weather_all_come_in_order_and_at_once() -> None:
    bus, names = Bus(), [str(number) for number in range(200)]
    bus.send(*names)
    fates = bus.all_sent()
    assert bus.got == names
    assert [one.number for one in fates] == [*range(1, 201)] and {one.copies for one in fates} == {1}
    assert max(one.sent[0] - one.time for one in fates) < 5


def test_what_is_sent_from_many_threads_comes_whole() -> None:
    bus = Bus()
    threads = [threading.Thread(target=bus.send, args=[f"{name}{n}" for n in range(50)]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bus.all_sent()
    assert Counter(bus.got) == {f"{name}{n}": 1 for name in "abcd" for n in range(50)}
    for name in "abcd":
        assert [got for got in bus.got if got[0] == name] == [f"{name}{n}" for n in range(50)]


def test_bad_weather_does_what_was_decided() -> None:
    bus, names = Bus(), [str(number) for number in range(1, 101)]
    weather = Weather(late=0.5, seconds=0.1, doubled=0.3, shuffled=0.5, lost=0.2, seed=3)
    bus.post.turn(weather)
    bus.send(*names)
    fates = bus.all_sent()
    decided = {name: departures(weather, int(name)) for name in names}
    assert Counter(bus.got) == {name: len(delays) for name, delays in decided.items() if delays}
    assert bus.got != sorted(bus.got, key=int)
    for one in fates:
        for delay, sent in zip(decided[one.event["id"]], one.sent, strict=True):
            assert sent - one.time == pytest.approx(delay, abs=0.5) and sent - one.time > delay - 0.05


def test_what_overtakes_waits_for_nobody() -> None:
    bus = Bus()
    bus.post.turn(Weather(late=1, seconds=MOST_LATE))
    bus.send("late")
    bus.post.turn(FINE)
    bus.send("next")
    until("the next is there", lambda: bus.got == ["next"])
    assert [(one.copies, len(one.sent)) for one in bus.post.happened()] == [(1, 0), (1, 1)]


def test_the_weathers_turn_begins_the_count_anew() -> None:
    one, other = Bus(), Bus()
    other.send(*"before")
    for bus in (one, other):
        bus.post.turn(Weather(lost=0.5, seed=9))
        bus.send(*"abcdefgh")
    copies = [[posted.copies for posted in bus.post.happened()[-8:]] for bus in (one, other)]
    assert copies[0] == copies[1]


def test_what_goes_surely_is_out_of_the_weather() -> None:
    bus = Bus()
    bus.post.turn(Weather(lost=1))
    bus.send("sweep", surely=True)
    bus.send("other")
    assert [one.copies for one in bus.all_sent()] == [1, 0]
    assert bus.got == ["sweep"]


def test_a_failed_delivery_is_no_other_events_failure() -> None:
    bus = Bus()
    bus.send("a", "broken", "b")
    until("b is there", lambda: bus.got == ["a", "b"])
    assert [len(one.sent) for one in bus.post.happened()][:2] == [1, 0]


def test_what_happened_comes_in_pages() -> None:
    bus = Bus()
    bus.send(*"abcde")
    bus.all_sent()
    assert [one.event["id"] for one in bus.post.happened(after=1, most=2)] == ["b", "c"]
    assert bus.post.happened(after=5) == []


def test_more_than_can_wait_is_lost() -> None:
    bus = Bus()
    bus.post.turn(Weather(late=1, seconds=MOST_LATE, doubled=1))
    for number in range(MOST_WAITING // 2 + 1):
        bus.post.send(event(str(number)))
    assert [one.copies for one in bus.post.happened(after=MOST_WAITING // 2 - 1)] == [2, 0]


def test_the_oldest_are_forgotten_which_shows_in_the_numbers() -> None:
    post = Post(lambda _: None, remembered=2)
    for number in range(3):
        post.send({"id": f"{number}"})
    assert [one.number for one in post.happened()] == [2, 3]
