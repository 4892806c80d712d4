"""What several of these tests need and takes long to make."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab.cloud.deployment import build


@pytest.fixture(scope="session")
def built() -> Iterator[Path]:
    """The template as `sam build` leaves it, beside the functions and layers: 100 MB that nobody needs afterwards."""
    with TemporaryDirectory(prefix="built-") as folder:
        yield build(Path(folder))
