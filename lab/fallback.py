"""Where the kernel grants no namespaces: packets that the lab mirrored once, replayed to a server of this machine.

`lab/recorded/` holds what the workers received, as a capture, and what real clients had sent, line by line, as
production's log told it. Both are compared with what the server receives now.
"""

import hashlib
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from lab import recorder, worker
from lab.network.processes import stop

RECORDED = Path(__file__).with_name("recorded")
NO_BODY = hashlib.sha256(b"").hexdigest()

_STARTED_WITHIN = 10.0
_ENDED_WITHIN = 120.0
_LOOK = 0.02
_SHOWN = 5


class FallbackError(Exception):
    """It cannot be run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What must be the same on both sides."""

    method: str
    target: str
    sha256: str  # of the body


@dataclass(frozen=True, slots=True)
class Result:
    """What clients had sent, what the server received, and what became of the program."""

    sent: Counter[Request]
    received: Counter[Request]
    faults: list[str]  # what the server could not read
    exit_code: int | None  # None: it had to be ended
    output: str

    def complaints(self) -> list[str]:
        """Why it is a FAIL; empty for a PASS."""
        found = [_complaint("missing", self.sent - self.received), _complaint("too many", self.received - self.sent)]
        found += [f"the server could not read {len(self.faults)}: {self.faults[0]}"] if self.faults else []
        found += [] if self.sent else ["nothing was sent"]
        found += ["replayer replay did not come to its end"] if self.exit_code is None else []
        found += [f"replayer replay ended with exit code {self.exit_code}"] if self.exit_code else []
        return [text for text in found if text]


def run(folder: Path = RECORDED, seconds: float = _ENDED_WITHIN) -> Result:
    """Replay the capture, at most for so long. Raises FallbackError."""
    with TemporaryDirectory(prefix="replay-") as scratch:
        log, said = Path(scratch, "received"), Path(scratch, "said")
        with _server(log) as address:
            command = [str(worker.program()), "replay", str(folder / "requests.pcap.gz")]
            exit_code = _ended([*command, "--to", f"http://{address}", "--speed", "max"], said, seconds)
        entries = recorder.read(log)
        output = said.read_text(errors="replace")
    received = Counter(Request(one.method, one.target, one.sha256) for one in entries if not one.fault)
    faults = [one.fault for one in entries if one.fault]
    return Result(parse((folder / "requests.txt").read_text()), received, faults, exit_code, output)


def _ended(command: list[str], said: Path, seconds: float) -> int | None:
    """The exit code; None for what took too long."""
    with said.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            stop(process)


def parse(text: str) -> Counter[Request]:
    """A line for each request: method, target, and the body's hash, or - where there is none."""
    lines = [line.split(" ") for line in text.splitlines()]
    return Counter(Request(method, target, NO_BODY if sha256 == "-" else sha256) for method, target, sha256 in lines)


def show(result: Result, console: Console) -> None:
    console.print(f"requests in the capture, as production's log told them  {result.sent.total():,}", highlight=False)
    console.print(
        f"requests that the local server received                 {result.received.total():,}", highlight=False
    )
    if complaints := result.complaints():
        console.print(f"[bold red]FAIL[/]  {'; '.join(complaints)}", highlight=False)
        console.print(result.output.strip(), markup=False, highlight=False)
    else:
        console.print("[bold green]PASS[/]  every recorded request arrived exactly once, with its body")


def _complaint(what: str, requests: Counter[Request]) -> str:
    names = [f"{one.method} {one.target}" for one in list(requests)[:_SHOWN]]
    return f"{requests.total():,} {what}, such as {', '.join(names)}" if requests else ""


@contextmanager
def _server(log: Path) -> Iterator[str]:
    """A server that writes down what it receives; its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    process = subprocess.Popen([sys.executable, "-m", "lab.recorder", address, str(log)], cwd=RECORDED.parents[1])
    try:
        deadline = time.monotonic() + _STARTED_WITHIN
        while not _answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise FallbackError(f"the local server did not start on {address}")
            time.sleep(_LOOK)
        yield address
    finally:
        stop(process)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def main() -> int:
    """0 for PASS, 1 for FAIL, 2 when it cannot be run."""
    console = Console()
    try:
        result = run()
    except FallbackError as error:
        print(error, file=sys.stderr)
        return 2
    show(result, console)
    return 1 if result.complaints() else 0


if __name__ == "__main__":
    sys.exit(main())
