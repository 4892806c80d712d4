"""Decapsulation against scapy: whole, cut anywhere, damaged."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scapy.contrib.geneve import GENEVE
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1Q, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from replayer.decap import Endpoints, Segment, Tunnels, endpoints, frame, geneve, vxlan
from replayer.ledger import Refused
from tests.strategies import EXTENSIONS, Path, examples, get, stack, wrap

ETHERNET, RAW, COOKED, COOKED2 = 1, 101, 113, 276
TUNNELS = Tunnels(vxlan=4789, geneve=6081)

ipv4 = st.tuples(st.ip_addresses(v=4), st.ip_addresses(v=4))
ipv6 = st.tuples(st.ip_addresses(v=6), st.ip_addresses(v=6))
ports = st.integers(1, 65_535)
vlans = st.lists(st.integers(0, 4_095), max_size=2).map(tuple)
numbers = st.integers(0, (1 << 32) - 1)
geneve_options = st.lists(st.integers(0, 31).map(lambda words: bytes(4 * words)), max_size=8).filter(
    lambda values: sum(len(value) + 4 for value in values) <= 63 * 4
)


@st.composite
def paths(draw: st.DrawFn, **fixed: Any) -> Path:
    """Any encapsulation that a mirror can bring."""
    client, server = map(str, draw(st.one_of(ipv4, ipv6)))
    drawn: dict[str, Any] = {
        "client": client,
        "server": server,
        "client_port": draw(ports),
        "server_port": draw(ports),
        "vni": draw(st.integers(0, (1 << 24) - 1)),
        "dot1ad": draw(vlans),
        "dot1q": draw(vlans),
        "ip_options": draw(st.integers(0, 40)),
        "extensions": tuple(draw(st.lists(st.sampled_from(["hop", "routing", "destination"]), unique=True))),
        "tcp_options": draw(st.integers(0, 40)),
        "geneve": draw(st.sampled_from(["", "", "ethernet", "ip", "vxlan"])),
        "geneve_options": tuple(draw(geneve_options)),
    } | fixed
    if draw(st.booleans()):
        drawn["extensions"] += ("authentication",)
    if ":" not in client and drawn["server_port"] == 4789:
        drawn["server_port"] = 80
    return Path(**drawn)


def decapsulate(path: Path, data: bytes) -> Segment | Refused:
    """As the worker does for what came on the port of the path's encapsulation."""
    if path.vni is None:
        return frame(ETHERNET, data, None, None, TUNNELS)
    return geneve(data, None, None) if path.geneve else vxlan(data, None, None)


def said(path: Path) -> Endpoints:
    """What the flow key must say; `ip_address` writes addresses in their one short form."""
    client, server = str(ip_address(path.client)), str(ip_address(path.server))
    return Endpoints(path.vni, client, path.client_port, server, path.server_port)


@examples(150)
@given(paths(), numbers, numbers, st.integers(0, 255), st.binary(max_size=60), st.binary(max_size=8), st.booleans())
def test_scapys_datagram(
    path: Path, seq: int, ack: int, flags: int, payload: bytes, trailer: bytes, checksums: bool
) -> None:
    data = bytes(stack(path, flags, seq, ack, payload, **({} if checksums else {"chksum": 0}))) + trailer
    found = decapsulate(path, data)
    assert isinstance(found, tuple), found
    key, *rest = found
    assert endpoints(key) == said(path)
    assert rest == [seq, ack, flags, payload, 0]


@examples(100)
@given(paths(), st.integers(0, 2**16), st.booleans())
def test_a_datagram_cut_anywhere(path: Path, at: int, plain: bool) -> None:
    """Cut in the payload it is a segment that says what is missing; cut in the headers it is refused as just that."""
    path = replace(path, vni=None, geneve="") if plain else path
    payload = get("/cut")
    data = bytes(stack(path, 24, 5, 6, payload, chksum=0))
    headers = len(data) - len(payload)
    at %= len(data)
    found = decapsulate(path, data[:at])
    if at < headers:
        assert found in (Refused.TRUNCATED, Refused.SHORT)
        if at >= 8 and not path.geneve_options:
            assert found is Refused.TRUNCATED
    else:
        assert isinstance(found, tuple)
        assert endpoints(found[0]) == said(path)
        assert found[4:] == (payload[: at - headers], len(data) - at)


