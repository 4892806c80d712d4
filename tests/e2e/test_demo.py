"""The demo as a user starts it: it passes, and leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import demo
from lab.demo import Arrivals
from lab.network import sandbox
from lab.network.nginx import Entry

_ROOT = Path(__file__).resolve().parents[2]
_WITHIN = 30.0


def _start(seconds: int, mark: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "LAB_TEST_MARK": mark, "COLUMNS": "120"}
    command = [sys.executable, "-m", "lab.demo", "--seconds", str(seconds)]
    return subprocess.Popen(
        command, cwd=_ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _marked(mark: str) -> list[str]:
    """The command lines of all processes that inherited the mark."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if f"LAB_TEST_MARK={mark}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                found.append((directory / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is somebody else's
    return found


def _until(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _WITHIN
    while not true():
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def _machine() -> tuple[set[str], bool, bool]:
    """What a lab outside its sandbox would change: interfaces, named namespaces, files."""
    return set(os.listdir("/sys/class/net")), Path("/run/netns").exists(), sandbox.FILES.exists()


def test_the_demo_passes(tmp_path: Path) -> None:
    with _start(3, str(tmp_path)) as process:
        output, _ = process.communicate(timeout=120)

    assert process.returncode == 0, output
    assert "PASS" in output
    answered, received = (
        re.search(rf"{what}\s*│\s*([\d,]+)", output)
        for what in ("requests production answered", "requests the test environment received")
    )
    assert answered is not None
    assert received is not None
    assert answered[1] == received[1]
    assert int(answered[1].replace(",", "")) > 2000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(number: signal.Signals, tmp_path: Path) -> None:
    before = _machine()
    with _start(60, str(tmp_path)) as process:
        assert _until(lambda: any("h2load" in line for line in _marked(str(tmp_path))))
        everything = _marked(str(tmp_path))
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)

    assert any("nginx" in line for line in everything)
    assert any("replayer" in line for line in everything)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), output
    assert _until(lambda: _marked(str(tmp_path)) == [])
    assert _machine() == before


def _entry(target: str, *, status: str = "200", sha256: str = "", body: str = "") -> Entry:
    return Entry("GET", target, status, "", sha256, body)


def test_the_comparison_sees_each_difference(tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"abc")
    good = _entry("/a", sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", body=str(tmp_path / "body"))
    bad = _entry("/b", sha256="0" * 64, body=str(tmp_path / "body"))

    assert demo.compare([good], [good], tmp_path) == Arrivals(answered=1, received=1, bodies=1)
    assert demo.compare([good], [good], tmp_path).exact
    assert not demo.compare([], [], tmp_path).exact
    assert demo.compare([good, good], [good], tmp_path).missing == ["GET /a"]
    assert demo.compare([good], [good, good], tmp_path).surplus == ["GET /a"]
    assert demo.compare([_entry("/c", status="499")], [_entry("/c")], tmp_path).surplus == ["GET /c"]
    assert demo.compare([bad], [bad], tmp_path).spoilt == ["GET /b"]
    assert demo.compare([bad], [_entry("/b", sha256="0" * 64)], tmp_path).spoilt == ["GET /b"]
