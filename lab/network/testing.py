"""A pytest hook: tests marked `network` run one at a time, each in a sandbox of its own. A conftest.py imports it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.network import sandbox

_ROOT = Path(__file__).resolve().parents[2]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Outside a sandbox, such a test is this same test run by a pytest inside one."""
    if pyfuncitem.get_closest_marker("network") is None or sandbox.inside():
        return None
    inner = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", pyfuncitem.nodeid]
    command = [sys.executable, "-m", "lab.network.sandbox", *inner]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with open(__file__, "rb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        done = subprocess.run(
            command,
            check=False,
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)
    return True
