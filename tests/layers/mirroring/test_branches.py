"""The modules that decide are covered by their own test files alone, every branch.

By written examples, that is, not only where Hypothesis happens to look.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
#: Hypothesis marks its tests so.
_PYTEST = ("-m", "pytest", "-q", "-m", "not hypothesis")


@pytest.mark.parametrize("module", ["plan", "policy", "scope", "reconcile"])
def test_every_branch_is_taken_by_the_modules_own_tests(module: str, tmp_path: Path) -> None:
    data = f"--data-file={tmp_path}/coverage"
    tests = f"tests/layers/mirroring/test_{module}.py"
    _python("coverage", "run", "--branch", f"--include=*/mirroring/{module}.py", data, *_PYTEST, tests)
    _python("coverage", "report", data, "--show-missing", "--fail-under=100")


def _python(*arguments: str) -> None:
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
