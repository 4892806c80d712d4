"""Both architectures reach every place where one is named, each its own: workers' and functions' are chosen apart."""

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.stack import Stack, parameter
from tests.deploy.given import ARCHITECTURES, REQUIRED, TEMPLATE, given
from tests.deploy.raw import template

#: Of parameters that are neither numbers nor lists of words.
OTHER = {
    "HandlerVpcId": "vpc-0f9e8d7c6b5a40312",
    "HandlerSubnetIds": "subnet-0f9e8d7c6b5a40312",
    "RequestsForwardDestination": "https://test.example.com:8443/prefix",
    "ProductionTag": "Role=*",
    "ProductionVpcIds": "vpc-0f9e8d7c6b5a40312",
    "ProductionSubnetIds": "subnet-0f9e8d7c6b5a40312",
    "FilterByDestinationCidrBlock": "10.1.0.0/16",
    "FilterBySourceCidrBlock": "10.2.0.0/16",
    "MirrorSourceCidrs": "10.1.0.0/16",
    "PolicyParameterName": "/shop/policy",
    "AutoTagKeys": "a,b",
    "PercentageByHeader": "X-User",
    "WorkerSettingsParameter": "/shop/worker",
    "InstanceType": "m7g.xlarge",
    "WorkerImageId": "ami-0a1b2c3d4e5f60718",
    "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:pages",
}
EVERY = pytest.mark.parametrize(("worker", "functions"), list(itertools.product(ARCHITECTURES, repeat=2)))


def stack(worker: str, functions: str) -> Stack:
    kind = "m7g.large" if worker == "arm64" else "m7i.large"
    return given(WorkerArchitecture=worker, LambdaArchitecture=functions, InstanceType=kind)


@EVERY
def test_functions_and_their_layer_are_of_one_architecture(worker: str, functions: str) -> None:
    made = stack(worker, functions)
    for function in made.of_type("AWS::Lambda::Function").values():
        assert function.properties["Architectures"] == [functions]
        assert function.properties["Layers"] == [made.ref("MirroringLayer")]
    layers = {
        layer.properties["LayerName"]: layer.properties["CompatibleArchitectures"]
        for layer in made.of_type("AWS::Lambda::LayerVersion").values()
    }
    assert layers == {"replay-mirroring": [functions], "replay-worker": [worker]}


@EVERY
def test_a_workers_image_is_of_the_architecture_of_its_code(worker: str, functions: str) -> None:
    image = stack(worker, functions).resources["WorkerLaunchTemplate"].properties["LaunchTemplateData"]["ImageId"]
    assert re.search(r"-(arm64|x86_64)\}\}$", image)
    assert image.endswith(f"-{worker}}}}}")


@pytest.mark.parametrize(
    ("layer", "parameter"), [("WorkerLayer", "WorkerArchitecture"), ("MirroringLayer", "LambdaArchitecture")]
)
def test_a_layer_is_built_for_the_architecture_that_it_says(layer: str, parameter: str) -> None:
    """`sam build` reads this, and takes what it makes out of the deployed template."""
    resource = template()["Resources"][layer]
    assert resource["Metadata"] == {"BuildMethod": "python3.13", "BuildArchitecture": {"Ref": parameter}}
    assert resource["Properties"]["CompatibleArchitectures"] == [{"Ref": parameter}]
    assert resource["Properties"]["CompatibleRuntimes"] == ["python3.13"]


def test_everything_runs_on_one_version_of_python() -> None:
    functions = stack("arm64", "arm64").of_type("AWS::Lambda::Function").values()
    assert {function.properties["Runtime"] for function in functions} == {"python3.13"}


def test_sam_reads_no_parameter() -> None:
    """Or these tests would look at what nobody deploys: tests.deploy.given has SAM expand few of all stacks."""
    rules = template()["Parameters"]
    values = {name: _another(rule, OTHER.get(name)) for name, rule in rules.items()}
    for name, value in values.items():
        assert value not in (REQUIRED.get(name), str(rules[name].get("Default"))), name
        parameter(name, rules[name], value)  # one that CloudFormation takes
    assert _expanded(Stack.read(TEMPLATE).with_parameters(**values)) == _expanded(given())


def test_a_parameter_that_sam_reads_would_be_seen(tmp_path: Path) -> None:
    """It makes a layer's logical id from the values of its properties."""
    text = TEMPLATE.read_text()
    name = "LayerName: !Sub ${AWS::StackName}-mirroring"
    assert text.count(name) == 1
    reading = tmp_path / TEMPLATE.name
    reading.write_text(text.replace(name, "LayerName: !Ref AutoTagKeys"))
    made = Stack.read(reading).with_parameters(**REQUIRED)
    assert _expanded(made) != _expanded(made.with_parameters(AutoTagKeys=OTHER["AutoTagKeys"]))


def _another(rule: Mapping[str, Any], value: str | None) -> str:
    """Not the default: what OTHER has, the next allowed value, or the next number."""
    if value is not None:
        return value
    if "AllowedValues" in rule:
        return next(str(one) for one in reversed(rule["AllowedValues"]) if one != rule["Default"])
    return str(max(int(rule["MinValue"]), int(rule["Default"]) - 1))


def _expanded(stack: Stack) -> Any:
    return {key: value for key, value in stack.template.items() if key != "Parameters"}
