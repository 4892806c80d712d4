"""What is asked of IAM about a request, without any emulator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from lab.cloud.emulator import ROOT
from lab.cloud.questions import Interface, Keys, Question, Request, Tags, asker_of

EC2 = "arn:aws:ec2:eu-west-1:123456789012"
REGION: Keys = {"ec2:Region": "eu-west-1"}
#: Where the first id in a request is all there is to ask about.
PLAIN = {
    "lambda:InvokeFunction",
    "sqs:ChangeMessageVisibility",
    "sqs:DeleteMessage",
    "sqs:GetQueueAttributes",
    "sqs:ReceiveMessage",
    "sqs:SendMessage",
}


@dataclass
class FakeAccount:
    worn: dict[str, Tags] = field(default_factory=dict)

    def tags(self, resource: str) -> Tags:
        return self.worn.get(resource, {})

    def interface(self, name: str) -> Interface | None:
        return Interface("vpc-1", "subnet-1") if name == "eni-1" else None

    def stack(self, name: str) -> str:
        return f"arn:aws:cloudformation:eu-west-1:123456789012:stack/{name}/1"


def asked(action: str, parameters: Mapping[str, Any], resource: str = "*", **tags: Tags) -> list[Question]:
    asker = asker_of(action)
    assert asker is not None
    request = Request(action, parameters, resource, "eu-west-1", "123456789012")
    account = FakeAccount({name.replace("_", "-"): worn for name, worn in tags.items()})
    return list(asker(request, account))


def test_every_action_of_our_roles_is_taught_or_known_to_be_plain() -> None:
    document = yaml.safe_load((ROOT / "functions/permissions.yaml").read_text())
    statements = [one for function in document["functions"].values() for part in function.values() for one in part]
    actions = {action for one in statements for action in many(one["Action"])}
    assert {action for action in actions if asker_of(action) is None} == PLAIN


def many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


CREATE = {
    "NetworkInterfaceId": "eni-1",
    "TrafficMirrorTargetId": "tmt-1",
    "TrafficMirrorFilterId": "tmf-1",
    "TagSpecification.1.ResourceType": "instance",
    "TagSpecification.1.Tag.1.Key": "no",
    "TagSpecification.2.ResourceType": "traffic-mirror-session",
    "TagSpecification.2.Tag.1.Key": "owner",
    "TagSpecification.2.Tag.1.Value": "us",
    "TagSpecification.2.Tag.2.Key": "empty",
}


def test_a_create_is_asked_about_all_that_it_names_and_makes() -> None:
    keys: Keys = REGION | {"aws:RequestTag/owner": "us", "aws:RequestTag/empty": "", "aws:TagKeys": ["owner", "empty"]}
    create, session = "ec2:CreateTrafficMirrorSession", f"{EC2}:traffic-mirror-session/*"
    where: Keys = {
        "ec2:Vpc": f"{EC2}:vpc/vpc-1",
        "ec2:Subnet": f"{EC2}:subnet/subnet-1",
        "ec2:NetworkInterfaceID": "eni-1",
    }
    target: Keys = {"aws:ResourceTag/stack": "us", "ec2:ResourceTag/stack": "us"}
    assert asked(create, CREATE, tmt_1={"stack": "us"}) == [
        Question(create, f"{EC2}:network-interface/eni-1", REGION | where),
        Question(create, f"{EC2}:traffic-mirror-target/tmt-1", REGION | target),
        Question(create, f"{EC2}:traffic-mirror-filter/tmf-1", REGION),
        Question(create, session, keys),
        Question("ec2:CreateTags", session, keys | {"ec2:CreateAction": "CreateTrafficMirrorSession"}),
    ]


def test_a_create_without_tags_is_no_tagging() -> None:
    untagged = {name: value for name, value in CREATE.items() if not name.startswith("TagSpecification.2")}
    *_, last = asked("ec2:CreateTrafficMirrorSession", untagged)
    assert last == Question("ec2:CreateTrafficMirrorSession", f"{EC2}:traffic-mirror-session/*", REGION)


def test_a_modify_is_asked_about_what_it_names() -> None:
    modify = "ec2:ModifyTrafficMirrorSession"
    named = {"TrafficMirrorSessionId": "tms-1", "TrafficMirrorFilterId": "tmf-1", "SessionNumber": "2"}
    found = [question.resource for question in asked(modify, named)]
    assert found == [f"{EC2}:traffic-mirror-session/tms-1", f"{EC2}:traffic-mirror-filter/tmf-1"]


@pytest.mark.parametrize(
    ("tags", "keys"),
    [
        ({}, {}),
        ({"Tag.1.Key": "a"}, {"aws:TagKeys": ["a"], "aws:RequestTag/a": ""}),
        ({"Tag.1.Key": "a", "Tag.1.Value": "b"}, {"aws:TagKeys": ["a"], "aws:RequestTag/a": "b"}),
    ],
)
def test_tagging_is_asked_about_each_resource(tags: Mapping[str, str], keys: Keys) -> None:
    request = {"ResourceId.1": "i-1", "ResourceId.2": "tms-1", **tags}
    assert asked("ec2:DeleteTags", request, tms_1={"b": "c"}) == [
        Question("ec2:DeleteTags", f"{EC2}:instance/i-1", REGION | keys),
        Question(
            "ec2:DeleteTags",
            f"{EC2}:traffic-mirror-session/tms-1",
            REGION | {"aws:ResourceTag/b": "c", "ec2:ResourceTag/b": "c"} | keys,
        ),
    ]


def test_events_are_asked_about_by_bus() -> None:
    entries = [
        {"Source": "a", "DetailType": "b"},
        {"Source": "c", "EventBusName": "default"},
        {"EventBusName": "arn:aws:events:eu-west-1:1:event-bus/x"},
    ]
    bus = "arn:aws:events:eu-west-1:123456789012:event-bus/default"
    assert asked("events:PutEvents", {"Entries": entries}) == [
        Question("events:PutEvents", bus, {"events:source": ["a", "c"], "events:detail-type": ["b"]}),
        Question("events:PutEvents", "arn:aws:events:eu-west-1:1:event-bus/x"),
    ]


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("/a/b", "parameter/a/b"),
        ("a", "parameter/a"),
        ("/a/b:3", "parameter/a/b"),
        ("arn:aws:ssm:eu-west-1:123456789012:parameter/a/b:label", "parameter/a/b"),
    ],
)
def test_a_parameter_is_asked_about_by_its_name_alone(name: str, resource: str) -> None:
    wanted = f"arn:aws:ssm:eu-west-1:123456789012:{resource}"
    assert asked("ssm:GetParameter", {"Name": name}) == [Question("ssm:GetParameter", wanted)]
    assert asked("ssm:GetParameters", {"Names": [name]}) == [Question("ssm:GetParameters", wanted)]


@pytest.mark.parametrize(
    ("action", "parameters", "question"),
    [
        ("ec2:DescribeInstances", {"InstanceId.1": "i-1"}, Question("ec2:DescribeInstances", "*", REGION)),
        (
            "elasticloadbalancing:DescribeListeners",
            {"LoadBalancerArn": "arn:x"},
            Question("elasticloadbalancing:DescribeListeners", "*"),
        ),
        ("sqs:SendMessageBatch", {}, Question("sqs:SendMessage", "arn:given")),
        (
            "logs:PutLogEvents",
            {"logGroupName": "/a", "logStreamName": "b"},
            Question("logs:PutLogEvents", "arn:aws:logs:eu-west-1:123456789012:log-group:/a:log-stream:b"),
        ),
        (
            "logs:DescribeLogStreams",
            {"logGroupName": "/a"},
            Question("logs:DescribeLogStreams", "arn:aws:logs:eu-west-1:123456789012:log-group:/a:log-stream:"),
        ),
        (
            "cloudformation:SignalResource",
            {"StackName": "s"},
            Question("cloudformation:SignalResource", "arn:aws:cloudformation:eu-west-1:123456789012:stack/s/1"),
        ),
    ],
)
def test_other_actions(action: str, parameters: Mapping[str, Any], question: Question) -> None:
    assert asked(action, parameters, "arn:given") == [question]


def test_what_nobody_taught_is_left_to_ministack() -> None:
    assert asker_of("ec2:RunInstances") is None
