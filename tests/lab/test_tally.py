"""The tally says of every request what had to become of it, and what did."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import inf
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from lab.tally import MARGIN, NOBODY, Answered, Lot, Received, Tally, Window, joined, lot, tally, total, without

WINDOW = Window(100.0, 200.0)


def _lot(since: float, until: float, *, complete: bool = True, excuses: tuple[Window, ...] = ()) -> Lot:
    return lot(Answered("GET /", since, until, complete), [WINDOW], excuses)


def test_what_has_to_become_of_a_request() -> None:
    assert _lot(150, 150.1) is Lot.DUE
    assert _lot(100 + MARGIN, 200 - MARGIN) is Lot.DUE
    assert _lot(150, 150.1, complete=False) is Lot.UNANSWERED
    assert _lot(150, 150.1, excuses=(Window(149, 150),)) is Lot.EXCUSED
    assert _lot(150, 150.1, excuses=(Window(100, 148),)) is Lot.DUE
    assert _lot(99, 101) is Lot.STRADDLING
    assert _lot(199, 201) is Lot.STRADDLING
    assert _lot(100, 100.1) is Lot.STRADDLING  # nearer to the edge than the clocks are good for
    assert _lot(200.1, 200.2) is Lot.STRADDLING
    assert _lot(50, 51) is Lot.OUTSIDE
    assert _lot(250, 251, complete=False) is Lot.OUTSIDE
    assert lot(Answered("GET /", 150, 150.1), [Window(100)], ()) is Lot.DUE  # it lasts
    assert lot(Answered("GET /", 150, 150.1), [], ()) is Lot.OUTSIDE


def test_a_request_that_spans_two_windows_straddles() -> None:
    assert lot(Answered("GET /", 150, 250), [WINDOW, Window(240, 300)], ()) is Lot.STRADDLING


def test_each_fault_is_told_with_its_instance() -> None:
    answered = {
        "i-a": [Answered("GET /a/1", 150, 150.1), Answered("GET /a/2", 150, 150.1), Answered("GET /a/3", 50, 50.1)],
        "i-b": [Answered("POST /b/1", 150, 150.1)],
    }
    received = [
        Received("GET /a/1"),
        Received("GET /a/1"),
        Received("GET /a/3"),
        Received("GET /x"),
        Received("POST /b/1", intact=False),
    ]
    tallies = tally(answered, received, {"i-a": [WINDOW], "i-b": [WINDOW]})

    assert tallies["i-a"].missing == ["GET /a/2"]
    assert tallies["i-a"].surplus == ["GET /a/1", "GET /a/3"]
    assert (tallies["i-a"].due, tallies["i-a"].arrived, tallies["i-a"].lots[Lot.OUTSIDE]) == (2, 1, 1)
    assert (tallies["i-b"].spoilt, tallies["i-b"].bodies, tallies["i-b"].arrived) == (["POST /b/1"], 1, 1)
    assert tallies[NOBODY].surplus == ["GET /x"]
    whole = total(tallies.values())
    assert (whole.due, whole.arrived, len(whole.missing), len(whole.surplus)) == (3, 2, 1, 3)


def test_what_a_server_that_ends_left_unread_may_arrive() -> None:
    answered = {"i-a": [Answered("GET /a/1", 150, 150.1)]}
    received = [Received("GET /a/1", at=150), Received("GET /a/2", at=160), Received("GET /a/3", at=170)]

    tallies = tally(answered, received, {"i-a": [WINDOW]}, breaks=[Window(159, 161)])
    assert (tallies["i-a"].arrived, tallies[NOBODY].spared, tallies[NOBODY].surplus) == (1, 1, ["GET /a/3"])
    doubled = [*received, received[0]]
    assert tally(answered, doubled, {"i-a": [WINDOW]}, breaks=[Window(0)])["i-a"].surplus == ["GET /a/1"]


def test_nothing_due_proves_nothing() -> None:
    assert total(tally({"i-a": []}, [], {"i-a": [WINDOW]}).values()) == total([]) == Tally()


def test_an_instance_that_was_never_mirrored_has_nothing_due() -> None:
    tallies = tally({"i-a": [Answered("GET /a", 1, 2)]}, [], {})
    assert (tallies["i-a"].due, tallies["i-a"].missing, tallies["i-a"].surplus) == (0, [], [])


def test_a_name_of_two_instances_is_counted_over_both() -> None:
    answered = {"i-a": [Answered("GET /", 99, 101)], "i-b": [Answered("GET /", 150, 151)]}
    mirrored = {"i-a": [WINDOW], "i-b": [WINDOW]}

    tallies = tally(answered, [Received("GET /")], mirrored)
    assert (tallies["i-b"].arrived, tallies["i-a"].spared, total(tallies.values()).surplus) == (1, 0, [])
    tallies = tally(answered, [Received("GET /")] * 2, mirrored)
    assert (tallies["i-b"].arrived, tallies["i-a"].spared, total(tallies.values()).surplus) == (1, 1, [])
    assert total(tally(answered, [Received("GET /")] * 3, mirrored).values()).surplus == ["GET /"]


times = st.integers(0, 40).map(float)
windows = st.lists(
    st.builds(lambda since, length: Window(since, since + length), times, st.one_of(times, st.just(inf))), max_size=4
)
requests = st.builds(lambda since, length, complete: (since, since + length, complete), times, times, st.booleans())


@given(windows)
def test_joined_windows_are_apart_and_cover_the_same_time(drawn: list[Window]) -> None:
    apart = joined(drawn)

    assert all(before.until < after.since for before, after in pairwise(apart))
    for half in range(170):
        assert any(one.since <= half / 2 <= one.until for one in drawn) == any(
            one.since <= half / 2 <= one.until for one in apart
        )


@given(st.lists(requests, max_size=20), windows, windows, st.randoms(use_true_random=False), st.integers(0, 9))
def test_what_keeps_the_rules_is_no_fault_and_each_breach_is_one(
    drawn: list[tuple[float, float, bool]], mirrored: list[Window], excuses: list[Window], chance: Random, breach: int
) -> None:
    """Arrivals that keep the rules, in any order; then one of them is lost, doubled or damaged."""
    answered = [Answered(f"GET /i-a/{number}", *one) for number, one in enumerate(drawn)]
    lots = {one.name: lot(one, joined(mirrored), joined(excuses), 0.0) for one in answered}
    must = [name for name, its in lots.items() if its is Lot.DUE]
    may = [name for name, its in lots.items() if its not in (Lot.DUE, Lot.OUTSIDE) and chance.random() < 0.5]
    received = [Received(name, True) for name in (*must, *may)]
    chance.shuffle(received)

    def faults(received: list[Received]) -> tuple[list[str], list[str], list[str]]:
        whole = total(tally({"i-a": answered}, received, {"i-a": mirrored}, excuses, margin=0.0).values())
        assert whole.lots == Counter(lots.values())
        assert whole.due == whole.arrived + len(whole.missing)
        assert len(received) == whole.arrived + whole.spared + len(whole.surplus)
        return whole.missing, whole.surplus, whole.spoilt

    assert faults(received) == ([], [], [])
    if received:
        first = received[breach % len(received)]
        rest = [one for one in received if one is not first]
        assert faults([*received, first]) == ([], [first.name], [])
        assert faults([*rest, replace(first, intact=False)]) == ([], [], [first.name])
        assert faults(rest) == ([first.name] if first.name in must else [], [], [])
    for name, its in lots.items():
        if its is Lot.OUTSIDE:
            assert faults([*received, Received(name)]) == ([], [name], [])


@given(windows, windows, st.integers(0, 90).map(lambda half: half + 0.5))
def test_without_leaves_exactly_the_other_times(some: list[Window], others: list[Window], at: float) -> None:
    left = without(some, others)
    inside = any(one.since < at < one.until for one in some)
    taken = any(one.since < at < one.until for one in others)
    assert any(one.since < at < one.until for one in left) == (inside and not taken)
    assert left == joined(left)
