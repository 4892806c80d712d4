"""Properties of a resource against its CloudFormation schema, as the service checks them before it calls a provider.

The schemas are those that cfn-lint ships. CloudFormation takes a number or a truth value written as a string and the
other way round (https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-properties-template-resource.html),
so both pass here.

    python -m lab.cloud.schemas < cases.json   # [[type, properties], ...] in, [[fault, ...], ...] out
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator, ValidationError, validators  # type: ignore[import-untyped]

type Schema = Mapping[str, Any]

REGION = "eu-west-1"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_TRUTH = {True: "true", False: "false"}


def faults(kind: str, properties: Any) -> list[str]:
    """What CloudFormation would refuse, in words; nothing for good properties, and for types without a schema."""
    schema = _schema(kind)
    if schema is None:
        return []
    found = [_worded(error) for error in _checker()(schema).iter_errors(properties)]
    return sorted({*found, *_read_only(schema, properties)})


def replacing(kind: str) -> tuple[str, ...]:
    """Properties that can be given at creation only: another value means another resource."""
    return tuple(_names(_schema(kind) or {}, "createOnlyProperties"))


def types() -> frozenset[str]:
    """All types that there are in the Region."""
    return frozenset(_index())


def _names(schema: Schema, key: str) -> Iterator[str]:
    """Whole properties, not parts of one."""
    for pointer in schema.get(key, ()):
        name = pointer.removeprefix("/properties/")
        if "/" not in name:
            yield name


def _read_only(schema: Schema, properties: Any) -> Iterator[str]:
    """https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html"""
    for name in _names(schema, "readOnlyProperties"):
        if isinstance(properties, Mapping) and name in properties and name not in schema.get("required", ()):
            yield f"#/{name}: Encountered unsupported property: it is read-only"


def _worded(error: Any) -> str:
    path = "/".join(map(str, error.absolute_path))
    return f"#/{path}: {error.message}"


# Schemas


@cache
def _folder() -> Path:
    found = find_spec("cfnlint")
    if found is not None and found.submodule_search_locations:
        return Path(found.submodule_search_locations[0]) / "data/schemas"
    [folder] = Path(__file__).parents[2].glob(".venv/tools/emulator/lib/python3*/site-packages/cfnlint/data/schemas")
    return folder


@cache
def _index() -> dict[str, str]:
    index: dict[str, str] = json.loads((_folder() / f"providers/{REGION}.json").read_text())
    return index


@cache
def _schema(kind: str) -> Schema | None:
    name = _index().get(kind)
    if name is None:
        return None
    schema: Schema = json.loads((_folder() / f"resources/{name}.json").read_text())
    return schema


# Checks


@cache
def _checker() -> Any:
    kinds = Draft7Validator.TYPE_CHECKER.redefine_many(
        {
            "boolean": lambda _, value: isinstance(value, bool) or value in _TRUTH.values(),
            "integer": lambda _, value: _is_number(value) and float(value).is_integer(),
            "number": lambda _, value: _is_number(value),
            "string": lambda _, value: isinstance(value, str | int | float),
        }
    )
    keywords = {
        "enum": _enum,
        "enumCaseInsensitive": _enum_in_any_case,
        "exclusiveMaximum": _numeric("exclusiveMaximum"),
        "exclusiveMinimum": _numeric("exclusiveMinimum"),
        "maximum": _numeric("maximum"),
        "minimum": _numeric("minimum"),
        "pattern": _pattern,
    }
    return validators.extend(Draft7Validator, validators=keywords, type_checker=kinds)


def _is_number(value: object) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: object) -> str:
    return _TRUTH[value] if isinstance(value, bool) else str(value)


def _enum(_: Any, allowed: list[Any], value: Any, __: Schema) -> Iterator[Any]:
    if not isinstance(value, list | dict) and _text(value) not in map(_text, allowed):
        yield ValidationError(f"{value!r} is not one of {allowed!r}")


def _enum_in_any_case(_: Any, allowed: list[Any], value: Any, __: Schema) -> Iterator[Any]:
    if not isinstance(value, list | dict) and _text(value).lower() not in [_text(one).lower() for one in allowed]:
        yield ValidationError(f"{value!r} is not one of {allowed!r}")


def _numeric(keyword: str) -> Any:
    plain = Draft7Validator.VALIDATORS[keyword]

    def check(validator: Any, limit: Any, value: Any, schema: Schema) -> Iterator[Any]:
        if _is_number(value):
            for error in plain(validator, limit, float(value), schema) or ():
                error.message = f"{value!r} is outside the {keyword} of {limit!r}"
                yield error

    return check


def _pattern(_: Any, pattern: str, value: Any, __: Schema) -> Iterator[Any]:
    """Some patterns are Java's and no Python's: those cannot be checked here."""
    if isinstance(value, list | dict):
        return
    try:
        matched = re.search(pattern, _text(value))
    except re.error:
        return
    if not matched:
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def main() -> None:
    cases = json.load(sys.stdin)
    json.dump([faults(kind, properties) for kind, properties in cases], sys.stdout)


if __name__ == "__main__":
    main()
