"""The SAM CLI as a process; that it builds, deploys and deletes our stack is tests/deploy's story."""

import json
from pathlib import Path

import pytest

from lab.cloud.deployment import ARCHITECTURES, Deployment, DeploymentError
from lab.cloud.emulator import Emulator

WORDS = {"None": "", "Many": "with spaces, commas = signs"}


def _deployment(cloud: Emulator, folder: Path, kind: str) -> Deployment:
    template = {
        "Parameters": {name: {"Type": "String", "Default": "none"} for name in (*ARCHITECTURES, *WORDS)},
        "Resources": {"Queue": {"Type": kind}},
        "Outputs": {name: {"Value": {"Ref": name}} for name in WORDS},
    }
    path = folder / "template.json"
    path.write_text(json.dumps(template))
    return Deployment(cloud, "small", path, folder)


def test_values_reach_the_stack_as_they_are(cloud: Emulator, tmp_path: Path) -> None:
    stack = _deployment(cloud, tmp_path, "AWS::SQS::Queue")
    stack.deploy(template=None, **WORDS)
    assert stack.outputs == WORDS
    assert stack.resources.keys() == {"Queue"} == stack.described.keys()
    assert "AWS::SQS::Queue" in stack.uploaded().read_text()
    assert "Deleted successfully" in stack.delete()


def test_a_command_that_fails_tells_what_it_said(cloud: Emulator, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"(?s)sam deploy ended with 1.*AWS::SQS::Nothing"):
        _deployment(cloud, tmp_path, "AWS::SQS::Nothing").deploy()
