"""Waiting has an end, says what for, and leaves the processor to the others."""

from itertools import count

import pytest

from tests.waiting import LOOK, until


def test_it_gives_what_the_look_gave() -> None:
    looks = iter(["", "", "seen", "later"])
    assert until("it is seen", lambda: next(looks)) == "seen"


def test_what_does_not_come_is_named_and_was_looked_for_now_and_then() -> None:
    looks = count()
    with pytest.raises(AssertionError, match=r"the moon rises: not within 0.2 s, the last look gave \[\]"):
        until("the moon rises", lambda: [] if next(looks) >= 0 else [1], seconds=0.2)
    assert 2 <= next(looks) <= 0.2 / LOOK + 2
