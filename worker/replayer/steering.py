"""Which shard a mirrored packet reaches: one SO_REUSEPORT group per port, steered by a classic-BPF program.

The kernel runs the program on each datagram, with the UDP payload at offset 0, and takes its result as an index into
the group. The hash is symmetric, so both directions of an inner connection reach one shard: the sum of the inner
addresses and ports, times an odd constant, of which the upper bits decide. (A plain XOR of both ends sent every flow to
one shard when addresses and ports rose together.) What the program cannot read goes to shard 0, which refuses it with a
reason; a load behind the datagram's end does the same by itself, for it ends the program with 0.

The program is attached to the first socket, before it is bound: the kernel then refuses the bind if anybody else holds
the port, be it another worker that would share it. A socket's place in the group is the order of binding. It changes
when a member closes, so all are opened once, by the supervisor, and kept (DESIGN, rule 4).
"""

import ctypes
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

SO_ATTACH_FILTER = 26
SO_RCVBUFFORCE = 33
SO_ATTACH_REUSEPORT_CBPF = 51
SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_DROPS = 8
_BUFFER_LIMIT = (1 << 30) - 1  # the kernel doubles the value and holds it in an int

_ODD = 0x9E3779B1  # 2³² divided by the golden ratio
_SHIFT = 16

_VXLAN_HEADER = 8
_GENEVE_HEADER = 8
_OUTER_IPV4_UDP = 28

# Instruction codes of <linux/bpf_common.h>, named as in the kernel's networking/filter documentation.
LDW_IND, LDH_IND, LDB_IND = 0x40, 0x48, 0x50
LDH_ABS, LDB_ABS = 0x28, 0x30
LDX_IMM, LDX_MEM, STX, ST, LD_MEM = 0x01, 0x61, 0x03, 0x02, 0x60
TAX, TXA = 0x07, 0x87
ADD_X, ADD_K, MUL_K, MOD_K, AND_K, LSH_K, RSH_K = 0x0C, 0x04, 0x24, 0x94, 0x54, 0x64, 0x74
JA, JEQ_K = 0x05, 0x15
RET_K, RET_A = 0x06, 0x16

_NEXT = ""  # a jump to here is a jump to the next instruction


class Instruction(NamedTuple):
    """One `struct sock_filter`."""

    code: int
    jt: int
    jf: int
    k: int


class _Line(NamedTuple):
    """An instruction whose jumps still name labels."""

    code: int
    k: int = 0
    true: str = _NEXT
    false: str = _NEXT
    label: str = _NEXT


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def vxlan_program(shards: int) -> list[Instruction]:
    """The program for VXLAN datagrams."""
    return _assemble([_Line(LDX_IMM, _VXLAN_HEADER), *_ethernet(shards)])


def geneve_program(shards: int) -> list[Instruction]:
    """The program for GENEVE datagrams: options of any length, then what a Gateway Load Balancer delivers of a mirrored
    packet (IPv4 without options, UDP, VXLAN, Ethernet), or Ethernet at once; IP at once goes to shard 0."""
    to_ethernet = [
        _Line(LDB_ABS, 0),
        _Line(AND_K, 0x3F),
        _Line(LSH_K, 2),
        _Line(TAX),
        _Line(LDH_ABS, 2),
        _Line(JEQ_K, 0x6558, "bridged"),
        _Line(JEQ_K, 0x0800, _NEXT, "other"),
        _Line(LDB_IND, _GENEVE_HEADER),
        _Line(JEQ_K, 0x45, _NEXT, "other"),
        _Line(LDB_IND, _GENEVE_HEADER + 9),
        _Line(JEQ_K, socket.IPPROTO_UDP, _NEXT, "other"),
        _Line(TXA),
        _Line(ADD_K, _OUTER_IPV4_UDP + _VXLAN_HEADER),
        _Line(TAX),
        _Line(TXA, label="bridged"),
        _Line(ADD_K, _GENEVE_HEADER),
        _Line(TAX),
    ]
    return _assemble([*to_ethernet, *_ethernet(shards)])


def _ethernet(shards: int) -> list[_Line]:
    """X is the offset of the inner Ethernet header; returns the shard."""
    return [
        _Line(LDH_IND, 12),
        *_skip_tag("first tag", "second"),
        *_skip_tag("second tag", "network", label="second"),
        _Line(JEQ_K, 0x0800, "ipv4", label="network"),
        _Line(JEQ_K, 0x86DD, "ipv6", "other"),
        *_ipv4(),
        *_ipv6(),
        *_hash(shards),
        _Line(RET_K, 0, label="other"),
    ]


def _skip_tag(name: str, after: str, label: str = _NEXT) -> list[_Line]:
    """A is the EtherType at X + 12; if it announces a VLAN tag, X moves on by that tag."""
    return [
        _Line(JEQ_K, 0x8100, name, label=label),
        _Line(JEQ_K, 0x88A8, name),
        _Line(JEQ_K, 0x9100, name, after),
        _Line(TXA, label=name),
        _Line(ADD_K, 4),
        _Line(TAX),
        _Line(LDH_IND, 12),
    ]


