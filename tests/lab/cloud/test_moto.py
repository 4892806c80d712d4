"""What the adapter adds to moto beyond the contract that it shares with ministack: test_adapters.py."""

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.responses import BaseResponse
from moto.ec2.models.instances import Instance
from moto.ec2.responses.traffic_mirrors import TrafficMirrors

from lab.cloud.account import Account, strict_aws
from lab.cloud.mirroring import TrafficMirroring
from lab.cloud.moto import MotoSurroundings, strict
from tests.lab.cloud.world import World, refused


@pytest.fixture
def account() -> Iterator[Account]:
    with strict_aws() as account:
        yield account


# Interfaces that somebody else manages


def test_an_interface_that_others_manage_is_no_source(account: Account) -> None:
    [web] = account.launch()
    managed = account.attach(web, requester_managed=True)
    world = World(account.ec2, account.elb)
    assert refused(lambda: world.session(managed)) == "NetworkInterfaceNotSupported"


def test_it_is_found_by_that(account: Account) -> None:
    web, other = account.launch(2)
    managed = account.attach(web, requester_managed=True)
    by = [
        {"Name": "attachment.instance-id", "Values": [web, other]},
        {"Name": "requester-managed", "Values": ["true"]},
    ]
    [found] = account.ec2.describe_network_interfaces(Filters=by)["NetworkInterfaces"]
    assert found["NetworkInterfaceId"] == managed


# Permissions and faults


def test_tagging_can_be_denied_by_what_is_asked(account: Account) -> None:
    [web] = account.launch()
    account.model.deny("CreateTags", lambda call: call["Tags"][0]["Key"] == "a")
    tag = account.ec2.create_tags
    for dry in (True, False):
        asked = {"Resources": [web], "Tags": [{"Key": "a", "Value": "b"}], "DryRun": dry}
        assert refused(tag, **asked) == "UnauthorizedOperation"
    tag(Resources=[web], Tags=[{"Key": "b", "Value": ""}])


@pytest.mark.parametrize(
    ("service", "action", "call", "parameters"),
    [
        ("ec2", "DescribeInstances", "describe_instances", {}),
        ("ec2", "DescribeTrafficMirrorSessions", "describe_traffic_mirror_sessions", {}),
        ("ssm", "GetParameters", "get_parameters", {"Names": ["/a"]}),
        ("elbv2", "DescribeLoadBalancers", "describe_load_balancers", {}),
        ("sqs", "ListQueues", "list_queues", {}),
        ("autoscaling", "DescribeAutoScalingGroups", "describe_auto_scaling_groups", {}),
    ],
)
def test_any_call_of_any_service_can_fail(
    account: Account, service: str, action: str, call: str, parameters: dict[str, Any]
) -> None:
    account.model.fail(action, "InternalFailure")
    client = account.client(service)
    assert refused(getattr(client, call), **parameters) == "InternalFailure"
    assert getattr(client, call)(**parameters)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert [(made.action, made.parameters) for made in account.model.faults.calls] == [(action, parameters)] * 2


def test_a_service_whose_requests_are_not_understood_can_fail_too(account: Account) -> None:
    account.model.fail("ListMetrics", "InternalFailure", when=lambda call: call == {})
    assert refused(account.client("cloudwatch").list_metrics) == "InternalFailure"


@pytest.mark.parametrize(("code", "status"), [("InternalError", 500), ("Unavailable", 503), ("Throttling", 400)])
@pytest.mark.parametrize("call", ["describe_instances", "describe_traffic_mirror_sessions"])
def test_the_status_belongs_to_the_code(account: Account, call: str, code: str, status: int) -> None:
    account.model.fail("*", code)
    with pytest.raises(ClientError) as caught:
        getattr(account.ec2, call)()
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_lost_answer_of_an_action_that_is_motos_own(account: Account) -> None:
    [web] = account.launch()
    account.model.fail("StopInstances", "InternalError", lost=True)
    assert refused(account.ec2.stop_instances, InstanceIds=[web]) == "InternalError"
    [reservation] = account.ec2.describe_instances(InstanceIds=[web])["Reservations"]
    assert reservation["Instances"][0]["State"]["Name"] == "stopped"


def test_whoever_lives_in_the_account_is_not_hindered(account: Account) -> None:
    account.model.fail("*", "InternalError", times=1000)
    [web] = account.launch(tags={"a": "b"})
    account.tag([web], {"c": "d"})
    account.nlb_target()
    account.filter()
    account.terminate([web])
    assert account.model.faults.calls == []


# Restoring


def test_moto_is_as_it_was_afterwards() -> None:
    before = [dict(vars(owner)) for owner in (TrafficMirrors, BaseResponse, Instance)]
    with strict(TrafficMirroring(MotoSurroundings("123456789012", "eu-west-1"))):
        assert [dict(vars(owner)) for owner in (TrafficMirrors, BaseResponse, Instance)] != before
    assert [dict(vars(owner)) for owner in (TrafficMirrors, BaseResponse, Instance)] == before
    with mock_aws():
        assert not hasattr(TrafficMirrors, "create_traffic_mirror_filter_rule")
