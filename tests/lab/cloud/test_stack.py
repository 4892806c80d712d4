"""A small SAM template through SAM's own translator, and parameters as CloudFormation takes them."""

from pathlib import Path

import pytest

from lab.cloud.intrinsics import TemplateError
from lab.cloud.stack import Stack, parameter

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Subnets: {Type: List<AWS::EC2::Subnet::Id>}
  Architecture: {Type: String, Default: arm64, AllowedValues: [arm64, x86_64]}
  Findings: {Type: String, Default: "off", AllowedValues: ["on", "off"]}
  Image: {Type: "AWS::SSM::Parameter::Value<AWS::EC2::Image::Id>", Default: /aws/service/image}
Conditions:
  WithFindings: !Equals [!Ref Findings, "on"]
Rules:
  NoFindingsThere:
    RuleCondition: !Equals [!Ref Findings, "on"]
    Assertions:
      - Assert: !Not [!Equals [!Join [",", !Ref Subnets], subnet-3]]
        AssertDescription: subnet-3 hears no findings
Mappings:
  Names: {arm64: {long: aarch64}, x86_64: {long: amd64}}
Resources:
  Layer:
    Type: AWS::Serverless::LayerVersion
    Properties: {ContentUri: layer/, CompatibleArchitectures: [!Ref Architecture]}
  Queue:
    Type: AWS::SQS::Queue
    DeletionPolicy: Delete
    Properties:
      QueueName: !Sub ${AWS::StackName}-queue
      VisibilityTimeout: !If [WithFindings, 60, !Ref "AWS::NoValue"]
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument: {Statement: []}
  Function:
    Type: AWS::Serverless::Function
    DependsOn: [Machine, FindingRule]
    Properties:
      CodeUri: function/
      Handler: app.handler
      Runtime: python3.13
      Role: !GetAtt Role.Arn
      Layers: [!Ref Layer]
      Environment: {Variables: {QUEUE: !Ref Queue, LONG: !FindInMap [Names, !Ref Architecture, long]}}
      Events:
        Queue: {Type: SQS, Properties: {Queue: !GetAtt Queue.Arn}}
  Machine:
    Type: AWS::EC2::LaunchTemplate
    Properties: {LaunchTemplateData: {ImageId: !Ref Image}}
  FindingRule:
    Type: AWS::Events::Rule
    Condition: WithFindings
    Properties:
      Targets: [{Id: queue, Arn: !GetAtt Queue.Arn}]
Outputs:
  Rule: {Condition: WithFindings, Value: !GetAtt FindingRule.Arn}
  Queue: {Value: !Ref Queue}
