"""The table of flows by itself: whose a segment is, and what the end of a flow leaves behind."""

import pytest

from replayer.flows import FlowTable
from replayer.head import Request
from replayer.http1 import Rules
from replayer.ledger import Ledger, imbalances
from replayer.settings import Caps
from tests.strategies import ACK, FIN, PSH, RST, SYN, WRAP, get, post, targets

DATA = PSH | ACK


def key(number: int) -> bytes:
    """A flow key: VNI, addresses, ports."""
    return b"\0\0\7\n\0\0\1\n\0\1\1" + number.to_bytes(2, "big") + b"\0P"


class Table:
    """A table, its ledger and its clock; the ledger must balance after every call."""

    def __init__(self, caps: Caps | None = None) -> None:
        self.ledger = Ledger()
        self.caps = caps or Caps()
        self.table = FlowTable(self.caps, Rules(self.ledger, self.caps.head, self.caps.body), self.ledger)
        self.now = 100.0
        self.requests: list[Request] = []

    def put(
        self, number: int, seq: int, flags: int, data: bytes = b"", ack: int = 1_000, missing: int = 0
    ) -> list[str]:
        """One segment of flow `number`; the targets that it completes."""
        self.now += 0.000_1
        return self._took(self.table.receive((key(number), seq % WRAP, ack, flags, data, missing), self.now))

    def wait(self, seconds: float) -> list[str]:
        """Let time pass."""
        self.now += seconds
        return self._took(self.table.expire(self.now))

    def close(self) -> list[str]:
        """The end of the input."""
        out = self._took(self.table.close(self.now))
        assert self.ledger.held_bytes == self.ledger.flows == 0
        return out

    def _took(self, requests: list[Request]) -> list[str]:
        assert imbalances(self.ledger) == []
        self.requests += requests
        return targets(requests)


def test_a_flow_from_syn_to_fin() -> None:
    table = Table()
    assert table.put(1, 10, SYN) == []
    assert table.ledger.flows == table.ledger.flows_opened == 1
    assert table.put(1, 11, DATA, get("/1")) == ["/1"]
    table.put(1, 11 + len(get("/1")), FIN | ACK)
    assert table.ledger.flows == 0
    assert table.ledger.tombstones == 1
    assert table.ledger.flows_joined == table.ledger.flows_evicted == 0


def test_a_syn_with_a_request() -> None:
    """RFC 7413, TCP Fast Open."""
    table = Table()
    assert table.put(1, 10, SYN, get("/1")) == ["/1"]
    assert table.put(1, 11, DATA, get("/1")) == [], "the server ignored the cookie: the client sends it again"
    assert table.ledger.duplicate_bytes == len(get("/1"))


def test_a_fin_with_the_last_request() -> None:
    table = Table()
    table.put(1, 10, SYN)
    assert table.put(1, 11, FIN | DATA, get("/1")) == ["/1"]
    assert table.ledger.flows == 0


def test_a_fin_before_the_data() -> None:
    table = Table()
    table.put(1, 10, SYN)
    assert table.put(1, 11 + len(get("/1")), FIN | ACK) == []
    assert table.ledger.flows == 1
    assert table.put(1, 11, DATA, get("/1")) == ["/1"]
    assert table.ledger.flows == 0


def test_a_fin_behind_a_hole_that_does_not_fill() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, post("/1", b"body")[:-1])
    table.put(1, 11 + len(post("/1", b"body")), FIN | ACK)
    table.wait(2)
    assert table.ledger.flows == 0
    assert table.ledger.given_up["hole"] + table.ledger.given_up["closed"] == 1
    assert table.requests == []


def test_a_fin_inside_a_request() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, FIN | DATA, post("/1", b"body")[:-1])
    assert table.ledger.given_up["closed"] == 1
    assert table.ledger.given_up_bytes["closed"] == len(post("/1", b"body")) - 1


def test_an_rst_inside_a_request() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, post("/1", b"body")[:-1])
    table.put(1, 11 + len(post("/1", b"body")) - 1, RST | ACK)
    assert table.ledger.flows == 0
    assert table.ledger.given_up["closed"] == 1


