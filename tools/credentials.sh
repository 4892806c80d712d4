#!/usr/bin/env bash
# Says what is missing before a deploy asks its questions: AWS credentials that work, and a Region. Its arguments are
# those of `sam deploy`: a profile or a Region among them counts, and so does the Region of the deploy before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec .venv/tools/sam/bin/python - "$@" <<'PYTHON'
import argparse
import sys
import tomllib
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

MISSING = """deploy: {what}
  Say which account and Region it is for, for example:
    aws configure sso && export AWS_PROFILE=NAME        (or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN)
    export AWS_DEFAULT_REGION=eu-west-1"""
ELSEWHERE = """deploy: {file} says under [{environment}] that this is deployed to {saved}, and the Region here is {here}.
  Go on there with AWS_DEFAULT_REGION={saved}, or keep answers of their own for {here}: ARGS="--config-env NAME"."""

parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
parser.add_argument("--profile")
parser.add_argument("--region")
parser.add_argument("--config-env", default="default")
parser.add_argument("--config-file", type=Path, default=Path("samconfig.toml"))
options, _ = parser.parse_known_args()

saved = tomllib.loads(options.config_file.read_text()).get(options.config_env, {})
parameters = {**saved.get("global", {}).get("parameters", {}), **saved.get("deploy", {}).get("parameters", {})}
try:
    session = boto3.Session(
        profile_name=options.profile or parameters.get("profile"), region_name=options.region
    )
    here = session.region_name
    if here is None:
        sys.exit(MISSING.format(what="no AWS Region is set."))
    if not options.region and parameters.get("region", here) != here:
        where = {"file": options.config_file, "environment": options.config_env}
        sys.exit(ELSEWHERE.format(saved=parameters["region"], here=here, **where))
    if session.get_credentials() is None:
        sys.exit(MISSING.format(what="no AWS credentials were found."))
    identity = session.client("sts").get_caller_identity()
except (BotoCoreError, ClientError) as refusal:
    sys.exit(MISSING.format(what=f"the AWS credentials do not work: {refusal}"))
print(f"deploy: account {identity['Account']}, Region {here}, as {identity['Arn']}")
PYTHON
