"""What is shown of the conservation law, and what is called trouble."""

from dataclasses import replace

import pytest

from lab import view
from lab.view import Balancer, Snapshot
from replayer.ledger import Ledger


@pytest.fixture
def ledger() -> Ledger:
    """Two destinations, and something of every kind."""
    made = Ledger(socket_drops=1, datagrams=90, segments=80, payload_bytes=70, framed_bytes=60, duplicate_bytes=4)
    made.refused["other_port"] = 10
    made.passed_over_bytes["tls"] = 3
    made.given_up_bytes["hole"] = 2
    made.held_bytes = 1
    for url in ("http://one", "http://two"):
        part = made.destination(url)
        part.framed, part.selected, part.replayed, part.queued, part.in_flight = 12, 10, 4, 1, 2
        part.passed_over["method"] = 2
        part.failed["timeout"] = 2
        part.dropped["waited"] = 1
    return made


def _snapshot(ledger: Ledger) -> Snapshot:
    """In it each equation holds, and each term is something."""
    targets = {"i-1": 60, "i-2": 31, "i-dead": 5, "10.1.0.9": 2}
    balancer = Balancer(received=106, forwarded=98, socket_drops=3, refused={"no target": 8}, targets=targets)
    return Snapshot(0, mirrored=110, underway_drops=1, balancer=balancer, ledger=ledger, reached={"i-1": 60, "i-2": 31})


def test_the_law_is_told_with_its_numbers(ledger: Ledger) -> None:
    told = dict(view.law(_snapshot(ledger)))

    assert told == {
        "packets": "110 mirrored = 106 received by the balancer + 4 dropped + 0 under way",
        "balancer": "106 = 8 refused + 91 to workers + 7 to others or dead ones",
        "workers": "91 arrived = 1 dropped by sockets + 80 segments + 10 refused",
        "payload": "70 = 60 framed + 4 duplicate + 3 passed over + 2 given up + 1 held",
        "requests": "24 framed = 20 selected + 4 passed over",
        "selected": "20 = 8 replayed + 4 failed + 2 dropped + 2 queued + 4 in flight",
    }


def test_packets_under_way_are_told_and_must_have_come_in_the_end(ledger: Ledger) -> None:
    snapshot = replace(_snapshot(ledger), mirrored=117)

    assert dict(view.law(snapshot))["packets"].endswith("+ 7 under way")
    assert view.imbalances(snapshot) != []


def test_what_balances_has_no_imbalance(ledger: Ledger) -> None:
    assert view.imbalances(_snapshot(ledger)) == []


def _lacking(snapshot: Snapshot, **changed: object) -> list[str]:
    return view.imbalances(replace(snapshot, **changed))  # type: ignore[arg-type]


def test_the_equation_that_fails_is_named(ledger: Ledger) -> None:
    whole = _snapshot(ledger)
    refused_less = replace(whole.balancer, refused={"no target": 7})

    assert _lacking(whole, mirrored=111) == ["mirrored = received by the balancer + dropped: 111 ≠ 110"]
    assert _lacking(whole, balancer=refused_less) == ["received by the balancer = forwarded + refused: 106 ≠ 105"]
    assert _lacking(whole, reached={"i-1": 60, "i-2": 30}) == ["forwarded to i-2 = arrived there: 31 ≠ 30"]
    assert _lacking(whole, reached={"i-3": 1}) == ["forwarded to i-3 = arrived there: 0 ≠ 1"]
    assert _lacking(whole, ledger=Ledger(datagrams=1)) == ["datagrams = segments + refused: 1 ≠ 0"]


def test_many_bytes_are_told_in_millions() -> None:
    told = dict(view.law(Snapshot(0, ledger=Ledger(payload_bytes=123_456_789, framed_bytes=999_999))))

    assert told["payload"] == "123.5 M = 999,999 framed + 0 duplicate + 0 passed over + 0 given up + 0 held"


def test_there_is_no_trouble_at_first() -> None:
    assert view.troubles(Snapshot(0)) == []


def test_each_loss_is_a_trouble_of_its_own(ledger: Ledger) -> None:
    ledger.given_up["hole"] = 1
    ledger.crashes = 1
    balancer = Balancer(socket_drops=1000, truncated=2, refused={"no target": 3})
    misread = {"lines not read": 2, "requests cut short": 0}
    lost = {"unsent": 5, "underway_drops": 6, "misread": misread, "troubled": {"i-9": "does not boot"}}

    assert view.troubles(Snapshot(0, balancer=balancer, ledger=ledger, **lost)) == [  # type: ignore[arg-type]
        "not sent by the kernel: 5",
        "dropped on the way to the balancer: 6",
        "dropped by the balancer's socket: 1,000",
        "truncated by the balancer: 2",
        "refused by the balancer: no target: 3",
        "dropped by the workers' sockets: 1",
        "crashes of a shard: 1",
        "requests given up: hole: 1",
        "servers' logs: lines not read: 2",
        "replays failed: timeout: 4",
        "requests dropped: waited: 2",
        "i-9: does not boot",
    ]


def test_a_ledger_that_does_not_balance_is_trouble() -> None:
    found = view.troubles(Snapshot(0, ledger=Ledger(datagrams=1)))

    assert found == ["does not balance: datagrams = segments + refused: 1 ≠ 0"]
