"""Replacing what another package keeps to itself, or refusing to."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from lab.cloud import hooks
from lab.cloud.hooks import StrangeMinistack

PACKAGE = "package_of_somebody"


@pytest.fixture
def modules() -> Iterator[list[ModuleType]]:
    """Two modules of a package: the first has a function and a table, the second imported the function."""
    made = [ModuleType(f"{PACKAGE}.{name}") for name in ("first", "second")]
    source = "def judge(action, resource): return False\ntable = {'a': judge}\nempty = {}\n"
    exec(source, made[0].__dict__)
    sys.modules |= {module.__name__: module for module in made}
    yield made
    for module in made:
        del sys.modules[module.__name__]


def lenient(original: Callable[..., Any]) -> Callable[..., Any]:
    return lambda action, resource: not original(action, resource)


def test_a_function_is_replaced_wherever_it_is_known(modules: list[ModuleType]) -> None:
    first, second = modules
    second.__dict__["judge"] = first.judge
    hooks.function(modules, "judge", "action resource", lenient)
    assert first.judge("a", "b") and second.judge is first.judge


@pytest.mark.parametrize(
    ("name", "parameters", "reason"),
    [
        ("judged", "action resource", "first has no function judged"),
        ("table", "", "first has no function table"),
        ("judge", "action", "judge of package_of_somebody.first takes 'action resource', not 'action'"),
    ],
)
def test_a_function_that_is_not_what_it_was_is_not_replaced(
    modules: list[ModuleType], name: str, parameters: str, reason: str
) -> None:
    original = modules[0].judge
    with pytest.raises(StrangeMinistack, match=reason):
        hooks.function(modules[0], name, parameters, lenient)
    assert modules[0].judge is original


def test_a_module_that_would_go_on_with_the_old_one_is_found(modules: list[ModuleType]) -> None:
    first, second = modules
    second.__dict__["_judge"] = first.judge
    with pytest.raises(StrangeMinistack, match="second keeps a judge of its own"):
        hooks.function(first, "judge", "action resource", lenient)
    second.__dict__["judge"] = lenient(first.judge)
    with pytest.raises(StrangeMinistack, match="judge is not the same in"):
        hooks.function(modules, "judge", "action resource", lenient)


def test_a_function_of_another_package_is_replaced_in_one_place(modules: list[ModuleType]) -> None:
    for module in modules:
        module.__dict__["exit"] = sys.exit
    hooks.function(modules[0], "exit", "status", lambda _: lambda status: None)
    assert modules[0].exit(1) is None and modules[1].exit is sys.exit


def test_entries_of_tables_are_replaced_and_added(modules: list[ModuleType]) -> None:
    table = hooks.table(modules[0], "table")
    hooks.entry(table, "a", "action resource", lenient)
    hooks.add(table, {"b": lenient})
    assert table["a"]("x", "y") and table["b"] is lenient


def test_a_table_that_is_not_what_it_was_is_left_alone(modules: list[ModuleType]) -> None:
    table = hooks.table(modules[0], "table")
    for name in ("empty", "judge", "none"):
        with pytest.raises(StrangeMinistack, match=f"{name} is no table"):
            hooks.table(modules[0], name)
    with pytest.raises(StrangeMinistack, match="has no function b"):
        hooks.entry(table, "b", "action resource", lenient)
    with pytest.raises(StrangeMinistack, match="has a already"):
        hooks.add(table, {"a": lenient})
    with pytest.raises(StrangeMinistack, match="holds no str, which b is"):
        hooks.add(table, {"b": "text"})
    assert table.keys() == {"a"}
