"""The harness: what happens in the account, and what EventBridge would tell of it."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import boto3
import pytest

from lab.cloud.account import GROUP_TAG, POLICY, Account, strict_aws, strict_server
from lab.cloud.events import Event
from lab.cloud.mirroring import Quotas

RUNNING = ["pending", "running"]


@pytest.fixture
def account() -> Iterator[Account]:
    with strict_aws() as account:
        yield account


def brief(events: list[Event]) -> list[tuple[str, Any]]:
    """Kind and gist."""
    told = []
    for event in events:
        detail = event["detail"]
        gist = detail.get("state") or detail.get("Destination") or detail.get("eventName") or detail.get("operation")
        told.append((event["detail-type"], gist or detail.get("changed-tag-keys")))
    return told


def states(events: list[Event], instance: str) -> list[str]:
    return [e["detail"]["state"] for e in events if e["detail"].get("instance-id") == instance]


def described(account: Account, instance: str) -> dict[str, Any]:
    [reservation] = account.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    found: dict[str, Any] = reservation["Instances"][0]
    return found


def test_a_life(account: Account) -> None:
    [web] = account.launch(tags={"mirror": "yes"})
    account.stop([web])
    account.start([web])
    account.terminate([web])
    told = account.take_events()
    assert states(told, web) == [*RUNNING, "stopping", "stopped", *RUNNING, "shutting-down", "terminated"]
    assert len({event["id"] for event in told}) == len(told)
    assert account.take_events() == []


def test_events_bear_the_time_of_the_account(account: Account) -> None:
    account.now = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    account.tick()
    assert account.take_events()[0]["time"] == "2027-01-02T03:04:05Z"


def test_instances_lie_where_they_are_put(account: Account) -> None:
    vpc = account.vpc()
    other = account.subnet(vpc)
    [first] = account.launch(vpc=vpc)
    [second] = account.launch(subnet=other, type="c5.large", tags={"a": "b"})
    found = described(account, second)
    assert described(account, first)["VpcId"] == found["VpcId"] == vpc
    assert described(account, first)["SubnetId"] != found["SubnetId"] == other
    assert (found["InstanceType"], found["Tags"]) == ("c5.large", [{"Key": "a", "Value": "b"}])
    [third] = account.launch()
    assert described(account, third)["VpcId"] == vpc  # the first one, unless told


def test_tags_and_their_versions(account: Account) -> None:
    web, other = account.launch(2, tags={"a": "1"})
    account.take_events()
    account.tag([web, other], {"b": "2"})
    account.untag([web], ["a"])
    first, second, third = (event["detail"] for event in account.take_events())
    assert (first["changed-tag-keys"], first["tags"], first["version"]) == (["b"], {"a": "1", "b": "2"}, 1)
    assert second["version"] == 1
    assert (third["changed-tag-keys"], third["tags"], third["version"]) == (["a"], {"b": "2"}, 2)


def test_interfaces_come_and_go(account: Account) -> None:
    [web] = account.launch()
    account.take_events()
    second = account.attach(web)
    fifth = account.attach(web, device_index=5)
    assert account.interfaces(web)[1:] == [second, fifth]
    account.detach(second)
    account.detach(fifth, delete=True)
    told = account.take_events()
    assert [event["detail"]["eventName"] for event in told] == ["AttachNetworkInterface"] * 2 + [
        "DetachNetworkInterface"
    ] * 2
    assert told[0]["detail"]["requestParameters"] == {
        "networkInterfaceId": second,
        "instanceId": web,
        "deviceIndex": 1,
    }
    gone = told[2]["detail"]["requestParameters"]["attachmentId"]
    assert gone == told[0]["detail"]["responseElements"]["attachmentId"]
    left = account.ec2.describe_network_interfaces(Filters=[{"Name": "status", "Values": ["available"]}])
    assert [found["NetworkInterfaceId"] for found in left["NetworkInterfaces"]] == [second]


def test_states_can_be_held(account: Account) -> None:
    [web] = account.launch()
    account.take_events()
    account.set_state([web], "shutting-down")
    assert described(account, web)["State"] == {"Code": 32, "Name": "shutting-down"}
    assert states(account.take_events(), web) == ["shutting-down"]


def test_terminated_instances_vanish(account: Account) -> None:
    web, other = account.launch(2)
    account.terminate([web])
    account.vanish([web])
    [reservation] = account.ec2.describe_instances()["Reservations"]
    assert [found["InstanceId"] for found in reservation["Instances"]] == [other]


def test_a_member_of_a_group_that_somebody_else_looks_after(account: Account) -> None:
    [web] = account.launch(group="web")
    assert {"Key": GROUP_TAG, "Value": "web"} in described(account, web)["Tags"]
    account.terminate([web])
    assert brief(account.take_events()) == [
        ("EC2 Instance State-change Notification", "pending"),
        ("EC2 Instance State-change Notification", "running"),
        ("EC2 Instance Launch Successful", "AutoScalingGroup"),
        ("EC2 Instance State-change Notification", "shutting-down"),
        ("EC2 Instance State-change Notification", "terminated"),
        ("EC2 Instance Terminate Successful", "EC2"),
    ]


def test_a_group_grows_and_shrinks(account: Account) -> None:
    two = account.group("web", 2, tags={"mirror": "yes"}, type="c5.large")
    assert len(account.scale("web", 5)) == 5
    assert described(account, two[0])["InstanceType"] == "c5.large"
    bears = {tag["Key"]: tag["Value"] for tag in described(account, two[0])["Tags"]}
    assert bears[GROUP_TAG] == "web" and bears["mirror"] == "yes"
    left = account.scale("web", 1)
    told = [event["detail-type"] for event in account.take_events()]
    assert told.count("EC2 Instance Launch Successful") == 5
    assert told.count("EC2 Instance Terminate Successful") == 4
    assert account.scale("other", 1) != left == account.scale("web", 1)


def test_a_group_replaces_what_is_terminated(account: Account) -> None:
    [first] = account.scale("web", 1)
    account.take_events()
    account.terminate([first])
    told = account.take_events()
    assert [kind for kind, _ in brief(told)].count("EC2 Instance Launch Successful") == 1
    assert [kind for kind, _ in brief(told)].count("EC2 Instance Terminate Successful") == 1
    [second] = account.scale("web", 1)
    assert second != first and states(told, second) == RUNNING


def test_a_scale_in_to_the_warm_pool(account: Account) -> None:
    [web] = account.launch(group="web")
    account.take_events()
    account.to_warm_pool(web)
    assert brief(account.take_events())[-1] == ("EC2 Instance Terminate Successful", "WarmPool")
    assert described(account, web)["State"]["Name"] == "stopped"


def test_other_news(account: Account) -> None:
    account.put_policy("sources: []")
    account.put_policy("sources: []", POLICY)
    account.tick()
    account.find("i-9", "UnauthorizedAccess:EC2/SSHBruteForce", 5)
    first, second, third, fourth = account.take_events()
    assert [first["detail"]["operation"], second["detail"]["operation"]] == ["Create", "Update"]
    assert first["resources"] == [f"arn:aws:ssm:eu-west-1:123456789012:parameter{POLICY}"]
    assert account.ssm.get_parameter(Name=POLICY)["Parameter"]["Version"] == 2
    assert third["detail-type"] == "Scheduled Event"
    assert (fourth["detail"]["type"], fourth["detail"]["severity"]) == ("UnauthorizedAccess:EC2/SSHBruteForce", 5)


def test_targets(account: Account) -> None:
    healthy, sick = account.nlb_target(tags={"a": "b"}), account.nlb_target(healthy=False)
    bare = account.nlb_target(listener=False)
    interface = account.eni_target("m5.24xlarge")
    found = {
        target["TrafficMirrorTargetId"]: target
        for target in account.ec2.describe_traffic_mirror_targets()["TrafficMirrorTargets"]
    }
    assert found[healthy]["Tags"] == [{"Key": "a", "Value": "b"}]
    assert found[interface]["Type"] == "network-interface"

    def health(target: str) -> list[str]:
        arn = found[target]["NetworkLoadBalancerArn"]
        groups = account.elb.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]
        return [
            item["TargetHealth"]["State"]
            for group in groups
            for item in account.elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])[
                "TargetHealthDescriptions"
            ]
        ]

    assert health(healthy) == ["healthy"] and health(sick) == []
    account.set_health(healthy, False)
    assert health(healthy) == []
    account.set_health(healthy, True)
    assert health(healthy) == ["healthy"]

    def listeners(target: str) -> list[tuple[str, int]]:
        shown = account.elb.describe_listeners(LoadBalancerArn=found[target]["NetworkLoadBalancerArn"])["Listeners"]
        return [(listener["Protocol"], listener["Port"]) for listener in shown]

    assert listeners(healthy) == [("UDP", 4789)] and listeners(bare) == []
    account.delete_load_balancer(healthy)
    left = {balancer["LoadBalancerArn"] for balancer in account.elb.describe_load_balancers()["LoadBalancers"]}
    assert left == {found[target]["NetworkLoadBalancerArn"] for target in (sick, bare)}


def test_filters(account: Account) -> None:
    name = account.filter([80, 443], egress=True, tags={"a": "b"})
    [found] = account.ec2.describe_traffic_mirror_filters()["TrafficMirrorFilters"]
    assert found["TrafficMirrorFilterId"] == name and found["Tags"] == [{"Key": "a", "Value": "b"}]
    assert [rule["DestinationPortRange"]["FromPort"] for rule in found["IngressFilterRules"]] == [80, 443]
    assert [rule["SourcePortRange"]["FromPort"] for rule in found["EgressFilterRules"]] == [80, 443]
    account.filter([22])
    assert account.ec2.describe_traffic_mirror_filters()["TrafficMirrorFilters"][1]["EgressFilterRules"] == []


def test_what_was_set_up_makes_no_news_and_no_calls(account: Account) -> None:
    account.nlb_target()
    account.eni_target()
    account.filter()
    assert account.take_events() == [] and account.model.faults.calls == []


def test_the_environment_is_the_accounts_own_and_comes_back() -> None:
    before = dict(os.environ)
    with strict_aws("us-east-1", Quotas(sessions=1)) as account:
        assert os.environ["AWS_REGION"] == os.environ["AWS_DEFAULT_REGION"] == account.region == "us-east-1"
        assert os.environ["AWS_ACCESS_KEY_ID"] == "testing" and "AWS_PROFILE" not in os.environ
        assert boto3.client("sts").get_caller_identity()["Account"] == "123456789012"
        account.launch()
        assert account.take_events()[0]["region"] == "us-east-1" and account.model.quotas.sessions == 1
    assert dict(os.environ) == before


def test_clients_for_all_that_is_talked_to(account: Account) -> None:
    queue = account.sqs.create_queue(QueueName="news")["QueueUrl"]
    account.sqs.send_message(QueueUrl=queue, MessageBody="x")
    assert account.bus.list_event_buses()["EventBuses"][0]["Name"] == "default"
    assert [call.action for call in account.model.faults.calls] == ["CreateQueue", "SendMessage", "ListEventBuses"]


def test_accounts_follow_one_another_without_a_trace() -> None:
    for _ in range(2):
        with strict_aws() as account:
            assert account.ec2.describe_instances()["Reservations"] == []
            account.launch()


def test_an_account_behind_http() -> None:
    with strict_server() as account:
        assert account.url == os.environ["AWS_ENDPOINT_URL"] and account.url.startswith("http://127.0.0.1:")
        target, rules = account.nlb_target(), account.filter()
        [web] = account.launch()
        account.model.fail("DescribeInstances", "RequestLimitExceeded")
        ec2 = boto3.client("ec2")  # as another program would make it: the environment says where
        made = ec2.create_traffic_mirror_session(
            NetworkInterfaceId=account.interfaces(web)[0],
            TrafficMirrorTargetId=target,
            TrafficMirrorFilterId=rules,
            SessionNumber=1,
        )["TrafficMirrorSession"]
        assert made["PacketLength"] == 8500
        assert [call.action for call in account.model.faults.calls] == ["CreateTrafficMirrorSession"]
        with pytest.raises(account.ec2.exceptions.ClientError, match="RequestLimitExceeded"):
            account.ec2.describe_instances()
        account.terminate([web])
        assert account.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"] == []
        url = account.url
    with pytest.raises(URLError):
        urlopen(url, timeout=5)
    assert "AWS_ENDPOINT_URL" not in os.environ
