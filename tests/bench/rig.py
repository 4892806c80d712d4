"""The bench's rig: the lab's network, nginx at its ends, recorded traffic, a sender and a bare listener.

    client ── prod (nginx, mirror) ── worker (replayer run, or the listener, or wrk as yardstick) ── test (nginx)

Production's traffic is recorded once, at the worker's end of the mirror path. From then on production is silent: the
sender in `prod` plays the recordings. So the worker and wrk reach the same nginx over the same link.
"""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.network import mirror, nginx
from lab.network.mirror import VXLAN_PORT, Mirror
from lab.network.topology import PROD, TEST, WORKER, Network, NetworkError
from lab.relay import enlarge
from tests.bench import wrk
from tests.bench.listener import Listener
from tests.bench.recording import Recording, assemble, record
from tests.bench.sender import Sender
from tests.bench.wrk import GET, ONCE, UPLOAD, Kind

LISTENER_PORT = 4790
#: Datagrams to record of each kind.
RECORDED = {GET: 200_000, ONCE: 100_000, UPLOAD: 100_000}
_SERVER = """
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen {address} backlog=4096;
        location / {{ return 200 "test\\n"; }}
        location /upload {{
            proxy_pass http://unix:{directory}/inner.sock:;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{directory}/inner.sock;
        location / {{ return 200 "test has it\\n"; }}
    }}
}}
"""


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
        _serve(network)
        recordings = _record(network, kinds, scale)
        playing = network.socket("prod", socket.SOCK_DGRAM)
        listening = _bound(network, LISTENER_PORT)
        with playing, listening:
            yield Rig(network, recordings, Sender(playing, WORKER, recordings), Listener(listening))


def _serve(network: Network) -> None:
    """The test environment: nginx that logs nothing and closes no connection."""
    directory: Path = network.directory / "nginx-bench"
    directory.mkdir()
    config = directory / "nginx.conf"
    config.write_text(_SERVER.format(directory=directory, address=f"{TEST}:80"))
    process = network.start("test", ["nginx", "-e", f"{directory}/error.log", "-p", str(directory), "-c", str(config)])
    deadline = time.monotonic() + 10
    while not (directory / "pid").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise NetworkError(f"nginx did not start: {(directory / 'error.log').read_text().strip()}")
        time.sleep(0.01)


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
