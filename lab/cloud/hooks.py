"""Where ministack is made to do as we say: by replacing what it keeps to itself, which any release may rename.

Nobody would see a replaced function that is called no more: the emulator would only judge less. So the release is
pinned, and what is replaced must be there, take what it took, and be known by that name alone.
"""

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any

#: The release whose internals we know.
PINNED = "1.5.33"

type Table = dict[str, Any]
type Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


class StrangeMinistack(Exception):
    """Not the ministack that we know: better no emulator than one that judges by chance."""


def check_release() -> None:
    if version("ministack") != PINNED:
        raise StrangeMinistack(f"ministack is {version('ministack')}, not {PINNED}")


def table(module: ModuleType, name: str) -> Table:
    """One that ministack looks things up in."""
    found = vars(module).get(name)
    if not isinstance(found, dict) or not found:
        raise StrangeMinistack(f"{module.__name__}.{name} is no table with entries, but {found!r}")
    return found


def add(entries: Table, more: Table) -> None:
    """Put entries into a table, of the kind of those that it has."""
    kinds = {type(one) for one in entries.values()}
    for name, one in more.items():
        if name in entries:
            raise StrangeMinistack(f"the table has {name} already")
        if type(one) not in kinds:
            raise StrangeMinistack(f"the table holds no {type(one).__name__}, which {name} is")
    entries |= more


def entry(entries: Table, name: str, parameters: str, wrap: Wrap) -> None:
    """Replace a function in a table by what `wrap` makes of it."""
    entries[name] = wrap(_known(entries, name, parameters, "the table"))


def function(modules: ModuleType | Sequence[ModuleType], name: str, parameters: str, wrap: Wrap) -> None:
    """Replace a function by what `wrap` makes of it: in the module that has it, and in those that imported it."""
    everywhere = [modules] if isinstance(modules, ModuleType) else modules
    originals = [_known(vars(module), name, parameters, module.__name__) for module in everywhere]
    if any(one is not originals[0] for one in originals):
        raise StrangeMinistack(f"{name} is not the same in {', '.join(module.__name__ for module in everywhere)}")
    _check_copies(originals[0], everywhere)
    replacement = wrap(originals[0])
    for module in everywhere:
        setattr(module, name, replacement)


def _known(names: Table, name: str, parameters: str, place: str) -> Callable[..., Any]:
    original: Callable[..., Any] | None = names.get(name)
    if not callable(original):
        raise StrangeMinistack(f"{place} has no function {name}")
    taken = " ".join(inspect.signature(original).parameters)
    if taken != parameters:
        raise StrangeMinistack(f"{name} of {place} takes {taken!r}, not {parameters!r}")
    return original


def _check_copies(original: Callable[..., Any], known: Sequence[ModuleType]) -> None:
    """A module that imported ministack's own function by name goes on calling that one."""
    package = known[0].__name__.partition(".")[0]
    if original.__module__.partition(".")[0] != package:
        return  # of the standard library: other modules have their own use for it
    for name, module in list(sys.modules.items()):
        if module in known or name.partition(".")[0] != package:
            continue
        if any(one is original for one in vars(module).values()):
            raise StrangeMinistack(f"{name} keeps a {original.__name__} of its own")
