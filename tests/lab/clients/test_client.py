"""Real connections: what the client says it sent is what the server got, in segments as it foresaw."""

import socket
import subprocess
import sys

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.vxlan import VXLAN

from lab import recorder
from lab.clients import client
from lab.clients.exchange import DECOYS
from lab.network import mirror
from lab.network.mirror import VXLAN_PORT, Mirror
from lab.network.processes import stop
from lab.network.topology import PROD, WORKER, Network
from lab.relay import enlarge

pytestmark = [pytest.mark.alone, pytest.mark.network]


def _payload(packet: VXLAN) -> bytes:
    return bytes(packet[TCP].payload)[: packet[IP].len - 4 * packet[IP].ihl - 4 * packet[TCP].dataofs]


def test_requests_lie_in_their_streams_where_the_client_says() -> None:
    with Network() as network, network.socket("worker", socket.SOCK_DGRAM) as listener:
        enlarge(listener)
        listener.bind((WORKER, VXLAN_PORT))
        listener.settimeout(1)
        log, sent_log = network.directory / "received", network.directory / "sent"
        server = network.start_python("prod", "lab.recorder", f"{PROD}:80", str(log))
        mirror.start(network, Mirror())
        flags = ["--rate", "100", "--seconds", "3", "--connections", "20", "--once", "5", "--mix", "lossy"]
        command = [sys.executable, "-m", "lab.clients.client", f"{PROD}:80", str(sent_log), *flags]
        assert network.start("client", command, stdout=subprocess.DEVNULL).wait(30) == 0
        packets = [VXLAN(listener.recv(65535)) for _ in range(mirror.copied(network))]
        stop(server)
        sent, received = client.read(sent_log), recorder.read(log)

    assert sorted((entry.id, entry.sha256) for entry in sent) == sorted(
        (dict(entry.headers)["X-Lab-Id"], entry.sha256) for entry in received
    )
    assert 200 < len(sent) < 400
    first = {packet[TCP].sport: packet[TCP].seq + 1 for packet in packets if packet[TCP].flags.S}
    starts = {
        (packet[TCP].sport, packet[TCP].seq - first[packet[TCP].sport]): _payload(packet)
        for packet in packets
        if _payload(packet)
    }
    for request in sent:
        if request.together == 1:
            assert starts[request.port, request.start].startswith(f"{request.method} {request.target} ".encode())
    assert sum(payload.startswith(DECOYS) for payload in starts.values()) > 50
    assert sum(payload.count(decoy) for payload in starts.values() for decoy in DECOYS) == sum(
        payload.startswith(DECOYS) for payload in starts.values()
    )
