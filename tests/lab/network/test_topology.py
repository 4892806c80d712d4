"""A network is there inside its context, and gone after it."""

import subprocess

import pytest

from lab.network import nginx
from lab.network.processes import stop
from lab.network.topology import NAMESPACES, TEST, Network, NetworkError

pytestmark = pytest.mark.network


def _namespaces() -> set[str]:
    return set(
        subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    ) & set(NAMESPACES)


def test_nothing_is_left_after_the_context() -> None:
    with Network() as network:
        server = nginx.start(network, "test", f"{TEST}:80")
        assert _namespaces() == set(NAMESPACES)
        assert server.process.poll() is None

    assert _namespaces() == set()
    assert server.process.poll() is not None
    assert list(network.directory.iterdir()) == []


def test_nothing_is_left_after_a_failure_inside() -> None:
    with pytest.raises(NetworkError, match="no-such-program"), Network() as network:
        network.run("client", "no-such-program")

    assert _namespaces() == set()


def test_a_server_that_does_not_start_says_why() -> None:
    with Network() as network, pytest.raises(NetworkError, match="192.0.2.1"):
        nginx.start(network, "test", "192.0.2.1:80")


def test_each_request_is_logged_and_bodies_are_kept() -> None:
    with Network() as network:
        server = nginx.start(network, "test", f"{TEST}:80", keep_bodies=True)
        body = "x" * 100_000
        network.run("worker", "curl", "-sS", "-H", "X-Lab-Id: 7", "--data", body, f"http://{TEST}/upload?a=1")
        network.run("worker", "curl", "-sS", f"http://{TEST}/plain")
        stop(server.process)
        upload, plain = nginx.answered(server)
        kept = server.directory.joinpath(upload.body).read_text()

    assert (upload.method, upload.target, upload.status, upload.id) == ("POST", "/upload?a=1", "200", "7")
    assert kept == body
    assert (plain.method, plain.target, plain.body) == ("GET", "/plain", "")
