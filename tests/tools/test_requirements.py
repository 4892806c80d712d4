"""What `sam build` puts into the layers is what was tested: the layers' pins are the lock's."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s\\]+)", re.MULTILINE)


def pins(path: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / path).read_text()))


LAYERS = pytest.mark.parametrize("folder", ["layers/mirroring", "worker"])


@LAYERS
def test_a_layers_pins_are_the_locks(folder: str) -> None:
    layer, lock = pins(f"{folder}/requirements.txt"), pins("requirements.lock")
    assert layer.items() <= lock.items()


@LAYERS
def test_a_layer_holds_what_the_package_needs_and_nothing_for_a_laptop(folder: str) -> None:
    project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    layer = pins(f"{folder}/requirements.txt")
    name = re.compile(r"[A-Za-z0-9_.-]+")
    needed = {name.match(line)[0].lower() for line in project["dependencies"]}  # type: ignore[index]
    extras = project.get("optional-dependencies", {}).get("cli", [])
    laptop = {name.match(line)[0].lower() for line in extras}  # type: ignore[index]
    assert needed <= layer.keys()
    assert not laptop & layer.keys()
