"""The collector is as it was, whatever happens between."""

import gc

import pytest

from mirroring.collector import put_aside


def test_it_rests_for_a_while() -> None:
    assert gc.isenabled()
    with put_aside():
        assert not gc.isenabled()
        with put_aside():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_works_again_after_an_error() -> None:
    with pytest.raises(KeyError), put_aside():
        raise KeyError
    assert gc.isenabled()
