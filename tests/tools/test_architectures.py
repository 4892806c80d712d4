"""What is built is what can be deployed: tools/architectures.py, and `make build` and `make deploy` around it.

The SAM CLI is a shell script here that says what it was asked to do. With the real one: tests/deploy/test_layers.py.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.raw import template
from tools.architectures import Place, Refused, changed, choose, defaults, pinned, place, saved

ROOT = Path(__file__).parents[2]
ARM, INTEL = (dict.fromkeys(("WorkerArchitecture", "LambdaArchitecture"), name) for name in ("arm64", "x86_64"))
MIXED = ARM | {"WorkerArchitecture": "x86_64"}
#: As `sam deploy --guided` of the pinned version writes it.
SAVED = r"""
version = 0.1
[default.global.parameters]
stack_name = "replay"
[default.deploy.parameters]
parameter_overrides = "HandlerVpcId=\"vpc-1\" ProductionTag=\"Traffic Replay=on\" AutoTagKeys=\"\" GuardDutyFindings=\"on\" ForwardPercentage=\"50\" InstanceType=\"c7i.large\" WorkerArchitecture=\"x86_64\" LambdaArchitecture=\"arm64\""
[other.deploy.parameters]
parameter_overrides = ["LambdaArchitecture=x86_64", 'PercentageByHeader="a\"b"']
[table.deploy.parameters.parameter_overrides]
LambdaArchitecture = "x86_64"
FleetMinimum = 3
HandlerSubnetIds = ["subnet-1", "subnet-2"]
[long.deploy.parameters]
parameter_overrides = "ParameterKey=LambdaArchitecture,ParameterValue=x86_64 ParameterKey=ProductionTag,ParameterValue=a=b"
[everywhere.global.parameters]
parameter_overrides = "LambdaArchitecture=x86_64"
[everywhere.deploy.parameters]
resolve_s3 = true
"""  # noqa: E501
ANSWERS = {
    "HandlerVpcId": "vpc-1",
    "ProductionTag": "Traffic Replay=on",
    "AutoTagKeys": "",
    "GuardDutyFindings": "on",
    "ForwardPercentage": "50",
    "InstanceType": "c7i.large",
    **MIXED,
}
SAM = """#!/bin/sh
echo "sam $*" >>calls
[ "$1" != build ] || { mkdir -p .aws-sam/build && cp made.yaml .aws-sam/build/template.yaml; }
"""


# What was saved


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "samconfig.toml"
    path.write_text(SAVED)
    return path


@pytest.mark.parametrize(
    ("environment", "answers"),
    [
        ("default", ANSWERS),
        ("other", {"LambdaArchitecture": "x86_64", "PercentageByHeader": 'a"b'}),
        (
            "table",
            {"LambdaArchitecture": "x86_64", "FleetMinimum": "3", "HandlerSubnetIds": "subnet-1,subnet-2"},
        ),
        ("long", {"LambdaArchitecture": "x86_64", "ProductionTag": "a=b"}),
        ("everywhere", {"LambdaArchitecture": "x86_64"}),
        ("new", {}),
    ],
)
def test_answers_are_read_in_every_form_that_sam_reads(config: Path, environment: str, answers: dict[str, str]) -> None:
    assert saved(Place(config, environment)) == answers


def test_what_is_said_for_deploy_wins_over_what_is_said_for_all(tmp_path: Path) -> None:
    place = tmp_path / "samconfig.toml"
    sections = {"global": "Name=all", "deploy": "Name=deploy"}
    place.write_text(
        "".join(f'[default.{name}.parameters]\nparameter_overrides = "{words}"\n' for name, words in sections.items())
    )
    assert saved(Place(place)) == {"Name": "deploy"}


def test_a_deploy_shows_its_changes_first_and_has_what_it_needs() -> None:
    """Tests against the emulator confirm nothing, and say themselves where code goes."""
    deploy = tomllib.loads((ROOT / "samconfig.toml").read_text())["default"]["deploy"]["parameters"]
    needed = {
        "resolve_s3": True,
        "capabilities": "CAPABILITY_IAM",
        "confirm_changeset": True,
        "fail_on_empty_changeset": False,
    }
    assert needed.items() <= deploy.items()  # answers are saved beside them


def test_sam_reads_the_same(config: Path) -> None:
    """The pinned one, by the type of its own option."""
    program = """
import json, sys, tomllib
from samcli.cli.types import CfnParameterOverridesType
overrides = tomllib.load(open(sys.argv[1], "rb"))
read = CfnParameterOverridesType().convert
print(json.dumps({name: read(one["deploy"]["parameters"]["parameter_overrides"], None, None)
    for name, one in overrides.items() if name in ("default", "other", "table", "long")}))
