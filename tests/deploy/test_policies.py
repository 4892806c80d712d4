"""Every policy of the stack and of functions/permissions.yaml, statement by statement, before parliament and our rules.

What an emulator allows proves little: a policy may be too wide and pass, or name an action that AWS does not have.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lab.cloud.stack import Stack
from tests.deploy.given import REQUIRED, given
from tests.functions.listed import FUNCTIONS, VALUES, filled_in, many
from tests.functions.listed import statements as listed

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv/tools/checks/bin/python"
JUDGE = ROOT / "tests/deploy/judge.py"

#: CreateTrafficMirrorSession is authorised on each resource that it names, ModifyTrafficMirrorSession on those that it
#: changes. parliament wants all of them in one statement; these are split because each has a condition of its own.
SPLIT = {"MirrorFrom", "MirrorTo", "NewSessionsBearOurName"}
HARMLESS = {"Read", "List"}
MANAGED = {"arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"}

WIDE = {
    "ProductionVpcIds": "vpc-0123456789abcdef1,vpc-0123456789abcdef2",
    "ProductionSubnetIds": "subnet-0123456789abcdef2",
    "AutoTagKeys": "TrafficReplay,Env",
    "PolicyParameterName": "/mine/policy",
    "WorkerSettingsParameter": "/mine/worker",
    "AlarmTopicArn": "arn:aws:sns:eu-west-1:123456789012:alarms",
    "GuardDutyFindings": "on",
    "InterfaceEvents": "on",
}
TEMPLATE: Stack = given()
ENVIRONMENTS = Stack.read(ROOT / "examples/environments.yaml")
IMAGE = Stack.read(ROOT / "worker/image/image.yaml")
STACKS = {
    "as few parameters as possible": TEMPLATE,
    "as many as possible": TEMPLATE.with_parameters(**WIDE),
    "examples/environments.yaml": ENVIRONMENTS.with_parameters(
        HandlerVpcId=REQUIRED["HandlerVpcId"], HandlerSubnetIds=REQUIRED["HandlerSubnetIds"]
    ),
    "worker/image/image.yaml": IMAGE.with_parameters(
        VpcId=REQUIRED["HandlerVpcId"], SubnetId=REQUIRED["HandlerSubnetIds"].partition(",")[0]
    ),
}


@dataclass(frozen=True)
class Grant:
    """One statement of a policy: an identity's, or one that a resource bears."""

    where: str
    statement: Mapping[str, Any]
    borne: bool = False

    @property
    def sid(self) -> str:
        return str(self.statement.get("Sid", ""))


def statements(document: object) -> list[Mapping[str, Any]]:
    """Some resources take their policy as text."""
    read: Any = json.loads(document) if isinstance(document, str) else document
    return many(read["Statement"])


def of_stack(stack: Stack) -> Iterator[Grant]:
    for name, resource in stack.resources.items():
        for policy in resource.properties.get("Policies", []) if resource.type.startswith("AWS::IAM::") else []:
            for statement in statements(policy["PolicyDocument"]):
                yield Grant(f"{name}/{policy['PolicyName']}", statement)
        if "PolicyDocument" in resource.properties:
            for statement in statements(resource.properties["PolicyDocument"]):
                yield Grant(name, statement, borne=not resource.type.startswith("AWS::IAM::"))


def of_list() -> Iterator[Grant]:
    """Of functions/permissions.yaml."""
    for function in FUNCTIONS:
        for statement in filled_in(list(listed(function)), VALUES):
            yield Grant(function, statement)


def text_of(grant: Grant) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [grant.statement]}, sort_keys=True)


