"""The rules of a mirror filter for one direction, as a program of the kernel's classic BPF.

https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-filters.html: rules are looked at by ascending
number, the first that matches decides, and without one nothing is mirrored. A rule without a protocol takes all.

The program sees a frame with its Ethernet header (as tc's does) and returns 0, or TAKEN. An IPv4 packet is judged by
the IPv4 rules, an IPv6 packet by the IPv6 rules, and anything else (ARP) is never mirrored. Ports are those of TCP and
UDP; a packet without them (another protocol, a fragment that is not the first, cut short) matches no rule that has
ports. Of IPv6 the protocol is the fixed header's Next Header. [assumed] AWS says nothing of fragments and extension
headers.

    prologue        EtherType → IPv4 or IPv6
    for each IP     protocol and both ports → scratch memory, NO_PORT where there is none
    for each rule   tests, each of which leads to the next rule if it fails; then the verdict
    end             0

https://docs.kernel.org/networking/filter.html has the machine. Conditional jumps reach 255 instructions: a rule has
some 30, and the way to IPv6 is an unconditional jump, which reaches everywhere. A load from beyond the packet's end
ends the program with 0, which would skip the rules that remain; so ports are loaded only once the length is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

type Cidr = IPv4Network | IPv6Network

TAKEN = 0xFFFF_FFFF  # for tc: matches, and belongs to no class
NO_PORT = 0x1_0000  # beyond every range
PORTS = range(NO_PORT)

#: The kernel takes 4,096 (BPF_MAXINSNS), but tc has only 16 KiB for a filter, its action included.
LONGEST = 1900

_LOAD, _LOAD_HALF, _LOAD_BYTE, _LOAD_LENGTH, _RECALL = 0x20, 0x28, 0x30, 0x80, 0x60
_LOAD_HALF_AT_X, _HEADER_LENGTH, _SET_X = 0x48, 0xB1, 0x01
_IMMEDIATE, _STORE, _SUBTRACT, _AND, _RETURN = 0x00, 0x02, 0x14, 0x54, 0x06
_JUMP, _IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _IF_AT_LEAST_X, _IF_BITS = 0x05, 0x15, 0x25, 0x35, 0x3D, 0x45

_ETHERTYPE, _IP = 12, 14  # offsets in a frame
_IPV4, _IPV6 = 0x0800, 0x86DD
_TCP, _UDP = 6, 17
_FRAGMENT_OFFSET = 0x1FFF
_PROTOCOL, _SOURCE_PORT, _DESTINATION_PORT = 0, 1, 2  # places in scratch memory
_OUT = -1  # a jump to the end of a section, whose distance is filled in when it is known


class FilterError(Exception):
    """Rules that no program can be made of."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. Both networks are of one IP version; a range of ports has its two ends, both included."""

    accept: bool
    source: Cidr
    destination: Cidr
    protocol: int | None = None
    source_ports: tuple[int, int] | None = None
    destination_ports: tuple[int, int] | None = None


class Instruction(NamedTuple):
    """As the kernel has it: struct sock_filter."""

    code: int
    yes: int
    no: int
    value: int


type Program = tuple[Instruction, ...]


def program(rules: Sequence[Rule]) -> Program:
    """What `rules`, in the order of their numbers, mean; empty when they take nothing. Raises FilterError."""
    if not any(rule.accept for rule in rules):
        return ()
    four = _chain(_ports_of_ipv4(), [rule for rule in rules if rule.source.version == 4])
    six = _chain(_ports_of_ipv6(), [rule for rule in rules if rule.source.version == 6])
    prologue = [
        _do(_LOAD_HALF, _ETHERTYPE),
        _test(_IF_EQUAL, _IPV4, no=1),
        _do(_JUMP, 3),
        _test(_IF_EQUAL, _IPV6, no=1),
        _do(_JUMP, 1 + len(four)),
    ]
    made = (*prologue, _do(_RETURN, 0), *four, *six)
    if len(made) > LONGEST:
        text = f"{len(rules)} rules make {len(made)} BPF instructions, more than {LONGEST}: use fewer rules"
        raise FilterError(text)
    return made


def spelled(made: Program) -> str:
    """For tc: `bytecode "…"`."""
    return ",".join([str(len(made)), *("{} {} {} {}".format(*instruction) for instruction in made)])


