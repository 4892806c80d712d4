"""EC2's query protocol from the server's side, held against what boto3 sends and reads."""

from typing import Any
from urllib.parse import parse_qsl

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError

from lab.cloud.protocol import answer, refusal, request


class Wire:
    """Stands between boto3 and a server: keeps the form that boto3 sends, and answers what the test says."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.body, self.status = body, status
        self.form: dict[str, str] = {}
        self.ec2 = boto3.client("ec2", region_name="eu-west-1", aws_access_key_id="test", aws_secret_access_key="test")
        self.ec2.meta.events.register("before-send.ec2.*", self._send)

    def _send(self, request: Any, **_: Any) -> AWSResponse:
        self.form = dict(parse_qsl(request.body, keep_blank_values=True))
        return AWSResponse(request.url, self.status, {}, _Raw(self.body))


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> list[bytes]:
        return [self._body]


SESSION = {
    "NetworkInterfaceId": "eni-1",
    "TrafficMirrorTargetId": "tmt-1",
    "TrafficMirrorFilterId": "tmf-1",
    "SessionNumber": 7,
    "Description": "",
    "DryRun": False,
    "TagSpecifications": [
        {
            "ResourceType": "traffic-mirror-session",
            "Tags": [{"Key": "a", "Value": "<1> & 2"}, {"Key": "b", "Value": ""}],
        }
    ],
    "ClientToken": "t",
}


def test_a_request_is_read_as_it_was_given_to_boto3() -> None:
    wire = Wire(answer("CreateTrafficMirrorSession", {}))
    wire.ec2.create_traffic_mirror_session(**SESSION)
    assert wire.form["TagSpecification.1.Tag.1.Key"] == "a"  # neither in the plural, as boto3 has them
    assert request("CreateTrafficMirrorSession", wire.form) == SESSION


def test_what_an_action_does_not_have_is_left_out() -> None:
    assert request("DescribeTags", {"MaxResults": "5", "Colour": "red"}) == {"MaxResults": 5}
    assert b"red" not in answer("DescribeTags", {"Tags": [{"Key": "a", "Colour": "red"}]})


@pytest.mark.parametrize("gap", [{"Tag.2.Key": "a"}, {"Tag.1.Colour": "a"}])
def test_a_list_ends_where_its_numbers_do(gap: dict[str, str]) -> None:
    assert request("CreateTags", {"ResourceId.1": "i-1", **gap}) == {"Resources": ["i-1"]}


def test_an_answer_reaches_boto3_as_it_was_given() -> None:
    rule = {"RuleNumber": 1, "DestinationPortRange": {"FromPort": 80, "ToPort": 81}, "Description": "<a> & b"}
    first = {"TrafficMirrorFilterId": "tmf-1", "IngressFilterRules": [rule], "NetworkServices": ["amazon-dns"]}
    second: dict[str, Any] = {"TrafficMirrorFilterId": "tmf-2", "IngressFilterRules": [], "Description": None}
    filters = {"TrafficMirrorFilters": [first, second], "NextToken": None}
    read = Wire(answer("DescribeTrafficMirrorFilters", filters)).ec2.describe_traffic_mirror_filters()
    del read["ResponseMetadata"]
    assert read == {"TrafficMirrorFilters": [first, {"TrafficMirrorFilterId": "tmf-2", "IngressFilterRules": []}]}


def test_yes_and_no_are_told_apart() -> None:
    interfaces = {"NetworkInterfaces": [{"RequesterManaged": True}, {"RequesterManaged": False}]}
    read = Wire(answer("DescribeNetworkInterfaces", interfaces)).ec2.describe_network_interfaces()
    assert read["NetworkInterfaces"] == interfaces["NetworkInterfaces"]


def test_a_refusal_is_a_client_error() -> None:
    wire = Wire(refusal("InvalidID", "The ID '<x>' does not exist"), status=400)
    with pytest.raises(ClientError) as caught:
        wire.ec2.describe_instances()
    assert caught.value.response["Error"] == {"Code": "InvalidID", "Message": "The ID '<x>' does not exist"}
