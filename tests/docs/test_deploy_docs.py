"""The pages for those who deploy: their commands are well formed, their tables true, their links lead somewhere.

`python -m tests.docs.test_deploy_docs` writes the sums of docs/cost.md anew.
"""

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from mirroring.prices import LIST_PRICE
from tests.deploy.raw import template
from tests.docs.commands import commands, faults, mentioned
from tests.docs.variables import unassigned

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DEPLOY, COST = DOCS / "deploy.md", DOCS / "cost.md"
PAGES = [DEPLOY, COST, DOCS / "accounts.md", DOCS / "verification.md"]
TEMPLATES = ("template.yaml", "examples/vpc.yaml", "examples/environments.yaml", "worker/image/image.yaml")
LINK = re.compile(r"\]\(([^)#\s]+)(#[\w-]+)?\)")
PATH = re.compile(r"`((?:docs|tests|examples|worker|lab|layers|functions|events|tools)/[\w./-]+)`")
HOURS = 730

type Table = dict[str, tuple[str, ...]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_well_formed(page: Path) -> None:
    shown = list(commands(page.read_text()))
    assert shown
    assert [fault for words in shown for fault in faults(words)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_the_text_are_well_formed(page: Path) -> None:
    found = [fault for words in mentioned(page.read_text()) for fault in faults(words)]
    assert [fault for fault in found if not fault.endswith("is missing")] == []


@pytest.mark.parametrize(
    "wrong",
    [
        "aws ec2 describe-traffic-miror-sessions",
        "aws ec2 describe-traffic-mirror-sessions --filter Name=owner-id,Values=1",
        "aws ec2 delete-traffic-mirror-session",
        "aws ssm put-parameter --name /a --value b --type Text",
        "aws ssm put-parameter --name /a --value b --overwrite yes",
        "aws sqs receive-message --queue-url u --max-number-of-messages all",
        "aws cloudformation describe-stacks --query 'Stacks[0'",
        "aws cloudformation wait stack-gone --stack-name a",
        "aws lambda invoke --function-name a",
        "aws logs tail /a --from 5m",
        "aws nothing list-things",
        "sam deploy --stack-nam a",
        "sam deploy --stack-name --guided",
        "sam undeploy",
        "make nothing",
        "make test NOTHING=1",
        "mirrorctl plan --chek",
        "mirrorctl explain",
        "replayer check --confg worker.yaml",
        "mirorctl plan",
    ],
)
def test_a_wrong_command_is_found(wrong: str) -> None:
    found = [fault for words in commands(f"```sh\n{wrong}\n```\n") for fault in faults(words)]
    assert len(found) == 1, found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export A=$(aws sts get-caller-identity --query Account)", [["aws"], ["export"]]),
        ('aws ssm get-parameter --name "/$S/p" | jq . > file', [["aws"], ["jq"]]),
        ("for A in b c; do make test && make lint; done", [["make"], ["make"]]),
        ("A=1 sam build \\\n  --debug  # why", [["sam"]]),
        ("# only a remark", []),
    ],
)
def test_commands_are_found_in_a_line(line: str, words: list[list[str]]) -> None:
    assert [found[:1] for found in commands(f"```sh\n{line}\n```\n")] == words


