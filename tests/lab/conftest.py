"""Tests marked `network` run in a sandbox."""

from lab.network.testing import pytest_pyfunc_call as pytest_pyfunc_call