def test_an_rst_that_overtook_data() -> None:
    table = Table()
    table.put(1, 10, SYN)
    first = get("/1")
    table.put(1, 11 + len(first), RST)
    out = table.put(1, 11, DATA, first)
    out += table.wait(5)
    assert out == ["/1"]
    assert table.ledger.flows == 0


def test_rst_and_fin_of_unknown_flows_open_nothing() -> None:
    table = Table()
    table.put(1, 10, RST)
    table.put(2, 10, RST | ACK)
    assert table.ledger.flows == 0
    table.put(3, 10, FIN | ACK)
    table.wait(5)
    table.close()
    assert table.requests == []


def test_a_keep_alive_probe_is_nothing() -> None:
    """RFC 9293 §3.8.4: the byte before the next one, with or without that byte."""
    table = Table()
    table.put(1, 10, SYN)
    after = 11 + len(get("/1"))
    table.put(1, 11, DATA, get("/1"))
    for _ in range(3):
        table.wait(75)
        table.put(1, after - 1, ACK)
        table.put(1, after - 1, ACK, b"\0")
    assert table.put(1, after, DATA, get("/2"), ack=2_000) == ["/2"]
    assert table.ledger.flows_opened == 1


def test_a_keep_alive_probe_before_the_first_request() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 10, ACK, b"\0")
    table.put(1, 10, ACK)
    assert table.put(1, 11, DATA, get("/1")) == ["/1"]


def test_a_new_syn_ends_the_flow_before() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, post("/1", b"body")[:-1])
    table.put(1, 900_000, SYN)
    assert table.ledger.given_up["closed"] == 1
    assert table.put(1, 900_001, DATA, get("/2")) == ["/2"]
    assert table.ledger.flows == 1
    assert table.ledger.flows_opened == 2


def test_a_reused_port_while_a_hole_waits() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 500, DATA, b"behind a hole")
    table.put(1, 900_000, SYN)
    assert table.put(1, 900_001, DATA, get("/2")) == ["/2"]
    assert table.wait(5) == []
    assert table.put(1, 900_001 + len(get("/2")), DATA, get("/3"), ack=2_000) == ["/3"]


def test_a_reused_port_whose_syn_was_lost() -> None:
    """Sequence numbers that no window explains: another connection, joined after its begin."""
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/1"))
    far = 11 + (1 << 31) - 5_000
    out = table.put(1, far, DATA, get("/2"), ack=7)
    out += table.put(1, far + len(get("/2")), DATA, get("/3"), ack=507)
    out += table.wait(0.2) + table.wait(2) + table.wait(2)
    assert out == ["/2", "/3"]
    assert table.ledger.flows == 1


def test_a_tombstone_takes_late_copies() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/1"))
    table.put(1, 11 + len(get("/1")), FIN | ACK)
    assert table.put(1, 11, DATA, get("/1")) == []
    assert table.put(1, 10, SYN) == []
    assert table.put(1, 11 + len(get("/1")), FIN | ACK) == []
    assert table.put(1, 12 + len(get("/1")), ACK) == [], "the last acknowledgement of the close"
    assert table.ledger.flows == 0
    assert table.ledger.flows_opened == 1
    assert table.ledger.duplicate_bytes == len(get("/1"))


def test_a_tombstone_gives_way_to_a_new_connection() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, FIN | DATA, get("/1"))
    table.put(1, 70_000, SYN)
    assert table.put(1, 70_001, DATA, get("/2")) == ["/2"]
    assert table.put(1, 11, DATA, get("/1")) == [], "a copy from the connection before"
    assert table.put(1, 70_001 + len(get("/2")), DATA, get("/3"), ack=2_000) == ["/3"]


@pytest.mark.parametrize("flags", [FIN | ACK, RST | ACK, RST])
@pytest.mark.parametrize("distance", [2, 1_000, 1 << 29])
def test_a_late_end_of_the_connection_before_does_not_end_the_present_one(flags: int, distance: int) -> None:
    """RFC 9293 §3.10.7.4: its sequence number lies before the window."""
    table = Table()
    end = 11 + len(get("/1"))
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/1"))
    table.put(1, end, FIN | ACK)
    isn = end + distance
    table.put(1, isn, SYN)
    table.put(1, isn + 1, DATA, post("/2", b"body")[:30])
    table.put(1, end, flags)
    assert table.put(1, isn + 31, DATA, post("/2", b"body")[30:]) == ["/2"]
    assert table.ledger.flows_opened == 2


