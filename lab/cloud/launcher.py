"""Runs ministack with what this folder adds to it. Started by `lab.cloud.emulator`; by hand, from the root:

    .venv/tools/emulator/bin/python -m lab.cloud.launcher --port 4566 --auth

It runs under the emulator's own interpreter, which its Lambda functions get too. The tree is on this process's path
alone, never in PYTHONPATH: a function must find the package `mirroring` in its layer or not at all. It listens on one
port of 127.0.0.1 and on what sockets it is given, holds its state in memory, and removes its scratch folder at the end.
"""

import argparse
import asyncio
import ctypes
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.cloud.events import ACCOUNT, REGION

ROOT = Path(__file__).parents[2]

_PR_SET_PDEATHSIG = 1


def main(arguments: Sequence[str]) -> None:
    options = _parse(arguments)
    if options.parent is not None:
        _live_no_longer_than(options.parent)
    listener = _listen(options.port) if options.socket is None else socket.socket(fileno=options.socket)
    with listener, tempfile.TemporaryDirectory(prefix="ministack-") as scratch:
        _settle(listener.getsockname()[1], scratch, options.auth)
        _serve([listener.fileno(), *options.listener], application(options.auth, options.live, options.pace))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lab.cloud.launcher")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--port", type=int, help="of 127.0.0.1; 0 takes a free one")
    place.add_argument("--socket", type=int, help="number of an inherited socket that listens already")
    parser.add_argument(
        "--listener", type=int, action="append", default=[], help="another inherited socket; repeatable"
    )
    parser.add_argument("--live", action="store_true", help="instances live, the bus learns of changes, groups act")
    parser.add_argument(
        "--pace",
        type=float,
        default=1.0,
        help="how many times as fast the waits of AWS's services and of functions pass",
    )
    parser.add_argument("--auth", action="store_true", help="enforce IAM policies")
    parser.add_argument("--parent", type=int, help="the process that starts this one, to end with it")
    return parser.parse_args(arguments)


def _live_no_longer_than(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # gone before the kernel was asked
        raise SystemExit(1)


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port))
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    return listener


def _settle(port: int, scratch: str, auth: bool) -> None:
    """ministack reads all of this while it is imported; its functions inherit it."""
    os.environ.pop("PYTHONPATH", None)
    os.environ |= {
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "LAMBDA_EXECUTOR": "local",
        "AUTH": "true" if auth else "false",
        "PERSIST_STATE": "0",
        "IOT_MTLS_ENABLED": "0",  # or it opens 0.0.0.0:8883
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{scratch}/no-docker",  # no server is looked for
        "TMPDIR": scratch,
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    tempfile.tempdir = scratch
    sys.path[:0] = [str(ROOT), str(ROOT / "layers/mirroring")]


def _serve(listeners: Sequence[int], strict: Any) -> None:
    from hypercorn.asyncio import serve  # type: ignore[import-not-found]
    from hypercorn.config import Config  # type: ignore[import-not-found]

    config = Config()
    config.bind = [f"fd://{number}" for number in listeners]
    config.keep_alive_timeout = 75

    async def run() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await serve(strict, config, shutdown_trigger=ended.wait)

    asyncio.run(run())


def application(auth: bool, live: bool = False, pace: float = 1.0) -> Any:
    """Imported here, once all that ministack reads at import is settled. Of any other ministack: StrangeMinistack."""
    from ministack.app import app  # type: ignore[import-not-found]

    from lab.cloud import authority, conditions, delivery, doors, hooks, provisioning
    from lab.cloud.ministack import adapter, automatic, pauses

    hooks.check_release()
    adapter.strict(adapter.MODEL, live)
    provisioning.extend(adapter.MODEL)
    conditions.strict()
    delivery.strict()
    if auth:
        authority.teach()
    delivery.open_doors(live)
    if pace != 1.0:
        pauses.shorten(pace)
    served = doors.beside(app)
    return automatic.live(served, pace) if live else served


if __name__ == "__main__":
    main(sys.argv[1:])
