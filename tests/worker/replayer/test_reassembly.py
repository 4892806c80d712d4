"""Reassembly of one direction of one connection, by itself: segments in any order in, the stream in order out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer.http1 import Framer, Rules
from replayer.ledger import GivenUp, Ledger
from replayer.reassembly import Flow, unwrap
from tests.strategies import ACK, FIN, RST, SYN, WRAP, examples

START = WRAP + 5_000


class Receiver:
    """A flow, the chunks that came of it, and the bytes that went into it."""

    def __init__(self, joined: bool = False) -> None:
        self.ledger = Ledger()
        framer = Framer(Rules(self.ledger, 1_000, 1_000), b"key")
        self.flow = Flow(b"key", framer, START, -1 if joined else START)
        self.stream = b""
        self.holes: list[tuple[int, int]] = []  # where in the stream, how large
        self.next = START
        self.put = 0

    def take(self, chunks: list[tuple[int, bytes, int, int]]) -> None:
        """Chunks must follow each other exactly; what was lost is said."""
        for lost, data, _, offset in chunks:
            if lost:
                self.holes.append((self.next, lost))
            self.next += lost
            assert offset == self.next
            self.stream += data
            self.next += len(data)

    def receive(self, offset: int, data: bytes, flags: int = ACK, missing: int = 0, now: float = 0.0) -> None:
        """One segment at an offset from the start."""
        self.put += len(data)
        self.take(self.flow.receive(START + offset, 1, flags, data, missing, now, self.ledger))
        assert self.balanced()

    def balanced(self) -> bool:
        """What went in came out, is a duplicate, was early, or is held."""
        ledger = self.ledger
        early = sum(ledger.passed_over_bytes.values())
        return self.put == len(self.stream) + ledger.duplicate_bytes + early + ledger.held_bytes + sum(
            ledger.given_up_bytes.values()
        )


@given(st.integers(1 << 31, 1 << 60), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_unwrap_finds_the_offset(near: int, distance: int) -> None:
    """Any offset less than half the number space away is found from its low 32 bits."""
    offset = near + distance
    assert unwrap(offset % WRAP, near) == offset


@pytest.mark.parametrize(
    ("seq", "near", "offset"),
    [
        (5, WRAP, WRAP + 5),
        (WRAP - 5, WRAP, WRAP - 5),
        (5, 2 * WRAP - 5, 2 * WRAP + 5),
        (WRAP - 5, 2 * WRAP + 5, 2 * WRAP - 5),
        (7, WRAP + 7, WRAP + 7),
    ],
)
def test_unwrap(seq: int, near: int, offset: int) -> None:
    assert unwrap(seq, near) == offset


@examples(150)
@given(st.data(), st.binary(min_size=1, max_size=200))
def test_any_order_any_overlap_any_copies(data: st.DataObject, stream: bytes) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(stream)), max_size=10))
    edges = sorted({0, len(stream), *cuts})
    ranges = list(pairwise(edges))
    ranges += data.draw(st.lists(st.tuples(st.integers(0, len(stream)), st.integers(0, len(stream))), max_size=6))
    receiver = Receiver()
    for a, b in data.draw(st.permutations(ranges)):
        receiver.receive(a, stream[a:b])
    assert receiver.stream == stream
    assert receiver.holes == []
    assert receiver.ledger.held_bytes == 0
    assert receiver.flow.held is None


@examples(150)
@given(st.data(), st.binary(min_size=2, max_size=200), st.booleans())
def test_lost_segments_leave_holes_of_their_size(data: st.DataObject, stream: bytes, joined: bool) -> None:
    edges = sorted({0, len(stream), *data.draw(st.lists(st.integers(1, len(stream)), max_size=10))})
    kept = [edge for edge in pairwise(edges) if data.draw(st.booleans())]
    receiver = Receiver(joined)
    for a, b in data.draw(st.permutations(kept)):
        receiver.receive(a, stream[a:b])
    if joined and kept:
        receiver.next += kept[0][0]
        receiver.take(receiver.flow.begin(receiver.ledger))
    while receiver.flow.held is not None:
        receiver.take(receiver.flow.give_up_hole(receiver.ledger))
    assert receiver.stream == b"".join(stream[a:b] for a, b in kept)
    last = kept[-1][1] if kept else 0
    first = kept[0][0] if joined and kept else 0
    assert sum(lost for _, lost in receiver.holes) == last - first - len(receiver.stream)
    assert receiver.ledger.lost_bytes == last - first - len(receiver.stream)
    assert receiver.ledger.holes == len(receiver.holes)
    assert receiver.balanced()


def test_in_order() -> None:
    receiver = Receiver()
    receiver.receive(0, b"one")
    receiver.receive(3, b"two")
    assert receiver.stream == b"onetwo"
    assert receiver.flow.next == START + 6


def test_the_first_copy_counts() -> None:
    """What differs in a later copy is never mixed in: the receiver's stack has taken the first too."""
    receiver = Receiver()
    receiver.receive(0, b"first")
    receiver.receive(0, b"other")
    receiver.receive(2, b"XXXmore")
    assert receiver.stream == b"firstmore"