def test_a_tombstone_ends() -> None:
    table = Table(Caps(tombstone_timeout=30))
    table.put(1, 10, SYN)
    table.put(1, 11, FIN | DATA, get("/1"))
    table.wait(29.9)
    assert table.ledger.tombstones == 1
    table.wait(0.2)
    assert table.ledger.tombstones == 0


def test_tombstones_are_capped() -> None:
    table = Table(Caps(tombstones=3))
    for number in range(10):
        table.put(number, 10, SYN)
        table.put(number, 11, FIN | DATA, get("/1"))
        assert table.ledger.tombstones <= 3
    assert table.ledger.tombstones_evicted == 7


def test_the_least_recently_used_flow_leaves_a_full_table() -> None:
    table = Table(Caps(flows=3))
    for number in (1, 2, 3):
        table.put(number, 10, SYN)
    table.put(1, 11, DATA, get("/a")[:5])
    table.put(2, 11, DATA, get("/b")[:5])
    table.put(4, 10, SYN)  # 3 leaves
    table.put(1, 16, DATA, get("/a")[5:])
    table.put(5, 10, SYN)  # 2 leaves
    assert table.ledger.flows == 3
    assert table.ledger.flows_evicted == 2
    assert table.ledger.given_up["evicted"] == 1
    assert targets(table.requests) == ["/a"]


def test_an_evicted_flow_goes_on_at_the_exact_byte() -> None:
    """Between requests nothing is lost; so also a request split behind it is whole."""
    table = Table(Caps(flows=1))
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/1"))
    table.put(2, 10, SYN)
    table.put(2, 11, DATA, get("/2"))
    after = 11 + len(get("/1"))
    table.put(1, after, DATA, get("/3")[:9], ack=2_000)
    assert table.put(1, after + 9, DATA, get("/3")[9:], ack=2_000) == ["/3"]
    assert table.ledger.flows_joined == 0


def test_a_flow_evicted_inside_a_body_does_not_take_the_rest_for_requests() -> None:
    table = Table(Caps(flows=1))
    body = b"x" * 50 + get("/bait")
    wire = post("/1", body)
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, wire[: -len(get("/bait"))])
    table.put(2, 10, SYN)
    table.put(1, 11 + len(wire) - len(get("/bait")), DATA, get("/bait"))
    table.put(1, 11 + len(wire), DATA, get("/2"), ack=2_000)
    table.put(1, 11 + len(wire) + len(get("/2")), DATA, get("/3"), ack=3_000)
    table.wait(3)
    assert targets(table.requests) == ["/2", "/3"]


def test_no_expire_is_needed_for_flows_in_order() -> None:
    table = Table()
    table.put(1, 10, SYN)
    seq = 11
    for number in range(50):
        wire = post(f"/{number}", b"b" * number)
        assert table.put(1, seq, DATA, wire, ack=1_000 + 500 * number) == [f"/{number}"]
        seq += len(wire)


def test_a_hole_waits_as_long_as_it_may_and_no_longer() -> None:
    table = Table(Caps(hole_timeout=0.5))
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/1"))
    behind = 11 + len(get("/1")) + 30
    table.put(1, behind, DATA, get("/2"), ack=2_000)
    table.put(1, behind + len(get("/2")), DATA, get("/3"), ack=3_000)
    assert table.wait(0.45) == []
    assert table.wait(0.1) == ["/2", "/3"], "the answer to /2 shows in the ACK of /3"
    assert table.ledger.holes == 1


def test_holes_one_after_another_each_have_their_time() -> None:
    table = Table(Caps(hole_timeout=1.0))
    wire = post("/1", bytes(1_000))
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, wire[:200])
    table.put(1, 11 + 300, DATA, wire[300:400])
    table.wait(0.5)
    table.put(1, 11 + 500, DATA, wire[500:])
    table.wait(0.6)
    assert table.ledger.holes == 1
    table.put(1, 11 + len(wire), DATA, get("/2"), ack=2_000)
    assert table.wait(0.5) == ["/2"]
    assert table.ledger.holes == 2
    assert table.ledger.given_up["hole"] == 1


