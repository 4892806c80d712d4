"""Values: what each kind takes, and what it says to write instead of all else."""

from datetime import time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mirroring import notation
from mirroring.notation import (
    EndTime,
    ExactValue,
    FilterId,
    Flag,
    InstanceId,
    Interfaces,
    Line,
    Name,
    Number,
    OwnTagKey,
    Pattern,
    PerCent,
    Several,
    Some,
    Span,
    SubnetId,
    TagKey,
    TagValue,
    TagValues,
    TargetId,
    Time,
    Version,
    VpcId,
    Whole,
    Zone,
)

LONG = "x" * 257


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (Whole, "100", 100),
        (Whole, "0", 0),
        (Whole, "-3", -3),
        (Whole, 7, 7),
        (Number, "12.5", 12.5),
        (Number, "-1", -1.0),
        (Number, 3, 3.0),
        (PerCent, "10", 10.0),
        (PerCent, "0.5%", 0.5),
        (PerCent, "10 %", 10.0),
        (PerCent, 100, 100.0),
        (Flag, "true", True),
        (Flag, "Yes", True),
        (Flag, "on", True),
        (Flag, "FALSE", False),
        (Flag, "no", False),
        (Flag, "off", False),
        (Flag, True, True),
        (Version, "1", 1),
        (Line, "a folded block\n", "a folded block"),
        (Line, "", ""),
        (Name, "web.prod-1_x", "web.prod-1_x"),
        (VpcId, "vpc-0a1b2c3d4e5f60718", "vpc-0a1b2c3d4e5f60718"),
        (SubnetId, "subnet-1a2b3c4d", "subnet-1a2b3c4d"),
        (InstanceId, "i-0a1b2c3d4e5f60718", "i-0a1b2c3d4e5f60718"),
        (TargetId, "tmt-0a1b", "tmt-0a1b"),
        (TargetId, "traf-mir-tar-0a1b", "traf-mir-tar-0a1b"),
        (FilterId, "tmf-0a1b", "tmf-0a1b"),
        (FilterId, "traf-mir-fil-0a1b", "traf-mir-fil-0a1b"),
        (Pattern, "web-*-?", "web-*-?"),
        (TagKey, "aws:autoscaling:groupName", "aws:autoscaling:groupName"),
        (TagKey, "x" * 128, "x" * 128),
        (OwnTagKey, "Mirrored", "Mirrored"),
        (TagValue, "", ""),
        (TagValue, "*", "*"),
        (TagValue, "Größe 🐘", "Größe 🐘"),
        (TagValues, "*", "*"),
        (TagValues, "prod", ("prod",)),
        (TagValues, "", ("",)),
        (TagValues, ["prod", "0 8 * * *"], ("prod", "0 8 * * *")),
        (Interfaces, "primary", "primary"),
        (Interfaces, "all", "all"),
        (Interfaces, ["0", "1"], (0, 1)),
        (Several[VpcId], "vpc-1", ("vpc-1",)),
        (Several[VpcId], ("vpc-1", "vpc-2"), ("vpc-1", "vpc-2")),
        (Time, "09:00", time(9)),
        (Time, "9:05", time(9, 5)),
        (Time, "23:59", time(23, 59)),
        (Time, time(7), time(7)),
        (EndTime, "24:00", time(0)),
        (EndTime, "00:00", time(0)),
        (Zone, "Europe/Berlin", "Europe/Berlin"),
        (Zone, "UTC", "UTC"),
        (Span, "90m", timedelta(minutes=90)),
        (Span, "24h", timedelta(days=1)),
        (Span, "7 d", timedelta(days=7)),
        (Span, "90d", timedelta(days=90)),
        (Span, timedelta(hours=1), timedelta(hours=1)),
    ],
)
def test_what_is_taken(kind: Any, written: Any, value: Any) -> None:
    taken = TypeAdapter(kind).validate_python(written)
    assert (taken, type(taken)) == (value, type(value))


def each(kind: Any, remedy: str, *written: Any) -> list[tuple[Any, Any, str]]:
    return [(kind, value, remedy) for value in written]


