"""A datagram on its way: cut to a session's packet length, and put into a packet that bears its sender's address."""

import struct
from socket import inet_aton

#: Mirrored packets begin behind this much (RFC 7348, section 5).
VXLAN_HEADER = 8

#: IPv4 without options (RFC 791) and UDP (RFC 768) in one.
_HEADERS = struct.Struct("!BBHHHBBH4s4sHHHH")
_IPV4, _HOPS, _UDP = 0x45, 64, 17
_UDP_HEADER = 8


def cut(datagram: bytes, packet_length: int | None) -> bytes:
    """`packet_length` counts from the end of the VXLAN header (CreateTrafficMirrorSession)."""
    return datagram if packet_length is None else datagram[: VXLAN_HEADER + packet_length]


def packet(source: tuple[str, int], target: tuple[str, int], payload: bytes) -> bytes:
    """An IPv4 packet for a raw socket.

    The kernel fills in identification, total length and header checksum (raw(7)). The UDP checksum is 0, "none", as a
    VXLAN device's is (RFC 7348, section 4.3).
    """
    length = _UDP_HEADER + len(payload)
    ends = (inet_aton(source[0]), inet_aton(target[0]), source[1], target[1])
    return _HEADERS.pack(_IPV4, 0, 0, 0, 0, _HOPS, _UDP, 0, *ends, length, 0) + payload