@pytest.mark.parametrize("path", [Path(), Path(client="fd00::1", server="fd00::2", extensions=tuple(EXTENSIONS))])
def test_a_datagram_cut_at_every_byte(path: Path) -> None:
    payload = get("/cut")
    data = bytes(stack(path, 24, 5, 6, payload))
    headers = len(data) - len(payload)
    for at in range(8):
        assert vxlan(data[:at], None, None) is Refused.SHORT
    for at in range(8, headers):
        assert vxlan(data[:at], None, None) is Refused.TRUNCATED
    for at in range(headers, len(data) + 1):
        found = vxlan(data[:at], None, None)
        assert isinstance(found, tuple)
        assert found[4:] == (payload[: at - headers], len(data) - at)


def in_bounds(found: Segment | Refused, data: bytes) -> bool:
    """Is this a refusal, or a segment that can have come from `data`?"""
    if isinstance(found, Refused):
        return True
    key, seq, ack, flags, payload, missing = found
    where = endpoints(key)
    return (
        0 <= seq < 1 << 32
        and 0 <= ack < 1 << 32
        and 0 <= flags < 256
        and payload in data
        and 0 <= missing <= 65_535
        and len(payload) + missing <= 65_535
        and 0 <= where.dst_port <= 65_535
    )


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with bytes changed, put in and taken out."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(out)))
        kind = draw(st.sampled_from(["set", "set", "set", "insert", "delete", "cut"]))
        if kind == "set" and at < len(out):
            out[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            out[at:at] = draw(st.binary(max_size=8))
        elif kind == "delete":
            del out[at : at + draw(st.integers(1, 8))]
        elif kind == "cut":
            del out[at:]
    return bytes(out)


@examples(300)
@given(st.data(), paths(), st.binary(max_size=30), st.sampled_from([ETHERNET, RAW, COOKED, COOKED2, 12, 14, 228, 229]))
def test_a_damaged_datagram_never_raises(data: st.DataObject, path: Path, payload: bytes, link_type: int) -> None:
    raw = data.draw(damaged(bytes(stack(path, 24, 5, 6, payload, chksum=0))))
    for found in (vxlan(raw, None, None), geneve(raw, None, None), frame(link_type, raw, None, None, TUNNELS)):
        assert in_bounds(found, raw)


@examples(300)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_noise_never_raises(raw: bytes, link_type: int) -> None:
    for found in (vxlan(raw, None, None), geneve(raw, None, None), frame(link_type, raw, None, None, TUNNELS)):
        assert in_bounds(found, raw)


INNER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
PLAIN = INNER / IP(src="10.0.0.1", dst="10.0.1.1")
SIX = INNER / IPv6(src="fd00::1", dst="fd00::2")
HTTP = TCP(sport=40_000, dport=80, flags="PA") / Raw(get("/"))


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (VXLAN(vni=7, flags=0) / PLAIN / HTTP, Refused.NOT_VXLAN),
        (VXLAN(vni=8, flags="Instance") / PLAIN / HTTP, Refused.OTHER_VNI),
        (INNER / ARP(), Refused.NOT_IP),
        (Ether(type=0x86DD) / Raw(bytes(60)), Refused.MALFORMED),
        (Ether(type=0x0800) / Raw(bytes(60)), Refused.MALFORMED),
        (PLAIN / UDP(sport=1, dport=80) / Raw(bytes(40)), Refused.NOT_TCP),
        (PLAIN / ICMP() / Raw(bytes(40)), Refused.NOT_TCP),
        (SIX / UDP(sport=1, dport=80) / Raw(bytes(40)), Refused.NOT_TCP),
        (PLAIN / TCP(sport=80, dport=40_000) / Raw(bytes(40)), Refused.OTHER_PORT),
        (INNER / IP(flags="MF") / HTTP, Refused.FRAGMENT),
        (INNER / IP(frag=100) / HTTP, Refused.FRAGMENT),
        (INNER / IP(frag=0x1FFF, flags="MF") / HTTP, Refused.FRAGMENT),
        (SIX / IPv6ExtHdrFragment(offset=0, m=1) / HTTP, Refused.FRAGMENT),
        (SIX / IPv6ExtHdrFragment(offset=99) / HTTP, Refused.FRAGMENT),
        (INNER / IP(ihl=4) / HTTP, Refused.MALFORMED),
        (INNER / IP(version=6) / HTTP, Refused.MALFORMED),
        (INNER / IP(len=19) / HTTP, Refused.MALFORMED),
        (INNER / IP(len=30) / HTTP, Refused.MALFORMED),
        (PLAIN / TCP(dport=80, dataofs=4) / Raw(get("/")), Refused.MALFORMED),
        (INNER / IP(len=42) / TCP(dport=80, dataofs=6) / Raw(get("/")), Refused.MALFORMED),
        (INNER / IPv6(plen=10) / HTTP, Refused.MALFORMED),
    ],
)  # fmt: skip
def test_refusals(packet: Packet, reason: Refused) -> None:
    datagram = packet if isinstance(packet, VXLAN) else VXLAN(vni=7, flags="Instance") / packet
    assert vxlan(bytes(datagram), {80}, {7}) is reason
    if datagram is not packet:
        inner = GENEVE(vni=7, proto=0x6558) / packet
        assert geneve(bytes(inner), {80}, {7}) is reason


