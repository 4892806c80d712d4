"""The service's unit file: correct, confined, and with room for what the worker does."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import yaml

from replayer.settings import Settings
from replayer.supervisor import GRACE
from tests.strategies import Conversation, get
from tests.waiting import until

_ROOT = Path(__file__).resolve().parents[2]
_UNIT = _ROOT / "worker/image/replayer.service"
_STRACE = ("strace", "--follow-forks", "--quiet=all")


def last(key: str) -> str:
    """A setting of the unit, as a later line overrides an earlier one."""
    found: list[str] = re.findall(rf"^{key}=(.*)$", _UNIT.read_text(), re.MULTILINE)
    return found[-1]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A command's output, errors included."""
    return subprocess.run(words, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def verify(folder: Path, text: str) -> str:
    """What systemd has to say about a unit; its program is none that this machine has."""
    copy = folder / "replayer.service"
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", text, flags=re.MULTILINE))
    return run("systemd-analyze", "verify", copy).stdout


def test_systemd_finds_nothing_to_say_about_it(tmp_path: Path) -> None:
    text = _UNIT.read_text()
    assert verify(tmp_path, text) == ""
    assert "Unknown key" in verify(tmp_path, text.replace("Restart=", "Restrat="))
    assert "Failed to parse" in verify(tmp_path, text.replace("RestartSec=5", "RestartSec=soon"))


def test_it_is_confined() -> None:
    said = run("systemd-analyze", "security", "--offline=yes", _UNIT).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= 2.0


def test_it_runs_as_a_user_of_its_own_without_capabilities() -> None:
    assert last("User") == last("Group") == "replayer"
    assert last("CapabilityBoundingSet") == last("AmbientCapabilities") == ""


def test_it_restarts_after_a_crash_but_not_after_a_refusal() -> None:
    assert last("Restart") == "on-failure"
    assert last("RestartPreventExitStatus") == "2"


def test_it_waits_for_the_worker_to_drain() -> None:
    assert float(last("TimeoutStopSec")) > Settings().drain_timeout + GRACE
    assert last("KillMode") == "mixed"


def test_the_kernel_may_grant_the_receive_buffer_that_is_wished_for() -> None:
    found = re.search(r"^net\.core\.rmem_max = (\d+)$", (_UNIT.parent / "sysctl.conf").read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) >= Settings().receive_buffer


def test_one_that_cannot_stay_up_is_left_down() -> None:
    """So that its group replaces it: without a limit, or with one that five-second pauses never reach, it flaps."""
    assert float(last("StartLimitIntervalSec")) > int(last("StartLimitBurst")) * float(last("RestartSec")) > 0
    assert last("OOMPolicy") == "continue"  # a shard that the kernel ends does not take the worker with it


def test_it_starts_with_the_machine_and_takes_new_settings() -> None:
    assert last("WantedBy") == "multi-user.target"
    assert last("ExecReload") == "/bin/kill -HUP $MAINPID"


def test_it_may_open_as_many_files_as_a_busy_worker_needs() -> None:
    """Connections to destinations and to itself, of all shards."""
    assert int(last("LimitNOFILE")) >= 65_536


def test_its_program_is_the_release_and_its_log_is_written_line_by_line_in_utc() -> None:
    """As cloudwatch-agent.json reads it. -P: nothing is imported from where it happens to start."""
    assert last("ExecStart").split()[:4] == ["/opt/vpc-traffic-replay/python", "-P", "-m", "replayer"]
    assert {"TZ=UTC", "PYTHONUNBUFFERED=1"} <= set(last("Environment").split())


def test_nothing_cuts_it_off_from_what_it_talks_to() -> None:
    """Its own processes, destinations of either kind, and the metadata service for credentials."""
    assert set(last("RestrictAddressFamilies").split()) == {"AF_INET", "AF_INET6", "AF_UNIX"}
    text = _UNIT.read_text()
    for key in ("PrivateNetwork", "IPAddressDeny", "MemoryMax", "NetworkNamespacePath"):
        assert not re.search(rf"^{key}=", text, re.MULTILINE)
    assert last("ProtectHome") == "yes"


def test_every_core_may_let_more_packets_wait_than_by_default() -> None:
    """A key that the kernel does not know is passed over with a line in the journal."""
    lines = (_UNIT.parent / "sysctl.conf").read_text().splitlines()
    keys = dict(line.split(" = ") for line in lines if line and not line.startswith("#"))
    assert keys.keys() == {"net.core.rmem_max", "net.core.netdev_max_backlog"}
    assert int(keys["net.core.netdev_max_backlog"]) > 1000


def allowed() -> set[str]:
    """The system calls that the unit's filter leaves: sets are resolved by systemd's own table."""
    calls: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", _UNIT.read_text(), re.MULTILINE):
        found = set().union(*(resolve(word) for word in line.removeprefix("~").split()))
        calls = calls - found if line.startswith("~") else calls | found
    return calls


def resolve(name: str) -> set[str]:
    if not name.startswith("@"):
        return {name}
    lines = [line.strip() for line in run("systemd-analyze", "syscall-filter", name).stdout.splitlines()[1:]]
    return set().union(*(resolve(line) for line in lines if line and not line.startswith("#")))


def test_the_worker_makes_no_system_call_that_the_filter_refuses(tmp_path: Path) -> None:
    """A whole life: start, mirrored traffic, a replay, /metrics, new settings, drain."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender, socket.create_server(("127.0.0.1", 0)) as server:
        sender.bind(("127.0.0.1", 0))
        place = tmp_path / "settings.yaml"
        settings = {
            "listen": "127.0.0.1",
            "vxlan_port": free_port(socket.SOCK_DGRAM),
            "shards": 2,
            "health_address": f"127.0.0.1:{free_port(socket.SOCK_STREAM)}",
            "admin_address": f"127.0.0.1:{free_port(socket.SOCK_STREAM)}",
            "destinations": [{"url": f"http://localhost:{server.getsockname()[1]}"}],
        }
        place.write_text(yaml.safe_dump(settings))
        trace = tmp_path / "trace"
        worker = subprocess.Popen(
            [*_STRACE, f"--output={trace}", sys.executable, "-P", "-m", "replayer", "run", "--config", str(place)],
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
        )
        with worker:
            try:
                until_it_answers(f"http://{settings['health_address']}/healthz")
                client = Conversation()
                for datagram in (client.syn(), client.send(get("/"))):
                    sender.sendto(datagram, ("127.0.0.1", int(str(settings["vxlan_port"]))))
                server.settimeout(20)
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(4096).startswith(b"GET / HTTP/1.1")
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                until_it_answers(f"http://{settings['admin_address']}/metrics")
                traced = run("ps", "-o", "pid=", "--ppid", str(worker.pid)).stdout.split()[0]
                os.kill(int(traced), signal.SIGHUP)
                os.kill(int(traced), signal.SIGTERM)
                said = worker.communicate(timeout=30)
            finally:
                worker.kill()
    assert worker.returncode == 0, said
    calls = set(re.findall(r"^\d+ +(?:<\.\.\. )?(\w+)(?:\(| resumed)", trace.read_text(), re.MULTILINE))
    assert {"execve", "bind", "memfd_create", "pidfd_open", "prlimit64", "epoll_ctl"} <= calls
    assert calls - allowed() == set()


def free_port(kind: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until_it_answers(url: str) -> None:
    until(f"{url} answers", lambda: answers(url))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False
