"""What the commands about a policy print of 50 instances in three VPCs. Nothing here changes them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.cloud.account import Account, strict_aws
from lab.cloud.populate import Population, populate
from tests.layers.mirroring.program import DEFAULT, mirrorctl


@pytest.fixture(scope="module")
def shop() -> Iterator[tuple[Account, Population]]:
    with strict_aws() as account:
        yield account, populate(account)


def test_a_policy_is_shown(shop: tuple[Account, Population]) -> None:
    done = mirrorctl("policy", "show")
    assert done.code == 0
    assert done.out.startswith("version: 1\n")
    assert done.err == f"mirrorctl: in force is {DEFAULT} version 1\n"
    found = mirrorctl("policy", "show", "--json").json
    assert found["policy"]["sources"][1]["vni"] == 7001
    assert found["paused"] == ""


def test_validate_in_the_account(shop: tuple[Account, Population]) -> None:
    done = mirrorctl("policy", "validate")
    assert done.code == 0
    assert "source web selects 19 interfaces" in done.out
    assert "is allowed (dry run)" in done.out


def test_validate_finds_what_cannot_be_used(shop: tuple[Account, Population], tmp_path: Path) -> None:
    _, people = shop
    path = tmp_path / "policy.yaml"
    path.write_text(
        f"version: 1\nsources: [{{name: web, match: {{names: [nobody]}}, target: tmt-0000000000000000f, "
        f"filter: {people.filter}}}]\n"
    )
    done = mirrorctl("policy", "validate", "--policy", str(path), "--json")
    assert done.code == 1
    failed = [one["about"] for one in done.json["answers"] if one["outcome"] == "failed"]
    assert failed == ["target tmt-0000000000000000f"]
    warned = [one["about"] for one in done.json["answers"] if one["outcome"] == "warning"]
    assert warned == ["selection", "permissions"]


def test_validate_may_not_use_what_exists(shop: tuple[Account, Population]) -> None:
    account, _ = shop
    account.model.deny("CreateTrafficMirrorSession")
    done = mirrorctl("policy", "validate")
    account.model.faults.clear()
    assert done.code == 1
    assert "allow ec2:CreateTrafficMirrorSession" in done.out


# Without an account


def write(folder: Path, text: str) -> str:
    path = folder / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


RULE = "version: 1\nautotag: [{name: team, match: {names: ['*']}, tags: {team: shop}}]\n"


def test_validate_offline_asks_nobody(tmp_path: Path) -> None:
    done = mirrorctl("policy", "validate", "--offline", "--policy", write(tmp_path, RULE))
    assert done.code == 0
    assert "0 sources, 1 autotag rule" in done.out
    assert "fit a parameter of tier Standard" in done.out


def test_validate_offline_looks_at_the_tag_keys(tmp_path: Path) -> None:
    path = write(tmp_path, RULE)
    arguments = ("policy", "validate", "--offline", "--policy", path, "--autotag-keys")
    assert mirrorctl(*arguments, "team,env").code == 0
    done = mirrorctl(*arguments, "env")
    assert done.code == 1
    assert "tag key team is not allowed" in done.out


def test_validate_looks_at_the_size(tmp_path: Path) -> None:
    arguments = ("policy", "validate", "--offline", "--policy")
    path = write(tmp_path, f"version: 1\n#{'x' * 5000}\n")
    assert "fit a parameter of tier Advanced" in mirrorctl(*arguments, path).out
    done = mirrorctl(*arguments, path, "--tier", "Standard")
    assert done.code == 1
    assert "are too many" in done.out
    path = write(tmp_path, f"version: 1\n#{'x' * 9000}\n")
    assert mirrorctl(*arguments, path).code == 1


def test_validate_offline_needs_a_file() -> None:
    assert mirrorctl("policy", "validate", "--offline").code == 2


def test_a_policy_with_faults(tmp_path: Path) -> None:
    done = mirrorctl("policy", "validate", "--offline", "--policy", write(tmp_path, "version: 1\nsorces: []\n"))
    assert (done.code, done.out) == (2, "")
    assert 'line 2: sorces: "a list": there is no such key: did you mean sources?' in done.err


OLD = """\
vpcs:
  - vpcId: vpc-0123456789abcdef0
    targetId: tmt-0123456789abcdef0
    filterId: tmf-0123456789abcdef0
"""


def test_import(tmp_path: Path) -> None:
    done = mirrorctl("policy", "import", write(tmp_path, OLD))
    assert (done.code, done.err) == (0, "")
    assert mirrorctl("policy", "validate", "--offline", "--policy", write(tmp_path, done.out)).code == 0
    other = mirrorctl("policy", "import", write(tmp_path, OLD), "--target", "tmt-0000000000000000f")
    assert "tmt-0000000000000000f" in other.out
    bad = mirrorctl("policy", "import", write(tmp_path, "vpcs: []\n"))
    assert (bad.code, bad.out) == (2, "")
    assert "cannot be converted" in bad.err
