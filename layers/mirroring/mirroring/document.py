"""A YAML document made into a model, every fault a `Problem` with its path, its line and the remedy.

What a value means is for the model to say, not for YAML. Scalars stay the text that they were written as, so that
`09:00` is no number in base 60, `no` and `on` are words, `010` is not eight, and a tag value `1` or `true` is just
that, with quotes or without. Only a plain `null`, `~` or nothing at all is None.

The parser's events are read, not what its constructors would build: nothing is ever constructed from a YAML tag, a
key that stands twice is a fault, and neither depth (libyaml's own composer recurses until the stack ends) nor aliases
of aliases (which can make a gigabyte of a line) can run away.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from mirroring.model import MirroringError

type Tree = dict[str, Tree] | list[Tree] | str | None
type Place = tuple[str | int, ...]

LARGEST = 65_536  # characters; a parameter holds 8,192
DEEPEST = 20
MOST_VALUES = 20_000

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_PLAIN_TAGS = frozenset((None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"))
#: What YAML cannot hold. Looked for here, as the two parsers tell of it in two ways.
_UNREADABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SIMPLE_KEY = re.compile(r"[\w:/@+=-]+")


@dataclass(frozen=True)
class Problem:
    """One fault of a document, and what to do about it."""

    path: str  # sources[1].match.tags.Env; `document` if it is about all of it
    value: str  # as written, shortened; empty if there is none
    remedy: str
    line: int | None = None

    def __str__(self) -> str:
        place = [f"line {self.line}"] if self.line else []
        value = [json.dumps(self.value, ensure_ascii=False)] if self.value else []
        return ": ".join([*place, self.path, *value, self.remedy])


class PolicyError(MirroringError):
    """A document that cannot be used; the text has one line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True)
class Document:
    tree: Mapping[str, Tree]
    lines: Mapping[Place, int]  # of every key and entry, counted from 1


@dataclass(frozen=True)
class Home:
    """Where a kind of key stands, in words, and which keys may stand there."""

    words: str
    model: type[BaseModel]


def read(text: str) -> Document:
    """The mapping that a document holds, unchecked. Raises PolicyError."""
    _check_text(text)
    reader = _Reader(text)
    try:
        tree = reader.document()
    except yaml.MarkedYAMLError as error:
        raise PolicyError([_not_yaml(error, text)]) from None
    if reader.problems:
        raise PolicyError(reader.problems)
    if not isinstance(tree, dict):
        raise PolicyError([Problem("document", _shown(tree), "write `key: value` lines", 1)])
    if not tree:
        raise PolicyError([Problem("document", "", "it is empty: write at least `version: 1`", 1)])
    return Document(tree, reader.lines)


def validate[M: BaseModel](model: type[M], document: Document, homes: Mapping[str, Home]) -> M:
    """The model of a document. `homes` says, by the key above, where which keys belong. Raises PolicyError."""
    try:
        return model.model_validate(document.tree, by_alias=True, by_name=False)
    except ValidationError as error:
        problems = [_problem(fault, document, homes) for fault in error.errors(include_url=False)]
        # What `defaults` filled in stands elsewhere in the document and is told of there.
        told = {problem: None for problem in problems if problem is not None}
        raise PolicyError(sorted(told, key=lambda problem: (problem.line or 0, problem.path))) from None


def elsewhere(remedy: str, *steps: str | int) -> PydanticCustomError:
    """For validators: a fault that lies some steps below the model that finds it."""
    return PydanticCustomError("elsewhere", "{remedy}", {"remedy": remedy, "steps": steps})


def line_of(document: Document, place: Place) -> int | None:
    """Of the place, or of what it stands under."""
    ends = range(len(place), -1, -1)
    return next((document.lines[place[:end]] for end in ends if place[:end] in document.lines), None)


