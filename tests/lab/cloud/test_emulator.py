"""A running emulator itself: where it listens, what its functions find, and its own end."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.emulator import ROOT, Emulator, emulator
from lab.cloud.events import ACCOUNT, REGION
from tests.lab.cloud.functions import answer, zipped
from tests.waiting import until

type Template = dict[str, Any]

PROBE = """
import importlib.util, sys
def handler(event, context):
    found = {name: importlib.util.find_spec(name) for name in ("mirroring", "lab")}
    return {"found": {name: spec.origin if spec else None for name, spec in found.items()}, "path": sys.path}
"""


# Its own affairs


def test_it_listens_on_one_port_of_loopback_alone(cloud: Emulator) -> None:
    sockets = {link.readlink().name for link in Path(f"/proc/{cloud.process.pid}/fd").iterdir()}
    rows = [
        row.split()
        for kind in ("tcp", "tcp6")
        for row in Path(f"/proc/{cloud.process.pid}/net/{kind}").read_text().splitlines()[1:]
    ]
    listening = {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
    assert listening == {f"0100007F:{cloud.port:04X}"}


def test_it_is_the_account_that_events_name(cloud: Emulator) -> None:
    assert cloud.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert cloud.environment["AWS_REGION"] == REGION


def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import time\nfrom lab.cloud.emulator import emulator\n"
        "with emulator(auth=False) as cloud:\n    print(cloud.process.pid, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    until("it ends", lambda: has_ended(pid))
    assert [path.name for path in tmp_path.glob("*/*")] == ["emulator.log"]  # the state is gone


def has_ended(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


def test_what_goes_wrong_shows_the_log() -> None:
    with pytest.raises(ZeroDivisionError) as caught, emulator(auth=False) as cloud:
        scratch, pid = cloud.log.parent, cloud.process.pid
        raise ZeroDivisionError
    assert "Ready" in caught.value.__notes__[0]
    assert not scratch.exists() and not Path(f"/proc/{pid}").exists()


def test_it_answers_on_other_sockets_too_and_where_it_is_told_to() -> None:
    with socket.create_server(("127.0.0.1", 0)) as main, socket.create_server(("127.0.0.1", 0)) as other:
        with emulator(live=True, pace=2.5, main=main, listeners=[other]) as cloud:
            assert cloud.port == main.getsockname()[1]
            arguments = Path(f"/proc/{cloud.process.pid}/cmdline").read_text().split("\0")
            assert "--live" in arguments and arguments[arguments.index("--pace") + 1] == "2.5"
            elsewhere = replace(cloud, port=other.getsockname()[1])
            assert elsewhere.client("sts").get_caller_identity()["Account"] == ACCOUNT
            assert elsewhere.events() == []
        assert main.fileno() >= 0 and other.fileno() >= 0  # the caller's


# Functions


@pytest.mark.parametrize("with_layer", [True, False])
def test_a_function_finds_our_package_in_its_layer_or_not_at_all(cloud: Emulator, with_layer: bool) -> None:
    name = f"probe-{with_layer}".lower()
    layer = cloud.client("lambda").publish_layer_version(
        LayerName=name,
        Content={"ZipFile": zipped({"python/mirroring/__init__.py": ""})},
        CompatibleRuntimes=["python3.13"],
    )["LayerVersionArn"]
    told = answer(cloud, name, PROBE, [layer] if with_layer else [])
    assert told["found"]["lab"] is None
    assert str(ROOT) not in told["path"] and str(ROOT / "layers/mirroring") not in told["path"]
    origin = told["found"]["mirroring"]
    assert ("layer_0/python/mirroring" in origin) if with_layer else origin is None
