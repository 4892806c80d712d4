"""The accounting: five equations, and nothing derived that should have been counted."""

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer.ledger import (
    LATENCY_BOUNDS,
    DestinationLedger,
    Dropped,
    Failed,
    GivenUp,
    Ledger,
    PassedOver,
    Refused,
    Unselected,
    add,
    arrived,
    as_dict,
    from_dict,
    imbalances,
)
from tests.strategies import examples

counts = st.integers(0, 1 << 40)


def filled(draw: st.DrawFn, ledger: Ledger | DestinationLedger) -> None:
    """Draw every number of `ledger`."""
    for entry in fields(ledger):
        value = getattr(ledger, entry.name)
        if entry.name == "destinations":
            continue
        if isinstance(value, dict):
            value.update({key: draw(counts) for key in value})
        elif isinstance(value, list):
            value[:] = [draw(counts) for _ in value]
        else:
            setattr(ledger, entry.name, draw(counts))


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    """Any ledger, whether it balances or not."""
    ledger = Ledger()
    filled(draw, ledger)
    for name in draw(st.lists(st.sampled_from(["http://a", "http://b"]), unique=True)):
        filled(draw, ledger.destination(name))
    return ledger


def test_a_new_ledger_balances() -> None:
    ledger = Ledger()
    ledger.destination("http://test.example")
    assert imbalances(ledger) == []
    assert arrived(ledger) == 0


def test_every_reason_has_a_counter_from_the_start() -> None:
    ledger, part = Ledger(), DestinationLedger()
    assert set(ledger.refused) == set(Refused)
    assert set(ledger.passed_over_bytes) == set(ledger.passed_over_flows) == set(PassedOver)
    assert set(ledger.given_up) == set(ledger.given_up_bytes) == set(GivenUp)
    assert set(part.passed_over) == set(Unselected)
    assert set(part.failed) == set(Failed)
    assert set(part.dropped) == set(Dropped)
    assert len(part.latency) == len(LATENCY_BOUNDS) + 1


def test_arrived_is_what_the_kernel_dropped_and_what_was_read() -> None:
    assert arrived(Ledger(socket_drops=3, datagrams=4)) == 7


@pytest.mark.parametrize(
    "name", ["datagrams", "segments", "payload_bytes", "framed_bytes", "duplicate_bytes", "held_bytes"]
)
def test_one_number_too_many_breaks_the_balance(name: str) -> None:
    ledger = Ledger()
    setattr(ledger, name, 1)
    assert len(imbalances(ledger)) == 1


@pytest.mark.parametrize("name", ["refused", "passed_over_bytes", "given_up_bytes"])
def test_one_reason_too_many_breaks_the_balance(name: str) -> None:
    ledger = Ledger()
    for reason in getattr(ledger, name):
        getattr(ledger, name)[reason] += 1
        assert len(imbalances(ledger)) == 1
        getattr(ledger, name)[reason] -= 1


@pytest.mark.parametrize("name", ["framed", "replayed", "queued", "in_flight"])
def test_one_request_too_many_breaks_the_balance_of_its_destination(name: str) -> None:
    ledger = Ledger()
    ledger.destination("http://whole.example")
    setattr(ledger.destination("http://test.example"), name, 1)
    (fault,) = imbalances(ledger)
    assert "http://test.example" in fault


@pytest.mark.parametrize("name", ["passed_over", "failed", "dropped"])
def test_one_refusal_too_many_breaks_the_balance_of_its_destination(name: str) -> None:
    ledger = Ledger()
    reasons = getattr(ledger.destination("http://test.example"), name)
    for reason in reasons:
        reasons[reason] = 1
        assert len(imbalances(ledger)) == 1
        reasons[reason] = 0


def test_a_selected_request_stands_in_both_equations() -> None:
    ledger = Ledger()
    part = ledger.destination("http://test.example")
    part.selected = 1
    assert len(imbalances(ledger)) == 2
    part.framed = part.queued = 1
    assert imbalances(ledger) == []


def test_bytes_that_never_arrived_are_no_part_of_the_balance() -> None:
    assert imbalances(Ledger(lost_bytes=1_400, holes=1)) == []


def test_an_imbalance_says_both_sides() -> None:
    (fault,) = imbalances(Ledger(datagrams=12, segments=11))
    assert "12" in fault and "11" in fault and "datagrams" in fault


def test_a_destination_is_made_once() -> None:
    ledger = Ledger()
    assert ledger.destination("http://test.example") is ledger.destination("http://test.example")


@examples(25)
@given(ledgers())
def test_a_ledger_survives_json(ledger: Ledger) -> None:
    assert from_dict(json.loads(json.dumps(as_dict(ledger)))) == ledger


@examples(25)
@given(ledgers(), ledgers())
def test_the_sum_of_ledgers_sums_every_number(one: Ledger, two: Ledger) -> None:
    total = Ledger()
    add(total, one)
    add(total, two)
    assert arrived(total) == arrived(one) + arrived(two)
    for entry in fields(Ledger):
        mine, theirs = getattr(one, entry.name), getattr(two, entry.name)
        if isinstance(mine, int):
            assert getattr(total, entry.name) == mine + theirs
        elif entry.name != "destinations":
            assert getattr(total, entry.name) == {key: mine[key] + theirs[key] for key in mine}
    assert set(total.destinations) == set(one.destinations) | set(two.destinations)
    for name, part in total.destinations.items():
        parts = [ledger.destinations[name] for ledger in (one, two) if name in ledger.destinations]
        assert part.replayed == sum(each.replayed for each in parts)
        assert part.latency == [sum(each.latency[at] for each in parts) for at in range(len(part.latency))]
        assert part.status["5xx"] == sum(each.status["5xx"] for each in parts)


@examples(25)
@given(ledgers())
def test_adding_leaves_the_part_alone(part: Ledger) -> None:
    before = from_dict(json.loads(json.dumps(as_dict(part))))
    total = Ledger()
    add(total, part)
    add(total, part)
    assert part == before


def test_parts_that_balance_sum_to_a_whole_that_balances() -> None:
    part = Ledger(datagrams=2, segments=1, payload_bytes=5, framed_bytes=5, framed=1)
    part.refused[Refused.SHORT] = 1
    part.destination("http://test.example").framed = 1
    part.destination("http://test.example").passed_over[Unselected.METHOD] = 1
    total = Ledger()
    add(total, part)
    add(total, part)
    assert imbalances(part) == imbalances(total) == []
