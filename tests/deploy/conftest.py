"""What several of these tests need and takes long to make."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from lab import build


@pytest.fixture(scope="session")
def built() -> Iterator[Path]:
    """The template as `sam build` leaves it, beside the functions and layers: a copy, as tests write into it."""
    with TemporaryDirectory(prefix="built-") as folder:
        copy = Path(folder, "build")
        shutil.copytree(build.built().parent, copy)
        yield copy / "template.yaml"
