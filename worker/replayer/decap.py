"""Decapsulation: one datagram in, the TCP segment inside it or a counted refusal out.

A mirrored packet is an Ethernet frame in VXLAN (RFC 7348), which a Gateway Load Balancer wraps once more in
GENEVE (RFC 8926). AWS truncates at the target's MTU or PacketLength and leaves the checksums of what it truncated
unset, so no checksum is ever looked at; the IP total length says how much is missing, and cuts Ethernet padding.

Nearly every packet is untagged IPv4 without options: `vxlan` reads its headers with one `unpack_from`. All else walks
header by header. Nothing here raises on any input.
"""

from collections.abc import Collection
from functools import lru_cache
from ipaddress import IPv6Address
from struct import Struct
from typing import NamedTuple

from replayer.ledger import Refused

#: (flow key, sequence number, acknowledgement number, TCP flags, captured payload, payload bytes cut off).
#: The flow key is the VNI (3 bytes, absent in a plain capture), source and destination address, both ports.
type Segment = tuple[bytes, int, int, int, bytes, int]

FIN, SYN, RST = 0x01, 0x02, 0x04

VXLAN_PORT = 4789

_PLAIN = Struct("!II12xHB1xH2xH1xB12xHIIH").unpack_from
_PLAIN_SIZE = 56  # VXLAN 8, Ethernet 14, IPv4 20, TCP up to and with the flags
_TCP = Struct("!HHIIH").unpack_from
_SHORT = Struct("!H").unpack_from
_VXLAN_HEADER = Struct("!II").unpack_from
_VNI_PRESENT = 0x0800_0000

_IPV4, _IPV6, _ETHERNET = 0x0800, 0x86DD, 0x6558
_TAGS = (0x8100, 0x88A8, 0x9100)
_MOST_TAGS = 4
_IS_TCP, _IS_UDP = 6, 17
#: IPv6 headers that may stand before TCP and begin with (next header, length in 8 bytes less one): RFC 8200 §4.
_EXTENSIONS = (0, 43, 60, 135, 139, 140)
_IPV6_FRAGMENT, _IPV6_AUTHENTICATION = 44, 51
_MOST_EXTENSIONS = 8


class Endpoints(NamedTuple):
    """A flow key in words."""

    vni: int | None
    src: str
    src_port: int
    dst: str
    dst_port: int


@lru_cache(maxsize=4096)
def endpoints(key: bytes) -> Endpoints:
    """What a flow key says."""
    size = 4 if len(key) < 36 else 16
    at = len(key) - 2 * size - 4
    return Endpoints(
        vni=int.from_bytes(key[:3]) if at else None,
        src=_text(key[at : at + size]),
        src_port=_SHORT(key, at + 2 * size)[0],
        dst=_text(key[at + size : at + 2 * size]),
        dst_port=_SHORT(key, at + 2 * size + 2)[0],
    )


def _text(address: bytes) -> str:
    return ".".join(map(str, address)) if len(address) == 4 else str(IPv6Address(address))


def vxlan(data: bytes, ports: Collection[int] | None, vnis: Collection[int] | None) -> Segment | Refused:
    """The segment in a VXLAN datagram to one of `ports` under one of `vnis` (None = all)."""
    if len(data) >= _PLAIN_SIZE:
        flags, vni, ethertype, version, total, fragment, protocol, port, seq, ack, control = _PLAIN(data)
        if (
            flags & _VNI_PRESENT
            and ethertype == _IPV4
            and version == 0x45
            and protocol == _IS_TCP
            and not fragment & 0x3FFF
            and total
            and (vnis is None or vni >> 8 in vnis)
        ):
            if ports is not None and port not in ports:
                return Refused.OTHER_PORT
            start = 42 + (control >> 10 & 0x3C)
            end = 22 + total
            missing = end - len(data)
            if missing <= 0:
                if 62 <= start <= end:
                    return data[4:7] + data[34:46], seq, ack, control & 0xFF, data[start:end], 0
            elif 62 <= start <= len(data):
                return data[4:7] + data[34:46], seq, ack, control & 0xFF, data[start:], missing
    return _vxlan(data, 0, len(data), ports, vnis)


def _vxlan(
    data: bytes, at: int, end: int, ports: Collection[int] | None, vnis: Collection[int] | None
) -> Segment | Refused:
    if end - at < 8:
        return Refused.SHORT
    flags, vni = _VXLAN_HEADER(data, at)
    if not flags & _VNI_PRESENT:
        return Refused.NOT_VXLAN
    if vnis is not None and vni >> 8 not in vnis:
        return Refused.OTHER_VNI
    return _ethernet(data, at + 8, data[at + 4 : at + 7], ports)


def geneve(data: bytes, ports: Collection[int] | None, vnis: Collection[int] | None) -> Segment | Refused:
    """The segment in a GENEVE datagram (RFC 8926 §3.4), in VXLAN, as a Gateway Load Balancer brings it, or bare."""
    if len(data) < 8:
        return Refused.SHORT
    if data[0] >> 6 or data[1] & 0x80:
        return Refused.NOT_GENEVE
    at = 8 + 4 * (data[0] & 0x3F)
    if len(data) < at:
        return Refused.SHORT
    (protocol,) = _SHORT(data, 2)
    if protocol in (_IPV4, _IPV6):
        found = _network(data, at, protocol)
        if isinstance(found, tuple):
            number, start, end, _ = found
            if number == _IS_UDP and end - start >= 8 and _SHORT(data, start + 2)[0] == VXLAN_PORT:
                return _vxlan(data, start + 8, len(data), ports, vnis)
    if vnis is not None and int.from_bytes(data[4:7]) not in vnis:
        return Refused.OTHER_VNI
    if protocol == _ETHERNET:
        return _ethernet(data, at, data[4:7], ports)
    return _ip(data, at, protocol, data[4:7], ports)


