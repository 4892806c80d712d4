"""Emulators that many tests share: each makes its own things, by names of their own, as others' are still there."""

from collections.abc import Iterator

import pytest

from lab.cloud.emulator import Emulator, emulator
from tests.lab.cloud.world import World


@pytest.fixture(scope="session")
def cloud() -> Iterator[Emulator]:
    with emulator(auth=False) as running:
        yield running


@pytest.fixture(scope="session")
def living() -> Iterator[Emulator]:
    """A live one; who turns the weather turns it back."""
    with emulator(auth=False, live=True, pace=10) as running:
        yield running


@pytest.fixture
def world(cloud: Emulator) -> World:
    """A VPC of its own in the emulator that is not live."""
    return World(cloud.client("ec2"), cloud.client("elbv2"))
