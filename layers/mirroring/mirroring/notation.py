"""How the values of a policy are written: each type takes the text of a document, or a Python value, and says what to
write instead if it cannot.

A document's scalars are text (see `document`), so that these types decide what is a number, a word or a time. Where a
list may stand, one value may stand alone.
"""

import difflib
import re
import zoneinfo
from collections.abc import Collection, Sized
from datetime import time, timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    ValidatorFunctionWrapHandler,
)
from pydantic_core import CoreSchema, core_schema

from mirroring.autotagged import OWN_PREFIX, SYSTEM_PREFIX
from mirroring.model import AUTOTAGGED_TAG, TAG_KEY_LENGTH, TAG_VALUE_LENGTH

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_UNITS = {"m": 60, "h": 3600, "d": 86400}
_CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029]")
_LONGEST_KEEP = timedelta(days=90)


def _whole(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,9})", value):
        return int(value)
    if type(value) is not int:
        raise ValueError("write a whole number in plain digits, without leading zeros")
    return value


def _number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]{1,9})?", value):
        return float(value)
    if type(value) not in (int, float):
        raise ValueError("write a number, such as 12.5")
    return value


def _per_cent(value: object) -> object:
    return _number(value.removesuffix("%").rstrip() if isinstance(value, str) else value)


def _yes_or_no(value: object) -> object:
    known = _WORDS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(known, bool):
        raise ValueError("write true or false")
    return known


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _line(value: str) -> str:
    """Text as a tag holds it. A folded block ends with a line break that nobody means."""
    value = value.strip()
    if _CONTROLS.search(value):
        raise ValueError("write it in one line, without control characters")
    if len(value) > TAG_VALUE_LENGTH:
        raise ValueError(f"write at most {TAG_VALUE_LENGTH} characters: a tag holds it")
    return value


def _some[T: Sized](value: T) -> T:
    """After all else, where pydantic's own `min_length` counts only what is valid."""
    if not value:
        raise ValueError("write at least one, or leave the key out")
    return value


def _tag_key(value: str) -> str:
    if not 0 < len(value) <= TAG_KEY_LENGTH or _CONTROLS.search(value):
        raise ValueError(f"write a tag key of 1 to {TAG_KEY_LENGTH} characters, without control characters")
    return value


def _own_tag_key(value: str) -> str:
    if value.lower().startswith((SYSTEM_PREFIX, OWN_PREFIX)):
        raise ValueError("tags that begin with aws: are AWS's, with mirror: this stack's: choose another key")
    if value.split() != [value]:
        raise ValueError(f"choose a tag key without spaces: the tag {AUTOTAGGED_TAG} lists them")
    return value


def _tag_value(value: str) -> str:
    if len(value) > TAG_VALUE_LENGTH or _CONTROLS.search(value):
        raise ValueError(f"write a tag value of at most {TAG_VALUE_LENGTH} characters, without control characters")
    return value


def _exact(value: str) -> str:
    if value == "*":
        raise ValueError('values in a list are exact: for any value write "*" alone, without a list')
    return value


def _pattern(value: str) -> str:
    if not (0 < len(value) <= TAG_VALUE_LENGTH):
        raise ValueError(f"write a name of 1 to {TAG_VALUE_LENGTH} characters; * and ? stand for any")
    return value


def _time(value: object) -> object:
    found = re.fullmatch(r"([01]?[0-9]|2[0-3]):([0-5][0-9])", value) if isinstance(value, str) else None
    if found:
        return time(int(found[1]), int(found[2]))
    if type(value) is not time:
        raise ValueError('write hours and minutes, in quotes: "09:00"')
    return value


def _end(value: object) -> object:
    """24:00 ends a day as 00:00 does: an end that is not after its start is on the next day."""
    return time(0) if value == "24:00" else _time(value)


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(value, zoneinfo.available_timezones(), n=1)
        meant = f"did you mean {near[0]}?" if near else "such as Europe/Berlin, America/New_York or UTC"
        raise ValueError(f"write the name of an IANA time zone: {meant}") from None
    return value


