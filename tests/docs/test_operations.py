"""docs/operations.md is read at three in the morning: what is to be typed is right, and links lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.deploy.raw import template
from tests.docs.commands import commands, faults

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
COMMANDS = list(commands(PAGE))


def test_there_are_commands_of_each_program() -> None:
    assert {"aws", "mirrorctl", "replayer", "curl", "sudo"} <= {words[0] for words in COMMANDS}


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:3]))
def test_a_command_is_well_formed(words: list[str]) -> None:
    assert faults(words) == []


def test_resources_and_parameters_that_it_names_are_the_templates() -> None:
    written = template()
    named = set(re.findall(r"--logical-resource-id (\w+)", PAGE))
    named |= {f"{name}DeadLetters" for name in ("Reconcile", "Autotag", "Lifecycle")}
    assert named <= written["Resources"].keys()
    for name in ("FleetMinimum", "FleetMaximum", "InstanceType", "FilterByDestinationPort", "MirrorSourceCidrs"):
        assert f"`{name}`" in PAGE and name in written["Parameters"]
    for name in ("PolicyParameterName", "WorkerSettingsParameter", "AutoTagKeys", "ProductionVpcIds"):
        assert f"`{name}`" in PAGE and name in written["Parameters"]


def test_links_within_the_page_lead_to_a_heading() -> None:
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    assert links and links <= headings


def test_it_is_short_enough_to_be_read() -> None:
    assert len(PAGE.splitlines()) <= 240
