"""What ministack makes of a template's conditions: as much as CloudFormation."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.cloud.emulator import Emulator


def _second(blocks: str) -> dict[str, Any]:
    """Whether a list has a second item, as our template asks it."""
    padded = {"Fn::Join": ["", [{"Fn::Join": [",", {"Ref": blocks}]}, ",,"]]}
    return {"Fn::Not": [{"Fn::Equals": [{"Fn::Select": [1, {"Fn::Split": [",", padded]}]}, ""]}]}


def _template(condition: dict[str, Any]) -> str:
    resources = {
        "Always": {"Type": "AWS::SQS::Queue"},
        "Sometimes": {"Type": "AWS::SQS::Queue", "Condition": "Here"},
    }
    parameters = {"Blocks": {"Type": "CommaDelimitedList", "Default": "10.0.0.0/8"}}
    mappings = {"Regions": {"eu-west-1": {"home": "yes"}, "us-east-1": {"home": "no"}}}
    return json.dumps(
        {"Parameters": parameters, "Mappings": mappings, "Conditions": {"Here": condition}, "Resources": resources}
    )


def _made(cloud: Emulator, name: str, condition: dict[str, Any], blocks: str) -> set[str]:
    client = cloud.client("cloudformation")
    given = [{"ParameterKey": "Blocks", "ParameterValue": blocks}]
    client.create_stack(StackName=name, TemplateBody=_template(condition), Parameters=given)
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 0.1})
    resources = client.describe_stack_resources(StackName=name)["StackResources"]
    client.delete_stack(StackName=name)
    return {one["LogicalResourceId"] for one in resources}


HOME = {"Fn::Equals": [{"Fn::FindInMap": ["Regions", {"Ref": "AWS::Region"}, "home"]}, "yes"]}


@pytest.mark.parametrize(
    ("name", "condition", "blocks", "here"),
    [
        ("one", _second("Blocks"), "10.0.0.0/8", False),
        ("two", _second("Blocks"), "10.0.0.0/8,172.16.0.0/12", True),
        ("spaced", _second("Blocks"), "10.0.0.0/8, 172.16.0.0/12", True),
        ("mapped", HOME, "10.0.0.0/8", True),
    ],
)
def test_conditions_join_split_and_look_up(
    cloud: Emulator, name: str, condition: dict[str, Any], blocks: str, here: bool
) -> None:
    assert _made(cloud, name, condition, blocks) == {"Always", *["Sometimes"][:here]}


def test_a_condition_that_looks_at_a_resource_is_refused(cloud: Emulator) -> None:
    condition = {"Fn::Equals": [{"Ref": "Always"}, ""]}
    with pytest.raises(ClientError, match="Always, which is no parameter"):
        _made(cloud, "resource", condition, "10.0.0.0/8")
