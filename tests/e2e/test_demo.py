"""The demo as a user starts it: it passes, and leaves nothing behind however it ends."""

import os
import signal
import subprocess
import sys
import tempfile
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


def _start(mark: str, *flags: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "KEEP"}
    return subprocess.Popen(
        [sys.executable, "-m", "lab.demo", *flags],
        cwd=_ROOT,
        env={**environment, "LAB_TEST_MARK": mark, "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


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


def _machine() -> tuple[set[str], bool, bool, set[str]]:
    """What a lab outside its sandbox would change: interfaces, named namespaces, files."""
    temporary = set(os.listdir(tempfile.gettempdir()))
    return set(os.listdir("/sys/class/net")), Path("/run/netns").exists(), sandbox.FILES.exists(), temporary


@pytest.fixture
def unchanged(tmp_path: Path) -> Iterator[str]:
    """The machine is as before when the test ends. Gives a mark for processes."""
    before = _machine()
    yield str(tmp_path)
    until("nothing bears the mark any more", lambda: _processes(str(tmp_path)) == {})
    assert _machine() == before


def test_the_demo_passes_in_a_minute_and_shows_itself(unchanged: str, tmp_path: Path) -> None:
    picture = tmp_path / "demo.svg"
    with _start(unchanged, "--picture", str(picture)) as process:
        output, _ = process.communicate(timeout=180)

    assert process.returncode == 0, output
    [verdict] = [line for line in output.splitlines() if "PASS" in line]
    seconds = float(output.rpartition(" s)")[0].rpartition("(")[2])
    assert seconds < 60, verdict
    assert "PASS" in picture.read_text()


@pytest.mark.parametrize(
    ("number", "busy_with"),
    [(signal.SIGINT, "lab.cloud.launcher"), (signal.SIGTERM, "sam"), (signal.SIGKILL, "h2load")],
)
def test_nothing_is_left_behind(number: signal.Signals, busy_with: str, unchanged: str) -> None:
    with _start(unchanged) as process:
        until(busy_with, lambda: any(busy_with in line for line in _processes(unchanged)), 60)
        [inside] = {place for line, place in _processes(unchanged).items() if busy_with in line}
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)

    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), output
    until("the sandbox is empty", lambda: _processes(unchanged, inside) == {})
