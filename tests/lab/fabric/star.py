"""The fabric's router with two workers on it, and the addresses of two mirrored interfaces."""

import socket

from lab.fabric import router
from lab.network.namespaces import inside, ip

SOURCES = ("10.0.0.5", "10.0.0.6")
WORKERS = {"i-1": "10.0.1.1", "i-2": "10.0.1.2"}


def build() -> None:
    """In the sandbox. Workers are namespaces by their names."""
    router.build()
    workers = enumerate(WORKERS.items(), 1)
    router.connect(
        [
            router.Port(name, "eth0", f"w{index}", address, f"02:00:00:00:00:0{index}")
            for index, (name, address) in workers
        ]
    )
    ip([f"address add {source}/32 dev lo" for source in SOURCES], router.NITRO)


def sender(address: str, port: int) -> socket.socket:
    """A socket that stands for a VXLAN device; connect it to a port of the balancer."""
    with inside(router.NITRO):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def receiver(worker: str, port: int = 4789) -> socket.socket:
    """What a worker listens with."""
    with inside(worker):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((WORKERS[worker], port))
    return made


def received(receiver: socket.socket) -> list[tuple[bytes, tuple[str, int]]]:
    """The datagrams that lie in a socket, and who sent them."""
    found = []
    try:
        while True:
            found.append(receiver.recvfrom(65535))
    except BlockingIOError:
        return found