def test_many_flows_with_holes_are_all_given_up_in_one_call() -> None:
    table = Table()
    for number in range(100):
        table.put(number, 10, SYN)
        table.put(number, 100, DATA, get("/behind"))
    table.wait(2)
    assert table.ledger.holes == 100
    assert table.ledger.flows == 100


def test_joined_flows_start_after_the_join_time() -> None:
    table = Table(Caps(join_timeout=0.1))
    table.put(1, 5_000, DATA, get("/1"))
    table.put(1, 5_000 + len(get("/1")), DATA, get("/2"), ack=2_000)
    assert table.wait(0.05) == []
    assert table.wait(0.06) == ["/1", "/2"]
    assert table.ledger.flows_joined == 1


def test_an_acknowledgement_alone_opens_no_request() -> None:
    table = Table()
    table.put(1, 5_000, ACK)
    table.put(1, 5_000, ACK)
    table.wait(1)
    table.put(1, 5_000, DATA, get("/1"))
    table.put(1, 5_000 + len(get("/1")), ACK, ack=2_000)
    table.wait(3)
    assert targets(table.requests) == ["/1"]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_the_wrap_lies_between_segments_in_any_order(order: tuple[int, ...]) -> None:
    table = Table()
    isn = WRAP - 40
    wire = post("/1", b"b" * 100)
    pieces = [(0, wire[:39]), (39, wire[39:90]), (90, wire[90:])]
    table.put(1, isn, SYN)
    for at in order:
        offset, data = pieces[at]
        table.put(1, isn + 1 + offset, DATA, data)
    assert targets(table.requests) == ["/1"]
    assert table.ledger.flows_opened == 1


def test_offsets_grow_beyond_32_bits() -> None:
    """A connection that carries more than 4 GiB: the holes say nothing else than that it goes on."""
    table = Table()
    table.put(1, 10, SYN)
    seq, sent = 11, []
    for number in range(300):
        lost = 15 << 20
        seq += lost
        out = table.put(1, seq, DATA, get(f"/{number}"), ack=1_000 * number + 1)
        seq += len(get(f"/{number}"))
        sent += out + table.wait(1.5)
    sent += table.wait(2)
    assert sent == [f"/{number}" for number in range(300)][-len(sent) :]
    assert len(sent) >= 299
    assert table.ledger.lost_bytes == 300 * (15 << 20) > 1 << 32


@pytest.mark.parametrize("ahead", [1_000_000, 100_000_000])
@pytest.mark.parametrize("ended", [True, False])
def test_a_port_used_again_whose_syn_comes_last(ahead: int, ended: bool) -> None:
    """The FIN of the connection before may be lost, and the new SYN overtaken by all that the client sent."""
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/old"))
    old = 11 + len(get("/old"))
    if ended:
        table.put(1, old, FIN)
    new = old + ahead
    body = post("/new", bytes(3_000))
    table.put(1, new + 1, DATA, body[:1_000])
    table.put(1, new + 2_001, DATA, body[2_000:])
    table.put(1, new + 1_001, DATA, body[1_000:2_000])
    table.wait(0.05)
    table.put(1, new, SYN)
    table.wait(3)
    assert targets(table.requests) == ["/old", "/new"]
    assert table.ledger.given_up_bytes["closed"] == 0


def test_the_end_of_the_input_closes_every_flow() -> None:
    table = Table()
    table.put(1, 10, SYN)
    table.put(1, 11, DATA, get("/1")[:9])
    table.put(2, 10, SYN)
    table.put(2, 50, DATA, b"behind a hole")
    table.put(3, 10, DATA, b"joining")
    table.close()
    assert table.requests == []


def test_a_smaller_cap_takes_effect_as_flows_come() -> None:
    table = Table(Caps(flows=50))
    for number in range(40):
        table.put(number, 10, SYN)
    table.table.reconfigure(Caps(flows=10))
    for number in range(100, 140):
        table.put(number, 10, SYN)
    assert table.ledger.flows <= 10
