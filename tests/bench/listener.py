"""The bare `recv` loop, in a process of its own: what receiving the same datagrams costs without doing anything."""

import multiprocessing
import socket
import struct
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

from replayer.steering import socket_drops
from tests.bench.processes import end_quietly

_LARGEST = 65536


@dataclass(frozen=True, slots=True)
class Heard:
    """What was received. `ended` is when the last datagram was."""

    datagrams: int
    drops: int
    cpu: float
    ended: float


class Listener:
    """The process, seen from outside. It receives on `sock`, which is bound and has the buffer it wants."""

    def __init__(self, sock: socket.socket) -> None:
        self.port: int = sock.getsockname()[1]
        self._sock = sock
        self._drops = 0
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, sock), daemon=True).start()
        theirs.close()

    def expect(self, datagrams: int, patience: float = 3.0) -> None:
        """Receive so many, or fewer when none comes for as long as `patience`."""
        self._ours.send((datagrams, patience))
        self._ours.recv()

    def finish(self) -> Heard:
        """Wait until they are received."""
        datagrams, cpu, ended = self._ours.recv()
        drops = socket_drops(self._sock, self._drops)
        new, self._drops = drops - self._drops, drops
        return Heard(datagrams, new, cpu, ended)


def _serve(orders: Connection, sock: socket.socket) -> None:
    end_quietly()
    sock.setblocking(True)
    while True:
        try:
            datagrams, patience = orders.recv()
        except EOFError:
            return
        seconds, rest = divmod(patience, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), int(rest * 1e6)))
        orders.send(None)
        before = time.process_time()
        received = _loop(sock, datagrams)
        ended = time.monotonic() - (0 if received == datagrams else patience)
        orders.send((received, time.process_time() - before, ended))


def _loop(sock: socket.socket, datagrams: int) -> int:
    recv = sock.recv
    number = 0
    try:
        for number in range(datagrams):  # noqa: B007 - it tells how far the loop came
            recv(_LARGEST)
    except BlockingIOError:  # nothing came for too long
        return number
    return datagrams