def test_dont_fragment_is_no_fragment() -> None:
    assert isinstance(vxlan(bytes(wrap(Path(), INNER / IP(flags="DF") / HTTP)), {80}, {7}), tuple)


def test_reserved_vxlan_bits_are_ignored() -> None:
    """RFC 7348 §5: reserved fields are ignored on receipt."""
    data = bytearray(bytes(stack(Path(), 24, 5, 6, b"data")))
    data[0] |= 0xF7
    data[1:4] = b"\xff\xff\xff"
    data[7] = 0xFF
    found = vxlan(bytes(data), {80}, {7})
    assert isinstance(found, tuple)
    assert endpoints(found[0]) == said(Path())


def test_the_vni_alone_tells_two_flows_apart() -> None:
    one = vxlan(bytes(stack(Path(vni=1), 24, 5, 6, b"data")), None, None)
    two = vxlan(bytes(stack(Path(vni=2), 24, 5, 6, b"data")), None, None)
    assert isinstance(one, tuple) and isinstance(two, tuple)
    assert one[0] != two[0]
    assert one[1:] == two[1:]


@pytest.mark.parametrize(
    ("header", "reason"),
    [({"version": 1}, Refused.NOT_GENEVE), ({"oam": 1}, Refused.NOT_GENEVE), ({"proto": 0x88B5}, Refused.NOT_IP)],
)
def test_geneve_refusals(header: dict[str, int], reason: Refused) -> None:
    packet = GENEVE(**{"vni": 7, "proto": 0x6558, **header}) / PLAIN / HTTP
    assert geneve(bytes(packet), {80}, {7}) is reason


@pytest.mark.parametrize("size", range(8))
def test_a_geneve_datagram_shorter_than_its_header(size: int) -> None:
    assert geneve(bytes(stack(Path(geneve="ip"), 24, 5, 6, b""))[:size], None, None) is Refused.SHORT


def test_a_geneve_datagram_that_ends_in_its_options() -> None:
    data = bytes(stack(Path(geneve="ip", geneve_options=(bytes(40),)), 24, 5, 6, b""))
    assert geneve(data[:30], None, None) is Refused.SHORT


@pytest.mark.parametrize("kind", ["ethernet", "ip", "vxlan"])
def test_geneve_takes_the_listed_vnis_and_ports(kind: Any) -> None:
    data = bytes(stack(Path(vni=7, geneve=kind, geneve_options=(b"abcd",)), 24, 5, 6, b"data"))
    assert isinstance(geneve(data, {80}, {7}), tuple)
    assert geneve(data, {80}, {8}) is Refused.OTHER_VNI
    assert geneve(data, {81}, {7}) is Refused.OTHER_PORT


# Captured frames

PLAIN_PATH = Path(vni=None)
NETWORK = IP(src="10.0.0.1", dst="10.0.1.1") / TCP(sport=40_000, dport=80, seq=5, ack=6, flags="PA") / Raw(b"data")
NETWORK6 = IPv6(src="10::1", dst="10::2") / TCP(sport=40_000, dport=80, seq=5, ack=6, flags="PA") / Raw(b"data")


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [
        (ETHERNET, INNER / NETWORK),
        (ETHERNET, INNER / Dot1Q(vlan=1) / Dot1Q(vlan=2) / NETWORK),
        (RAW, NETWORK), (12, NETWORK), (14, NETWORK), (228, NETWORK),
        (COOKED, CookedLinux(proto=0x0800) / NETWORK),
        (COOKED, CookedLinux(proto=0x8100) / Dot1Q(vlan=9) / NETWORK),
        (COOKED2, CookedLinuxV2(proto=0x0800) / NETWORK),
    ],
)  # fmt: skip
def test_plain_frames(link_type: int, packet: Packet) -> None:
    found = frame(link_type, bytes(packet) + b"trailer", {80}, {7}, TUNNELS)
    assert isinstance(found, tuple), found
    assert endpoints(found[0]) == Endpoints(None, "10.0.0.1", 40_000, "10.0.1.1", 80)
    assert found[1:] == (5, 6, 24, b"data", 0)


