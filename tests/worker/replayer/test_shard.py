"""One shard: its receive loop by itself, then the process as the supervisor starts it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import pytest
import uvloop

import replayer
from replayer import shard, snapshot
from replayer.ledger import from_dict, imbalances
from replayer.settings import Settings
from replayer.snapshot import Snapshot
from tests.strategies import Conversation, get


def until(look: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for `look` to say so."""
    deadline = monotonic() + seconds
    while not look():
        assert monotonic() < deadline, "it did not happen"
        Event().wait(0.01)


# The receive loop


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A sender and a non-blocking receiver of datagrams."""
    sender, receiver = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    with sender, receiver:
        yield sender, receiver


@dataclass
class Scripted:
    """A pipeline that makes one request of each letter of a datagram; a destination that takes capital letters."""

    live: "memoryview[int]"
    log: list[tuple[str, str, int]]

    def receive(self, datagrams: list[bytes], now: float) -> list[Any]:
        self.log += [("receive", datagram.decode(), self.live[0]) for datagram in datagrams]
        return list(b"".join(datagrams).decode())

    def outgoing(self, request: Any) -> Any:
        return request if request.isupper() else None

    def submit(self, outgoing: Any, now: float) -> None:
        self.log.append(("submit", outgoing, self.live[0]))


def test_every_datagram_is_counted_before_the_first_is_looked_at(wire: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = wire
    scripted = Scripted(memoryview(bytearray(8)).cast("Q"), [])
    turn = shard.receiver(receiver, scripted.receive, [(scripted.outgoing, scripted.submit)], scripted.live)
    for data in (b"aB", b"", b"CD"):
        sender.send(data)
    turn()
    assert scripted.log == [
        ("receive", "aB", 3),
        ("receive", "", 3),
        ("receive", "CD", 3),
        ("submit", "B", 3),
        ("submit", "C", 3),
        ("submit", "D", 3),
    ]
    turn()
    assert scripted.live[0] == 3


def test_a_turn_ends_after_a_batch(wire: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = wire
    scripted = Scripted(memoryview(bytearray(8)).cast("Q"), [])
    turn = shard.receiver(receiver, scripted.receive, [], scripted.live)
    sent = 0
    sender.setblocking(False)
    while sent < shard.BATCH + 1:
        try:
            sender.send(b"x")
        except BlockingIOError:  # the kernel holds few datagrams of this kind
            break
        sent += 1
    turn()
    assert scripted.live[0] == min(sent, shard.BATCH)


@pytest.mark.parametrize("patient", [True, False])
def test_every_datagram_has_its_turn(wire: tuple[socket.socket, socket.socket], patient: bool) -> None:
    """In bursts and one by one: whether the socket pauses between its turns or is woken by each datagram."""
    sender, receiver = wire
    scripted = Scripted(memoryview(bytearray(8)).cast("Q"), [])
    read = shard.receiver(receiver, scripted.receive, [], scripted.live)

    async def send_all(bursts: tuple[int, ...]) -> None:
        read_all = asyncio.Event()

        def turn() -> int:
            count = read()
            if scripted.live[0] == sent:
                read_all.set()
            return count

        sent = 0
        intake = shard.Intake(asyncio.get_running_loop(), receiver, turn, patient=patient)
        for burst in bursts:
            read_all.clear()
            for number in range(sent, sent + burst):
                sender.send(b"%d" % number)
            sent += burst
            async with asyncio.timeout(10):
                await read_all.wait()
        intake.stop()

    uvloop.run(send_all((1, 1, 5, 1, 9, 1, 1, 7) * 20))
    assert [data for _, data, _ in scripted.log] == [str(number) for number in range(26 * 20)]


def test_destinations_change_under_the_loop(wire: tuple[socket.socket, socket.socket]) -> None:
    sender, receiver = wire
    scripted = Scripted(memoryview(bytearray(8)).cast("Q"), [])
    destinations: shard.Destinations = []
    turn = shard.receiver(receiver, scripted.receive, destinations, scripted.live)
    sender.send(b"A")
    turn()
    destinations[:] = [(scripted.outgoing, scripted.submit)] * 2
    sender.send(b"B")
    turn()
    assert [entry[1] for entry in scripted.log if entry[0] == "submit"] == ["B", "B"]


# The process

RUN = [sys.executable, "-m", "replayer.shard"]
#: The same with a pipeline that fails on datagrams that hold the word.
FAILING = """
from replayer.pipeline import Pipeline
receive_all = Pipeline.receive_all
def failing(self, datagrams, now):
    if b"poison" in datagrams:
        raise KeyError("poison")
    return receive_all(self, datagrams, now)
