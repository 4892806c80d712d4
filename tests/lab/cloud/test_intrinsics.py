"""Each function's examples are those of its page in CloudFormation's reference, or follow from its words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cloud.intrinsics import Conditions, Substitution, TemplateError, pieces, references, settle

VALUES = {("Name", None): "replay", ("Zones", None): ["a", "b"], ("Queue", "Arn"): "arn:aws:sqs:q", ("Port", None): 80}
MAPPINGS = {"Sizes": {"large": {"cores": "2", "types": ["c7g.large"]}}}


def look_up(name: str, attribute: str | None) -> Any:
    try:
        return VALUES[name, attribute]
    except KeyError:
        raise TemplateError(name) from None


SUBSTITUTION = Substitution(look_up, MAPPINGS)


def conditions(**definitions: Any) -> Conditions:
    return Conditions(definitions, SUBSTITUTION)


YES, NO = {"Fn::Equals": ["a", "a"]}, {"Fn::Equals": ["a", "b"]}


@pytest.mark.parametrize(
    ("node", "value"),
    [
        ({"Ref": "Name"}, "replay"),
        ({"Ref": "Zones"}, ["a", "b"]),
        ({"Fn::GetAtt": "Queue.Arn"}, "arn:aws:sqs:q"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, "arn:aws:sqs:q"),
        ({"Fn::Sub": "${Name}: ${Queue.Arn} ${!Name} $Name ${Port}"}, "replay: arn:aws:sqs:q ${Name} $Name 80"),
        ({"Fn::Sub": ["${Name}-${Mine}", {"Mine": {"Ref": "Port"}}]}, "replay-80"),
        ({"Fn::Join": ["/", [{"Ref": "Name"}, "x", 1, True]]}, "replay/x/1/true"),
        ({"Fn::Join": [",", {"Ref": "Zones"}]}, "a,b"),
        ({"Fn::Split": ["=", "Key=Value=More"]}, ["Key", "Value", "More"]),
        ({"Fn::Select": ["1", {"Fn::Split": ["=", "Key=Value"]}]}, "Value"),
        ({"Fn::Select": [0, {"Fn::GetAZs": ""}]}, "eu-west-1a"),
        ({"Fn::FindInMap": ["Sizes", "large", "types"]}, ["c7g.large"]),
        ({"Fn::Base64": {"Fn::Sub": "#!/bin/bash\necho ${Name}"}}, "#!/bin/bash\necho replay"),
        ({"Fn::Cidr": ["10.0.0.0/16", 2, 8]}, ["10.0.0.0/24", "10.0.1.0/24"]),
        ({"Fn::Cidr": ["192.168.0.0/24", "6", "5"]}, [f"192.168.0.{n}/27" for n in range(0, 192, 32)]),
        ({"Plain": [1, None, True, {"Ref": "Name"}]}, {"Plain": [1, None, True, "replay"]}),
        ({"Ref": "Name", "Beside": 1}, {"Ref": "Name", "Beside": 1}),
    ],
)
def test_functions_give_what_their_pages_say(node: Any, value: Any) -> None:
    assert SUBSTITUTION.of(node) == value


@pytest.mark.parametrize(
    "node",
    [
        {"Ref": "Nobody"},
        {"Fn::GetAtt": ["Queue", "Colour"]},
        {"Fn::Sub": "${Nobody.Arn}"},
        {"Fn::Sub": "${Zones}"},  # a list is no text
        {"Fn::Join": [",", "text"]},
        {"Fn::Select": [2, ["a", "b"]]},
        {"Fn::Select": [-1, ["a", "b"]]},
        {"Fn::FindInMap": ["Sizes", "small", "cores"]},
        {"Fn::ImportValue": "other-stack"},
        {"Fn::Transform": {"Name": "AWS::Include"}},
        {"Fn::If": ["Undecided", 1, 2]},
        {"Condition": "Yes"},
    ],
)
def test_what_is_not_known_is_refused(node: Any) -> None:
    with pytest.raises(TemplateError):
        SUBSTITUTION.of(node)


@pytest.mark.parametrize(
    ("node", "held"),
    [
        (YES, True),
        (NO, False),
        ({"Fn::Not": [YES]}, False),
        ({"Fn::And": [YES, {"Condition": "Yes"}]}, True),
        ({"Fn::And": [YES, NO]}, False),
        ({"Fn::Or": [NO, YES]}, True),
        ({"Fn::Or": [NO, NO]}, False),
        ({"Fn::Equals": [{"Ref": "Name"}, "replay"]}, True),
        ({"Fn::Equals": [{"Ref": "Port"}, "80"]}, True),
        ({"Fn::Equals": [True, "true"]}, True),
        ({"Fn::Equals": [{"Fn::Join": ["", {"Ref": "Zones"}]}, ""]}, False),
    ],
)
def test_conditions(node: Any, held: bool) -> None:
    assert conditions(Asked=node, Yes=YES).holds("Asked") is held


@pytest.mark.parametrize(
    "node",
    [
        {"Condition": "Missing"},
        {"Condition": "Asked"},
        {"Fn::And": [YES]},
        "true",
        {"Fn::Equals": [1]},
        {"Ref": "Name"},
    ],
)
def test_what_is_no_condition_is_refused(node: Any) -> None:
    with pytest.raises(TemplateError):
        conditions(Asked=node).holds("Asked")


def test_a_decision_takes_its_branch_and_no_value_takes_its_place_along() -> None:
    nothing = {"Ref": "AWS::NoValue"}
    node = {
        "Kept": {"Fn::If": ["Yes", {"Ref": "Name"}, "other"]},
        "Gone": {"Fn::If": ["No", 1, nothing]},
        "Items": ["a", {"Fn::If": ["No", "b", nothing]}, {"Fn::If": ["Yes", {"Fn::If": ["No", 1, "c"]}, 2]}],
    }
    assert settle(node, conditions(Yes=YES, No=NO)) == {"Kept": {"Ref": "Name"}, "Items": ["a", "c"]}


def test_the_branch_not_taken_is_not_looked_at() -> None:
    node = {"Fn::If": ["Yes", 1, {"Fn::If": ["Missing", 1, 2]}]}
    assert settle(node, conditions(Yes=YES)) == 1


def test_references_are_found_wherever_they_stand() -> None:
    node = {
        "A": [{"Ref": "One"}, {"Fn::GetAtt": ["Two", "Arn"]}, {"Fn::GetAtt": "Three.Arn"}],
        "B": {"Fn::Join": ["", [{"Fn::Sub": "${Four.Arn}/${!Not}/${Five}"}]]},
        "C": {"Fn::Sub": ["${Own}${Six}", {"Own": {"Ref": "Seven"}}]},
    }
    assert list(references(node)) == ["One", "Two", "Three", "Four", "Five", "Six", "Seven"]


@given(
    st.lists(st.tuples(st.text("ab$ {", max_size=5), st.sampled_from(["Name", "Queue.Arn"]))), st.text("ab", max_size=3)
)
def test_the_pieces_of_a_text_are_the_text(parts: list[tuple[str, str]], end: str) -> None:
    """But for `${`, which plain words cannot hold unescaped."""
    clean = [(plain.replace("{", "").removesuffix("$"), name) for plain, name in parts]
    text = "".join(f"{plain}${{{name}}}" for plain, name in clean) + end
    assert list(pieces(text)) == [*clean, (end, None)]


json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ABC"), inner, max_size=3),
)


@given(json)
def test_data_without_functions_stays_as_it_is(node: Any) -> None:
    assert SUBSTITUTION.of(settle(node, conditions())) == node
    assert list(references(node)) == []
