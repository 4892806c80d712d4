"""The programs with packages of their own: their locks, and how tools/setup-tools.sh makes environments of them.

uv is a shell script that says what it was asked to do.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "tools").glob("*.in"))
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)", re.MULTILINE)
UV = """#!/bin/sh
echo "$*" >>calls
[ "$1" != venv ] || { for last; do :; done; mkdir -p "$last/bin" && ln -s /bin/sh "$last/bin/python"; }
case "$*" in *"$FAILING") echo "no such package" >&2; exit 1;; esac
"""
NEVER = "no such word"


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / f"tools/{name}.lock").read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_pins_what_its_list_asks_for_by_hash(name: str) -> None:
    asked = re.findall(r"^([A-Za-z0-9_-]+)", (ROOT / f"tools/{name}.in").read_text(), re.MULTILINE)
    lock = (ROOT / f"tools/{name}.lock").read_text()
    assert asked and set(asked) <= pins(name).keys()
    assert lock.count("--hash=sha256:") >= len(pins(name))
    assert not re.search(r"index-url|find-links|https?://", lock)


def test_functions_see_what_lambda_has_and_nothing_that_a_layer_should_bring() -> None:
    """The emulator runs functions in its own environment, and Lambda's Python has boto3; cfn-lint needs the rest."""
    layer = set(PIN.findall((ROOT / "layers/mirroring/requirements.txt").read_text()))
    names = {name for name, _ in layer}
    assert "aws-lambda-powertools" in names - pins("emulator").keys()


def test_the_tools_that_must_agree_do() -> None:
    assert len({pins(name)["aws-sam-translator"] for name in NAMES}) == 1
    assert len({pins(name)["cfn-lint"] for name in NAMES}) == 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/setup-tools.sh", tmp_path / "tools")
    for name in ("one", "two"):
        (tmp_path / f"tools/{name}.lock").write_text("rich==1.0 \\\n    --hash=sha256:aa\n")
    uv = tmp_path / ".venv/bin/uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(UV)
    uv.chmod(0o755)
    return tmp_path


def setup(tree: Path, failing: str = NEVER) -> subprocess.CompletedProcess[str]:
    (tree / "calls").write_text("")
    return subprocess.run(
        [tree / "tools/setup-tools.sh"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tree), "FAILING": failing},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def calls(tree: Path) -> list[str]:
    return (tree / "calls").read_text().splitlines()


def test_each_lock_becomes_an_environment_once(tree: Path) -> None:
    done = setup(tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"tools: installing 1 pinned packages for {name}" for name in ("one", "two")]
    assert calls(tree) == [
        "venv --quiet --python .venv/bin/python .venv/tools/one",
        "pip sync --quiet --require-hashes tools/one.lock",
        "venv --quiet --python .venv/bin/python .venv/tools/two",
        "pip sync --quiet --require-hashes tools/two.lock",
    ]
    again = setup(tree)
    assert (again.returncode, again.stdout, calls(tree)) == (0, "", [])


def test_a_changed_lock_a_lost_interpreter_and_a_tree_that_moved_make_it_anew(tree: Path) -> None:
    setup(tree)
    (tree / "tools/one.lock").write_text("rich==1.1 \\\n    --hash=sha256:bb\n")
    assert setup(tree).stdout == "tools: installing 1 pinned packages for one\n"
    (tree / ".venv/tools/two/bin/python").unlink()
    assert setup(tree).stdout == "tools: installing 1 pinned packages for two\n"
    moved = tree.rename(tree.with_name("moved"))
    assert len(setup(moved).stdout.splitlines()) == 2


def test_a_failed_one_shows_why_and_is_tried_again(tree: Path) -> None:
    done = setup(tree, failing="tools/two.lock")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["no such package", "tools: could not make .venv/tools/two"]
    assert setup(tree).stdout == "tools: installing 1 pinned packages for two\n"
