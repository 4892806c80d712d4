"""Production's clients: real programs, each at a pace of its own, in the namespace `internet`.

- h2load sends GETs, and POSTs with a body, over connections that stay. One process is one connection, since all
  connections of a process would send the same targets (`man h2load`: "URIs are used in this order for each client").
- curl sends GETs, and uploads with a length or in chunks, over a connection each.

Every request of the lab has a target of its own, in which its instance can be read: whether it arrived exactly once can
be told from the logs alone. (That is why hey is not among the programs: it knows one target only.)
"""

import hashlib
import os
import random
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from lab.fabric.router import INTERNET
from lab.network.namespaces import inside
from lab.network.processes import stop

#: Where production's servers read a body to its end.
_UPLOADS = "/upload"
_UPLOAD_RATE = "4M"  # bytes a second: an uplink, not a memory copy
_LONGEST = 600  # seconds that one process of clients that go on is good for
_LOOK = 0.5  # seconds until one that has ended is replaced


@dataclass(frozen=True, slots=True)
class Mix:
    """What the clients of one instance send: requests a second, all connections of a kind together."""

    gets: float = 45
    get_connections: int = 3
    posts: float = 10
    post_connections: int = 1
    post_bytes: int = 4096
    fresh: float = 5  # GETs over a connection each
    uploads: float = 0.5  # over a connection each, by turns with a length and in chunks
    upload_bytes: int = 512 << 10
    seconds: int | None = None  # then the clients end by themselves; None: they go on


@dataclass(frozen=True, slots=True)
class _Command:
    arguments: list[str]
    targets: Path | None = None  # a file of them


type _Make = Callable[[], _Command]  # another one, with targets of its own


@dataclass(slots=True)
class _Client:
    make: _Make
    goes_on: bool
    command: _Command
    process: subprocess.Popen[bytes]


