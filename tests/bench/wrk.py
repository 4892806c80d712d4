"""wrk: the client whose traffic is recorded, and the yardstick of what sending a request costs."""

import re
import resource
import subprocess
from dataclasses import dataclass

from lab.network.processes import stop
from lab.network.topology import Network, NetworkError

HEADERS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br",
    "Cookie: session=7c0d1f6a94be4f0c8f52f0c7b1d3a9e2; cart=19; theme=dark",
    "Referer: http://shop.example.com/catalogue",
)
UPLOAD_SIZE = 64 << 10
_UPLOAD_SCRIPT = f"""
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/octet-stream"
wrk.body = string.rep("0123456789abcdef", {UPLOAD_SIZE // 16})
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request."""

    name: str
    path: str = "/catalogue/items/4711?colour=blue&size=42"
    connections: int = 200
    headers: tuple[str, ...] = HEADERS
    script: str = ""


GET = Kind("keep-alive GET")
ONCE = Kind("one GET per connection", headers=(*HEADERS, "Connection: close"))
UPLOAD = Kind("64 KiB POST", path="/upload", connections=8, script=_UPLOAD_SCRIPT)


def start(network: Network, namespace: str, address: str, kind: Kind, seconds: int) -> subprocess.Popen[bytes]:
    """wrk at full speed; it ends by itself, or at SIGINT."""
    command = ["wrk", "-t1", f"-c{kind.connections}", f"-d{seconds}s"]
    if kind.script:
        script = network.directory / "wrk.lua"
        script.write_text(kind.script)
        command += ["-s", str(script)]
    for header in kind.headers:
        command += ["-H", header]
    return network.start(namespace, [*command, f"http://{address}{kind.path}"], stdout=subprocess.PIPE)


@dataclass(frozen=True, slots=True)
class Run:
    """What wrk did at full speed."""

    requests: int
    seconds: float
    cpu: float

    @property
    def cpu_per_request(self) -> float:
        """In seconds."""
        return self.cpu / self.requests


def run(network: Network, namespace: str, address: str, kind: Kind, seconds: int) -> Run:
    """Let it run to its end. Raises NetworkError when requests failed."""
    before = _children()
    process = start(network, namespace, address, kind, seconds)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read().decode()
    stop(process)
    cpu = _children() - before
    done = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if done is None or not int(done[1]) or "Non-2xx" in said or "Socket errors" in said:
        raise NetworkError(f"wrk failed: {' '.join(said.split())}")
    return Run(int(done[1]), float(done[2]), cpu)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
