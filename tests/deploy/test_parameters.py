"""Parameters: each explained, in its place in the console's form, and refused with a remedy before anything is made."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lab.cloud.intrinsics import TemplateError, references
from tests.deploy.given import REQUIRED, TEMPLATE, Given, given
from tests.deploy.raw import template

DEFINITIONS: Mapping[str, Mapping[str, Any]] = template()["Parameters"]
FORM: Mapping[str, Any] = template()["Metadata"]["AWS::CloudFormation::Interface"]
EVERY = pytest.mark.parametrize("name", sorted(DEFINITIONS))

WALK_THROUGH = (
    "HandlerVpcId HandlerSubnetIds RequestsForwardDestination TrafficMirroringVNI ForwardPercentage PercentageBy "
    "PercentageByHeader KeepOriginalHostHeader FilterByDestinationPort FilterByDestinationCidrBlock "
    "FilterBySourceCidrBlock InstanceType"
).split()
NEW = (
    "ProductionTag ProductionVpcIds ProductionSubnetIds AutoTagKeys MirrorSourceCidrs WorkerArchitecture "
    "LambdaArchitecture FleetMinimum FleetMaximum WorkerImageId PolicyParameterName WorkerSettingsParameter "
    "AlarmTopicArn LogRetentionDays GuardDutyFindings InterfaceEvents"
).split()


def test_these_are_all_parameters() -> None:
    assert DEFINITIONS.keys() == {*WALK_THROUGH, *NEW}


def test_no_more_than_three_must_be_given() -> None:
    assert {name for name, rule in DEFINITIONS.items() if "Default" not in rule} == REQUIRED.keys()


@EVERY
def test_a_parameter_is_explained(name: str) -> None:
    description = DEFINITIONS[name]["Description"]
    assert description.endswith(".")
    assert 30 <= len(description) <= 400  # the console shows it beside a field; CloudFormation takes 4,000


@EVERY
def test_a_parameter_is_checked_before_anything_is_made_and_the_remedy_is_told(name: str) -> None:
    rule = DEFINITIONS[name]
    if rule["Type"].removeprefix("List<").startswith("AWS::"):  # CloudFormation looks whether it exists
        return
    assert {"AllowedPattern", "AllowedValues"} & rule.keys() or {"MinValue", "MaxValue"} <= rule.keys()
    if "AllowedValues" not in rule:  # which are told by themselves
        assert rule["ConstraintDescription"].startswith("write ")


@EVERY
def test_a_pattern_means_the_same_in_java_and_here(name: str) -> None:
    """CloudFormation's are Java's, which must match the whole value. Only what both know alike is used."""
    pattern = DEFINITIONS[name].get("AllowedPattern", "")
    assert re.compile(pattern)
    assert not re.search(r"\\[bBAZzpPkK]|\(\?[^:!]|&&|\$\)?$|^\^|\[[^\]]*\[", pattern)


def test_the_form_shows_every_parameter_once_under_a_name() -> None:
    shown = [name for group in FORM["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(shown) == sorted(DEFINITIONS)
    assert FORM["ParameterLabels"].keys() == DEFINITIONS.keys()
    labels = [label["default"] for label in FORM["ParameterLabels"].values()]
    assert len(set(labels)) == len(labels)
    assert FORM["ParameterGroups"][0]["Parameters"] == list(REQUIRED)


def used() -> Iterator[str]:
    content = template()
    for section in ("Globals", "Conditions", "Resources", "Outputs"):
        yield from references(content[section])


@EVERY
def test_a_parameter_is_of_use(name: str) -> None:
    assert name in set(used())


def test_defaults_are_such_as_may_be_given() -> None:
    parameters = given().parameters
    assert parameters.keys() == DEFINITIONS.keys()
    for name in DEFINITIONS.keys() - REQUIRED.keys():
        value = parameters[name]
        again = ",".join(value) if isinstance(value, list) else value
        assert given(**{name: again}).parameters[name] == value


def test_who_answers_nothing_gets_what_the_walk_through_says() -> None:
    """And what is cheap, or safe, or both."""
    usual = {
        "FilterByDestinationPort": "80",
        "FilterByDestinationCidrBlock": "0.0.0.0/0",
        "FilterBySourceCidrBlock": "0.0.0.0/0",
        "TrafficMirroringVNI": "4789",
        "ForwardPercentage": "100",
        "PercentageBy": "",
        "KeepOriginalHostHeader": "false",
        "FleetMinimum": "2",  # one would be no fleet
        "FleetMaximum": "6",
        "GuardDutyFindings": "off",
        "InterfaceEvents": "off",
        "LogRetentionDays": "30",
    }
    assert {name: str(DEFINITIONS[name]["Default"]) for name in usual} == usual


def test_defaults_make_a_stack() -> None:
    assert given().resources
    assert given().outputs


# Values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RequestsForwardDestination", "http://test.internal"),
        ("RequestsForwardDestination", "http://test.internal/"),
        ("RequestsForwardDestination", "https://test-1.example.com:8443/prefix/v1"),
        ("RequestsForwardDestination", "http://10.0.0.5:8080"),
        ("RequestsForwardDestination", "http://internal-my_alb-1.eu-west-1.elb.amazonaws.com/a%20b/~c"),
        ("RequestsForwardDestination", "http://test:65535"),
        ("ProductionTag", ""),
        ("ProductionTag", "Environment=production"),
        ("ProductionTag", "kubernetes.io/cluster/blue=owned"),
        ("ProductionTag", "team name=the shop"),
        ("ProductionTag", "Environment=*"),
        ("ProductionTag", "Mirrored="),
        ("ProductionVpcIds", ""),
        ("ProductionVpcIds", "vpc-0a1b2c3d"),
        ("ProductionVpcIds", "vpc-0a1b2c3d,vpc-0a1b2c3d4e5f60718"),
        ("ProductionSubnetIds", "subnet-0a1b2c3d,subnet-0a1b2c3d4e5f60718"),
        ("FilterByDestinationPort", "1"),
        ("FilterByDestinationPort", "65535"),
        ("FilterByDestinationCidrBlock", "10.1.0.0/16"),
        ("FilterBySourceCidrBlock", "255.255.255.255/32"),
        ("TrafficMirroringVNI", "16777215"),
        ("MirrorSourceCidrs", "10.1.2.0/24"),
        ("MirrorSourceCidrs", "10.1.0.0/16,10.2.0.0/16,10.3.0.0/16,10.4.0.0/16,10.5.0.0/16"),
        ("PolicyParameterName", "/shop/mirroring/policy.yaml"),
        ("PolicyParameterName", "/policy"),
        ("AutoTagKeys", "Environment"),
        ("AutoTagKeys", "Environment,team:cost,a=b"),
        ("ForwardPercentage", "0"),
        ("ForwardPercentage", "0.5"),
        ("ForwardPercentage", "100"),
        ("WorkerSettingsParameter", "/shop/worker"),
        ("InstanceType", "c7g.16xlarge"),
        ("InstanceType", "u-6tb1.56xlarge"),
        ("InstanceType", "c7gn.metal"),
        ("WorkerImageId", "ami-0a1b2c3d4e5f60718"),
        ("AlarmTopicArn", "arn:aws:sns:eu-west-1:123456789012:alarms"),
        ("AlarmTopicArn", "arn:aws-us-gov:sns:us-gov-west-1:123456789012:alarms_1"),
        ("AlarmTopicArn", "arn:aws-cn:sns:cn-north-1:123456789012:alarms"),
    ],
)
def test_what_people_write_is_taken(name: str, value: str) -> None:
    assert given(**{name: value}).resources


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RequestsForwardDestination", ""),
        ("RequestsForwardDestination", "test.internal"),
        ("RequestsForwardDestination", "HTTP://test.internal"),
        ("RequestsForwardDestination", "ftp://test.internal"),
        ("RequestsForwardDestination", "http://"),
        ("RequestsForwardDestination", "http:///path"),
        ("RequestsForwardDestination", "http://user@test.internal"),
        ("RequestsForwardDestination", "http://test.internal?a=b"),
        ("RequestsForwardDestination", "http://test.internal/#top"),
        ("RequestsForwardDestination", "http://test.internal/a b"),
        ("RequestsForwardDestination", "http://test.internal\n"),
        ("RequestsForwardDestination", 'http://test.internal"\n  - url: "http://production'),
        ("RequestsForwardDestination", "http://test.internal\\x"),
        ("RequestsForwardDestination", "http://test.internal/\x07"),
        ("RequestsForwardDestination", "http://tést.internal"),
        ("RequestsForwardDestination", "http://test.internal/é"),
        ("RequestsForwardDestination", "http://test.internal:0"),
        ("RequestsForwardDestination", "http://test.internal:65536"),
        ("RequestsForwardDestination", "http://test.internal:port"),
        ("RequestsForwardDestination", "http://:8080"),
        ("RequestsForwardDestination", "http://[::1"),
        ("RequestsForwardDestination", "http://{{resolve:ssm:name}}"),  # SSM refuses braces in a value
        ("RequestsForwardDestination", "http://test.internal/{{path}}"),
        ("ProductionTag", "production"),
        ("ProductionTag", "=production"),
        ("ProductionTag", "a=b=c"),
        ("ProductionTag", 'a=b"}\n    target: tmt-1'),
        ("ProductionTag", "a=b\n"),
        ("ProductionTag", "a\\=b"),
        ("ProductionTag", "a=b*"),
        ("ProductionTag", f"{'a' * 129}=b"),
        ("ProductionTag", f"a={'b' * 257}"),
        ("ProductionTag", "aws:cloudformation:stack name\t=b"),
        ("ProductionVpcIds", "vpc-1"),
        ("ProductionVpcIds", "subnet-0a1b2c3d"),
        ("ProductionVpcIds", "vpc-0a1b2c3d]"),
        ("ProductionVpcIds", "vpc-*"),
        ("ProductionVpcIds", "vpc-0a1b2c3d,,vpc-0a1b2c3e"),
        ("ProductionVpcIds", "vpc-0a1b2c3d,"),
        ("ProductionVpcIds", ","),
        ("ProductionSubnetIds", "subnet-0a1b2c3d,,subnet-0a1b2c3e"),
        ("ProductionSubnetIds", "subnet-0a1b2c3d,vpc-0a1b2c3d"),
        ("FilterByDestinationPort", "0"),
        ("FilterByDestinationPort", "65536"),
        ("FilterByDestinationPort", "http"),
        ("FilterByDestinationCidrBlock", "10.1.0.0"),
        ("FilterByDestinationCidrBlock", "10.1.0.0/33"),
        ("FilterByDestinationCidrBlock", "10.1.256.0/24"),
        ("FilterByDestinationCidrBlock", "::/0"),
        ("FilterBySourceCidrBlock", "10.1.0.0/16,10.2.0.0/16"),
        ("TrafficMirroringVNI", "0"),
        ("TrafficMirroringVNI", "16777216"),
        ("MirrorSourceCidrs", ""),
        ("MirrorSourceCidrs", "10.0.0.0/8,"),
        ("MirrorSourceCidrs", "10.0.0.0/8,any"),
        ("MirrorSourceCidrs", "10.0.0.0/40"),
        ("PolicyParameterName", "policy"),
        ("PolicyParameterName", "/"),
        ("PolicyParameterName", "/shop//policy"),  # one name that SSM refuses fails the look at all three
        ("PolicyParameterName", "/shop/policy/"),
        ("PolicyParameterName", "/aws/policy"),
        ("PolicyParameterName", "/ssm-policy"),
        ("PolicyParameterName", "/shop/*"),
        ("PolicyParameterName", "/shop/policy\n"),
        ("WorkerSettingsParameter", "worker"),
        ("WorkerSettingsParameter", "/shop/worker settings"),
        ("WorkerSettingsParameter", "/shop//worker"),
        ("WorkerSettingsParameter", "/shop/$(reboot)"),
        ("AutoTagKeys", "team name"),
        ("AutoTagKeys", "*"),
        ("AutoTagKeys", "Environment,,team"),
        ("AutoTagKeys", "mirror:opt-out"),  # it would let the autotagger take it off
        ("AutoTagKeys", "Environment,mirror:managed-by"),
        ("AutoTagKeys", "aws:autoscaling:groupName"),
        ("AutoTagKeys", "a" * 129),
        ("GuardDutyFindings", "yes"),
        ("ForwardPercentage", "-1"),
        ("ForwardPercentage", "101"),
        ("PercentageBy", "random"),
        ("KeepOriginalHostHeader", "True"),
        ("InstanceType", "c7g"),
        ("InstanceType", "c7g.large "),
        ("WorkerArchitecture", "amd64"),
        ("FleetMinimum", "0"),
        ("FleetMaximum", "1"),
        ("WorkerImageId", "ami-"),
        ("AlarmTopicArn", "alarms"),
        ("AlarmTopicArn", "arn:aws:sqs:eu-west-1:123456789012:alarms"),
        ("LogRetentionDays", "31"),
    ],
)
def test_what_could_only_fail_later_is_refused(name: str, value: str) -> None:
    with pytest.raises(TemplateError, match=f"parameter {name}"):
        _ = given(**{name: value}).resources


# Rules


def refused(**values: str) -> str:
    with pytest.raises(TemplateError, match="rule ") as refusal:
        _ = given(**values).resources
    return str(refusal.value)


def test_a_share_by_header_needs_the_header() -> None:
    assert "PercentageByHeader" in refused(PercentageBy="header")
    assert given(PercentageBy="header", PercentageByHeader="X-User").resources


@pytest.mark.parametrize("by", ["", "remoteaddr"])
def test_a_header_needs_a_share_by_header(by: str) -> None:
    assert "PercentageBy is header" in refused(PercentageBy=by, PercentageByHeader="X-User")


@pytest.mark.parametrize("header", ["X User", 'X"', "X:", "X\n", "X\\", "é"])
def test_a_header_is_one_name(header: str) -> None:
    with pytest.raises(TemplateError, match="parameter PercentageByHeader"):
        _ = given(PercentageBy="header", PercentageByHeader=header).resources


def test_the_stack_is_asked_for_nothing_without_its_required_values() -> None:
    for name in REQUIRED:
        values = {key: value for key, value in REQUIRED.items() if key != name}
        with pytest.raises(TemplateError, match=f"parameter {name} needs a value"):
            _ = Given(TEMPLATE, values).parameters
