"""Tests marked `network`: each file of a run is written here, and run by a pytest of its own."""

import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]

_HOOKS = """
from lab.network.testing import pytest_runtest_logreport, pytest_runtest_protocol
"""
_SETTINGS = """
[pytest]
markers = network: ...
"""


def _run(folder: Path, tests: str) -> tuple[dict[str, int], str]:
    """Numbers of the last line, and all that was printed."""
    (folder / "pytest.ini").write_text(_SETTINGS)
    (folder / "conftest.py").write_text(_HOOKS)
    (folder / "test_it.py").write_text("import os, pytest\nfrom pathlib import Path\n" + tests)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    last = done.stdout.splitlines()[-1]
    return {what: int(number) for number, what in re.findall(r"(\d+) (passed|failed|error)", last)}, done.stdout


def test_a_file_in_one_sandbox_has_its_fixtures_once_and_inside(tmp_path: Path) -> None:
    numbers, output = _run(
        tmp_path,
        """
pytestmark = pytest.mark.network(whole=True)

@pytest.fixture(scope="module")
def place():
    assert os.getpid() < 10  # of a PID namespace that has just begun
    with open("/run/replay-lab/made", "a") as file:
        file.write("made\\n")

@pytest.mark.parametrize("name", ["a b", "c/d"])
def test_each(place, name):
    assert Path("/run/replay-lab/made").read_text() == "made\\n"

def test_it_tells_failures(place):
    assert 1 == 2, "as it should be"
""",
    )
    assert numbers == {"passed": 2, "failed": 1}
    assert "as it should be" in output


def test_other_tests_have_a_sandbox_each_and_unmarked_ones_none(tmp_path: Path) -> None:
    numbers, output = _run(
        tmp_path,
        """
@pytest.mark.network
@pytest.mark.parametrize("turn", [1, 2])
def test_alone(turn):
    assert list(Path("/run/replay-lab").iterdir()) == []
    Path("/run/replay-lab/made").touch()

def test_outside():
    assert not Path("/run/replay-lab").exists()
""",
    )
    assert numbers == {"passed": 3}, output


def test_a_fault_in_setting_up_fails_the_test(tmp_path: Path) -> None:
    numbers, output = _run(
        tmp_path,
        """
@pytest.fixture
def broken():
    raise ValueError("no such luck")

@pytest.mark.network
def test_it(broken):
    pass
""",
    )
    assert numbers == {"failed": 1}
    assert "no such luck" in output


def test_a_pytest_that_does_not_come_that_far_fails_the_test(tmp_path: Path) -> None:
    numbers, output = _run(
        tmp_path,
        """
@pytest.mark.network
def test_it():
    os._exit(3)
""",
    )
    assert numbers == {"failed": 1}, output


def test_a_skipped_test_is_a_failed_one(tmp_path: Path) -> None:
    numbers, output = _run(
        tmp_path,
        """
@pytest.mark.network
def test_it():
    pytest.skip("no time")
""",
    )
    assert numbers == {"failed": 1}, output