def _span(value: object) -> object:
    found = re.fullmatch(r"([1-9][0-9]{0,5}) ?([mhd])", value) if isinstance(value, str) else None
    span = timedelta(seconds=int(found[1]) * _UNITS[found[2]]) if found else value
    if not isinstance(span, timedelta) or not timedelta(0) < span <= _LONGEST_KEEP:
        raise ValueError(f"write a time of at most {_LONGEST_KEEP.days} days, such as 90m, 24h or 7d")
    return span


def _shaped(pattern: str, remedy: str) -> AfterValidator:
    shape = re.compile(pattern)

    def check(value: str) -> str:
        if shape.fullmatch(value) is None:
            raise ValueError(remedy)
        return value

    return AfterValidator(check)


def _id(prefix: str, what: str) -> AfterValidator:
    """Lenient: what the prefix is followed by is AWS's business, and has changed before."""
    sample = f"{prefix.split('|')[0]}-0a1b2c3d4e5f60718"
    return _shaped(f"({prefix})-[0-9a-z]{{1,32}}", f"write the id of {what}, such as {sample}")


def _or(word: Collection[str], items: Any) -> GetPydanticSchema:
    """A word, or a list. A plain union would tell of every fault twice, under names that no document holds."""

    def build(_: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def check(value: object, rest: ValidatorFunctionWrapHandler) -> object:
            return value if isinstance(value, str) and value in word else rest(value)

        unchanged = core_schema.plain_serializer_function_ser_schema(lambda value: value)
        return core_schema.no_info_wrap_validator_function(check, handler(items), serialization=unchanged)

    return GetPydanticSchema(build)


def _interfaces(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("write primary, all, or a list of device indexes: [0, 1]")
    return value


type Some[T: Sized] = Annotated[T, AfterValidator(_some)]
type Several[T] = Annotated[tuple[T, ...], BeforeValidator(_one_or_more), AfterValidator(_some)]

type Whole = Annotated[int, BeforeValidator(_whole)]
type Number = Annotated[float, BeforeValidator(_number)]
type Flag = Annotated[bool, BeforeValidator(_yes_or_no)]
type Line = Annotated[str, AfterValidator(_line)]
type Name = Annotated[
    str,
    _shaped(
        r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        "write a name of at most 64 letters, digits, dots, dashes and underscores, the first a letter or digit",
    ),
]
type VpcId = Annotated[str, _id("vpc", "a VPC")]
type SubnetId = Annotated[str, _id("subnet", "a subnet")]
type InstanceId = Annotated[str, _id("i", "an instance")]
type TargetId = Annotated[str, _id("tmt|traf-mir-tar", "a mirror target")]  # the second forms are moto's
type FilterId = Annotated[str, _id("tmf|traf-mir-fil", "a mirror filter")]
type Pattern = Annotated[str, AfterValidator(_pattern)]
type TagKey = Annotated[str, AfterValidator(_tag_key)]
type OwnTagKey = Annotated[TagKey, AfterValidator(_own_tag_key)]
type TagValue = Annotated[str, AfterValidator(_tag_value)]
type ExactValue = Annotated[TagValue, AfterValidator(_exact)]
type TagValues = Annotated[tuple[str, ...] | Literal["*"], _or(("*",), Several[ExactValue])]
type DeviceIndex = Annotated[Whole, Field(ge=0, le=99)]
type Interfaces = Annotated[
    Literal["primary", "all"] | tuple[int, ...],
    _or(("primary", "all"), Annotated[Some[tuple[DeviceIndex, ...]], BeforeValidator(_interfaces)]),
]
type Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
type Time = Annotated[time, BeforeValidator(_time)]
type EndTime = Annotated[time, BeforeValidator(_end)]
type Zone = Annotated[str, AfterValidator(_zone)]
type Span = Annotated[timedelta, BeforeValidator(_span)]
type PerCent = Annotated[float, BeforeValidator(_per_cent), Field(gt=0, le=100)]
type Version = Annotated[Literal[1], BeforeValidator(_whole)]
