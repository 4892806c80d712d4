"""The install script, for real: in a clean Debian, from the layer's zip, up to a worker that replays.

systemd does not run in such a root; `systemctl.py` stands in for it and starts the service as the unit file says.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.deploy.cleanroom import PYTHON, Room, make_base
from tests.strategies import Conversation, get
from tests.waiting import until

_BUNDLE = "/srv/layer/python"
_SETTINGS = "/etc/settings.yaml"
_HOME = "/opt/vpc-traffic-replay"
_LOG = "/var/log/vpc-traffic-replay/replayer.log"
_AGENT = "/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl"
_OPTIONS = {
    "--python": PYTHON,
    "--bundle": _BUNDLE,
    "--config": _SETTINGS,
    "--service": "shop",
    "--region": "eu-west-1",
    "--logs": "/shop/worker",
    "--metrics-logs": "/shop/worker-metrics",
}
_SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for line in sys.stdin:
    sender.sendto(bytes.fromhex(line), ("127.0.0.1", 4789))
"""
_ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("debian")
    yield make_base(folder)
    shutil.rmtree(folder)  # 200 MB, which pytest would keep for three more runs


@pytest.fixture(scope="module")
def layer(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What an instance has after it fetched and unpacked the layer: Lambda keeps it as a zip, which loses files' rights
    and dates."""
    folder = tmp_path_factory.mktemp("layer")
    content = built.parent / "WorkerLayer"
    with zipfile.ZipFile(folder / "layer.zip", "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(content.rglob("*")):
            archive.write(path, path.relative_to(content))
    with zipfile.ZipFile(folder / "layer.zip") as archive:
        archive.extractall(folder / "unpacked")
    yield folder / "unpacked"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def slim(layer: Path) -> Path:
    """Without what botocore knows of services that no worker calls: more than half of the layer's 3,500 files, which
    each installation would copy and hash."""
    folder = layer.with_name("slim")
    shutil.copytree(layer, folder, copy_function=os.link, ignore=_other_services)
    return folder


def _other_services(folder: str, names: list[str]) -> list[str]:
    data = Path(folder)
    if not folder.endswith("/botocore/data"):
        return []
    return [name for name in names if (data / name).is_dir() and name != "ssm"]


@contextmanager
def furnished(base: Path, folder: Path, layer: Path, kept: Path | None = None) -> Iterator[Room]:
    with Room(base, folder, {layer: "/srv/layer"}, kept) as made:
        made.write(_SETTINGS, yaml.safe_dump({"destinations": [{"url": "http://127.0.0.1:8000"}]}))
        made.run("chmod", "-R", "a+rX", _SETTINGS)
        yield made


@pytest.fixture
def whole(base: Path, layer: Path, tmp_path: Path) -> Iterator[Room]:
    """A clean machine with the layer as it is shipped."""
    with furnished(base, tmp_path / "room", layer) as made:
        yield made


@pytest.fixture
def room(base: Path, slim: Path, tmp_path: Path) -> Iterator[Room]:
    """A clean machine."""
    with furnished(base, tmp_path / "room", slim) as made:
        yield made


@pytest.fixture(scope="module")
def kept(base: Path, slim: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What a first installation leaves on a clean machine."""
    folder = tmp_path_factory.mktemp("installed")
    with furnished(base, folder / "room", slim) as made:
        code, said = install(made, "--no-start")
        assert code == 0, said
        made.keep(folder / "kept")
    yield folder / "kept"
    shutil.rmtree(folder)


@pytest.fixture
def installed(base: Path, slim: Path, kept: Path, tmp_path: Path) -> Iterator[Room]:
    """A machine where it has been installed, and not been started."""
    with furnished(base, tmp_path / "room", slim, kept) as made:
        yield made


def install(room: Room, *more: str, check: bool = True, **changed: str | None) -> tuple[int, str]:
    """Run the script in the room: its exit code, and all that it says."""
    options = _OPTIONS | {f"--{name.replace('_', '-')}": value for name, value in changed.items()}
    words = [word for name, value in options.items() if value is not None for word in (name, value)]
    done = room.run("bash", f"{options['--bundle'] or _BUNDLE}/image/install.sh", *words, *more, check=check)
    return done.returncode, done.stdout


def altered(room: Room, *commands: str) -> str:
    """A copy of the bundle in the room, changed by shell commands that run in its folder."""
    room.run("sh", "-euc", f"rm -rf /srv/altered; cp -R {_BUNDLE} /srv/altered; cd /srv/altered; {'; '.join(commands)}")
    return "/srv/altered"


def current(room: Room) -> str:
    """The release that runs."""
    return room.run("readlink", f"{_HOME}/current").stdout.strip()


def releases(room: Room) -> list[str]:
    return sorted(f"releases/{name}" for name in room.run("ls", f"{_HOME}/releases").stdout.split())


def test_a_clean_machine_replays_what_is_mirrored_to_it(whole: Room) -> None:
    with whole.running(PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "8000"):
        code, said = install(whole)
        assert (code, said.splitlines()[-1]) == (0, f"install: done: {current(whole)} is healthy")
        assert "replayer 0." in said

        client = Conversation()
        whole.python(_SEND, stdin="\n".join(part.hex() for part in (client.syn(), client.send(get("/etc/hostname")))))
        replayed = 'replayer_responses_total{destination="http://127.0.0.1:8000",status="2xx"} 1.0'
        until("the request is replayed", lambda: replayed in metrics(whole))

        whole.run("systemctl", "stop", "replayer.service")
        assert whole.read("/run/replayer.code") == "0"
        log = whole.read(_LOG)
        assert "SIGTERM: no more is received" in log
        assert [line.split() for line in log.splitlines() if line.startswith("framed")] == [["framed", "1"]]
        assert log.splitlines()[-1] == "balanced: nothing is unaccounted for"


def metrics(room: Room) -> str:
    return room.python(_ASK, "http://127.0.0.1:8081/metrics")


def test_what_is_put_where(installed: Room) -> None:
    assert installed.read(f"{_HOME}/current/replayer/__init__.py") == installed.read(f"{_BUNDLE}/replayer/__init__.py")
    assert installed.read("/etc/systemd/system/replayer.service") == installed.read(f"{_BUNDLE}/image/replayer.service")
    assert (
        installed.read("/etc/vpc-traffic-replay/replayer.env") == f"REPLAYER_CONFIG={_SETTINGS}\nAWS_REGION=eu-west-1\n"
    )
    agent = installed.read("/etc/vpc-traffic-replay/cloudwatch-agent.json")
    scrape = installed.read("/etc/vpc-traffic-replay/prometheus.yaml")
    assert '"/shop/worker"' in agent and '"/shop/worker-metrics"' in agent and '"eu-west-1"' in agent
    assert 'service: "shop"' in scrape
    assert f'worker: "{installed.run("uname", "-n").stdout.strip()}"' in scrape
    assert "@" not in agent + scrape
    owned = installed.run("stat", "-c", "%U:%G %a %n", *_OWNED).stdout.splitlines()
    assert owned == [f"{rights} {path}" for path, rights in _OWNED.items()]
    assert installed.run("getent", "passwd", "replayer").stdout.endswith(":/:/sbin/nologin\n")
    assert not installed.has("/run/replayer.pid")


_OWNED = {
    f"{_HOME}/current/replayer/cli.py": "root:root 644",
    "/var/log/vpc-traffic-replay": "root:cwagent 750",
    _LOG: "root:cwagent 640",
    "/etc/vpc-traffic-replay/cloudwatch-agent.json": "root:root 644",
    "/etc/logrotate.d/vpc-traffic-replay": "root:root 644",
    "/etc/sysctl.d/90-vpc-traffic-replay.conf": "root:root 644",
}


def test_the_machine_is_told_of_it(room: Room) -> None:
    """What no answer of the worker shows: that it starts again with the machine, that each switch is one rename, and
    that the agent, where there is one, is started on our configuration.
    """
    for program in ("systemctl", "runuser", "mv"):
        spy = f'echo "{program} $*" >>/run/told; exec {program}.real "$@"'
        place = room.run("sh", "-c", f"command -v {program}").stdout.strip()
        room.run("mv", place, f"{place}.real")
        room.write(place, f"#!/bin/sh\n{spy}\n")
        room.run("chmod", "+x", place)
    room.write("/usr/local/bin/sysctl", '#!/bin/sh\necho "sysctl $*" >>/run/told\n')
    room.write(_AGENT, '#!/bin/sh\necho "agent $*" >>/run/told\n')
    room.run("chmod", "+x", "/usr/local/bin/sysctl", _AGENT)
    _, said = install(room)
    assert _AGENT not in said
    told = room.read("/run/told").splitlines()
    assert "sysctl --quiet --load /etc/sysctl.d/90-vpc-traffic-replay.conf" in told
    order = ["daemon-reload", "enable --quiet replayer.service", "restart replayer.service"]
    assert [line for line in told if line.startswith("systemctl ")][:3] == [f"systemctl {words}" for words in order]
    assert all(line.startswith("runuser -u replayer -- env ") for line in told if line.startswith("runuser "))
    assert len([line for line in told if line.startswith("runuser ")]) == 2  # --version, check
    assert f"mv -fT {_HOME}/current.new {_HOME}/current" in told
    configuration = "file:/etc/vpc-traffic-replay/cloudwatch-agent.json"
    assert [line for line in told if line.startswith("agent ")] == [
        f"agent -a fetch-config -m ec2 -s -c {configuration}"
    ]
    assert f"mv -T {_HOME}/{current(room)}.partial {_HOME}/{current(room)}" in told


def test_the_same_bundle_again_changes_nothing_and_another_one_is_the_upgrade(installed: Room) -> None:
    room, first = installed, current(installed)
    assert install(room)[0] == 0
    assert (current(room), releases(room)) == (first, [first])

    room.write(f"{_HOME}/releases/older/replayer/__init__.py", "")
    newer = """echo '__version__ = "9.9"; LOG_FORMAT = "%(message)s"' >replayer/__init__.py"""
    code, _ = install(room, bundle=altered(room, newer))
    second = current(room)
    assert code == 0
    assert releases(room) == sorted([first, second])
    assert "replayer 9.9 receives" in room.read(_LOG)
    assert room.has(f"{_HOME}/python") and not room.has(f"{_HOME}/current.new")


_DAMAGES = {
    "echo 'oops(' >replayer/shard.py": "the bundle does not import",
    "rm -rf boto3": "No module named 'boto3'",
    "rm pydantic_core/*.so": "the bundle does not import",
    "echo 'raise SystemExit(3)' >replayer/__main__.py": "the bundle does not run",
}


def test_a_bundle_that_does_not_run_is_not_switched_to(installed: Room) -> None:
    room, before = installed, current(installed)
    for damage, said in _DAMAGES.items():
        code, words = install(room, "--no-start", check=False, bundle=altered(room, damage))
        assert code == 2, damage
        assert said in words.splitlines()[-1]
        assert (current(room), releases(room)) == (before, [before])


def test_a_bundle_that_does_not_become_healthy_gives_way_to_the_one_before(installed: Room) -> None:
    room, before = installed, current(installed)
    room.run("systemctl", "restart", "replayer.service")

    crash = "echo 'def run(source): raise SystemExit(\"no\")' >replayer/supervisor.py"
    code, said = install(room, check=False, bundle=altered(room, crash, "echo '# new' >>image/sysctl.conf"))

    assert code == 1
    assert f"{before} was put back, and runs" in said.splitlines()[-1]
    assert "install: no" not in said and "\nno\n" in said  # the end of the log
    assert current(room) == before
    assert "# new" not in room.read("/etc/sysctl.d/90-vpc-traffic-replay.conf")
    assert room.python(_ASK, "http://127.0.0.1:8080/healthz") == "ok\n\n"


def test_a_worker_that_never_ran_fails_with_the_end_of_its_log(installed: Room) -> None:
    room = installed
    room.run("rm", f"{_HOME}/current")  # so none ran before
    holder = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 4789)); time.sleep(100)"
    with room.running(PYTHON, "-c", holder):
        until("the port is held", lambda: ":12B5" in room.read("/proc/net/udp"))
        code, said = install(room, check=False)

    assert code == 1
    assert "vxlan_port 4789 on 0.0.0.0: Address already in use" in said
    assert said.splitlines()[-1] == "install: it does not run"


