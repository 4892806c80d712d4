"""Both architectures reach every place where one is named, each its own: workers' and functions' are chosen apart."""

import itertools
import re
from typing import Any

import pytest

from lab.cloud.stack import Stack
from tests.deploy.given import ARCHITECTURES, READ_BY_SAM, REQUIRED, TEMPLATE, given
from tests.deploy.raw import template

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


def test_sam_reads_no_other_parameter() -> None:
    """Or these tests would look at what nobody deploys (see tests.deploy.given)."""
    values = REQUIRED | {
        name: "/shop/name" if name in ("PolicyParameterName", "WorkerSettingsParameter") else str(rule["Default"])
        for name, rule in template()["Parameters"].items()
        if "Default" in rule
    }
    values |= {"AutoTagKeys": "a,b", "FleetMaximum": "9", "GuardDutyFindings": "on", "LogRetentionDays": "7"}
    other = Stack.read(TEMPLATE).with_parameters(**values)
    assert _without_defaults(other.template) == _without_defaults(given().template)
    assert {name for name in values if name in READ_BY_SAM} == READ_BY_SAM


def _without_defaults(node: Any) -> Any:
    return {key: value for key, value in node.items() if key != "Parameters"}
