"""What the demo says before and after its story. That the story passes, and leaves nothing behind, is tests/e2e's."""

import io
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from botocore.exceptions import ClientError
from rich.console import Console
from rich.text import Text

from lab import demo, do
from lab.cloud.deployment import DeploymentError
from lab.cloud.emulator import EmulatorError
from lab.fabric.balancers import BalancerError
from lab.machines import MachineError
from lab.network import sandbox
from lab.network.namespaces import NetworkError
from lab.view import Snapshot
from lab.vpc import Lab, LabError
from mirroring import cli as mirrorctl
from tests.waiting import until

_ROOT = Path(__file__).parents[2]
#: Runs what follows where no network namespace may be made, by whomever.
_CONFINED = ["unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"', "sh"]
_INSTANCE = "i-0123456789abcdef0"


def test_without_namespaces_it_says_so_and_replays_what_was_recorded() -> None:
    command = [*_CONFINED, sys.executable, "-m", "lab.demo"]
    done = subprocess.run(command, check=False, cwd=_ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)

    assert done.returncode == 0, done
    first, second, *rest = done.stdout.splitlines()
    assert first.startswith("the kernel refuses the lab its namespaces")
    assert "run as root, or" in first
    assert "replayed to a local server" in second
    assert any(line.startswith("PASS") for line in rest)


def test_a_kernel_that_grants_namespaces_is_believed() -> None:
    assert demo.refused() == ""


def test_a_machine_that_has_everything_lacks_nothing() -> None:
    assert demo.lacking() is None


def test_a_machine_without_the_tools_is_told_what_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLAYER", "/nowhere/replayer")

    assert demo.lacking() == "the demo needs /nowhere/replayer: make setup"


class _Lab:
    """One that does not come up, or comes up and fails at its first deed, with a given error."""

    def __init__(self, error: BaseException, *, up: bool) -> None:
        self._error, self._up = error, up

    def __enter__(self) -> None:
        if not self._up:
            raise self._error

    def snapshot(self) -> Snapshot:
        return Snapshot(0)

    def deploy(self) -> None:
        raise self._error


def _ran(lab: _Lab) -> tuple[int, str]:
    console = Console(file=io.StringIO(), width=200)
    code = demo.run(cast(Lab, lab), console, None, "", None)
    assert isinstance(console.file, io.StringIO)
    return code, console.file.getvalue()


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        DeploymentError("sam deploy ended with 1:\nwords of [SAM]"),
        EmulatorError("the emulator did not become healthy"),
        NetworkError("no device"),
        MachineError("no server"),
        BalancerError("the balancer ended"),
        LabError("not running"),
        ClientError({"Error": {"Code": "Throttled", "Message": "slow down"}}, "RunInstances"),
        ValueError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_goes_wrong_in_the_lab_is_a_fail_with_its_reason(error: Exception, up: bool) -> None:
    error.add_note("the emulator's last words")
    code, shown = _ran(_Lab(error, up=up))

    assert code == 1
    assert f"FAIL  {str(error) or 'ValueError'}\n" in shown
    assert f"{type(error).__name__} in test_demo.py" in shown
    assert "the emulator's last words" in shown


def test_an_interrupt_is_no_fail() -> None:
    with pytest.raises(KeyboardInterrupt):
        _ran(_Lab(KeyboardInterrupt(), up=True))


@pytest.fixture
def invitation() -> str:
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566", "AWS_REGION": "eu-west-1"}
    return demo.invitation(environment, _INSTANCE, "10.1.0.6", 1080, demo.way_in(4711, 0))


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line.startswith((".venv/", "curl", "nsenter")):
            yield shlex.split(line, comments=True)


def test_the_second_terminal_gets_exports_that_a_shell_takes(invitation: str) -> None:
    exports = "\n".join(re.findall(r"^export .*$", invitation, re.MULTILINE))
    done = subprocess.run(["sh", "-c", f"{exports}\nenv"], check=True, capture_output=True, text=True, env={})

    assert {"AWS_ENDPOINT_URL=http://127.0.0.1:4566", "AWS_REGION=eu-west-1"} <= set(done.stdout.splitlines())


def test_the_commands_to_try_are_ones_that_there_are(invitation: str) -> None:
    programs = []
    for program, *words in _commands(invitation):
        if program.endswith("mirrorctl"):
            assert mirrorctl.parse(words, {}).stack == "replay"
        elif program.endswith("python") and "--help" not in words:
            assert words[:2] == ["-m", "lab.do"]
            assert do.parser().parse_args(words[2:]).deed
        programs.append(Path(program).name)

    assert set(programs) == {"mirrorctl", "python", "curl", "nsenter"}
    assert "socks5://127.0.0.1:1080 http://10.1.0.6/" in invitation


@pytest.mark.parametrize("user", [0, 1000])
def test_the_way_in_leads_into_the_sandbox(user: int) -> None:
    """Into one that this test's user made, who may be root, by the command for whom it is meant."""
    command = [sys.executable, "-m", "lab.network.sandbox", "sleep", "60"]
    unprivileged = ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if user else []
    with subprocess.Popen([*unprivileged, *command], cwd=_ROOT, stdin=subprocess.DEVNULL) as process:
        entrance = demo.way_in(process.pid, user)

        def inside() -> str:
            done = subprocess.run(
                ["bash", "-c", f"{entrance} -- sh -c 'test -d {sandbox.FILES} && id -u'"],
                check=False,
                capture_output=True,
                text=True,
            )
            return done.stdout.strip()

        try:
            assert until("the sandbox is entered", inside) == "0"
        finally:
            process.terminate()


def test_a_small_receive_buffer_has_a_remedy() -> None:
    large, small = {"wished": 64 << 20, "effective": 64 << 20}, {"wished": 64 << 20, "effective": 1 << 18}

    assert demo.remedy([large, small]) == "sudo sysctl -w net.core.rmem_max=67108864, or run it as root"
    assert demo.remedy([large]) == ""


def test_the_picture_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    demo.save(tmp_path / "demo.svg", [Text("mirrored", style="green"), Text("PASS", style="bold")])
    text = (tmp_path / "demo.svg").read_text()

    assert ElementTree.parse(io.StringIO(text)).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "mirrored" in text
    assert "PASS" in text
    assert "url(http" not in text
    assert "@font-face" not in text