@cache
def verdicts() -> Mapping[str, Mapping[str, Any]]:
    """On every statement there is, all at once: parliament takes longer to start than to judge."""
    stacks = (grant for stack in STACKS.values() for grant in of_stack(stack))
    texts = {text_of(grant) for grant in (*stacks, *of_list(), *planted())}
    documents = {text: json.loads(text) for text in texts}
    done = subprocess.run(
        [PYTHON, JUDGE], input=json.dumps(documents), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: Mapping[str, Mapping[str, Any]] = json.loads(done.stdout)
    return found


def faults(grants: list[Grant]) -> list[str]:
    """What is wrong with them, each with its place."""
    found = []
    for grant in grants:
        verdict = verdicts()[text_of(grant)]
        wrong = [*unsound(grant, verdict["findings"], grants), *too_wide(grant, verdict["levels"])]
        found += [f"{grant.where} {grant.sid}: {words}" for words in wrong]
    return found


def unsound(grant: Grant, findings: list[Mapping[str, Any]], grants: list[Grant]) -> Iterator[str]:
    for finding in findings:
        if finding["issue"] == "RESOURCE_MISMATCH" and grant.sid in SPLIT:
            yield from (
                f"{need['action']} also needs {need['required_format']}"
                for need in finding["detail"]
                if not granted(need["action"], need["required_format"], grant.where, grants)
            )
        else:
            yield f"{finding['issue']} {finding['detail']}"


def granted(action: str, form: str, where: str, grants: list[Grant]) -> bool:
    """Whether another statement of the same policy allows the action on resources of that form."""
    beside = (grant.statement for grant in grants if grant.where == where)
    return any(
        action in many(statement["Action"]) and any(fnmatchcase(one, form) for one in many(statement["Resource"]))
        for statement in beside
    )


def too_wide(grant: Grant, levels: Mapping[str, str | None]) -> Iterator[str]:
    statement = grant.statement
    if statement["Effect"] != "Allow":
        return
    conditions = {key for test in statement.get("Condition", {}).values() for key in test}
    for action in many(statement.get("Action", "*")):
        if "*" in action:
            yield f"{action} names what is not known yet"
        if levels.get(action) not in HARMLESS and "*" in many(statement.get("Resource", "*")) and not conditions:
            yield f"{action} writes to everything, on no condition"
        if action == "iam:PassRole" and ("*" in many(statement["Resource"]) or "iam:PassedToService" not in conditions):
            yield "iam:PassRole of any role, or to any service"
    if grant.borne:
        yield from open_to_many(statement, conditions)


def open_to_many(statement: Mapping[str, Any], conditions: set[str]) -> Iterator[str]:
    """A service acts for all its customers: what it does in whose name must be said."""
    if set(statement["Principal"]) != {"Service"}:
        yield f"open to {statement['Principal']}"
    elif not conditions & {"aws:SourceArn", "aws:SourceAccount"}:
        yield f"{statement['Principal']} is let in for anybody"


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_policies_of_the_stack_are_sound_and_narrow(stack: Stack) -> None:
    grants = list(of_stack(stack))
    assert faults(grants) == []


def test_the_list_of_permissions_is_sound_and_narrow() -> None:
    grants = list(of_list())
    assert faults(grants) == []
    assert {grant.sid for grant in grants} >= SPLIT


def test_both_find_the_policies_that_there_are() -> None:
    """Or the tests above would agree about nothing."""
    of_template = list(of_stack(TEMPLATE))
    assert {grant.where.partition("/")[0] for grant in of_template if not grant.borne} == set(
        TEMPLATE.of_type("AWS::IAM::Role")
    )
    assert {grant.where for grant in of_template if grant.borne} == set(TEMPLATE.of_type("AWS::SQS::QueuePolicy"))
    assert {grant.sid for grant in of_template} >= {grant.sid for grant in of_list()}


@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)
def test_no_role_trusts_more_than_its_service(stack: Stack) -> None:
    roles = stack.of_type("AWS::IAM::Role")
    assert roles
    for name, role in roles.items():
        (trust,) = statements(role.properties["AssumeRolePolicyDocument"])
        assert trust.keys() <= {"Sid", "Effect", "Principal", "Action"}
        assert (trust["Effect"], trust["Action"]) == ("Allow", "sts:AssumeRole"), name
        assert trust["Principal"] == {"Service": expected_service(name, stack)}, name
        assert set(role.properties.get("ManagedPolicyArns", [])) <= MANAGED