def path_of(place: Place) -> str:
    """A place as people write it: sources[1].match.tags.Env."""
    path = ""
    for part in place:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _SIMPLE_KEY.fullmatch(part):
            path += f".{part}" if path else part
        else:
            path += f"[{json.dumps(short(part), ensure_ascii=False)}]"
    return path or "document"


def short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:56]} ..."


class _Reader:
    """Builds the tree from the parser's events, and keeps lines and faults."""

    def __init__(self, text: str) -> None:
        self.lines: dict[Place, int] = {}
        self.problems: list[Problem] = []
        self._values = 0  # so far, those behind aliases counted each time
        self._anchored: dict[str, tuple[Tree, int]] = {}  # by anchor: what it stands for, and how many values that are
        self._events: Iterator[Any] = yaml.parse(text, _LOADER)

    def complain(self, place: Place, value: str, remedy: str, line: int) -> None:
        self.problems.append(Problem(path_of(place), value, remedy, line))

    def document(self) -> Tree:
        tree: Tree = None
        documents = 0
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            documents += 1
            if documents > 1:
                self.complain((), "---", "it holds more than one document: leave one", _line(event))
                break
            tree = self._node(next(self._events), ())
        return tree

    def _node(self, event: Any, place: Place) -> Tree:
        if len(place) > DEEPEST:
            remedy = "it is nested too deeply: no value of a policy is"
            raise PolicyError([Problem(path_of(place[:DEEPEST]), "", remedy, _line(event))])
        self.lines.setdefault(place, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        before = self._values
        self._count(1, place)
        tree = self._value(event, place)
        if event.anchor is not None:
            self._anchored[event.anchor] = tree, self._values - before
        return tree

    def _alias(self, event: Any, place: Place) -> Tree:
        """The value itself, no copy. Inside of what it marks an anchor is not known yet: there are no circles."""
        tree, size = self._anchored.get(event.anchor, (None, 0))
        if size == 0:
            remedy = f"{_QUOTE_STAR}, or mark before it what it stands for: &{event.anchor}"
            self.complain(place, f"*{event.anchor}", remedy, _line(event))
        self._count(size, place)
        return tree

    def _count(self, values: int, place: Place) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            raise PolicyError([Problem(path_of(place), "", f"the document holds too much: leave {MOST_VALUES} values")])

    def _value(self, event: Any, place: Place) -> Tree:
        if event.tag not in _PLAIN_TAGS:
            self.complain(place, event.tag, "YAML tags are not read: leave it out", _line(event))
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place)
        return None if event.implicit[0] and event.value in _NULLS else str(event.value)

    def _sequence(self, place: Place) -> list[Tree]:
        entries: list[Tree] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            entries.append(self._node(event, (*place, len(entries))))
        return entries

    def _mapping(self, place: Place) -> dict[str, Tree]:
        mapping: dict[str, Tree] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event, place)
            below = (*place, key)
            if key in mapping:
                first = self.lines[below]
                self.complain(below, "", f"the key stands twice, first in line {first}: leave one", _line(event))
            self.lines.setdefault(below, _line(event))
            mapping[key] = self._node(next(self._events), below)
        return mapping

    def _key(self, event: Any, place: Place) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value)
        self.complain(place, "", "a key is one word: put text that begins with {, [, * or ? in quotes", _line(event))
        self._node(event, (*place, "?"))
        return "?"


def _check_text(text: str) -> None:
    if len(text) > LARGEST:
        raise PolicyError([Problem("document", f"{len(text)} characters", f"shorten it to {LARGEST} at most")])
    if found := _UNREADABLE.search(text):
        line = text.count("\n", 0, found.start()) + 1
        remedy = "this character cannot stand in YAML: remove it"
        raise PolicyError([Problem("document", ascii(found[0]), remedy, line)])


