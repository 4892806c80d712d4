"""Pytest hooks: tests marked `network` run each in a sandbox of its own. A conftest.py imports them.

`network(whole=True)` gives one sandbox to all tests of a file, and the fixtures in it serve them all. Outside a sandbox
nothing of such a test is set up: it is this same test run by a pytest inside one, and what that one said of it.
"""

import faulthandler
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from lab.network import sandbox

_ROOT = Path(__file__).resolve().parents[2]
_REPORTS = "NETWORK_TEST_REPORTS"

type Said = dict[str, dict[str, Any]]  # by node

#: What a pytest inside said of the tests of a file.
_SAID = pytest.StashKey[dict[Path, Said]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    mark = item.get_closest_marker("network")
    if mark is None or sandbox.inside():
        return None
    if mark.kwargs.get("whole"):
        files = item.session.stash.setdefault(_SAID, {})
        if item.path not in files:
            files[item.path] = _run([one for one in item.session.items if one.path == item.path])
        said = files[item.path]
    else:
        said = _run([item])
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    item.ihook.pytest_runtest_logreport(report=_report(item, said))
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    item.session._setupstate.teardown_exact(nextitem)  # of tests before, which left this to the file's last test
    return True


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Inside: one line for each phase of a test."""
    if (file := os.environ.get(_REPORTS)) and sandbox.inside():
        text = "\n".join([report.longreprtext, *(f"--- {name}\n{content}" for name, content in report.sections)])
        said = {"node": report.nodeid, "when": report.when, "outcome": report.outcome, "text": text}
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(json.dumps({**said, "seconds": report.duration}) + "\n")


def _run(items: Sequence[pytest.Item]) -> Said:
    inner = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    root = items[0].config.rootpath
    named = [f"{item.path}::{item.nodeid.partition('::')[2]}" for item in items]
    command = [sys.executable, "-m", "lab.network.sandbox", *inner, f"--rootdir={root}", *named]
    with TemporaryDirectory() as folder:
        reports = Path(folder) / "reports"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        environment[_REPORTS] = str(reports)
        faulthandler.cancel_dump_traceback_later()  # each test inside has the time that this one has
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
        lines = reports.read_text(encoding="utf-8").splitlines() if reports.exists() else []
    said: Said = {}
    for one in map(json.loads, lines):
        before = said.setdefault(one["node"], {"outcome": "passed", "seconds": 0.0, "text": "", "ended": False})
        before["seconds"] += one["seconds"]
        before["ended"] |= one["when"] == "teardown"
        if one["outcome"] != "passed":
            before["outcome"] = "failed"  # a skipped test too: there shall be none
            before["text"] += one["text"]
    for item in items:
        if not said.get(item.nodeid, {}).get("ended"):  # the pytest inside did not come that far
            said[item.nodeid] = {"outcome": "failed", "seconds": 0.0, "text": done.stdout}
    return said


def _report(item: pytest.Item, said: Said) -> pytest.TestReport:
    one = said[item.nodeid]
    return pytest.TestReport(
        item.nodeid,
        item.location,
        dict.fromkeys(item.keywords, 1),
        one["outcome"],
        one["text"] or None,
        "call",
        duration=one["seconds"],
    )
