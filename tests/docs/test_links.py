"""What README and docs/ link to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
_ELSEWHERE = re.compile(r"[a-z]+:")


def missing(page: Path, text: str) -> list[str]:
    """Files of this tree that the text links to, relative to the page, and that are not there."""
    links = [link for link in _LINK.findall(text) if not _ELSEWHERE.match(link)]
    return [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_linked_files_are_there(page: Path) -> None:
    assert missing(page, page.read_text()) == []


def test_a_dead_link_is_found() -> None:
    text = "[a](docs/lab.md#start-it) ![b](docs/none.svg) [c](https://example.com/x) [d](#here)"

    assert missing(ROOT / "README.md", text) == ["docs/none.svg"]
