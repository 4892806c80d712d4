"""Four network namespaces, joined by links; each runs its own processes.

    client ──── prod ──── worker ──── test
          (1)       (2)         (3)

(1) is the production link: frames as long as its MTU, never longer, because offloads are off; what is mirrored is what
crosses it. (2) carries mirrored packets, headers of the mirror included. (3) carries replayed requests. An interface is
named after the namespace that it leads to.
"""

import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from lab.network import sandbox
from lab.network.namespaces import NetworkError as NetworkError
from lab.network.namespaces import inside, plain_frames, run, settle
from lab.network.processes import stop

NAMESPACES = ("client", "prod", "worker", "test")
CLIENT, PROD = "10.77.1.1", "10.77.1.2"
MIRROR, WORKER = "10.77.2.1", "10.77.2.2"
REPLAYER, TEST = "10.77.3.1", "10.77.3.2"

_ROOT = Path(__file__).resolve().parents[2]
_MIRROR_PATH_MTU = 9216  # 9,001 bytes of IP, and 14 + 8 + 8 + 20 around them


class Network:
    """The namespaces and the processes in them, for as long as the context lasts. Needs a sandbox around it.

    Logs and other files go with the context, unless `keep` names a directory that they are copied to.
    """

    def __init__(self, production_mtu: int = 1500, keep: Path | None = None) -> None:
        self.directory = sandbox.FILES
        self._keep = keep
        self._mtu = production_mtu
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        if not sandbox.inside():
            raise NetworkError("the network is made inside a sandbox only: call lab.network.sandbox.enter() first")
        try:
            for name in NAMESPACES:
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
                with inside(name):
                    settle()
            _link(("client", CLIENT), ("prod", PROD), self._mtu)
            _link(("prod", MIRROR), ("worker", WORKER), _MIRROR_PATH_MTU)
            _link(("worker", REPLAYER), ("test", TEST), 9001)
            for here, there in (("client", "prod"), ("prod", "client")):
                with inside(here):
                    plain_frames([there])
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def run(self, namespace: str, *command: str) -> str:
        """What a command in a namespace prints. Raises NetworkError when it fails."""
        return run("ip", "netns", "exec", namespace, *command)

    def start(
        self,
        namespace: str,
        command: Sequence[str],
        stdout: IO[bytes] | int | None = None,
        stderr: IO[bytes] | int | None = None,
    ) -> subprocess.Popen[bytes]:
        """A process in a namespace, ended with the context at the latest."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *command],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=_ROOT,
        )
        self._processes.append(process)
        return process

    def start_python(self, namespace: str, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        """A module of the lab, run as a program in a namespace."""
        return self.start(namespace, [sys.executable, "-m", module, *arguments])

    def socket(self, namespace: str, kind: socket.SocketKind) -> socket.socket:
        """An IPv4 socket of this process in a namespace."""
        with inside(namespace):
            return socket.socket(socket.AF_INET, kind)

    def _leave(self) -> None:
        for process in reversed(self._processes):
            stop(process)
        for name in NAMESPACES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
        if self._keep:
            shutil.copytree(self.directory, self._keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock"))
        for entry in self.directory.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _link(left: tuple[str, str], right: tuple[str, str], mtu: int) -> None:
    (here, address), (there, peer_address) = left, right
    run(
        "ip",
        "link",
        "add",
        there,
        "netns",
        here,
        "mtu",
        str(mtu),
        "type",
        "veth",
        "peer",
        here,
        "netns",
        there,
        "mtu",
        str(mtu),
    )
    for name, interface, own in ((here, there, address), (there, here, peer_address)):
        run("ip", "-n", name, "address", "add", f"{own}/24", "dev", interface)
        run("ip", "-n", name, "link", "set", interface, "up")
