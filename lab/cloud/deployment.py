"""The stack built, deployed and deleted by the SAM CLI, as anybody would do it, against an emulator.

    template = build(folder)
    with emulator() as cloud:
        stack = Deployment(cloud, "replay", template, folder)
        stack.deploy(HandlerVpcId="vpc-…", HandlerSubnetIds="subnet-…", RequestsForwardDestination="http://test.internal")
        stack.outputs["TrafficMirrorTarget"]
        stack.delete()

The template is the project's own, unmodified, and so is samconfig.toml. Built things go into `folder`, nothing into the
tree; architectures are this machine's, as the emulator runs the functions on it.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lab.cloud.emulator import Emulator
from lab.cloud.events import REGION

ROOT = Path(__file__).parents[2]
SAM = ROOT / ".venv/tools/sam/bin/sam"
TEMPLATE = ROOT / "template.yaml"
CONFIG = ROOT / "samconfig.toml"
ARCHITECTURE = {"aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), "x86_64")
#: The template's parameters that depend on it.
ARCHITECTURES: Mapping[str, str] = {
    "WorkerArchitecture": ARCHITECTURE,
    "LambdaArchitecture": ARCHITECTURE,
    "InstanceType": {"arm64": "c7g.large", "x86_64": "c7i.large"}[ARCHITECTURE],
}

_PATIENCE = 300.0
_SHOWN = 4000  # characters of a command's output


class DeploymentError(Exception):
    pass


def build(folder: Path, architectures: Mapping[str, str] = ARCHITECTURES) -> Path:
    """What `sam build` makes of the project, anew; the path of the built template."""
    target = folder / "build"
    places = ["--template-file", str(TEMPLATE), "--build-dir", str(target), "--no-cached"]
    _sam(folder, "build", [*places, *_overrides(architectures)], {"AWS_DEFAULT_REGION": REGION})
    return target / "template.yaml"


@dataclass(frozen=True, slots=True)
class Deployment:
    """A stack of this name; `folder` takes what the SAM CLI wants to keep."""

    cloud: Emulator
    name: str
    template: Path
    folder: Path

    def deploy(self, template: Path | None = None, **parameters: str) -> str:
        """Makes or updates the stack; what `sam deploy` printed. Parameters left out keep the values they have."""
        where = ["--template-file", str(template or self.template), "--stack-name", self.name]
        how = ["--no-confirm-changeset", "--no-fail-on-empty-changeset", "--no-progressbar"]
        given = _overrides({**ARCHITECTURES, **parameters})
        return _sam(self.folder, "deploy", [*where, *how, *given], self.cloud.environment)

    def uploaded(self) -> Path:
        """The template as the last deploy left it, with code and layers in S3: a deploy of it packs nothing anew."""
        answer = self.cloud.client("cloudformation").get_template(StackName=self.name, TemplateStage="Original")
        path = self.folder / "uploaded.yaml"
        path.write_text(answer["TemplateBody"])
        return path

    def delete(self) -> str:
        where = ["--stack-name", self.name, "--region", REGION, "--no-prompts"]
        return _sam(self.folder, "delete", where, self.cloud.environment)

    @property
    def outputs(self) -> dict[str, str]:
        [stack] = self.cloud.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}

    @property
    def resources(self) -> dict[str, str]:
        """Physical ids by logical ones."""
        return {name: one["PhysicalResourceId"] for name, one in self.described.items()}

    @property
    def described(self) -> dict[str, dict[str, Any]]:
        answer = self.cloud.client("cloudformation").describe_stack_resources(StackName=self.name)
        return {one["LogicalResourceId"]: one for one in answer["StackResources"]}


def _overrides(parameters: Mapping[str, str]) -> list[str]:
    return ["--parameter-overrides", *(f'{name}="{value}"' for name, value in parameters.items())]


def _sam(folder: Path, command: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Builders look for python3.13 on PATH. The SAM CLI's own files go to the folder; pip's cache stays in use. Of its
    temporary ones it leaves some."""
    own = {"SAM_CLI_TELEMETRY": "0", "__SAM_CLI_APP_DIR": str(folder / "sam"), "NO_COLOR": "1"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with TemporaryDirectory(prefix="sam-") as scratch:
        done = subprocess.run(
            [str(SAM), command, "--config-file", str(CONFIG), *arguments],
            cwd=folder,
            env={**os.environ, **environment, **own, "PATH": path, "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    if done.returncode:
        raise DeploymentError(f"sam {command} ended with {done.returncode}:\n{done.stdout[-_SHOWN:]}")
    return done.stdout
