"""`replayer replay`: the requests of capture files, sent to a real server at a pace."""

import asyncio
import io
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from scapy.utils import RawPcapWriter

import replayer
from replayer.cli import main
from tests.strategies import Conversation, get, post

CAPTURES = Path(__file__).parents[2] / "captures"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Server:
    """A server that reads requests with Content-Length or chunked bodies, and answers as `answer` says."""

    port: int = 0
    seen: list[tuple[float, bytes, bytes]] = field(default_factory=list)  # when, head, body as sent
    answer: Callable[[int], bytes] = lambda number: OK
    delay: float = 0.0

    @property
    def targets(self) -> list[str]:
        return [head.split()[1].decode() for _, head, _ in self.seen]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await self.body(head.lower(), reader)
                self.seen.append((time.monotonic(), head, body))
                await asyncio.sleep(self.delay)
                reply = self.answer(len(self.seen) - 1)
                if not reply:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def body(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        if b"transfer-encoding: chunked" in head:
            return await reader.readuntil(b"\r\n0\r\n\r\n")
        _, found, rest = head.partition(b"content-length:")
        return await reader.readexactly(int(rest.split()[0])) if found else b""


@contextmanager
def serving(server: Server) -> Iterator[str]:
    """The server's address while it runs, in a thread of its own."""
    loop = asyncio.new_event_loop()
    listener = loop.run_until_complete(asyncio.start_server(server.serve, "127.0.0.1", server.port))
    server.port = listener.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def stop() -> None:
        for _ in range(5):  # a connection still in the backlog would find no listener that it could belong to
            await asyncio.sleep(0)
        listener.close()
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:  # those of connections being accepted too
            listener.close_clients()
            await asyncio.wait(tasks)
        await listener.wait_closed()

    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard error of `replayer replay`."""
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", err)
        code = main(["replay", *map(str, arguments)])
    return code, err.getvalue()


def write(path: Path, frames: list[tuple[float, bytes]]) -> Path:
    writer = RawPcapWriter(str(path), linktype=1)
    writer.write_header(None)
    for at, frame in frames:
        writer.write_packet(frame, sec=int(at), usec=round(at % 1 * 1_000_000))
    writer.close()
    return path


def requests(path: Path, count: int, gap: float, clients: int = 1) -> Path:
    """A capture of `count` GETs, `gap` seconds apart, from clients in turn."""
    connections = [Conversation(vni=None, client_port=1000 + number) for number in range(clients)]
    frames = [(1000.0, connection.syn()) for connection in connections]
    for number in range(count):
        connection = connections[number % clients]
        frames.append((1000.0 + number * gap, connection.send(get(f"/{number}"))))
        connection.answered()
    return write(path, frames)


def test_the_requests_of_a_real_capture_arrive_exactly_once() -> None:
    server = Server()
    with serving(server) as url:
        code, err = run(CAPTURES / "mirrored.pcap.gz", "--to", url + "/prefix", "--speed", "max")
    assert code == 0
    assert sorted(server.targets) == sorted(
        f"/prefix{target}" for target in ("/ready", "/one?a=1", "/two", "/six", "/post", "/chunked")
    )
    bodies = {head.split()[1]: body for _, head, body in server.seen}
    assert len(bodies[b"/prefix/post"]) == 6668
    assert bodies[b"/prefix/post"] in bodies[b"/prefix/chunked"] or b"chunked" in bodies[b"/prefix/chunked"].lower()
    assert all(b"X-Traffic-Replay" in head for _, head, _ in server.seen)
    assert err.endswith("balanced: nothing is unaccounted for\n")


@pytest.mark.parametrize(("gap", "speed"), [(0.1, "1.0"), (100.0, "1000"), (0.02, "0.2")])
def test_the_pace_is_the_captures_over_the_speed(tmp_path: Path, gap: float, speed: str) -> None:
    server = Server()
    with serving(server) as url:
        assert run(requests(tmp_path / "a.pcap", 5, gap), "--to", url, "--speed", speed)[0] == 0
    assert server.targets == ["/0", "/1", "/2", "/3", "/4"]
    assert server.seen[-1][0] - server.seen[0][0] > 0.35  # 0.4 s, less what the first request took to connect


def test_max_waits_for_nothing_but_answers(tmp_path: Path) -> None:
    server = Server()
    with serving(server) as url:
        code, _ = run(requests(tmp_path / "a.pcap", 20, 3600.0), "--to", url, "--speed", "max")
    assert (code, server.targets) == (0, [f"/{number}" for number in range(20)])


def test_a_slow_destination_drops_nothing(tmp_path: Path) -> None:
    server = Server(delay=0.002)
    with serving(server) as url:
        path = requests(tmp_path / "a.pcap", 1500, 0.0001, clients=50)
        code, err = run(path, "--to", url, "--speed", "max", "--connections", "8")
    assert code == 0
    assert sorted(server.targets) == sorted(f"/{number}" for number in range(1500))
    assert "balanced" in err


def test_a_destination_that_cannot_hold_the_pace_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replayer.offline._MOST_WAITING", 1)
    monkeypatch.setattr("replayer.offline._LATE", 0.1)
    server = Server(delay=0.05)
    with serving(server) as url:
        code, err = run(requests(tmp_path / "a.pcap", 10, 0.001), "--to", url)
    assert (code, len(server.seen)) == (0, 10)
    assert "replayer: the destination was slower than the capture: up to 0." in err


def test_bytes_that_wait_stay_under_the_limit(tmp_path: Path) -> None:
    connection = Conversation(vni=None)
    frames = [connection.syn()]
    for number in range(20):
        frames += connection.full(post(f"/{number}", b"x" * (60 << 10)))
        connection.answered()
    path = write(tmp_path / "a.pcap", [(1000.0, frame) for frame in frames])
    server = Server(delay=0.02)
    with serving(server) as url:
        code, err = run(path, "--to", url, "--speed", "max", "--queue-bytes", "200KiB")
    assert (code, len(server.seen)) == (0, 20), err


def test_requests_larger_than_the_queue_arrive_all(tmp_path: Path) -> None:
    frames = []
    for number in range(6):  # clients of their own, so that connections could serve them at the same time
        connection = Conversation(vni=None, client_port=1000 + number)
        frames += [connection.syn(), *connection.full(post(f"/{number}", b"x" * 5000))]
    path = write(tmp_path / "a.pcap", [(1000.0, frame) for frame in frames])
    server = Server(delay=0.01)
    with serving(server) as url:
        code, err = run(path, "--to", url, "--speed", "max", "--queue-bytes", "4KiB")
    assert code == 0, err
    assert sorted(server.targets) == [f"/{number}" for number in range(6)]
    assert {len(body) for _, _, body in server.seen} == {5000}


def test_selection_and_rewriting_are_flags(tmp_path: Path) -> None:
    server = Server()
    with serving(server) as url:
        code, err = run(
            *(CAPTURES / "ethernet.pcap", "--to", url, "--speed", "max", "--methods", "GET,POST"),
            *("--drop-headers", "X-Mixed,User-Agent", "--keep-host-header", "--mark-header", "X-Copy"),
        )
    assert code == 0
    assert sorted(server.targets) == ["/one?a=1", "/post", "/ready", "/two"]
    for _, head, _ in server.seen:
        assert b"user-agent" not in head.lower()
        assert b"x-mixed" not in head.lower()
        assert b"Host: 10.1.0.1\r\n" in head
        assert b"X-Copy" in head
    assert "method" in err


def test_failures_end_with_1(tmp_path: Path) -> None:
    server = Server(answer=lambda number: b"" if number == 2 else OK)
    with serving(server) as url:
        connection = Conversation(vni=None)
        frames = [connection.syn()]
        for number in range(4):
            frames.append(connection.send(post(f"/{number}", b"no second try")))
            connection.answered()
        code, err = run(write(tmp_path / "a.pcap", [(1000.0, f) for f in frames]), "--to", url, "--speed", "max")
    assert code == 1
    assert server.targets == ["/0", "/1", "/2", "/3"]
    assert "balanced" in err


def test_a_destination_that_goes_away_ends_the_replay(tmp_path: Path) -> None:
    server = Server(answer=lambda number: b"")

    def close_for_good(number: int) -> bytes:
        asyncio.get_running_loop().call_soon(listeners[0].close)
        return OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    server.answer = close_for_good
    listeners: list[asyncio.Server] = []
    start_server = asyncio.start_server

    async def noted(*arguments: object) -> asyncio.Server:
        listeners.append(await start_server(*arguments))  # type: ignore[arg-type]
        return listeners[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asyncio, "start_server", noted)
        with serving(server) as url:
            code, err = run(
                *(requests(tmp_path / "a.pcap", 5, 0.001), "--to", url, "--speed", "max"),
                *("--timeout", "0.1", "--connect-timeout", "0.1"),
            )
    assert code == 1
    assert server.targets == ["/0"]
    assert err.endswith("the rest was not replayed\n")
    assert f"replayer: --to {url}: 127.0.0.1 port {server.port}: " in err
    assert "balanced" in err


def test_nobody_there_is_said_before_anything_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Server()) as url:
        pass
    assert main(["replay", str(tmp_path / "none.pcap"), "--to", url]) == 2
    address = url.removeprefix("http://")
    assert capsys.readouterr().err == (
        f"replayer: --to {url}: {address} is not reachable: Connection refused: start it, or correct the address\n"
    )


def test_a_missing_file(tmp_path: Path) -> None:
    with serving(Server()) as url:
        code, err = run(tmp_path / "none.pcap", "--to", url)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"replayer: {tmp_path / 'none.pcap'}: No such file or directory")


def test_a_cut_file_is_replayed_as_far_as_it_goes(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((CAPTURES / "ethernet.pcap").read_bytes()[:3000])
    server = Server()
    with serving(server) as url:
        code, err = run(cut, "--to", url, "--speed", "max")
    assert code == 3
    assert server.targets[:1] == ["/ready"]
    assert err.splitlines()[-1].startswith(f"replayer: {cut}: damaged or cut at frame ")


# On a terminal


def start(stderr: int, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(replayer.__file__).parents[1]), "TERM": "xterm"}
    command = [sys.executable, "-m", "replayer", "replay", *arguments]
    return subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, env=environment)


def test_a_terminal_shows_a_progress_bar(tmp_path: Path) -> None:
    primary, secondary = pty.openpty()
    server = Server()
    with serving(server) as url:
        process = start(secondary, str(requests(tmp_path / "a.pcap", 10, 0.02)), "--to", url)
        os.close(secondary)
        shown = b""
        try:
            while data := os.read(primary, 65536):
                shown += data
        except OSError:  # Linux says so when the other side is closed
            pass
        os.close(primary)
        assert process.wait(60) == 0
    assert b"100 %" in shown
    assert "10 replayed · 0 failed · 0 waiting".encode() in shown
    assert shown.endswith(b"balanced: nothing is unaccounted for\r\n")


def test_an_interrupt_ends_with_the_accounting(tmp_path: Path) -> None:
    server = Server()
    arrived = threading.Event()

    def note(number: int) -> bytes:
        arrived.set()
        return OK

    server.answer = note
    with serving(server) as url:
        process = start(subprocess.PIPE, str(requests(tmp_path / "a.pcap", 5, 60.0)), "--to", url)
        assert arrived.wait(60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith(b"balanced: nothing is unaccounted for\n")
    assert b"Traceback" not in err