Pipeline.receive_all = failing
from replayer.shard import main
main()
"""


@dataclass
class Process:
    """A shard, held as the supervisor holds it."""

    popen: subprocess.Popen[bytes]
    control: socket.socket
    memory: int
    port: int

    def order(self, **order: Any) -> None:
        self.control.sendall(json.dumps(order).encode() + b"\n")

    def apply(self, generation: int, *urls: str) -> None:
        """Send settings with these destinations, and wait until they are in force."""
        settings = Settings.model_validate({"destinations": [{"url": url} for url in urls]})
        self.order(generation=generation, settings=settings.model_dump(mode="json"))
        until(lambda: (found := snapshot.read(self.memory)) is not None and found.generation == generation)

    def send(self, *datagrams: bytes) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for datagram in datagrams:
                sender.sendto(datagram, ("127.0.0.1", self.port))

    @property
    def last(self) -> Snapshot:
        found = snapshot.read(self.memory)
        assert found is not None
        assert imbalances(from_dict(found.ledger)) == []
        return found

    def part(self, url: str) -> dict[str, Any]:
        """The accounting of a destination."""
        found: dict[str, Any] = self.last.ledger["destinations"][url]
        return found


@contextmanager
def running(*command: str, errors: Path | None = None) -> Iterator[Process]:
    """A shard process that has no settings yet."""
    with ExitStack() as stack:
        sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.bind(("127.0.0.1", 0))
        ours, theirs = socket.socketpair()
        stack.enter_context(ours)
        memory = snapshot.create("shard")
        stack.callback(os.close, memory)
        files = {"memory": memory, "control": theirs.fileno(), "vxlan": sock.fileno()}
        options = ["--number=0", *(f"--{name}={fd}" for name, fd in files.items())]
        path = {"PYTHONPATH": str(Path(replayer.__file__).parent.parent)}
        with theirs:
            popen = stack.enter_context(
                subprocess.Popen(
                    [*(command or RUN), *options],
                    pass_fds=list(files.values()),
                    env={**os.environ, **path},
                    stderr=None if errors is None else stack.enter_context(errors.open("wb")),
                )
            )
        stack.callback(popen.kill)
        yield Process(popen, ours, memory, sock.getsockname()[1])


@contextmanager
def mute_server() -> Iterator[tuple[str, Callable[[], None]]]:
    """A destination that answers its first request when it is told to."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(20)

        def answer() -> None:
            client = stack.enter_context(listener.accept()[0])
            client.settimeout(20)
            assert client.recv(65536).startswith(b"GET ")
            client.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        yield f"http://127.0.0.1:{listener.getsockname()[1]}", answer


def request(target: str = "/") -> list[bytes]:
    """A connection with one request."""
    conversation = Conversation()
    return [conversation.syn(), conversation.send(get(target))]


def test_a_request_of_a_removed_destination_is_still_answered() -> None:
    with mute_server() as (url, answer), running() as process:
        process.apply(1, url)
        process.send(*request())
        until(lambda: process.part(url)["in_flight"] == 1)
        process.apply(2, "http://127.0.0.1:1")
        assert process.part(url)["in_flight"] == 1
        answer()
        until(lambda: process.part(url)["replayed"] == 1)
        assert process.part("http://127.0.0.1:1")["framed"] == 0


def test_a_removed_destination_that_comes_back_goes_on() -> None:
    with mute_server() as (url, answer), running() as process:
        process.apply(1, url)
        process.send(*request())
        until(lambda: process.part(url)["in_flight"] == 1)
        process.apply(2)
        process.apply(3, url)
        answer()
        until(lambda: process.part(url)["replayed"] == 1)


def test_draining_waits_for_answers_and_ends_with_0() -> None:
    with mute_server() as (url, answer), running() as process:
        process.apply(1, url)
        process.send(*request())
        process.order(drain=20)
        until(lambda: process.last.draining and process.part(url)["in_flight"] == 1)
        answer()
        assert process.popen.wait(20) == 0
        assert process.part(url)["replayed"] == 1
        assert process.last.ledger["flows"] == 0


def test_draining_waits_no_longer_than_told() -> None:
    with mute_server() as (url, _), running() as process:
        process.apply(1, url)
        process.send(*request())
        until(lambda: process.part(url)["in_flight"] == 1)
        process.order(drain=0.1)
        assert process.popen.wait(20) == 0
        assert process.part(url)["failed"]["drain"] == 1


def test_what_the_socket_held_before_the_shard_began_is_read() -> None:
    with mute_server() as (url, answer), running() as process:
        process.send(*request())
        process.apply(1, url)
        until(lambda: process.last.ledger["datagrams"] == 2)
        answer()
        until(lambda: process.part(url)["replayed"] == 1)


def test_a_shard_whose_supervisor_is_gone_ends() -> None:
    with running() as process:
        process.apply(1)
        process.control.close()
        assert process.popen.wait(20) == 1


def test_a_shard_that_never_got_settings_ends_too() -> None:
    with running() as process:
        process.control.close()
        assert process.popen.wait(20) == 1


def test_signals_of_the_terminal_are_not_the_shard_s() -> None:
    with running() as process:
        process.apply(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.popen.send_signal(number)
        process.apply(2)
        assert process.popen.poll() is None


def test_a_failure_ends_the_process_with_one_line_and_the_last_good_snapshot(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    with running(sys.executable, "-c", FAILING, errors=errors) as process:
        process.apply(1)
        process.send(b"short")
        until(lambda: process.last.ledger["refused"]["short"] == 1)
        process.send(b"poison")
        assert process.popen.wait(20) == 1
        assert process.last.ledger["datagrams"] == 1
        assert snapshot.live_counter(process.memory)[0] == 2
    [line] = errors.read_text().splitlines()
    assert "CRITICAL shard 0: KeyError: 'poison' (" in line
    assert "shard.py" in line


def test_a_destination_s_trouble_is_told() -> None:
    url = "http://127.0.0.1:1"
    with running() as process:
        process.apply(1, url)
        process.send(*request())
        until(lambda: url in process.last.trouble)
        assert process.part(url)["queued"] == 1
