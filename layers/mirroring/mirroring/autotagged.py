"""What the autotagger holds on an instance, as the instance's own tags tell (decision 0009).

mirror:autotagged = "keys that stay mirror:until keys that go with it". Once mirror:until is past, or gone, it counts as
absent, and so do the keys that go with it: the sweep takes them off when it comes by.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from mirroring.model import AUTOTAGGED_TAG, UNTIL_TAG, Tags

SYSTEM_PREFIX, OWN_PREFIX = "aws:", "mirror:"
_DIVIDER = UNTIL_TAG  # no rule's key: the policy keeps the prefix mirror: for us, and takes no key with a space


@dataclass(frozen=True)
class Held:
    """Keys that are on the instance and ours."""

    stays: frozenset[str]
    goes: frozenset[str]  # with mirror:until


def held(tags: Tags) -> Held:
    """What the list says, as far as it can be true: a hand may have written it, or taken a tag off."""
    listed = tags.get(AUTOTAGGED_TAG, "").split()
    cut = listed.index(_DIVIDER) if _DIVIDER in listed else len(listed)
    ours = {key for key in listed if key in tags and not key.startswith((SYSTEM_PREFIX, OWN_PREFIX))}
    stays = ours & set(listed[:cut])
    return Held(frozenset(stays), frozenset(ours - stays))


def listing(stays: Iterable[str], goes: Iterable[str]) -> str:
    """The tag's value; empty if nothing is held."""
    last = sorted(goes)
    return " ".join([*sorted(stays), *([_DIVIDER, *last] if last else ())])


def longest(keys: Iterable[str]) -> int:
    """Characters of the tag's value that lists these keys, however they are divided."""
    return len(" ".join((_DIVIDER, *keys)))


def standing(tags: Tags, now: datetime) -> Tags:
    """The tags without what has expired; the same object if nothing has."""
    if UNTIL_TAG not in tags and AUTOTAGGED_TAG not in tags:
        return tags
    until = until_of(tags)
    if until is not None and until > now:
        return tags
    gone = held(tags).goes | ({UNTIL_TAG} & tags.keys())
    return {key: value for key, value in tags.items() if key not in gone} if gone else tags


def until_of(tags: Tags) -> datetime | None:
    """The moment that mirror:until names. What cannot be read has passed: a typing error must not last for ever."""
    try:
        moment = datetime.fromisoformat(tags.get(UNTIL_TAG, ""))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