def test_a_segment_is_held_until_the_hole_before_it_fills() -> None:
    receiver = Receiver()
    receiver.receive(3, b"two", now=7.5)
    assert receiver.stream == b""
    assert receiver.flow.held is not None
    assert receiver.flow.since == 7.5
    assert receiver.flow.held_bytes == receiver.ledger.held_bytes == 3
    receiver.receive(0, b"one", now=8.0)
    assert receiver.stream == b"onetwo"
    assert receiver.flow.held is None


def test_a_truncated_segment_leaves_a_hole_even_if_nothing_follows() -> None:
    receiver = Receiver()
    receiver.receive(0, b"first", missing=4)
    assert receiver.stream == b"first"
    assert receiver.flow.held is not None
    receiver.take(receiver.flow.give_up_hole(receiver.ledger))
    assert receiver.holes == [(START + 5, 4)]
    assert receiver.next == START + 9


def test_a_truncated_segment_that_comes_again_whole() -> None:
    receiver = Receiver()
    receiver.receive(0, b"first", missing=4)
    receiver.receive(0, b"firstmore")
    receiver.receive(9, b"last")
    assert receiver.stream == b"firstmorelast"
    assert receiver.holes == []
    assert receiver.flow.held is None


@pytest.mark.parametrize("flag", [FIN, RST])
def test_an_end_before_its_data_waits_for_it(flag: int) -> None:
    receiver = Receiver()
    receiver.receive(6, b"", flags=flag | ACK)
    assert receiver.flow.end == START + 6
    receiver.receive(0, b"one")
    receiver.receive(3, b"two")
    assert receiver.stream == b"onetwo"
    assert receiver.flow.next >= receiver.flow.end


def test_a_fin_with_data_ends_behind_it() -> None:
    receiver = Receiver()
    receiver.receive(0, b"bye", flags=FIN | ACK)
    assert receiver.stream == b"bye"
    assert receiver.flow.end == START + 3


def test_data_in_the_syn() -> None:
    """RFC 7413: it begins behind the SYN's own number."""
    receiver = Receiver()
    receiver.receive(-1, b"early", flags=SYN)
    receiver.receive(5, b"late")
    assert receiver.stream == b"earlylate"


def test_joining_waits_for_what_is_late() -> None:
    receiver = Receiver(joined=True)
    assert receiver.flow.joining
    receiver.receive(30, b"third", now=1.0)
    receiver.receive(20, b"the second", now=1.1)
    assert receiver.stream == b""
    chunks = receiver.flow.begin(receiver.ledger)
    assert b"".join(data for _, data, _, _ in chunks) == b"the secondthird"
    assert not receiver.flow.joining


def test_a_late_syn_ends_joining() -> None:
    receiver = Receiver(joined=True)
    receiver.receive(3, b"two")
    receiver.receive(0, b"one")
    receiver.receive(-1, b"", flags=SYN)
    assert receiver.stream == b"onetwo"
    assert not receiver.flow.joining


def test_what_precedes_the_point_of_joining_is_no_duplicate() -> None:
    receiver = Receiver(joined=True)
    receiver.receive(10, b"joined here")
    receiver.next += 10
    receiver.take(receiver.flow.begin(receiver.ledger))
    receiver.receive(0, b"0123456789joi")
    assert receiver.ledger.passed_over_bytes["joined"] == 10
    assert receiver.ledger.duplicate_bytes == 3
    assert receiver.stream == b"joined here"


def test_dropping_what_is_held_counts_it() -> None:
    receiver = Receiver()
    receiver.receive(10, b"held")
    receiver.receive(20, b"too")
    receiver.flow.drop_held(GivenUp.CLOSED, receiver.ledger)
    assert receiver.ledger.given_up_bytes["closed"] == 7
    assert receiver.ledger.held_bytes == receiver.flow.held_bytes == 0
    assert receiver.balanced()


def test_strangers_are_told_by_their_distance() -> None:
    flow = Receiver().flow
    assert not flow.strange(START, 100)
    assert not flow.strange(START - 1, 1), "a keep-alive probe (RFC 9293 §3.8.4)"
    assert not flow.strange(START + (1 << 20), 1_000)
    assert flow.strange(START - (1 << 30), 100)
    assert flow.strange(START + (1 << 31), 100)