@pytest.mark.parametrize(
    ("link_type", "packet"),
    [(ETHERNET, INNER / NETWORK6), (RAW, NETWORK6), (229, NETWORK6), (COOKED2, CookedLinuxV2(proto=0x86DD) / NETWORK6)],
)
def test_plain_frames_of_ipv6(link_type: int, packet: Packet) -> None:
    found = frame(link_type, bytes(packet), {80}, None, TUNNELS)
    assert isinstance(found, tuple), found
    assert endpoints(found[0]) == Endpoints(None, "10::1", 40_000, "10::2", 80)
    assert found[4:] == (b"data", 0)


def outer(port: int) -> Packet:
    """What surrounds a mirrored packet on the wire."""
    return IP(src="10.9.0.1", dst="10.9.0.2") / UDP(sport=50_000, dport=port)


@pytest.mark.parametrize("link", [lambda: INNER, lambda: INNER / Dot1Q(vlan=4), lambda: CookedLinux(proto=0x0800)])
@pytest.mark.parametrize("kind", ["", "ethernet", "ip", "vxlan"])
def test_mirrored_frames(link: Callable[[], Packet], kind: Any) -> None:
    path = Path(geneve=kind)
    packet = link() / outer(6081 if kind else 4789) / stack(path, 24, 5, 6, b"data", chksum=0)
    link_type = COOKED if isinstance(packet, CookedLinux) else ETHERNET
    found = frame(link_type, bytes(packet) + b"trailer", {80}, {7}, TUNNELS)
    assert isinstance(found, tuple), found
    assert endpoints(found[0]) == said(path)
    assert found[1:] == (5, 6, 24, b"data", 0)


def test_a_mirrored_frame_that_the_capture_cut() -> None:
    packet = bytes(INNER / outer(4789) / stack(Path(), 24, 5, 6, b"0123456789", chksum=0))
    found = frame(ETHERNET, packet[:-4], {80}, {7}, TUNNELS)
    assert isinstance(found, tuple)
    assert found[4:] == (b"012345", 4)


def test_udp_to_another_port_is_no_mirrored_packet() -> None:
    packet = INNER / outer(4790) / stack(Path(), 24, 5, 6, b"data", chksum=0)
    assert frame(ETHERNET, bytes(packet), {80}, {7}, TUNNELS) is Refused.NOT_TCP


def test_mirrored_frames_at_other_ports() -> None:
    there = INNER / outer(14_789) / stack(Path(), 24, 5, 6, b"data", chksum=0)
    assert isinstance(frame(ETHERNET, bytes(there), {80}, {7}, Tunnels(vxlan=14_789, geneve=16_081)), tuple)
    there = INNER / outer(16_081) / stack(Path(geneve="ip"), 24, 5, 6, b"data", chksum=0)
    assert isinstance(frame(ETHERNET, bytes(there), {80}, {7}, Tunnels(vxlan=14_789, geneve=16_081)), tuple)
    assert frame(ETHERNET, bytes(there), {80}, {7}, Tunnels(vxlan=14_789, geneve=None)) is Refused.NOT_TCP


@pytest.mark.parametrize("link_type", [0, 105, 127, 147, 220, 9_999])
def test_link_types_that_are_not_read(link_type: int) -> None:
    assert frame(link_type, bytes(INNER / NETWORK), {80}, None, TUNNELS) is Refused.LINK_TYPE


@pytest.mark.parametrize("link_type", [ETHERNET, RAW, COOKED, COOKED2])
def test_an_empty_frame(link_type: int) -> None:
    assert frame(link_type, b"", {80}, None, TUNNELS) is Refused.TRUNCATED


@given(ipv4, ports, ports, st.integers(0, (1 << 24) - 1))
def test_the_two_directions_of_a_connection_have_two_keys(
    addresses: tuple[Any, Any], client_port: int, server_port: int, vni: int
) -> None:
    client, server = map(str, addresses)
    assume((client, client_port) != (server, server_port))
    there = Path(client=client, server=server, client_port=client_port, server_port=server_port, vni=vni)
    back = Path(client=server, server=client, client_port=server_port, server_port=client_port, vni=vni)
    one, two = (vxlan(bytes(stack(path, 24, 5, 6, b"", chksum=0)), None, None) for path in (there, back))
    assert isinstance(one, tuple) and isinstance(two, tuple)
    assert one[0] != two[0]
