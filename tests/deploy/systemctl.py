"""A stand-in for systemctl in a root that has no systemd: it starts and stops a service as its unit file says.

Of the unit it carries out what decides whether the worker runs and can do its work: command line, environment, user,
output, limits, restart rules as far as `is-failed` shows them, and of the hardening what a process can do to itself: no
new privileges, no capabilities, no memory both writable and executable, a read-only file system, and a /proc that shows
only the service's own processes. System calls are looked at by test_unit.py.
"""

import ctypes
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_SET_MDWE = 24, 38, 65
_CAPABILITIES = 41  # CAP_CHECKPOINT_RESTORE is the last
_LIBC = ctypes.CDLL(None, use_errno=True)


class Unit:
    """A unit file, its pid file and the exit code it left."""

    def __init__(self, name: str) -> None:
        self.name = name.removesuffix(".service")
        self.values: dict[str, list[str]] = {}
        for line in Path(f"/etc/systemd/system/{self.name}.service").read_text().splitlines():
            key, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self.values.setdefault(key, []).append(value)
        self.pid = Path(f"/run/{self.name}.pid")
        self.code = Path(f"/run/{self.name}.code")

    def last(self, key: str, default: str = "") -> str:
        """The setting that counts where a later one replaces it."""
        return self.values.get(key, [default])[-1]

    def environment(self) -> dict[str, str]:
        """What the service finds in its environment."""
        lines = [word for line in self.values["Environment"] for word in shlex.split(line)]
        for file in self.values["EnvironmentFile"]:
            lines += Path(file).read_text().splitlines()
        return {"PATH": "/usr/bin:/bin", **dict(line.split("=", 1) for line in lines)}

    def command(self) -> list[str]:
        """The command line, with ${VARIABLES} filled in."""
        words, environment = shlex.split(self.last("ExecStart")), self.environment()
        for name, value in environment.items():
            words = [word.replace(f"${{{name}}}", value) for word in words]
        return words


def start(unit: Unit) -> int:
    """As Type=exec: 0 once the program runs."""
    unit.code.unlink(missing_ok=True)
    ready, told = os.pipe()
    if os.fork() == 0:
        os.close(ready)
        os.setsid()
        os._exit(keep(unit, told))
    os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        return 0 if pipe.read() == b"runs" else 1


def keep(unit: Unit, told: int) -> int:
    """Run the service until it ends, and write down how it did."""
    log = os.open(unit.last("StandardOutput").removeprefix("append:"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for number in (0, 1, 2):
        os.dup2(os.open("/dev/null", os.O_RDWR), number)
    confine_files(unit)
    with subprocess.Popen(
        unit.command(),
        stdout=log,
        stderr=log,
        env=unit.environment(),
        preexec_fn=lambda: confine(unit),  # noqa: PLW1509 - this program has no threads
    ) as service:
        unit.pid.write_text(str(service.pid))
        os.write(told, b"runs")
        os.close(told)
        code = service.wait()
    unit.code.write_text(str(code))
    return 0


def confine_files(unit: Unit) -> None:
    """The service's view of the file system. /run stays writable for this program's own files."""
    os.unshare(os.CLONE_NEWNS)
    commands = []
    if unit.last("ProtectSystem") == "strict":
        commands += [["--bind", "/run", "/run"], ["-o", "remount,bind,ro", "/"]]
    if unit.last("ProcSubset") == "pid":
        commands += [["-t", "proc", "-o", f"subset=pid,hidepid={unit.last('ProtectProc')}", "proc", "/proc"]]
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    for words in commands:
        subprocess.run(["mount", *words], check=True)


def confine(unit: Unit) -> None:
    """In the child: what it may do, then who it is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # a container's root may not raise it
    files = min(most, int(unit.last("LimitNOFILE")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    os.umask(int(unit.last("UMask"), 8))
    if unit.values["CapabilityBoundingSet"] == [""]:
        for number in range(_CAPABILITIES):
            _prctl(_PR_CAPBSET_DROP, number)
    user = next(line.split(":") for line in Path("/etc/passwd").read_text().splitlines()
                if line.startswith(unit.last("User") + ":"))  # fmt: skip
    os.setgroups([])
    os.setgid(int(user[3]))
    os.setuid(int(user[2]))
    if unit.last("NoNewPrivileges") == "yes":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if unit.last("MemoryDenyWriteExecute") == "yes":
        _prctl(_PR_SET_MDWE, 1)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def stop(unit: Unit) -> int:
    """SIGTERM, and SIGKILL after TimeoutStopSec."""
    if unit.pid.exists() and not unit.code.exists():
        pid = int(unit.pid.read_text())
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + float(unit.last("TimeoutStopSec"))
        while not unit.code.exists():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    return 0


def main(words: list[str]) -> int:
    """The few commands that install.sh and the tests use."""
    command, *names = [word for word in words if not word.startswith("--")]
    if command == "daemon-reload":
        return 0
    unit = Unit(names[0])
    if command == "enable":
        return 0 if unit.values["WantedBy"] else 1
    if command == "restart":
        return stop(unit) or start(unit)
    if command == "stop":
        return stop(unit)
    if command == "is-failed":
        return 0 if unit.code.exists() and unit.code.read_text() != "0" else 1
    print(f"systemctl: {command} is not known here", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
