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
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from lab.network.namespaces import inside
from lab.network.topology import stop

NAMESPACE = "internet"
#: Where production's servers read a body to its end.
_UPLOADS = "/upload"
_UPLOAD_RATE = "4M"  # bytes a second: an uplink, not a memory copy


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
    seconds: int = 600  # then the clients end by themselves


class Traffic:
    """The clients of all instances."""

    def __init__(self, directory: Path, namespace: str = NAMESPACE) -> None:
        self.directory = directory
        self._namespace = namespace
        self._numbers = count(1)  # of processes, so that no two send the same targets
        self._clients: dict[str, list[subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()

    def start(self, instance: str, address: str, mix: Mix = Mix()) -> None:
        """Clients for an instance, beside those that it may have already."""
        with self._lock:
            commands = self._commands(instance, address, mix)
            clients = self._clients.setdefault(instance, [])
            with inside(self._namespace):
                clients += [_start(command) for command in commands]

    def stop(self, instance: str) -> None:
        """End its clients. A request that is on its way gets no answer then, and production's log says so."""
        with self._lock:
            clients = self._clients.pop(instance, [])
        _end(clients)

    def close(self) -> None:
        """End all clients."""
        with self._lock:
            clients = [client for clients in self._clients.values() for client in clients]
            self._clients.clear()
        _end(clients)

    def alive(self, instance: str) -> int:
        """How many of its clients have not ended. h2load ends with its connection, curl connects again."""
        with self._lock:
            return sum(client.poll() is None for client in self._clients.get(instance, ()))

    def _commands(self, instance: str, address: str, mix: Mix) -> list[list[str]]:
        self.directory.mkdir(parents=True, exist_ok=True)
        return [
            *(self._gets(instance, address, mix) for _ in range(mix.get_connections if mix.gets else 0)),
            *(self._posts(instance, address, mix) for _ in range(mix.post_connections if mix.posts else 0)),
            *([self._fresh(instance, address, mix)] if mix.fresh else []),
            *(self._uploads(instance, address, mix, chunked) for chunked in (False, True) if mix.uploads),
        ]

    def _gets(self, instance: str, address: str, mix: Mix) -> list[str]:
        return self._h2load(f"/{instance}", address, mix.gets / mix.get_connections, mix.seconds)

    def _posts(self, instance: str, address: str, mix: Mix) -> list[str]:
        path, digest = self._body(mix.post_bytes)
        body = ("-d", str(path), "-H", f"X-Lab-Sha256: {digest}")
        return self._h2load(f"{_UPLOADS}/{instance}", address, mix.posts / mix.post_connections, mix.seconds, *body)

    def _h2load(self, place: str, address: str, rate: float, seconds: int, *flags: str) -> list[str]:
        number, requests = next(self._numbers), max(1, round(rate * seconds))
        targets = self.directory / f"targets-{number}"
        with targets.open("w") as file:
            file.writelines(f"http://{address}{place}/{number}/{nth}\n" for nth in range(requests))
        pace = ("--rps", f"{rate:g}", "-n", str(requests))
        return ["h2load", "--h1", "-t", "1", "-c", "1", *pace, "-i", str(targets), *flags]

    def _fresh(self, instance: str, address: str, mix: Mix) -> list[str]:
        return self._curl(f"/{instance}", address, mix.fresh, mix.seconds)

    def _uploads(self, instance: str, address: str, mix: Mix, chunked: bool) -> list[str]:
        path, digest = self._body(mix.upload_bytes)
        body = ["-H", "Transfer-Encoding: chunked", "-T", str(path)] if chunked else ["--data-binary", f"@{path}"]
        flags = ("--limit-rate", _UPLOAD_RATE, "-H", f"X-Lab-Sha256: {digest}", *body)
        return self._curl(f"{_UPLOADS}/{instance}", address, mix.uploads / 2, mix.seconds, *flags)

    def _curl(self, place: str, address: str, rate: float, seconds: int, *flags: str) -> list[str]:
        """curl makes the targets from a range, and keeps the pace in requests a minute."""
        number, requests = next(self._numbers), max(1, round(rate * seconds))
        pace = ("--rate", f"{max(1, round(rate * 60))}/m", "-H", "Connection: close")
        target = f"http://{address}{place}/{number}/[1-{requests}]"
        return ["curl", "-sS", "-o", os.devnull, "--connect-timeout", "2", *pace, *flags, target]

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


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _end(clients: list[subprocess.Popen[bytes]]) -> None:
    for client in clients:
        client.terminate()
    for client in clients:
        stop(client)
