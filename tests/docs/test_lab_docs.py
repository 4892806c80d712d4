"""docs/lab.md: what is to be typed is right, and what it names is there."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from lab import do, screen
from tests.docs.commands import commands, faults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/lab.md").read_text()
COMMANDS = list(commands(PAGE))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:4]))
def test_a_command_is_well_formed(words: list[str]) -> None:
    assert faults(words) == []
    if words[1:3] == ["-m", "lab.do"]:
        assert do.parser().parse_args(words[3:]).deed


def test_the_python_example_names_what_there_is() -> None:
    [code] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for each in node.names:
                assert hasattr(module, each.name) or importlib.import_module(f"{module.__name__}.{each.name}")


def test_images_and_files_that_it_names_are_there() -> None:
    assert all(f"`{name}`" in PAGE for name in do.LAUNCHED)
    for name in re.findall(r"`((?:docs|tests|lab|events)/[\w./-]*)`", PAGE):
        assert (ROOT / name).exists()


def test_the_size_of_the_screen_is_told() -> None:
    assert f"A terminal of {screen.WIDTH} × {screen.HEIGHT} shows all of it" in PAGE


def test_it_is_short_enough_to_be_read() -> None:
    assert len(PAGE.splitlines()) <= 150
