"""The kernel runs the programs; what they should say is worked out by plain Python over scapy's packets."""

import ctypes
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from lab.fabric.bpf import FilterError, Program, Rule, program

_SO_ATTACH_FILTER = 26
_MAC = "02:00:00:00:00:01"

ANY4, ANY6 = ip_network("0.0.0.0/0"), ip_network("::/0")
WEB = Rule(True, ANY4, ANY4, protocol=6, destination_ports=(80, 80))


# The kernel


@contextmanager
def _kernel(made: Program) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of sockets with the program between them."""
    held = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in made))
    description = struct.pack("HP", len(made), ctypes.addressof(held))  # struct sock_fprog
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        right.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, description)
        right.setblocking(False)
        yield left, right


def taken(rules: Sequence[Rule], frame: bytes) -> bool:
    made = program(rules)
    if not made:
        return False  # nothing is put into the kernel
    with _kernel(made) as (left, right):
        left.send(frame)
        try:
            return right.recv(65535) == frame
        except BlockingIOError:
            return False


# The oracle


def ports(frame: Packet) -> tuple[int, int] | None:
    if IP in frame and frame[IP].frag:
        return None
    layer = frame.getlayer(TCP) or frame.getlayer(UDP)
    return (layer.sport, layer.dport) if layer else None


def fits(rule: Rule, frame: Packet) -> bool:
    packet = frame.payload
    protocol = packet.proto if isinstance(packet, IP) else packet.nh
    found = ports(frame)
    return (
        rule.source.version == packet.version
        and ip_address(packet.src) in rule.source
        and ip_address(packet.dst) in rule.destination
        and rule.protocol in (None, protocol)
        and all(
            wanted is None or (found is not None and wanted[0] <= found[end] <= wanted[1])
            for end, wanted in enumerate((rule.source_ports, rule.destination_ports))
        )
    )


def expected(rules: Sequence[Rule], frame: Packet) -> bool:
    return next((rule.accept for rule in rules if fits(rule, frame)), False)


# Few addresses and ports, so that rules meet packets

four = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.128.0.1", "192.0.2.7"])
six = st.sampled_from(["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db9::1", "fe80::1"])
port = st.sampled_from([0, 1, 79, 80, 81, 443, 65535])
end = st.tuples(port, port).map(lambda pair: (min(pair), max(pair)))
protocols = st.none() | st.sampled_from([1, 6, 17, 44, 58])


@st.composite
def _rules(draw: st.DrawFn) -> Rule:
    addresses, bits = draw(st.sampled_from([(four, 32), (six, 128)]))
    source, destination = (
        ip_network((draw(addresses), draw(st.integers(0, bits) | st.sampled_from([0, bits]))), strict=False)
        for _ in range(2)
    )
    protocol = draw(protocols)
    ranges = st.none() | end if protocol in (6, 17) else st.none()
    return Rule(draw(st.booleans()), source, destination, protocol, draw(ranges), draw(ranges))


@st.composite
def _frames(draw: st.DrawFn) -> Packet:
    payload = draw(
        st.sampled_from([TCP, UDP]).flatmap(lambda kind: st.builds(kind, sport=port, dport=port))
        | st.just(ICMP())
        | st.just(Raw(b"x" * 8))
    )
    data = Raw(draw(st.binary(max_size=20)))
    if draw(st.booleans()):
        head = IPv6(src=draw(six), dst=draw(six))
        if isinstance(payload, Raw):
            head.nh = draw(st.sampled_from([44, 58]))  # a fragment's header, ICMPv6
        elif isinstance(payload, ICMP):
            head.nh = 1
    else:
        options = draw(st.sampled_from([b"", b"\x01" * 4, b"\x01" * 40]))
        head = IP(src=draw(four), dst=draw(four), options=options, frag=draw(st.sampled_from([0, 0, 1, 8191])))
        if isinstance(payload, Raw):
            head.proto = 47
    return Ether(src=_MAC, dst=_MAC) / head / payload / data


@given(st.lists(_rules(), max_size=10), st.lists(_frames(), min_size=1, max_size=10))
def test_the_kernel_decides_as_the_rules_say(rules: list[Rule], frames: list[Packet]) -> None:
    parsed = [Ether(bytes(frame)) for frame in frames]
    assert [taken(rules, bytes(frame)) for frame in parsed] == [expected(rules, frame) for frame in parsed]


# What the property's packets do not show


@pytest.mark.parametrize(
    ("head", "whole", "with_ports"), [(IP(dst="10.0.0.1"), 34, 38), (IPv6(dst="2001:db8::1"), 54, 58)]
)
def test_a_packet_cut_anywhere_has_ports_as_far_as_they_are_there(head: Packet, whole: int, with_ports: int) -> None:
    everything = ANY4 if isinstance(head, IP) else ANY6
    rules = [
        Rule(False, everything, everything, protocol=6, destination_ports=(80, 80)),
        Rule(True, everything, everything),
    ]
    frame = bytes(Ether(src=_MAC, dst=_MAC) / head / TCP(dport=80))
    assert [cut for cut in range(1, len(frame)) if taken(rules, frame[:cut])] == list(range(whole, with_ports))


@pytest.mark.parametrize("options", [b"", b"\x01" * 4, b"\x01" * 40])
def test_ports_are_behind_the_header_s_options(options: bytes) -> None:
    for port in (80, 81):
        frame = Ether(src=_MAC, dst=_MAC) / IP(dst="10.0.0.1", options=options) / TCP(dport=port)
        assert taken([WEB], bytes(frame)) == (port == 80)


@pytest.mark.parametrize("offset", [1, 4096, 8191])
def test_only_a_first_fragment_has_ports(offset: int) -> None:
    """What stands where they would be, is data."""
    first, later = (
        bytes(Ether(src=_MAC, dst=_MAC) / IP(dst="10.0.0.1", flags="MF", frag=place) / TCP(dport=80))
        for place in (0, offset)
    )
    assert taken([WEB], first)
    assert not taken([WEB], later)
    assert taken([WEB, Rule(True, ANY4, ANY4, protocol=6)], later)


def test_without_rules_nothing_is_taken() -> None:
    assert program([]) == ()
    assert program([Rule(False, ANY4, ANY4)]) == ()


def test_what_is_not_ip_is_never_taken() -> None:
    arp = bytes(Ether(src=_MAC, dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.0.1"))
    assert not taken([Rule(True, ANY4, ANY4), Rule(True, ANY6, ANY6)], arp)


def test_the_last_of_many_rules_is_reached() -> None:
    """Over more than 255 instructions, in both chains."""
    others = [
        Rule(False, ip_network(f"{net}{number}/{bits}"), ip_network(f"{net}{number}/{bits}"), 6, (1, 2), (3, 4))
        for net, bits in (("2001:db8::", 128), ("192.0.2.", 32))
        for number in range(1, 31)
    ]
    rules = [*others, WEB, Rule(True, ANY6, ANY6, protocol=6, source_ports=(1024, 65535))]
    assert len(program(rules)) > 2 * 255
    for head in (IP(dst="10.0.0.1"), IPv6(dst="2001:db8::1")):
        frame = Ether(src=_MAC, dst=_MAC) / head / TCP(sport=40000, dport=80)
        assert taken(rules, bytes(frame))


def test_more_rules_than_the_kernel_takes_are_refused() -> None:
    with pytest.raises(FilterError, match="use fewer rules"):
        program([WEB] * 400)
