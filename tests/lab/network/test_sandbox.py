"""A sandbox is another machine inside, and passes on how it ended."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from lab.network import sandbox

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
    assert rest[-3:-1] == ["replay-lab", "tmp"]
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


def test_temporary_files_stay_inside() -> None:
    script = f"{sys.executable} -c 'import tempfile; print(tempfile.gettempdir())'; mktemp"
    with _start(script) as process:
        folder, file = process.communicate(timeout=30)[0].split()

    assert folder == "/run/tmp"
    assert file.startswith("/run/tmp/")


@pytest.mark.network
def test_hosts_have_names_in_there() -> None:
    sandbox.name_hosts({"test.internal": "10.1.0.5"})
    assert socket.gethostbyname("test.internal") == "10.1.0.5"
    sandbox.name_hosts({"test.internal": "10.1.0.6", "other.internal": "10.1.0.7"})
    assert socket.gethostbyname("test.internal") == "10.1.0.6"
    assert socket.gethostbyname("localhost") == "127.0.0.1"


def test_the_machine_keeps_its_names() -> None:
    before = Path("/etc/hosts").read_bytes()
    code = "from lab.network import sandbox; sandbox.name_hosts({'test.internal': '10.1.0.5'})"
    with _start(f'{sys.executable} -c "{code}" && cat /etc/hosts') as process:
        assert "10.1.0.5 test.internal" in process.communicate(timeout=30)[0]

    assert Path("/etc/hosts").read_bytes() == before


_THREADS = """
import sys, threading
from lab.network import sandbox
hold = threading.Event()
threads = [threading.Thread(target=hold.wait, daemon=True) for _ in range(8)]
for one in threads: one.start()
if sys.argv[1] == "ended":
    hold.set()
    for one in threads: one.join()
try:
    sandbox.enter()
except sandbox.SandboxError as error:
    sys.exit(str(error))
print("inside")
"""


def _with_threads(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False, timeout=30)


def test_threads_that_were_joined_do_not_matter_to_an_ordinary_user() -> None:
    user = ("unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable, "-c", _THREADS, "ended")
    assert {_with_threads(*user).stdout for _ in range(20)} == {"inside\n"}


def test_other_threads_are_no_company_for_a_sandbox() -> None:
    done = _with_threads(sys.executable, "-c", _THREADS, "alive")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "a program enters its sandbox before it starts threads; this one has 9\n"
