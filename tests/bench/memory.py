"""4. What an idle flow costs in memory: a process of its own follows 200,000 of them.

Each flow is a recorded connection's beginning, its SYN to its first request, with another client address and port.
"""

import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from replayer.decap import SYN, vxlan
from replayer.ledger import Ledger
from replayer.pipeline import Pipeline
from replayer.settings import Caps, Settings
from tests.bench.processes import memory
from tests.bench.recording import Recording
from tests.bench.result import Finding

FLOWS = 200_000
MOST = 1024
_CLIENT_ADDRESS = slice(34, 38)  # in a VXLAN datagram with IPv4 without options in it
_CLIENT_PORT = slice(42, 44)
_CLIENTS_PER_ADDRESS = 50


def measure(recording: Recording, flows: int = FLOWS) -> list[Finding]:
    """Bytes per idle flow, in a fresh process."""
    beginning = [datagram.hex() for datagram in first_request(recording)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.memory"],
        input=json.dumps({"datagrams": beginning, "flows": flows}), capture_output=True, text=True, check=True,
    )  # fmt: skip
    size = json.loads(done.stdout) / flows
    return [
        Finding(
            f"4. Memory per idle flow, {flows:,} flows", f"{size:.0f} bytes", target="at most 1 KiB", met=size <= MOST
        )
    ]


def first_request(recording: Recording) -> Sequence[bytes]:
    """The datagrams of the first connection, to the end of its first request."""
    found: list[bytes] = []
    wanted = None
    for (datagram,) in recording.batches(1):
        segment = vxlan(datagram, None, None)
        assert isinstance(segment, tuple)
        if wanted is None and segment[3] & SYN:
            wanted = segment[0]
        if segment[0] == wanted:
            found.append(datagram)
            if segment[4]:
                break
    return found


def grow(beginning: Sequence[bytes], flows: int) -> int:
    """Bytes that this process grows by when it follows so many flows."""
    settings = Settings(caps=Caps(flows=flows))
    ledger = Ledger()
    pipeline = Pipeline(settings, ledger)
    _follow(pipeline, beginning, 1)
    gc.collect()
    before = memory(os.getpid())
    for number in range(1, flows):
        _follow(pipeline, beginning, number + 1)
    gc.collect()
    if ledger.flows != flows or ledger.framed != flows:
        raise RuntimeError(f"{ledger.flows:,} flows followed and {ledger.framed:,} requests framed, of {flows:,}")
    return memory(os.getpid()) - before


def _follow(pipeline: Pipeline, beginning: Sequence[bytes], number: int) -> None:
    address, port = divmod(number, _CLIENTS_PER_ADDRESS)
    for datagram in beginning:
        patched = bytearray(datagram)
        patched[_CLIENT_ADDRESS] = (0x0A000000 + address).to_bytes(4)
        patched[_CLIENT_PORT] = (20_000 + port).to_bytes(2)
        pipeline.receive(bytes(patched), 0.0)


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    json.dump(grow([bytes.fromhex(text) for text in asked["datagrams"]], asked["flows"]), sys.stdout)
