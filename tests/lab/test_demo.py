"""What people see at the end of the demo."""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lab import demo
from lab.demo import Arrivals, Outcome
from lab.network.nginx import Entry
from replayer.ledger import Ledger, as_dict, imbalances


def _outcome(arrivals: Arrivals, ledger: Ledger, effective: int = 64 << 20) -> Outcome:
    ledger.destination("http://test")
    status = {
        "totals": as_dict(ledger),
        "balanced": not imbalances(ledger),
        "imbalances": imbalances(ledger),
        "arrived": 0,
        "receive_buffer": {"wished": 64 << 20, "effective": effective},
    }
    return Outcome(Counter(curl=1), arrivals, 0, status, 0)


def _shown(outcome: Outcome) -> str:
    console = Console(file=io.StringIO(), width=140)
    demo.show(outcome, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_all_arrived_is_a_pass() -> None:
    outcome = _outcome(Arrivals(answered=1234, received=1234), Ledger())

    assert outcome.passed
    assert "PASS" in _shown(outcome)
    assert "1,234" in _shown(outcome)


def test_a_fail_names_the_counter_and_the_remedy() -> None:
    ledger = Ledger(socket_drops=3)
    ledger.given_up["hole"] = 2
    outcome = _outcome(Arrivals(answered=2, received=1, missing=["GET /a"]), ledger, effective=1 << 18)

    assert not outcome.passed
    shown = _shown(outcome)
    for words in (
        "FAIL",
        "1 missing, such as GET /a",
        "socket_drops: 3",
        "given_up.hole: 2",
        "net.core.rmem_max=67108864",
    ):
        assert words in shown


def test_a_ledger_that_does_not_balance_is_a_fail() -> None:
    outcome = _outcome(Arrivals(answered=1, received=1), Ledger(datagrams=1))

    assert not outcome.passed
    assert "datagrams = segments + refused: 1 ≠ 0" in _shown(outcome)


def test_a_bad_end_is_a_fail() -> None:
    outcome = replace(_outcome(Arrivals(answered=1, received=1), Ledger()), exit_code=1)

    assert not outcome.passed
    assert "exit code 1" in _shown(outcome)


def _entry(target: str, *, status: str = "200", sha256: str = "", body: str = "") -> Entry:
    return Entry("GET", target, status, "", sha256, body)


@pytest.fixture
def good(tmp_path: Path) -> Entry:
    """A request whose body was kept as it was sent."""
    (tmp_path / "body").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    return _entry("/a", sha256=digest, body=str(tmp_path / "body"))


def test_the_comparison_sees_each_difference(good: Entry, tmp_path: Path) -> None:
    bad = replace(good, target="/b", sha256="0" * 64)

    assert demo.compare([good], [good], tmp_path) == Arrivals(answered=1, received=1, bodies=1)
    assert demo.compare([good], [good], tmp_path).exact
    assert not demo.compare([], [], tmp_path).exact
    assert demo.compare([good, good], [good], tmp_path).missing == ["GET /a"]
    assert demo.compare([good], [good, good], tmp_path).surplus == ["GET /a"]
    assert demo.compare([_entry("/c", status="499")], [_entry("/c")], tmp_path).surplus == ["GET /c"]
    assert demo.compare([bad], [bad], tmp_path).spoilt == ["GET /b"]
    assert demo.compare([bad], [replace(bad, body="")], tmp_path).spoilt == ["GET /b"]