def expected_service(role: str, stack: Stack) -> str:
    """Whatever uses the role: functions by their Role, everything else through an instance profile."""
    users = {resource.type for resource in stack.resources.values() if role in resource.needs}
    services = {
        "AWS::Lambda::Function": "lambda.amazonaws.com",
        "AWS::IAM::InstanceProfile": "ec2.amazonaws.com",
    }
    (service,) = {services[kind] for kind in users if kind in services}
    return service


@pytest.mark.parametrize("name", sorted(TEMPLATE.of_type("AWS::Lambda::Function")))
def test_every_function_has_a_role_of_its_own(name: str) -> None:
    functions = TEMPLATE.of_type("AWS::Lambda::Function")
    mine = functions[name].properties["Role"]
    assert [other for other, function in functions.items() if function.properties["Role"] == mine] == [name]


def test_whoever_may_invoke_a_function_does_it_for_this_account() -> None:
    for name, permission in TEMPLATE.of_type("AWS::Lambda::Permission").items():
        assert re.fullmatch(r"[a-z]+\.amazonaws\.com", permission.properties["Principal"]), name
        assert permission.properties.keys() & {"SourceArn", "SourceAccount"}, name


QUEUE = "arn:aws:sqs:eu-west-1:123456789012:replay-ReconcileQueue"
SESSIONS = "arn:aws:ec2:eu-west-1:123456789012:traffic-mirror-session/*"
ROLE = "arn:aws:iam::123456789012:role/replay-WorkerRole"
EVENTS = {"Service": "events.amazonaws.com"}


PLANTED: list[tuple[Mapping[str, Any], str]] = [
    ({"Action": "ec2:DescribeTrafficMirrorSessionz", "Resource": "*"}, "UNKNOWN_ACTION"),
    ({"Action": "ec2:DeleteTrafficMirrorSession", "Resource": QUEUE}, "RESOURCE_MISMATCH"),
    ({"Action": "ec2:CreateTrafficMirrorSession", "Resource": SESSIONS}, "RESOURCE_MISMATCH"),
    ({"Sid": "MirrorTo", "Action": "ec2:CreateTrafficMirrorSession", "Resource": SESSIONS}, "also needs arn:"),
    ({"Action": "sqs:SendMessage", "Resource": QUEUE, "Condition": {"Bool": {"sqs:Colour": "true"}}}, "UNKNOWN"),
    ({"Action": "ec2:DeleteTrafficMirrorSession", "Resource": "*"}, "on no condition"),
    ({"Action": "ec2:CreateTags", "Resource": ["*"]}, "on no condition"),
    ({"Action": "sqs:*", "Resource": QUEUE}, "not known yet"),
    ({"Action": "iam:PassRole", "Resource": ROLE}, "to any service"),
    (
        {"Action": "iam:PassRole", "Resource": "*", "Condition": {"StringEquals": {"iam:PassedToService": "x"}}},
        "of any role",
    ),
    ({"Action": "sqs:SendMessage", "Resource": QUEUE, "Principal": EVENTS}, "for anybody"),
    ({"Action": "sqs:SendMessage", "Resource": QUEUE, "Principal": "*"}, "open to"),
    ({"Action": "sqs:SendMessage", "Resource": QUEUE, "Principal": {"AWS": "210987654321"}}, "open to"),
]


def planted() -> list[Grant]:
    return [
        Grant(f"planted {number}", {"Effect": "Allow", **statement}, borne="Principal" in statement)
        for number, (statement, _) in enumerate(PLANTED)
    ]


@pytest.mark.parametrize("number", range(len(PLANTED)))
def test_what_is_unsound_or_too_wide_is_found(number: int) -> None:
    grants = planted()
    assert [line for line in faults(grants) if line.startswith(f"planted {number} ") and PLANTED[number][1] in line]