"""
    python = ROOT / ".venv/tools/sam/bin/python"
    done = subprocess.run([python, "-c", program, config], check=True, capture_output=True, text=True)
    read: dict[str, dict[str, str]] = yaml.safe_load(done.stdout)
    assert len(read) == 4
    for name, answers in read.items():
        assert saved(Place(config, name)) == answers


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], Place()),
        (["--no-confirm-changeset", "--config-env", "shop", "--profile", "p"], Place(environment="shop")),
        (["--config-file=mine.toml", "--config-env=shop"], Place(Path("mine.toml"), "shop")),
    ],
)
def test_arguments_of_deploy_say_where_to_look(arguments: list[str], found: Place) -> None:
    assert place(arguments) == found


@pytest.mark.parametrize("arguments", [["--parameter-overrides", "A=b"], ["--parameter-overrides=A=b"]])
def test_what_would_drop_the_answers_is_refused(arguments: list[str]) -> None:
    with pytest.raises(Refused, match="would drop every answer"):
        place(arguments)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.toml", None, "cannot be read"),
        ("broken.toml", "[default", "cannot be read"),
        ("mine.yaml", "default: {}", "must be a TOML file"),
        ("odd.toml", "[default.deploy.parameters]\nparameter_overrides = 'file://more.yaml'", "is not NAME=VALUE"),
        ("odd.toml", "[default.deploy.parameters]\nparameter_overrides = 7", "no list"),
    ],
)
def test_a_file_that_cannot_be_read_is_no_empty_one(tmp_path: Path, name: str, text: str | None, told: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(Refused, match=told):
        saved(Place(path))


# The choice


@pytest.mark.parametrize(
    ("asked", "answers", "chosen"),
    [
        ("", {}, ARM),
        ("", {"LambdaArchitecture": "arm64", "WorkerArchitecture": "x86_64"}, MIXED),
        ("", {"WorkerArchitecture": "x86_64"}, MIXED),
        ("x86_64", {}, INTEL),
        ("x86_64", ARM, INTEL),
        ("arm64", MIXED, ARM),
    ],
)
def test_what_is_asked_for_wins_then_what_was_saved(asked: str, answers: dict[str, str], chosen: Any) -> None:
    assert choose(asked, answers, ARM) == chosen


@pytest.mark.parametrize(
    ("asked", "answers", "told"),
    [("x86", {}, "ARCH is x86"), ("", {"LambdaArchitecture": "riscv"}, "LambdaArchitecture is riscv")],
)
def test_another_architecture_is_refused(asked: str, answers: dict[str, str], told: str) -> None:
    with pytest.raises(Refused, match=f"{told}; it may be arm64 or x86_64"):
        choose(asked, answers, ARM)


def test_defaults_are_the_templates() -> None:
    assert defaults((ROOT / "template.yaml").read_text()) == ARM


@pytest.mark.parametrize(
    ("before", "chosen", "after"),
    [
        (None, ARM, "c7g.large"),
        (None, INTEL, "c7i.large"),
        ("c7g.large", INTEL, "c7i.large"),
        ("c7i.large", ARM, "c7g.large"),
        ("m7a.xlarge", INTEL, "m7a.xlarge"),
        ("m7a.xlarge", ARM, "m7a.xlarge"),  # CloudFormation and the instance say that it does not fit
    ],
)
def test_the_usual_instance_type_follows_a_chosen_one_stays(before: str | None, chosen: Any, after: str) -> None:
    answers = {"ForwardPercentage": "50"} | ({} if before is None else {"InstanceType": before})
    assert changed(answers, chosen) == {"ForwardPercentage": "50", "InstanceType": after, **chosen}


@pytest.mark.parametrize("chosen", [ARM, INTEL, MIXED])
def test_a_pinned_template_differs_in_the_pinned_parameters_alone(chosen: dict[str, str]) -> None:
    before, after = template(), pinned(template(), chosen)
    assert {name for name in before if before[name] != after[name]} == {"Parameters"}
    rules, made = before["Parameters"], after["Parameters"]
    assert rules.keys() == made.keys()
    assert {name for name in rules if rules[name] != made[name]} <= {*chosen, "InstanceType"}
    for name, architecture in chosen.items():
        assert made[name]["Default"] == architecture
        assert made[name]["AllowedValues"] == [architecture]
        assert made[name]["ConstraintDescription"].startswith(f"built for {architecture};")
        assert made[name]["Type"] == rules[name]["Type"]
    usual = {"arm64": "c7g.large", "x86_64": "c7i.large"}[chosen["WorkerArchitecture"]]
    assert made["InstanceType"] == rules["InstanceType"] | {"Default": usual}


# make


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What `make build` needs, set up: interpreter and make are real."""
    for name in ("Makefile", "template.yaml", "tools/architectures.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "made.yaml").write_text(yaml.safe_dump(template()))
    (tmp_path / "samconfig.toml").write_text(SAVED)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", tmp_path / ".venv")
    (tmp_path / ".venv/lib").symlink_to(Path(sys.prefix) / "lib")
    for script, text in {
        "tools/setup-tools.sh": "#!/bin/sh\n",
        "tools/credentials.sh": "#!/bin/sh\necho credentials $AWS_DEFAULT_REGION $* >>calls\n",
        ".venv/tools/sam/bin/sam": SAM,
    }.items():
        (tmp_path / script).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / script).write_text(text)
        (tmp_path / script).chmod(0o755)
    makefile = (ROOT / "Makefile").read_text()
    for name in next(line for line in makefile.splitlines() if line.startswith("SETUP_INPUTS")).split()[2:]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".venv/.ready").write_text(f"{tmp_path.resolve()}\n")
    return tmp_path


