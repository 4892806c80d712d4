"""A sandbox is another machine inside, and passes on how it ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]


def _start(script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "lab.network.sandbox", "sh", "-c", script],
        cwd=_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_command_runs_as_root_with_a_network_and_files_of_its_own() -> None:
    with _start("id -u; ls /sys/class/net; ls -A /run; readlink /proc/self/ns/net") as process:
        user, *rest = process.communicate(timeout=30)[0].split()

    assert process.returncode == 0
    assert user == "0"
    assert rest[-2] == "replay-lab"
    assert rest[-1] != os.readlink("/proc/self/ns/net")


def test_its_exit_code_is_passed_on() -> None:
    with _start("exit 7") as process:
        process.communicate(timeout=30)

    assert process.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_everything_in_it(number: signal.Signals) -> None:
    with _start("trap '' INT TERM HUP; sleep 1000 & echo begun; sleep 1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        rest, _ = process.communicate(timeout=30)  # the pipe ends when its last holder does: both sleeps

    assert rest == ""
    assert process.returncode == (-number if number == signal.SIGKILL else 130)
