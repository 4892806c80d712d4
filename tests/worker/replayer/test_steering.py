"""Steering: by an interpreter of classic BPF, written from the kernel documentation; then by the kernel itself."""

import errno
import os
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from replayer import steering
from replayer.steering import Instruction

type Encapsulate = Callable[[Packet], bytes]
type Program = Callable[[int], list[Instruction]]


def run(program: list[Instruction], data: bytes) -> int:
    """What the kernel computes: see networking/filter in its documentation."""
    a = x = at = 0
    memory = [0] * 16
    for _ in range(len(program)):
        code, jt, jf, k = program[at]
        at += 1
        kind = code & 0x07
        if kind in (0, 1) and code & 0xE0 in (0x20, 0x40):  # LD [k], LD [x + k]
            size = {0x00: 4, 0x08: 2, 0x10: 1}[code & 0x18]
            start = k + (x if code & 0xE0 == 0x40 else 0)
            if start + size > len(data):
                return 0
            a = int.from_bytes(data[start : start + size])
        elif kind in (0, 1):
            value = {0x00: k, 0x60: memory[k % 16]}[code & 0xE0]
            a, x = (value, x) if kind == 0 else (a, value)
        elif kind in (2, 3):
            memory[k] = a if kind == 2 else x
        elif kind == 4:
            a = _arithmetic(code, a, x if code & 0x08 else k)
        elif kind == 5:
            at += k if code == 0x05 else (jt if _holds(code, a, k) else jf)
        elif kind == 6:
            return a if code & 0x18 == 0x10 else k
        else:
            a, x = (x, x) if code & 0x80 else (a, a)
    raise AssertionError("the program did not return")


def _arithmetic(code: int, a: int, operand: int) -> int:
    results: dict[int, Callable[[], int]] = {
        0x00: lambda: a + operand,
        0x20: lambda: a * operand,
        0x50: lambda: a & operand,
        0x60: lambda: a << operand,
        0x70: lambda: a >> operand,
        0x90: lambda: a % operand,
    }
    return results[code & 0xF0]() & 0xFFFF_FFFF


def _holds(code: int, a: int, k: int) -> bool:
    assert code == 0x15, "only JEQ K is used"
    return a == k


def vxlan(frame: Packet) -> bytes:
    return bytes(VXLAN(vni=7, flags="Instance") / frame)


