"""A sandbox that leaves nothing behind, however it ends.

The sandbox is a set of new namespaces (PID, mount, network; a user namespace too unless we are root) with this program
as PID 1 in it. When PID 1 ends - it returns, is interrupted or killed, or the process outside dies, which the kernel
turns into a SIGKILL - the kernel kills every other process in there, and with the last one go the network namespaces,
the links between them and /run, a tmpfs that holds all files, temporary ones too. There is no tidying up that could be
forgotten. Sockets that were open before stay what they are: one that listens on the machine goes on to do so.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Everything the lab writes. It exists only inside, on the sandbox's own /run.
FILES = Path("/run/replay-lab")

#: Where programs are looked for; ordinary users often lack the last two.
PATH = ":".join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))

_PR_SET_PDEATHSIG = 1
_THREADS_END_WITHIN = 1.0
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_REMEDY = (
    "run as root, or sudo sysctl -w kernel.unprivileged_userns_clone=1 kernel.apparmor_restrict_unprivileged_userns=0"
)


class SandboxError(Exception):
    """The kernel refuses the sandbox; the text is one line that says what to do."""


def inside() -> bool:
    """Whether this process runs in a sandbox."""
    return FILES.is_dir()


def enter() -> None:
    """Go on in a new sandbox, as its PID 1. The process that called waits outside, passes signals on and exits alike.

    The first signal interrupts what runs inside (KeyboardInterrupt), a second one kills it. Raises SandboxError.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    user, group = os.getuid(), os.getgid()
    _await_single_thread()
    try:
        os.unshare(os.CLONE_NEWNS | os.CLONE_NEWNET | os.CLONE_NEWPID | (os.CLONE_NEWUSER if user else 0))
        if user:
            _become_root(user, group)
    except OSError as error:
        raise SandboxError(f"the kernel refuses the lab its namespaces ({error.strerror}): {_REMEDY}") from None
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    alive, held = os.pipe()
    child = os.fork()
    if child:
        os.close(alive)
        sys.exit(_wait(child))
    os.close(held)
    _live_no_longer_than_parent(alive)
    os.setsid()  # signals of the terminal reach the process outside, and through it this one, once
    for number in _PASSED_ON:
        signal.signal(number, _interrupt)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_PASSED_ON, signal.SIGCHLD})
    os.environ["PATH"] = PATH
    _settle()


def _await_single_thread() -> None:
    """unshare(2) gives a user namespace to one thread alone, and a thread that was joined may not be gone yet."""
    deadline = time.monotonic() + _THREADS_END_WITHIN
    while (threads := len(os.listdir("/proc/self/task"))) > 1:
        if time.monotonic() > deadline:
            raise SandboxError(f"a program enters its sandbox before it starts threads; this one has {threads}")
        time.sleep(0.001)


def name_hosts(addresses: Mapping[str, str]) -> None:
    """In here, these names have these addresses, and no others but `localhost`. Raises SandboxError."""
    hosts = FILES / "hosts"
    known = hosts.exists()
    lines = {"localhost": "127.0.0.1", **addresses}
    hosts.write_text("".join(f"{address} {name}\n" for name, address in lines.items()))
    if not known:
        _mount(("mount", "--bind", str(hosts), "/etc/hosts"))


def _become_root(user: int, group: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _live_no_longer_than_parent(alive: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:  # the parent was gone before the kernel was asked
        os._exit(1)


def _interrupt(number: int, _frame: object) -> None:
    for other in _PASSED_ON:
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt(signal.Signals(number).name)


def _settle() -> None:
    _mount(
        ("mount", "--make-rprivate", "/"),
        ("mount", "-t", "proc", "proc", "/proc"),
        ("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"),
    )
    FILES.mkdir()
    temporary = Path("/run/tmp")
    temporary.mkdir(mode=0o1777)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)


def _mount(*commands: Sequence[str]) -> None:
    for command in commands:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SandboxError(f"the kernel refuses the lab its mounts ({done.stderr.strip()}): {_REMEDY}")


def _wait(child: int) -> int:
    """Pass signals on until `child` ends; its exit status as a shell would say it."""
    signals = 0
    while True:
        number = signal.sigwait({*_PASSED_ON, signal.SIGCHLD})
        if number == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        else:
            signals += 1
            os.kill(child, number if signals == 1 else signal.SIGKILL)


def main() -> int:
    """`python -m lab.network.sandbox COMMAND...`: run a command in a sandbox."""
    try:
        enter()
        return subprocess.run(sys.argv[1:], check=False).returncode
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
