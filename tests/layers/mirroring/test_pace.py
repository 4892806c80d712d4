"""When a write may be made: the budget, the time that is left, and the stack's switch."""

from datetime import timedelta

import pytest

from mirroring.model import Refused
from mirroring.pace import BURST, MARGIN, STATE_LOOK, Leave, Pace
from tests.layers.mirroring.fake_cloud import FakeTime

RATE = 2.0


class Stage:
    """A pace of two writes a second, and whether the stack is paused."""

    def __init__(self, seconds: float = 1000.0) -> None:
        self.time = FakeTime()
        self.pace = Pace(self.time, self.time.sleep)
        self.pace.at(RATE)
        self.looks = 0
        self.slow_looks = 0  # how many of the next ones take ten seconds
        self.paused = False
        end = self.time.seconds() + seconds
        self.leave = Leave(self.pace, lambda: end - self.time.seconds(), self._look, self.time())

    def _look(self) -> bool:
        self.looks += 1
        if self.slow_looks:
            self.slow_looks -= 1
            self.time.pass_by(10)
        return self.paused

    def empty(self) -> None:
        for _ in range(int(BURST * RATE)):
            self.pace.spend()


# Pace


def test_a_burst_goes_out_at_once_and_the_rest_at_its_rate() -> None:
    stage = Stage()
    for _ in range(30):
        assert stage.leave.may_write()
    assert stage.time.slept == pytest.approx((30 - BURST * RATE) / RATE)


def test_the_budget_is_kept_from_run_to_run_and_anew_for_a_new_rate() -> None:
    stage = Stage()
    stage.empty()
    stage.pace.at(RATE)
    assert stage.pace.wait(lambda: 100.0)
    slept = stage.time.slept
    assert slept > 0
    stage.pace.at(2 * RATE)
    assert stage.pace.wait(lambda: 100.0)
    assert stage.time.slept == slept


def test_a_wait_lasts_until_the_later_of_budget_and_due_time() -> None:
    stage = Stage()
    assert stage.pace.wait(lambda: 100.0, stage.time.seconds() + 3)
    assert stage.time.slept == pytest.approx(3)
    assert stage.pace.wait(lambda: 100.0, stage.time.seconds() - 3)
    assert stage.time.slept == pytest.approx(3)


def test_a_wait_that_would_reach_into_the_margin_is_not_begun() -> None:
    stage = Stage()
    due = stage.time.seconds() + 3
    assert not stage.pace.wait(lambda: MARGIN + 2.9, due)
    assert stage.time.slept == 0
    assert stage.pace.wait(lambda: MARGIN + 3.1, due)


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "ThrottlingException", "Client.RequestThrottled"])
def test_a_throttled_write_slows_all_that_follow(code: str) -> None:
    stage = Stage()
    stage.pace.heed(Refused("DeleteTags", code, ""))
    assert stage.leave.may_write()
    assert stage.time.slept == pytest.approx(2 / RATE)


def test_any_other_refusal_slows_nothing() -> None:
    stage = Stage()
    stage.pace.heed(Refused("DeleteTags", "InternalError", ""))
    assert stage.leave.may_write()
    assert stage.time.slept == 0


def test_the_margin_covers_a_write_without_an_answer() -> None:
    """3 s to connect, 10 s to read (`clients`), and the report."""
    assert MARGIN >= 2 * (3 + 10)


# Leave


def test_the_switch_is_looked_at_before_a_write_if_the_last_look_is_a_second_old() -> None:
    stage = Stage()
    assert stage.leave.may_write()
    stage.time.now += STATE_LOOK - timedelta(milliseconds=1)
    assert stage.leave.may_write()
    assert stage.looks == 0
    stage.time.now += timedelta(milliseconds=1)
    assert stage.leave.may_write() and stage.leave.may_write()
    assert stage.looks == 1


def test_once_paused_nothing_is_written_or_asked_any_more() -> None:
    stage = Stage()
    stage.paused = True
    stage.time.now += STATE_LOOK
    assert not stage.leave.may_write()
    stage.paused = False
    stage.time.now += STATE_LOOK
    assert not stage.leave.may_write()
    assert (stage.leave.paused, stage.leave.ended, stage.looks) == (True, True, 1)


def test_a_switch_that_cannot_be_read_stops_the_run() -> None:
    stage = Stage()

    def look() -> bool:
        raise Refused("GetParameter", "AccessDeniedException", "no")

    leave = Leave(stage.pace, lambda: 100.0, look, stage.time())
    stage.time.now += STATE_LOOK
    assert not leave.may_write()
    assert "state could not be read: GetParameter: AccessDeniedException" in leave.stopped
    assert leave.ended and not leave.paused


def test_without_time_there_is_no_write_and_no_look() -> None:
    stage = Stage(seconds=MARGIN - 1)
    stage.time.now += STATE_LOOK
    assert not stage.leave.may_write()
    assert (stage.leave.out_of_time, stage.leave.ended, stage.looks) == (True, True, 0)


def test_a_write_that_was_not_allowed_costs_nothing() -> None:
    stage = Stage()
    stage.paused = True
    stage.time.now += STATE_LOOK
    assert not stage.leave.may_write()
    for _ in range(int(BURST * RATE)):
        assert stage.pace.wait(lambda: 100.0)
        stage.pace.spend()
    assert stage.time.slept == 0


@pytest.mark.parametrize(("slow", "written", "looks"), [(0, True, 1), (2, True, 3), (3, False, 3)])
def test_an_answer_that_took_longer_than_it_counts_is_asked_for_again(slow: int, written: bool, looks: int) -> None:
    """Meanwhile somebody may have paused the stack, and counts on it."""
    stage = Stage()
    stage.time.pass_by(2)
    stage.slow_looks = slow
    assert stage.leave.may_write() is written
    assert stage.looks == looks
    assert ("too slowly" in stage.leave.stopped) is not written
