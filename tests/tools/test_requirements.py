"""What `sam build` puts into the layer is what was tested: the layer's pins are the lock's."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s\\]+)", re.MULTILINE)


def pins(path: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / path).read_text()))


def test_the_layers_pins_are_the_locks() -> None:
    layer, lock = pins("layers/mirroring/requirements.txt"), pins("requirements.lock")
    assert layer.items() <= lock.items()


def test_the_layer_holds_what_the_package_needs_and_nothing_for_a_laptop() -> None:
    project = tomllib.loads((ROOT / "layers/mirroring/pyproject.toml").read_text())["project"]
    layer = pins("layers/mirroring/requirements.txt")
    name = re.compile(r"[A-Za-z0-9_.-]+")
    needed = {name.match(line)[0].lower() for line in project["dependencies"]}  # type: ignore[index]
    laptop = {name.match(line)[0].lower() for line in project["optional-dependencies"]["cli"]}  # type: ignore[index]
    assert needed <= layer.keys()
    assert not laptop & layer.keys()
