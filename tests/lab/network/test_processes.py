"""Processes end when they are told to, or by force."""

import signal
import subprocess
import sys

from lab.network.processes import stop


def _started(script: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", f"{script}\nprint(flush=True)\ninput()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_it_is_asked_first() -> None:
    with _started("import signal; signal.signal(signal.SIGTERM, lambda *_: exit(7))") as process:
        assert stop(process) == 7


def test_then_it_is_killed() -> None:
    with _started("import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)") as process:
        assert stop(process, 0.05) == -signal.SIGKILL


def test_one_that_has_ended_has_its_own_status() -> None:
    with _started("") as process:
        process.kill()
        process.wait()
        assert stop(process) == -signal.SIGKILL
