"""Queues between events and functions: who may write to them, what becomes of what cannot be dealt with.

The emulator judges a queue's policy and its visibility as AWS does, for the events of one story. Here it is said of
every rule and queue, with what the emulator is blind to: dead letters of functions, encryption, how many run at once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lab.cloud.stack import Resource, Stack
from tests.deploy.given import given
from tests.functions.listed import many

QUEUES = frozenset(
    ("ReconcileQueue", "AutotagQueue", "ReconcileDeadLetters", "AutotagDeadLetters", "LifecycleDeadLetters")
)
SOURCES = "AWS::Lambda::EventSourceMapping"
FOURTEEN_DAYS = 14 * 24 * 3600


@pytest.fixture(scope="module")
def stack() -> Stack:
    return given(GuardDutyFindings="on", InterfaceEvents="on")


def arns(stack: Stack) -> Mapping[str, str]:
    """Of queues, to their ids in the template."""
    return {stack.attribute(name, "Arn"): name for name in stack.of_type("AWS::SQS::Queue")}


def senders(stack: Stack, queue: str) -> set[str]:
    """Rules that write to a queue: as a target, or what could not be delivered to one."""
    arn = stack.attribute(queue, "Arn")
    return {
        name
        for name, rule in stack.of_type("AWS::Events::Rule").items()
        for target in rule.properties["Targets"]
        if arn in (target["Arn"], target["DeadLetterConfig"]["Arn"])
    }


def statements(stack: Stack, queue: str) -> Iterator[Mapping[str, Any]]:
    """Of the policies that stand at a queue and name it."""
    for policy in stack.of_type("AWS::SQS::QueuePolicy").values():
        if stack.ref(queue) in policy.properties["Queues"]:
            for statement in policy.properties["PolicyDocument"]["Statement"]:
                if stack.attribute(queue, "Arn") in many(statement["Resource"]):
                    yield statement


def admitted(stack: Stack, queue: str) -> set[str]:
    rules = {stack.attribute(name, "Arn"): name for name in stack.of_type("AWS::Events::Rule")}
    return {
        rules[arn]
        for statement in statements(stack, queue)
        for arn in statement["Condition"]["ArnEquals"]["aws:SourceArn"]
    }


def function_of(stack: Stack, source: Resource) -> Resource:
    (found,) = (
        function
        for function in stack.of_type("AWS::Lambda::Function").values()
        if stack.ref(function.id) == source.properties["FunctionName"]
    )
    return found


def test_these_are_all_queues(stack: Stack) -> None:
    assert stack.of_type("AWS::SQS::Queue").keys() == QUEUES


@pytest.mark.parametrize("queue", sorted(QUEUES))
def test_a_queue_admits_the_rules_that_write_to_it_and_no_other(stack: Stack, queue: str) -> None:
    assert admitted(stack, queue) == senders(stack, queue)


@pytest.mark.parametrize("queue", sorted(QUEUES - {"LifecycleDeadLetters"}))
def test_a_queue_is_written_to_by_rules_alone_and_only_if_they_are_of_this_stack(stack: Stack, queue: str) -> None:
    (statement,) = statements(stack, queue)
    assert statement["Effect"] == "Allow"
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert many(statement["Action"]) == ["sqs:SendMessage"]
    assert statement["Condition"].keys() == {"ArnEquals"}
    assert statement["Condition"]["ArnEquals"].keys() == {"aws:SourceArn"}


def test_a_queue_has_one_policy(stack: Stack) -> None:
    """A second policy at the same queue takes the place of the first."""
    named = [url for policy in stack.of_type("AWS::SQS::QueuePolicy").values() for url in policy.properties["Queues"]]
    assert sorted(named) == sorted(stack.ref(queue) for queue in QUEUES - {"LifecycleDeadLetters"})


def test_every_target_is_a_queue_of_ours_with_dead_letters_of_its_own(stack: Stack) -> None:
    """The same that the queue itself gives messages up to, so that an operator looks in one place."""
    names = arns(stack)
    for rule in stack.of_type("AWS::Events::Rule").values():
        for target in rule.properties["Targets"]:
            queue = stack.resources[names[target["Arn"]]]
            assert target["DeadLetterConfig"] == {"Arn": queue.properties["RedrivePolicy"]["deadLetterTargetArn"]}
            assert target.keys() == {"Id", "Arn", "DeadLetterConfig"}  # no Input: functions read the event itself


def test_a_message_that_fails_again_and_again_goes_to_dead_letters_and_waits_there(stack: Stack) -> None:
    names = arns(stack)
    given_up = {
        name: names[queue.properties["RedrivePolicy"]["deadLetterTargetArn"]]
        for name, queue in stack.of_type("AWS::SQS::Queue").items()
        if "RedrivePolicy" in queue.properties
    }
    assert given_up == {"ReconcileQueue": "ReconcileDeadLetters", "AutotagQueue": "AutotagDeadLetters"}
    for queue, letters in given_up.items():
        # Lambda's own advice is at least 5; two a second make 10,000 sessions in 17 invocations of 300 s.
        assert 17 <= stack.resources[queue].properties["RedrivePolicy"]["maxReceiveCount"] <= 1000
        assert stack.resources[letters].properties["MessageRetentionPeriod"] == FOURTEEN_DAYS
    assert stack.resources["LifecycleDeadLetters"].properties["MessageRetentionPeriod"] == FOURTEEN_DAYS


def test_every_queue_is_encrypted(stack: Stack) -> None:
    assert all(queue.properties["SqsManagedSseEnabled"] is True for queue in stack.of_type("AWS::SQS::Queue").values())


def test_every_function_that_is_invoked_asynchronously_has_dead_letters(stack: Stack) -> None:
    """CloudFormation and itself invoke lifecycle so; the others read queues, whose redrive has its own test."""
    polled = {function_of(stack, source).id for source in stack.of_type(SOURCES).values()}
    letters = {
        name: function.properties.get("DeadLetterConfig")
        for name, function in stack.of_type("AWS::Lambda::Function").items()
        if name not in polled
    }
    assert letters == {"LifecycleFunction": {"TargetArn": stack.attribute("LifecycleDeadLetters", "Arn")}}


def test_each_queue_is_read_by_its_function(stack: Stack) -> None:
    names = arns(stack)
    read = {
        names[source.properties["EventSourceArn"]]: function_of(stack, source).id
        for source in stack.of_type(SOURCES).values()
    }
    assert read == {"ReconcileQueue": "ReconcileFunction", "AutotagQueue": "AutotagFunction"}
    for queue, function in read.items():
        variables = stack.resources[function].properties["Environment"]["Variables"]
        assert variables["QUEUE_URL"] == stack.ref(queue)
    lifecycle = stack.resources["LifecycleFunction"].properties["Environment"]["Variables"]
    assert lifecycle["QUEUE_URL"] == stack.ref("ReconcileQueue")  # the first sweep


def test_a_message_stays_hidden_while_it_may_still_be_worked_on(stack: Stack) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: six timeouts, and the window."""
    names = arns(stack)
    for source in stack.of_type(SOURCES).values():
        queue = stack.resources[names[source.properties["EventSourceArn"]]]
        longest = 6 * function_of(stack, source).properties["Timeout"]
        assert queue.properties["VisibilityTimeout"] >= longest + source.properties["MaximumBatchingWindowInSeconds"]


def test_records_fail_one_by_one_and_few_batches_run_at_once(stack: Stack) -> None:
    sources = list(stack.of_type(SOURCES).values())
    assert len(sources) == 2
    for source in sources:
        assert source.properties.get("Enabled", True) is True
        assert "FilterCriteria" not in source.properties  # what a filter leaves out is deleted without a word
        assert source.properties["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert source.properties["ScalingConfig"] == {"MaximumConcurrency": 2}
        assert source.properties["BatchSize"] <= 10 or source.properties["MaximumBatchingWindowInSeconds"] >= 1


def test_no_concurrency_is_reserved(stack: Stack) -> None:
    """An account that may run ten at once must leave ten unreserved: the deploy would fail there."""
    for function in stack.of_type("AWS::Lambda::Function").values():
        assert "ReservedConcurrentExecutions" not in function.properties