def geneve(frame: Packet, options: int = 0) -> bytes:
    """As a Gateway Load Balancer sends it: metadata in options, the mirrored packet still in VXLAN."""
    outer = IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=5000, dport=4789)
    data = [GeneveOptions(classid=0x0108, type=1, data=b"\0" * 4)] * (options // 2)
    return bytes(GENEVE(proto=0x0800, options=data) / outer / VXLAN(vni=7, flags="Instance") / frame)


def bridged(frame: Packet) -> bytes:
    return bytes(GENEVE(proto=0x6558, options=[GeneveOptions(classid=0x0108, type=1, data=b"\0" * 8)]) / frame)


def ethernet(**fields: int) -> Packet:
    """With addresses, which scapy would look up otherwise."""
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def frame(ends: tuple[str, int, str, int], *, tags: Packet | None = None, options: int = 0) -> Packet:
    """A segment from one end to the other."""
    src, sport, dst, dport = ends
    six = ":" in src
    network = IPv6(src=src, dst=dst) if six else IP(src=src, dst=dst, options=[IPOption_NOP()] * options)
    head = ethernet() / tags if tags is not None else ethernet()
    return head / network / TCP(sport=sport, dport=dport) / b"GET / HTTP/1.1\r\n\r\n"


def back(ends: tuple[str, int, str, int]) -> tuple[str, int, str, int]:
    """The other direction."""
    return (*ends[2:], *ends[:2])


TAGS: list[Callable[[], Packet | None]] = [
    lambda: None,
    lambda: Dot1Q(vlan=3),
    lambda: Dot1AD(vlan=4) / Dot1Q(vlan=5),
    lambda: Dot1Q(vlan=6) / Dot1Q(vlan=7),
]
FOUR = st.tuples(
    st.ip_addresses(v=4).map(str), st.integers(1, 65535), st.ip_addresses(v=4).map(str), st.integers(1, 65535)
)
SIX = st.tuples(
    st.ip_addresses(v=6).map(str), st.integers(1, 65535), st.ip_addresses(v=6).map(str), st.integers(1, 65535)
)
WAYS: list[tuple[Program, Encapsulate]] = [
    (steering.vxlan_program, vxlan),
    (steering.geneve_program, geneve),
    (steering.geneve_program, lambda inner: geneve(inner, options=62)),
    (steering.geneve_program, bridged),
]


@pytest.mark.parametrize(("program", "encapsulate"), WAYS)
@settings(max_examples=40, deadline=None)
@given(ends=FOUR | SIX, tags=st.sampled_from(TAGS), options=st.integers(0, 40), shards=st.integers(1, 9))
def test_both_directions_of_a_connection_reach_one_shard(
    program: Program,
    encapsulate: Encapsulate,
    ends: tuple[str, int, str, int],
    tags: Callable[[], Packet | None],
    options: int,
    shards: int,
) -> None:
    instructions = program(shards)
    there = run(instructions, encapsulate(frame(ends, tags=tags(), options=options)))
    assert there == run(instructions, encapsulate(frame(back(ends))))
    assert 0 <= there < shards


def rising(count: int) -> list[tuple[str, int, str, int]]:
    """Clients whose addresses and ports rise together."""
    return [(f"10.0.{n // 250}.{n % 250 + 1}", 40_000 + n, "10.1.0.9", 80) for n in range(count)]


def rising_six(count: int) -> list[tuple[str, int, str, int]]:
    return [(f"fd00::{n + 1:x}", 40_000 + n, "fd00:1::9", 80) for n in range(count)]


def one_balancer(count: int) -> list[tuple[str, int, str, int]]:
    """One load balancer that opens many connections."""
    return [("10.0.0.7", 1024 + n, "10.1.0.9", 8080) for n in range(count)]


@cache
def datagrams_of(population: Callable[[int], list[tuple[str, int, str, int]]]) -> list[bytes]:
    return [vxlan(frame(ends)) for ends in population(1_000)]


@pytest.mark.parametrize("population", [rising, rising_six, one_balancer])
@pytest.mark.parametrize("shards", [2, 3, 4, 7])
def test_flows_spread(population: Callable[[int], list[tuple[str, int, str, int]]], shards: int) -> None:
    datagrams = datagrams_of(population)
    program = steering.vxlan_program(shards)
    reached = Counter(run(program, datagram) for datagram in datagrams)
    share = len(datagrams) / shards
    assert all(0.8 * share < reached[shard] < 1.2 * share for shard in range(shards)), reached


@pytest.mark.parametrize(
    "inner",
    [
        ethernet() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2),
        ethernet() / IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrDestOpt() / TCP(sport=1, dport=2),
        ethernet(type=0x0806) / (b"\0" * 28),
        ethernet() / Dot1Q() / Dot1Q() / Dot1Q() / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(),
    ],
    ids=["udp", "extension header", "arp", "three tags"],
)
def test_what_cannot_be_read_goes_to_shard_0(inner: Packet) -> None:
    assert {run(steering.vxlan_program(shards), vxlan(inner)) for shards in range(2, 9)} == {0}
    assert {run(steering.geneve_program(shards), geneve(inner)) for shards in range(2, 9)} == {0}


@pytest.mark.parametrize(("program", "encapsulate"), WAYS)
def test_a_cut_datagram_goes_to_shard_0(program: Program, encapsulate: Encapsulate) -> None:
    whole = encapsulate(frame(("10.0.0.1", 4000, "10.0.0.2", 80)))
    ports_end = len(whole) - len(b"GET / HTTP/1.1\r\n\r\n") - 16
    assert run(program(997), whole[:ports_end]) == run(program(997), whole) > 0
    assert {run(program(997), whole[:size]) for size in range(ports_end)} == {0}


def free_port(family: socket.AddressFamily, address: str) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])


