"""What the template's roles allow: functions' statements are those of functions/permissions.yaml, and none is wider."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import pytest

from lab.cloud.stack import Stack
from tests.deploy.given import given
from tests.functions.listed import FUNCTIONS, Statement, Values, filled_in, many
from tests.functions.listed import statements as listed

ROLES = {"reconcile": "ReconcileRole", "autotag": "AutotagRole", "lifecycle": "LifecycleRole"}
HERE = "arn:aws:ec2:eu-west-1:123456789012"

GIVEN: Sequence[Mapping[str, str]] = (
    {},
    {"ProductionVpcIds": "vpc-0a1b2c3d"},
    {
        "ProductionVpcIds": "vpc-0a1b2c3d,vpc-0a1b2c3e,vpc-0a1b2c3d4e5f60718",
        "AutoTagKeys": "Environment,team",
        "PolicyParameterName": "/shop/policy",
    },
)
SETS = pytest.mark.parametrize("values", GIVEN, ids=["defaults", "one VPC", "everything"])


@pytest.fixture(scope="module")
def stack() -> Stack:
    return given()


def statements(stack: Stack, role: str) -> Iterator[Statement]:
    for policy in stack.resources[role].properties["Policies"]:
        assert policy["PolicyDocument"]["Version"] == "2012-10-17"
        yield from policy["PolicyDocument"]["Statement"]


def everywhere(stack: Stack) -> Iterator[tuple[str, Statement]]:
    for role in stack.of_type("AWS::IAM::Role"):
        for statement in statements(stack, role):
            yield role, statement


# The list


def expected(stack: Stack, values: Mapping[str, str]) -> Values:
    """What docs/permissions.md has the stack fill in."""
    vpcs = [f"arn:*:ec2:*:*:vpc/{vpc}" for vpc in values.get("ProductionVpcIds", "").split(",") if vpc]
    return {
        "PolicyParameter": values.get("PolicyParameterName", "/replay/policy"),
        "DefaultPolicyParameter": "/replay/policy-default",
        "StateParameter": "/replay/state",
        "QueueArn": stack.attribute("ReconcileQueue", "Arn"),
        "AutotagQueueArn": stack.attribute("AutotagQueue", "Arn"),
        "EventBusArn": "arn:aws:events:eu-west-1:123456789012:event-bus/default",
        "SourceVpcArns": vpcs or [f"{HERE}:vpc/*"],
        "AutotagKeys": values.get("AutoTagKeys", "").split(","),
        "ReconcileLogGroupArn": stack.attribute("ReconcileLogs", "Arn"),
        "AutotagLogGroupArn": stack.attribute("AutotagLogs", "Arn"),
        "LifecycleLogGroupArn": stack.attribute("LifecycleLogs", "Arn"),
        "LifecycleDeadLettersArn": stack.attribute("LifecycleDeadLetters", "Arn"),
        "LifecycleFunctionName": stack.ref("LifecycleFunction"),
        **{name: value for name, value in stack.pseudo.items() if isinstance(value, str)},
    }


@SETS
@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_may_do_what_is_listed_and_nothing_else(function: str, values: Mapping[str, str]) -> None:
    stack = given(**values)
    wanted = filled_in(list(listed(function, "code", "platform")), expected(stack, values))
    assert list(statements(stack, ROLES[function])) == wanted


@SETS
def test_production_vpcs_are_a_boundary(values: Mapping[str, str]) -> None:
    """Shared VPCs are another account's, so that the owner is not asked for."""
    (mirror,) = (each for each in statements(given(**values), "ReconcileRole") if each["Sid"] == "MirrorFrom")
    named = values.get("ProductionVpcIds")
    admitted = mirror["Condition"]["ArnLike"]["ec2:Vpc"]
    if named is None:
        assert admitted == [f"{HERE}:vpc/*"]
    else:
        assert admitted == [f"arn:*:ec2:*:*:vpc/{vpc}" for vpc in named.split(",")]


# Who


def test_each_function_has_a_role_of_its_own(stack: Stack) -> None:
    roles = {name: function.properties["Role"] for name, function in stack.of_type("AWS::Lambda::Function").items()}
    assert roles == {f"{name.title()}Function": stack.attribute(role, "Arn") for name, role in ROLES.items()}


def test_these_are_all_roles_and_policies(stack: Stack) -> None:
    assert stack.of_type("AWS::IAM::Role").keys() == {*ROLES.values(), "WorkerRole"}
    assert {resource.type for resource in stack.resources.values() if resource.type.startswith("AWS::IAM::")} == {
        "AWS::IAM::Role",
        "AWS::IAM::InstanceProfile",
    }
    for role in stack.of_type("AWS::IAM::Role").values():
        assert role.properties.keys() == {"AssumeRolePolicyDocument", "Policies"}  # no managed policy, no name


@pytest.mark.parametrize(
    ("role", "service"), [*((role, "lambda") for role in ROLES.values()), ("WorkerRole", "ec2")], ids=str
)
def test_a_role_is_assumed_by_its_service_alone(stack: Stack, role: str, service: str) -> None:
    (statement,) = stack.resources[role].properties["AssumeRolePolicyDocument"]["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": f"{service}.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }


def test_workers_alone_have_the_workers_role(stack: Stack) -> None:
    assert stack.resources["WorkerInstanceProfile"].properties["Roles"] == [stack.ref("WorkerRole")]


# How wide


def test_statements_are_plain(stack: Stack) -> None:
    for _, statement in everywhere(stack):
        assert statement["Effect"] == "Allow"
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}  # no NotAction
        for action in many(statement["Action"]):
            assert re.fullmatch(r"[a-z0-9]+:[A-Za-z]+", action)
        for key in (key for test in statement.get("Condition", {}).values() for key in test):
            assert re.fullmatch(r"(aws|ec2|events):[A-Za-z-]+(/mirror:[a-z-]+)?", key)


