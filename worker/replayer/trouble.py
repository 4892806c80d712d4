"""Destinations' trouble as news: when it begins, what else it turns out to be, when it has ended.

A destination with one address that works and one that does not may be in trouble and out of it many times a second. So
an end is believed once there was no trouble for QUIET seconds, and until then each kind of trouble is told once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

QUIET = 10.0  # also between two lines about one destination
KINDS_MOST = 8  # that are told of one trouble


@dataclass(slots=True)
class _Story:
    """What was told of one destination since all was well."""

    told: list[str] = field(default_factory=list)
    told_at: float = float("-inf")
    seen_at: float = float("-inf")  # trouble, last


class Watch:
    """Turns readings into news."""

    def __init__(self) -> None:
        self.last: dict[str, str] = {}  # trouble of every destination that had one, also if it has ended
        self._stories: dict[str, _Story] = {}

    def look(self, destinations: Iterable[str], troubles: Mapping[str, str], now: float) -> list[tuple[str, str]]:
        """The news: destinations, each with its trouble, or with nothing if that has ended."""
        self.last.update(troubles)
        self._stories = {url: self._stories.get(url) or _Story() for url in destinations}
        told = ((url, _tell(story, troubles.get(url, ""), now)) for url, story in self._stories.items())
        return [(url, news) for url, news in told if news is not None]


def _tell(story: _Story, trouble: str, now: float) -> str | None:
    if trouble:
        story.seen_at = now
    if now - story.told_at < QUIET:
        return None
    if trouble and trouble not in story.told and len(story.told) < KINDS_MOST:
        story.told.append(trouble)
    elif not trouble and story.told and now - story.seen_at >= QUIET:
        story.told.clear()
    else:
        return None
    story.told_at = now
    return trouble
