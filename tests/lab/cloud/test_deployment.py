"""The SAM CLI as a process; that it builds, deploys and deletes our stack is tests/deploy's story."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cloud.deployment import ARCHITECTURES, Deployment, DeploymentError
from lab.cloud.emulator import Emulator, emulator


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    with emulator(auth=False) as cloud:
        yield cloud


def _deployment(cloud: Emulator, folder: Path, kind: str) -> Deployment:
    template = {
        "Parameters": {name: {"Type": "String", "Default": "none"} for name in (*ARCHITECTURES, "Words")},
        "Resources": {"Queue": {"Type": kind}},
        "Outputs": {"Words": {"Value": {"Ref": "Words"}}},
    }
    path = folder / "template.json"
    path.write_text(json.dumps(template))
    return Deployment(cloud, "small", path, folder)


@pytest.mark.parametrize("words", ["", "with spaces, commas = signs"])
def test_values_reach_the_stack_as_they_are(cloud: Emulator, tmp_path: Path, words: str) -> None:
    stack = _deployment(cloud, tmp_path, "AWS::SQS::Queue")
    stack.deploy(Words=words)
    assert stack.outputs == {"Words": words}
    assert stack.resources.keys() == {"Queue"} == stack.described.keys()
    assert "AWS::SQS::Queue" in stack.uploaded().read_text()
    assert "Deleted successfully" in stack.delete()


def test_a_command_that_fails_tells_what_it_said(cloud: Emulator, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match=r"(?s)sam deploy ended with 1.*AWS::SQS::Nothing"):
        _deployment(cloud, tmp_path, "AWS::SQS::Nothing").deploy()