def test_commands_are_found_in_the_text() -> None:
    text = "Run `make test`, then `sam deploy --guided`; the `aws` program is yours.\n```sh\nmake lint\n```\n"
    assert list(mentioned(text)) == [["make", "test"], ["sam", "deploy", "--guided"]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_variables_are_assigned_before_they_are_used(page: Path) -> None:
    assert unassigned(page.read_text()) == []


@pytest.mark.parametrize(
    ("page", "missing"),
    [
        ("```sh\nexport A=1 B=2   # both\naws $A ${B} $C\n```\n", ["C"]),
        ("```sh\nA=$(aws $B)\nB=1\naws $A ${B%%,*}\n```\n", ["B"]),
        ("```sh\naws $A\n```\nThen\n```sh\nA=1\n```\n", ["A"]),
        ("Say `export A=… B=…` first.\n```sh\naws $A $B\n```\n", []),
        ("```sh\nfor A in b c; do aws $A --x Key=$B; done\n```\n", ["B"]),
        ("```sh\nmake deploy ARCH=x\naws --names Key=1 KEY=1 $ARCH $KEY\n```\n", ["ARCH", "KEY"]),
        ("```sh\naws a \\\n  --b $B\n# $C\n```\n", ["B"]),
        ("```json\n$A\n```\nand `$B` in the text\n", []),
    ],
)
def test_a_variable_without_a_value_is_found(page: str, missing: list[str]) -> None:
    assert unassigned(page) == missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [found for found in LINK.findall(text) if not found[0].startswith("https://")]
    missing = [link for link, _ in links if not (page.parent / link).exists()]
    missing += [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    missing += [f"{link}{anchor}" for link, anchor in links if anchor and anchor[1:] not in anchors(page.parent / link)]
    assert missing == []


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_parameters_are_those_of_the_template() -> None:
    found = template()
    expected = []
    for group in found["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]:
        expected.append((f"**{group['Label']['default']}**", ""))
        for name in group["Parameters"]:
            default = found["Parameters"][name].get("Default")
            told = "*required*" if default is None else f"`{default}`" if str(default) else "*empty*"
            expected.append((f"`{name}`", told))
    assert {name.strip("`") for name, _ in expected if "`" in name} == found["Parameters"].keys()
    [rows] = tables(DEPLOY.read_text(), "parameter")
    assert [(name, cells[0]) for name, cells in rows.items()] == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_outputs_and_logical_ids_are_there(page: Path) -> None:
    stacks = [template(ROOT / name) for name in TEMPLATES]
    outputs = {name for stack in stacks for name in stack["Outputs"]}
    words = [word for shown in commands(page.read_text()) for word in shown]
    assert {found for word in words for found in re.findall(r"OutputKey=='(\w+)'", word)} <= outputs
    ids = {after for word, after in pairwise(words) if word == "--logical-resource-id"}
    ids |= {found for word in words for found in re.findall(r"LogicalResourceId=='(\w+)'", word)}
    assert ids <= stacks[0]["Resources"].keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_parameters_that_commands_set_are_there(page: Path) -> None:
    for words in commands(page.read_text()):
        names = {word.partition("=")[0] for word in words if re.match(r"[A-Z][a-z]\w+=", word)}
        names |= {name for word in words for name in re.findall(r"ParameterKey=(\w+)", word)}
        of = next((after for word, after in pairwise(words) if word == "--template-file"), TEMPLATES[0])
        known = template(ROOT / (of if of in TEMPLATES else TEMPLATES[0]))["Parameters"]
        assert names - {"ParameterKey", "Name", "Key"} <= known.keys()


def tables(text: str, first: str) -> list[Table]:
    """The tables whose first column is headed so: first cell of a row → the others."""
    found: list[Table] = []
    table: Table | None = None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            table = None
        elif cells[0] == first and table is None:
            found.append(table := {})
        elif table is not None and not set(line) <= set("|-: "):
            table[cells[0]] = tuple(cells[1:])
    return found


def number(text: str) -> Decimal:
    return Decimal(text.replace(",", ""))


def month(of: Mapping[str, Decimal], price: Mapping[str, Decimal]) -> dict[str, Decimal]:
    """What a month costs, by what is paid for."""
    seconds = HOURS * 3600
    requests = of["requests a second, mean of the month"] * seconds
    mirrored = requests * of["mirrored bytes of a request"] / 10**9
    part = of["replayed requests, per cent"] / 100
    replayed = requests * part * of["bytes of a replayed request with its answer"] / 10**9
    zones = of["zones; of n, (n − 1)/n of the bytes cross"]
    crossing = (zones - 1) / zones * price["between zones"]
    workers = of["workers, c7g.large"]
    logs = workers * of["log data of a worker, GB a month"]
    instances = of["mirrored instances, one interface each"]
    invocations = of["function invocations"]
    return {
        "mirror sessions": instances * HOURS * price["mirror session"],
        "workers": workers * HOURS * price["c7g.large"],
        "workers' detailed metrics": workers * of["detailed metrics of a worker"] * price["custom metric"],
        "workers' disks": workers * of["disk of a worker, GB"] * price["gp3 volume"],
        "NLB, hours": HOURS * price["NLB"],
        "NLB, capacity by mirrored bytes": mirrored * price["NLB capacity unit"],
        "mirrored bytes between zones": mirrored * crossing,
        "replayed bytes between zones": replayed * crossing,
        "NAT, hours": of["NAT gateways"] * HOURS * price["NAT gateway"],
        "NAT, workers' log data": logs * price["NAT gateway, bytes"],
        "functions": invocations / 10**6 * price["function requests"]
        + invocations * of["GB-seconds of an invocation"] * price["function time, arm64"],
        "SQS": of["SQS requests, million"] * price["SQS"],
        "metrics": of["custom metrics"] * price["custom metric"],
        "logs": logs * price["log data"],
        "alarms": of["metrics that alarms read"] * price["alarm"] + instances * price["alarm on a query"],
        "dashboard": price["dashboard"],
    }


def sums(page: str) -> list[str]:
    """The rows of the third table, from the first two."""
    assumed, priced = tables(page, "")
    price = {name: number(cells[0]) for name, cells in priced.items()}
    sizes = [month({name: number(cells[at]) for name, cells in assumed.items()}, price) for at in range(3)]
    rows = [(name, [size[name] for size in sizes]) for name in sizes[0]]
    rows.append(("**together**", [sum(size.values(), Decimal(0)) for size in sizes]))
    return [f"| {name} | {' | '.join(money(value) for value in values)} |" for name, values in rows]


def money(value: Decimal) -> str:
    return f"{value.quantize(Decimal(1) if value >= 100 else Decimal('0.01'), ROUND_HALF_UP):,}"


def rewritten(page: str) -> str:
    before, head, after = page.partition("| USD a month | small | medium | large |\n|---|---|---|---|\n")
    return before + head + "\n".join(sums(page)) + "\n" + after[re.match(r"(?:\|.*\n)*", after).end() :]  # type: ignore[union-attr]


def test_the_costs_are_the_sums_of_their_parts() -> None:
    page = COST.read_text()
    assert rewritten(page).splitlines() == page.splitlines()


def test_a_session_costs_what_mirrorctl_says() -> None:
    _, prices = tables(COST.read_text(), "")
    assert number(prices["mirror session"][0]) == LIST_PRICE.amount


def test_the_alarms_read_as_many_metrics_as_the_page_says() -> None:
    alarms = [one["Properties"] for one in template()["Resources"].values() if one["Type"] == "AWS::CloudWatch::Alarm"]
    read = sum("MetricStat" in metric for alarm in alarms for metric in alarm.get("Metrics", ()))
    read += sum("MetricName" in alarm for alarm in alarms)
    of_target_tracking = 2
    assumed, _ = tables(COST.read_text(), "")
    assert {number(cell) for cell in assumed["metrics that alarms read"]} == {Decimal(read + of_target_tracking)}


if __name__ == "__main__":
    COST.write_text(rewritten(COST.read_text()))
