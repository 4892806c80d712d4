"""The demo as a user starts it: it passes, and leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.build import built
from lab.network import sandbox
from tests.waiting import until

pytestmark = pytest.mark.alone

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def stack() -> None:
    """Building it is no part of the demo's minute."""
    built()


#: Runs what follows as an ordinary user, whoever runs the tests.
_UNPRIVILEGED = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def _start(mark: str, *flags: str, by: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KEEP"}
    return subprocess.Popen(
        [*by, sys.executable, "-m", "lab.demo", *flags],
        cwd=_ROOT,
        env={**environment, "LAB_TEST_MARK": mark, "TMPDIR": mark, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _read(process: subprocess.Popen[str], last: str) -> str:
    """What it prints, up to a line with this beginning, or to its end."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(last):
            break
    return "".join(lines)


def _processes(mark: str, place: str | None = None) -> dict[str, str]:
    """The command lines and PID namespaces of all processes that bear the mark, or are in the sandbox."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            namespace = os.readlink(directory / "ns/pid")
            marked = f"LAB_TEST_MARK={mark}".encode() in (directory / "environ").read_bytes().split(b"\0")
            if marked or namespace == place:
                found[(directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()] = namespace
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is somebody else's
    return found


def _busy(mark: str, program: str) -> bool:
    return any(program in line for line in _processes(mark))


def _machine() -> tuple[set[str], bool, bool]:
    """What a lab outside its sandbox would change: interfaces, named namespaces, files."""
    return set(os.listdir("/sys/class/net")), Path("/run/netns").exists(), sandbox.FILES.exists()


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[str]:
    """The machine is as before when the test ends. Gives a mark for processes: a place for temporary files, too."""
    before, mark = _machine(), tmp_path / "temporary"
    mark.mkdir()
    yield str(mark)
    until("nothing bears the mark any more", lambda: _processes(str(mark)) == {})
    assert _machine() == before
    assert os.listdir(mark) == []


def test_the_demo_passes_in_a_minute_shows_itself_and_stays_for_a_second_terminal(
    unchanged: str, tmp_path: Path
) -> None:
    picture = tmp_path / "demo.svg"
    with _start(unchanged, "--keep", "--picture", str(picture)) as process:
        try:
            output = _read(process, "nsenter")
            assert "PASS" in output, output
            commands = [line for line in output.splitlines() if re.match(r"(\.venv/|curl)", line)]
            exports = "\n".join(line for line in output.splitlines() if line.startswith("export "))
            [do] = [line for line in commands if "lab.do tag" in line]
            [mirrorctl] = [line for line in commands if "mirrorctl status" in line]
            [curl] = [line for line in commands if line.startswith("curl")]
            [instance] = re.findall(r"\bi-[0-9a-f]{17}\b", do)
            assert instance in _typed(exports, do)
            status = _typed(exports, ".venv/bin/python -m lab.do status")
            assert re.search(rf"^{instance} running .* TrafficReplay=production", status, re.MULTILINE), status
            assert _typed(exports, mirrorctl).startswith("Policy: ")
            assert _typed(exports, curl.replace("curl", "curl --silent --show-error --fail", 1))
        finally:
            process.send_signal(signal.SIGINT)
        _, end = process.communicate(timeout=60)

    assert process.returncode == 130, end
    [seconds] = re.findall(r"\((\d+) s\)", output)
    assert int(seconds) < 60
    assert "PASS" in picture.read_text()


def _typed(exports: str, command: str) -> str:
    """What a second terminal shows."""
    environment = {"PATH": os.environ["PATH"], "COLUMNS": "200"}
    shell = ["bash", "-c", f"{exports}\n{command}"]
    done = subprocess.run(
        shell, cwd=_ROOT, env=environment, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize(
    ("number", "busy_with", "by"),
    [
        (signal.SIGINT, "lab.fabric.balancer", ()),
        (signal.SIGTERM, "sam", _UNPRIVILEGED),
        (signal.SIGKILL, "h2load", ()),
    ],
)
def test_nothing_is_left_behind(number: signal.Signals, busy_with: str, by: tuple[str, ...], unchanged: str) -> None:
    """Whoever started it, and at whichever moment it ends."""
    with _start(unchanged, by=by) as process:
        until(busy_with, lambda: _busy(unchanged, busy_with) or process.poll() is not None, 60)
        assert process.poll() is None, process.communicate()[0]
        [inside] = {place for line, place in _processes(unchanged).items() if busy_with in line}
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)

    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), output
    until("the sandbox is empty", lambda: _processes(unchanged, inside) == {})
