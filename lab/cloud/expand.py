"""A SAM template on its way to CloudFormation: the translator that AWS itself runs, as a program of its own.

    .venv/tools/sam/bin/python lab/cloud/expand.py TEMPLATE <parameters.json >expanded.json

It needs the tools' environment, whose pydantic is older than this project's; so it imports nothing of ours, and the
tests' door to it is lab.cloud.stack. Addresses of code on this disk become addresses in a bucket, as `sam package`
would make them (https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-specification.html).
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from samtranslator.public.exceptions import InvalidDocumentException
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

CODE = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}


class NoManagedPolicies:
    """Our roles name their own statements: the list of AWS's managed policies, which only AWS has, is empty."""

    def load(self) -> dict[str, str]:
        return {}


def packaged(template: dict[str, Any]) -> dict[str, Any]:
    for name, resource in template["Resources"].items():
        place = CODE.get(resource["Type"])
        if place and isinstance(resource["Properties"].get(place, "."), str):
            resource["Properties"][place] = f"s3://packaged/{name}"
    return template


def expand(template: dict[str, Any], parameters: dict[str, str]) -> Any:
    return transform(packaged(template), parameters, NoManagedPolicies())


def main(path: str) -> int:
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")  # the translator asks for the partition of a region
    try:
        json.dump(expand(yaml_parse(Path(path).read_text()), json.load(sys.stdin)), sys.stdout)
    except InvalidDocumentException as refusal:
        for cause in refusal.causes:
            print(cause.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