_IN_DOUBT = "correct it; put text in quotes if in doubt"
_QUOTE_STAR = 'put text that begins with * in quotes ("*")'
#: By what the parsers (libyaml and PyYAML's own) say; the first that fits.
_HINTS = (
    ("alias", _QUOTE_STAR),
    ("anchor", "put text that begins with & in quotes"),
    ("cannot start any token", "indent with spaces, not tabs, and put text that begins with @, ` or % in quotes"),
    ("mapping values are not allowed", 'put text that holds ": " in quotes, and indent keys of one level alike'),
    ("did not find expected key", "indent keys of one level alike, and close quotes and brackets"),
)


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> Problem:
    remedy = next((hint for sign, hint in _HINTS if sign in f"{error.context} {error.problem}"), _IN_DOUBT)
    mark: Any = error.problem_mark  # what has none, an unreadable character, was looked for before
    below = text.splitlines()[mark.line :]
    value = short(below[0].strip()) if below else ""
    return Problem(
        "document", value, f"column {mark.column + 1} is not YAML ({error.problem}): {remedy}", mark.line + 1
    )


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


#: What to do about a fault of pydantic's, where its own words are of no help.
_REMEDIES = {
    "missing": "this key is required",
    "string_type": "write text",
    "tuple_type": "write a list: [VALUE, ...]",
    "dict_type": "write `key: value` lines under it",
    "model_type": "write `key: value` lines under it",
    "greater_than": "write more than {gt:.12g}",
    "greater_than_equal": "write at least {ge:.12g}",
    "less_than_equal": "write at most {le:.12g}",
    "literal_error": "write {expected}",
    "elsewhere": "{remedy}",
}


def _problem(fault: ErrorDetails, document: Document, homes: Mapping[str, Home]) -> Problem | None:
    """None for a fault of what is not in the document."""
    kind, context = fault["type"], fault.get("ctx", {})
    steps: Place = context.get("steps", fault["loc"][-1:] if kind == "missing" else ())
    above = fault["loc"][:-1] if kind == "missing" else fault["loc"]
    found = _found(document.tree, above)
    if found is None:
        return None
    place = (*found, *steps)
    value = _at(document.tree, place)
    if kind == "extra_forbidden":
        remedy = _unknown(place, homes)
    elif value is None and kind not in ("missing", "elsewhere"):
        remedy = 'it has no value: write one (empty text is ""), or leave the line out'
    elif kind in _REMEDIES:
        remedy = _REMEDIES[kind].format_map(context)
    else:
        remedy = fault["msg"].removeprefix("Value error, ")
    return Problem(path_of(place), _shown(value), remedy, line_of(document, place))


def _found(tree: Any, location: Place) -> Place | None:
    """pydantic's location as a place in the document, or None if nothing stands there."""
    place: Place = ()
    for part in location:
        if isinstance(tree, str | None) or part == "[key]":  # one text where a list may stand; the key itself
            break
        if isinstance(tree, Mapping) and part not in tree:
            return None
        tree = tree[part]
        place = (*place, part)
    return place


def _at(tree: Any, place: Place) -> Any:
    """What stands there; None if nothing does."""
    for part in place:
        tree = tree.get(part) if isinstance(tree, Mapping) else tree[part]
    return tree


def _shown(value: object) -> str:
    if isinstance(value, str):
        return short(value)
    if value is None:
        return ""
    return "a mapping" if isinstance(value, Mapping) else "a list"


def _unknown(place: Place, homes: Mapping[str, Home]) -> str:
    """What a key that does not exist at its place may be meant to be."""
    name = str(place[-1])
    above = next((part for part in reversed(place[:-1]) if isinstance(part, str)), "")
    here = _keys(homes[above].model)
    others = list(dict.fromkeys(home.words for home in homes.values() if name in _keys(home.model)))
    if near := difflib.get_close_matches(name, here, n=1, cutoff=0.8 if others else 0.6):
        return f"there is no such key: did you mean {near[0]}?"
    if others:
        return f"there is no such key here: it belongs {' or '.join(others)}"
    return f"there is no such key: write one of {', '.join(here)}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
