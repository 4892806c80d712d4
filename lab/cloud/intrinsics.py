"""What CloudFormation makes of a template's conditions, functions and references, for given parameters.

Two passes over a template that SAM has expanded. `settle` decides: resources and outputs whose condition is false go,
`Fn::If` becomes one of its branches, `AWS::NoValue` takes its key or list item along. `Substitution` then puts values
in for what is left. Anything that it does not know is an error, never text that stays.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

type Node = Any

ZONES = "abc"
_PIECE = re.compile(r"\$\{(!?)\s*([^}]*?)\s*\}")
_NOTHING = object()


class TemplateError(Exception):
    """CloudFormation would refuse this template, or it uses what this module does not know."""


def function(node: Node) -> tuple[str, Node] | None:
    """The name and the argument of an intrinsic function, or None where a node is plain data."""
    if isinstance(node, dict) and len(node) == 1:
        ((name, argument),) = node.items()
        if name in ("Ref", "Condition") or name.startswith("Fn::"):
            return name, argument
    return None


def pieces(text: str) -> Iterator[tuple[str, str | None]]:
    """`Fn::Sub`'s text in turns: plain words, and the name of what follows them (None at the end)."""
    last = 0
    plain = ""
    for match in _PIECE.finditer(text):
        plain += text[last : match.start()]
        last = match.end()
        if match[1]:  # ${!NAME} stands for ${NAME}
            plain += f"${{{match[2]}}}"
            continue
        yield plain, match[2]
        plain = ""
    yield plain + text[last:], None


def references(node: Node) -> Iterator[str]:
    """Names that a node refers to, parameters and pseudo parameters too."""
    match function(node):
        case ("Ref", str(name)):
            yield name
        case ("Fn::GetAtt", str(name)):
            yield name.split(".")[0]
        case ("Fn::GetAtt", [str(name), *_]):
            yield name
        case ("Fn::Sub", str(text)):
            yield from (name.split(".")[0] for _, name in pieces(text) if name)
        case ("Fn::Sub", [str(text), dict(extra)]):
            yield from (name.split(".")[0] for _, name in pieces(text) if name and name not in extra)
            yield from references(extra)
        case _ if isinstance(node, dict):
            for value in node.values():
                yield from references(value)
        case _ if isinstance(node, list):
            for value in node:
                yield from references(value)


