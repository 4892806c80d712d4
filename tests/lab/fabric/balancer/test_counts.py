"""Nothing that was counted is lost, over the pipe or with time."""

import json

from hypothesis import given
from hypothesis import strategies as st

from lab.fabric.balancer.counts import EARLIER, Count, Counts, count_target, from_json, shorten, to_json, total

numbers = st.integers(0, 1 << 40)
reasons = st.dictionaries(st.sampled_from(["no registered target", "not sent"]), numbers)
counted = st.builds(Count, numbers, numbers, numbers, numbers, numbers, reasons)
sessions = st.dictionaries(st.sampled_from([f"tms-{number}" for number in range(8)] + [EARLIER]), counted)


@given(st.builds(Counts, sessions, st.dictionaries(st.text(max_size=3), numbers), numbers, numbers, numbers))
def test_counts_cross_the_pipe_unchanged(counts: Counts) -> None:
    assert from_json(json.loads(json.dumps(to_json(counts)))) == counts


@given(sessions, st.frozensets(st.sampled_from([f"tms-{number}" for number in range(8)])), st.integers(2, 8))
def test_old_sessions_are_added_up_and_open_ones_kept(
    counted: dict[str, Count], still: frozenset[str], most: int
) -> None:
    before, names = total(Counts(counted)), counted.keys() & still
    shorten(counted, still, most)

    assert total(Counts(counted)) == before
    assert names <= counted.keys()
    assert len(counted.keys() - {EARLIER}) <= max(most, len(names))


def test_the_oldest_go_first() -> None:
    counted = {f"tms-{number}": Count(received=number) for number in (1, 2, 3, 4)}
    shorten(counted, frozenset({"tms-1"}), 3)

    assert counted.keys() == {"tms-1", "tms-3", "tms-4", EARLIER}
    assert counted[EARLIER] == Count(received=2)


@given(st.lists(st.sampled_from("abcdef")), st.integers(2, 6))
def test_what_targets_got_stays_the_sum(names: list[str], most: int) -> None:
    targets: dict[str, int] = {}
    for place, name in enumerate(names):
        count_target(targets, name, most)
        assert sum(targets.values()) == place + 1
        assert len(targets.keys() - {EARLIER}) <= most
