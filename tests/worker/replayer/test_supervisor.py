"""The whole worker, as a user runs it: mirrored datagrams over loopback in, requests at a real HTTP server out."""

import http.client
import http.server
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import yaml

import replayer
from replayer import shard
from tests.strategies import Conversation, get


def until(look: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for `look` to say so."""
    deadline = monotonic() + seconds
    while not look():
        assert monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.01)


class Environment:
    """A test environment: counts the requests by target. Requests for /held… are answered once `released`."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.released = threading.Event()
        environment = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                environment.seen[self.path] += 1
                if self.path.startswith("/held"):
                    environment.released.wait(30)
                with suppress(ConnectionError):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, *_: object) -> None:
                """A worker that is killed resets its connections."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def total(self) -> int:
        """Requests received."""
        return sum(self.seen.values())

    def receives(self, total: int) -> None:
        """Wait until it has received so many."""
        until(lambda: self.total >= total)

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def environments() -> Iterator[list[Environment]]:
    made = [Environment(), Environment()]
    yield made
    for environment in made:
        environment.close()


@pytest.fixture
def environment(environments: list[Environment]) -> Environment:
    return environments[0]


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


#: The program with less patience: for shards that hang, and between two lines about trouble.
IMPATIENT = """
import sys
from replayer import cli, fleet, trouble
fleet.HUNG = trouble.QUIET = {}
sys.exit(cli.main())
"""


class Worker:
    """A running `replayer run`."""

    def __init__(self, folder: Path, place: str | None, patience: float | None, **settings: Any) -> None:
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._config, self._log, self._out = folder / "settings.yaml", folder / "log", folder / "out"
        self.settings: dict[str, Any] = {
            "listen": "127.0.0.1",
            "vxlan_port": free_udp_port(),
            "shards": 2,
            "health_address": "127.0.0.1:0",
            "admin_address": "127.0.0.1:0",
            "receive_buffer": "4MiB",
            **settings,
        }
        self._place = place or str(self._config)
        self._program = ["-m", "replayer"]
        if patience is not None:
            self._program = ["-c", IMPATIENT.format(patience)]
        self.write(self.settings)

    def launch(self) -> "Worker":
        """Run it."""
        path = {"PYTHONPATH": str(Path(replayer.__file__).parent.parent)}
        with self._log.open("wb") as log, self._out.open("wb") as out:
            self.popen = subprocess.Popen(
                [sys.executable, *self._program, "run", "--config", self._place],
                stdout=out,
                stderr=log,
                env={**os.environ, **path},
            )
        return self

    def write(self, settings: dict[str, Any] | str) -> None:
        """Change the settings' file."""
        self._config.write_text(settings if isinstance(settings, str) else yaml.safe_dump(settings))

    def reload(self, settings: dict[str, Any] | str) -> None:
        self.write(settings)
        self.popen.send_signal(signal.SIGHUP)

    def start(self) -> None:
        """Run it, and wait until it is healthy."""
        self.launch()
        until(lambda: "replays to" in self.log or self.popen.poll() is not None)
        found = re.search(r"/healthz on (\S+), /metrics and /status on (\S+);", self.log)
        assert found is not None, self.log
        self.health_address, self.admin_address = found.groups()
        until(lambda: self.health() == 200)

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def accounting(self) -> str:
        return self._out.read_text()

    def ask(self, address: str, path: str) -> tuple[int, bytes]:
        client = http.client.HTTPConnection(address, timeout=10)
        try:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def health(self) -> int:
        return self.ask(self.health_address, "/healthz")[0]

    def status(self) -> dict[str, Any]:
        """What /status says; it must balance whenever it is asked."""
        code, body = self.ask(self.admin_address, "/status")
        document: dict[str, Any] = json.loads(body)
        assert code == 200
        assert document["imbalances"] == []
        return document

    def part(self, environment: Environment) -> dict[str, Any]:
        """The accounting of a destination."""
        found: dict[str, Any] = self.status()["totals"]["destinations"][environment.url]
        return found

    def pids(self) -> list[int]:
        return [place["pid"] for place in self.status()["shards"] if place["pid"] is not None]

    def send(self, *datagrams: bytes, port: int | None = None) -> None:
        for datagram in datagrams:
            self._sender.sendto(datagram, ("127.0.0.1", port or self.settings["vxlan_port"]))

    def stop(self) -> int:
        """End it as systemd does; the exit code."""
        self.popen.terminate()
        return self.popen.wait(30)

    def close(self) -> None:
        self._sender.close()
        self.popen.kill()
        self.popen.wait()


