"""The demo as a user starts it: it passes, and leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.network import sandbox

_ROOT = Path(__file__).resolve().parents[2]
_WITHIN = 30.0


def _start(seconds: int, mark: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "LAB_TEST_MARK": mark, "COLUMNS": "120"}
    command = [sys.executable, "-m", "lab.demo", "--seconds", str(seconds)]
    return subprocess.Popen(
        command,
        cwd=_ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _processes(mark: str, sandbox: str | None = None) -> dict[str, str]:
    """The command lines and PID namespaces of all processes that bear the mark, or are in the sandbox."""
    found = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            namespace = os.readlink(directory / "ns/pid")
            marked = f"LAB_TEST_MARK={mark}".encode() in (directory / "environ").read_bytes().split(b"\0")
            if marked or namespace == sandbox:
                found[(directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()] = namespace
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or is somebody else's
    return found


def _until(true: Callable[[], bool]) -> bool:
    deadline, never = time.monotonic() + _WITHIN, threading.Event()
    while not true():
        if time.monotonic() > deadline:
            return False
        never.wait(0.05)
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
        assert _until(lambda: any(line.startswith("h2load") for line in _processes(str(tmp_path))))
        (inside,) = {place for line, place in _processes(str(tmp_path)).items() if line.startswith("h2load")}
        everything = _processes(str(tmp_path), inside)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)

    assert any("nginx" in line for line in everything)
    assert any("replayer" in line for line in everything)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), output
    assert _until(lambda: _processes(str(tmp_path), inside) == {})
    assert _machine() == before
