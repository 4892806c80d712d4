"""A UDP relay on the mirror path that loses, delays and doubles datagrams: `python -m lab.relay --help`.

Until SIGTERM; then it sends what it still holds and writes what it did, with the bytes that were lost, as JSON.
"""

import argparse
import heapq
import json
import select
import signal
import socket
import struct
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.impairment import Fates, Impairment
from lab.losses import Losses, Lost

_SO_RCVBUFFORCE = 33
_SO_MEMINFO, _MEMINFO_DROPS = 55, 8
_BUFFER = 64 << 20
_BATCH = 256
_TICK = 0.1


@dataclass(frozen=True, slots=True)
class Report:
    """What a relay did. `kernel_drops` were lost before it could decide: a run with any proves nothing."""

    received: int
    sent: int
    dropped: int
    reordered: int
    duplicated: int
    kernel_drops: int
    decoys: int
    lost: tuple[Lost, ...]


class _Relay:
    def __init__(self, listen: tuple[str, int], to: tuple[str, int], impairment: Impairment) -> None:
        self._fates, self._losses = Fates(impairment), Losses()
        self._late: list[tuple[float, int, bytes]] = []
        self._received = self._sent = 0
        self._ended = False
        self._incoming = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        enlarge(self._incoming)
        self._incoming.bind(listen)
        self._incoming.setblocking(False)
        self._outgoing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._outgoing.connect(to)

    def end(self, _number: int, _frame: object) -> None:
        """SIGTERM: finish."""
        self._ended = True

    def run(self) -> Report:
        poll = select.poll()
        poll.register(self._incoming, select.POLLIN)
        while not self._ended:
            wait = self._late[0][0] - time.monotonic() if self._late else _TICK
            poll.poll(max(0.0, min(wait, _TICK)) * 1000)
            self._receive()
            self._send_due(time.monotonic())
        while self._receive():  # what was sent before the end is passed on, however much of it waits
            pass
        self._send_due(float("inf"))
        drops = struct.unpack("=9I", self._incoming.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[_MEMINFO_DROPS]
        fates = self._fates
        return Report(
            self._received,
            self._sent,
            fates.dropped,
            fates.reordered,
            fates.duplicated,
            drops,
            self._losses.decoys,
            tuple(self._losses.lost()),
        )

    def _receive(self) -> bool:
        """Whether more may wait than one batch."""
        now = time.monotonic()
        for _ in range(_BATCH):
            try:
                datagram = self._incoming.recv(65535)
            except BlockingIOError:
                return False
            self._received += 1
            delays = self._fates.decide()
            self._losses.tell(datagram, survived=bool(delays))
            for delay in delays:
                if delay:
                    heapq.heappush(self._late, (now + delay, self._received, datagram))
                else:
                    self._send(datagram)
        return True

    def _send_due(self, now: float) -> None:
        while self._late and self._late[0][0] <= now:
            self._send(heapq.heappop(self._late)[2])

    def _send(self, datagram: bytes) -> None:
        self._outgoing.send(datagram)
        self._sent += 1


def enlarge(receiver: socket.socket) -> None:
    """As large a receive buffer as the kernel allows."""
    try:
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def read(file: Path) -> Report:
    """The report of a relay that has ended."""
    values = json.loads(file.read_text())
    return Report(**{**values, "lost": tuple(Lost(**hole) for hole in values["lost"])})


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """Relay until SIGTERM."""
    parser = argparse.ArgumentParser(description="Lose, reorder and double mirrored datagrams.")
    parser.add_argument("listen", type=_address, help="ADDRESS:PORT that the mirror sends to")
    parser.add_argument("to", type=_address, help="ADDRESS:PORT of the worker")
    parser.add_argument("file", type=Path, help="where the report goes")
    parser.add_argument("--drop", type=float, default=0.0, help="percent")
    parser.add_argument("--reorder", type=float, default=0.0, help="percent")
    parser.add_argument("--duplicate", type=float, default=0.0, help="percent")
    parser.add_argument("--delay", type=float, default=0.05, help="seconds, at most, that a reordered datagram is late")
    parser.add_argument("--seed", type=int, default=1)
    arguments = vars(parser.parse_args())
    listen, to, file = (arguments.pop(name) for name in ("listen", "to", "file"))
    relay = _Relay(listen, to, Impairment(**arguments))
    signal.signal(signal.SIGTERM, relay.end)
    file.write_text(json.dumps(asdict(relay.run())))


if __name__ == "__main__":
    main()
