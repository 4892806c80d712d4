"""Properties that CloudFormation would take or refuse, without an emulator."""

from typing import Any

import pytest

from lab.cloud import schemas

RULE = {
    "TrafficMirrorFilterId": "tmf-0",
    "TrafficDirection": "ingress",
    "RuleNumber": 100,
    "RuleAction": "accept",
    "SourceCidrBlock": "0.0.0.0/0",
    "DestinationCidrBlock": "0.0.0.0/0",
}
PORTS = {"FromPort": 80, "ToPort": 80}
FILTER_RULE, TARGET = "AWS::EC2::TrafficMirrorFilterRule", "AWS::EC2::TrafficMirrorTarget"
LOG_GROUP, QUEUE = "AWS::Logs::LogGroup", "AWS::SQS::Queue"


@pytest.mark.parametrize(
    ("kind", "properties"),
    [
        (FILTER_RULE, RULE),
        (FILTER_RULE, RULE | {"DestinationPortRange": PORTS, "Protocol": 6, "Description": "x"}),
        (FILTER_RULE, RULE | {"RuleNumber": "100", "Protocol": "6"}),  # a parameter of a template is text
        (FILTER_RULE, RULE | {"TrafficDirection": "INGRESS"}),
        (TARGET, {"Tags": [{"Key": "a", "Value": 1}]}),
        (QUEUE, {"SqsManagedSseEnabled": "true", "VisibilityTimeout": 30.0, "QueueName": "q"}),
        (QUEUE, {"RedrivePolicy": {"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:123456789012:q"}}),
        (LOG_GROUP, {"RetentionInDays": "30", "LogGroupName": "/replay/worker"}),
        ("Custom::Anything", {"whatever": [1]}),
    ],
)
def test_good_properties(kind: str, properties: dict[str, Any]) -> None:
    assert schemas.faults(kind, properties) == []


@pytest.mark.parametrize(
    ("kind", "properties", "fault"),
    [
        pytest.param(FILTER_RULE, RULE | {"Rulenumber": 1}, "'Rulenumber' was unexpected", id="unknown property"),
        pytest.param(
            FILTER_RULE, {k: RULE[k] for k in RULE if k != "RuleNumber"}, "'RuleNumber' is a required", id="missing"
        ),
        pytest.param(FILTER_RULE, RULE | {"RuleNumber": "ten"}, "#/RuleNumber: 'ten' is not of type", id="number"),
        pytest.param(FILTER_RULE, RULE | {"RuleNumber": 1.5}, "#/RuleNumber: 1.5 is not of type", id="whole number"),
        pytest.param(
            FILTER_RULE, RULE | {"RuleAction": "drop"}, "'drop' is not one of ['accept'", id="choice, any case"
        ),
        pytest.param(FILTER_RULE, RULE | {"SourceCidrBlock": ["10.0.0.0/8"]}, "is not of type 'string'", id="list"),
        pytest.param(
            FILTER_RULE,
            RULE | {"DestinationPortRange": {"FromPort": 80}},
            "#/DestinationPortRange: 'ToPort'",
            id="$ref",
        ),
        pytest.param(TARGET, {"Id": "tmt-0"}, "#/Id: Encountered unsupported property", id="read-only"),
        pytest.param(TARGET, {"Tags": [{"Key": "a"}]}, "#/Tags/0: 'Value' is a required", id="in a list"),
        pytest.param(QUEUE, {"SqsManagedSseEnabled": "yes"}, "'yes' is not of type 'boolean'", id="truth value"),
        pytest.param(
            QUEUE, {"RedrivePolicy": [3]}, "#/RedrivePolicy: [3] is not of type 'object'", id="one of two types"
        ),
        pytest.param(LOG_GROUP, {"RetentionInDays": "31"}, "#/RetentionInDays: '31' is not one of", id="choice"),
        pytest.param(LOG_GROUP, {"LogGroupName": "a b"}, "#/LogGroupName: 'a b' does not match", id="pattern"),
        pytest.param(
            "AWS::AutoScaling::AutoScalingGroup",
            {"MinSize": 1, "MaxSize": []},
            "#/MaxSize: [] is not of type",
            id="ASG",
        ),
        pytest.param(
            "AWS::Lambda::Function",
            {"Role": "arn:aws:iam::123456789012:role/r", "Code": {"ZipFile": "x"}, "Timeout": "0"},
            "'0' is outside the minimum of 1",
            id="least",
        ),
        pytest.param(
            "AWS::Lambda::EventSourceMapping",
            {"FunctionName": "f", "ScalingConfig": {"MaximumConcurrency": 1}},
            "#/ScalingConfig/MaximumConcurrency: 1 is outside the minimum of 2",
            id="least, nested",
        ),
    ],
)
def test_bad_properties(kind: str, properties: dict[str, Any], fault: str) -> None:
    [found] = schemas.faults(kind, properties)
    assert fault in found


def test_all_faults_are_told_at_once() -> None:
    assert len(schemas.faults(FILTER_RULE, RULE | {"RuleNumber": "x", "Protocol": "y", "Z": 1})) == 3


def test_what_makes_another_resource() -> None:
    assert set(schemas.replacing(TARGET)) == {
        "Description",
        "GatewayLoadBalancerEndpointId",
        "NetworkInterfaceId",
        "NetworkLoadBalancerArn",
    }
    assert schemas.replacing(FILTER_RULE) == ("TrafficMirrorFilterId",)
    assert schemas.replacing("AWS::No::Such") == ()


def test_types_of_the_region() -> None:
    assert {FILTER_RULE, TARGET, QUEUE, LOG_GROUP} < schemas.types()
    assert "AWS::EC2::TrafficMirror" not in schemas.types()
