"""Whether an instance is one that a match of the policy means: AND between keys, OR within a key.

A match is made into conditions once and asked of many instances; the same conditions say in words what does not hold.
Group and instance names take the wildcards `*` and `?` and no others: a bracket is a bracket.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import translate
from hashlib import sha256
from operator import attrgetter
from typing import Literal

from mirroring.autotagged import standing
from mirroring.model import Instance, group_of, name_of
from mirroring.policy import Match

_LISTED = 3  # values that a sentence names before it only counts them


@dataclass(frozen=True, slots=True)
class Condition:
    """One key of a match, ready to be asked."""

    holds: Callable[[Instance], bool]
    miss: Callable[[Instance], str]  # of an instance for which it does not hold: why, as a clause


def first_miss(conditions: Sequence[Condition], instance: Instance) -> Condition | None:
    for condition in conditions:
        if not condition.holds(instance):
            return condition
    return None


def conditions(match: Match) -> tuple[Condition, ...]:
    return (
        *(_tag(key, values) for key, values in match.tags.items()),
        *_listed("VPC", match.vpcs, attrgetter("vpc")),
        *_listed("subnet", match.subnets, attrgetter("subnet")),
        *_patterned("Auto Scaling group", match.groups, group_of),
        *_listed("id", match.instances, attrgetter("id")),
        *_patterned("name", match.names, name_of),
    )


def in_share(instance_id: str, share: float) -> bool:
    """Whether an instance is among the given per cent of all: a larger share holds those of a smaller one."""
    place = int.from_bytes(sha256(instance_id.encode()).digest()[:8])
    return place < share / 100 * 2**64


def current(instance: Instance, now: datetime) -> Instance:
    """The instance without the tags that have expired."""
    tags = standing(instance.tags, now)
    return instance if tags is instance.tags else replace(instance, tags=tags)


def _tag(key: str, values: tuple[str, ...] | Literal["*"]) -> Condition:
    absent = f"it has no tag {key}"
    if values == "*":
        return Condition(lambda instance: key in instance.tags, lambda _: absent)
    wanted = frozenset(values)
    listed = _any_of([_quoted(value) for value in values])

    def miss(instance: Instance) -> str:
        actual = instance.tags.get(key)
        return absent if actual is None else f"its tag {key} is {_quoted(actual)}, not {listed}"

    return Condition(lambda instance: instance.tags.get(key) in wanted, miss)


def _listed(what: str, ids: tuple[str, ...], read: Callable[[Instance], str]) -> Iterable[Condition]:
    if ids:
        wanted = frozenset(ids)
        listed = _any_of(ids)
        yield Condition(
            lambda instance: read(instance) in wanted,
            lambda instance: f"its {what} is {read(instance)}, not {listed}",
        )


def _patterned(what: str, patterns: tuple[str, ...], read: Callable[[Instance], str]) -> Iterable[Condition]:
    """An instance without a group, or without a name, matches no pattern, not even `*`."""
    if patterns:
        matched = re.compile("|".join(translate(pattern.replace("[", "[[]")) for pattern in patterns)).match
        listed = _any_of([_quoted(pattern) for pattern in patterns])

        def miss(instance: Instance) -> str:
            actual = read(instance)
            return f"its {what} is {_quoted(actual)}, not {listed}" if actual else f"it has no {what}"

        yield Condition(lambda instance: bool(actual := read(instance)) and matched(actual) is not None, miss)


def _any_of(values: Sequence[str]) -> str:
    return " or ".join(values) if len(values) <= _LISTED else f"one of the {len(values)} listed"


def _quoted(value: str) -> str:
    return f'"{value}"'
