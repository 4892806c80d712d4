"""The product's promise, on packets that the kernel mirrored, at 2,000 requests a second.

E2E_SECONDS sets how long each run sends: 6 by default, 60 for acceptance.
"""

import os

import pytest

from lab import rehearsal
from lab.impairment import Impairment
from lab.rehearsal import Plan, Report

pytestmark = [pytest.mark.alone, pytest.mark.network]

_SECONDS = float(os.environ.get("E2E_SECONDS", "6"))
_RATE = 2000


def _assert_sound(report: Report) -> None:
    """What holds in every run, with losses on the way or without."""
    totals = report.status["totals"]
    (part,) = totals["destinations"].values()
    assert report.verdict.faults() == {}, report.summary()
    assert report.status["imbalances"] == []
    assert report.exit_code == 0
    assert "balanced: nothing is unaccounted for" in report.output
    assert report.verdict.received == part["replayed"] == part["selected"] == part["framed"] == totals["framed"], (
        report.summary()
    )
    assert (totals["socket_drops"], totals["crashes"]) == (0, 0), report.summary()
    assert sum(totals["refused"].values()) == totals["refused"]["other_port"]
    assert report.verdict.sent > 0.9 * _RATE * _SECONDS, "the clients could not hold the rate"


def test_nothing_is_lost() -> None:
    report = rehearsal.run(Plan(rate=_RATE, seconds=_SECONDS))

    _assert_sound(report)
    totals = report.status["totals"]
    assert report.verdict.received == report.verdict.sent
    assert report.status["arrived"] == report.mirrored
    assert sum(totals["given_up"].values()) == sum(totals["given_up_bytes"].values()) == 0, report.summary()
    assert totals["framed_bytes"] + totals["duplicate_bytes"] == totals["payload_bytes"]
    assert totals["held_bytes"] == 0


@pytest.mark.parametrize("seed", [1])
def test_losses_touch_only_the_requests_that_they_touch(seed: int) -> None:
    impairment = Impairment(drop=1, reorder=5, duplicate=1, delay=0.05, seed=seed)
    report = rehearsal.run(Plan(rate=_RATE, seconds=_SECONDS, mix="lossy", seed=seed, impairment=impairment))

    assert report.relayed is not None
    assert report.relayed.kernel_drops == 0
    assert min(report.relayed.dropped, report.relayed.reordered, report.relayed.duplicated, report.relayed.decoys) > 0
    assert report.verdict.touched > 0
    _assert_sound(report)
    totals = report.status["totals"]
    assert report.status["arrived"] == report.relayed.sent
    assert report.verdict.sent == report.verdict.received + report.verdict.touched + report.verdict.behind
    assert sum(totals["given_up"].values()) > 0
    assert totals["resynchronised"] > 0


def test_answers_that_are_mirrored_too_are_refused_and_do_no_harm() -> None:
    report = rehearsal.run(Plan(rate=500, seconds=5, both=True))

    assert report.verdict.faults() == {}, report.summary()
    assert report.verdict.received == report.verdict.sent
    totals = report.status["totals"]
    assert totals["refused"]["other_port"] > report.verdict.sent
    assert totals["segments"] + totals["refused"]["other_port"] == totals["datagrams"] == report.mirrored
    assert report.status["balanced"]
    assert report.exit_code == 0
