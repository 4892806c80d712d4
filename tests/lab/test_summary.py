"""What people see at the end of the demo."""

import io
from collections import Counter
from dataclasses import replace

import pytest
from rich.cells import cell_len
from rich.console import Console

from lab import summary
from lab.summary import Outcome
from lab.tally import NOBODY, Lot, Tally
from lab.view import Balancer, Snapshot
from replayer.ledger import Ledger

_ONE, _OTHER = "i-0123456789abcdef0", "i-0123456789abcdef1"


def _tally(due: int = 1000, **changed: object) -> Tally:
    lots = Counter({Lot.DUE: due, Lot.OUTSIDE: 30, Lot.STRADDLING: 2, Lot.UNANSWERED: 1})
    return Tally(**{"lots": lots, "arrived": due, "bodies": 7} | changed)  # type: ignore[arg-type]


@pytest.fixture
def good() -> Outcome:
    tallies = {_ONE: _tally(), _OTHER: _tally(234)}
    return Outcome(tallies, Snapshot(0), (_ONE, _OTHER), seconds=41.3)


def _shown(outcome: Outcome, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(summary.drawn(outcome))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_arrived_is_a_pass(good: Outcome) -> None:
    shown = _shown(good)

    assert summary.complaints(good) == []
    assert "PASS  all 1,234 requests arrived exactly once, 14 bodies compared, the accounting balances" in shown
    assert "(41 s)" in shown


def test_each_instance_has_a_line(good: Outcome) -> None:
    lines = [line.replace("│", " ").split() for line in _shown(good).splitlines()]

    assert [_ONE, "1,033", "30", "3", "1,000", "1,000", "0", "0", "0"] in lines
    assert [_OTHER, "267", "30", "3", "234", "234", "0", "0", "0"] in lines
    assert ["all", "1,300", "60", "6", "1,234", "1,234", "0", "0", "0"] in lines


def test_it_fits_a_terminal_of_100_columns(good: Outcome) -> None:
    many = replace(good, tallies={_ONE: _tally(10**6, missing=["GET /a"] * 99_999)})

    assert all(cell_len(line) <= 100 for line in _shown(many).splitlines())


@pytest.mark.parametrize(
    ("tally", "words"),
    [
        (_tally(missing=["GET /a", "GET /b", "GET /c", "GET /d"]),
         "4 requests did not arrive, such as GET /a, GET /b, GET /c"),
        (_tally(surplus=["GET /a"]), "1 requests arrived that should not have, or twice, such as GET /a"),
        (_tally(spoilt=["POST /a"]), "1 requests arrived with another body, such as POST /a"),
        (_tally(0), f"nothing had to arrive of {_ONE}"),
    ],
)  # fmt: skip
def test_a_fail_says_why(good: Outcome, tally: Tally, words: str) -> None:
    outcome = replace(good, tallies={**good.tallies, _ONE: tally})

    assert summary.complaints(outcome) == [words]
    shown = " ".join(_shown(outcome, 200).split())
    assert f"FAIL {words}" in shown


def test_what_came_from_nowhere_is_a_fail_too(good: Outcome) -> None:
    outcome = replace(good, tallies={**good.tallies, NOBODY: Tally(surplus=["GET /who"])})

    assert "FAIL" in _shown(outcome)
    assert "nobody's" in _shown(outcome)


def test_an_instance_of_which_nothing_was_seen_is_a_fail(good: Outcome) -> None:
    assert summary.complaints(replace(good, mirrored=(_ONE, "i-2"))) == ["nothing had to arrive of i-2"]


def test_an_instance_that_was_not_to_be_mirrored_needs_no_requests(good: Outcome) -> None:
    assert summary.complaints(replace(good, tallies={**good.tallies, "i-2": _tally(0)})) == []


@pytest.mark.parametrize(
    ("snapshot", "words"),
    [
        (Snapshot(0, ledger=Ledger(datagrams=1)), "datagrams = segments + refused: 1 ≠ 0"),
        (Snapshot(0, mirrored=1), "mirrored = received by the balancer + dropped: 1 ≠ 0"),
        (Snapshot(0, reached={_ONE: 1}), f"forwarded to {_ONE} = arrived there: 0 ≠ 1"),
    ],
)
def test_what_does_not_balance_is_a_fail(good: Outcome, snapshot: Snapshot, words: str) -> None:
    outcome = replace(good, snapshot=snapshot)

    assert summary.complaints(outcome) == [f"the accounting does not balance: {words}"]
    assert "NOT BALANCED" in _shown(outcome)


@pytest.mark.parametrize("what", ["requests forgotten", "lines not read"])
def test_logs_that_were_not_read_whole_are_a_fail(good: Outcome, what: str) -> None:
    snapshot = Snapshot(0, misread={what: 2, "something else": 0})

    assert summary.complaints(replace(good, snapshot=snapshot)) == [f"the servers' logs: 2 {what}"]


def test_an_instance_in_trouble_is_a_fail(good: Outcome) -> None:
    outcome = replace(good, snapshot=Snapshot(0, troubled={"i-9": "does not boot"}))

    assert summary.complaints(outcome) == ["something went wrong with i-9"]
    assert "i-9: does not boot" in _shown(outcome)


def test_a_fail_names_the_counters_and_the_remedy(good: Outcome) -> None:
    snapshot = Snapshot(0, mirrored=3, balancer=Balancer(socket_drops=3), ledger=Ledger(socket_drops=4))
    outcome = replace(good, snapshot=snapshot, tallies={_ONE: _tally(missing=["GET /a"])}, remedy="sudo sysctl")
    shown = _shown(outcome, 200)

    assert "sysctl" not in _shown(replace(outcome, snapshot=Snapshot(0)), 200)
    for words in ("dropped by the balancer's socket: 3", "dropped by the workers' sockets: 4", "sudo sysctl"):
        assert words in shown
