"""The sender: plays recordings to a UDP port at a rate of requests, in a process of its own.

`sendmmsg` sends many datagrams in one system call. Each is two pieces of memory: a VXLAN header that all share, and
the frame as it was recorded. Writing another VNI into that header makes the whole recording a new one, with flows that
the receiver has not seen yet; so a recording can be played without end, and no byte of it is ever a repetition.
"""

import ctypes
import multiprocessing
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tests.bench.processes import end_quietly
from tests.bench.recording import Recording

_HEADER = 8  # of VXLAN: flags, and the VNI in bytes 4 to 6
_MOST = 512  # datagrams in one call; the kernel takes up to 1,024
_PAUSE = 0.0005
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Piece(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """`struct mmsghdr`, with the `struct msghdr` in it unfolded."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("pieces_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_long),
        ("sent", ctypes.c_long),
    )


@dataclass(frozen=True, slots=True)
class Order:
    """What to play."""

    recording: str
    requests: int
    rate: float
    port: int


@dataclass(frozen=True, slots=True)
class Played:
    """What was played, and what it took."""

    requests: int
    datagrams: int
    seconds: float
    cpu: float
    ended: float  # time.monotonic()

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu / self.seconds


class Sender:
    """The process, seen from outside."""

    def __init__(self, sock: socket.socket, address: str, recordings: Mapping[str, Recording]) -> None:
        context = multiprocessing.get_context("fork")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, sock, address, recordings), daemon=True)
        self._process.start()
        theirs.close()

    def start(self, order: Order) -> None:
        """Begin to play."""
        self._ours.send(order)

    def finish(self) -> Played:
        """Wait until it has been played."""
        played: Played = self._ours.recv()
        return played

    def play(self, order: Order) -> Played:
        """Both."""
        self.start(order)
        return self.finish()


class _Messages:
    """A recording as the kernel wants it: an array of messages, each of two pieces."""

    def __init__(self, recording: Recording) -> None:
        self.marks = recording.marks
        count = len(recording.ends)
        self.header = bytearray(recording.data[:_HEADER])
        self._keep = [_view(recording.data), _view(self.header)]
        data, header = (ctypes.addressof(view) for view in self._keep)
        self._pieces = (_Piece * (2 * count))()
        messages = (_Message * count)()
        pieces, size = ctypes.addressof(self._pieces), ctypes.sizeof(_Piece)
        start = 0
        for number, end in enumerate(recording.ends):
            first, second, message = self._pieces[2 * number], self._pieces[2 * number + 1], messages[number]
            first.base, first.length = header, _HEADER
            second.base, second.length = data + start + _HEADER, end - start - _HEADER
            message.pieces, message.pieces_length = pieces + 2 * number * size, 2
            start = end
        self._messages = messages
        self.address = ctypes.addressof(messages)


def _view(memory: bytearray) -> "ctypes.Array[ctypes.c_char]":
    return (ctypes.c_char * len(memory)).from_buffer(memory)


def _serve(orders: Connection, sock: socket.socket, address: str, recordings: Mapping[str, Recording]) -> None:
    end_quietly()
    prepared: dict[str, _Messages] = {}
    vni = 0
    while True:
        try:
            order: Order = orders.recv()
        except EOFError:
            return
        if order.recording not in prepared:
            prepared[order.recording] = _Messages(recordings[order.recording])
        sock.connect((address, order.port))
        cpu, start = time.process_time(), time.monotonic()
        left, datagrams = order.requests, 0
        while left:
            vni += 1
            messages = prepared[order.recording]
            messages.header[4:7] = vni.to_bytes(3)
            requests = min(left, len(messages.marks))
            datagrams += _play(sock, messages, requests, order.rate, start + (order.requests - left) / order.rate)
            left -= requests
        ended = time.monotonic()
        orders.send(Played(order.requests, datagrams, ended - start, time.process_time() - cpu, ended))


def _play(sock: socket.socket, messages: _Messages, requests: int, rate: float, start: float) -> int:
    """Send what brings the first `requests` requests, each when it is due, and what follows the last one."""
    sent = done = 0
    marks = messages.marks
    while done < requests:
        due = min(requests, int((time.monotonic() - start) * rate) + 1)
        if due <= done:
            time.sleep(_PAUSE)
            continue
        _send(sock, messages, sent, marks[due - 1])
        done, sent = due, marks[due - 1]
    return sent


def _send(sock: socket.socket, messages: _Messages, begin: int, end: int) -> None:
    size = ctypes.sizeof(_Message)
    while begin < end:
        at = ctypes.c_void_p(messages.address + begin * size)
        sent = _LIBC.sendmmsg(sock.fileno(), at, min(_MOST, end - begin), 0)
        if sent < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        begin += sent
