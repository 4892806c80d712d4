"""What the launcher adds to ministack's EC2, seen through boto3 as any caller sees it. The model's own rules:
test_mirroring.py; the same behaviours of moto: test_moto.py."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.cloud.emulator import emulator
from mirroring.backends import Backends
from mirroring.ec2 import Ec2
from mirroring.model import Health, TargetKind

type Answer = dict[str, Any]

SERIALS = count(1)  # of names that an account has once


class World:
    """Short words for what the tests set up, each time anew, in an account that all of them share."""

    def __init__(self, ec2: Any, elb: Any) -> None:
        self.ec2 = ec2
        self.elb = elb
        self.vpc = self.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.9.0.0/20")["Subnet"]["SubnetId"]

    def launch(self, n: int = 1, kind: str = "m5.large", **more: Any) -> list[str]:
        place = {} if "NetworkInterfaces" in more else {"SubnetId": self.subnet}
        made = self.ec2.run_instances(
            ImageId="ami-0123456789abcdef0", MinCount=1, MaxCount=n, InstanceType=kind, **place, **more
        )
        return [instance["InstanceId"] for instance in made["Instances"]]

    def instance(self, name: str) -> Answer:
        [reservation] = self.ec2.describe_instances(InstanceIds=[name])["Reservations"]
        [found] = reservation["Instances"]
        return dict(found)

    def interfaces(self, instance: str) -> list[str]:
        return [one["NetworkInterfaceId"] for one in self.instance(instance)["NetworkInterfaces"]]

    def primary(self) -> str:
        [instance] = self.launch()
        return self.interfaces(instance)[0]

    def attach(self, instance: str, index: int = 1) -> str:
        made = self.ec2.create_network_interface(SubnetId=self.subnet)["NetworkInterface"]["NetworkInterfaceId"]
        self.ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=instance, DeviceIndex=index)
        return str(made)

    def detach(self, interface: str) -> None:
        [found] = self.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
        self.ec2.detach_network_interface(AttachmentId=found["Attachment"]["AttachmentId"])

    def balancer(self) -> str:
        [made] = self.elb.create_load_balancer(
            Name=f"mirror-{next(SERIALS)}", Type="network", Scheme="internal", Subnets=[self.subnet]
        )["LoadBalancers"]
        return str(made["LoadBalancerArn"])

    def target(self) -> str:
        made = self.ec2.create_traffic_mirror_target(NetworkLoadBalancerArn=self.balancer())
        return str(made["TrafficMirrorTarget"]["TrafficMirrorTargetId"])

    def filter(self) -> str:
        made = self.ec2.create_traffic_mirror_filter()["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
        self.ec2.create_traffic_mirror_filter_rule(
            TrafficMirrorFilterId=made,
            TrafficDirection="ingress",
            RuleNumber=100,
            RuleAction="accept",
            Protocol=6,
            SourceCidrBlock="0.0.0.0/0",
            DestinationCidrBlock="0.0.0.0/0",
            DestinationPortRange={"FromPort": 80, "ToPort": 80},
        )
        return str(made)

    def session(self, interface: str, **more: Any) -> Answer:
        plain = {"TrafficMirrorTargetId": self.target(), "TrafficMirrorFilterId": self.filter(), "SessionNumber": 1}
        made = self.ec2.create_traffic_mirror_session(NetworkInterfaceId=interface, **{**plain, **more})
        return dict(made["TrafficMirrorSession"])

    def sessions(self, *interfaces: str) -> list[Answer]:
        by = [{"Name": "network-interface-id", "Values": list(interfaces)}]
        return list(self.ec2.describe_traffic_mirror_sessions(Filters=by)["TrafficMirrorSessions"])


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[Any, Any]]:
    with emulator(auth=False) as cloud:
        yield cloud.client("ec2"), cloud.client("elbv2")


@pytest.fixture
def world(clients: tuple[Any, Any]) -> World:
    return World(*clients)


def refused(call: Callable[..., object], **parameters: object) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    code: str = caught.value.response["Error"]["Code"]
    return code


# Mirroring


def test_all_actions_of_mirroring_reach_the_model(world: World) -> None:
    ec2, interface = world.ec2, world.primary()
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    made = world.session(
        interface,
        Description="i-0 & <more>",
        VirtualNetworkId=7,
        PacketLength=1500,
        TagSpecifications=[{"ResourceType": "traffic-mirror-session", "Tags": tags}],
    )
    name = made["TrafficMirrorSessionId"]
    assert made["Tags"] == tags and made["Description"] == "i-0 & <more>" and made["OwnerId"] == "123456789012"
    assert (made["VirtualNetworkId"], made["PacketLength"], made["SessionNumber"]) == (7, 1500, 1)
    changed = ec2.modify_traffic_mirror_session(
        TrafficMirrorSessionId=name, SessionNumber=7, RemoveFields=["description"]
    )["TrafficMirrorSession"]
    assert changed == {key: value for key, value in made.items() if key != "Description"} | {"SessionNumber": 7}
    assert world.sessions(interface) == [changed]
    assert ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=name)["TrafficMirrorSessionId"] == name
    rules, target = made["TrafficMirrorFilterId"], made["TrafficMirrorTargetId"]
    [rule] = ec2.describe_traffic_mirror_filter_rules(TrafficMirrorFilterId=rules)["TrafficMirrorFilterRules"]
    assert rule["DestinationPortRange"] == {"FromPort": 80, "ToPort": 80} and rule["Protocol"] == 6
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
    gone = {"TrafficMirrorFilterIds": [rules]}
    assert refused(ec2.describe_traffic_mirror_filters, **gone) == "InvalidTrafficMirrorFilterId.NotFound"
    left = ec2.describe_traffic_mirror_targets(Filters=[{"Name": "traffic-mirror-target-id", "Values": [target]}])
    assert left["TrafficMirrorTargets"] == []


def test_refusals_are_client_errors(world: World) -> None:
    interface = world.primary()
    made = world.session(interface, ClientToken="t")
    create = world.ec2.create_traffic_mirror_session
    same = {key: made[key] for key in ("NetworkInterfaceId", "TrafficMirrorTargetId", "TrafficMirrorFilterId")}
    assert create(**same, SessionNumber=1, ClientToken="t")["TrafficMirrorSession"] == made
    assert refused(create, **same, SessionNumber=2, DryRun=True) == "DryRunOperation"
    assert refused(create, **same, SessionNumber=2, ClientToken="t") == "IdempotentParameterMismatch"
    assert refused(create, **same, SessionNumber=1) == "InvalidParameterValue"
    assert refused(create, **same, SessionNumber=2, PacketLength=9000) == "InvalidParameterValue"
    unknown = refused(world.ec2.modify_traffic_mirror_session, TrafficMirrorSessionId="tms-0")
    assert unknown == "InvalidTrafficMirrorSessionId.NotFound"
    with pytest.raises(ClientError) as caught:
        create(**same, SessionNumber=1)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_target_needs_a_load_balancer_that_exists(world: World) -> None:
    arn = world.balancer()
    assert ":loadbalancer/net/" in arn
    create = world.ec2.create_traffic_mirror_target
    assert refused(create, NetworkLoadBalancerArn=arn + "0") == "InvalidNetworkLoadBalancerArn.NotFound"
    assert refused(create, GatewayLoadBalancerEndpointId="vpce-0") == "InvalidVpcEndpointId.NotFound"
    assert refused(create, NetworkInterfaceId="eni-0") == "InvalidTrafficMirrorTarget"


def test_a_gateway_endpoint_can_be_a_target(world: World) -> None:
    def endpoint(kind: str) -> str:
        made = world.ec2.create_vpc_endpoint(VpcId=world.vpc, ServiceName="com.amazonaws.x", VpcEndpointType=kind)
        return str(made["VpcEndpoint"]["VpcEndpointId"])

    create, good = world.ec2.create_traffic_mirror_target, endpoint("GatewayLoadBalancer")
    made = create(GatewayLoadBalancerEndpointId=good)["TrafficMirrorTarget"]
    assert made["Type"] == "gateway-load-balancer-endpoint"
    assert refused(create, GatewayLoadBalancerEndpointId=endpoint("Gateway")) == "InvalidVpcEndpointId.NotFound"
    [found] = world.ec2.describe_vpc_endpoints(VpcEndpointIds=[good])["VpcEndpoints"]
    assert found["State"] == "available"
    gone = refused(world.ec2.describe_vpc_endpoints, VpcEndpointIds=["vpce-0"])
    assert gone == "InvalidVpcEndpointId.NotFound"


def test_what_an_interface_is_decides_whether_it_can_be_a_source(world: World) -> None:
    [old] = world.launch(kind="t2.micro")
    [new] = world.launch()
    branch = world.ec2.create_network_interface(SubnetId=world.subnet, InterfaceType="branch")["NetworkInterface"]
    assert branch["InterfaceType"] == "branch"
    free = world.attach(new)
    world.detach(free)
    for interface in (world.interfaces(old)[0], free):
        assert refused(lambda interface=interface: world.session(interface)) == "NetworkInterfaceNotSupported"


def test_sessions_come_in_pages(world: World) -> None:
    interfaces = [world.interfaces(one)[0] for one in world.launch(3)]
    target, rules = world.target(), world.filter()
    made = [
        world.session(one, SessionNumber=n, TrafficMirrorTargetId=target, TrafficMirrorFilterId=rules)
        for one in interfaces
        for n in (1, 2)
    ]
    pages = world.ec2.get_paginator("describe_traffic_mirror_sessions").paginate(
        Filters=[{"Name": "network-interface-id", "Values": interfaces}], MaxResults=5
    )
    found = [page["TrafficMirrorSessions"] for page in pages]
    assert [len(page) for page in found] == [5, 1]
    assert [one["TrafficMirrorSessionId"] for page in found for one in page] == [
        one["TrafficMirrorSessionId"] for one in made
    ]


# Tags


def test_tags_of_sessions_live_in_the_model(world: World) -> None:
    [web] = world.launch()
    name = world.session(world.interfaces(web)[0])["TrafficMirrorSessionId"]
    put = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}, {"Key": "c", "Value": "3"}]
    world.ec2.create_tags(Resources=[name, web], Tags=put)
    world.ec2.delete_tags(
        Resources=[name, web], Tags=[{"Key": "a"}, {"Key": "b", "Value": "other"}, {"Key": "c", "Value": ""}]
    )
    left = [{"Key": "b", "Value": "2"}, {"Key": "c", "Value": "3"}]
    assert world.sessions(world.interfaces(web)[0])[0]["Tags"] == left
    assert world.instance(web)["Tags"] == left
    for resource, kind in ((name, "traffic-mirror-session"), (web, "instance")):
        by = [{"Name": "resource-id", "Values": [resource]}, {"Name": "key", "Values": ["b"]}]
        [tag] = world.ec2.describe_tags(Filters=by)["Tags"]
        assert tag == {"ResourceId": resource, "ResourceType": kind, "Key": "b", "Value": "2"}
    world.ec2.delete_tags(Resources=[name, web])
    assert world.sessions(world.interfaces(web)[0])[0]["Tags"] == [] == world.instance(web)["Tags"]


@pytest.mark.parametrize(
    ("resource", "key", "code"),
    [
        ("tms-0", "a", "InvalidID"),
        ("i-0123456789abcdef0", "a", "InvalidInstanceID.NotFound"),
        ("eni-0123456789abcdef0", "a", "InvalidNetworkInterfaceID.NotFound"),
        ("session", "aws:a", "InvalidParameterValue"),
        ("instance", "aws:a", "InvalidParameterValue"),
    ],
)
def test_create_tags_refuses(world: World, resource: str, key: str, code: str) -> None:
    [web] = world.launch()
    present = {"instance": web, "session": world.session(world.interfaces(web)[0])["TrafficMirrorSessionId"]}
    tag = {"Resources": [present.get(resource, resource)], "Tags": [{"Key": key, "Value": "x"}]}
    assert refused(world.ec2.create_tags, **tag) == code


def test_create_tags_as_a_dry_run(world: World) -> None:
    [web] = world.launch()
    name = world.session(world.interfaces(web)[0])["TrafficMirrorSessionId"]
    for resource in (web, name):
        tags = {"Resources": [resource], "Tags": [{"Key": "a", "Value": "b"}]}
        assert refused(world.ec2.create_tags, **tags, DryRun=True) == "DryRunOperation"
    assert world.instance(web)["Tags"] == []


# Lists


def test_instances_and_interfaces_come_in_pages(world: World) -> None:
    launched = world.launch(7)
    here = [{"Name": "subnet-id", "Values": [world.subnet]}]
    for action, key, part in (
        ("describe_instances", "Reservations", "Instances"),
        ("describe_network_interfaces", "NetworkInterfaces", ""),
    ):
        pages = list(world.ec2.get_paginator(action).paginate(Filters=here, MaxResults=5))
        sizes = [sum(len(item[part]) if part else 1 for item in page[key]) for page in pages]
        assert sizes == [5, 2]
    found = [
        instance["InstanceId"]
        for page in world.ec2.get_paginator("describe_instances").paginate(Filters=here, MaxResults=5)
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]
    assert found == launched


def test_reservations_stay_whole_as_far_as_a_page_reaches(world: World) -> None:
    world.launch(3)
    world.launch(4)
    here = [{"Name": "vpc-id", "Values": [world.vpc]}]
    first = world.ec2.describe_instances(Filters=here, MaxResults=5)
    assert [len(reservation["Instances"]) for reservation in first["Reservations"]] == [3, 2]
    assert first["Reservations"][0]["OwnerId"] == "123456789012"


def test_what_lists_refuse(world: World) -> None:
    [web] = world.launch()
    ec2 = world.ec2
    assert refused(ec2.describe_instances, InstanceIds=[web], MaxResults=5) == "InvalidParameterCombination"
    interfaces = world.interfaces(web)
    wrong = refused(ec2.describe_network_interfaces, NetworkInterfaceIds=interfaces, MaxResults=5)
    assert wrong == "InvalidParameterCombination"
    assert refused(ec2.describe_instances, MaxResults=4) == "InvalidParameterValue"
    assert refused(ec2.describe_network_interfaces, NextToken="nonsense") == "InvalidPaginationToken"
    many = [{"Name": "instance-id", "Values": [f"i-{n}" for n in range(201)]}]
    assert refused(ec2.describe_instances, Filters=many) == "FilterLimitExceeded"
    unknown = [{"Name": "instance-identity", "Values": ["x"]}]
    assert refused(ec2.describe_instances, Filters=unknown) == "InvalidParameterValue"
    gone = {"InstanceIds": ["i-0123456789abcdef0"]}
    assert refused(ec2.describe_instances, **gone) == "InvalidInstanceID.NotFound"
    assert refused(ec2.describe_instances, InstanceIds=["i-x"]) == "InvalidInstanceID.Malformed"
    gone = {"NetworkInterfaceIds": ["eni-0"]}
    assert refused(ec2.describe_network_interfaces, **gone) == "InvalidNetworkInterfaceID.NotFound"


def test_filters_of_lists(world: World) -> None:
    web, other = world.launch(2)
    extra = world.attach(web, 2)
    world.ec2.create_tags(Resources=[other, extra], Tags=[{"Key": "role", "Value": "web"}])
    by = [{"Name": "attachment.instance-id", "Values": [web, other]}, {"Name": "tag:role", "Values": ["w*"]}]
    [found] = world.ec2.describe_network_interfaces(Filters=by)["NetworkInterfaces"]
    assert found["NetworkInterfaceId"] == extra and found["TagSet"] == [{"Key": "role", "Value": "web"}]
    managed = [{"Name": "requester-managed", "Values": ["true"]}]
    assert world.ec2.describe_network_interfaces(Filters=managed)["NetworkInterfaces"] == []
    by = [
        {"Name": "instance-id", "Values": [web, other, "i-0123456789abcdef0"]},
        {"Name": "tag:role", "Values": ["web"]},
    ]
    [reservation] = world.ec2.describe_instances(Filters=by)["Reservations"]
    assert [instance["InstanceId"] for instance in reservation["Instances"]] == [other]


# Instances and interfaces


def test_an_instance_shows_its_interfaces_in_their_places(world: World) -> None:
    [web] = world.launch(
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]},
            {"ResourceType": "network-interface", "Tags": [{"Key": "c", "Value": "d"}]},
        ]
    )
    extra = world.attach(web, 3)
    found = world.instance(web)
    first, second = found["NetworkInterfaces"]
    assert (found["VpcId"], found["SubnetId"], found["Tags"]) == (world.vpc, world.subnet, [{"Key": "a", "Value": "b"}])
    assert (first["Attachment"]["DeviceIndex"], first["Attachment"]["NetworkCardIndex"]) == (0, 0)
    assert first["Attachment"]["DeleteOnTermination"] is True and first["PrivateIpAddress"] == found["PrivateIpAddress"]
    assert second["NetworkInterfaceId"] == extra and second["Attachment"]["DeviceIndex"] == 3
    assert (second["VpcId"], second["SubnetId"], second["InterfaceType"]) == (world.vpc, world.subnet, "interface")
    [whole] = world.ec2.describe_network_interfaces(NetworkInterfaceIds=[first["NetworkInterfaceId"]])[
        "NetworkInterfaces"
    ]
    assert whole["Attachment"]["InstanceId"] == web and whole["Status"] == "in-use"
    assert whole["TagSet"] == [{"Key": "c", "Value": "d"}] and whole["RequesterManaged"] is False


def test_attaching_refuses_what_cannot_be(world: World) -> None:
    [web] = world.launch()
    extra = world.attach(web)
    attach = world.ec2.attach_network_interface
    again = refused(attach, NetworkInterfaceId=extra, InstanceId=web, DeviceIndex=2)
    assert again == "InvalidNetworkInterface.InUse"
    free = world.ec2.create_network_interface(SubnetId=world.subnet)["NetworkInterface"]["NetworkInterfaceId"]
    assert refused(attach, NetworkInterfaceId=free, InstanceId=web, DeviceIndex=1) == "InvalidParameterValue"
    nowhere = refused(attach, NetworkInterfaceId=free, InstanceId="i-0", DeviceIndex=1)
    assert nowhere == "InvalidInstanceID.NotFound"
    assert refused(lambda: world.detach(world.interfaces(web)[0])) == "OperationNotPermitted"
    assert refused(world.ec2.create_network_interface, SubnetId="subnet-0") == "InvalidSubnetID.NotFound"


def test_a_terminated_instance_gives_its_interfaces_up(world: World) -> None:
    [web] = world.launch(TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}])
    extra = world.attach(web)
    primary = world.interfaces(web)[0]
    kept = world.session(extra)
    world.session(primary)
    world.ec2.terminate_instances(InstanceIds=[web])
    found = world.instance(web)
    assert found["State"]["Name"] == "terminated" and found["Tags"] == [{"Key": "a", "Value": "b"}]
    assert found["NetworkInterfaces"] == [] and "VpcId" not in found and "SubnetId" not in found
    assert world.sessions(primary, extra) == [kept]  # an interface attached later is not deleted with the instance
    [free] = world.ec2.describe_network_interfaces(NetworkInterfaceIds=[extra])["NetworkInterfaces"]
    assert free["Status"] == "available" and "Attachment" not in free
    world.ec2.terminate_instances(InstanceIds=[web])  # again: no harm


def test_a_launch_may_say_that_an_interface_stays(world: World) -> None:
    nic = {"DeviceIndex": 0, "SubnetId": world.subnet, "DeleteOnTermination": False}
    [web] = world.launch(NetworkInterfaces=[nic])
    assert world.instance(web)["SubnetId"] == world.subnet
    [interface] = world.interfaces(web)
    world.ec2.terminate_instances(InstanceIds=[web])
    assert world.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]


def test_only_a_free_interface_is_deleted_and_its_session_goes(world: World) -> None:
    [web] = world.launch()
    extra = world.attach(web)
    world.session(extra)
    delete = world.ec2.delete_network_interface
    assert refused(delete, NetworkInterfaceId=extra) == "InvalidNetworkInterface.InUse"
    world.detach(extra)
    assert len(world.sessions(extra)) == 1
    delete(NetworkInterfaceId=extra)
    assert world.sessions(extra) == []
    assert refused(delete, NetworkInterfaceId=extra) == "InvalidNetworkInterfaceID.NotFound"


# As the control plane reads it


def test_the_control_plane_reads_instances_sessions_and_filters(world: World) -> None:
    [web] = world.launch()
    extra = world.attach(web, 1)
    made = world.session(extra, Description=web)
    cloud = Ec2(world.ec2, world.elb)
    found = cloud.unmarked([web])[web]
    assert (found.vpc, found.subnet, found.type) == (world.vpc, world.subnet, "m5.large")
    assert [(one.id, one.device_index, one.card) for one in found.interfaces] == [
        (world.interfaces(web)[0], 0, 0),
        (extra, 1, 0),
    ]
    [session] = cloud.sessions(instances=[web])
    assert (session.id, session.interface) == (made["TrafficMirrorSessionId"], extra)
    [rule] = cloud.filters([session.filter])[session.filter].rules
    assert (rule.destination_ports, rule.protocol, rule.accept) == ((80, 80), 6, True)


def test_the_control_plane_sees_whether_a_target_is_alive(world: World) -> None:
    target = world.target()
    cloud = Ec2(world.ec2, world.elb)
    [web] = world.launch()
    assert cloud.unmarked([web])
    without = cloud.targets([target])[target]
    assert without.kind is TargetKind.NLB and without.health is Health.NO_LISTENER
    [group] = world.elb.create_target_group(
        Name=f"g-{target[-8:]}", Protocol="UDP", Port=4789, VpcId=world.vpc, HealthCheckProtocol="HTTP"
    )["TargetGroups"]
    forward = {"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}
    world.elb.create_listener(LoadBalancerArn=without.resource, Protocol="UDP", Port=4789, DefaultActions=[forward])
    world.elb.register_targets(TargetGroupArn=group["TargetGroupArn"], Targets=[{"Id": web, "Port": 4789}])
    assert cloud.targets([target])[target].health is Health.HEALTHY
    world.elb.delete_load_balancer(LoadBalancerArn=without.resource)
    gone = Backends(world.ec2, world.elb).conditions([without])[without.resource]
    assert gone.health is Health.GONE