def test_settings_that_cannot_be_used_end_it(room: Room) -> None:
    room.write(_SETTINGS, "destinations: [{url: http://127.0.0.1:8000, percentage: 200}]")
    code, said = install(room, check=False)
    assert code == 2
    assert "the settings cannot be used" in said and "percentage" in said and "write at most 100" in said
    assert not room.has(f"{_HOME}/current")
    assert releases(room) == []


def test_the_release_that_runs_stays_when_its_settings_cannot_be_used_any_more(installed: Room) -> None:
    installed.write(_SETTINGS, "destinations: []")
    code, _ = install(installed, check=False)
    assert code == 2
    assert installed.has(f"{_HOME}/current/replayer")


def test_a_destination_that_is_away_and_an_agent_that_is_not_there_do_not_end_it(installed: Room) -> None:
    code, said = install(installed)
    assert code == 0
    assert "going on all the same: FAIL http://127.0.0.1:8000: 127.0.0.1:8000 is not reachable" in said
    assert f"there is no {_AGENT}" in said


def test_below_another_root_everything_is_written_and_nothing_started(room: Room) -> None:
    room.run("sh", "-c", "mkdir -p /image/etc && cp /etc/passwd /etc/group /image/etc")
    code, said = install(room, "--root", "/image")
    assert code == 0
    assert said.splitlines()[-1].endswith("is in place")
    assert room.has("/image/etc/systemd/system/replayer.service") and room.has(f"/image{_HOME}/current/replayer")
    assert "replayer:" in room.read("/image/etc/passwd")
    assert not room.has("/etc/systemd/system/replayer.service") and not room.has(_HOME)
    assert "replayer:" not in room.read("/etc/passwd")


_REFUSED: tuple[tuple[str, str | None, str], ...] = (
    ("python", None, "--python is missing"),
    ("python", "/usr/bin/perl", "does not run"),
    ("python", "/nowhere", "--python /nowhere is no program"),
    ("service", "no spaces", "--service 'no spaces' is not of the form"),
    ("service", None, "--service is missing"),
    ("region", "moon", "--region 'moon'"),
    ("config", "settings.yaml", "--config 'settings.yaml'"),
    ("logs", "a|b", "--logs 'a|b'"),
    ("metrics_logs", None, "--metrics-logs is missing"),
    ("root", "/nowhere", "--root /nowhere is no folder"),
    ("colour", "red", "there is no option --colour"),
)


def test_what_cannot_be_used_is_refused_in_one_line(room: Room) -> None:
    for name, value, said in _REFUSED:
        code, words = install(room, check=False, **{name: value})
        assert code == 2, words
        assert words.startswith("install: ") and said in words and words.count("\n") == 1
    assert not room.has(_HOME)
