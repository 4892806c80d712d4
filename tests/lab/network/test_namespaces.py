"""A thread in another namespace, and what is said when a command for one fails."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from lab.network.namespaces import NetworkError, await_link, inside, ip, plain_frames, run, settle, tc

pytestmark = pytest.mark.network(whole=True)


@pytest.fixture(scope="module", autouse=True)
def there() -> None:
    ip(["netns add there", "link set lo up"])


def _namespace() -> str:
    return os.readlink("/proc/thread-self/ns/net")


def test_a_thread_and_what_it_starts_are_there_and_back_again() -> None:
    home = _namespace()
    with inside("there"):
        assert _namespace() != home
        begun = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, text=True, check=True)
        assert begun.stdout.strip() == _namespace()
    assert _namespace() == home


def test_it_is_back_after_a_failure() -> None:
    home = _namespace()
    with pytest.raises(ValueError, match="inside"), inside("there"):
        raise ValueError("inside")
    with pytest.raises(FileNotFoundError), inside("nowhere"):
        pass
    assert _namespace() == home


def test_what_fails_is_shown_with_its_own_words() -> None:
    with pytest.raises(NetworkError, match="ip link show nothing: .*nothing"):
        run("ip", "link", "show", "nothing")
    with pytest.raises(NetworkError, match="(?s)Cannot find device.*in: link set nothing up"):
        ip(["link set nothing up"])
    with pytest.raises(NetworkError, match="nothing"):
        tc(["qdisc add dev nothing clsact"])


def test_a_batch_for_another_namespace() -> None:
    ip(["link add one type veth peer name other", "link set one up"], "there")
    assert "one" not in run("ip", "-br", "link")
    with inside("there"):
        settle()
        assert {path.read_text() for path in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter")} == {"0\n"}
        plain_frames(["one", "other"])
        for device in ("one", "other"):
            offloads = run("ethtool", "-k", device)
            for name in ("generic-segmentation", "generic-receive"):
                assert f"{name}-offload: off" in offloads
            assert "\ttx-tcp-segmentation: off" in offloads
    with pytest.raises(OSError, match="No such device"):
        plain_frames(["one"])


def test_a_new_link_loses_nothing() -> None:
    """Without the wait some of these first packets are lost."""
    for number in range(10):
        near, far = f"near{number}", f"far{number}"
        ip([f"link add {near} type veth peer name {far} netns there", f"link set {near} up"])
        with pytest.raises(NetworkError, match=f"{near} has no carrier"):
            await_link([near])
        ip([f"address add 10.0.{number}.1/24 dev {near}"])
        with inside("there"):
            ip([f"address add 10.0.{number}.2/24 dev {far}", f"link set {far} up"])
            await_link([far])
            listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with listener, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            listener.bind((f"10.0.{number}.2", 0))
            listener.settimeout(0.5)  # ARP tries again after a second
            await_link([near])
            sender.sendto(b"first", listener.getsockname())
            assert listener.recv(100) == b"first"


def test_sockets_stay_where_they_were_made() -> None:
    ip(["link set lo up"], "there")
    with inside("there"):
        server = socket.create_server(("127.0.0.1", 0))
    with server:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(server.getsockname())
        with inside("there"), socket.create_connection(server.getsockname()):
            pass
