"""Whether a source is mirrored at a moment: the hours that its windows name, in their own time zones.

A window is a span between two instants for each of its days. A clock that is put forward or back moves the instants,
as it moves people: a time that a night skips is the one an hour later, of a time that comes twice the first counts.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from mirroring.policy import Window

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Days looked ahead. A week says all, but for a window that the change of the clocks leaves out once.
_AHEAD = 15

type Span = tuple[datetime, datetime]  # UTC; the end is outside


def is_open(windows: Sequence[Window], now: datetime) -> bool:
    """Whether one of the windows is open, or there are none."""
    return not windows or any(start <= now < end for window in windows for start, end in _spans(window, now, 1))


def next_change(windows: Sequence[Window], now: datetime) -> datetime | None:
    """When `is_open` changes next, in UTC; None if it does not within two weeks."""
    spans = sorted(span for window in windows for span in _spans(window, now, _AHEAD))
    if not is_open(windows, now):
        return next((start for start, _ in spans if start > now), None)
    end = now.astimezone(UTC)
    for start, stop in spans:
        if start <= end < stop:
            end = stop
    return end if now < end < now + timedelta(days=_AHEAD - 1) else None


def _spans(window: Window, now: datetime, ahead: int) -> Iterator[Span]:
    """Of the days from yesterday, whose window may still be open, to some days ahead."""
    zone = ZoneInfo(window.zone)
    today = now.astimezone(zone).date()
    overnight = timedelta(days=window.to <= window.from_)
    for day in (today + timedelta(days=number) for number in range(-1, ahead)):
        if _WEEKDAYS[day.weekday()] in window.days:
            start, end = _instant(day, window.from_, zone), _instant(day + overnight, window.to, zone)
            if start < end:
                yield start, end


def _instant(day: date, clock: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, clock, zone).astimezone(UTC)
