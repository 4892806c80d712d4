"""Shapes of physical names, against examples of AWS's own pages."""

import re

import pytest

from lab.cloud.names import ARNS, NAMED_BY, REFERENCES, Physical

PSEUDO = {
    "AccountId": "123456789012",
    "Partition": "aws",
    "Region": "eu-west-1",
    "StackName": "replay",
    "URLSuffix": "amazonaws.com",
}


def physical(kind: str, given: str | None = None) -> Physical:
    return Physical(f"AWS::{kind}", "Thing", given, PSEUDO)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("SQS::Queue", r"https://sqs\.eu-west-1\.amazonaws\.com/123456789012/mine"),
        ("EC2::TrafficMirrorTarget", r"tmt-[0-9a-f]{17}"),
        ("EC2::SecurityGroup", r"sg-[0-9a-f]{17}"),
        ("Lambda::Function", "mine"),
        ("Lambda::LayerVersion", r"arn:aws:lambda:eu-west-1:123456789012:layer:mine:1"),
        (
            "ElasticLoadBalancingV2::TargetGroup",
            r"arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/mine/[0-9a-f]{16}",
        ),
    ],
)
def test_what_ref_gives(kind: str, shape: str) -> None:
    assert re.fullmatch(shape, physical(kind, "mine").reference)


@pytest.mark.parametrize(
    ("kind", "attribute", "shape"),
    [
        ("SQS::Queue", "Arn", "arn:aws:sqs:eu-west-1:123456789012:replay-Thing"),
        ("SQS::Queue", "QueueName", "replay-Thing"),
        ("IAM::Role", "Arn", "arn:aws:iam::123456789012:role/replay-Thing"),
        ("Logs::LogGroup", "Arn", r"arn:aws:logs:eu-west-1:123456789012:log-group:replay-Thing:\*"),
        ("EC2::SecurityGroup", "GroupId", r"sg-[0-9a-f]{17}"),
        ("EC2::SecurityGroup", "VpcId", r"replay-Thing\.VpcId"),
        ("EC2::VPC", "VpcId", r"vpc-[0-9a-f]{17}"),
        ("EC2::LaunchTemplate", "LaunchTemplateId", r"lt-[0-9a-f]{17}"),
        ("EC2::LaunchTemplate", "LatestVersionNumber", r"replay-Thing\.LatestVersionNumber"),
        ("ElasticLoadBalancingV2::LoadBalancer", "LoadBalancerFullName", r"net/replay-Thing/[0-9a-f]{16}"),
        ("ElasticLoadBalancingV2::TargetGroup", "TargetGroupFullName", r"targetgroup/replay-Thing/[0-9a-f]{16}"),
        ("ElasticLoadBalancingV2::LoadBalancer", "DNSName", r"replay-Thing\.DNSName"),
    ],
)
def test_what_getatt_gives(kind: str, attribute: str, shape: str) -> None:
    assert re.fullmatch(shape, physical(kind).attribute(attribute))


def test_two_resources_of_one_type_are_told_apart() -> None:
    one, other = (Physical("AWS::EC2::SecurityGroup", name, None, PSEUDO) for name in ("One", "Other"))
    assert one.reference != other.reference


def test_the_tables_agree_about_types_that_ref_by_arn() -> None:
    assert {kind for kind, shape in REFERENCES.items() if shape is None} <= ARNS.keys()
    assert all(shape is None or "{" in shape for shape in REFERENCES.values())
    assert NAMED_BY.keys() <= ARNS.keys() | {"AWS::CloudWatch::Dashboard", "AWS::SSM::Parameter"}
