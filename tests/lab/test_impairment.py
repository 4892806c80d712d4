"""Fates fall as often as asked for, and the same way for the same seed."""

import pytest

from lab.impairment import Fates, Impairment

_MANY = 100_000


@pytest.mark.parametrize(
    ("impairment", "count"),
    [(Impairment(drop=5), "dropped"), (Impairment(reorder=5), "reordered"), (Impairment(duplicate=5), "duplicated")],
)
def test_the_share_is_the_one_asked_for(impairment: Impairment, count: str) -> None:
    fates = Fates(impairment)
    for _ in range(_MANY):
        fates.decide()

    assert abs(getattr(fates, count) - 0.05 * _MANY) < 3 * (_MANY * 0.05 * 0.95) ** 0.5
    assert fates.dropped + fates.reordered + fates.duplicated == getattr(fates, count)


def test_each_fate_is_what_it_is_called() -> None:
    assert Fates(Impairment()).decide() == (0.0,)
    assert Fates(Impairment(drop=100)).decide() == ()
    (late,) = Fates(Impairment(reorder=100, delay=0.5)).decide()
    assert 0 < late <= 0.5
    assert len(Fates(Impairment(duplicate=100)).decide()) == 2


def test_a_seed_decides() -> None:
    one, same, other = (Fates(Impairment(1, 5, 1, seed=seed)) for seed in (7, 7, 8))
    decisions = [[fates.decide() for _ in range(1000)] for fates in (one, same, other)]

    assert decisions[0] == decisions[1] != decisions[2]
