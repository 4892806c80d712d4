"""What CloudFormation makes before what: on delete it goes the other way round, and two things at once that do not
need each other. Sessions must be gone before what they use, and after everything that could make new ones."""

import pytest

from lab.cloud.stack import Stack
from tests.deploy.given import given

EVENTS = ("AWS::Events::Rule", "AWS::Lambda::EventSourceMapping")


@pytest.fixture(scope="module")
def stack() -> Stack:
    return given(GuardDutyFindings="on", InterfaceEvents="on")


def test_nothing_needs_itself(stack: Stack) -> None:
    assert [name for name in stack.resources if name in stack.needs(name)] == []


def test_the_custom_resource_is_the_only_one_and_names_the_function(stack: Stack) -> None:
    """Its logical id must never change: CloudFormation would delete the old one, and with it all sessions."""
    custom = {
        name: resource.properties
        for name, resource in stack.resources.items()
        if resource.type.startswith(("Custom::", "AWS::CloudFormation::CustomResource"))
    }
    assert custom == {"MirrorSessions": {"ServiceToken": stack.attribute("LifecycleFunction", "Arn")}}


def test_what_brings_events_comes_last_and_goes_first(stack: Stack) -> None:
    bringers = [name for kind in EVENTS for name in stack.of_type(kind)]
    assert len(bringers) == 9
    assert [name for name in bringers if "MirrorSessions" not in stack.needs(name)] == []


@pytest.mark.parametrize(
    "name",
    [
        "DefaultPolicy",  # the first sweep reads it
        "LifecycleDeadLetters",
        "LifecycleFunction",
        "LifecycleLogs",
        "LifecycleRole",
        "MirrorListener",  # targets fail without it and do not say so
        "NetworkLoadBalancer",
        "ReconcileQueue",  # the first sweep waits in it
        "TrafficMirrorFilter",
        "TrafficMirrorFilterRule",
        "TrafficMirrorTarget",
        "WorkerGroup",  # packets go on as long as sessions do
        "WorkerIngressHealth",
        "WorkerIngressPackets",
        "WorkerTargetGroup",
    ],
)
def test_what_sessions_need_is_there_before_them_and_goes_after_them(stack: Stack, name: str) -> None:
    assert name in stack.needs("MirrorSessions")


@pytest.mark.parametrize("name", ["InstanceStateRule", "ReconcileSource", "SweepRule"])
def test_sessions_wait_for_nothing_that_waits_for_them(stack: Stack, name: str) -> None:
    assert name not in stack.needs("MirrorSessions")


def test_a_function_can_do_what_it_may_as_long_as_it_is_there(stack: Stack) -> None:
    """Its role's statements are inline, and go with the role; its log group must not be made anew by a last line."""
    for name in ("Reconcile", "Autotag", "Lifecycle"):
        assert {f"{name}Role", f"{name}Logs"} <= stack.needs(f"{name}Function")


@pytest.mark.parametrize("function", ["ReconcileFunction", "AutotagFunction"])
def test_events_end_before_the_functions_do(stack: Stack, function: str) -> None:
    source = function.replace("Function", "Source")
    assert function in stack.needs(source)


@pytest.mark.parametrize("queue", ["Reconcile", "Autotag"])
def test_queues_outlive_the_rules_that_write_to_them(stack: Stack, queue: str) -> None:
    for name, rule in stack.of_type("AWS::Events::Rule").items():
        if stack.attribute(f"{queue}Queue", "Arn") in [target["Arn"] for target in rule.properties["Targets"]]:
            assert {f"{queue}Queue", f"{queue}DeadLetters"} <= stack.needs(name)


@pytest.mark.parametrize(
    "name",
    [
        "MirrorListener",  # a group without one never becomes healthy
        "WorkerIngressHealth",
        "WorkerIngressPackets",
        "WorkerInstanceProfile",
        "WorkerLogs",  # workers make no log groups
        "WorkerMetrics",
        "WorkerRole",
        "WorkerSettings",
    ],
)
def test_a_worker_finds_what_it_needs_when_it_starts(stack: Stack, name: str) -> None:
    assert name in stack.needs("WorkerGroup")


def test_no_update_turns_the_switch_off(stack: Stack) -> None:
    """CloudFormation writes a parameter's value anew with every change of the resource, a tag of the stack included,
    and lifecycle does nothing on an update: nobody would turn it on again. So the switch is no resource.

    https://github.com/aws-cloudformation/aws-cloudformation-resource-providers-ssm (UpdateHandler)
    """
    switch = stack.resources["LifecycleFunction"].properties["Environment"]["Variables"]["STATE_PARAMETER"]
    parameters = {one.properties["Name"]: name for name, one in stack.of_type("AWS::SSM::Parameter").items()}
    assert {"/replay/policy-default", "/replay/worker"} <= parameters.keys()
    assert switch not in parameters


def test_everything_goes_with_the_stack(stack: Stack) -> None:
    """What stays would stand in the way of the next stack of this name, or be paid for by nobody's wish."""
    for resource in stack.resources.values():
        assert resource.attributes.get("DeletionPolicy", "Delete") == "Delete", resource.id
        assert resource.attributes.get("UpdateReplacePolicy", "Delete") == "Delete", resource.id


def test_code_that_an_update_replaced_goes_when_the_update_has_succeeded(stack: Stack) -> None:
    """CloudFormation deletes what was replaced at its very end; until then a roll back finds it."""
    layers = stack.of_type("AWS::Lambda::LayerVersion")
    assert len(layers) == 2
    assert {layer.attributes.get("DeletionPolicy") for layer in layers.values()} == {"Delete"}
