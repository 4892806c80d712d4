"""What each function loads before its first event: no more than it needs, and it reads and calls nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

LOADED = """
import json, sys
before = set(sys.modules)
import app
from mirroring import runtime
built = [name for name, one in vars(runtime).items() if hasattr(one, "cache_info") and one.cache_info().currsize]
files = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items() if name not in before}
print(json.dumps({"modules": files, "built": built}))
"""

BUDGET = {
    "aws_lambda_powertools",
    "botocore",
    "pydantic",
    "yaml",
    # What these load themselves.
    "annotated_types",
    "certifi",
    "dateutil",
    "jmespath",
    "pydantic_core",
    "six",
    "typing_extensions",
    "typing_inspection",
    "urllib3",
}

FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/app.py"))


@pytest.fixture(scope="module", params=FUNCTIONS)
def loaded(request: pytest.FixtureRequest) -> dict[str, Any]:
    """In a process of its own, without any setting."""
    paths = (ROOT / "functions" / request.param, ROOT / "layers/mirroring")
    found = subprocess.run(
        [sys.executable, "-c", LOADED],
        env={"PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(found.stdout)
    return answer


def test_all_functions_are_looked_at() -> None:
    assert FUNCTIONS == ["autotag", "lifecycle", "reconcile"]


def test_importing_a_function_loads_no_more_than_it_needs(loaded: dict[str, Any]) -> None:
    modules = loaded["modules"]
    third_party = {name.partition(".")[0] for name, file in modules.items() if "site-packages" in file}
    assert third_party == BUDGET


@pytest.mark.parametrize(
    "name",
    [
        "aws_lambda_powertools.utilities.parameters",
        "boto3",
        "rich",
        "requests",
        "aws_xray_sdk",
        "mirroring.cli",
        "mirroring.commands",
    ],
)
def test_importing_a_function_does_not_load(loaded: dict[str, Any], name: str) -> None:
    assert not [module for module in loaded["modules"] if module == name or module.startswith(f"{name}.")]


def test_importing_a_function_reads_no_setting_and_makes_no_client(loaded: dict[str, Any]) -> None:
    assert loaded["built"] == []
