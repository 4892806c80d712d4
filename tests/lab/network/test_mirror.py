"""The mirror is the kernel's; scapy says what reaches the worker."""

import socket

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.vxlan import VXLAN

from lab.network import mirror, nginx
from lab.network.mirror import Mirror
from lab.network.topology import CLIENT, PROD, WORKER, Network

pytestmark = pytest.mark.network


def _packets(listener: socket.socket) -> list[VXLAN]:
    """What lies in the socket: the mirror delivered it before the client's answer."""
    listener.setblocking(False)
    packets = []
    try:
        while True:
            packets.append(VXLAN(listener.recv(65535)))
    except BlockingIOError:
        return packets


def _exchange(what: Mirror, mtu: int, *curl: str) -> tuple[list[VXLAN], int, str]:
    with Network(mtu) as network:
        nginx.start(network, "prod", f"{PROD}:80")
        with network.socket("worker", socket.SOCK_DGRAM) as listener:
            listener.bind((WORKER, mirror.VXLAN_PORT))
            mirror.start(network, what)
            answer = network.run("client", "curl", "-sS", *curl)
            copied = mirror.copied(network)
            return _packets(listener), copied, answer


def test_ingress_only_the_request_direction_is_mirrored() -> None:
    packets, copied, answer = _exchange(Mirror(vni=77), 1500, f"http://{PROD}/hello")

    assert answer == "prod\n"
    assert len(packets) == copied >= 5  # SYN, ACK, request, ACK of the answer, FIN
    assert {packet.vni for packet in packets} == {77}
    assert {(packet[IP].src, packet[IP].dst, packet[TCP].dport) for packet in packets} == {(CLIENT, PROD, 80)}
    requests = [bytes(packet[TCP].payload) for packet in packets if b"GET /hello" in bytes(packet[TCP].payload)]
    assert len(requests) == 1


def test_both_directions_are_mirrored_when_asked_for() -> None:
    packets, copied, _ = _exchange(Mirror(both=True), 1500, f"http://{PROD}/hello")

    assert len(packets) == copied
    assert {packet[TCP].dport == 80 for packet in packets} == {True, False}
    assert any(bytes(packet[TCP].payload).startswith(b"HTTP/1.1 200") for packet in packets)


@pytest.mark.parametrize("mtu", [1500, 9001])
def test_frames_are_never_longer_than_the_production_link_allows(mtu: int) -> None:
    packets, copied, _ = _exchange(Mirror(), mtu, "-d", "x" * 100_000, f"http://{PROD}/upload")

    assert len(packets) == copied
    assert max(packet[IP].len for packet in packets) == mtu
    assert all(packet[IP].len == len(bytes(packet[IP])) for packet in packets)  # nothing is cut on the mirror path
