#!/usr/bin/env bash
# Says what is missing before a deploy asks its questions: AWS credentials that work, and a Region.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec .venv/tools/sam/bin/python - <<'PYTHON'
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError

MISSING = """deploy: {what}
  Say which account and Region it is for, for example:
    aws configure sso && export AWS_PROFILE=NAME        (or AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN)
    export AWS_DEFAULT_REGION=eu-west-1"""

try:
    session = boto3.Session()
    if session.region_name is None:
        sys.exit(MISSING.format(what="no AWS Region is set."))
    if session.get_credentials() is None:
        sys.exit(MISSING.format(what="no AWS credentials were found."))
    identity = session.client("sts").get_caller_identity()
except (BotoCoreError, ClientError) as refusal:
    sys.exit(MISSING.format(what=f"the AWS credentials do not work: {refusal}"))
print(f"deploy: account {identity['Account']}, Region {session.region_name}, as {identity['Arn']}")
PYTHON