@contextmanager
def worker(
    folder: Path,
    *environments: Environment,
    place: str | None = None,
    patience: float | None = None,
    **settings: Any,
) -> Iterator[Worker]:
    """A worker, not yet running, that replays to these environments."""
    destinations = [{"url": entry.url} for entry in environments]
    made = Worker(folder, place, patience, **{"destinations": destinations, **settings})
    try:
        yield made
    finally:
        made.close()


def clients(count: int, **path: Any) -> list[Conversation]:
    return [Conversation(client=f"10.0.0.{number + 1}", client_port=40_000 + number, **path) for number in range(count)]


def round_of(conversations: list[Conversation], target: str) -> list[bytes]:
    """One request of every client: GET target/number."""
    datagrams = [client.send(get(f"{target}/{number}")) for number, client in enumerate(conversations)]
    for client in conversations:
        client.answered()
    return datagrams


@pytest.mark.parametrize("shards", [1, 2])
def test_every_request_arrives_exactly_once(tmp_path: Path, environment: Environment, shards: int) -> None:
    with worker(tmp_path, environment, shards=shards) as running:
        running.start()
        conversations = clients(40)
        running.send(*(client.syn() for client in conversations))
        for number in range(10):
            running.send(*round_of(conversations, f"/{number}"))
        until(lambda: running.part(environment)["replayed"] == 400)
        assert environment.seen == {f"/{number}/{client}": 1 for number in range(10) for client in range(40)}

        status = running.status()
        assert status["arrived"] == status["totals"]["datagrams"] == 440
        assert all(place["ledger"]["datagrams"] > 100 for place in status["shards"])
        code, metrics = running.ask(running.admin_address, "/metrics")
        assert code == 200
        assert f'replayer_replayed_total{{destination="{environment.url}"}} 400.0' in metrics.decode()
        assert running.ask(running.health_address, "/metrics")[0] == 404
        assert running.stop() == 0
    assert re.search(r"= replayed +400\n", running.accounting)
    assert running.accounting.endswith("balanced: nothing is unaccounted for\n")


def test_geneve_too(tmp_path: Path, environment: Environment) -> None:
    port = free_udp_port()
    with worker(tmp_path, environment, geneve_port=port) as running:
        running.start()
        conversations = clients(10, geneve="vxlan", geneve_options=(b"\0" * 4, b"\0" * 32))
        running.send(*(client.syn() for client in conversations), port=port)
        running.send(*round_of(conversations, ""), port=port)
        until(lambda: running.part(environment)["replayed"] == 10)
        assert running.stop() == 0