class Traffic:
    """The clients of all instances."""

    def __init__(self, directory: Path, namespace: str = INTERNET) -> None:
        self.directory = directory
        self._namespace = namespace
        self._numbers = count(1)  # of processes, so that no two send the same targets
        self._clients: dict[str, list[_Client]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="traffic", daemon=True)

    def start(self, instance: str, address: str, mix: Mix = Mix()) -> None:
        """Clients for an instance, beside those that it may have already."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._lock:
            clients = self._clients.setdefault(instance, [])
            for make in self._makers(instance, address, mix):
                command = make()
                clients.append(_Client(make, mix.seconds is None, command, self._start(command)))
            if not self._keeper.ident:
                self._keeper.start()

    def stop(self, instance: str) -> None:
        """End its clients. A request that is on its way gets no answer then, and production's log says so."""
        with self._lock:
            clients = self._clients.pop(instance, [])
        _end(clients)

    def close(self) -> None:
        """End all clients."""
        self._closing.set()
        with self._lock:
            clients = [client for clients in self._clients.values() for client in clients]
            self._clients.clear()
        _end(clients)
        if self._keeper.ident:
            self._keeper.join()

    def alive(self, instance: str) -> int:
        """How many of its clients have not ended."""
        with self._lock:
            return sum(client.process.poll() is None for client in self._clients.get(instance, ()))

    def _keep(self) -> None:
        """A client that ended gives way to another one."""
        while not self._closing.wait(_LOOK):
            with self._lock:
                for client in [client for clients in self._clients.values() for client in clients]:
                    if client.goes_on and client.process.poll() is not None:
                        _clear(client)
                        client.command = client.make()
                        client.process = self._start(client.command)

    def _start(self, command: _Command) -> subprocess.Popen[bytes]:
        with inside(self._namespace):
            return subprocess.Popen(
                command.arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    def _makers(self, instance: str, address: str, mix: Mix) -> list[_Make]:
        kinds: list[Callable[[str, str, Mix], _Command]] = [
            *(self._gets for _ in range(mix.get_connections if mix.gets else 0)),
            *(self._posts for _ in range(mix.post_connections if mix.posts else 0)),
            *([self._fresh] if mix.fresh else []),
            *([self._uploads, self._chunks] if mix.uploads else []),
        ]
        return [partial(kind, instance, address, mix) for kind in kinds]

    def _gets(self, instance: str, address: str, mix: Mix) -> _Command:
        return self._h2load(f"/{instance}", address, mix.gets / mix.get_connections, mix)

    def _posts(self, instance: str, address: str, mix: Mix) -> _Command:
        path, digest = self._body(mix.post_bytes)
        body = ("-d", str(path), "-H", f"X-Lab-Sha256: {digest}")
        return self._h2load(f"{_UPLOADS}/{instance}", address, mix.posts / mix.post_connections, mix, *body)

    def _h2load(self, place: str, address: str, rate: float, mix: Mix, *flags: str) -> _Command:
        number, requests = next(self._numbers), _requests(rate, mix)
        targets = self.directory / f"targets-{number}"
        with targets.open("w") as file:
            file.writelines(f"http://{address}{place}/{number}/{nth}\n" for nth in range(requests))
        pace = ("--rps", f"{rate:g}", "-n", str(requests))
        return _Command(["h2load", "--h1", "-t", "1", "-c", "1", *pace, "-i", str(targets), *flags], targets)

    def _fresh(self, instance: str, address: str, mix: Mix) -> _Command:
        return self._curl(f"/{instance}", address, mix.fresh, mix)

    def _uploads(self, instance: str, address: str, mix: Mix) -> _Command:
        path, digest = self._body(mix.upload_bytes)
        return self._upload(instance, address, mix, digest, "--data-binary", f"@{path}")

    def _chunks(self, instance: str, address: str, mix: Mix) -> _Command:
        path, digest = self._body(mix.upload_bytes)
        return self._upload(instance, address, mix, digest, "-H", "Transfer-Encoding: chunked", "-T", str(path))

    def _upload(self, instance: str, address: str, mix: Mix, digest: str, *body: str) -> _Command:
        flags = ("--limit-rate", _UPLOAD_RATE, "-H", f"X-Lab-Sha256: {digest}", *body)
        return self._curl(f"{_UPLOADS}/{instance}", address, mix.uploads / 2, mix, *flags)

    def _curl(self, place: str, address: str, rate: float, mix: Mix, *flags: str) -> _Command:
        """curl makes the targets from a range, and keeps the pace in requests a minute."""
        number, requests = next(self._numbers), _requests(rate, mix)
        pace = ("--rate", f"{max(1, round(rate * 60))}/m", "-H", "Connection: close")
        target = f"http://{address}{place}/{number}/[1-{requests}]"
        return _Command(["curl", "-sS", "-o", os.devnull, "--connect-timeout", "2", *pace, *flags, target])

    def _body(self, size: int) -> tuple[Path, str]:
        """A file of random bytes, and its hash."""
        data = random.Random(size).randbytes(size)
        path = self.directory / f"body-{size}"
        if not path.exists():  # else a client may be reading it
            path.write_bytes(data)
        return path, hashlib.sha256(data).hexdigest()


def instance_of(target: str) -> str:
    """The instance that a request of these clients was sent to; empty for any other."""
    parts = target.removeprefix(_UPLOADS).split("/")
    return parts[1] if len(parts) == 4 and parts[0] == "" else ""


def _requests(rate: float, mix: Mix) -> int:
    """Of one process."""
    return max(1, round(rate * (_LONGEST if mix.seconds is None else mix.seconds)))


def _end(clients: Sequence[_Client]) -> None:
    for client in clients:
        client.process.terminate()
    for client in clients:
        stop(client.process)
        _clear(client)


def _clear(client: _Client) -> None:
    """What one that has ended leaves: files here are memory."""
    if client.command.targets:
        client.command.targets.unlink(missing_ok=True)
