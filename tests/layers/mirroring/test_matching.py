"""Matches against instances: each key alone, keys together, expiry, shares, and the words for what does not hold."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirroring.matching import conditions, current, first_miss, in_share
from mirroring.model import AUTOTAGGED_TAG, GROUP_TAG, NAME_TAG, UNTIL_TAG, Instance, stamp
from mirroring.policy import Match

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
VPC, OTHER_VPC = "vpc-00000000000000001", "vpc-00000000000000002"
SUBNET, OTHER_SUBNET = "subnet-00000000000000001", "subnet-00000000000000002"
ID, OTHER_ID = "i-00000000000000001", "i-00000000000000002"
WEB = Instance(
    ID,
    "running",
    "m5.large",
    VPC,
    SUBNET,
    tags={"app": "web", "env": "prod", GROUP_TAG: "web-blue", NAME_TAG: "web-1"},
)


def match(keys: Mapping[str, Any]) -> Match:
    return Match.model_validate(keys)


def misses(keys: Mapping[str, Any] | Match, instance: Instance) -> str:
    """The first key that does not hold, in words; empty if all do."""
    missed = first_miss(conditions(keys if isinstance(keys, Match) else match(keys)), instance)
    return missed.miss(instance) if missed else ""


def tagged(**tags: str) -> Instance:
    return replace(WEB, tags=tags)


@pytest.mark.parametrize(
    "keys",
    [
        {"tags": {"app": ["web"]}},
        {"tags": {"app": ["api", "web"]}},
        {"tags": {"app": "*"}},
        {"tags": {"app": ["web"], "env": ["prod"]}},
        {"vpcs": [VPC]},
        {"vpcs": [OTHER_VPC, VPC]},
        {"subnets": [SUBNET]},
        {"instances": [ID, OTHER_ID]},
        {"groups": ["web-blue"]},
        {"groups": ["api-*", "web-*"]},
        {"groups": ["web-blu?"]},
        {"names": ["*"]},
        {"names": ["?eb-[1-9]", "web-1"]},
        {"tags": {"env": "*"}, "vpcs": [VPC], "subnets": [SUBNET], "groups": ["*"], "instances": [ID], "names": ["w*"]},
    ],
)
def test_what_holds(keys: Mapping[str, Any]) -> None:
    assert misses(keys, WEB) == ""


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"tags": {"app": ["api"]}}, 'its tag app is "web", not "api"'),
        ({"tags": {"app": ["api", "batch"]}}, 'its tag app is "web", not "api" or "batch"'),
        ({"tags": {"app": ["a", "b", "c", "d"]}}, 'its tag app is "web", not one of the 4 listed'),
        ({"tags": {"App": ["web"]}}, "it has no tag App"),
        ({"tags": {"team": "*"}}, "it has no tag team"),
        ({"tags": {"app": ["web"], "env": ["test"]}}, 'its tag env is "prod", not "test"'),
        ({"vpcs": [OTHER_VPC]}, f"its VPC is {VPC}, not {OTHER_VPC}"),
        ({"subnets": [OTHER_SUBNET]}, f"its subnet is {SUBNET}, not {OTHER_SUBNET}"),
        ({"instances": [OTHER_ID]}, f"its id is {ID}, not {OTHER_ID}"),
        ({"groups": ["api-*", "batch"]}, 'its Auto Scaling group is "web-blue", not "api-*" or "batch"'),
        ({"groups": ["web"]}, 'its Auto Scaling group is "web-blue", not "web"'),
        ({"groups": ["WEB-*"]}, 'its Auto Scaling group is "web-blue", not "WEB-*"'),
        ({"names": ["web-"]}, 'its name is "web-1", not "web-"'),
        ({"names": ["web-[12]"]}, 'its name is "web-1", not "web-[12]"'),
        # Every other key holds: one that does not is enough, and it is the one that is named.
        ({"tags": {"app": ["web"]}, "vpcs": [OTHER_VPC], "names": ["*"]}, f"its VPC is {VPC}, not {OTHER_VPC}"),
    ],
)
def test_what_does_not_hold_and_why(keys: Mapping[str, Any], why: str) -> None:
    assert misses(keys, WEB) == why


@pytest.mark.parametrize(("keys", "what"), [({"groups": ["*"]}, "Auto Scaling group"), ({"names": ["*"]}, "name")])
@pytest.mark.parametrize("tags", [{}, {GROUP_TAG: "", NAME_TAG: ""}])
def test_no_wildcard_matches_nothing_at_all(keys: Mapping[str, Any], what: str, tags: Mapping[str, str]) -> None:
    instance = replace(WEB, tags=tags)
    assert misses(keys, instance) == f"it has no {what}"


def test_the_star_of_a_tag_takes_the_empty_value() -> None:
    assert not misses({"tags": {"app": "*"}}, tagged(app=""))


def test_a_star_in_a_list_of_values_is_that_value() -> None:
    assert misses({"tags": {"app": ["web*"]}}, WEB)


def test_a_bracket_in_a_name_is_a_bracket() -> None:
    brackets = match({"names": ["web[1]*"]})
    assert not misses(brackets, tagged(Name="web[1]-a"))
    assert misses(brackets, tagged(Name="web1-a"))


def test_patterns_span_line_ends_and_are_not_expressions() -> None:
    assert not misses({"names": ["a*b"]}, tagged(Name="a\nb"))
    assert misses({"names": ["a.b"]}, tagged(Name="axb"))
    assert misses({"names": ["a"]}, tagged(Name="a\n"))


ALPHABET = st.text("ab*?.-", max_size=6)


@given(st.lists(ALPHABET.filter(bool), min_size=1, max_size=3, unique=True), ALPHABET.filter(bool))
def test_wildcards_are_those_of_the_shell(patterns: list[str], name: str) -> None:
    asked = Match.model_construct(tags={}, vpcs=(), subnets=(), groups=(), instances=(), names=tuple(patterns))
    expected = any(fnmatchcase(name, pattern) for pattern in patterns)
    assert (not misses(asked, tagged(Name=name))) is expected


def test_conditions_are_asked_of_many() -> None:
    asked = conditions(match({"tags": {"app": ["web"]}, "vpcs": [VPC]}))
    assert first_miss(asked, WEB) is None
    elsewhere = first_miss(asked, replace(WEB, vpc=OTHER_VPC))
    assert elsewhere is asked[1]
    assert first_miss(asked, tagged()) is asked[0]


# Expiry


def test_an_instance_of_which_nothing_has_expired_is_left_as_it_is() -> None:
    assert current(WEB, NOW) is WEB


def test_an_instance_loses_what_has_expired() -> None:
    tags = {"app": "web", "suspect": "yes", UNTIL_TAG: stamp(NOW), AUTOTAGGED_TAG: f"{UNTIL_TAG} suspect"}
    before = replace(WEB, tags=tags)
    assert current(before, NOW - timedelta(seconds=1)) is before
    assert current(before, NOW) == replace(WEB, tags={"app": "web", AUTOTAGGED_TAG: tags[AUTOTAGGED_TAG]})


# Shares

IDS = st.integers(0, 2**68 - 1).map(lambda number: f"i-{number:017x}")


@given(IDS, st.floats(0, 100, exclude_min=True), st.floats(0, 100, exclude_min=True))
def test_a_larger_share_holds_the_smaller_one(instance: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert in_share(instance, large) or not in_share(instance, small)


def test_all_is_all() -> None:
    assert all(in_share(f"i-{number:017x}", 100) for number in range(5000))


@settings(max_examples=20)
@given(st.integers(1, 99), st.integers(0, 2**40))
def test_a_share_is_about_that_many(share: int, start: int) -> None:
    """Also of ids that follow each other. 2,000 draws: five standard deviations are 5.6 per cent at most."""
    inside = sum(in_share(f"i-{start + number:017x}", share) for number in range(2000))
    assert abs(inside / 2000 - share / 100) < 0.056


def test_the_share_of_an_instance_never_changes() -> None:
    """These hold for ever: another hash would move every session of every policy that has a share."""
    chosen = [number for number in range(40) if in_share(f"i-{number:017x}", 10)]
    assert chosen == [0, 11, 23, 28, 35]