def test_a_shard_killed_under_load_costs_the_other_nothing(tmp_path: Path, environment: Environment) -> None:
    rounds, sent = 120, 0
    with worker(tmp_path, environment) as running:
        running.start()
        conversations = clients(20)
        running.send(*(client.syn() for client in conversations))
        for number in range(rounds):
            running.send(*round_of(conversations, f"/{number}"))
            sent += len(conversations)
            environment.receives(sent // 3)  # the killed shard's flows may come to a halt
            if number == rounds // 3:
                victim = running.status()["shards"][0]["pid"]
                os.kill(victim, signal.SIGKILL)

        def survivor() -> dict[str, Any]:
            found: dict[str, Any] = running.status()["shards"][1]["ledger"]
            return found

        def survived() -> bool:
            left = survivor()
            return bool(left["destinations"][environment.url]["replayed"] == left["flows_opened"] * rounds)

        until(survived)
        assert survivor()["flows_opened"] > 3
        assert survivor()["socket_drops"] == survivor()["crashes"] == sum(survivor()["given_up"].values()) == 0
        targets = [[f"/{number}/{client}" for number in range(rounds)] for client in range(len(conversations))]
        whole = [client for client in targets if all(environment.seen[target] == 1 for target in client)]
        assert len(whole) >= survivor()["flows_opened"]
        assert max(environment.seen.values()) == 1

        # What the shard had read, but not yet counted, when it was killed is the only thing nobody knows of.
        everything = sent + len(conversations)
        until(lambda: everything - shard.BATCH <= running.status()["arrived"] <= everything)
        assert running.status()["totals"]["crashes"] == 1
        assert running.stop() == 0
    assert f"ERROR shard 0 (pid {victim}) was killed by SIGKILL: crash 1, it restarts in 0.1 s" in running.log
    assert running.accounting.endswith("balanced: nothing is unaccounted for\n")


def test_what_a_dead_shard_had_pending_has_failed(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment, shards=1) as running:
        running.start()
        [client] = clients(1)
        running.send(client.syn(), client.send(get("/held")), client.send(get("/next")))
        client.lose(b"?" * 10)
        running.send(client.send(b"behind a hole"))
        until(lambda: running.part(environment)["in_flight"] == running.part(environment)["queued"] == 1)
        until(lambda: running.status()["totals"]["held_bytes"] == len(b"behind a hole"))
        os.kill(running.pids()[0], signal.SIGKILL)
        until(lambda: running.status()["totals"]["crashes"] == 1)
        totals = running.status()["totals"]
        assert totals["destinations"][environment.url]["failed"]["shard_crashed"] == 2
        assert totals["given_up_bytes"]["shard_crashed"] == len(b"behind a hole")


def test_new_settings_take_effect_and_lose_nothing(tmp_path: Path, environments: list[Environment]) -> None:
    first, second = environments
    with worker(tmp_path, first) as running:
        running.start()
        conversations = clients(20)
        running.send(*(client.syn() for client in conversations))
        settings = running.settings
        rounds = 0

        def drive(done: Callable[[], bool]) -> None:
            nonlocal rounds
            deadline = monotonic() + 30
            while not done():
                assert monotonic() < deadline
                running.send(*round_of(conversations, f"/{rounds}"))
                rounds += 1
                first.receives(20 * rounds)

        drive(lambda: rounds > 5)
        both = [{"url": entry.url, "timeout": 5.0} for entry in environments]
        running.reload({**settings, "destinations": both})
        drive(lambda: len(second.seen) > 100)
        until(lambda: {place["settings_generation"] for place in running.status()["shards"]} == {2})

        running.reload("destinations: [")
        drive(lambda: running.status()["config_errors"] == 1)
        running.reload({**settings, "vxlan_port": 4789, "shards": 3})
        drive(lambda: running.status()["config_errors"] == 2)
        running.reload({**settings, "destinations": both})
        until(lambda: running.status()["config_error"] is None)
        assert running.status()["settings_generation"] == 2

        running.reload({**settings, "destinations": both[:1]})
        until(lambda: {place["settings_generation"] for place in running.status()["shards"]} == {3})
        before, stop = second.total, rounds + 5
        drive(lambda: rounds > stop)
        assert second.total == before
        until(lambda: running.part(first)["replayed"] == 20 * rounds)
        assert first.seen == {f"/{number}/{client}": 1 for number in range(rounds) for client in range(20)}
        assert max(second.seen.values()) == 1
        assert running.part(second)["replayed"] == second.total
        assert running.stop() == 0
    refusals = [line for line in running.log.splitlines() if "settings refused, those in force stay" in line]
    assert "is not YAML" in refusals[0]
    assert f"vxlan_port ({settings['vxlan_port']} → 4789), shards (2 → 3)" in refusals[1]
    assert len(refusals) == 2


def test_each_bad_version_is_counted_and_the_good_one_clears(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment, shards=1) as running:
        running.start()
        config = tmp_path / "settings.yaml"
        good = config.read_text()

        def becomes(errors: int, fault: str | None) -> None:
            running.popen.send_signal(signal.SIGHUP)

            def told() -> bool:
                status = running.status()
                error = status["config_error"]
                return status["config_errors"] == errors and (error is None if fault is None else fault in error)

            until(told)

        config.write_text("# one\nvxlan_port: x\n")
        becomes(1, "vxlan_port: 'x'")
        config.write_text("# two\nvxlan_port: x\n")
        becomes(2, "vxlan_port: 'x'")
        config.write_text(good)
        becomes(2, None)
        for errors in (3, 4):
            config.unlink()
            becomes(errors, "No such file")
            config.write_text(good)
            becomes(errors, None)
        config.write_text("vxlan_port: x")
        becomes(5, "vxlan_port: 'x'")
        config.unlink()
        becomes(6, "No such file")
        running.popen.send_signal(signal.SIGHUP)  # still gone: nothing new
        (tmp_path / "next").write_text("vxlan_port: x")
        (tmp_path / "next").rename(config)
        becomes(7, "vxlan_port: 'x'")
        assert running.status()["settings_generation"] == 1
        assert running.stop() == 0
    assert running.log.count("settings refused, those in force stay: ") == 7
    assert running.log.count("settings are good again") == 3


def test_a_destination_that_dies_and_returns_is_logged(tmp_path: Path) -> None:
    with socket.socket() as returning:
        returning.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{returning.getsockname()[1]}"
        with worker(tmp_path, patience=0.5, drain_timeout=0.2, destinations=[{"url": url}]) as running:
            running.start()
            conversations = clients(20)
            running.send(*(client.syn() for client in conversations), *round_of(conversations, ""))
            until(lambda: f"WARNING trouble with {url}: 127.0.0.1 port " in running.log)
            returning.listen()  # connections succeed, nobody answers
            until(lambda: f"INFO trouble with {url} has ended" in running.log)
            assert running.stop() == 0
    assert running.log.count("trouble with") == 2
    assert running.accounting.count("last trouble: 127.0.0.1 port ") == 1


def test_bad_tls_is_logged_and_stands_in_the_accounting(tmp_path: Path, environment: Environment) -> None:
    url = environment.url.replace("http", "https")
    with worker(tmp_path, shards=1, drain_timeout=0.5, destinations=[{"url": url}]) as running:
        running.start()
        [client] = clients(1)
        running.send(client.syn(), client.send(get("/")))
        until(lambda: f"WARNING trouble with {url}: 127.0.0.1 port " in running.log)
        assert running.stop() == 0
    [line] = [line for line in running.log.splitlines() if "trouble with" in line]
    assert "SSL" in line
    assert f"    last trouble: {line.partition(f'{url}: ')[2]}\n" in running.accounting


class ParameterStore(http.server.BaseHTTPRequestHandler):
    """SSM's GetParameter for one parameter."""

    value = ""

    def do_POST(self) -> None:
        body = json.dumps({"Parameter": {"Name": "/replay", "Value": ParameterStore.value}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_a_parameter_is_looked_at_from_time_to_time(
    tmp_path: Path, environments: list[Environment], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = environments
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), ParameterStore) as store:
        thread = threading.Thread(target=store.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{store.server_address[1]}"
        variables = {"ENDPOINT_URL_SSM": address, "REGION": "eu-west-1", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}
        for name, value in variables.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        with worker(tmp_path, place="ssm:/replay") as running:
            settings = {**running.settings, "poll_interval": 0.1}

            def publish(*urls: str) -> None:
                ParameterStore.value = yaml.safe_dump({**settings, "destinations": [{"url": url} for url in urls]})

            publish(first.url)
            running.start()
            publish("ftp://wrong")
            until(lambda: running.status()["config_errors"] == 1)
            publish(second.url)
            until(lambda: running.status()["settings_generation"] == 2)
            assert running.status()["config_errors"] == 1
            assert running.stop() == 0
        store.shutdown()
        thread.join()
    assert running.log.count("settings refused") == 1


def test_sigterm_drains_and_health_says_so(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment) as running:
        running.start()
        conversations = clients(8)
        running.send(*(client.syn() for client in conversations), *round_of(conversations, "/held"))
        until(lambda: running.part(environment)["in_flight"] == 8)
        running.popen.terminate()
        until(lambda: running.health() == 503)
        assert running.ask(running.health_address, "/healthz")[1] == b"draining\n"
        running.send(*round_of(conversations, "/late"))
        environment.released.set()
        assert running.popen.wait(30) == 0
    assert re.search(r"= replayed +8\n", running.accounting)
    assert re.search(r"= socket drops +8\n", running.accounting)
    assert "8 datagrams came while draining" in running.log
    assert not any(target.startswith("/late") for target in environment.seen)


def test_draining_ends_after_its_timeout(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment, drain_timeout=0.2) as running:
        running.start()
        conversations = clients(8)
        running.send(*(client.syn() for client in conversations), *round_of(conversations, "/held"))
        until(lambda: running.part(environment)["in_flight"] == 8)
        assert running.stop() == 0
    assert re.search(r"\+ failed +8\n +drain +8\n", running.accounting)


def test_a_second_signal_ends_at_once(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment, drain_timeout=60) as running:
        running.start()
        [client] = clients(1)
        running.send(client.syn(), client.send(get("/held")))
        until(lambda: running.part(environment)["in_flight"] == 1)
        running.popen.send_signal(signal.SIGINT)
        until(lambda: running.health() == 503)
        running.popen.send_signal(signal.SIGINT)
        assert running.popen.wait(5) == 128 + signal.SIGINT
    assert running.accounting.endswith("balanced: nothing is unaccounted for\n")


def test_a_crash_loop_ends_the_worker(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment) as running:
        running.start()

        def crash() -> bool:
            with suppress(OSError, http.client.HTTPException):  # it has ended
                pid = running.status()["shards"][1]["pid"]
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            return running.popen.poll() is not None

        until(crash)
        assert running.popen.returncode == 1
    assert "CRITICAL shard 1" in running.log
    assert "crash 5 within 30 s; the worker ends" in running.log
    assert re.search(r"shard crashes +5\n", running.accounting)


@pytest.mark.parametrize("setting", ["vxlan_port", "health_address", "admin_address"])
def test_a_port_that_is_taken_is_one_clear_line(tmp_path: Path, environment: Environment, setting: str) -> None:
    kind = socket.SOCK_DGRAM if setting == "vxlan_port" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        settings: dict[str, Any] = {setting: port if setting == "vxlan_port" else f"127.0.0.1:{port}"}
        with worker(tmp_path, environment, **settings) as refused:
            assert refused.launch().popen.wait(30) == 2
    [line] = refused.log.splitlines()
    assert f"{setting} " in line
    assert "end the program" in line


def test_two_workers_cannot_share_a_port(tmp_path: Path, environment: Environment) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with worker(tmp_path, environment) as running:
        running.start()
        with worker(other, environment, vxlan_port=running.settings["vxlan_port"]) as second:
            assert second.launch().popen.wait(30) == 2
        assert running.health() == 200


def test_shards_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment) as running:
        running.start()
        pids = running.pids()
        assert all(os.getpgid(pid) == pid for pid in pids)  # Ctrl-C does not reach them
        running.popen.kill()
        until(lambda: not any(_lives(pid) for pid in pids))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_shard_that_hangs_is_unhealthy(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment) as running:
        running.start()
        pid = running.pids()[0]
        os.kill(pid, signal.SIGSTOP)
        until(lambda: running.health() == 503)
        assert running.ask(running.health_address, "/healthz")[1] == b"not alive: shard 0\n"
        os.kill(pid, signal.SIGCONT)
        until(lambda: running.health() == 200)
        assert running.status()["totals"]["crashes"] == 0


def test_a_shard_that_hangs_for_good_is_replaced(tmp_path: Path, environment: Environment) -> None:
    with worker(tmp_path, environment, patience=0.2) as running:
        running.start()
        pid = running.pids()[0]
        os.kill(pid, signal.SIGSTOP)
        until(lambda: running.status()["totals"]["crashes"] == 1)
        until(lambda: running.health() == 200)
        assert pid not in running.pids()
        assert running.stop() == 0
    assert f"ERROR shard 0 (pid {pid}) hangs: it is ended" in running.log
    assert f"ERROR shard 0 (pid {pid}) was killed by SIGKILL: crash 1, it restarts in 0.1 s" in running.log
