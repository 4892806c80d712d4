"""`replayer check`: an answer for each way in which a run would fail, from real sockets and real TLS."""

import io
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from replayer.check import Answer, Outcome, check, listening, obstacle, reach, receive_buffer
from replayer.settings import Destination, Settings

type Respond = Callable[[BaseHTTPRequestHandler], tuple[int, dict[str, str]]]


@contextmanager
def serving(respond: Respond, context: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[str]]]:
    """A server on 127.0.0.1: its port, and the request lines that it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.requestline)
            status, headers = respond(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    class Server(ThreadingHTTPServer):
        def finish_request(self, request: socket.socket, client_address: tuple[str, int]) -> None:  # type: ignore[override]
            if context is None:
                super().finish_request(request, client_address)
                return
            try:
                with context.wrap_socket(request, server_side=True) as wrapped:
                    super().finish_request(wrapped, client_address)
            except OSError:
                request.close()  # the client does not like the certificate

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ok(_: BaseHTTPRequestHandler) -> tuple[int, dict[str, str]]:
    return 200, {}


def answers(url: str, *, tls_verify: bool = True) -> list[tuple[Outcome, str]]:
    """All answers for one destination, without its url."""
    found = reach(Destination(url=url, tls_verify=tls_verify))
    return [(answer.outcome, answer.text.removeprefix(f"{url}: ")) for answer in found]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-signed certificates for localhost: `good` for a year, `short` for three days, `other` for another name."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, host, days in (("good", "localhost", 365), ("short", "localhost", 3), ("other", "other.example", 365)):
        subprocess.run(
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days {days}"
            f" -keyout {name}.key -out {name}.pem -subj /CN={host} -addext subjectAltName=DNS:{host}".split(),
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder


def server_context(certificates: Path, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    return context


# Destinations


def test_a_good_destination() -> None:
    with serving(ok) as (port, seen):
        assert answers(f"http://127.0.0.1:{port}/prefix") == [
            (Outcome.OK, "127.0.0.1 is 127.0.0.1"),
            (Outcome.OK, "1 of 1 addresses accept connections"),
            (Outcome.OK, "answers 200, no redirect"),
        ]
    assert seen == ["HEAD /prefix HTTP/1.1"]


def test_get_where_head_is_not_known() -> None:
    with serving(lambda handler: (405 if handler.command == "HEAD" else 204, {})) as (port, seen):
        assert answers(f"http://127.0.0.1:{port}")[-1] == (Outcome.OK, "answers 204, no redirect")
    assert [line.split()[0] for line in seen] == ["HEAD", "GET"]


def test_a_redirect_elsewhere_fails_and_is_not_followed() -> None:
    with serving(lambda handler: (301, {"Location": "https://www.example.com/"})) as (port, seen):
        assert answers(f"http://127.0.0.1:{port}")[-1] == (
            Outcome.FAILED,
            "redirects to https://www.example.com/: redirects are not followed; write that address as url",
        )
    assert len(seen) == 1


def test_a_redirect_within_itself_is_fine() -> None:
    with serving(lambda handler: (302, {"Location": "/login"})) as (port, _):
        assert answers(f"http://127.0.0.1:{port}")[-1] == (
            Outcome.OK,
            f"answers 302, a redirect within itself to http://127.0.0.1:{port}/login",
        )


def test_an_unwell_destination_is_a_warning() -> None:
    with serving(lambda handler: (503, {})) as (port, _):
        outcome, text = answers(f"http://127.0.0.1:{port}")[-1]
    assert outcome is Outcome.WARNING
    assert text.startswith("answers 503")


def test_nobody_listens() -> None:
    port = free_port()
    assert answers(f"http://127.0.0.1:{port}")[1:] == [
        (
            Outcome.FAILED,
            f"127.0.0.1:{port} is not reachable: Connection refused;"
            " is it up, and do its firewall or security group allow this machine?",
        )
    ]
    assert (
        obstacle(Destination(url=f"http://127.0.0.1:{port}"))
        == f"127.0.0.1:{port} is not reachable: Connection refused"
    )


@pytest.mark.parametrize("host", ["test.invalid", f"{'a' * 64}.example"])
def test_a_name_that_does_not_resolve(host: str) -> None:
    ((outcome, text),) = answers(f"http://{host}")
    assert outcome is Outcome.FAILED
    assert text.startswith(f"{host} cannot be resolved: ")
    assert obstacle(Destination(url=f"http://{host}")).startswith(f"{host} cannot be resolved: ")


def test_what_speaks_no_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            listener.accept()[0].close()  # the probe of the address
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        outcome, text = answers(f"http://127.0.0.1:{port}")[-1]
        thread.join()
    assert outcome is Outcome.FAILED
    assert text.startswith("connected, but no HTTP answer: ")
    assert text.endswith("is this the right port and scheme?")


# TLS


def test_a_good_certificate(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.pem"))
    with serving(ok, server_context(certificates, "good")) as (port, _):
        outcome, text = answers(f"https://localhost:{port}")[2]
    assert outcome is Outcome.OK
    assert text.startswith("TLS is good, its certificate valid until ")


def test_a_certificate_that_ends_soon(certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "short.pem"))
    with serving(ok, server_context(certificates, "short")) as (port, _):
        outcome, text = answers(f"https://localhost:{port}")[2]
    assert outcome is Outcome.WARNING
    assert "(2 days)" in text


@pytest.mark.parametrize(
    ("trusted", "served", "why"), [("other", "good", "self-signed"), ("other", "other", "Hostname mismatch")]
)
def test_a_certificate_that_is_not_accepted(
    certificates: Path, monkeypatch: pytest.MonkeyPatch, trusted: str, served: str, why: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / f"{trusted}.pem"))
    with serving(ok, server_context(certificates, served)) as (port, seen):
        outcome, text = answers(f"https://localhost:{port}")[-1]
    assert outcome is Outcome.FAILED
    assert text.startswith("the certificate is not accepted: ")
    assert why in text
    assert "tls_verify: false" in text
    assert seen == []


def test_no_verification_is_a_warning(certificates: Path) -> None:
    with serving(ok, server_context(certificates, "good")) as (port, _):
        found = answers(f"https://localhost:{port}", tls_verify=False)
    assert found[-2:] == [
        (Outcome.WARNING, "TLS works, but its certificate is not verified (tls_verify: false)"),
        (Outcome.OK, "answers 200, no redirect"),
    ]


def test_tls_to_a_port_that_speaks_none() -> None:
    with serving(ok) as (port, _):
        outcome, text = answers(f"https://127.0.0.1:{port}")[-1]
    assert outcome is Outcome.FAILED
    assert text.startswith("TLS fails: ")
    assert text.endswith("does this port speak TLS? if not, write http://")


# This machine


def settings(**changes: object) -> Settings:
    base = {
        "listen": "127.0.0.1",
        "health_address": "127.0.0.1:0",
        "admin_address": "127.0.0.1:0",
        "receive_buffer": 1024,
    }
    return Settings.model_validate({**base, **changes})


def test_free_ports() -> None:
    port = free_port()
    assert next(listening(settings(vxlan_port=port))) == Answer(Outcome.OK, f"vxlan_port: UDP 127.0.0.1:{port} is free")


def test_taken_ports() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.create_server(("127.0.0.1", 0)) as tcp:
        udp.bind(("127.0.0.1", 0))
        ports = udp.getsockname()[1], tcp.getsockname()[1]
        found = list(listening(settings(vxlan_port=ports[0], admin_address=f"127.0.0.1:{ports[1]}")))
    assert [answer.outcome for answer in found] == [Outcome.FAILED, Outcome.OK, Outcome.FAILED]
    assert found[0].text == (
        f"vxlan_port: UDP 127.0.0.1:{ports[0]} cannot be bound: Address already in use;"
        f" `ss -ulnp 'sport = :{ports[0]}'` shows who has it, if it is taken"
    )
    assert found[2].text.startswith(f"admin_address: TCP 127.0.0.1:{ports[1]} cannot be bound: ")


def test_receive_buffer() -> None:
    assert receive_buffer(4096).outcome is Outcome.OK
    greedy = receive_buffer(1 << 31)  # more than the kernel can count
    assert greedy.outcome is Outcome.WARNING
    assert greedy.text.endswith("of 2,147,483,648 bytes; bursts may be lost: sysctl -w net.core.rmem_max=2147483648")


# All of it


def test_check_prints_plain_lines_and_passes() -> None:
    out = io.StringIO()
    with serving(ok) as (port, _):
        url = f"http://127.0.0.1:{port}"
        assert check(settings(vxlan_port=free_port(), destinations=[{"url": url}]), out) == 0
    lines = out.getvalue().splitlines()
    assert lines[0] == "ok   settings are valid: 1 destination(s)"
    assert lines[-1] == f"ok   {url}: answers 200, no redirect"
    assert all(line.startswith(("ok   ", "warn ")) for line in lines)


def test_check_fails_if_one_answer_does() -> None:
    out = io.StringIO()
    with serving(ok) as (port, _):
        urls = [{"url": f"http://127.0.0.1:{free_port()}"}, {"url": f"http://127.0.0.1:{port}"}]
        assert check(settings(vxlan_port=free_port(), destinations=urls), out) == 2
    assert out.getvalue().count("FAIL ") == 1


def test_a_terminal_gets_signs() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with serving(ok) as (port, _):
        check(settings(vxlan_port=free_port(), destinations=[{"url": f"http://127.0.0.1:{port}"}]), out)
    assert out.getvalue().startswith("✓ settings are valid")
