"""The built stack is made anew when something that it is made of changed, and only then.

That `sam build` builds it is the story of tests/deploy, which uses what is kept here.
"""

import os
from pathlib import Path

import pytest

from lab import build
from lab.cloud.deployment import ROOT, DeploymentError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small project of the same shape."""
    made = tmp_path / "project"
    for name in ("functions/sweep/app.py", "layers/mirroring/mirroring/plan.py", "worker/image/install.sh"):
        (made / name).parent.mkdir(parents=True)
        (made / name).write_text(f"# {name}\n")
    (made / "tools").mkdir()
    (made / "tools/sam.lock").write_text("aws-sam-cli==1\n")
    (made / "template.yaml").write_text("Resources: {}\n")
    return made


def test_the_inputs_are_there() -> None:
    assert all((ROOT / name).exists() for name in build.INPUTS)


@pytest.mark.parametrize(
    "name",
    ["template.yaml", "functions/sweep/app.py", "layers/mirroring/mirroring/plan.py", "worker/image/install.sh",
     "tools/sam.lock", "functions/sweep/more.py", "worker/.dot/x"],
)  # fmt: skip
def test_a_changed_input_gives_another_key(root: Path, name: str) -> None:
    before = build.key(root)
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text("changed\n")

    assert (build.key(root) != before) is not name.startswith("worker/.dot")


def test_a_file_that_became_executable_gives_another_key(root: Path) -> None:
    before = build.key(root)
    (root / "worker/image/install.sh").chmod(0o755)

    assert build.key(root) != before


def test_a_renamed_file_gives_another_key(root: Path) -> None:
    before = build.key(root)
    (root / "functions/sweep/app.py").rename(root / "functions/sweep/apps.py")

    assert build.key(root) != before


def test_leavings_do_not_count(root: Path) -> None:
    before = build.key(root)
    for name in (
        "functions/sweep/__pycache__/app.pyc",
        "worker/dist/x.whl",
        "worker/x.egg-info/PKG-INFO",
        "worker/y.pyc",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("left over\n")

    assert build.key(root) == before


def _given(place: Path, name: str) -> Path:
    template = place / name / "build/template.yaml"
    template.parent.mkdir(parents=True)
    template.write_text("Resources: {}\n")
    return template


def test_what_is_there_is_taken_as_it_is(tmp_path: Path, root: Path) -> None:
    template = _given(tmp_path, f"stack-{build.key(root)}")

    assert build.built(tmp_path, root) == template
    assert not (tmp_path / "lock").exists()


def _make(folder: Path) -> Path:
    return _given(folder.parent, folder.name)


def _break(folder: Path) -> Path:
    _make(folder)
    raise DeploymentError("no network")


def test_a_build_that_is_out_of_date_goes_once_it_is_out_of_use(tmp_path: Path, root: Path) -> None:
    place = tmp_path / "place"
    old, used, cut_short = (_given(place, name) for name in ("stack-old", "stack-used", "making-1"))
    hours_ago = used.stat().st_mtime - 2 * 3600
    os.utime(old.parents[1], (hours_ago, hours_ago))

    made = build.built(place, root, _make)

    assert made.exists()
    assert used.exists()
    assert not old.exists()
    assert not cut_short.exists()


def test_it_is_built_once(tmp_path: Path, root: Path) -> None:
    made = build.built(tmp_path / "place", root, _make)

    assert build.built(tmp_path / "place", root, _break) == made


def test_a_build_that_fails_is_no_build(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DeploymentError):
        build.built(tmp_path / "place", root, _break)

    assert build.built(tmp_path / "place", root, _make).exists()
    assert not list((tmp_path / "place").glob("making-*"))
