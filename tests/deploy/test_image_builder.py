"""The image's template: the document that Image Builder runs, which no linter looks into.

Its form is in AWS's documentation, https://docs.aws.amazon.com/imagebuilder/latest/userguide/toe-use-documents.html
(schema and definitions) and toe-action-modules.html (actions and their inputs).
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError  # type: ignore[import-untyped]

from lab.cloud.stack import Stack
from tests.deploy import raw

_TEMPLATE = Path(__file__).resolve().parents[2] / "worker/image/image.yaml"

#: Actions of Linux documents; those of Windows alone are left out.
_ACTIONS = """
AppendFile Assert CopyFile CopyFolder CreateFile CreateFolder CreateSymlink DeleteFile DeleteFolder ExecuteBash
ExecuteBinary ExecuteDocument ListFiles MoveFile MoveFolder ReadFile Reboot S3Download S3Upload SetFileEncoding
SetFileOwner SetFilePermissions SetFolderOwner SetFolderPermissions UpdateOS WebDownload
""".split()
_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schemaVersion", "phases"],
    "properties": {
        "name": {"type": "string"},
        "description": {"type": "string"},
        "schemaVersion": {"const": 1.0},
        "parameters": {"type": "array"},
        "constants": {"type": "array"},
        "phases": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/phase"}},
    },
    "$defs": {
        "phase": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "steps"],
            "properties": {
                "name": {"enum": ["build", "validate", "test"]},
                "steps": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/step"}},
            },
        },
        "step": {
            "type": "object",
            "additionalProperties": False,
            "required": ["name", "action"],
            "properties": {
                "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
                "action": {"enum": _ACTIONS},
                "timeoutSeconds": {"type": "integer", "minimum": -1},
                "onFailure": {"enum": ["Abort", "Continue", "Ignore"]},
                "maxAttempts": {"type": "integer", "minimum": 1},
                "inputs": {},
                "if": {},
                "loop": {"type": "object"},
            },
            "if": {"properties": {"action": {"const": "ExecuteBash"}}},
            "then": {"required": ["inputs"], "properties": {"inputs": {"$ref": "#/$defs/commands"}}},
        },
        "commands": {
            "type": "object",
            "additionalProperties": False,
            "required": ["commands"],
            "properties": {"commands": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
        },
    },
}


@pytest.fixture(scope="module")
def template() -> Any:
    return raw.template(_TEMPLATE)


@pytest.fixture
def document(template: Any) -> Any:
    return yaml.safe_load(template["Resources"]["Component"]["Properties"]["Data"])


def scripts(document: Any) -> Iterator[str]:
    """The commands of each ExecuteBash step."""
    for phase in document["phases"]:
        for step in phase["steps"]:
            if step["action"] == "ExecuteBash":
                yield "\n".join(step["inputs"]["commands"])


def check(document: Any) -> None:
    Draft202012Validator(_SCHEMA).validate(document)


def test_the_document_is_of_the_form_that_image_builder_asks_for(document: Any) -> None:
    check(document)
    assert [phase["name"] for phase in document["phases"]] == ["build", "validate", "test"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("action", "ExecuteBsh"), ("onFailure", "Retry"), ("timeout", 60), ("inputs", {"command": "true"})],
)
def test_a_wrong_step_is_refused(document: Any, key: str, value: object) -> None:
    document["phases"][0]["steps"][1][key] = value
    with pytest.raises(ValidationError):
        check(document)


def test_a_wrong_phase_is_refused(document: Any) -> None:
    document["phases"][0]["name"] = "install"
    with pytest.raises(ValidationError):
        check(document)


def test_its_scripts_are_clean(document: Any) -> None:
    assert len(list(scripts(document))) == 3
    for script in scripts(document):
        done = subprocess.run(
            ["shellcheck", "--shell=bash", "-"], input=script, check=False, stdout=subprocess.PIPE, text=True
        )
        assert (done.returncode, done.stdout) == (0, ""), script
        assert script.startswith("set -euo pipefail\n")


def test_what_the_install_script_needs_is_looked_for(document: Any) -> None:
    """Programs that a minimal Linux may lack, and that install.sh calls."""
    install = (_TEMPLATE.parent / "install.sh").read_text()
    _, looked_for, _ = scripts(document)
    for program in ("systemctl", "runuser", "useradd", "sysctl"):
        assert f"{program} " in install
        assert program in looked_for
    assert "/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl" in install
    assert "/opt/aws/amazon-cloudwatch-agent/bin/amazon-cloudwatch-agent-ctl" in looked_for


def test_a_new_version_renews_all_that_is_immutable(template: Any) -> None:
    resources = template["Resources"]
    for name in ("Component", "Recipe"):
        assert resources[name]["Properties"]["Version"] == {"Ref": "ImageVersion"}
    assert resources["Image"]["Properties"]["ImageRecipeArn"] == {"Ref": "Recipe"}
    assert resources["Recipe"]["Properties"]["Components"] == [{"ComponentArn": {"Ref": "Component"}}]
    assert template["Outputs"]["WorkerImageId"]["Value"] == {"Fn::GetAtt": ["Image", "ImageId"]}


def test_the_build_instance_may_do_nothing_to_anything_else(template: Any) -> None:
    (policy,) = template["Resources"]["BuildRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        assert statement["Resource"] != "*" or "Condition" in statement
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not [action for action in actions if "*" in action]
        assert "ssm:GetParameter" not in actions


def test_what_user_data_would_install_is_installed(document: Any) -> None:
    """Then an instance needs no package repository. The agent waits for the configuration that install.sh gives it."""
    built, _, _ = scripts(document)
    (line,) = re.findall(r"^dnf .* install (.+)$", built, re.MULTILINE)
    (boots,) = re.findall(r" dnf .* install (.+?) \|\|", (_TEMPLATE.parents[2] / "template.yaml").read_text())
    assert {*boots.split(), "logrotate"} <= set(line.split())
    assert "systemctl disable amazon-cloudwatch-agent.service" in built


@pytest.mark.parametrize(("architecture", "parent"), [("arm64", "arm64"), ("x86_64", "x86")])
def test_an_image_is_made_of_amazon_linux_for_its_architecture(architecture: str, parent: str) -> None:
    stack = Stack.read(_TEMPLATE).with_parameters(
        VpcId="vpc-0a1b2c3d4e5f60718", SubnetId="subnet-0a1b2c3d4e5f60718", WorkerArchitecture=architecture
    )
    image = stack.resources["Recipe"].properties["ParentImage"]
    assert image == f"arn:aws:imagebuilder:eu-west-1:aws:image/amazon-linux-2023-{parent}/x.x.x"


def test_the_build_instance_is_closed_and_ends_and_the_image_is_tried(template: Any) -> None:
    resources = {name: one["Properties"] for name, one in template["Resources"].items()}
    assert "SecurityGroupIngress" not in resources["BuildSecurityGroup"]
    assert resources["Infrastructure"]["InstanceMetadataOptions"]["HttpTokens"] == "required"
    assert resources["Infrastructure"]["TerminateInstanceOnFailure"] is True
    assert [one["Ebs"]["Encrypted"] for one in resources["Recipe"]["BlockDeviceMappings"]] == [True]
    assert resources["Image"]["ImageTestsConfiguration"]["ImageTestsEnabled"] is True
    assert resources["BuildLogs"]["LogGroupName"] == {
        "Fn::Sub": "/aws/imagebuilder/${AWS::StackName}"
    }  # its own choice


def test_keys_are_used_for_components_alone(template: Any) -> None:
    (policy,) = template["Resources"]["BuildRole"]["Properties"]["Policies"]
    (statement,) = [one for one in policy["PolicyDocument"]["Statement"] if one["Action"] == "kms:Decrypt"]
    assert statement["Condition"] == {"ForAnyValue:StringEquals": {"kms:EncryptionContextKeys": "aws:imagebuilder:arn"}}
