"""What the adapter adds to moto, seen through boto3 as any caller sees it. The model's own rules: test_mirroring.py."""

from collections.abc import Callable, Iterator
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


@pytest.fixture
def account() -> Iterator[Account]:
    with strict_aws() as account:
        yield account


def refused(call: Callable[..., object], **parameters: object) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    code: str = caught.value.response["Error"]["Code"]
    return code


def session(account: Account, interface: str, **more: Any) -> dict[str, Any]:
    plain = {"TrafficMirrorTargetId": account.nlb_target(), "TrafficMirrorFilterId": account.filter()}
    made = account.ec2.create_traffic_mirror_session(NetworkInterfaceId=interface, SessionNumber=1, **{**plain, **more})
    found: dict[str, Any] = made["TrafficMirrorSession"]
    return found


def sessions(account: Account) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = account.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
    return found


def primary(account: Account) -> str:
    [instance] = account.launch()
    return account.interfaces(instance)[0]


def test_all_actions_of_mirroring_reach_the_model(account: Account) -> None:
    ec2, interface = account.ec2, primary(account)
    made = session(account, interface)
    name = made["TrafficMirrorSessionId"]
    changed = ec2.modify_traffic_mirror_session(
        TrafficMirrorSessionId=name, SessionNumber=7, RemoveFields=["description"]
    )
    assert changed["TrafficMirrorSession"] == {**made, "SessionNumber": 7}
    by = [{"Name": "session-number", "Values": ["7"]}]
    assert ec2.describe_traffic_mirror_sessions(Filters=by)["TrafficMirrorSessions"] == [
        changed["TrafficMirrorSession"]
    ]
    assert ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=name)["TrafficMirrorSessionId"] == name
    rules, target = made["TrafficMirrorFilterId"], made["TrafficMirrorTargetId"]
    [rule] = ec2.describe_traffic_mirror_filter_rules(TrafficMirrorFilterId=rules)["TrafficMirrorFilterRules"]
    by_rule = {"TrafficMirrorFilterRuleId": rule["TrafficMirrorFilterRuleId"]}
    ec2.modify_traffic_mirror_filter_rule(**by_rule, RemoveFields=["destination-port-range"])
    services = ec2.modify_traffic_mirror_filter_network_services(
        TrafficMirrorFilterId=rules, AddNetworkServices=["amazon-dns"]
    )["TrafficMirrorFilter"]
    assert services["NetworkServices"] == ["amazon-dns"]
    assert "DestinationPortRange" not in services["IngressFilterRules"][0]
    ec2.delete_traffic_mirror_filter_rule(**by_rule)
    ec2.delete_traffic_mirror_filter(TrafficMirrorFilterId=rules)
    ec2.delete_traffic_mirror_target(TrafficMirrorTargetId=target)
    assert ec2.describe_traffic_mirror_filters()["TrafficMirrorFilters"] == []
    assert ec2.describe_traffic_mirror_targets()["TrafficMirrorTargets"] == []


def test_refusals_are_client_errors(account: Account) -> None:
    interface = primary(account)
    made = session(account, interface, ClientToken="t")
    create = account.ec2.create_traffic_mirror_session
    same = {key: made[key] for key in ("NetworkInterfaceId", "TrafficMirrorTargetId", "TrafficMirrorFilterId")}
    assert refused(create, **same, SessionNumber=2, DryRun=True) == "DryRunOperation"
    assert refused(create, **same, SessionNumber=2, ClientToken="t") == "IdempotentParameterMismatch"
    assert refused(create, **same, SessionNumber=1) == "InvalidParameterValue"
    assert refused(create, **same, SessionNumber=2, PacketLength=9000) == "InvalidParameterValue"
    unknown = refused(account.ec2.modify_traffic_mirror_session, TrafficMirrorSessionId="tms-0")
    assert unknown == "InvalidTrafficMirrorSessionId.NotFound"


def test_a_target_needs_a_load_balancer_that_exists(account: Account) -> None:
    account.nlb_target()
    [balancer] = account.elb.describe_load_balancers()["LoadBalancers"]
    arn = balancer["LoadBalancerArn"]
    assert ":loadbalancer/net/" in arn
    create = account.ec2.create_traffic_mirror_target
    assert refused(create, NetworkLoadBalancerArn=arn + "0") == "InvalidNetworkLoadBalancerArn.NotFound"
    assert refused(create, GatewayLoadBalancerEndpointId="vpce-0") == "InvalidVpcEndpointId.NotFound"
    assert refused(create, NetworkInterfaceId="eni-0") == "InvalidTrafficMirrorTarget"


