"""The tables against AWS's own description of the API, which botocore ships, and the checks of single requests."""

import re
from typing import Any

import pytest
from botocore.loaders import Loader

from lab.cloud import api
from lab.cloud.faults import ApiError

SERVICE: dict[str, Any] = Loader().load_service_model("ec2", "service-2")
RULE = {
    "TrafficDirection": "ingress",
    "RuleNumber": 1,
    "RuleAction": "accept",
    "SourceCidrBlock": "0.0.0.0/0",
    "DestinationCidrBlock": "10.0.0.0/8",
}


def described(action: str) -> dict[str, Any]:
    """The shape of an action's request."""
    shape: dict[str, Any] = SERVICE["shapes"][SERVICE["operations"][action]["input"]["shape"]]
    return shape


def code(check: Any, *arguments: object) -> str:
    with pytest.raises(ApiError) as caught:
        check(*arguments)
    return caught.value.code


def test_the_actions_are_all_that_there_are() -> None:
    assert set(api.ACTIONS) == {name for name in SERVICE["operations"] if "TrafficMirror" in name}


@pytest.mark.parametrize("action", api.ACTIONS)
def test_parameters_are_the_documented_ones(action: str) -> None:
    shape = described(action)
    required = set(shape.get("required", ()))
    assert api.ACTIONS[action].required == required
    assert api.ACTIONS[action].optional == set(shape["members"]) - required - {"DryRun"}


@pytest.mark.parametrize(
    ("action", "names"),
    [
        ("DescribeTrafficMirrorTargets", api.TARGET_FILTERS),
        ("DescribeTrafficMirrorFilters", api.FILTER_FILTERS),
        ("DescribeTrafficMirrorFilterRules", api.RULE_FILTERS),
        ("DescribeTrafficMirrorSessions", api.SESSION_FILTERS),
    ],
)
def test_filters_are_the_documented_ones(action: str, names: dict[str, str]) -> None:
    text = described(action)["members"]["Filters"]["documentation"]
    assert set(names) == set(re.findall(r"<li>\s*<p>\s*<code>([a-z-]+)</code>:", text))


@pytest.mark.parametrize(
    ("shape", "names"),
    [("TrafficMirrorSessionField", api.SESSION_FIELDS), ("TrafficMirrorFilterRuleField", api.RULE_FIELDS)],
)
def test_fields_that_can_be_removed_are_the_documented_ones(shape: str, names: dict[str, str]) -> None:
    assert set(names) == set(SERVICE["shapes"][shape]["enum"])


def test_the_documented_size_of_a_page() -> None:
    shape = SERVICE["shapes"]["TrafficMirroringMaxResults"]
    assert (shape["min"], shape["max"]) == (5, 1000)


def test_parameters_are_known_and_complete() -> None:
    api.check_parameters("DeleteTrafficMirrorSession", {"TrafficMirrorSessionId": "tms-0", "DryRun": True})
    assert code(api.check_parameters, "DeleteTrafficMirrorSession", {}) == "MissingParameter"
    assert code(api.check_parameters, "DescribeTrafficMirrorSessions", {"Colour": "red"}) == "UnknownParameter"
    assert code(api.check_parameters, "DescribeTrafficMirrors", {}) == "InvalidAction"


def test_rules_that_are_fine() -> None:
    ports = {"FromPort": 0, "ToPort": 65535}
    api.check_rule(RULE)
    api.check_rule(RULE | {"Protocol": 17, "SourcePortRange": ports, "DestinationPortRange": ports})
    api.check_rule(RULE | {"SourceCidrBlock": "::/0", "DestinationCidrBlock": "2001:db8::/32", "Protocol": 255})


def test_a_field_is_set_or_removed() -> None:
    resource = {"Description": "x", "PacketLength": 1}
    api.remove_fields(resource, {"RemoveFields": ["description"]}, api.SESSION_FIELDS)
    assert resource == {"PacketLength": 1}
    both = {"RemoveFields": ["packet-length"], "PacketLength": 2}
    assert code(api.remove_fields, resource, both, api.SESSION_FIELDS) == "InvalidParameterCombination"


def test_what_is_given_is_a_copy_of_what_is_set() -> None:
    parameters: dict[str, Any] = {"a": {"b": 1}, "c": None, "d": 2}
    given = api.given(parameters, "a", "c", "e")
    given["a"]["b"] = 3
    assert given == {"a": {"b": 3}} and parameters["a"] == {"b": 1}


def test_a_dry_run_ends_here() -> None:
    api.dry_run({"DryRun": False})
    api.dry_run({})
    assert code(api.dry_run, {"DryRun": True}) == "DryRunOperation"
