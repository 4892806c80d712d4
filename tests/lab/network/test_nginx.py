"""nginx's log tells all there is to tell of a request, at once."""

import time

import pytest

from lab.network import nginx
from lab.network.topology import TEST, Network

LINE = (
    b'{"method":"GET","target":"/a","status":"200","id":"","sha256":"","body":"",'
    b'"ended":1795446797.770,"seconds":0.002,"connection":3,"nth":2}'
)


def test_a_line_of_the_log() -> None:
    entry = nginx.parse(LINE)

    assert (entry.method, entry.target, entry.status) == ("GET", "/a", "200")
    assert (entry.ended, entry.seconds, entry.connection, entry.nth) == (1795446797.77, 0.002, 3, 2)
    assert nginx.parse(LINE.replace(b"/a", b"/\xfc")).target == "/ü"


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"1", LINE.replace(b"nth", b"n"), LINE.replace(b'"body":"",', b"")])
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="JSON|double quotes|Expecting|no line of this log"):
        nginx.parse(line)


@pytest.mark.network
def test_the_log_says_when_and_on_which_connection_and_survives_a_kill() -> None:
    with Network() as network:
        server = nginx.start(network, "test", f"{TEST}:80")
        before = time.time()
        network.run("worker", "curl", "-sS", f"http://{TEST}/[1-2]")
        network.run("worker", "curl", "-sS", f"http://{TEST}/3")
        after = time.time()
        server.process.kill()
        server.process.wait()
        entries = nginx.answered(server)
        network.run("test", "pkill", "-KILL", "nginx")
        nginx.start(network, "test", f"{TEST}:80")

    assert [(entry.target, entry.nth) for entry in entries] == [("/1", 1), ("/2", 2), ("/3", 1)]
    assert len({entry.connection for entry in entries}) == 2
    assert all(before - 0.001 <= entry.ended - entry.seconds <= entry.ended <= after for entry in entries)


@pytest.mark.network
def test_one_that_logs_nothing() -> None:
    with Network() as network:
        server = nginx.start(network, "test", f"{TEST}:80", logged=False)
        network.run("worker", "curl", "-sS", f"http://{TEST}/1")

        assert not nginx.log_of(server.directory).exists()
