"""An emulator that many tests share: each makes its own things, by names of their own, as others' are still there."""

from collections.abc import Iterator

import pytest

from lab.cloud.emulator import Emulator, emulator


@pytest.fixture(scope="session")
def cloud() -> Iterator[Emulator]:
    with emulator(auth=False) as running:
        yield running
