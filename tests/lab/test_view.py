"""What is shown of the conservation law, and what is called trouble."""

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


def test_the_law_is_told_with_its_numbers(ledger: Ledger) -> None:
    balancer = Balancer(received=99, forwarded=91, refused={"no target": 8})
    told = dict(view.law(Snapshot(0, mirrored=100, balancer=balancer, ledger=ledger)))

    assert told == {
        "packets": "100 mirrored by the kernel, 99 received by the balancer",
        "balancer": "99 = 91 forwarded + 8 refused",
        "workers": "91 arrived = 1 dropped by sockets + 80 segments + 10 refused",
        "payload": "70 = 60 framed + 4 duplicate + 3 passed over + 2 given up + 1 held",
        "requests": "24 framed = 20 selected + 4 passed over",
        "selected": "20 = 8 replayed + 4 failed + 2 dropped + 2 queued + 4 in flight",
    }


def test_many_bytes_are_told_in_millions() -> None:
    told = dict(view.law(Snapshot(0, ledger=Ledger(payload_bytes=123_456_789, framed_bytes=999_999))))

    assert told["payload"] == "123.5 M = 999,999 framed + 0 duplicate + 0 passed over + 0 given up + 0 held"


def test_there_is_no_trouble_at_first() -> None:
    assert view.troubles(Snapshot(0)) == []


def test_each_loss_is_a_trouble_of_its_own(ledger: Ledger) -> None:
    ledger.given_up["hole"] = 1
    ledger.crashes = 1
    balancer = Balancer(socket_drops=1000, truncated=2, refused={"no target": 3})

    assert view.troubles(Snapshot(0, balancer=balancer, ledger=ledger)) == [
        "dropped by the balancer's socket: 1,000",
        "truncated by the balancer: 2",
        "refused by the balancer: no target: 3",
        "dropped by the workers' sockets: 1",
        "crashes of a shard: 1",
        "requests given up: hole: 1",
        "replays failed: timeout: 4",
        "requests dropped: waited: 2",
    ]


def test_a_ledger_that_does_not_balance_is_trouble() -> None:
    found = view.troubles(Snapshot(0, ledger=Ledger(datagrams=1)))

    assert found == ["does not balance: datagrams = segments + refused: 1 ≠ 0"]
