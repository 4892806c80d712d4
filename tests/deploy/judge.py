"""parliament's knowledge of IAM, as a program: {name: document} in, {name: {findings, levels}} out.

    .venv/tools/checks/bin/python tests/deploy/judge.py <policies.json

`levels` are the access levels (Read, List, Write, Tagging, Permissions management) of the actions that a document
names, as AWS's service authorization reference gives them; None for one that is unknown.
"""

import json
import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")  # parliament asks pkg_resources, which asks to be replaced

import parliament  # noqa: E402

LEVELS = {
    f"{service['prefix']}:{privilege['privilege']}".lower(): privilege["access_level"]
    for service in parliament.iam_definition
    for privilege in service["privileges"]
}


def judged(document: dict[str, Any]) -> dict[str, Any]:
    found = parliament.analyze_policy_string(json.dumps(document)).findings
    return {
        "findings": [{"issue": one.issue, "detail": one.detail} for one in found],
        "levels": {action: LEVELS.get(action.lower()) for action in actions(document)},
    }


def actions(document: dict[str, Any]) -> list[str]:
    named = [statement.get("Action", []) for statement in document["Statement"]]
    return [action for one in named for action in ([one] if isinstance(one, str) else one)]


if __name__ == "__main__":
    json.dump({name: judged(document) for name, document in json.load(sys.stdin).items()}, sys.stdout)
