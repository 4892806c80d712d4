"""tools/credentials.sh, run as `make deploy` runs it, with and without an account behind it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cloud.account import ENVIRONMENT, Account, strict_server

ROOT = Path(__file__).parents[2]
CONFIG = """version = 0.1
[default.deploy.parameters]
region = "eu-west-1"
[other.deploy.parameters]
stack_name = "other"
"""


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with strict_server() as account:
        yield account


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(CONFIG)
    return path


def ask(config: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(config.parent), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [str(ROOT / "tools/credentials.sh"), "--config-file", str(config), *words]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=False, timeout=60)


def test_without_a_region_or_credentials_it_says_what_to_set(config: Path) -> None:
    done = ask(config)
    assert done.returncode == 1
    assert done.stderr.startswith("deploy: no AWS Region is set.")
    done = ask(config, AWS_DEFAULT_REGION="eu-west-1")
    assert done.returncode == 1
    assert done.stderr.startswith("deploy: no AWS credentials were found.")


def test_a_profile_among_the_arguments_counts(config: Path) -> None:
    done = ask(config, "--profile", "shop", AWS_DEFAULT_REGION="eu-west-1")
    assert done.returncode == 1
    assert "shop" in done.stderr


def test_it_tells_where_the_stack_would_go(config: Path, account: Account) -> None:
    place = {"AWS_ENDPOINT_URL": str(account.url), **ENVIRONMENT}
    done = ask(config, AWS_DEFAULT_REGION="eu-west-1", **place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("deploy: account 123456789012, Region eu-west-1, as arn:")


def test_another_region_than_that_of_the_deploy_before_is_refused(config: Path, account: Account) -> None:
    place = {"AWS_ENDPOINT_URL": str(account.url), **ENVIRONMENT}
    done = ask(config, AWS_DEFAULT_REGION="us-east-1", **place)
    assert done.returncode == 1
    assert "[default] that this is deployed to eu-west-1, and the Region here is us-east-1" in done.stderr
    assert ask(config, "--config-env", "other", AWS_DEFAULT_REGION="us-east-1", **place).returncode == 0
    assert ask(config, "--region", "us-east-1", AWS_DEFAULT_REGION="us-east-1", **place).returncode == 0