def _do(code: int, value: int = 0) -> Instruction:
    return Instruction(code, 0, 0, value)


def _test(code: int, value: int, yes: int = 0, no: int = 0) -> Instruction:
    return Instruction(code, yes, no, value)


def _ports_of_ipv4() -> list[Instruction]:
    """Every load here but those of the ports is within the header's 20 bytes."""
    return _found_ports(
        [
            _do(_LOAD, _IP + 16),  # a packet that ends within the header is none
            _do(_LOAD_HALF, _IP + 6),
            _test(_IF_BITS, _FRAGMENT_OFFSET, yes=_OUT),
            _do(_HEADER_LENGTH, _IP),
        ],
        protocol=_IP + 9,
    )


def _ports_of_ipv6() -> list[Instruction]:
    return _found_ports([_do(_LOAD, _IP + 36), _do(_SET_X, 40)], protocol=_IP + 6)


def _found_ports(header: Sequence[Instruction], protocol: int) -> list[Instruction]:
    """Protocol and ports into scratch memory. `header` puts the IP header's length into X."""
    made = [
        _do(_IMMEDIATE, NO_PORT),
        _do(_STORE, _SOURCE_PORT),
        _do(_STORE, _DESTINATION_PORT),
        _do(_LOAD_BYTE, protocol),
        _do(_STORE, _PROTOCOL),
        *header,
        _do(_RECALL, _PROTOCOL),
        _test(_IF_EQUAL, _TCP, yes=1),
        _test(_IF_EQUAL, _UDP, no=_OUT),
        _do(_LOAD_LENGTH),
        _test(_IF_AT_LEAST, _IP + 4, no=_OUT),
        _do(_SUBTRACT, _IP + 4),
        _test(_IF_AT_LEAST_X, 0, no=_OUT),
        _do(_LOAD_HALF_AT_X, _IP),
        _do(_STORE, _SOURCE_PORT),
        _do(_LOAD_HALF_AT_X, _IP + 2),
        _do(_STORE, _DESTINATION_PORT),
    ]
    return _filled(made)


def _chain(ports: Sequence[Instruction], rules: Sequence[Rule]) -> list[Instruction]:
    """All that is done to a packet of one IP version."""
    judged = [*ports, *(instruction for rule in rules for instruction in _rule(rule))] if rules else []
    return [*judged, _do(_RETURN, 0)]


def _rule(rule: Rule) -> list[Instruction]:
    """Its tests, of which each that fails leads behind its verdict."""
    source, destination = (_IP + 12, _IP + 16) if rule.source.version == 4 else (_IP + 8, _IP + 24)
    made: list[Instruction] = []
    if rule.protocol is not None:
        made += [_do(_RECALL, _PROTOCOL), _test(_IF_EQUAL, rule.protocol, no=_OUT)]
    made += _within(rule.source, source)
    made += _within(rule.destination, destination)
    for place, ports in ((_SOURCE_PORT, rule.source_ports), (_DESTINATION_PORT, rule.destination_ports)):
        if ports is not None:
            least, most = ports
            made += [
                _do(_RECALL, place),
                _test(_IF_AT_LEAST, least, no=_OUT),
                _test(_IF_GREATER, most, yes=_OUT),
            ]
    return _filled([*made, _do(_RETURN, TAKEN if rule.accept else 0)])


def _within(network: Cidr, offset: int) -> Iterator[Instruction]:
    """Word by word, as far as the prefix goes."""
    address, mask = network.network_address.packed, network.netmask.packed
    for place in range(0, (network.prefixlen + 7) // 8, 4):
        word, bits = (int.from_bytes(whole[place : place + 4]) for whole in (address, mask))
        yield _do(_LOAD, offset + place)
        if bits != 0xFFFF_FFFF:
            yield _do(_AND, bits)
        yield _test(_IF_EQUAL, word, no=_OUT)


def _filled(made: Sequence[Instruction]) -> list[Instruction]:
    """A section with its jumps out."""

    def distance(jump: int, place: int) -> int:
        return len(made) - place - 1 if jump == _OUT else jump

    return [one._replace(yes=distance(one.yes, place), no=distance(one.no, place)) for place, one in enumerate(made)]