def test_a_gateway_endpoint_can_be_a_target(account: Account) -> None:
    made = account.endpoint_target(tags={"a": "b"})
    [target] = account.ec2.describe_traffic_mirror_targets()["TrafficMirrorTargets"]
    assert (target["TrafficMirrorTargetId"], target["Type"]) == (made, "gateway-load-balancer-endpoint")
    [endpoint] = account.ec2.describe_vpc_endpoints()["VpcEndpoints"]
    vpc, service = endpoint["VpcId"], "com.amazonaws.eu-west-1.s3"
    other = account.ec2.create_vpc_endpoint(VpcId=vpc, ServiceName=service)["VpcEndpoint"]
    create = account.ec2.create_traffic_mirror_target
    wrong = refused(create, GatewayLoadBalancerEndpointId=other["VpcEndpointId"])
    assert wrong == "InvalidVpcEndpointId.NotFound"


def test_what_an_interface_is_decides_whether_it_can_be_a_source(account: Account) -> None:
    [old] = account.launch(type="t2.micro")
    [new] = account.launch()
    managed = account.attach(new, requester_managed=True)
    for interface in (account.interfaces(old)[0], managed):
        assert refused(lambda interface=interface: session(account, interface)) == "NetworkInterfaceNotSupported"
    free = account.attach(new)
    account.detach(free)
    assert refused(lambda: session(account, free)) == "NetworkInterfaceNotSupported"


# Tags


