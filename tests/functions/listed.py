"""functions/permissions.yaml: its statements, and its placeholders filled in as the stack does it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

type Statement = Mapping[str, Any]
type Values = Mapping[str, str | list[str]]

TEXT = (Path(__file__).parents[2] / "functions/permissions.yaml").read_text()
DOCUMENT: Mapping[str, Any] = yaml.safe_load(TEXT)
FUNCTIONS: Mapping[str, Mapping[str, Sequence[Statement]]] = DOCUMENT["functions"]

#: What a stack named replay could fill in.
VALUES: Values = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::StackName": "replay",
    "PolicyParameter": "/replay/policy",
    "DefaultPolicyParameter": "/replay/policy-default",
    "StateParameter": "/replay/state",
    "QueueArn": "arn:aws:sqs:eu-west-1:123456789012:reconcile",
    "AutotagQueueArn": "arn:aws:sqs:eu-west-1:123456789012:autotag",
    "EventBusArn": "arn:aws:events:eu-west-1:123456789012:event-bus/default",
    "SourceVpcArns": ["arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-1", "arn:aws:ec2:eu-west-1:123456789012:vpc/vpc-2"],
    "AutotagKeys": ["env", "team"],
    "ReconcileLogGroupArn": "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/replay-reconcile:*",
    "AutotagLogGroupArn": "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/replay-autotag:*",
    "LifecycleLogGroupArn": "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/lambda/replay-lifecycle:*",
    "LifecycleFunctionName": "replay-lifecycle",
    "LifecycleDeadLettersArn": "arn:aws:sqs:eu-west-1:123456789012:lifecycle-dead-letters",
}


def many(value: Any) -> list[Any]:
    """Of what may be one or a list, as in a policy's Action."""
    return value if isinstance(value, list) else [value]


def statements(function: str, *parts: str) -> Iterator[Statement]:
    """As they are written; of all parts unless some are named."""
    for part in parts or FUNCTIONS[function]:
        yield from FUNCTIONS[function][part]


def filled_in(node: Any, values: Values) -> Any:
    """An item that names a list stands for its items."""
    if isinstance(node, Mapping):
        return {key: filled_in(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [item for part in node for item in many(filled_in(part, values))]
    if not isinstance(node, str):
        return node
    alone = re.fullmatch(r"\$\{([^}]+)}", node)
    return values[alone[1]] if alone else re.sub(r"\$\{([^}]+)}", lambda name: str(values[name[1]]), node)
