"""Pages over HTTP: for honest clients, and in spite of the others."""

import http.client
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from http import HTTPStatus

import pytest

from replayer import endpoints
from replayer.endpoints import Answer, Endpoints, text


@pytest.fixture
def port() -> Iterator[int]:
    served = Endpoints()
    pages: dict[str, Callable[[], Answer]] = {
        "/page": lambda: text(HTTPStatus.OK, "fine"),
        "/large": lambda: Answer(HTTPStatus.OK, "text/plain", b"x" * 20_000_000),
    }
    yield int(served.serve("127.0.0.1", 0, pages).rpartition(":")[2])
    served.close()


def ask(port: int, method: str, target: str) -> tuple[int, bytes, int]:
    """Status, body, Content-Length."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as client:
        client.request(method, target)
        answer = client.getresponse()
        return answer.status, answer.read(), int(answer.headers["Content-Length"])


def speak(port: int, data: bytes) -> bytes:
    """All that comes back to raw bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(data)
        answer = b""
        while more := client.recv(65536):
            answer += more
        return answer


def test_a_page(port: int) -> None:
    assert ask(port, "GET", "/page") == (200, b"fine\n", 5)
    assert ask(port, "GET", "/page?verbose=1") == (200, b"fine\n", 5)
    assert ask(port, "HEAD", "/page") == (200, b"", 5)


def test_what_is_not_served(port: int) -> None:
    assert ask(port, "GET", "/other")[0] == 404
    assert ask(port, "HEAD", "/other")[:2] == (404, b"")
    assert ask(port, "DELETE", "/page")[0] == 405
    assert b"Allow: GET, HEAD" in speak(port, b"POST /page HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize(
    "request_", [b"\r\n\r\n", b"GET\r\n\r\n", b"GET /page HTTP/2\r\n\r\n", b"\xff\x00 / x\r\n\r\n"]
)
def test_what_is_no_request(port: int, request_: bytes) -> None:
    assert speak(port, request_).startswith(b"HTTP/1.1 400 ")


def test_a_request_that_is_too_large(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /page HTTP/1.1\r\nX: " + b"y" * endpoints.REQUEST_LIMIT + b"\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 431"
    assert ask(port, "GET", "/page")[0] == 200


def test_clients_that_stay_silent_keep_nobody_out(port: int) -> None:
    with ExitStack() as silent:
        for _ in range(endpoints.MOST_CLIENTS + 50):
            silent.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10)).send(b"GET /pa")
        assert ask(port, "GET", "/page")[0] == 200


def test_a_client_that_is_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    monkeypatch.setattr(endpoints, "DEADLINE", 0.2)
    assert speak(port, b"GET /page HTTP/1.1\r\n") == b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(b"GET /large HTTP/1.1\r\n\r\n")
        assert speak(port, b"") == b""  # by then both deadlines have passed
        read = 0
        with suppress(ConnectionResetError):
            while more := client.recv(65536):
                read += len(more)
        assert read < 20_000_000


def test_an_address_that_is_taken_is_an_error(port: int) -> None:
    served = Endpoints()
    with pytest.raises(OSError, match="in use"):
        served.serve("127.0.0.1", port, {})
    served.close()


def test_ipv6() -> None:
    served = Endpoints()
    address = served.serve("::1", 0, {})
    assert address.startswith("[::1]:")
    served.close()
