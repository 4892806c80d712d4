"""Instances run what they are there for, and nothing once they are halted."""

import ctypes
import hashlib
import json
import signal
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lab.fabric.hosts import Host, Interface
from lab.images import IMAGES, UserDataError
from lab.logs import Follower, intact
from lab.machines import MachineError, Machines
from lab.network.namespaces import NetworkError, inside
from lab.worker import Status
from tests.waiting import until

pytestmark = pytest.mark.network(whole=True)

SETTINGS = "destinations: [{url: 'http://127.0.0.1'}]"
_PR_SET_CHILD_SUBREAPER = 36
ENDPOINT = ("127.0.0.1", 5000)


def _host(instance: str, image: str, user_data: str = "") -> Host:
    return Host(instance, IMAGES[image], (Interface("eni-1", "10.0.0.1", "02:00:00:00:00:01", 0),), {}, user_data)


def _install(name: str) -> str:
    return f"bash install.sh --python /x --config ssm:{name} --service replay"


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    for name in ("i-web", "i-test", "i-worker", "i-plain"):
        subprocess.run(["ip", "netns", "add", name], check=True)
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    with Machines(tmp_path / "machines", f"http://{ENDPOINT[0]}:{ENDPOINT[1]}") as machines:
        yield machines
    for name in ("i-web", "i-test", "i-worker", "i-plain"):
        assert _pids(name) == []


class _Parameters(BaseHTTPRequestHandler):
    """Parameter Store with one parameter."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = asked["Name"] == "/replay/worker"
        fault = {"__type": "ParameterNotFound", "message": ""}
        body = json.dumps({"Parameter": {"Value": SETTINGS}} if known else fault).encode()
        self.send_response(200 if known else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def parameters(namespaces: None) -> Iterator[None]:
    with inside("i-worker"):
        server = HTTPServer(ENDPOINT, _Parameters)
    with server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def _ask(instance: str, method: str, target: str, body: bytes = b"", **headers: str) -> str:
    with inside(instance):
        connection = HTTPConnection("127.0.0.1", timeout=5)
        connection.connect()
    connection.request(method, target, body, headers)
    answer = connection.getresponse().read().decode()
    connection.close()
    return answer


def _pids(instance: str) -> list[str]:
    done = subprocess.run(["ip", "netns", "pids", instance], check=True, capture_output=True, text=True)
    return done.stdout.split()


def test_a_web_server_answers_at_once_and_goes_when_it_is_halted(machines: Machines) -> None:
    host = _host("i-web", "web")
    machines.boot(host)
    assert _ask("i-web", "GET", "/a") == "i-web\n"

    machines.halt(host)
    assert _pids("i-web") == []
    assert machines.ended() == {}
    assert _logged(machines, "i-web", 1) == ["/a"]
    machines.halt(host)  # once more does no harm


def test_one_that_was_killed_starts_again_and_its_log_goes_on(machines: Machines) -> None:
    host = _host("i-web", "web")
    machines.boot(host)
    _ask("i-web", "POST", "/upload/1", b"x")
    _logged(machines, "i-web", 1)
    machines.kill("i-web")
    until("it is gone", lambda: "exit status -9" in machines.ended().get("i-web", ""))

    machines.boot(host)
    _ask("i-web", "POST", "/upload/2", b"x")
    assert machines.ended() == {}
    assert _logged(machines, "i-web", 2) == ["/upload/1", "/upload/2"]


def test_the_test_environment_keeps_bodies(machines: Machines) -> None:
    machines.boot(_host("i-test", "test"))
    digest = hashlib.sha256(b"abc").hexdigest()
    for number, body in enumerate((b"abc", b"abd")):
        _ask("i-test", "POST", f"/upload/{number}", body, **{"X-Lab-Sha256": digest})

    assert len(_logged(machines, "i-test", 2)) == 2
    assert [intact(entry) for entry in Follower(machines.log("i-test")).read()] == [True, False]


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(machines: Machines) -> None:
    with inside("i-test"):
        server = HTTPServer(("0.0.0.0", 80), _Parameters)
    with server, pytest.raises(NetworkError, match="i-test.*Address already in use"):
        machines.boot(_host("i-test", "test"))


def test_a_worker_reads_the_settings_that_its_user_data_names(machines: Machines, parameters: None) -> None:
    host = _host("i-worker", "worker", _install("/replay/worker"))
    machines.boot(host)
    assert machines.workers() == ["i-worker"]
    status = until("it is there", lambda: _status(machines))
    assert status["balanced"]
    assert len(status["shards"]) == 1

    machines.halt(host)
    assert machines.workers() == []
    log = machines.log("i-worker").read_text()
    assert "replays to http://127.0.0.1" in log
    assert "SIGTERM" in log


def test_a_worker_that_was_killed_is_silent_and_can_be_halted(machines: Machines, parameters: None) -> None:
    host = _host("i-worker", "worker", _install("/replay/worker"))
    machines.boot(host)
    until("it is there", lambda: _status(machines))
    machines.kill("i-worker", signal.SIGKILL)
    until("it is gone", lambda: _pids("i-worker") == [])

    with pytest.raises(MachineError, match="i-worker does not give its /status"):
        machines.status("i-worker")
    assert machines.workers() == ["i-worker"]
    machines.halt(host)
    assert machines.ended() == {}


def test_a_worker_without_settings_is_told_with_its_last_words(machines: Machines, parameters: None) -> None:
    machines.boot(_host("i-worker", "worker", _install("/no/such")))

    said = until("it has ended", lambda: machines.ended().get("i-worker", ""))
    assert "exit status 2" in said
    assert "/no/such" in said


def test_user_data_that_names_no_settings_is_refused(machines: Machines) -> None:
    with pytest.raises(UserDataError, match="--config ssm:NAME"):
        machines.boot(_host("i-worker", "worker", "bash install.sh"))


def test_nothing_runs_on_a_plain_instance_and_nothing_is_left_on_any(machines: Machines) -> None:
    host = _host("i-plain", "plain")
    machines.boot(host)
    assert _pids("i-plain") == []
    with inside("i-plain"):
        sleeper = subprocess.Popen(["sleep", "600"])

    machines.halt(host)
    assert sleeper.wait(5) == -signal.SIGKILL
    assert machines.ended() == {}


def test_an_instance_without_a_namespace_can_be_halted(machines: Machines) -> None:
    machines.halt(_host("i-gone", "web"))


def _logged(machines: Machines, instance: str, requests: int) -> list[str]:
    """The targets in its log, when there are so many: nginx answers first and logs then."""
    log, found = Follower(machines.log(instance)), list[str]()

    def look() -> bool:
        found.extend(entry.target for entry in log.read())
        return len(found) >= requests

    until("the log has it", look)
    return found


def _status(machines: Machines) -> Status:
    try:
        return machines.status("i-worker")
    except MachineError:
        return {}


def test_what_its_parent_left_behind_is_waited_for(machines: Machines) -> None:
    """By the sandbox's first process, which this one stands for here."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    machines.boot(_host("i-web", "web"))
    processes = _pids("i-web")
    machines.kill("i-web")
    machines.halt(_host("i-web", "web"))
    assert len(processes) > 1
    assert [one for one in processes if Path(f"/proc/{one}").exists()] == []
