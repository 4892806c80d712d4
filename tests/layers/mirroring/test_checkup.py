"""A checkup: what is read of the network between sources and targets, and what is said about it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from lab.cloud.account import Account, strict_aws
from mirroring import checkup
from mirroring.checkup import Facts, Reader
from mirroring.diagnosis import Answer, Balancer, Door, Origin, Outcome, Permission, Place, Route
from mirroring.ec2 import Ec2
from mirroring.environment import Environment
from mirroring.model import MirroringError, Refused, Scope, Target, TargetKind
from mirroring.policy import load
from mirroring.reconcile import Decision, Reconciler
from mirroring.store import InForce

OWNER = "vpc-traffic-replay"
TAGS = {"mirror:stack": OWNER}
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)


class Text:
    """A policy, as if it were in force."""

    def __init__(self, text: str) -> None:
        self._in_force = InForce(load(text), text, "policy.yaml", 0, paused=False)

    def read(self) -> InForce:
        return self._in_force

    def paused(self) -> bool:
        return False


class Canned:
    """A client whose every operation has one answer, or a refusal."""

    def __init__(self, **answers: dict[str, Any] | Refused) -> None:
        self._answers = answers

    def __getattr__(self, operation: str) -> Any:
        def call(**_: Any) -> dict[str, Any]:
            answer = self._answers.get(operation, {})
            if isinstance(answer, Refused):
                raise answer
            return answer

        return call


@pytest.fixture
def account() -> Iterator[Account]:
    with strict_aws() as account:
        yield account


def policy(target: str, filter_: str, more: str = "") -> str:
    source = f"{{name: web, match: {{tags: {{mirror: '*'}}}}, target: {target}, filter: {filter_}}}"
    return f"version: 1\nsources: [{source}]\n{more}"


def look(account: Account, text: str) -> tuple[Decision, Ec2]:
    cloud = Ec2(account.ec2, account.elb)
    reconciler = Reconciler(cloud, Text(text), Environment(), lambda: NOW, lambda _: None)
    return reconciler.look(Scope(everything=True, plan_only=True)), cloud


def read(account: Account, text: str) -> tuple[Decision, Facts]:
    decision, _ = look(account, text)
    return decision, Reader(account.ec2, account.elb).facts(decision)


def failures(answers: list[Answer]) -> list[str]:
    return [answer.text for answer in answers if answer.outcome is Outcome.FAILED]


def test_the_facts_of_a_load_balancer(account: Account) -> None:
    vpc = account.vpc()
    [web] = account.launch(tags={"mirror": "yes"})
    target, rules = account.nlb_target(tags=TAGS), account.filter(tags=TAGS)
    group = account.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["SecurityGroups"][0]
    account.ec2.authorize_security_group_ingress(
        GroupId=group["GroupId"],
        IpPermissions=[
            {"IpProtocol": "udp", "FromPort": 4789, "ToPort": 4789, "IpRanges": [{"CidrIp": "10.1.0.0/16"}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]},
        ],
    )
    decision, facts = read(account, policy(target, rules))
    [origin] = facts.origins
    assert (origin.interface, origin.vpc, origin.ipv6) == (account.interfaces(web)[0], vpc, False)
    assert origin.groups == (group["GroupId"],)
    place = facts.places[target]
    assert (place.vpc, place.networks) == (vpc, ("10.1.0.0/20",))
    assert [(door.groups, door.sees_groups, door.through) for door in place.doors] == [((group["GroupId"],), False, ())]
    balancer = facts.balancers[target]
    assert (balancer.cross_zone, list(balancer.sticky.values())) == (False, [""])
    assert facts.groups[group["GroupId"]][0] == Permission("udp", (4789, 4789), ("10.1.0.0/16",))
    assert facts.groups[group["GroupId"]][1].groups == (group["GroupId"],)
    assert facts.tables[origin.subnet] == (Route("10.1.0.0/16", "local"),)
    assert facts.refused == ()
    assert failures(checkup.check_network(decision, facts)) == []


def test_attributes_of_the_load_balancer_and_its_target_group(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    target, rules = account.nlb_target(tags=TAGS), account.filter(egress=True, tags=TAGS)
    arn = account.elb.describe_load_balancers()["LoadBalancers"][0]["LoadBalancerArn"]
    group = account.elb.describe_target_groups()["TargetGroups"][0]["TargetGroupArn"]
    cross_zone = {"Key": "load_balancing.cross_zone.enabled", "Value": "true"}
    account.elb.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=[cross_zone])
    sticky = [{"Key": "stickiness.enabled", "Value": "true"}, {"Key": "stickiness.type", "Value": "source_ip"}]
    account.elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=sticky)
    _, facts = read(account, policy(target, rules))
    balancer = facts.balancers[target]
    assert (balancer.cross_zone, list(balancer.sticky.values())) == (True, ["source_ip"])
    off = [{"Key": "load_balancing.cross_zone.enabled", "Value": "false"}]
    account.elb.modify_target_group_attributes(TargetGroupArn=group, Attributes=off)
    assert not read(account, policy(target, rules))[1].balancers[target].cross_zone


def test_an_interface_as_target(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    target, rules = account.eni_target(tags=TAGS), account.filter(tags=TAGS)
    decision, facts = read(account, policy(target, rules))
    place = facts.places[target]
    assert place.doors[0].sees_groups
    assert place.networks[0].startswith("10.1.")
    assert facts.balancers == {}
    assert "drops UDP 4789" in failures(checkup.check_network(decision, facts))[0]


def test_another_vpc_without_a_route(account: Account) -> None:
    account.vpc()
    other = account.vpc()
    account.launch(vpc=other, tags={"mirror": "yes"})
    target, rules = account.nlb_target(tags=TAGS), account.filter(tags=TAGS)
    decision, facts = read(account, policy(target, rules))
    assert any("no route to 10.1.0.0/20" in text for text in failures(checkup.check_network(decision, facts)))


def test_a_subnet_with_a_table_of_its_own(account: Account) -> None:
    vpc = account.vpc()
    subnet = account.subnet(vpc)
    account.launch(subnet=subnet, tags={"mirror": "yes"})
    table = account.ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    account.ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
    gateway = account.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    account.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    account.ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    _, facts = read(account, policy(account.nlb_target(), account.filter()))
    assert Route("0.0.0.0/0", gateway) in facts.tables[subnet]


def test_a_load_balancer_without_a_listener(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    target = account.nlb_target(listener=False, tags=TAGS)
    decision, facts = read(account, policy(target, account.filter(tags=TAGS)))
    assert target not in facts.balancers
    assert any("is no-listener" in text for text in failures(checkup.check_network(decision, facts)))


def test_a_target_that_is_gone_is_looked_at_no_further(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    target = account.nlb_target(tags=TAGS)
    account.delete_load_balancer(target)
    decision, facts = read(account, policy(target, account.filter(tags=TAGS)))
    assert facts.places == {}
    assert any("is gone" in text for text in failures(checkup.check_network(decision, facts)))


def test_what_is_refused_is_told_and_the_rest_goes_on(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    text = policy(account.nlb_target(tags=TAGS), account.filter(tags=TAGS))
    decision, _ = look(account, text)
    for action in ("DescribeSecurityGroups", "DescribeRouteTables", "DescribeLoadBalancerAttributes"):
        account.model.deny(action)
    facts = Reader(account.ec2, account.elb).facts(decision)
    assert {refused.operation for refused in facts.refused} == {
        "DescribeSecurityGroups",
        "DescribeRouteTables",
        "DescribeLoadBalancerAttributes",
    }
    assert len(facts.places) == 1
    told = checkup.check_network(decision, facts)
    assert sum("could not look" in answer.text for answer in told) == 3
    account.model.deny("DescribeLoadBalancers")
    assert Reader(account.ec2, account.elb).facts(decision).places == {}


def test_what_two_sources_share_is_told_once(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    target, rules = account.nlb_target(tags=TAGS), account.filter(tags=TAGS)
    second = f"{{name: api, match: {{tags: {{mirror: '*'}}}}, target: {target}, filter: {rules}}}"
    one = f"{{name: web, match: {{tags: {{mirror: '*'}}}}, target: {target}, filter: {rules}}}"
    decision, facts = read(account, f"version: 1\nsources: [{one}, {second}]\n")
    told = checkup.check_network(decision, facts)
    assert len(told) == len(set(told))


def test_instance_types_that_aws_does_not_list(account: Account) -> None:
    account.vpc()
    account.launch(2, type="t2.micro", tags={"mirror": "yes"})
    decision, facts = read(account, policy(account.nlb_target(tags=TAGS), account.filter(tags=TAGS)))
    assert any("t2.micro (2 instances)" in answer.text for answer in checkup.check_network(decision, facts))


def test_references_that_exist_and_those_that_do_not(account: Account) -> None:
    vpc = account.vpc()
    target, rules = account.nlb_target(tags=TAGS), account.filter()
    missing = "vpc-0000000000000000f"
    text = policy(target, rules, f"except: {{vpcs: [{vpc}, {missing}]}}\ndefaults: {{target: tmt-0000000000000000f}}\n")
    decision, _ = look(account, text)
    known = Reader(account.ec2, account.elb).vpcs(decision.in_force.policy)
    assert known == {vpc}
    found = {answer.about: answer for answer in checkup.check_references(decision, known, OWNER)}
    assert found[f"target {target}"].outcome is Outcome.OK
    assert "lacks the tag" in found[f"filter {rules}"].text
    assert found[vpc].outcome is Outcome.OK
    assert "except.vpcs[1]" in found[missing].text
    assert "does not exist" in found["target tmt-0000000000000000f"].text


def test_vpcs_that_could_not_be_read_are_not_called_missing(account: Account) -> None:
    vpc = account.vpc()
    text = policy(account.nlb_target(tags=TAGS), account.filter(tags=TAGS), f"except: {{vpcs: [{vpc}]}}\n")
    decision, _ = look(account, text)
    account.model.deny("DescribeVpcs")
    assert Reader(account.ec2, account.elb).vpcs(decision.in_force.policy) is None
    assert vpc not in {answer.about for answer in checkup.check_references(decision, None, OWNER)}


def test_dry_runs_change_nothing(account: Account) -> None:
    account.vpc()
    account.launch(3, tags={"mirror": "yes"})
    rule = "autotag: [{name: tagged, match: {names: ['*']}, tags: {team: shop}}]\n"
    text = policy(account.nlb_target(tags=TAGS), account.filter(tags=TAGS), rule)
    decision, cloud = look(account, text)
    found = checkup.probe(cloud, decision, OWNER)
    assert [answer.outcome for answer in found] == [Outcome.OK, Outcome.OK]
    assert account.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"] == []
    account.model.deny("CreateTrafficMirrorSession")
    assert "UnauthorizedOperation" in failures(checkup.probe(cloud, decision, OWNER))[0]


def test_a_source_without_an_interface_cannot_be_tried(account: Account) -> None:
    account.vpc()
    rule = "autotag: [{name: tagged, match: {names: ['*']}, tags: {team: shop}}]\n"
    text = policy(account.nlb_target(healthy=False, tags=TAGS), account.filter(tags=TAGS), rule)
    decision, cloud = look(account, text)
    [found] = checkup.probe(cloud, decision, OWNER)
    assert found.outcome is Outcome.WARNING
    assert "source web: no dry run" in found.text


# Shapes that moto does not give


def facts_of(account: Account, target: Target, ec2: Any, elb: Any) -> Facts:
    decision, _ = look(account, policy("tmt-0123456789abcdef0", "tmf-0123456789abcdef0"))
    world = replace(decision.world, targets={"tmt-0123456789abcdef0": target})
    return Reader(ec2, elb).facts(replace(decision, world=world))


def test_an_endpoint_as_target(account: Account) -> None:
    ec2 = Canned(
        describe_vpc_endpoints={"VpcEndpoints": [{"VpcId": "vpc-1", "SubnetIds": ["subnet-1"]}]},
        describe_subnets={"Subnets": [{"CidrBlock": "10.9.0.0/24"}]},
    )
    target = Target("tmt-0123456789abcdef0", TargetKind.ENDPOINT, "vpce-1")
    facts = facts_of(account, target, ec2, Canned())
    assert facts.places == {target.id: Place("vpc-1", ("10.9.0.0/24",))}


def test_an_interface_or_endpoint_that_cannot_be_seen_has_no_place(account: Account) -> None:
    for kind in (TargetKind.INTERFACE, TargetKind.ENDPOINT):
        assert facts_of(account, Target("tmt-0123456789abcdef0", kind, "x"), Canned(), Canned()).places == {}


def test_a_load_balancer_with_security_groups_and_several_target_groups(account: Account) -> None:
    primary = {"Attachment": {"DeviceIndex": 0}, "Groups": [{"GroupId": "sg-worker"}]}
    second = {"Attachment": {"DeviceIndex": 1}, "Groups": [{"GroupId": "sg-other"}]}
    bare = {"InstanceId": "i-3", "NetworkInterfaces": [second]}
    workers = [{"InstanceId": name, "NetworkInterfaces": [second, primary]} for name in ("i-1", "i-2")]
    group = {
        "GroupId": "sg-nlb",
        "IpPermissions": [
            {
                "IpProtocol": "udp",
                "FromPort": 4789,
                "ToPort": 4789,
                "Ipv6Ranges": [{"CidrIpv6": "::/0"}],
                "PrefixListIds": [{"PrefixListId": "pl-1"}],
            }
        ],
    }
    ec2 = Canned(
        describe_instances={"Reservations": [{"Instances": [*workers, bare]}]},
        describe_security_groups={"SecurityGroups": [group]},
    )
    forward = {"ForwardConfig": {"TargetGroups": [{"TargetGroupArn": "a"}, {"TargetGroupArn": "b"}]}}
    elb = Canned(
        describe_load_balancers={
            "LoadBalancers": [{"VpcId": "vpc-1", "SecurityGroups": ["sg-nlb"], "AvailabilityZones": []}]
        },
        describe_load_balancer_attributes={"Attributes": [{"Key": "other", "Value": ""}]},
        describe_listeners={
            "Listeners": [
                {"Port": 80, "Protocol": "TCP", "DefaultActions": []},
                {"Port": 4789, "Protocol": "TCP_UDP", "DefaultActions": [forward, {"Type": "fixed-response"}]},
            ]
        },
        describe_target_groups={
            "TargetGroups": [{"TargetGroupName": name, "TargetGroupArn": name} for name in ("a", "b")]
        },
        describe_target_group_attributes={
            "Attributes": [{"Key": "load_balancing.cross_zone.enabled", "Value": "true"}]
        },
        describe_target_health={
            "TargetHealthDescriptions": [{"Target": {"Id": name}} for name in ("i-1", "i-2", "i-3", "10.0.0.1")]
        },
    )
    target = Target("tmt-0123456789abcdef0", TargetKind.NLB, "arn")
    facts = facts_of(account, target, ec2, elb)
    assert facts.places[target.id].doors == (
        Door("arn", ("sg-nlb",)),
        Door("i-1", ("sg-worker",), sees_groups=False, through=("sg-nlb",)),
    )
    assert facts.balancers[target.id] == Balancer(cross_zone=True, sticky={"a": "", "b": ""})
    assert facts.groups["sg-nlb"] == (Permission("udp", (4789, 4789), ("::/0",), lists=("pl-1",)),)


def test_routes_that_cannot_be_judged_are_left_out(account: Account) -> None:
    account.vpc()
    account.launch(tags={"mirror": "yes"})
    decision, _ = look(account, policy("tmt-0123456789abcdef0", "tmf-0123456789abcdef0"))
    interface = {
        "NetworkInterfaceId": "eni-1",
        "VpcId": "vpc-1",
        "SubnetId": "subnet-1",
        "PrivateIpAddress": "10.1.0.4",
        "Ipv6Addresses": [{"Ipv6Address": "2001:db8::1"}],
    }
    table = {
        "VpcId": "vpc-1",
        "Associations": [{"Main": True}],
        "Routes": [
            {"DestinationPrefixListId": "pl-1", "GatewayId": "vpce-1"},
            {"DestinationIpv6CidrBlock": "::/0", "EgressOnlyInternetGatewayId": "eigw-1", "State": "blackhole"},
            {"DestinationCidrBlock": "10.0.0.0/8"},
        ],
    }
    ec2 = Canned(
        describe_network_interfaces={"NetworkInterfaces": [interface]}, describe_route_tables={"RouteTables": [table]}
    )
    facts = Reader(ec2, Canned()).facts(decision)
    assert facts.origins == (Origin("eni-1", "vpc-1", "subnet-1", "10.1.0.4", ipv6=True),)
    assert facts.tables["subnet-1"] == (
        Route("::/0", "eigw-1", active=False),
        Route("10.0.0.0/8", "an unknown gateway"),
    )


def test_an_error_that_is_no_refusal_ends_the_checkup(account: Account) -> None:
    class Broken:
        def describe_vpcs(self, **_: Any) -> None:
            raise MirroringError("no AWS credentials were found")

    text = policy("tmt-0123456789abcdef0", "tmf-0123456789abcdef0", "except: {vpcs: [vpc-1234567890abcdef0]}\n")
    decision, _ = look(account, text)
    with pytest.raises(MirroringError, match="credentials"):
        Reader(Broken(), Canned()).vpcs(decision.in_force.policy)