def _ipv4() -> list[_Line]:
    """X + 14 is the IPv4 header; leaves the addresses' sum in memory 0 and the TCP header's offset less 14 in X."""
    return [
        _Line(LDB_IND, 14 + 9, label="ipv4"),
        _Line(JEQ_K, socket.IPPROTO_TCP, _NEXT, "other"),
        _Line(STX, 1),
        *_sum_of_words(14 + 12, 2),
        _Line(LDB_IND, 14),
        _Line(AND_K, 0x0F),
        _Line(LSH_K, 2),
        _Line(ADD_X),
        _Line(TAX),
        _Line(JA, true="ports"),
    ]


def _ipv6() -> list[_Line]:
    """X + 14 is the IPv6 header, which TCP must follow at once; leaves what `_ipv4` leaves."""
    return [
        _Line(LDB_IND, 14 + 6, label="ipv6"),
        _Line(JEQ_K, socket.IPPROTO_TCP, _NEXT, "other"),
        _Line(STX, 1),
        *_sum_of_words(14 + 8, 8),
        _Line(TXA),
        _Line(ADD_K, 40),
        _Line(TAX),
    ]


def _sum_of_words(offset: int, words: int) -> list[_Line]:
    """Memory 0 = sum of the words at X + offset; X is kept, by the copy in memory 1."""
    lines = [_Line(LDW_IND, offset), _Line(ST, 0)]
    for number in range(1, words):
        lines += [_Line(LDW_IND, offset + 4 * number), _Line(LDX_MEM, 0), _Line(ADD_X), _Line(ST, 0), _Line(LDX_MEM, 1)]
    return lines


def _hash(shards: int) -> list[_Line]:
    """Add the ports at X + 14 to memory 0; return the shard."""
    return [
        _Line(LDH_IND, 14, label="ports"),
        _Line(ST, 1),
        _Line(LDH_IND, 16),
        _Line(LDX_MEM, 0),
        _Line(ADD_X),
        _Line(LDX_MEM, 1),
        _Line(ADD_X),
        _Line(MUL_K, _ODD),
        _Line(RSH_K, _SHIFT),
        _Line(MOD_K, shards),
        _Line(RET_A),
    ]


def _assemble(lines: Sequence[_Line]) -> list[Instruction]:
    places = {line.label: number for number, line in enumerate(lines) if line.label}

    def distance(number: int, label: str) -> int:
        return places[label] - number - 1 if label else 0

    program = []
    for number, line in enumerate(lines):
        if line.code == JA:
            program.append(Instruction(JA, 0, 0, distance(number, line.true)))
        else:
            program.append(Instruction(line.code, distance(number, line.true), distance(number, line.false), line.k))
    return program


def open_group(
    address: str, port: int, shards: int, receive_buffer: int, program: Sequence[Instruction]
) -> list[socket.socket]:
    """One bound, non-blocking socket per shard, in the shards' order. Raises OSError."""
    sockets: list[socket.socket] = []
    try:
        for number in range(shards):
            sock = _open(address, receive_buffer)
            sockets.append(sock)
            if number == 0:
                _attach(sock, program)
            sock.bind((address, port))
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _open(address: str, receive_buffer: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    wish_buffer(sock, receive_buffer)
    return sock


def _attach(sock: socket.socket, program: Sequence[Instruction]) -> None:
    _set_filter(sock, SO_ATTACH_REUSEPORT_CBPF, program)


def close_to_arrivals(sock: socket.socket) -> None:
    """From now on the kernel drops, and counts, what arrives; what the socket already holds can still be read."""
    _set_filter(sock, SO_ATTACH_FILTER, [Instruction(RET_K, 0, 0, 0)])


def _set_filter(sock: socket.socket, option: int, program: Sequence[Instruction]) -> None:
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    memory = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, option, bytes(_Program(len(program), ctypes.addressof(memory))))


def wish_buffer(sock: socket.socket, size: int) -> None:
    """Ask the kernel for a receive buffer; `effective_buffer` says what it granted."""
    wish = min(size, _BUFFER_LIMIT)
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, wish)
    except PermissionError:  # without CAP_NET_ADMIN the kernel gives as much as net.core.rmem_max allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wish)


def effective_buffer(sock: socket.socket) -> int:
    """The receive buffer that the kernel granted, in the unit of `receive_buffer` and net.core.rmem_max: the kernel
    doubles what it is asked for, for its own bookkeeping."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def socket_drops(sock: socket.socket, before: int = 0) -> int:
    """Datagrams that the kernel dropped on this socket so far; `before` is what this function said last."""
    meminfo = sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, _MEMINFO.size)
    return widen(_MEMINFO.unpack(meminfo)[_MEMINFO_DROPS], before)


def widen(counter: int, before: int) -> int:
    """The number congruent to a 32-bit `counter` that is the next one from `before` on."""
    return before + ((counter - before) & 0xFFFF_FFFF)
