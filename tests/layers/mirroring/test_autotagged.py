"""What the autotagger holds on an instance, read from its tags; and what is left of them when its time is over."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.autotagged import Held, held, listing, longest, standing, until_of
from mirroring.model import AUTOTAGGED_TAG, UNTIL_TAG

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PAST, AHEAD = "2026-11-23T07:00:00Z", "2026-11-23T09:00:00Z"
KEYS = st.sets(st.text("abc:/", min_size=1, max_size=3), max_size=6)


@given(KEYS, KEYS)
def test_what_is_listed_is_held(stays: set[str], goes: set[str]) -> None:
    goes -= stays
    tags = dict.fromkeys(stays | goes, "") | {AUTOTAGGED_TAG: listing(stays, goes)}
    assert held(tags) == Held(frozenset(stays), frozenset(goes))


@given(KEYS, KEYS)
def test_no_list_of_the_same_keys_is_longer(stays: set[str], goes: set[str]) -> None:
    goes -= stays
    assert len(listing(stays, goes)) <= longest(stays | goes)
    assert len(listing((), stays | goes)) in (0, longest(stays | goes))


def test_the_format() -> None:
    """That of the tags which are on instances already."""
    assert listing({"team", "env"}, {"suspect"}) == f"env team {UNTIL_TAG} suspect"
    assert listing({"env"}, ()) == "env"
    assert listing((), {"suspect"}) == f"{UNTIL_TAG} suspect"
    assert listing((), ()) == ""


def test_what_a_hand_wrote_into_the_list_is_held_only_if_it_can_be() -> None:
    tags = {"env": "", "aws:x": "", "mirror:opt-out": "", "both": ""}
    listed = f"env both aws:x gone {UNTIL_TAG} both mirror:opt-out gone {UNTIL_TAG}"
    assert held({**tags, AUTOTAGGED_TAG: listed}) == Held(frozenset({"env", "both"}), frozenset())


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T08:00:00Z", NOW),
        ("2026-11-23T09:00:00+01:00", NOW),
        ("2026-11-23T08:00:00", NOW),  # without a zone: UTC
        ("tomorrow", None),
        ("", None),
    ],
)
def test_reads_an_expiry(text: str, moment: datetime | None) -> None:
    assert until_of({UNTIL_TAG: text}) == moment


@pytest.mark.parametrize(
    ("until", "stands"),
    [
        ("2026-11-23T08:00:01Z", True),
        ("2026-11-23T08:00:00Z", False),
        ("2026-11-23T07:59:59Z", False),
        ("2026-11-23T09:00:01+01:00", True),
        ("2026-11-23T09:00:00+01:00", False),
        ("2026-11-23T08:30:00", True),
        ("2026-11-23", False),
        ("9999-12-31T23:59:59-23:59", True),
        ("0001-01-01T00:00:00+23:59", False),
        ("tomorrow", False),
        ("", False),
    ],
)
def test_until(until: str, stands: bool) -> None:
    tags = {"app": "web", UNTIL_TAG: until}
    assert standing(tags, NOW) == (tags if stands else {"app": "web"})


@pytest.mark.parametrize(
    "tags", [{"app": "web"}, {"app": "web", AUTOTAGGED_TAG: "app"}, {"app": "web", UNTIL_TAG: AHEAD}]
)
def test_tags_of_which_none_has_expired_are_the_same_object(tags: dict[str, str]) -> None:
    assert standing(tags, NOW) is tags


def test_what_was_put_on_until_then_goes_with_it() -> None:
    """A key that is on both sides stays."""
    listed = f"app {UNTIL_TAG} suspect mirror app"
    tags = {"app": "web", "mirror": "yes", "suspect": "yes", UNTIL_TAG: PAST, AUTOTAGGED_TAG: listed}
    assert standing(tags, NOW) == {"app": "web", AUTOTAGGED_TAG: listed}
    assert standing({**tags, UNTIL_TAG: AHEAD}, NOW) == {**tags, UNTIL_TAG: AHEAD}


def test_what_was_put_on_until_then_goes_too_when_a_hand_took_the_moment_off() -> None:
    tags = {"suspect": "yes", AUTOTAGGED_TAG: f"{UNTIL_TAG} suspect"}
    assert standing(tags, NOW).keys() == {AUTOTAGGED_TAG}


@pytest.mark.parametrize("listed", ["mirror suspect", f"mirror suspect {UNTIL_TAG}", ""])
def test_what_was_put_on_for_good_stays(listed: str) -> None:
    tags = {"mirror": "yes", "suspect": "yes", UNTIL_TAG: PAST, AUTOTAGGED_TAG: listed}
    assert standing(tags, NOW).keys() == {"mirror", "suspect", AUTOTAGGED_TAG}