@dataclass
class Substitution:
    """Values in the place of functions.

    `look_up(name, attribute)` answers for everything with a name; attribute is None for `Ref`.
    """

    look_up: Callable[[str, str | None], Node]
    mappings: Mapping[str, Any] = field(default_factory=dict)
    region: str = "eu-west-1"

    def of(self, node: Node) -> Node:
        called = function(node)
        if called is None:
            if isinstance(node, dict):
                return {key: self.of(value) for key, value in node.items()}
            return [self.of(value) for value in node] if isinstance(node, list) else node
        return self._call(*called)

    def _call(self, name: str, argument: Node) -> Node:
        match name, argument:
            case "Ref", str(target):
                return self.look_up(target, None)
            case "Fn::GetAtt", str(target):
                return self.look_up(*target.split(".", 1))
            case "Fn::GetAtt", [str(target), attribute]:
                return self.look_up(target, self._text(attribute))
            case "Fn::Sub", str(text):
                return self._sub(text, {})
            case "Fn::Sub", [str(text), dict(extra)]:
                return self._sub(text, {key: self._text(value) for key, value in extra.items()})
            case "Fn::Join", [str(between), items]:
                return between.join(self._text(item) for item in self._list(items))
            case "Fn::Split", [str(between), text]:
                return self._text(text).split(between)
            case "Fn::Select", [index, items]:
                return self._select(int(self._text(index)), self._list(items))
            case "Fn::FindInMap", [table, first, second]:
                return self._find(*(self._text(part) for part in (table, first, second)))
            case "Fn::GetAZs", region:
                return [(self._text(region) or self.region) + zone for zone in ZONES]
            case "Fn::Base64", text:  # what an instance reads is what a test wants to read
                return self._text(text)
            case "Fn::Cidr", [block, count, *bits]:
                return self._cidr(self._text(block), int(self._text(count)), *(int(self._text(bit)) for bit in bits))
        raise TemplateError(f"{name} of {argument!r}")

    def _text(self, node: Node) -> str:
        value = self.of(node)
        if isinstance(value, bool):
            return str(value).lower()
        if not isinstance(value, str | int | float):
            raise TemplateError(f"{node!r} is {value!r}, where text is needed")
        return str(value)

    def _list(self, node: Node) -> list[Any]:
        value = self.of(node)
        if not isinstance(value, list):
            raise TemplateError(f"{node!r} is {value!r}, where a list is needed")
        return value

    def _sub(self, text: str, extra: Mapping[str, str]) -> str:
        made = ""
        for plain, name in pieces(text):
            made += plain
            if name is not None:
                made += extra[name] if name in extra else self._named(name)
        return made

    def _named(self, name: str) -> str:
        target, dot, attribute = name.partition(".")
        return self._text({"Fn::GetAtt": [target, attribute]} if dot else {"Ref": target})

    def _select(self, index: int, items: list[Any]) -> Node:
        if not 0 <= index < len(items):
            raise TemplateError(f"Fn::Select of item {index} from {items!r}")
        return items[index]

    def _find(self, table: str, first: str, second: str) -> Node:
        try:
            return self.mappings[table][first][second]
        except KeyError as missing:
            raise TemplateError(f"Fn::FindInMap: {table}, {first}, {second}: no {missing}") from None

    def _cidr(self, block: str, count: int, bits: int = 8) -> list[str]:
        """`bits` are the host's: the inverse of a mask."""
        network = ipaddress.ip_network(block)
        subnets = network.subnets(new_prefix=network.max_prefixlen - bits)
        return [str(subnet) for subnet, _ in zip(subnets, range(count), strict=False)]


@dataclass
class Conditions:
    """A template's conditions by name, each decided once."""

    definitions: Mapping[str, Node]
    substitution: Substitution
    _known: dict[str, bool | None] = field(default_factory=dict)

    def holds(self, name: str) -> bool:
        if name not in self.definitions:
            raise TemplateError(f"no condition {name}")
        if name not in self._known:
            self._known[name] = None
            self._known[name] = self.decide(self.definitions[name])
        known = self._known[name]
        if known is None:
            raise TemplateError(f"condition {name} leads to itself")
        return known

    def decide(self, node: Node) -> bool:
        match function(node):
            case ("Condition", str(name)):
                return self.holds(name)
            case ("Fn::Equals", [left, right]):
                return bool(_plain(self.substitution.of(left)) == _plain(self.substitution.of(right)))
            case ("Fn::Not", [part]):
                return not self.decide(part)
            case ("Fn::And", [_, _, *_] as parts):
                return all(self.decide(part) for part in parts)
            case ("Fn::Or", [_, _, *_] as parts):
                return any(self.decide(part) for part in parts)
        raise TemplateError(f"{node!r} is no condition")


def _plain(value: Node) -> Node:
    """CloudFormation compares text: a number or a truth value in a template is the text that a parameter would be."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def settle(node: Node, conditions: Conditions) -> Node:
    """`node` with every `Fn::If` decided and every `AWS::NoValue` gone."""
    settled = _settle(node, conditions)
    return None if settled is _NOTHING else settled


def _settle(node: Node, conditions: Conditions) -> Node:
    match function(node):
        case ("Fn::If", [str(name), then, otherwise]):
            return _settle(then if conditions.holds(name) else otherwise, conditions)
        case ("Ref", "AWS::NoValue"):
            return _NOTHING
    if isinstance(node, dict):
        pairs = ((key, _settle(value, conditions)) for key, value in node.items())
        return {key: value for key, value in pairs if value is not _NOTHING}
    if isinstance(node, list):
        return [value for value in (_settle(item, conditions) for item in node) if value is not _NOTHING]
    return node
