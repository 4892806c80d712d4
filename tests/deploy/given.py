"""The template's stack for the values that a test gives."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lab.cloud.stack import Stack

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"

REQUIRED = {
    "HandlerVpcId": "vpc-0a1b2c3d4e5f60718",
    "HandlerSubnetIds": "subnet-0a1b2c3d4e5f60718,subnet-0a1b2c3d4e5f60719",
    "RequestsForwardDestination": "http://test.internal",
}
ARCHITECTURES = ("arm64", "x86_64")


@dataclass(frozen=True)
class Given(Stack):
    """Evaluated for any values with one run of SAM: its expansion looks at no parameter.

    test_architectures holds that against what SAM does with all of them.
    """

    @cached_property
    def template(self) -> Any:
        return Stack.read(self.path).template


def given(**values: str) -> Given:
    return Given(TEMPLATE, REQUIRED | values)
