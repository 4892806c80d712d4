"""Tests marked `network` run in a sandbox, which has no way to a package index: the stack is built before."""

from pathlib import Path

import pytest

from lab.build import built
from lab.network import sandbox
from lab.network.testing import pytest_runtest_logreport as pytest_runtest_logreport
from lab.network.testing import pytest_runtest_protocol as pytest_runtest_protocol

_DEPLOYED = Path(__file__).with_name("test_stories.py")


def pytest_collection_finish(session: pytest.Session) -> None:
    if not sandbox.inside() and any(item.path == _DEPLOYED for item in session.items):
        built()