def make(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (tree / "calls").write_text("")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tree)}
    command = ["make", "--silent", *words]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False, timeout=60)


def calls(tree: Path) -> list[str]:
    return (tree / "calls").read_text().splitlines()


def pins(tree: Path) -> dict[str, Any]:
    rules = yaml.safe_load((tree / ".aws-sam/build/template.yaml").read_text())["Parameters"]
    return {name: rules[name]["AllowedValues"] for name in ARM}


def test_deploy_builds_and_asks_with_the_answers_of_last_time(tree: Path) -> None:
    done = make(tree, "deploy", "ARGS=--profile shop")
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(tree) == [
        "credentials --profile shop",
        "sam build --cached --parallel --parameter-overrides WorkerArchitecture=x86_64 LambdaArchitecture=arm64",
        "sam deploy --guided --confirm-changeset --parameter-overrides file://.aws-sam/answers.yaml --profile shop",
    ]
    assert pins(tree) == {name: [architecture] for name, architecture in MIXED.items()}
    assert yaml.safe_load((tree / ".aws-sam/answers.yaml").read_text()) == ANSWERS


def test_deploy_for_another_architecture_keeps_all_other_answers(tree: Path) -> None:
    assert make(tree, "deploy", "ARCH=arm64").returncode == 0
    assert "WorkerArchitecture=arm64 LambdaArchitecture=arm64" in calls(tree)[1]
    answers = yaml.safe_load((tree / ".aws-sam/answers.yaml").read_text())
    assert answers == ANSWERS | ARM | {"InstanceType": "c7g.large"}


def test_every_answer_is_text(tree: Path) -> None:
    """In YAML a bare `on` or `50` is none, and the SAM CLI would hand on another word."""
    make(tree, "build")
    text = (tree / ".aws-sam/answers.yaml").read_text()
    assert '"GuardDutyFindings": "on"' in text
    assert '"ForwardPercentage": "50"' in text


def test_build_looks_where_deploy_does(tree: Path) -> None:
    (tree / "mine.toml").write_text(SAVED)
    (tree / "samconfig.toml").write_text("version = 0.1\n")
    make(tree, "build")
    assert pins(tree) == {name: ["arm64"] for name in ARM}
    make(tree, "build", "ARGS=--config-file mine.toml --config-env other")
    assert pins(tree) == {"WorkerArchitecture": ["arm64"], "LambdaArchitecture": ["x86_64"]}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ARCH=x86"], "build: ARCH is x86; it may be arm64 or x86_64."),
        (["ARGS=--config-file none.toml"], "build: none.toml cannot be read"),
        (["ARGS=--parameter-overrides WorkerImageId=ami-1"], "build: --parameter-overrides would drop every answer"),
    ],
)
def test_what_cannot_be_right_ends_before_anything_is_built(tree: Path, words: list[str], told: str) -> None:
    done = make(tree, "deploy", *words)
    assert done.returncode != 0
    assert done.stderr.startswith(told)
    assert calls(tree) == []


def test_the_region_that_the_aws_cli_reads_counts(tree: Path) -> None:
    make(tree, "deploy", "AWS_REGION=eu-west-1")
    assert calls(tree)[0] == "credentials eu-west-1"
    make(tree, "deploy", "AWS_REGION=eu-west-1", "AWS_DEFAULT_REGION=eu-north-1")
    assert calls(tree)[0] == "credentials eu-north-1"
