"""`make lint`'s checks of the templates can fail, and every exception from them is explained and needed.

The templates themselves are checked by `make lint`; here the same commands, as the Makefile has them, get copies that
are broken, or that have lost their exceptions.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEMPLATES = [
    ROOT / "template.yaml",
    *sorted(ROOT.glob("examples/*.yaml")),
    *sorted(ROOT.glob("worker/image/image.yaml")),
]

#: `# checkov:skip=ID: reason` in a resource
SKIP = re.compile(r"# *checkov:skip=(?P<ids>CKV\w+)(?P<reason>.*)")
#: `ignore_checks: [ID]} # reason`, or `- ID # reason` below it
IGNORED = re.compile(r"(?:ignore_checks: \[|- )(?P<ids>[EWI]S?\d{4}(?:, [EWI]S?\d{4})*)\b\W*(?P<reason>.*)")
NOTHING = "W0000"


def exceptions(text: str, form: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Ids of checks and the reason beside each."""
    for match in form.finditer(text):
        for name in match["ids"].split(", "):
            yield name, match["reason"].strip(" :")


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)


@cache
def commands() -> dict[str, list[str]]:
    """What `make lint` runs on templates, by the checker's name; FILE stands for the template."""
    done = run(["make", "--dry-run", "--always-make", "lint", "TEMPLATE=FILE", "TEMPLATES=FILE"], ROOT)
    words = [shlex.split(line) for line in done.stdout.splitlines() if "FILE" in line]
    return {next(Path(word).name for word in line if "=" not in word): line for line in words}


def check(name: str, *files: Path, more: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    line = [word for word in commands()[name] if "=" not in word and word != "FILE"]
    environment = {"PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": "eu-west-1", "SAM_CLI_TELEMETRY": "0"}
    if name == "checkov":
        assert line.pop() == "--file"
        given = [part for file in files for part in ("--file", str(file))]
    else:
        given = [str(file) for file in files]
    end = line.index("--") if "--" in line else len(line)
    return subprocess.run(
        [*line[:end], *more, *line[end:], *given],
        cwd=files[0].parent,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_exception_says_why(template: Path) -> None:
    text = template.read_text()
    explained = [*exceptions(text, SKIP), *exceptions(text, IGNORED)]
    assert [name for name, reason in explained if len(reason.split()) < 4] == []
    assert text.count("checkov:skip") == len(list(exceptions(text, SKIP)))
    assert (text.count("ignore_checks") == 0) == (list(exceptions(text, IGNORED)) == [])


def copies(folder: Path, form: re.Pattern[str], replacement: str) -> dict[Path, set[str]]:
    """The templates without their exceptions of one form, and which those were.

    One that has none would be as `make lint` reads it already.
    """
    made = {}
    for number, template in enumerate(TEMPLATES):
        text = template.read_text()
        if not form.search(text):
            continue
        path = folder / f"{number}-{template.name}"
        path.write_text(
            form.sub(lambda match: match[0].replace(match["ids"], replacement).replace("checkov:", ""), text)
        )
        made[path] = {name for name, _ in exceptions(text, form)}
    assert made
    return made


def test_checkov_wants_every_exception_that_it_is_refused(tmp_path: Path) -> None:
    """And so shows that it can fail, on each of them."""
    made = copies(tmp_path, SKIP, "")
    done = check("checkov", *made, more=["--output", "json"])
    assert done.returncode == 1, done.stdout + done.stderr
    refused = json.loads(done.stdout)["results"]["failed_checks"]
    for path, expected in made.items():
        found = [one["check_id"] for one in refused if one["file_path"].endswith(path.name)]
        assert set(found) == expected
    total = sum(len(list(exceptions(template.read_text(), SKIP))) for template in TEMPLATES)
    assert len(refused) == total


def test_cfn_lint_wants_every_exception_that_it_is_refused_and_finds_a_misspelt_property(tmp_path: Path) -> None:
    made = copies(tmp_path, IGNORED, NOTHING)
    broken = misspelt(tmp_path)
    done = check("cfn-lint", *made, broken, more=["--format", "json"])
    assert done.returncode != 0, done.stdout + done.stderr
    found = {(Path(one["Filename"]).name, one["Rule"]["Id"]) for one in json.loads(done.stdout)}
    for path, expected in made.items():
        assert {rule for name, rule in found if name == path.name} == expected
    assert (broken.name, "E3002") in found


MISSPELT = """\
Transform: AWS::Serverless-2016-10-31
Resources:
  Calls:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: tagger
      EventSourceArn: !Sub arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:calls
      MaximumBatchingWindowSeconds: 1 # …InSeconds
"""


def misspelt(folder: Path) -> Path:
    """A template with a property that AWS does not know, and but for that a good one."""
    path = folder / "misspelt.yaml"
    path.write_text(MISSPELT)
    return path


def test_sam_finds_a_misspelt_property(tmp_path: Path) -> None:
    done = check("sam", misspelt(tmp_path))
    assert done.returncode != 0, done.stdout + done.stderr
    assert "MaximumBatchingWindowSeconds" in done.stdout + done.stderr


def test_lint_reads_every_template_and_every_script() -> None:
    done = run(["make", "--dry-run", "--always-make", "lint"], ROOT)
    lines = done.stdout.splitlines()
    for name in ("cfn-lint", "checkov"):
        (line,) = (line for line in lines if f"/{name} " in line)
        assert all(str(template.relative_to(ROOT)) in line.split() for template in TEMPLATES)
    (line,) = (line for line in lines if line.startswith("shellcheck "))
    scripts = run(["git", "ls-files", "*.sh"], ROOT).stdout.split()
    assert {path.removeprefix("./") for path in line.split()[1:]} >= {".ci/run", *scripts}


BAD_SCRIPT = '#!/bin/bash\nif [ "$1" == a ] then; echo $1; fi\n'


def test_shellcheck_finds_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.sh").write_text(BAD_SCRIPT)
    assert run(["shellcheck", "bad.sh"], tmp_path).returncode != 0