@pytest.mark.parametrize(
    ("kind", "written", "remedy"),
    [
        *each(Whole, "plain digits", "010", "1_000", "0x10", "1.0", "1e3", "", "٣", "9" * 5000),
        *each(Whole, "plain digits", True, 1.0, [], "+1"),
        *each(Number, "such as 12.5", "1e2", ".5", "nan", "inf", "", "1,5", True, {}),
        *each(PerCent, "such as 12.5", "ten", "%", []),
        (PerCent, "0", "greater than 0"),
        (PerCent, "100.1", "less than or equal to 100"),
        *each(Flag, "true or false", "1", "y", "", 1, [], None),
        (Version, "2", "should be 1"),
        (Line, "two\nlines", "one line"),
        (Line, "bell\a", "one line"),
        (Line, LONG, "at most 256"),
        *each(Name, "at most 64 letters", "", "-x", "a b", "x" * 65, "ä", "a\n"),
        *each(VpcId, "vpc-0a1b2c3d4e5f60718", "vpc-", "VPC-1", "subnet-1", "vpc-1\n", "<X>"),
        (SubnetId, "vpc-1", "subnet-0a1b"),
        (InstanceId, "eni-1", "i-0a1b"),
        (TargetId, "tmf-1", "tmt-0a1b"),
        (FilterId, "tmt-1", "tmf-0a1b"),
        (Pattern, "", "1 to 256"),
        (Pattern, LONG, "1 to 256"),
        *each(TagKey, "1 to 128 characters", "", "x" * 129, "a\tb"),
        *each(OwnTagKey, "choose another key", "aws:x", "AWS:x", "mirror:until", "Mirror:x"),
        *each(OwnTagKey, "without spaces", "a b"),
        (TagValue, LONG, "at most 256"),
        (TagValue, "a\0", "control character"),
        (ExactValue, "*", "without a list"),
        (TagValues, ["*"], "without a list"),
        (TagValues, [], "at least one"),
        *each(Interfaces, "primary, all, or a list", "first", "0", "*", ""),
        (Interfaces, ["-1"], "greater than or equal to 0"),
        (Interfaces, ["100"], "less than or equal to 99"),
        (Interfaces, [], "at least one"),
        (Several[VpcId], [], "at least one"),
        (Some[dict[str, str]], {}, "at least one"),
        *each(Time, '"09:00"', "540", "24:00", "12:60", "noon", "9", "", None),
        (EndTime, "24:01", '"09:00"'),
        (Zone, "Europe/Berln", "did you mean Europe/Berlin?"),
        (Zone, "europe/berlin", "IANA time zone"),
        *each(Zone, "such as Europe/Berlin", "", "///", "zzzzzzzz", "\0", LONG, "x" * 5000),
        *each(Zone, "IANA time zone", "../UTC", "Europe", "/etc/localtime"),
        *each(Span, "90m, 24h or 7d", "24", "1w", "0h", "91d", "1.5h", "", None, timedelta(0)),
    ],
)
def test_what_is_refused(kind: Any, written: Any, remedy: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TypeAdapter(kind).validate_python(written)
    (fault,) = raised.value.errors()
    assert remedy in fault["msg"]


def test_a_word_or_a_list_is_written_as_it_was_taken() -> None:
    for written in ("*", ("a", "b")):
        adapter: TypeAdapter[Any] = TypeAdapter(TagValues)
        assert adapter.dump_python(adapter.validate_python(written), warnings="error") == written


KINDS = [kind for name, kind in vars(notation).items() if isinstance(kind, type(Whole)) and not kind.__type_params__]
VALUES = st.none() | st.text() | st.lists(st.text(), max_size=2) | st.dictionaries(st.text(), st.text(), max_size=2)


@given(st.sampled_from(KINDS), VALUES)
def test_no_value_is_too_strange(kind: Any, value: Any) -> None:
    """It is taken, and then taken again as it is, or refused."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    try:
        taken = adapter.validate_python(value)
    except ValidationError:
        return
    assert adapter.validate_python(taken) == taken
