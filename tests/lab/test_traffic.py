"""The clients send what they were asked to, at their pace, and every request has a target of its own."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from lab.fabric.router import INTERNET
from lab.logs import Follower, intact
from lab.network import nginx
from lab.network.namespaces import inside
from lab.network.nginx import Entry, Server
from lab.traffic import Mix, Traffic, instance_of
from tests.waiting import until

pytestmark = pytest.mark.network(whole=True)

ADDRESS = "10.0.0.1"
MIX = Mix(gets=40, get_connections=2, posts=20, post_connections=1, fresh=10, uploads=4, upload_bytes=200_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An instance that the clients reach."""
    links = (
        "netns add i-a",
        f"netns add {INTERNET}",
        f"link add web netns {INTERNET} type veth peer eth0 netns i-a",
        "-n i-a link set lo up",
        "-n i-a address add 10.0.0.1/24 dev eth0",
        "-n i-a link set eth0 up",
        f"-n {INTERNET} address add 10.0.0.2/24 dev web",
        f"-n {INTERNET} link set web up",
    )
    for link in links:
        subprocess.run(["ip", *link.split()], check=True)
    directory = tmp_path_factory.mktemp("nginx")
    command = nginx.prepare(directory, "i-a", "80", keep_bodies=True)
    with inside("i-a"):
        server = Server(directory, subprocess.Popen(command))
    nginx.await_start(server, "i-a")
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def traffic(tmp_path: Path) -> Iterator[Traffic]:
    traffic = Traffic(tmp_path / "traffic")
    yield traffic
    traffic.close()
    done = subprocess.run(["ip", "netns", "pids", INTERNET], check=True, capture_output=True, text=True)
    assert done.stdout == ""


class _Reading:
    """All of the log from now on."""

    def __init__(self, server: Server) -> None:
        self.entries: list[Entry] = []
        self._follower = Follower(nginx.log_of(server.directory))
        while self._follower.read():
            pass

    def more(self) -> list[Entry]:
        self.entries += self._follower.read()
        return self.entries


def test_every_kind_is_sent_at_its_pace_and_each_request_is_told_from_all_others(
    server: Server, traffic: Traffic
) -> None:
    reading = _Reading(server)
    traffic.start("i-a", ADDRESS, MIX)
    until("uploads in chunks have come", lambda: sum(entry.method == "PUT" for entry in reading.more()) >= 4)
    assert traffic.alive("i-a") == 6
    traffic.stop("i-a")
    entries = reading.more()

    assert max(Counter(entry.target for entry in entries).values()) == 1
    assert {instance_of(entry.target) for entry in entries} == {"i-a"}
    lasted = max(entry.ended for entry in entries) - min(entry.ended for entry in entries)
    kinds = Counter(_kind(entry) for entry in entries if entry.status == "200")
    paces = {("GET", True): MIX.gets, ("GET", False): MIX.fresh, ("POST", True): MIX.posts}
    for kind, pace in paces.items():
        assert pace * lasted * 0.4 - 3 <= kinds[kind] <= pace * lasted * 1.3 + 3
    assert 2 <= kinds["POST", False] <= 12
    complete = [intact(entry) for entry in entries if entry.status == "200" and entry.method != "GET"]
    assert len(complete) > 20
    assert set(complete) == {True}


def _kind(entry: Entry) -> tuple[str, bool]:
    """The method, and whether the connection stays: the first three processes are h2load's."""
    return entry.method, int(entry.target.split("/")[-2]) <= 3


def _processes(entries: list[Entry]) -> set[str]:
    return {entry.target.split("/")[-2] for entry in entries}


def test_clients_can_be_started_again_and_none_sends_what_another_sent(server: Server, traffic: Traffic) -> None:
    reading = _Reading(server)
    for _ in range(2):
        traffic.start("i-a", ADDRESS, Mix(gets=30, get_connections=2, posts=0, fresh=0, uploads=0))
        until("requests of all clients have come", lambda: len(_processes(reading.more())) == traffic.alive("i-a"))
    assert traffic.alive("i-a") == 4
    traffic.stop("i-a")
    assert traffic.alive("i-a") == 0

    assert max(Counter(entry.target for entry in reading.more()).values()) == 1
    traffic.stop("i-b")  # nobody's


def test_clients_end_by_themselves(server: Server, traffic: Traffic) -> None:
    reading = _Reading(server)
    traffic.start("i-a", ADDRESS, Mix(gets=20, get_connections=1, posts=0, fresh=20, uploads=0, seconds=1))
    until("they have ended", lambda: traffic.alive("i-a") == 0)

    assert len(reading.more()) == 40


def test_clients_whose_connections_break_give_way_to_others_and_leave_no_files(
    server: Server, traffic: Traffic
) -> None:
    reading = _Reading(server)
    traffic.start("i-a", ADDRESS, Mix(gets=20, get_connections=2, posts=0, fresh=0, uploads=0))
    until("both have sent", lambda: len(_processes(reading.more())) == 2)
    files = set(traffic.directory.glob("targets-*"))
    server.process.send_signal(signal.SIGHUP)  # which makes nginx begin anew, and close idle connections
    until("two more have sent", lambda: len(_processes(reading.more())) == 4)
    assert len(files) == 2 == len(set(traffic.directory.glob("targets-*")) - files)
    traffic.stop("i-a")
    assert list(traffic.directory.glob("targets-*")) == []


def test_an_instance_is_read_in_its_targets_only() -> None:
    places, numbers = ("/i-a", "/upload/i-a"), ("1/2", "33/4444")
    assert {instance_of(f"{place}/{number}") for place, number in product(places, numbers)} == {"i-a"}
    for target in ("", "/", "*", "/i-a", "/i-a/1", "/upload", "/upload/i-a/1", "/i-a/1/2/3", "http://10.0.0.1/i-a/1/2"):
        assert instance_of(target) == ""
