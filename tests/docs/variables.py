"""The shell variables of a page's commands: whoever follows it from its beginning has given each a value."""

import re
from collections.abc import Iterator

from tests.docs.commands import FENCED

EXPORT = re.compile(r"`(export [^`]+)`")
USED = re.compile(r"\$\{?([A-Za-z_]\w*)")
#: At the beginning of a command; elsewhere NAME=VALUE is an argument.
FIRST = re.compile(r"^\s*(?:for\s+(\w+)\s+in\s|(\w+)=)")
EACH = re.compile(r"(\w+)=")


def unassigned(page: str) -> list[str]:
    """Variables that a command uses before any command or `export` in the text gave them a value."""
    known: set[str] = set()
    missing: list[str] = []
    for line in _lines(page):
        if found := FIRST.match(line):
            known |= {found[1]} if found[1] else set()
        missing += [name for name in USED.findall(line) if name not in {*known, *missing}]
        known |= set(_assigned(line))
    return missing


def _assigned(line: str) -> Iterator[str]:
    if line.lstrip().startswith("export "):
        yield from EACH.findall(line)
    elif (found := FIRST.match(line)) and found[2]:
        yield found[2]


def _lines(page: str) -> Iterator[str]:
    """Of shell blocks, without remarks, and the exports that the text names, in the order of the page."""
    found = [(block.start(), block[1]) for block in FENCED.finditer(page)]
    hidden = FENCED.sub(lambda block: " " * len(block[0]), page)
    found += [(each.start(), each[1]) for each in EXPORT.finditer(hidden)]
    for _, text in sorted(found):
        for line in re.sub(r"\\\n\s*", " ", text).splitlines():
            yield re.sub(r"(^|\s)#.*", "", line)
