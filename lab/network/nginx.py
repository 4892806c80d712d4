"""Real nginx, as production and as test environment, each with its own files and an access log that tells all.

Uploads go through a second, internal server, because only then does nginx read a body to its end before it answers, as
production servers do; where bodies are kept, each is a file that the log names.
"""

import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lab.network.topology import Network, NetworkError

_STARTED_WITHIN = 10.0

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
        '"id":"$http_x_lab_id","sha256":"$http_x_lab_sha256","body":"$request_body_file"}}';
    keepalive_requests 1000000;
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
        access_log {directory}/access.log requests buffer=256k flush=200ms;
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


@dataclass(frozen=True, slots=True)
class Server:
    """A running nginx."""

    directory: Path
    process: subprocess.Popen[bytes]


def start(network: Network, name: str, address: str, *, keep_bodies: bool = False) -> Server:
    """An nginx in namespace `name` that answers on `address`. Raises NetworkError when it does not come up."""
    directory = network.directory / f"nginx-{name}"
    directory.mkdir()
    config = directory / "nginx.conf"
    config.write_text(
        _CONFIG.format(directory=directory, name=name, address=address, keep="on" if keep_bodies else "off")
    )
    errors = directory / "error.log"
    process = network.start(
        name, ["nginx", "-e", str(errors), "-p", str(directory), "-c", str(config)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + _STARTED_WITHIN
    while not (directory / "pid").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = errors.read_text().strip() if errors.exists() else "it said nothing"
            raise NetworkError(f"nginx did not start in {name}: {said.splitlines()[-1] if said else 'it said nothing'}")
        time.sleep(0.01)
    return Server(directory, process)


def answered(server: Server) -> list[Entry]:
    """The access log so far; entries of the last 200 ms may be missing."""
    lines = (server.directory / "access.log").read_bytes().splitlines(keepends=True)
    return [Entry(**json.loads(line)) for line in lines if line.endswith(b"\n")]
