"""The relay between real sockets: what it says it did is what came out."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab import relay
from lab.impairment import Impairment
from lab.relay import Report

_COUNT = 2000


def _relay(tmp_path: Path, *flags: str) -> tuple[list[bytes], Report]:
    """What comes out of a relay that `_COUNT` numbered datagrams went into."""
    file = tmp_path / "report"
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        relay.enlarge(receiver)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        with socket.socket(type=socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        ends = (f"{address[0]}:{address[1]}", "{}:{}".format(*receiver.getsockname()))
        process = subprocess.Popen([sys.executable, "-m", "lab.relay", *ends, str(file), *flags])
        try:
            first = _until_it_listens(sender, receiver, address)
            for number in range(1, _COUNT):
                sender.sendto(b"%d" % number, address)
                if number % 50 == 0:
                    first += _drain(receiver)
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        return first + _drain(receiver), relay.read(file)


def _until_it_listens(sender: socket.socket, receiver: socket.socket, address: tuple[str, int]) -> list[bytes]:
    """Send datagram 0 until it comes through; whatever copies of it came."""
    receiver.settimeout(0.1)
    for _ in range(200):
        sender.sendto(b"0", address)
        try:
            return [receiver.recv(100)]
        except TimeoutError:
            continue
    pytest.fail("the relay does not listen")


def _drain(receiver: socket.socket) -> list[bytes]:
    receiver.setblocking(False)
    found = []
    try:
        while True:
            found.append(receiver.recv(100))
    except BlockingIOError:
        return found


def test_without_an_impairment_all_passes_in_order(tmp_path: Path) -> None:
    out, report = _relay(tmp_path)

    assert list(dict.fromkeys(out)) == [b"%d" % number for number in range(_COUNT)]
    assert (report.sent, report.dropped, report.reordered, report.duplicated, report.kernel_drops) == (
        report.received,
        0,
        0,
        0,
        0,
    )


def test_it_counts_what_it_does(tmp_path: Path) -> None:
    out, report = _relay(tmp_path, "--drop", "5", "--reorder", "5", "--duplicate", "5", "--delay", "0.02")

    assert min(report.dropped, report.reordered, report.duplicated) > 50
    assert len(out) == report.sent == report.received - report.dropped + report.duplicated
    numbers = [int(datagram) for datagram in out if datagram != b"0"]
    assert numbers != sorted(numbers)


def test_what_waits_when_it_is_to_end_is_passed_on() -> None:
    """More than one batch of it: as if the relay had had no turn since."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        relay.enlarge(receiver)
        receiver.bind(("127.0.0.1", 0))
        under_test = relay._Relay(("127.0.0.1", 0), receiver.getsockname(), Impairment())
        try:
            for number in range(_COUNT):
                sender.sendto(b"%d" % number, under_test._incoming.getsockname())
            under_test.end(signal.SIGTERM, None)
            report = under_test.run()
        finally:
            under_test._incoming.close()
            under_test._outgoing.close()
        assert _drain(receiver) == [b"%d" % number for number in range(_COUNT)]
        assert (report.received, report.sent) == (_COUNT, _COUNT)
