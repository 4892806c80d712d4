"""A machine that has nothing of ours: a Debian made by debootstrap, with a network, processes and files of its own.

`make_base` takes half a minute and is done once; each `Room` over it is an overlay, so no test sees what another did.
When a room's first process ends, the kernel ends every other one in it, and with them go its mounts and its network.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

#: The interpreter, in a room where it is here: a shared libpython is found by its full path.
PYTHON = f"{sys.base_prefix}/bin/python3.13"

#: What our interpreter is linked with and a minimal Debian lacks.
_LIBRARIES = "libssl3,libffi8"

_UNSHARE = "unshare --mount --net --pid --fork --kill-child --propagation=private".split()
_ENTER = """
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
cd "$1/root"
chmod 755 root
shift 2
while [ $# -gt 0 ]; do
    mkdir -p -m 755 ".$2"
    mount --bind "$1" ".$2"
    mount -o remount,bind,ro ".$2"
    shift 2
done
ip link set lo up
echo entered
exec cat
"""


def make_base(folder: Path) -> Path:
    """A minimal Debian under `folder`, of this machine's release and from the mirror that it uses itself."""
    assert os.getuid() == 0, "debootstrap and mounts need root: run these tests as root (CI does)"
    base = folder / "base"
    release, mirror = _debian()
    command = ["debootstrap", "--variant=minbase", f"--include={_LIBRARIES}", release, str(base), *mirror]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=_environment())
    assert done.returncode == 0, f"debootstrap: {done.stdout[-2_000:]}{done.stderr[-500:]}"
    shutil.rmtree(base / "var/cache/apt")
    stand_in = base / "usr/local/bin/systemctl"
    stand_in.write_text(f"#!{PYTHON} -I\n" + Path(__file__).with_name("systemctl.py").read_text())
    stand_in.chmod(0o755)
    return base


def _debian() -> tuple[str, list[str]]:
    """Release and mirror: this machine's, if it is a Debian; otherwise what debootstrap takes by itself."""
    if shutil.which("apt-get") is None:
        return "bookworm", []
    words = "$(CODENAME) $(COMPONENT) $(ORIGIN) $(REPO_URI)"
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", words, "Created-By: Packages"],
        check=True,
        capture_output=True,
        text=True,
    )
    for line in targets.stdout.splitlines():
        codename, component, origin, uri = line.split(" ", 3)
        if component == "main" and origin == "Debian" and codename.isalpha():
            return codename, [uri]
    return "bookworm", []


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


class Room:
    """A clean root over a base. `mounts` are folders of this machine, and where they are seen, read-only.

    `kept` is what another room was left like, on top of the base.
    """

    def __init__(self, base: Path, folder: Path, mounts: dict[Path, str], kept: Path | None = None) -> None:
        self._lower = f"{kept}:{base}" if kept else str(base)
        self._folder = folder
        self._mounts = {Path(sys.base_prefix): sys.base_prefix, **mounts}

    def __enter__(self) -> Self:
        self._folder.mkdir(exist_ok=True)
        mounts = [str(word) for pair in self._mounts.items() for word in pair]
        with ExitStack() as undo:
            self._first = undo.enter_context(
                subprocess.Popen(
                    [*_UNSHARE, "sh", "-euc", _ENTER, "room", str(self._folder), self._lower, *mounts],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=_environment(),
                )
            )
            undo.callback(self._first.kill)
            assert self._first.stdout is not None
            assert self._first.stdout.readline() == b"entered\n"
            self._inside = _child(self._first.pid)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def command(self, *words: str) -> list[str]:
        """What runs `words` in the room, as its root."""
        enter = ["nsenter", f"--target={self._inside}", "--mount", "--net", "--pid", f"--wdns={self._folder}/root"]
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        return [*enter, "chroot", ".", "env", "-i", path, "HOME=/root", *words]

    def keep(self, target: Path) -> None:
        """Copy to a new folder what differs from the base."""
        enter = ["nsenter", f"--target={self._inside}", "--mount"]
        subprocess.run([*enter, "cp", "-a", str(self._folder / "upper"), str(target)], check=True)

    def run(self, *words: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in the room; its output, errors included."""
        done = subprocess.run(
            self.command(*words), check=False, input=stdin or "", stdout=-1, stderr=subprocess.STDOUT, text=True
        )
        assert not check or done.returncode == 0, done.stdout
        return done

    def python(self, code: str, *words: str, stdin: str | None = None) -> str:
        """What a Python program says that runs in the room."""
        return self.run(PYTHON, "-I", "-c", code, *words, stdin=stdin).stdout

    def read(self, path: str) -> str:
        """A file of the room."""
        return self.run("cat", path).stdout

    def write(self, path: str, text: str) -> None:
        """Put a file into the room."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "write", path, stdin=text)

    def has(self, path: str) -> bool:
        """Whether the room has such a file, folder or link."""
        return self.run("sh", "-c", '[ -e "$1" ] || [ -L "$1" ]', "has", path, check=False).returncode == 0

    @contextmanager
    def running(self, *words: str) -> Iterator[None]:
        """A program that runs in the room meanwhile."""
        silent = subprocess.DEVNULL
        with subprocess.Popen(self.command(*words), stdin=silent, stdout=silent, stderr=silent) as entering:
            try:
                yield
            finally:
                os.kill(_child(entering.pid), signal.SIGKILL)


def _child(pid: int) -> int:
    """The one process that `unshare --fork` or `nsenter` waits for."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], check=True, capture_output=True, text=True)
    return int(found.stdout)
