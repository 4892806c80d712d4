"""Real nginx, as production and as test environment, each with its own files and an access log that tells all.

Uploads go through a second, internal server, because only then does nginx read a body to its end before it answers, as
production servers do; where bodies are kept, each is a file that the log names.

A line of the log is written as soon as its request has been answered, so that an nginx that is killed takes at most the
line of that moment with it. Times are the wall clock's, in milliseconds
(https://nginx.org/en/docs/http/ngx_http_log_module.html).
"""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab.network.topology import Network, NetworkError

_STARTED_WITHIN = 10.0
_LOOK = 0.01

_CONFIG = """
daemon off;
user root;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    log_format requests escape=json '{{"method":"$request_method","target":"$request_uri","status":"$status",'
        '"id":"$http_x_lab_id","sha256":"$http_x_lab_sha256","body":"$request_body_file",'
        '"ended":$msec,"seconds":$request_time,"connection":$connection,"nth":$connection_requests}}';
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen {address} backlog=4096;
        access_log {log};
        location / {{ return 200 "{name}\\n"; }}
        location /upload {{
            client_body_in_file_only {keep};
            proxy_pass http://unix:{directory}/inner.sock:;
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
        }}
    }}
    server {{
        listen unix:{directory}/inner.sock;
        location / {{ return 200 "{name} has it\\n"; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that an nginx answered."""

    method: str
    target: str
    status: str
    id: str
    sha256: str
    body: str  # the file that holds it, when bodies are kept
    ended: float = 0.0  # when nginx was done with it, seconds since the epoch
    seconds: float = 0.0  # since its first byte was read
    connection: int = 0
    nth: int = 0  # of its connection


@dataclass(frozen=True, slots=True)
class Server:
    """A running nginx."""

    directory: Path
    process: subprocess.Popen[bytes]


def start(network: Network, name: str, address: str, *, keep_bodies: bool = False, logged: bool = True) -> Server:
    """An nginx in namespace `name` that answers on `address`. Raises NetworkError when it does not come up."""
    directory = network.directory / f"nginx-{name}"
    command = prepare(directory, name, address, keep_bodies=keep_bodies, logged=logged)
    server = Server(directory, network.start(name, command, stderr=subprocess.DEVNULL))
    await_start(server, name)
    return server


def prepare(directory: Path, name: str, address: str, *, keep_bodies: bool = False, logged: bool = True) -> list[str]:
    """The command that starts an nginx with its files in `directory`, which may be that of one that ended."""
    directory.mkdir(parents=True, exist_ok=True)
    for left_behind in ("pid", "inner.sock"):  # by one that was killed
        (directory / left_behind).unlink(missing_ok=True)
    log = f"{log_of(directory)} requests" if logged else "off"
    keep = "on" if keep_bodies else "off"
    config = directory / "nginx.conf"
    config.write_text(_CONFIG.format(directory=directory, name=name, address=address, log=log, keep=keep))
    return ["nginx", "-e", str(directory / "error.log"), "-p", str(directory), "-c", str(config)]


def await_start(server: Server, name: str) -> None:
    """Until it answers. Raises NetworkError, with nginx's own words, when it does not."""
    deadline = time.monotonic() + _STARTED_WITHIN
    while not (server.directory / "pid").exists():  # written once all sockets listen
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise NetworkError(f"nginx did not start in {name}: {_reason(server.directory / 'error.log')}")
        time.sleep(_LOOK)


def _reason(errors: Path) -> str:
    """The last line that says something."""
    lines = errors.read_text().strip().splitlines() if errors.exists() else []
    return next((line for line in reversed(lines) if "still could not bind" not in line), "it said nothing")


def log_of(directory: Path) -> Path:
    """Where the nginx of this directory logs its requests."""
    return directory / "access.log"


def parse(line: bytes) -> Entry:
    """A line of the log. nginx passes bytes above 127 on as they came, so they are taken as Latin-1: any text is one
    then, and equal ones stay equal. Raises ValueError."""
    document = json.loads(line.decode("latin-1"))
    try:
        return Entry(**document)
    except TypeError as error:
        raise ValueError(f"no line of this log: {error}") from None


def answered(server: Server) -> list[Entry]:
    """The access log so far."""
    lines = log_of(server.directory).read_bytes().splitlines(keepends=True)
    return [parse(line) for line in lines if line.endswith(b"\n")]
