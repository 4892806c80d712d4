"""Which bytes were lost; the datagrams are scapy's."""

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from lab.clients.exchange import DECOYS
from lab.losses import Losses, Lost, touches


def _datagram(seq: int, payload: bytes = b"", flags: str = "PA", port: int = 40000, to: int = 80) -> bytes:
    tcp = TCP(sport=port, dport=to, seq=seq % 2**32, flags=flags, options=[("Timestamp", (1, 2))])
    return bytes(VXLAN(vni=7, flags=8) / Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / tcp / payload)


def test_a_lost_segment_is_a_range_of_its_connection() -> None:
    losses = Losses()
    losses.tell(_datagram(999, flags="S"), survived=True)
    losses.tell(_datagram(1000, b"a" * 100), survived=True)
    losses.tell(_datagram(1100, b"b" * 50), survived=False)

    assert losses.lost() == [Lost(40000, 0, 100, 150)]


def test_a_lost_syn_or_acknowledgement_loses_no_bytes() -> None:
    losses = Losses()
    losses.tell(_datagram(999, flags="S"), survived=False)
    losses.tell(_datagram(1000, flags="A"), survived=False)
    losses.tell(_datagram(1000, b"abc"), survived=True)

    assert losses.lost() == []


def test_a_retransmission_with_other_boundaries_fills_what_it_covers() -> None:
    losses = Losses()
    losses.tell(_datagram(999, flags="S"), survived=True)
    losses.tell(_datagram(1000, b"a" * 100), survived=False)
    losses.tell(_datagram(1020, b"a" * 30), survived=True)

    assert losses.lost() == [Lost(40000, 0, 0, 20), Lost(40000, 0, 50, 100)]


def test_a_lost_retransmission_of_what_came_through_is_no_loss() -> None:
    losses = Losses()
    losses.tell(_datagram(999, flags="S"), survived=True)
    losses.tell(_datagram(1000, b"a" * 100), survived=True)
    losses.tell(_datagram(1050, b"a" * 60), survived=False)

    assert losses.lost() == [Lost(40000, 0, 100, 110)]


def test_positions_pass_the_end_of_the_sequence_numbers() -> None:
    losses = Losses()
    losses.tell(_datagram(2**32 - 11, flags="S"), survived=True)
    losses.tell(_datagram(2**32 - 10, b"a" * 20), survived=True)
    losses.tell(_datagram(2**32 + 10, b"b" * 5), survived=False)

    assert losses.lost() == [Lost(40000, 0, 20, 25)]


def test_a_port_used_again_is_another_connection_but_a_syn_sent_again_is_not() -> None:
    losses = Losses()
    for first in (999, 999, 70_000):
        losses.tell(_datagram(first, flags="S"), survived=True)
    losses.tell(_datagram(70_001, b"ab"), survived=False)

    assert losses.lost() == [Lost(40000, 1, 0, 2)]


def test_answers_and_other_protocols_are_no_loss() -> None:
    losses = Losses()
    losses.tell(_datagram(999, flags="S"), survived=True)
    losses.tell(_datagram(1000, b"HTTP/1.1 200 OK", port=80, to=40000), survived=False)
    losses.tell(bytes(VXLAN(vni=7, flags=8) / Ether() / IP() / UDP() / b"x"), survived=False)
    losses.tell(b"\x08", survived=False)

    assert losses.lost() == []


def test_decoys_at_the_start_of_a_segment_are_counted() -> None:
    losses = Losses()
    for payload in (*DECOYS, b"x" + DECOYS[0]):
        losses.tell(_datagram(1, payload), survived=True)

    assert losses.decoys == len(DECOYS)


def test_a_range_is_touched_where_a_hole_lies_in_it() -> None:
    holes = [Lost(1, 0, 10, 20)]

    assert [touches(holes, *part) for part in ((0, 10), (0, 11), (12, 13), (19, 30), (20, 30))] == [
        False,
        True,
        True,
        True,
        False,
    ]
