"""functions/permissions.yaml against the code that needs it, and against stories of what must not be allowed.

Which operations a function calls is read from its code: the names of methods of `Ec2`, `Store` and `Bus` and of
builders in `runtime` that its modules mention, and the names of API operations that those hold.
"""

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import botocore.session
import pytest

from mirroring.bus import DETAIL_TYPE, SOURCE
from mirroring.model import (
    AUTOTAGGED_TAG,
    CONFIG_TAG,
    CREATED_TAG,
    DESCRIPTION_TAG,
    OPT_OUT_TAG,
    OWNER_TAG,
    SOURCE_TAG,
    STACK_TAG,
    UNTIL_TAG,
)
from tests.functions.listed import DOCUMENT, FUNCTIONS, TEXT, VALUES, filled_in, many, statements

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "layers/mirroring/mirroring"

#: Modules whose every line a function may run, beside its app.
MODULES = {
    "reconcile": ("reconcile", "apply", "pace", "permissions", "memory", "batch", "announce", "delivery"),
    "autotag": ("autotag", "pace", "tag_batch", "delivery"),
    "lifecycle": ("lifecycle",),
}
CALLERS = ("ec2", "backends", "store", "bus")
SERVICES = {  # of botocore: IAM's prefix
    "ec2": "ec2",
    "elbv2": "elasticloadbalancing",
    "ssm": "ssm",
    "sqs": "sqs",
    "events": "events",
    "lambda": "lambda",
}
NAMED_OTHERWISE = {"lambda:Invoke": "lambda:InvokeFunction"}


# What the code calls


@cache
def actions() -> Mapping[str, str]:
    """IAM actions by the names of API operations."""
    session = botocore.session.get_session()
    found: dict[str, str] = {}
    for service, prefix in SERVICES.items():
        for operation in session.get_service_model(service).operation_names:
            action = f"{prefix}:{operation}"
            found.setdefault(operation, NAMED_OTHERWISE.get(action, action))
    return found


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def operations(tree: ast.AST) -> set[str]:
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return texts & actions().keys()


def reached(tree: ast.AST, *, inside_runtime: bool = False) -> set[str]:
    """What a piece of code leads to: methods by their name, builders as runtime.NAME."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            of_runtime = isinstance(node.value, ast.Name) and node.value.id == "runtime"
            names.add(f"runtime.{node.attr}" if of_runtime else node.attr)
        elif isinstance(node, ast.Name) and inside_runtime:
            names.add(f"runtime.{node.id}")
    return names


@cache
def provided() -> Mapping[str, list[ast.FunctionDef]]:
    """Methods of the classes that call AWS, and builders, by the names that `reached` gives."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for module in CALLERS:
        for kind in (node for node in parse(PACKAGE / f"{module}.py").body if isinstance(node, ast.ClassDef)):
            for node in kind.body:
                if isinstance(node, ast.FunctionDef):
                    found.setdefault(node.name, []).append(node)
    for builder in (node for node in parse(PACKAGE / "runtime.py").body if isinstance(node, ast.FunctionDef)):
        found[f"runtime.{builder.name}"] = [builder]
    return found


def called(function: str) -> set[str]:
    """IAM actions that a function's code may ask for."""
    sources = [ROOT / f"functions/{function}/app.py", *(PACKAGE / f"{name}.py" for name in MODULES[function])]
    waiting = set().union(*(reached(parse(source)) for source in sources))
    found: set[str] = set()
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in provided().get(name, ()):
            found |= operations(node)
            waiting |= reached(node, inside_runtime=name.startswith("runtime."))
    return {actions()[name] for name in found}


# What is allowed


def granted(function: str, part: str) -> set[str]:
    return {action for statement in statements(function, part) for action in many(statement["Action"])}


EVERY = pytest.mark.parametrize("function", sorted(FUNCTIONS))


def test_there_is_a_list_for_every_function() -> None:
    assert FUNCTIONS.keys() == {path.parent.name for path in ROOT.glob("functions/*/app.py")} == MODULES.keys()


def test_the_reading_of_the_code_finds_what_it_should() -> None:
    """Or the two tests below would agree about nothing."""
    assert {"ec2:CreateTrafficMirrorSession", "ec2:DescribeInstances", "events:PutEvents"} <= called("reconcile")
    assert {"ec2:CreateTags", "sqs:ChangeMessageVisibility"} <= called("autotag")
    assert "ec2:DescribeNetworkInterfaces" not in called("autotag")
    assert called("lifecycle") == {
        "ec2:DescribeTrafficMirrorSessions",
        "ec2:DeleteTrafficMirrorSession",
        "ssm:PutParameter",
        "ssm:DeleteParameter",
        "sqs:SendMessage",
        "lambda:InvokeFunction",
    }


@EVERY
def test_what_the_code_calls_is_allowed(function: str) -> None:
    assert called(function) - granted(function, "code") == set()


@EVERY
def test_nothing_is_allowed_that_the_code_never_calls(function: str) -> None:
    assert granted(function, "code") - called(function) == set()


