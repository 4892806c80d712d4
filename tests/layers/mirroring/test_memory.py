from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from mirroring.memory import ANSWERS, REFUSALS, UNSUPPORTED, Answers, Refusals, Tally, Topic


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Source:
    """Knows of `a` and `b`, and counts how often it was asked for what."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def __call__(self, ids: Collection[str]) -> dict[str, int]:
        self.asked.append(tuple(sorted(ids)))
        return {name: len(self.asked) for name in ids if name in ("a", "b")}


def test_an_answer_is_asked_for_once_a_minute() -> None:
    clock, source = Clock(), Source()
    answers = Answers(clock)
    assert answers.get(Topic.TARGETS, ["a"], source) == {"a": 1}
    clock.now += ANSWERS - timedelta(seconds=1)
    assert answers.get(Topic.TARGETS, ["a"], source) == {"a": 1}
    clock.now += timedelta(seconds=1)
    assert answers.get(Topic.TARGETS, ["a"], source) == {"a": 2}
    assert source.asked == [("a",), ("a",)]


def test_only_what_is_missing_is_asked_for() -> None:
    source = Source()
    answers = Answers(Clock())
    answers.get(Topic.TARGETS, ["a"], source)
    assert answers.get(Topic.TARGETS, ["a", "b"], source) == {"a": 1, "b": 2}
    assert source.asked == [("a",), ("b",)]


def test_that_something_does_not_exist_is_an_answer() -> None:
    source = Source()
    answers = Answers(Clock())
    assert answers.get(Topic.FILTERS, ["gone"], source) == {}
    assert answers.get(Topic.FILTERS, ["gone"], source) == {}
    assert source.asked == [("gone",)]


def test_all_answers_to_a_topic_are_as_old_as_the_oldest() -> None:
    clock, source = Clock(), Source()
    answers = Answers(clock)
    answers.get(Topic.TARGETS, ["a"], source)
    clock.now += ANSWERS / 2
    answers.get(Topic.TARGETS, ["b"], source)
    clock.now += ANSWERS / 2
    answers.get(Topic.TARGETS, ["b"], source)
    assert source.asked == [("a",), ("b",), ("b",)]


def test_old_is_what_an_earlier_run_asked() -> None:
    source = Source()
    answers = Answers(Clock())
    answers.begin()
    assert answers.old() == frozenset()
    answers.get(Topic.TARGETS, ["a"], source)
    assert answers.old() == frozenset()
    answers.begin()
    answers.get(Topic.TARGETS, ["b"], source)  # beside an old one
    answers.get(Topic.FILTERS, ["a"], source)
    assert answers.old() == {Topic.TARGETS}


def test_what_is_forgotten_is_asked_for_anew_and_is_not_old() -> None:
    source = Source()
    answers = Answers(Clock())
    answers.begin()
    answers.get(Topic.TARGETS, ["a"], source)
    answers.begin()
    answers.forget([Topic.TARGETS])
    assert answers.get(Topic.TARGETS, ["a"], source) == {"a": 2}
    assert answers.old() == frozenset()


def test_topics_are_apart() -> None:
    source = Source()
    answers = Answers(Clock())
    answers.get(Topic.TARGETS, ["a"], source)
    assert answers.get(Topic.FILTERS, ["a"], source) == {"a": 2}


def test_a_refusal_is_held_for_its_time() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    refusals.add("t2.micro", "not supported")
    refusals.add("eni-1", "unexplained", timedelta(minutes=5))
    assert refusals.all() == {"t2.micro": "not supported", "eni-1": "unexplained"}
    clock.now += timedelta(minutes=5)
    assert refusals.all() == {"t2.micro": "not supported"}
    assert refusals.why("eni-1") == ""
    clock.now += UNSUPPORTED
    assert refusals.all() == {}


def test_a_refusal_can_be_taken_back() -> None:
    refusals = Refusals(Clock())
    refusals.add("a", "no")
    refusals.add("b", "no")
    refusals.discard("a")
    refusals.discard("unheard of")
    assert refusals.all() == {"b": "no"}
    refusals.clear()
    assert refusals.all() == {}


def test_so_many_refusals_are_held_and_the_oldest_goes() -> None:
    refusals = Refusals(Clock())
    for number in range(REFUSALS + 1):
        refusals.add(f"eni-{number}", "no")
    refusals.add("eni-1", "again")  # is the newest now
    refusals.add("eni-x", "no")
    held = refusals.all()
    assert len(held) == REFUSALS
    assert held["eni-1"] == "again"
    assert not {"eni-0", "eni-2"} & held.keys()


# An instance type in doubt


def test_the_second_interface_of_a_type_within_an_hour_tells() -> None:
    clock = Clock()
    refusals = Refusals(clock)
    assert not refusals.is_second("m5.large", "eni-1")
    assert not refusals.is_second("m5.large", "eni-1")  # the same one again
    assert not refusals.is_second("c5.large", "eni-2")
    clock.now += UNSUPPORTED - timedelta(seconds=1)
    assert refusals.is_second("m5.large", "eni-3")
    clock.now += timedelta(seconds=1)
    assert not refusals.is_second("m5.large", "eni-4")


def test_a_type_that_aws_mirrors_or_a_new_policy_ends_the_doubt() -> None:
    refusals = Refusals(Clock())
    refusals.is_second("m5.large", "eni-1")
    refusals.acquit("m5.large")
    assert not refusals.is_second("m5.large", "eni-2")
    refusals.clear()
    assert not refusals.is_second("m5.large", "eni-3")
    refusals.acquit("never-heard-of")


# How many are ours


def test_a_tally_is_old_until_counted_and_a_minute_later() -> None:
    clock = Clock()
    tally = Tally(clock)
    assert (tally.number, tally.is_old) == (0, True)
    tally.count(7)
    tally.add(2)
    tally.add(-1)
    assert (tally.number, tally.is_old) == (8, False)
    clock.now += ANSWERS - timedelta(seconds=1)
    assert not tally.is_old
    clock.now += timedelta(seconds=1)
    assert (tally.number, tally.is_old) == (8, True)
