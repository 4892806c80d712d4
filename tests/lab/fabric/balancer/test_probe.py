"""Checks against servers that answer well, badly, late or not at all."""

import asyncio
import socket
from dataclasses import replace

from lab.fabric.balancer.checks import Settings
from lab.fabric.balancer.probe import probe
from lab.fabric.balancer.table import Target

HTTP = Settings(protocol="HTTP", path="/healthz", timeout=5.0, codes="200")
SOON = Settings(protocol="HTTP", timeout=0.05)


class Server:
    """Answers every connection with the same bytes, and keeps what was asked."""

    def __init__(self, answer: bytes) -> None:
        self.asked = b""
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._answer:
            self.asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(self._answer)
        await reader.read()
        writer.close()


def probed(server: Server, settings: Settings) -> str:
    async def ask() -> str:
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
            return await probe(Target("i-1", "127.0.0.1", listening.sockets[0].getsockname()[1]), settings)

    return asyncio.run(ask())


def test_a_good_answer_passes_and_the_balancer_says_who_asks() -> None:
    server = Server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    assert probed(server, HTTP) == ""
    head = server.asked.decode().split("\r\n")
    assert head[0] == "GET /healthz HTTP/1.1"
    assert {"Host: 127.0.0.1:4789", "User-Agent: ELB-HealthChecker/2.0", "Connection: close"} <= set(head)


def test_a_bad_answer_fails_in_words() -> None:
    assert probed(Server(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"), HTTP) == "answered with status 503, not 200"
    assert probed(Server(b"220 mail\r\n"), HTTP) == "the answer is not HTTP"
    assert probed(Server(b"x" * 100_000), HTTP) == "the answer is not HTTP"


def test_no_answer_fails_after_the_timeout() -> None:
    assert probed(Server(b""), SOON) == "no answer within 0.05 s"


def test_nobody_there_fails_at_once() -> None:
    with socket.socket() as held:  # bound, so that nobody else listens there
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        target = Target("i-1", "127.0.0.1", 4789)

        assert asyncio.run(probe(target, replace(HTTP, port=port))) == "Connection refused"
        assert asyncio.run(probe(replace(target, port=port), Settings())) == "Connection refused"


def test_a_tcp_check_passes_where_somebody_listens() -> None:
    assert probed(Server(b""), Settings(timeout=5.0)) == ""


def test_a_check_that_the_lab_cannot_make_says_so() -> None:
    assert probed(Server(b""), Settings(protocol="HTTPS")) == "the lab makes no HTTPS checks; use HTTP or TCP"
