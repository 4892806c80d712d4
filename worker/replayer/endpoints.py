"""Small HTTP pages for health checks and scrapers: GET and HEAD, one request per connection.

One thread with a loop of its own serves all addresses, so a client costs nothing while it is slow. Each has a deadline
for the whole exchange and a limit on its request; where too many are connected, the one that has waited longest is cut
off, so nobody can keep a health check out.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

DEADLINE = 5.0
REQUEST_LIMIT = 8192
MOST_CLIENTS = 256  # at all addresses together


class Answer(NamedTuple):
    """What a page says."""

    status: HTTPStatus
    content_type: str
    body: bytes


type Pages = Mapping[str, Callable[[], Answer]]


def text(status: HTTPStatus, line: str) -> Answer:
    """An answer of one line."""
    return Answer(status, "text/plain; charset=utf-8", f"{line}\n".encode())


class Endpoints:
    """The addresses served. `close` ends them all."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._clients: dict[asyncio.Task[None], None] = {}
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoints", daemon=True)
        self._thread.start()

    def serve(self, host: str, port: int, pages: Pages) -> str:
        """Serve `pages` by path; the address bound, in words. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
        address, bound = sock.getsockname()[:2]

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._client(pages, reader, writer)

        async def start() -> None:
            self._servers.append(await asyncio.start_server(accept, sock=sock, limit=REQUEST_LIMIT))

        asyncio.run_coroutine_threadsafe(start(), self._loop).result()
        return f"[{address}]:{bound}" if family == socket.AF_INET6 else f"{address}:{bound}"

    def close(self) -> None:
        """Cut off every client and free the addresses."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients)

    async def _client(self, pages: Pages, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MOST_CLIENTS:
            next(iter(self._clients)).cancel()
        self._clients[task] = None
        try:
            async with asyncio.timeout(DEADLINE):
                writer.write(await _exchange(pages, reader))
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # a client that left, was too slow or too many: there is nobody to tell
        finally:
            del self._clients[task]
            writer.transport.abort()


async def _exchange(pages: Pages, reader: asyncio.StreamReader) -> bytes:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return _response(text(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request too large"), b"GET")
    match head.split(b"\r\n", 1)[0].split(b" "):
        case [b"GET" | b"HEAD" as method, target, b"HTTP/1.1" | b"HTTP/1.0"]:
            page = pages.get(target.partition(b"?")[0].decode("latin-1"))
            return _response(page() if page else text(HTTPStatus.NOT_FOUND, "not found"), method)
        case [method, _, b"HTTP/1.1" | b"HTTP/1.0"]:
            return _response(text(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD"), method)
        case _:
            return _response(text(HTTPStatus.BAD_REQUEST, "bad request"), b"GET")


def _response(answer: Answer, method: bytes) -> bytes:
    allow = "Allow: GET, HEAD\r\n" if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (b"" if method == b"HEAD" else answer.body)
