"""The router joins what hangs on it, and loses what is sent to nobody."""

import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lab.fabric import router
from lab.fabric.router import (
    BALANCER,
    BALANCER_ADDRESS,
    CLIENT_ADDRESS,
    ENDPOINT_ADDRESS,
    INTERNET,
    NITRO,
    UNDERLAY_OF_BALANCER,
    UNDERLAY_OF_NITRO,
    Port,
)
from lab.network.namespaces import NetworkError, inside

pytestmark = pytest.mark.network(whole=True)


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    router.build()


def received(here: str | None, there: str | None, address: str) -> tuple[str, int]:
    """The source of a datagram of 1,000 bytes, and its length."""
    with _socket(there) as listener, _socket(here) as sender:
        listener.bind((address, 0))
        listener.settimeout(5)
        sender.sendto(b"x" * 1000, listener.getsockname())
        data, (source, _) = listener.recvfrom(65535)
    return source, len(data)


def _socket(namespace: str | None) -> socket.socket:
    if namespace is None:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@pytest.mark.parametrize(
    ("here", "there", "address", "source"),
    [
        (INTERNET, BALANCER, BALANCER_ADDRESS, CLIENT_ADDRESS),
        (BALANCER, INTERNET, CLIENT_ADDRESS, BALANCER_ADDRESS),
        (INTERNET, None, ENDPOINT_ADDRESS, CLIENT_ADDRESS),
        (None, BALANCER, BALANCER_ADDRESS, ENDPOINT_ADDRESS),
        (NITRO, BALANCER, UNDERLAY_OF_BALANCER, UNDERLAY_OF_NITRO),
    ],
)
def test_who_reaches_whom(here: str | None, there: str | None, address: str, source: str) -> None:
    assert received(here, there, address) == (source, 1000)


def test_it_is_built_once() -> None:
    router.build()
    assert received(INTERNET, BALANCER, BALANCER_ADDRESS) == (CLIENT_ADDRESS, 1000)


def test_an_address_that_nobody_has_does_not_answer() -> None:
    """Refused at once would be another's answer: of a router, or of a host without the service."""
    with inside(INTERNET), socket.socket() as caller:
        caller.settimeout(0.2)
        with pytest.raises(TimeoutError):
            caller.connect(("10.9.9.9", 80))


def test_a_namespace_comes_and_goes_again() -> None:
    port = Port("i-1", "eth0", "eni1", "10.0.0.4", "02:00:00:00:00:04")
    for _ in range(10):
        begun = time.monotonic()
        router.connect([port])
        assert time.monotonic() - begun < 0.3
        assert received(INTERNET, "i-1", "10.0.0.4") == (CLIENT_ADDRESS, 1000)
        router.remove([port])


def test_a_connection_that_fails_leaves_nothing() -> None:
    one = Port("i-1", "eth0", "eni1", "10.0.0.4", "02:00:00:00:00:04")
    router.connect([one])
    before = devices()
    other, further = replace(one, namespace="i-2", outer="eni2"), replace(one, inner="eth1", outer="eni3", index=1)
    for _ in range(2):
        with pytest.raises(NetworkError, match="10.0.0.4: another interface has this address"):
            router.connect([other])
        with pytest.raises(NetworkError, match="10.0.0.4: another interface has this address"):
            router.connect([further], new=False)
        with pytest.raises(NetworkError, match="03:00:00:00:00:04"):
            router.connect([replace(further, address="10.0.0.5", mac="03:00:00:00:00:04")], new=False)
    assert devices() == before
    assert not Path("/run/netns/i-2").exists()
    assert received(INTERNET, "i-1", "10.0.0.4") == (CLIENT_ADDRESS, 1000)
    router.remove([one])


def devices() -> set[str]:
    return {name for _, name in socket.if_nameindex()}