@EVERY
def test_platform_statements_are_of_queues_and_the_log_alone(function: str) -> None:
    expected = {"logs:CreateLogStream", "logs:PutLogEvents"}
    if function == "lifecycle":  # CloudFormation invokes it, and what it cannot answer goes to its dead letters
        expected |= {"sqs:SendMessage"}
    else:
        expected |= {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
    assert granted(function, "platform") == expected


@EVERY
def test_statements_are_well_formed(function: str) -> None:
    every = list(statements(function))
    assert len({statement["Sid"] for statement in every}) == len(every)
    for statement in every:
        assert statement["Effect"] == "Allow"
        assert (
            {"Sid", "Effect", "Action", "Resource"}
            <= statement.keys()
            <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        )
        assert re.fullmatch(r"[A-Za-z0-9]+", statement["Sid"])
        assert not any("*" in action for action in many(statement["Action"]))


@EVERY
def test_no_write_is_allowed_everywhere(function: str) -> None:
    for statement in statements(function):
        writes = [action for action in many(statement["Action"]) if not action.split(":")[1].startswith("Describe")]
        if not writes:
            continue
        assert "*" not in many(statement["Resource"])
        if any(action.startswith("ec2:") for action in writes):
            assert statement["Condition"]


def test_placeholders_are_known_and_used() -> None:
    used = set(re.findall(r"\$\{([^}]+)}", TEXT.split("functions:\n", 1)[1]))
    own = {name for name in used if not name.startswith("AWS::")}
    assert own == DOCUMENT["parameters"].keys()
    assert used - own == {"AWS::Partition", "AWS::Region", "AWS::AccountId", "AWS::StackName"}


def test_the_docs_name_every_parameter() -> None:
    text = (ROOT / "docs/permissions.md").read_text()
    assert [name for name in DOCUMENT["parameters"] if f"`{name}`" not in text] == []


# What would happen: an evaluation of the few operators that the list uses

EC2 = "arn:aws:ec2:eu-west-1:123456789012"


@dataclass
class Call:
    """One request, at one of the resources that it is authorised on."""

    action: str
    resource: str
    tags: Mapping[str, str] = field(default_factory=dict)  # of the resource
    puts: Mapping[str, str] = field(default_factory=dict)  # tags in the request
    context: Mapping[str, str | list[str]] = field(default_factory=dict)

    def keys(self) -> Mapping[str, list[str]]:
        keys = {"aws:RequestedRegion": ["eu-west-1"]} | {key: many(value) for key, value in self.context.items()}
        keys |= {f"aws:ResourceTag/{key}": [value] for key, value in self.tags.items()}
        keys |= {f"aws:RequestTag/{key}": [value] for key, value in self.puts.items()}
        return keys | ({"aws:TagKeys": list(self.puts)} if self.puts else {})


def allowed(function: str, call: Call) -> bool:
    return any(
        call.action in many(statement["Action"])
        and any(fnmatchcase(call.resource, pattern) for pattern in many(statement["Resource"]))
        and all(
            holds(operator, call.keys().get(key), many(wanted))
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
        for statement in filled_in(list(statements(function)), VALUES)
    )


def holds(operator: str, actual: Sequence[str] | None, wanted: Iterable[str]) -> bool:
    wanted = list(wanted)
    match operator:
        case "StringEquals":
            return actual is not None and actual[0] in wanted
        case "ArnLike":
            return actual is not None and any(fnmatchcase(actual[0], pattern) for pattern in wanted)
        case "ForAllValues:StringEquals":
            return all(value in wanted for value in actual or ())
        case "Null":
            return [str(actual is None).lower()] == wanted
    raise AssertionError(f"{operator} is not known here")


OURS = {OWNER_TAG: "replay"}
SESSION = f"{EC2}:traffic-mirror-session/tms-1"
INSTANCE = f"{EC2}:instance/i-1"


@pytest.mark.parametrize("function", ["reconcile", "lifecycle"])
@pytest.mark.parametrize(("tags", "may"), [(OURS, True), ({}, False), ({OWNER_TAG: "another"}, False)])
def test_only_sessions_of_ours_can_be_deleted(function: str, tags: Mapping[str, str], may: bool) -> None:
    assert allowed(function, Call("ec2:DeleteTrafficMirrorSession", SESSION, tags)) is may


@pytest.mark.parametrize(("tags", "may"), [(OURS, True), ({}, False)])
def test_only_sessions_of_ours_can_be_changed(tags: Mapping[str, str], may: bool) -> None:
    assert allowed("reconcile", Call("ec2:ModifyTrafficMirrorSession", SESSION, tags)) is may
    assert allowed("reconcile", Call("ec2:CreateTags", SESSION, tags, {CONFIG_TAG: "1"})) is may
    assert allowed("reconcile", Call("ec2:DeleteTags", SESSION, tags, {DESCRIPTION_TAG: ""})) is may


def test_a_new_session_must_bear_our_name() -> None:
    action = "ec2:CreateTrafficMirrorSession"
    assert allowed("reconcile", Call(action, SESSION, puts=OURS | {SOURCE_TAG: "web"}))
    assert not allowed("reconcile", Call(action, SESSION))
    assert not allowed("reconcile", Call(action, SESSION, puts={OWNER_TAG: "another"}))


def test_tags_come_with_a_new_session_and_cannot_make_one_ours() -> None:
    every = OURS | {SOURCE_TAG: "", CREATED_TAG: "", CONFIG_TAG: "", DESCRIPTION_TAG: ""}
    made = {"ec2:CreateAction": "CreateTrafficMirrorSession"}
    assert allowed("reconcile", Call("ec2:CreateTags", SESSION, puts=every, context=made))
    assert not allowed("reconcile", Call("ec2:CreateTags", SESSION, puts=OURS))
    assert not allowed("reconcile", Call("ec2:CreateTags", SESSION, OURS, {OWNER_TAG: "another"}))
    assert not allowed("reconcile", Call("ec2:DeleteTags", SESSION, OURS, {OWNER_TAG: ""}))
    assert not allowed("reconcile", Call("ec2:DeleteTags", SESSION, OURS))  # without keys: all of them


@pytest.mark.parametrize("action", ["ec2:CreateTrafficMirrorSession", "ec2:ModifyTrafficMirrorSession"])
@pytest.mark.parametrize("kind", ["target", "filter"])
def test_only_targets_and_filters_of_the_stack_can_be_used(action: str, kind: str) -> None:
    resource = f"{EC2}:traffic-mirror-{kind}/x"
    assert allowed("reconcile", Call(action, resource, {STACK_TAG: "replay"}))
    assert not allowed("reconcile", Call(action, resource))
    assert not allowed("reconcile", Call(action, resource, {STACK_TAG: "another"}))


@pytest.mark.parametrize(("vpc", "may"), [("vpc-1", True), ("vpc-2", True), ("vpc-3", False)])
def test_only_interfaces_in_named_vpcs_can_be_mirrored(vpc: str, may: bool) -> None:
    where = {"ec2:Vpc": f"{EC2}:vpc/{vpc}"}
    call = Call("ec2:CreateTrafficMirrorSession", f"{EC2}:network-interface/eni-1", context=where)
    assert allowed("reconcile", call) is may


@pytest.mark.parametrize("action", ["ec2:CreateTags", "ec2:DeleteTags"])
@pytest.mark.parametrize(
    ("tags", "puts", "may"),
    [
        ({}, ["env"], True),
        ({}, ["env", "team", AUTOTAGGED_TAG, UNTIL_TAG], True),
        ({}, ["cost-centre"], False),
        ({}, ["env", "cost-centre"], False),
        ({}, [OPT_OUT_TAG], False),
        ({}, [], False),
        ({OPT_OUT_TAG: ""}, ["env"], False),
    ],
)
def test_instances_get_granted_keys_alone_and_none_once_opted_out(
    action: str, tags: Mapping[str, str], puts: Sequence[str], may: bool
) -> None:
    assert allowed("autotag", Call(action, INSTANCE, tags, dict.fromkeys(puts, ""))) is may


@pytest.mark.parametrize("action", ["ec2:CreateTags", "ec2:DeleteTags"])
def test_each_role_tags_its_own_kind_of_thing(action: str) -> None:
    assert not allowed("reconcile", Call(action, INSTANCE, OURS, {CONFIG_TAG: ""}))
    assert not allowed("autotag", Call(action, SESSION, OURS, {"env": ""}))
    assert not allowed("lifecycle", Call(action, SESSION, OURS, {CONFIG_TAG: ""}))


def test_only_lifecycle_switches_the_stack_on_and_off_and_nobody_writes_a_policy() -> None:
    parameter = "arn:aws:ssm:eu-west-1:123456789012:parameter"
    put = "ssm:PutParameter"
    assert [name for name in sorted(FUNCTIONS) if allowed(name, Call(put, f"{parameter}/replay/state"))] == [
        "lifecycle"
    ]
    assert not any(allowed(name, Call(put, f"{parameter}/replay/policy")) for name in FUNCTIONS)


def test_lifecycle_invokes_itself_and_nothing_else() -> None:
    function = "arn:aws:lambda:eu-west-1:123456789012:function"
    assert allowed("lifecycle", Call("lambda:InvokeFunction", f"{function}:replay-lifecycle"))
    assert not allowed("lifecycle", Call("lambda:InvokeFunction", f"{function}:another"))


def test_only_our_own_events_reach_the_bus() -> None:
    def announce(source: str, kind: str) -> Call:
        context: dict[str, str | list[str]] = {"events:source": [source], "events:detail-type": [kind]}
        return Call("events:PutEvents", str(VALUES["EventBusArn"]), context=context)

    assert allowed("reconcile", announce(SOURCE, DETAIL_TYPE))
    assert not allowed("reconcile", announce("another", DETAIL_TYPE))
    assert not allowed("reconcile", announce(SOURCE, "another"))


def test_another_region_cannot_be_looked_at() -> None:
    call = Call("ec2:DescribeInstances", "*", context={"aws:RequestedRegion": "us-east-1"})
    assert not any(allowed(name, call) for name in FUNCTIONS)
    assert allowed("autotag", Call("ec2:DescribeInstances", "*"))
