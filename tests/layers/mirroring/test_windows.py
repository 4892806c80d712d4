"""Windows: hours of days in time zones, over midnight and over the change of the clocks."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mirroring.policy import Window
from mirroring.windows import is_open, next_change

BERLIN = ZoneInfo("Europe/Berlin")


def window(start: str, end: str, days: str = "mon tue wed thu fri sat sun", zone: str = "UTC") -> Window:
    return Window.model_validate({"from": start, "to": end, "days": days.split(), "zone": zone}, by_alias=True)


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def test_without_windows_it_is_always_open() -> None:
    assert is_open((), at("2026-11-23T00:00"))
    assert next_change((), at("2026-11-23T00:00")) is None


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        ("2026-11-23T08:59:59", False),  # a Monday
        ("2026-11-23T09:00:00", True),
        ("2026-11-23T17:29:59", True),
        ("2026-11-23T17:30:00", False),
        ("2026-11-22T12:00:00", False),  # a Sunday
    ],
)
def test_office_hours(now: str, open_: bool) -> None:
    hours = window("09:00", "17:30", "mon tue wed thu fri")
    assert is_open([hours], at(now)) is open_


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        ("2026-11-27T21:59", False),  # a Friday
        ("2026-11-27T22:00", True),
        ("2026-11-28T05:59", True),  # Saturday morning: the Friday's window
        ("2026-11-28T06:00", False),
        ("2026-11-28T22:00", False),
        ("2026-11-27T03:00", False),  # Friday morning would be the Thursday's
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_it_starts_on(now: str, open_: bool) -> None:
    assert is_open([window("22:00", "06:00", "fri")], at(now)) is open_


def test_a_day_from_midnight_to_midnight() -> None:
    sunday = window("00:00", "24:00", "sun")
    assert not is_open([sunday], at("2026-11-21T23:59"))
    assert is_open([sunday], at("2026-11-22T00:00"))
    assert is_open([sunday], at("2026-11-22T23:59"))
    assert not is_open([sunday], at("2026-11-23T00:00"))
    assert sunday == window("00:00", "00:00", "sun")


def test_the_zone_counts() -> None:
    hours = window("09:00", "17:00", zone="Europe/Berlin")
    assert is_open([hours], at("2026-07-01T07:00"))  # UTC+2 in summer
    assert not is_open([hours], at("2026-12-01T07:00"))  # UTC+1 in winter
    assert is_open([hours], at("2026-12-01T17:00", "Asia/Tokyo"))


def test_the_change_of_the_clocks_moves_instants_as_it_moves_people() -> None:
    night = window("01:30", "03:30", zone="Europe/Berlin")
    spring = at("2026-03-29T00:30")  # 01:30 in Berlin; at 02:00 it becomes 03:00
    assert is_open([night], spring)
    assert next_change([night], spring) == at("2026-03-29T01:30")  # one hour, 03:30 summer time
    autumn = at("2026-10-24T23:30")  # 01:30 in Berlin; at 03:00 it becomes 02:00
    assert next_change([night], autumn) == at("2026-10-25T02:30")  # three hours


def test_a_time_that_the_night_skips_is_an_hour_later() -> None:
    assert next_change([window("02:15", "06:00", zone="Europe/Berlin")], at("2026-03-28T12:00")) == at(
        "2026-03-29T01:15"  # 03:15 summer time
    )


def test_a_window_that_the_night_leaves_nothing_of_does_not_open() -> None:
    skipped = window("02:30", "03:15", "sun", "Europe/Berlin")
    assert not is_open([skipped], at("2026-03-29T01:20"))
    assert next_change([skipped], at("2026-03-28T12:00")) == datetime(2026, 4, 5, 2, 30, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ("2026-11-23T08:00", "2026-11-23T09:00"),
        ("2026-11-23T09:00", "2026-11-23T18:00"),  # two windows that meet are one
        ("2026-11-23T12:00", "2026-11-23T18:00"),
        ("2026-11-23T18:00", "2026-11-24T09:00"),
        ("2026-11-27T18:00", "2026-11-30T09:00"),  # over the weekend
    ],
)
def test_the_next_change(now: str, change: str) -> None:
    days = "mon tue wed thu fri"
    hours = [window("12:00", "18:00", days), window("09:00", "12:00", days), window("10:00", "11:00", days)]
    assert next_change(hours, at(now)) == at(change)


def test_what_is_open_round_the_clock_does_not_change() -> None:
    assert next_change([window("06:00", "06:00")], at("2026-11-23T08:00")) is None


def test_what_is_open_for_a_week_but_one_hour_changes() -> None:
    hours = [window("00:00", "24:00", "mon tue wed thu fri sat"), window("00:00", "23:00", "sun")]
    assert next_change(hours, at("2026-11-23T00:00")) == at("2026-11-29T23:00")


times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30, 59]))
windows = st.builds(
    Window,
    days=st.lists(st.sampled_from("mon tue wed thu fri sat sun".split()), min_size=1, unique=True).map(tuple),
    from_=times,
    to=times,
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Kiritimati"]),
)
moments = st.integers(0, 365 * 24 * 60).map(lambda minute: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute))


@given(st.lists(windows, min_size=1, max_size=3), moments, st.integers(0, 999))
@settings(max_examples=200)
def test_nothing_changes_before_the_next_change(hours: list[Window], now: datetime, part: int) -> None:
    change = next_change(hours, now)
    until = change or now + timedelta(days=13)
    assert until > now
    assert is_open(hours, now + (until - now) * part / 1000) is is_open(hours, now)
    assert is_open(hours, until) is (is_open(hours, now) if change is None else not is_open(hours, now))


@given(windows, moments)
@settings(max_examples=100)
def test_a_window_is_what_a_clock_on_the_wall_says(hours: Window, now: datetime) -> None:
    """Where the clocks do not change on the days around."""
    zone = ZoneInfo(hours.zone)
    local = now.astimezone(zone)
    assume(len({(now + timedelta(days=days)).astimezone(zone).utcoffset() for days in (-2, -1, 0, 1, 2)}) == 1)
    names = "mon tue wed thu fri sat sun".split()
    today, yesterday = names[local.weekday()], names[local.weekday() - 1]
    clock = local.time()
    if hours.from_ < hours.to:
        expected = today in hours.days and hours.from_ <= clock < hours.to
    else:
        started, ending = today in hours.days and clock >= hours.from_, yesterday in hours.days and clock < hours.to
        expected = started or ending
    assert is_open([hours], now) is expected
