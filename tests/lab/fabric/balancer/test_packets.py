"""scapy reads what goes out."""

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from lab.fabric.balancer.packets import cut, packet

ports = st.integers(1, 65535)
addresses = st.ip_addresses(v=4).map(str)


@given(addresses, ports, addresses, ports, st.binary(max_size=200))
def test_a_packet_is_from_the_sender_to_the_target(
    a: str, from_port: int, b: str, to_port: int, payload: bytes
) -> None:
    whole = packet((a, from_port), (b, to_port), payload)
    seen = IP(whole)

    assert (seen.version, seen.ihl, seen.src, seen.dst, seen.proto) == (4, 5, a, b, 17)
    assert (seen[UDP].sport, seen[UDP].dport, seen[UDP].len, seen[UDP].chksum) == (
        from_port,
        to_port,
        8 + len(payload),
        0,
    )
    assert whole[28:] == payload


def test_what_is_cut_are_bytes_behind_the_vxlan_header() -> None:
    inner = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=80) / (b"x" * 1000)
    datagram = bytes(VXLAN(vni=77) / inner)
    short = VXLAN(cut(datagram, 100))

    assert short.vni == 77
    assert len(bytes(short[Ether])) == 100
    assert short[IP].len == 1040  # the inner packet still says how long it was
    assert cut(datagram, len(bytes(inner))) == cut(datagram, None) == datagram
    assert cut(bytes(VXLAN() / Ether() / IP() / ICMP()), 8500) == bytes(VXLAN() / Ether() / IP() / ICMP())