def test_what_holds_for_every_resource_has_a_condition_and_writes_nothing(stack: Stack) -> None:
    writes = {
        (role, action)
        for role, statement in everywhere(stack)
        for action in many(statement["Action"])
        if "*" in many(statement["Resource"])
        and not (action.split(":")[1].startswith("Describe") and "Condition" in statement)
    }
    # Session Manager's, of the worker itself: they know no resources, and are bound to the Region.
    assert {role for role, _ in writes} == {"WorkerRole"}
    for role, statement in everywhere(stack):
        if "*" in many(statement["Resource"]):
            assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": "eu-west-1"}}, role
    assert {action for _, action in writes} == {
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
    }


def test_what_holds_for_all_resources_of_a_kind_has_a_condition_on_tags_or_place(stack: Stack) -> None:
    for _, statement in everywhere(stack):
        if any(arn.endswith("/*") and ":stack/" not in arn for arn in many(statement["Resource"])):
            keys = {key for test in statement["Condition"].values() for key in test}
            assert keys & {
                "aws:ResourceTag/mirror:managed-by",
                "aws:ResourceTag/mirror:stack",
                "aws:ResourceTag/mirror:opt-out",
                "aws:RequestTag/mirror:managed-by",
                "ec2:CreateAction",
                "ec2:Vpc",
            }


def test_every_other_resource_is_of_this_stack(stack: Stack) -> None:
    """By its name, with the account and the Region."""
    for _, statement in everywhere(stack):
        for resource in many(statement["Resource"]):
            kind = re.fullmatch(r"arn:aws:([a-z0-9]+):eu-west-1:123456789012:(.+)", resource)
            if resource == "*" or (kind and kind[1] == "ec2"):
                continue
            assert kind, resource
            assert "replay" in kind[2] or kind[2] == "event-bus/default", resource


def test_no_role_is_passed_on_and_none_is_changed(stack: Stack) -> None:
    services = {action.split(":")[0] for _, statement in everywhere(stack) for action in many(statement["Action"])}
    assert services.isdisjoint({"iam", "sts", "organizations", "kms", "s3"})


def writers(stack: Stack, action: str, kind: str) -> set[str]:
    return {
        role
        for role, statement in everywhere(stack)
        for resource in many(statement["Resource"])
        if action in many(statement["Action"]) and (resource == "*" or f":{kind}/" in resource)
    }


@pytest.mark.parametrize(
    ("action", "kind", "roles"),
    [
        ("ec2:CreateTags", "instance", {"AutotagRole"}),
        ("ec2:DeleteTags", "instance", {"AutotagRole"}),
        ("ec2:CreateTags", "traffic-mirror-session", {"ReconcileRole"}),
        ("ec2:DeleteTags", "traffic-mirror-session", {"ReconcileRole"}),
        ("ec2:CreateTrafficMirrorSession", "traffic-mirror-session", {"ReconcileRole"}),
        ("ec2:ModifyTrafficMirrorSession", "traffic-mirror-session", {"ReconcileRole"}),
        ("ec2:DeleteTrafficMirrorSession", "traffic-mirror-session", {"ReconcileRole", "LifecycleRole"}),
        ("ssm:PutParameter", "parameter", {"LifecycleRole"}),
        ("ec2:CreateTags", "traffic-mirror-target", set()),
    ],
)
def test_who_writes_what(stack: Stack, action: str, kind: str, roles: set[str]) -> None:
    assert writers(stack, action, kind) == roles


# The worker


def allowed(stack: Stack, action: str) -> list[str]:
    return [
        resource
        for statement in statements(stack, "WorkerRole")
        if action in many(statement["Action"])
        for resource in many(statement["Resource"])
    ]


def test_a_worker_fetches_its_own_code_and_no_other(stack: Stack) -> None:
    layer = stack.ref("WorkerLayer")
    assert re.fullmatch(r"arn:aws:lambda:eu-west-1:123456789012:layer:replay-worker:\d+", layer)
    assert allowed(stack, "lambda:GetLayerVersion") == [layer]


@pytest.mark.parametrize("own", ["", "/shop/worker.yaml"])
def test_a_worker_reads_its_settings_and_no_other_parameter(own: str) -> None:
    arn = f"arn:aws:ssm:eu-west-1:123456789012:parameter{own or '/replay/worker'}"
    assert allowed(given(WorkerSettingsParameter=own), "ssm:GetParameter") == [arn]


def test_a_worker_writes_into_its_log_groups_and_signals_its_stack(stack: Stack) -> None:
    groups = [stack.attribute("WorkerLogs", "Arn"), stack.attribute("WorkerMetrics", "Arn")]
    assert allowed(stack, "logs:PutLogEvents") == allowed(stack, "logs:CreateLogStream") == groups
    (arn,) = allowed(stack, "cloudformation:SignalResource")
    assert fnmatchcase(stack.ref("AWS::StackId"), arn) and arn.endswith(":stack/replay/*")


def test_a_worker_may_do_nothing_else(stack: Stack) -> None:
    services = {
        action
        for statement in statements(stack, "WorkerRole")
        for action in many(statement["Action"])
        if not action.startswith("ssmmessages:")
    }
    assert services == {
        "lambda:GetLayerVersion",
        "ssm:GetParameter",
        "logs:CreateLogStream",
        "logs:DescribeLogStreams",
        "logs:PutLogEvents",
        "cloudformation:SignalResource",
        "elasticloadbalancing:DescribeTargetHealth",
        "ssm:UpdateInstanceInformation",
    }
