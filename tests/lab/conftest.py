"""Tests marked `network` run in a sandbox."""

from lab.network.testing import pytest_runtest_logreport as pytest_runtest_logreport
from lab.network.testing import pytest_runtest_protocol as pytest_runtest_protocol
