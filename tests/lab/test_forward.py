"""The way into the lab: what curl sends through it arrives, and what it cannot do it says as RFC 1928 wants it."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import forward
from lab.network.processes import stop
from tests.waiting import until

_ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The forwarder's, as a process of its own, on a socket that it was handed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "lab.forward", "--socket", str(listener.fileno())]
        process = subprocess.Popen(command, cwd=_ROOT, pass_fds=(listener.fileno(),))
        yield listener.getsockname()[1]
        stop(process)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    """A web server that somebody else wrote; its port."""
    (tmp_path / "file").write_bytes(b"x" * 3_000_000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(number)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until("the web server listens", lambda: not _refused(number))
    yield number
    stop(process)


def _refused(number: int) -> bool:
    with socket.socket() as one:
        return bool(one.connect_ex(("127.0.0.1", number)))


def _curl(port: int, url: str, scheme: str = "socks5") -> subprocess.CompletedProcess[bytes]:
    command = ["curl", "-sS", "--fail", "--max-time", "10", "--noproxy", "", "--proxy", f"{scheme}://127.0.0.1:{port}"]
    return subprocess.run([*command, url], check=False, capture_output=True)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_curl_gets_through(port: int, server: int, scheme: str) -> None:
    done = _curl(port, f"http://127.0.0.1:{server}/file", scheme)

    assert done.returncode == 0, done.stderr
    assert done.stdout == b"x" * 3_000_000


def test_curl_learns_that_nobody_is_there(port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]

    assert _curl(port, f"http://127.0.0.1:{number}/").returncode == 97  # CURLE_PROXY


def _said(port: int, *messages: bytes) -> bytes:
    """What comes back for these messages until the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        for message in messages:
            one.sendall(message)
        one.shutdown(socket.SHUT_WR)
        answer = b""
        while data := one.recv(4096):
            answer += data
        return answer


_HELLO = b"\5\1\0"
_WELCOME = b"\5\0"


@pytest.mark.parametrize(
    ("messages", "answer"),
    [
        ([b"\4\1\0"], b""),  # SOCKS4
        ([b"\5\1\2"], b""),  # with a password
        ([b"\5"], b""),
        ([_HELLO], _WELCOME),
        ([_HELLO, b"\5\2\0\1" + bytes(6)], _WELCOME + b"\5\7\0\1" + bytes(6)),  # BIND
        ([_HELLO, b"\5\1\0\4" + bytes(18)], _WELCOME + b"\5\x08\0\1" + bytes(6)),  # IPv6
        ([_HELLO, b"\5\1\0\3\4name\0\x50"], _WELCOME + b"\5\x08\0\1" + bytes(6)),
        ([_HELLO, b"\5\1\0\3\2\xff\xff\0\x50"], _WELCOME + b"\5\x08\0\1" + bytes(6)),
    ],
)
def test_what_it_cannot_do_is_answered(port: int, messages: list[bytes], answer: bytes) -> None:
    assert _said(port, *messages) == answer


def test_one_direction_may_end_before_the_other(port: int) -> None:
    """The server answers only after the client's end, as some do."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
            one.sendall(_HELLO + b"\5\1\0\1\x7f\0\0\1" + there.to_bytes(2) + b"question")
            one.shutdown(socket.SHUT_WR)
            with listener.accept()[0] as accepted:
                question = b""
                while data := accepted.recv(4096):
                    question += data
                accepted.sendall(b"answer")
            answer = b""
            while data := one.recv(4096):
                answer += data

    assert question == b"question"
    assert answer.endswith(b"answer")


def _waiting(listener: socket.socket) -> int:
    """Connections that the kernel keeps for a listening socket, until they are accepted."""
    place = f"0100007F:{listener.getsockname()[1]:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [queues] = [row[4] for row in rows if row[1] == place and row[3] == "0A"]  # LISTEN
    return int(queues.partition(":")[2], 16)


def test_more_connections_than_there_may_be_are_not_accepted_before_their_turn() -> None:
    async def story(listener: socket.socket) -> tuple[bytes, int, bytes]:
        serving = asyncio.create_task(forward.serve(listener, 1))
        first, second = [await asyncio.open_connection(*listener.getsockname()) for _ in range(2)]
        first[1].write(_HELLO)
        welcome = await first[0].readexactly(2)
        second[1].write(_HELLO)
        waiting = _waiting(listener)
        first[1].close()
        later = await second[0].readexactly(2)
        second[1].close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        return welcome, waiting, later

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(asyncio.wait_for(story(listener), 10)) == (_WELCOME, 1, _WELCOME)
