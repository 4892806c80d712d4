"""A test environment that writes down each request it received, exactly: `python -m lab.recorder ADDRESS:PORT FILE`.

It reads strictly what a sender may send (RFC 9112: Content-Length or chunked, no folding, CRLF) and knows nothing of
the worker's code. What it cannot read, and what a connection's end cuts off, is written down as a fault.
"""

import asyncio
import hashlib
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, cast

import uvloop

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_ANSWER_TO_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
_HEAD_LIMIT = 1 << 18


class Fault(Exception):
    """Bytes that are no request."""


@dataclass(frozen=True, slots=True)
class Received:
    """One request, or the fault that ended its connection."""

    method: str = ""
    target: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    length: int = 0
    sha256: str = ""
    fault: str = ""


@dataclass(slots=True)
class _Head:
    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    chunked: bool
    length: int


class Reader:
    """Bytes of one connection in, requests out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._wanted = 0  # bytes without which trying again is useless

    def receive(self, data: bytes) -> list[Received]:
        """The requests that `data` completes. Raises Fault."""
        self._buffer += data
        requests = []
        while len(self._buffer) >= max(self._wanted, 1) and (request := self._next()) is not None:
            requests.append(request)
            self._head, self._wanted = None, 0
        return requests

    def close(self) -> None:
        """The end of the connection. Raises Fault when it cuts a request off."""
        if self._buffer or self._head:
            raise Fault(f"cut off after {bytes(self._buffer[:80])!r}")

    def _next(self) -> Received | None:
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _HEAD_LIMIT:
                    raise Fault(f"a head without an end: {bytes(self._buffer[:80])!r}")
                return None
            self._head = _head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
        head = self._head
        body = self._chunked() if head.chunked else self._counted(head.length)
        if body is None:
            return None
        return Received(head.method, head.target, head.headers, len(body), hashlib.sha256(body).hexdigest())

    def _counted(self, length: int) -> bytes | None:
        if len(self._buffer) < length:
            self._wanted = length
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _chunked(self) -> bytes | None:
        pieces, place = [], 0
        while True:
            end = self._buffer.find(b"\r\n", place)
            if end < 0:
                return None
            size = _size(bytes(self._buffer[place:end]))
            place = end + 2
            if size == 0:
                break
            if len(self._buffer) < place + size + 2:
                self._wanted = place + size + 2
                return None
            if self._buffer[place + size : place + size + 2] != b"\r\n":
                raise Fault("a chunk does not end where it says")
            pieces.append(bytes(self._buffer[place : place + size]))
            place += size + 2
        while True:  # trailers, to the blank line
            end = self._buffer.find(b"\r\n", place)
            if end < 0:
                return None
            blank, place = end == place, end + 2
            if blank:
                del self._buffer[:place]
                return b"".join(pieces)


def _head(text: bytes) -> _Head:
    line, *lines = text.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[0] or not words[1] or words[2] not in ("HTTP/1.1", "HTTP/1.0"):
        raise Fault(f"no request line: {line[:80]!r}")
    headers = []
    for entry in lines:
        name, colon, value = entry.partition(":")
        if not colon or not name or name != name.strip():
            raise Fault(f"no header: {entry[:80]!r}")
        headers.append((name, value.strip(" \t")))
    lengths = [value for name, value in headers if name.lower() == "content-length"]
    codings = [value.lower() for name, value in headers if name.lower() == "transfer-encoding"]
    if len(lengths) + len(codings) > 1 or any(coding != "chunked" for coding in codings):
        raise Fault(f"a framing of its own: {lengths} {codings}")
    if lengths and not (lengths[0].isascii() and lengths[0].isdigit()):
        raise Fault(f"no length: {lengths[0][:80]!r}")
    return _Head(words[0], words[1], tuple(headers), bool(codings), int(lengths[0]) if lengths else 0)


def _size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip(b" \t")
    if not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise Fault(f"no chunk size: {line[:80]!r}")
    return int(digits, 16)


class _Connection(asyncio.Protocol):
    def __init__(self, log: IO[str]) -> None:
        self._log = log
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self._faulty = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._faulty or self._transport is None:
            return
        try:
            for request in self._reader.receive(data):
                self._write(request)
                self._transport.write(_ANSWER_TO_HEAD if request.method == "HEAD" else _ANSWER)
        except Fault as fault:
            self._fail(fault)
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._faulty:
            try:
                self._reader.close()
            except Fault as fault:
                self._fail(fault)

    def _fail(self, fault: Fault) -> None:
        self._faulty = True
        self._write(Received(fault=str(fault)))

    def _write(self, entry: Received) -> None:
        self._log.write(json.dumps(asdict(entry)) + "\n")


def read(file: Path) -> list[Received]:
    """What a recorder that has ended wrote down."""
    entries = []
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            values = json.loads(line)
            values["headers"] = tuple((name, value) for name, value in values["headers"])
            entries.append(Received(**values))
    return entries


async def _serve(address: str, port: int, file: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    with file.open("w", encoding="utf-8", buffering=1 << 20) as log:
        server = await loop.create_server(lambda: _Connection(log), address, port, backlog=4096)
        await ended.wait()
        server.close()


def main() -> None:
    """Serve until SIGTERM."""
    address, _, port = sys.argv[1].rpartition(":")
    uvloop.run(_serve(address, int(port), Path(sys.argv[2])))


if __name__ == "__main__":
    main()