#: pcap LINKTYPE numbers that `frame` reads.
_LINK_ETHERNET, _LINK_COOKED, _LINK_COOKED2 = 1, 113, 276
_LINK_RAW = (12, 14, 101, 228, 229)


class Tunnels(NamedTuple):
    """The UDP ports at which a captured packet is taken for a mirrored one."""

    vxlan: int = VXLAN_PORT
    geneve: int | None = 6081


def frame(
    link_type: int, data: bytes, ports: Collection[int] | None, vnis: Collection[int] | None, tunnels: Tunnels
) -> Segment | Refused:
    """The segment in a captured frame: of the mirrored packet in it, or else its own."""
    if link_type == _LINK_ETHERNET:
        ethertype, at = _ethertype(data, 12)
    elif link_type == _LINK_COOKED:
        ethertype, at = _ethertype(data, 14)
    elif link_type == _LINK_COOKED2:
        ethertype, at = (_SHORT(data, 0)[0], 20) if len(data) >= 20 else (None, 0)
    elif link_type in _LINK_RAW:
        ethertype, at = ({4: _IPV4, 6: _IPV6}.get(data[0] >> 4) if data else None), 0
    else:
        return Refused.LINK_TYPE
    if ethertype is None:
        return Refused.TRUNCATED
    found = _network(data, at, ethertype)
    if isinstance(found, tuple):
        number, start, end, _ = found
        if number == _IS_UDP and len(data) - start >= 8:
            (port,) = _SHORT(data, start + 2)
            if port == tunnels.vxlan:
                return vxlan(data[start + 8 : end], ports, vnis)
            if port == tunnels.geneve:
                return geneve(data[start + 8 : end], ports, vnis)
    return _ip(data, at, ethertype, b"", ports)


def _ethertype(data: bytes, at: int) -> tuple[int | None, int]:
    """The EtherType at `at` or behind the VLAN tags there, and where its payload begins."""
    for _ in range(_MOST_TAGS + 1):
        if len(data) < at + 2:
            return None, 0
        (ethertype,) = _SHORT(data, at)
        if ethertype not in _TAGS:
            return ethertype, at + 2
        at += 4
    return 0, 0


def _ethernet(data: bytes, at: int, vni: bytes, ports: Collection[int] | None) -> Segment | Refused:
    ethertype, start = _ethertype(data, at + 12)
    if ethertype is None:
        return Refused.TRUNCATED
    return _ip(data, start, ethertype, vni, ports)


def _ip(data: bytes, at: int, ethertype: int, vni: bytes, ports: Collection[int] | None) -> Segment | Refused:
    found = _network(data, at, ethertype)
    if not isinstance(found, tuple):
        return found
    protocol, start, end, addresses = found
    if protocol != _IS_TCP:
        return Refused.NOT_TCP
    if end - start < 20:
        return Refused.MALFORMED
    if len(data) < start + 14:
        return Refused.TRUNCATED
    _, port, seq, ack, control = _TCP(data, start)
    if ports is not None and port not in ports:
        return Refused.OTHER_PORT
    payload = start + (control >> 10 & 0x3C)
    if payload < start + 20 or payload > end:
        return Refused.MALFORMED
    if payload > len(data):
        return Refused.TRUNCATED
    key = vni + addresses + data[start : start + 4]
    return key, seq, ack, control & 0xFF, data[payload:end], max(0, end - len(data))


def _network(data: bytes, at: int, ethertype: int) -> tuple[int, int, int, bytes] | Refused:
    """Of the IP packet at `at`: protocol, where its payload begins and ends (by the IP length), both addresses."""
    if ethertype == _IPV4:
        return _ipv4(data, at)
    if ethertype == _IPV6:
        return _ipv6(data, at)
    return Refused.NOT_IP


def _ipv4(data: bytes, at: int) -> tuple[int, int, int, bytes] | Refused:
    if len(data) < at + 20:
        return Refused.TRUNCATED
    header = 4 * (data[at] & 0x0F)
    if data[at] >> 4 != 4 or header < 20:
        return Refused.MALFORMED
    if _SHORT(data, at + 6)[0] & 0x3FFF:
        return Refused.FRAGMENT
    # A capture made where segmentation is offloaded has no total length: the frame ends the packet.
    total = _SHORT(data, at + 2)[0] or len(data) - at
    if total < header:
        return Refused.MALFORMED
    return data[at + 9], at + header, at + total, data[at + 12 : at + 20]


def _ipv6(data: bytes, at: int) -> tuple[int, int, int, bytes] | Refused:
    if len(data) < at + 40:
        return Refused.TRUNCATED
    if data[at] >> 4 != 6:
        return Refused.MALFORMED
    following, start = data[at + 6], at + 40
    end = start + (_SHORT(data, at + 4)[0] or len(data) - start)
    for _ in range(_MOST_EXTENSIONS):
        if following == _IPV6_FRAGMENT:
            return Refused.FRAGMENT
        if following not in _EXTENSIONS and following != _IPV6_AUTHENTICATION:
            return following, start, end, data[at + 8 : at + 40]
        if len(data) < start + 2:
            return Refused.TRUNCATED
        size = 4 * (data[start + 1] + 2) if following == _IPV6_AUTHENTICATION else 8 * (data[start + 1] + 1)
        following, start = data[start], start + size
        if start > end:
            return Refused.MALFORMED
    return Refused.MALFORMED
