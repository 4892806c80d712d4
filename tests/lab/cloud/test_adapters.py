"""What moto and ministack do alike once they are strict, seen through boto3 as any caller sees it: their contract.

The model's own rules: test_mirroring.py. What one of them does alone: test_moto.py, test_ministack.py.
"""

from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from lab.cloud.account import strict_aws
from mirroring.backends import Backends
from mirroring.ec2 import Ec2
from mirroring.model import Health, TargetKind
from tests.lab.cloud.world import World, refused


@pytest.fixture(params=["moto", "ministack"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "moto":
        with strict_aws() as account:
            yield World(account.ec2, account.elb)
    else:
        cloud = request.getfixturevalue("cloud")
        yield World(cloud.client("ec2"), cloud.client("elbv2"))


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
    assert world.tags(web) == left


@pytest.mark.parametrize(
    ("resource", "key", "code"),
    [
        ("tms-0", "a", "InvalidID"),
        ("i-0123456789abcdef0", "a", "InvalidInstanceID.NotFound"),
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
    assert world.tags(web) == []


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
    gone = {"InstanceIds": ["i-0123456789abcdef0"]}
    assert refused(ec2.describe_instances, **gone) == "InvalidInstanceID.NotFound"
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