"""


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE)
    return Stack.read(path).with_parameters(Subnets="subnet-1, subnet-2")


def test_sam_expands_and_values_are_put_in(stack: Stack) -> None:
    function = stack.resources["Function"]
    assert function.type == "AWS::Lambda::Function"
    assert function.properties["Layers"] == [stack.ref("Layer")]
    assert function.properties["Role"] == stack.attribute("Role", "Arn") == "arn:aws:iam::123456789012:role/replay-Role"
    assert function.properties["Environment"]["Variables"] == {
        "QUEUE": "https://sqs.eu-west-1.amazonaws.com/123456789012/replay-queue",
        "LONG": "aarch64",
    }
    (source,) = stack.of_type("AWS::Lambda::EventSourceMapping").values()
    assert source.properties["EventSourceArn"] == stack.attribute("Queue", "Arn")
    assert (
        stack.resources["Machine"].properties["LaunchTemplateData"]["ImageId"] == "{{resolve:ssm:/aws/service/image}}"
    )


def test_what_its_condition_leaves_out_is_not_there(stack: Stack) -> None:
    assert not stack.holds("WithFindings")
    assert "FindingRule" not in stack.resources
    assert stack.outputs == {"Queue": stack.ref("Queue")}
    assert "VisibilityTimeout" not in stack.resources["Queue"].properties
    with pytest.raises(TemplateError, match="FindingRule"):
        stack.attribute("FindingRule", "Arn")


def test_other_parameters_make_another_stack(stack: Stack) -> None:
    other = stack.with_parameters(Findings="on", Architecture="x86_64").with_pseudo(StackName="second")
    assert other.parameters["Subnets"] == ["subnet-1", "subnet-2"]
    assert other.outputs["Rule"] == "arn:aws:events:eu-west-1:123456789012:rule/second-FindingRule"
    assert other.resources["Queue"].properties == {"QueueName": "second-queue", "VisibilityTimeout": 60}
    assert other.resources["Function"].properties["Environment"]["Variables"]["LONG"] == "amd64"


def test_order_is_what_is_named_and_what_is_referred_to(stack: Stack) -> None:
    (layer,) = stack.of_type("AWS::Lambda::LayerVersion")
    assert stack.resources["Function"].needs == {"Machine", "Queue", "Role", layer}
    assert stack.resources["Queue"].attributes == {"DeletionPolicy": "Delete"}
    (source,) = stack.of_type("AWS::Lambda::EventSourceMapping")
    assert stack.needs(source) == {"Function", "Machine", "Queue", "Role", layer}
    assert "FindingRule" in stack.with_parameters(Findings="on").needs("Function")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("!Ref Queue, LONG", "!Ref Queueue, LONG", "Queueue"),
        ("DependsOn: [Machine", "DependsOn: [Machina", "Machina"),
        ("CodeUri: function/", "CodeUriii: function/", "CodeUriii"),
        ("Condition: WithFindings\n    Prop", "Condition: WithFinding\n    Prop", "WithFinding"),
    ],
)
def test_a_template_that_would_be_refused_is_refused(stack: Stack, old: str, new: str, words: str) -> None:
    assert old in TEMPLATE
    stack.path.write_text(TEMPLATE.replace(old, new))
    with pytest.raises(TemplateError, match=words):
        _ = stack.resources


@pytest.mark.parametrize(
    ("rule", "given", "value"),
    [
        ({"Type": "String", "Default": ""}, None, ""),
        ({"Type": "String", "Default": True, "AllowedValues": [True, False]}, "false", "false"),
        ({"Type": "Number", "Default": 2, "MinValue": 1, "MaxValue": 3}, "3", "3"),
        ({"Type": "CommaDelimitedList", "Default": ""}, None, [""]),
        ({"Type": "CommaDelimitedList", "AllowedPattern": "[a-z]"}, "a,b", ["a", "b"]),
    ],
)
def test_parameters(rule: dict[str, object], given: str | None, value: object) -> None:
    assert parameter("P", rule, given) == value


@pytest.mark.parametrize(
    ("rule", "given"),
    [
        ({"Type": "String"}, None),
        ({"Type": "String", "AllowedValues": ["a"]}, "b"),
        ({"Type": "String", "AllowedPattern": "[a-z]"}, "ab"),
        ({"Type": "String", "MinLength": 1}, ""),
        ({"Type": "String", "MaxLength": 1}, "ab"),
        ({"Type": "Number"}, "many"),
        ({"Type": "Number", "MinValue": 1}, "0"),
        ({"Type": "Number", "MaxValue": 1}, "2"),
        ({"Type": "CommaDelimitedList", "AllowedPattern": "[a-z]"}, "a,B"),
    ],
)
def test_parameters_that_cloudformation_refuses(rule: dict[str, object], given: str | None) -> None:
    with pytest.raises(TemplateError, match="P"):
        parameter("P", rule, given)


def test_a_parameter_that_nobody_declared_is_refused(stack: Stack) -> None:
    with pytest.raises(TemplateError, match="Colour"):
        _ = stack.with_parameters(Colour="red").parameters


def test_a_broken_rule_is_told_in_its_own_words(stack: Stack) -> None:
    there = stack.with_parameters(Subnets="subnet-3")
    assert there.resources
    with pytest.raises(TemplateError, match="NoFindingsThere: subnet-3 hears no findings"):
        _ = there.with_parameters(Findings="on").resources
