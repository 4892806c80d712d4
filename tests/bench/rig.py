"""The bench's rig: the lab's network, nginx at its ends, recorded traffic, a sender and a bare listener.

    client ── prod (nginx, mirror) ── worker (replayer run, or the listener, or wrk as yardstick) ── test (nginx)

Production's traffic is recorded once, at the worker's end of the mirror path. From then on production is silent: the
sender in `prod` plays the recordings. So the worker and wrk reach the same nginx over the same link.
"""

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from lab.network import mirror, nginx
from lab.network.mirror import VXLAN_PORT, Mirror
from lab.network.topology import PROD, TEST, WORKER, Network
from lab.relay import enlarge
from tests.bench import wrk
from tests.bench.listener import Listener
from tests.bench.recording import Recording, assemble, record
from tests.bench.sender import Sender
from tests.bench.wrk import GET, ONCE, UPLOAD, Kind

LISTENER_PORT = 4790
#: Datagrams to record of each kind.
RECORDED = {GET: 200_000, ONCE: 100_000, UPLOAD: 100_000}


@dataclass(frozen=True, slots=True)
class Rig:
    """All of it, running."""

    network: Network
    recordings: Mapping[str, Recording]
    sender: Sender
    listener: Listener


@contextmanager
def rig(kinds: tuple[Kind, ...], scale: float = 1.0) -> Iterator[Rig]:
    """The rig with recordings of these kinds, `scale` times as long as usual. Needs a sandbox around it."""
    with Network() as network:
        nginx.start(network, "test", f"{TEST}:80", logged=False)
        recordings = _record(network, kinds, scale)
        playing = network.socket("prod", socket.SOCK_DGRAM)
        listening = _bound(network, LISTENER_PORT)
        with playing, listening:
            yield Rig(network, recordings, Sender(playing, WORKER, recordings), Listener(listening))


def _record(network: Network, kinds: tuple[Kind, ...], scale: float) -> dict[str, Recording]:
    # A client whose server has to wait for its turn would send the end of a request twice (RFC 8985 §7).
    network.run("client", "sysctl", "-qw", "net.ipv4.tcp_early_retrans=0")
    with _one_core():
        nginx.start(network, "prod", f"{PROD}:80")
    mirror.start(network, Mirror())
    recordings = {}
    for kind in kinds:
        with _bound(network, VXLAN_PORT) as sock:
            with _one_core():
                client = wrk.start(network, "client", PROD, kind, seconds=60)
            datagrams = record(sock, client, int(RECORDED[kind] * scale))
        assert client.stdout is not None
        client.stdout.close()
        recordings[kind.name] = assemble(kind.name, datagrams)
    return recordings


@contextmanager
def _one_core() -> Iterator[None]:
    """For programs to start in: on two cores, segments of one connection overtake each other on their way."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _bound(network: Network, port: int) -> socket.socket:
    sock = network.socket("worker", socket.SOCK_DGRAM)
    enlarge(sock)
    sock.bind((WORKER, port))
    return sock