@contextmanager
def group(
    address: str, shards: int, program: Program = steering.vxlan_program, buffer: int = 1 << 20
) -> Iterator[list[socket.socket]]:
    """Sockets as the supervisor opens them, on a free port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sockets = steering.open_group(address, free_port(family, address), shards, buffer, program(shards))
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def send(sockets: list[socket.socket], datagrams: list[bytes]) -> None:
    address = sockets[0].getsockname()
    with socket.socket(sockets[0].family, socket.SOCK_DGRAM) as sender:
        for datagram in datagrams:
            sender.sendto(datagram, address)


def received(sockets: list[socket.socket]) -> list[list[bytes]]:
    """What each socket holds; over loopback a datagram is there when sendto returns."""
    result: list[list[bytes]] = []
    for sock in sockets:
        result.append([])
        while select.select([sock], [], [], 0)[0]:
            result[-1].append(sock.recv(65536))
    return result


@cache
def both_ways(encapsulate: Encapsulate) -> list[bytes]:
    """Both directions of many connections, then datagrams that cannot be read."""
    flows = rising(60) + rising_six(60) + one_balancer(60)
    packets = [(frame(ends), frame(back(ends), tags=TAGS[number % 4]())) for number, ends in enumerate(flows)]
    return [encapsulate(inner) for pair in packets for inner in pair] + [b"", b"\x08", bytes(200)]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("shards", [2, 3, 4])
@pytest.mark.parametrize(("program", "encapsulate"), WAYS[:3])
def test_the_kernel_steers_as_the_interpreter_says(
    address: str, shards: int, program: Program, encapsulate: Encapsulate
) -> None:
    datagrams = both_ways(encapsulate)
    with group(address, shards, program) as sockets:
        send(sockets, datagrams)
        instructions = program(shards)
        expected: list[list[bytes]] = [[] for _ in range(shards)]
        for datagram in datagrams:
            expected[run(instructions, datagram)].append(datagram)
        assert received(sockets) == expected
        assert all(len(part) > 0.7 * len(datagrams) / shards for part in expected)


def test_a_port_that_another_worker_holds_is_refused() -> None:
    with group("127.0.0.1", 2) as sockets, pytest.raises(OSError, match="in use") as refused:
        steering.open_group("127.0.0.1", sockets[0].getsockname()[1], 1, 1 << 20, steering.vxlan_program(1))
    assert refused.value.errno == errno.EADDRINUSE


def test_drops_are_counted_and_what_a_closed_socket_holds_can_be_read() -> None:
    with group("127.0.0.1", 1, buffer=1) as [sock]:
        send([sock], [bytes(1000)] * 50)
        held = sum(map(len, received([sock])))
        drops = steering.socket_drops(sock)
        assert 0 < held < 50
        assert held + drops == 50
        send([sock], [b"last"])
        steering.close_to_arrivals(sock)
        send([sock], [b"late"] * 3)
        assert received([sock]) == [[b"last"]]
        assert steering.socket_drops(sock, drops) == drops + 3


def test_the_effective_buffer_is_what_was_wished_where_the_kernel_allows_it() -> None:
    with group("127.0.0.1", 1, buffer=100_000) as [sock]:
        assert steering.effective_buffer(sock) == 100_000


def test_without_privileges_the_effective_buffer_is_what_the_machine_allows(request: pytest.FixtureRequest) -> None:
    allowed = int(Path("/proc/sys/net/core/rmem_max").read_text())
    if os.geteuid() == 0:
        request.addfinalizer(lambda: os.seteuid(0))
        os.seteuid(65534)
    with group("127.0.0.1", 1, buffer=2 * allowed) as [sock]:
        assert steering.effective_buffer(sock) == allowed


@given(before=st.integers(0, 1 << 40), more=st.integers(0, (1 << 32) - 1))
def test_a_counter_that_wraps_is_widened(before: int, more: int) -> None:
    assert steering.widen((before + more) & 0xFFFF_FFFF, before) == before + more


def test_instructions_fit_the_kernel_s_structure() -> None:
    for program in (steering.vxlan_program, steering.geneve_program):
        assert len(b"".join(struct.pack("=HBBI", *instruction) for instruction in program(256))) % 8 == 0
