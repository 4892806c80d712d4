"""For which architectures is built, and that nothing else can be deployed from it.

`sam build` must know the architectures before `sam deploy --guided` asks for them, and what was built for one does not
run on the other. So one place decides, for both commands: what ARCH says, else what was answered at the last deploy,
else the template's default. The built template, a generated file, then allows no other answer: CloudFormation refuses
one before it makes anything.

    python tools/architectures.py choose ARCH ARGS...    the two parameters, as `sam build` takes them
    python tools/architectures.py pin ARCH ARGS...       .aws-sam/build/template.yaml, and .aws-sam/answers.yaml

ARCH may be empty. ARGS are those of `sam deploy`; --config-env and --config-file say where the answers were saved.
The answers of last time are handed to `sam deploy` whole, with what ARCH changes in them: parameters that are given to
it replace all that it saved, they do not add to them.
"""

import argparse
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TEMPLATE, CONFIG = Path("template.yaml"), Path("samconfig.toml")
BUILT, ANSWERS = Path(".aws-sam/build/template.yaml"), Path(".aws-sam/answers.yaml")

PARAMETERS = ("WorkerArchitecture", "LambdaArchitecture")
#: What InstanceType is while nobody chose one.
USUAL = {"arm64": "c7g.large", "x86_64": "c7i.large"}
#: "ParameterKey=Name,ParameterValue=value", the other way of writing Name=value.
LONG = re.compile(r"ParameterKey=(\w+),ParameterValue=(.*)", re.DOTALL)


class Refused(Exception):
    """Nothing is built."""


@dataclass(frozen=True)
class Place:
    """Where `sam deploy` finds what was saved, and saves it."""

    config: Path = CONFIG
    environment: str = "default"


def place(arguments: Sequence[str]) -> Place:
    """What `sam deploy` would take from these; of other options only the one that would undo the answers matters."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-file", type=Path, default=CONFIG)
    parser.add_argument("--config-env", default="default")
    known, others = parser.parse_known_args(arguments)
    if any(word.partition("=")[0] == "--parameter-overrides" for word in others):
        raise Refused(
            "--parameter-overrides would drop every answer that was saved: give this answer when you are asked."
        )
    return Place(known.config_file, known.config_env)


def saved(place: Place) -> dict[str, str]:
    """Parameters as they were answered at the last deploy from here."""
    if place.config.suffix != ".toml":
        raise Refused(f"{place.config} must be a TOML file, such as a copy of {CONFIG}.")
    try:
        environment = tomllib.loads(place.config.read_text()).get(place.environment, {})
    except (OSError, ValueError) as error:
        raise Refused(f"{place.config} cannot be read ({error}). It begins as a copy of {CONFIG}.") from None
    sections = [environment.get(command, {}).get("parameters", {}) for command in ("global", "deploy")]
    overrides: Any = next(
        (one["parameter_overrides"] for one in reversed(sections) if "parameter_overrides" in one), {}
    )
    return dict(_pairs(overrides))


def _pairs(overrides: Any) -> Iterator[tuple[str, str]]:
    """The SAM CLI writes one string, and reads lists and tables too."""
    match overrides:
        case str():
            yield from map(_pair, shlex.split(overrides))
        case list():
            for each in overrides:
                yield from _pairs(each)
        case dict():
            for name, value in overrides.items():
                yield name, ",".join(map(str, value)) if isinstance(value, list) else str(value)
        case _:
            raise Refused(f"parameter_overrides: {overrides!r} is no list of NAME=VALUE.")


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = LONG.sub(r"\1=\2", word).partition("=")
    if not equals:
        raise Refused(f"parameter_overrides: {word} is not NAME=VALUE.")
    return name, value


def choose(asked: str, answers: Mapping[str, str], defaults: Mapping[str, str]) -> dict[str, str]:
    """The two architectures. One that is asked for is meant for both."""
    chosen = {name: asked or answers.get(name) or defaults[name] for name in PARAMETERS}
    for name, architecture in chosen.items():
        if architecture not in USUAL:
            raise Refused(f"{'ARCH' if asked else name} is {architecture}; it may be {' or '.join(USUAL)}.")
    return chosen


def changed(answers: Mapping[str, str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The saved answers with this choice in them. An instance type that somebody chose stays."""
    given = answers.get("InstanceType", "")
    fitting = USUAL[chosen["WorkerArchitecture"]]
    return {**answers, **chosen, "InstanceType": fitting if given in ("", *USUAL.values()) else given}


def pinned(template: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """The built template, which now can be deployed as it was built only."""
    rules = dict(template["Parameters"])
    for name, architecture in chosen.items():
        other = next(one for one in USUAL if one != architecture)
        told = f"built for {architecture}; make deploy ARCH={other} builds for {other}"
        pins = {"Default": architecture, "AllowedValues": [architecture], "ConstraintDescription": told}
        rules[name] = rules[name] | pins
    rules["InstanceType"] = rules["InstanceType"] | {"Default": USUAL[chosen["WorkerArchitecture"]]}
    return {**template, "Parameters": rules}


def defaults(template: str) -> dict[str, str]:
    """Of the template as it is written."""
    rules = yaml.load(template, _Written)["Parameters"]
    return {name: rules[name]["Default"] for name in PARAMETERS}


class _Written(yaml.SafeLoader):
    """Short forms such as !Ref do not matter here."""


_Written.add_multi_constructor("!", lambda *_: None)


def main(command: str, asked: str, *arguments: str) -> None:
    answers = saved(place(arguments))
    chosen = choose(asked, answers, defaults(TEMPLATE.read_text()))
    if command == "choose":
        print(" ".join(f"{name}={value}" for name, value in chosen.items()))
        return
    BUILT.write_text(
        yaml.safe_dump(pinned(yaml.safe_load(BUILT.read_text()), chosen), sort_keys=False, allow_unicode=True)
    )
    ANSWERS.write_text(yaml.safe_dump(changed(answers, chosen), default_style='"'))  # or "on" would be a truth value


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Refused as refused:
        sys.exit(f"build: {refused}")