def test_tags_of_sessions_live_in_the_model(account: Account) -> None:
    [web] = account.launch()
    name = session(account, account.interfaces(web)[0])["TrafficMirrorSessionId"]
    account.ec2.create_tags(Resources=[name, web], Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    account.ec2.delete_tags(Resources=[name, web], Tags=[{"Key": "a"}, {"Key": "b", "Value": "other"}])
    left = [{"Key": "b", "Value": "2"}]
    assert sessions(account)[0]["Tags"] == left
    assert account.ec2.describe_instances(InstanceIds=[web])["Reservations"][0]["Instances"][0]["Tags"] == left


@pytest.mark.parametrize(
    ("resource", "key", "code"),
    [
        ("tms-0", "a", "InvalidID"),
        ("i-0123456789abcdef0", "a", "InvalidInstanceID.NotFound"),
        ("session", "aws:a", "InvalidParameterValue"),
        ("instance", "aws:a", "InvalidParameterValue"),
    ],
)
def test_create_tags_refuses(account: Account, resource: str, key: str, code: str) -> None:
    [web] = account.launch()
    present = {"instance": web, "session": session(account, account.interfaces(web)[0])["TrafficMirrorSessionId"]}
    tag = {"Resources": [present.get(resource, resource)], "Tags": [{"Key": key, "Value": "x"}]}
    assert refused(account.ec2.create_tags, **tag) == code


def test_create_tags_as_a_dry_run(account: Account) -> None:
    [web] = account.launch()
    name = session(account, account.interfaces(web)[0])["TrafficMirrorSessionId"]
    tags = [{"Key": "a", "Value": "b"}]
    for resource in (web, name):
        assert refused(account.ec2.create_tags, Resources=[resource], Tags=tags, DryRun=True) == "DryRunOperation"
    account.model.deny("CreateTags", lambda call: call["Tags"][0]["Key"] == "a")
    for dry in (True, False):
        assert refused(account.ec2.create_tags, Resources=[web], Tags=tags, DryRun=dry) == "UnauthorizedOperation"
    assert sessions(account)[0]["Tags"] == []


# Lists


def test_instances_and_interfaces_come_in_pages(account: Account) -> None:
    launched = account.launch(7)
    for action, key, part in (
        ("describe_instances", "Reservations", "Instances"),
        ("describe_network_interfaces", "NetworkInterfaces", ""),
    ):
        pages = list(account.ec2.get_paginator(action).paginate(MaxResults=5))
        sizes = [sum(len(item[part]) if part else 1 for item in page[key]) for page in pages]
        assert sizes == [5, 2]
    found = [
        instance["InstanceId"]
        for page in account.ec2.get_paginator("describe_instances").paginate(MaxResults=5)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    assert sorted(found) == sorted(launched)


def test_reservations_stay_whole_as_far_as_a_page_reaches(account: Account) -> None:
    account.launch(3)
    account.launch(4)
    first = account.ec2.describe_instances(MaxResults=5)
    assert [len(reservation["Instances"]) for reservation in first["Reservations"]] == [3, 2]
    assert first["Reservations"][0]["OwnerId"] == "123456789012"


def test_what_lists_refuse(account: Account) -> None:
    [web] = account.launch()
    ec2 = account.ec2
    assert refused(ec2.describe_instances, InstanceIds=[web], MaxResults=5) == "InvalidParameterCombination"
    interfaces = account.interfaces(web)
    wrong = refused(ec2.describe_network_interfaces, NetworkInterfaceIds=interfaces, MaxResults=5)
    assert wrong == "InvalidParameterCombination"
    assert refused(ec2.describe_instances, MaxResults=4) == "InvalidParameterValue"
    assert refused(ec2.describe_network_interfaces, NextToken="nonsense") == "InvalidPaginationToken"
    many = [{"Name": "instance-id", "Values": [f"i-{n}" for n in range(201)]}]
    assert refused(ec2.describe_instances, Filters=many) == "FilterLimitExceeded"
    unknown = refused(ec2.describe_instances, InstanceIds=["i-0123456789abcdef0"])
    assert unknown == "InvalidInstanceID.NotFound"


def test_filters_of_lists(account: Account) -> None:
    web, other = account.launch(2)
    extra = account.attach(web, requester_managed=True)
    by = [
        {"Name": "attachment.instance-id", "Values": [web, other]},
        {"Name": "requester-managed", "Values": ["true"]},
    ]
    [found] = account.ec2.describe_network_interfaces(Filters=by)["NetworkInterfaces"]
    assert found["NetworkInterfaceId"] == extra
    by = [{"Name": "instance-id", "Values": [web, "i-0123456789abcdef0"]}]
    [reservation] = account.ec2.describe_instances(Filters=by)["Reservations"]
    assert [instance["InstanceId"] for instance in reservation["Instances"]] == [web]


# The end of instances and interfaces


def test_a_terminated_instance_gives_its_interfaces_up(account: Account) -> None:
    [web] = account.launch(tags={"a": "b"})
    extra = account.attach(web)
    kept = session(account, extra)
    session(account, account.interfaces(web)[0])
    account.ec2.terminate_instances(InstanceIds=[web])
    [reservation] = account.ec2.describe_instances(InstanceIds=[web])["Reservations"]
    [instance] = reservation["Instances"]
    assert instance["State"]["Name"] == "terminated" and instance["Tags"] == [{"Key": "a", "Value": "b"}]
    assert instance["NetworkInterfaces"] == [] and "VpcId" not in instance and "SubnetId" not in instance
    assert sessions(account) == [kept]  # an interface attached later is not deleted with the instance
    [free] = account.ec2.describe_network_interfaces(NetworkInterfaceIds=[extra])["NetworkInterfaces"]
    assert free["Status"] == "available" and "Attachment" not in free
    account.ec2.terminate_instances(InstanceIds=[web])  # again: no harm


def test_a_launch_may_say_that_an_interface_stays(account: Account) -> None:
    subnet = account.subnet(account.vpc())
    nic = {"DeviceIndex": 0, "SubnetId": subnet, "DeleteOnTermination": False}
    launched = account.ec2.run_instances(
        ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=1, InstanceType="m5.large", NetworkInterfaces=[nic]
    )["Instances"][0]
    interface = launched["NetworkInterfaces"][0]["NetworkInterfaceId"]
    account.ec2.terminate_instances(InstanceIds=[launched["InstanceId"]])
    assert account.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]


def test_only_a_free_interface_is_deleted_and_its_session_goes(account: Account) -> None:
    [web] = account.launch()
    extra = account.attach(web)
    session(account, extra)
    delete = account.ec2.delete_network_interface
    assert refused(delete, NetworkInterfaceId=extra) == "InvalidNetworkInterface.InUse"
    account.detach(extra)
    assert len(sessions(account)) == 1
    delete(NetworkInterfaceId=extra)
    assert sessions(account) == []
    assert refused(delete, NetworkInterfaceId=extra) == "InvalidNetworkInterfaceID.NotFound"


# Faults


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
