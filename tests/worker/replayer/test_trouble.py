"""Trouble as news: begun, ended, never a flood."""

from replayer.trouble import KINDS_MOST, QUIET, Watch

A, B = "http://a", "http://b"
REFUSED, CERTIFICATE = "10.0.0.1 port 80: refused", "10.0.0.1 port 80: certificate"


def test_a_beginning_is_told_once_and_so_is_the_end() -> None:
    watch = Watch()
    assert watch.look([A, B], {}, 0.0) == []
    assert watch.look([A, B], {A: REFUSED}, 1.0) == [(A, REFUSED)]
    assert [watch.look([A, B], {A: REFUSED}, 1.0 + second) for second in range(100)] == [[]] * 100
    assert [watch.look([A, B], {}, 100.0 + second) for second in range(int(QUIET))] == [[]] * int(QUIET)
    assert watch.look([A, B], {}, 100.0 + QUIET) == [(A, "")]
    assert watch.look([A, B], {}, 101.0 + QUIET) == []
    assert watch.last == {A: REFUSED}


def test_another_kind_of_trouble_is_told_after_a_while() -> None:
    watch = Watch()
    watch.look([A], {A: REFUSED}, 0.0)
    assert watch.look([A], {A: CERTIFICATE}, 1.0) == []
    assert watch.look([A], {A: CERTIFICATE}, QUIET) == [(A, CERTIFICATE)]
    assert watch.look([A], {A: REFUSED}, 2 * QUIET) == []
    assert watch.last == {A: REFUSED}


def test_coming_and_going_is_one_trouble() -> None:
    watch = Watch()
    news = [watch.look([A], {A: REFUSED} if second % 3 else {}, float(second)) for second in range(1000)]
    assert [line for lines in news for line in lines] == [(A, REFUSED)]


def test_kinds_are_bounded() -> None:
    watch = Watch()
    news = [watch.look([A], {A: f"kind {number}"}, number * QUIET) for number in range(100)]
    assert sum(map(len, news)) == KINDS_MOST


def test_a_new_trouble_right_after_the_end_of_one_waits_its_turn() -> None:
    watch = Watch()
    watch.look([A], {A: REFUSED}, 0.0)
    assert watch.look([A], {}, QUIET) == [(A, "")]
    assert watch.look([A], {A: REFUSED}, QUIET + 1) == []
    assert watch.look([A], {A: REFUSED}, 2 * QUIET) == [(A, REFUSED)]


def test_destinations_do_not_hide_each_other() -> None:
    assert Watch().look([A, B], {A: REFUSED, B: CERTIFICATE}, 0.0) == [(A, REFUSED), (B, CERTIFICATE)]


def test_a_destination_that_left_the_settings_is_no_news() -> None:
    watch = Watch()
    watch.look([A], {A: REFUSED}, 0.0)
    assert watch.look([B], {}, 100.0) == []
    assert watch.look([A, B], {A: REFUSED}, 101.0) == [(A, REFUSED)]
