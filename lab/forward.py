"""A way into the lab: SOCKS5 on a socket of the host, connections from wherever this process runs in the lab.

    curl --proxy socks5://127.0.0.1:PORT http://10.0.1.5/

The listening socket was made outside the sandbox and is handed in; this process runs in the clients' network namespace,
so what goes through here is client traffic like any other. CONNECT to an IPv4 address, without authentication, is all
that there is of RFC 1928.
"""

import argparse
import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Coroutine

#: Connections at a time; the next ones wait in the listening socket.
CONNECTIONS = 200

_VERSION, _NO_AUTHENTICATION, _CONNECT, _IPV4, _NAME = 5, 0, 1, 1, 3
_OK, _UNREACHABLE, _NO_SUCH_COMMAND, _NO_SUCH_ADDRESS = 0, 4, 7, 8
_CHUNK = 1 << 16
_PATIENCE = 10.0


class RefusedError(Exception):
    """What the client asks for cannot be done; holds the answer's code of RFC 1928, section 6."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


async def serve(listener: socket.socket, most: int = CONNECTIONS) -> None:
    """For ever."""
    listener.setblocking(False)
    turns = asyncio.Semaphore(most)
    async with asyncio.TaskGroup() as group:
        while True:
            await turns.acquire()
            accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
            group.create_task(_serve(accepted)).add_done_callback(lambda _: turns.release())


async def _serve(accepted: socket.socket) -> None:
    """One connection; an error in it, or in where it leads, ends it."""
    with contextlib.suppress(OSError, EOFError, TimeoutError):  # in a group too
        reader, writer = await asyncio.open_connection(sock=accepted)
        try:
            await _through(reader, writer)
        finally:
            await _close(writer)


async def _through(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        address, port = await asyncio.wait_for(_asked(reader, writer), _PATIENCE)
        there = await _open(address, port)
    except RefusedError as refused:
        writer.write(_answer(refused.code))
        await writer.drain()
        return
    try:
        writer.write(_answer(_OK))
        await _both(_copy(reader, there[1]), _copy(there[0], writer))
    finally:
        await _close(there[1])


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    """The greeting and its answer, then where to. Names are refused: the lab's addresses are no names."""
    version, methods = await reader.readexactly(2)
    offered = await reader.readexactly(methods)
    if version != _VERSION or _NO_AUTHENTICATION not in offered:
        raise EOFError
    writer.write(bytes((_VERSION, _NO_AUTHENTICATION)))
    _, command, _, kind = await reader.readexactly(4)
    if kind == _NAME:
        (length,) = await reader.readexactly(1)
        name = (await reader.readexactly(length)).decode("ascii", "replace")
    elif kind == _IPV4:
        name = socket.inet_ntoa(await reader.readexactly(4))
    else:
        raise RefusedError(_NO_SUCH_ADDRESS)
    port = int.from_bytes(await reader.readexactly(2))
    if command != _CONNECT:
        raise RefusedError(_NO_SUCH_COMMAND)
    try:
        return str(ipaddress.IPv4Address(name)), port
    except ValueError:
        raise RefusedError(_NO_SUCH_ADDRESS) from None


async def _open(address: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.wait_for(asyncio.open_connection(address, port), _PATIENCE)
    except OSError:  # a timeout too
        raise RefusedError(_UNREACHABLE) from None


async def _both(one: Coroutine[None, None, None], other: Coroutine[None, None, None]) -> None:
    """Until both directions have ended; an error in one ends both."""
    async with asyncio.TaskGroup() as group:
        for direction in (one, other):
            group.create_task(direction)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Until the end, which is passed on, as the other direction may go on."""
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    sink.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _answer(code: int) -> bytes:
    return bytes((_VERSION, code, 0, _IPV4)) + bytes(6)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lab.forward", description="SOCKS5 on a socket that listens already."
    )
    parser.add_argument("--socket", type=int, required=True, metavar="FD")
    with socket.socket(fileno=parser.parse_args().socket) as listener:
        asyncio.run(serve(listener))


if __name__ == "__main__":
    main()
