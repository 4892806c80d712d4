"""Every policy that the documentation shows is one."""

import re
from pathlib import Path

import pytest

from mirroring.legacy import convert
from mirroring.policy import AutotagRule, Defaults, Finding, Limits, Match, Policy, Source, Window, check_size, load

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Keys at the top level that only a policy has.
POLICY = re.compile(
    rf"^({'|'.join(sorted(Policy.model_fields.keys() - {'version', 'description', 'except_'}))}):", re.MULTILINE
)
LEGACY = re.compile(r"^ *-? *(tagList|subnetId|vpcId):", re.MULTILINE)


def examples(of: re.Pattern[str]) -> list[object]:
    return [
        pytest.param(found[1], id=f"{page.name}:{page.read_text().count('\n', 0, found.start()) + 1}")
        for page in PAGES
        for found in FENCED.finditer(page.read_text())
        if of.search(found[1])
    ]


POLICIES, LEGACIES = examples(POLICY), examples(LEGACY)


def test_there_are_examples() -> None:
    assert len(POLICIES) >= 5
    assert LEGACIES


@pytest.mark.parametrize("text", POLICIES)
def test_a_policy_example_is_valid(text: str) -> None:
    assert load(text).sources
    check_size(text, "Standard")


@pytest.mark.parametrize("text", LEGACIES)
def test_a_configuration_of_source_automation_becomes_a_policy(text: str) -> None:
    assert load(convert(text)).sources


def test_the_page_names_every_key() -> None:
    page = (ROOT / "docs/policy.md").read_text()
    for model in (Policy, Source, Match, Window, Limits, AutotagRule, Finding):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in page


def test_the_page_says_the_defaults_that_are() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*?) \|", (ROOT / "docs/policy.md").read_text(), re.MULTILINE))
    for name in ("interfaces", "share", "session_number"):
        assert rows[name] == f"{getattr(Defaults(), name):g}" if name == "share" else str(getattr(Defaults(), name))
    for name in Limits.model_fields:
        assert float(rows[name]) == getattr(Limits(), name)
    for name in ("paused", "delete_on_stop"):
        assert rows[name] == str(getattr(Policy(), name)).lower()
