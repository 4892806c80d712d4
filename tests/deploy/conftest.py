"""What several of these tests need and takes long to make."""

from pathlib import Path

import pytest

from lab.cloud.deployment import build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as `sam build` leaves it, beside the functions and layers."""
    return build(tmp_path_factory.mktemp("built"))
