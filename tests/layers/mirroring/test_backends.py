"""Whether what is sent to a target would arrive: against the strict account; what moto cannot show, at the wire."""

from collections.abc import Iterator

import pytest

from lab.cloud.account import Account, strict_aws
from mirroring import spelling
from mirroring.backends import Backends, Condition, receivers
from mirroring.clients import client
from mirroring.model import Health, Refused, Target, TargetKind
from tests.layers.mirroring.wire import Reply, Wire, refusal

ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/replay/1"
BALANCER = Target("tmt-1", TargetKind.NLB, ARN)
ENDPOINT = Target("tmt-1", TargetKind.ENDPOINT, "vpce-1")


@pytest.fixture(autouse=True)
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def account() -> Iterator[Account]:
    with strict_aws() as account:
        yield account


def target(account: Account, name: str) -> Target:
    [raw] = account.ec2.describe_traffic_mirror_targets(TrafficMirrorTargetIds=[name])["TrafficMirrorTargets"]
    found = spelling.target(raw)
    assert found
    return found


def behind(account: Account, name: str) -> Condition:
    [condition] = Backends(account.ec2, account.elb).conditions([target(account, name)]).values()
    return condition


def scripted(target: Target, *replies: Reply) -> Condition:
    """What is said of a target after these replies, all of which must be asked for."""
    wire = Wire(list(replies))
    backends = Backends(wire.tap(client("ec2", attempts=1)), wire.tap(client("elbv2", attempts=1)))
    condition = backends.conditions([target])[target.resource]
    assert wire.replies == []
    return condition


# Load balancers


def listen(account: Account, name: str, protocol: str, port: int, *, weighted: bool = False) -> None:
    """A listener that forwards to the load balancer's target group."""
    [group] = account.elb.describe_target_groups()["TargetGroups"]
    to = {"TargetGroupArn": group["TargetGroupArn"]}
    action = {"Type": "forward", **({"ForwardConfig": {"TargetGroups": [to]}} if weighted else to)}
    arn = target(account, name).resource
    account.elb.create_listener(LoadBalancerArn=arn, Protocol=protocol, Port=port, DefaultActions=[action])


def test_a_load_balancer_with_a_healthy_worker(account: Account) -> None:
    assert behind(account, account.nlb_target()) == Condition(Health.HEALTHY)


def test_a_load_balancer_without_the_listener(account: Account) -> None:
    found = behind(account, account.nlb_target(listener=False))
    assert found.health is Health.NO_LISTENER
    assert "mirror-" in found.why and "no UDP listener on port 4789" in found.why and "add one" in found.why


def test_listeners_that_do_not_count(account: Account) -> None:
    name = account.nlb_target(listener=False)
    listen(account, name, "TCP", 4789)
    listen(account, name, "UDP", 4790)
    assert behind(account, name).health is Health.NO_LISTENER


@pytest.mark.parametrize("weighted", [True, False])
def test_tcp_and_udp_in_one_listener(account: Account, weighted: bool) -> None:
    name = account.nlb_target(listener=False)
    listen(account, name, "TCP_UDP", 4789, weighted=weighted)
    assert behind(account, name).health is Health.HEALTHY


def test_a_load_balancer_without_a_healthy_worker(account: Account) -> None:
    found = behind(account, account.nlb_target(healthy=False))
    assert found.health is Health.UNHEALTHY
    assert "none of the 0 workers behind load balancer mirror-" in found.why


def test_states_that_are_not_healthy_are_counted_in_words() -> None:
    states = "".join(
        f"<member><TargetHealth><State>{state}</State></TargetHealth></member>"
        for state in ("initial", "unhealthy", "initial")
    )
    action = "<TargetGroupArn>arn:group</TargetGroupArn>"
    found = scripted(
        BALANCER,
        Reply(
            "<R><DescribeListenersResult><Listeners><member><Port>4789</Port><Protocol>UDP</Protocol><DefaultActions>"
            f"<member>{action}</member></DefaultActions></member></Listeners></DescribeListenersResult></R>"
        ),
        Reply(
            "<R><DescribeTargetHealthResult><TargetHealthDescriptions>"
            f"{states}</TargetHealthDescriptions></DescribeTargetHealthResult></R>"
        ),
    )
    assert found.health is Health.UNHEALTHY
    assert "none of the 3 workers behind load balancer replay is healthy (2 initial, 1 unhealthy)" in found.why


def test_a_load_balancer_that_is_gone(account: Account) -> None:
    name = account.nlb_target()
    account.delete_load_balancer(name)
    found = behind(account, name)
    assert found.health is Health.GONE
    assert "does not exist: make a new target" in found.why


def test_health_that_may_not_be_asked_is_an_error_and_no_guess(account: Account) -> None:
    name = account.nlb_target()
    account.model.faults.fail("DescribeListeners", "OperationNotPermitted")
    with pytest.raises(Refused, match="DescribeListeners: OperationNotPermitted"):
        behind(account, name)


def test_receivers_are_the_groups_behind_listeners_for_mirrored_packets() -> None:
    def forward(*arns: str) -> dict[str, object]:
        return {"Type": "forward", "ForwardConfig": {"TargetGroups": [{"TargetGroupArn": arn} for arn in arns]}}

    listeners = [
        {"Port": 4789, "Protocol": "UDP", "DefaultActions": [forward("b", "a"), {"Type": "fixed-response"}]},
        {"Port": 4789, "Protocol": "TCP_UDP", "DefaultActions": [{**forward("a"), "TargetGroupArn": "not this"}]},
        {"Port": 4789, "Protocol": "TCP_UDP", "DefaultActions": [{"Type": "forward", "TargetGroupArn": "c"}]},
        {"Port": 4789, "Protocol": "UDP"},
        {"Port": 80, "Protocol": "UDP", "DefaultActions": [forward("d")]},
        {"Port": 4789, "Protocol": "TLS", "DefaultActions": [forward("e")]},
    ]
    assert receivers(listeners) == ["a", "b", "c"]


# Interfaces


@pytest.mark.parametrize(("instance_type", "capacity"), [("m5.large", 10), ("m5.24xlarge", 100)])
def test_an_interface_takes_as_many_sources_as_its_instance_type_says(
    account: Account, instance_type: str, capacity: int
) -> None:
    assert behind(account, account.eni_target(instance_type)) == Condition(Health.HEALTHY, "", capacity)


def test_an_interface_of_an_instance_that_is_stopped(account: Account) -> None:
    [holder] = account.launch()
    [interface] = account.interfaces(holder)
    made = account.ec2.create_traffic_mirror_target(NetworkInterfaceId=interface)["TrafficMirrorTarget"]
    account.stop([holder])
    found = behind(account, made["TrafficMirrorTargetId"])
    why = f"instance {holder}, which has interface {interface}, is stopped: start it"
    assert found == Condition(Health.UNHEALTHY, why, 10)


def test_an_interface_that_is_not_attached(account: Account) -> None:
    [holder] = account.launch()
    interface = account.attach(holder)
    made = account.ec2.create_traffic_mirror_target(NetworkInterfaceId=interface)["TrafficMirrorTarget"]
    account.detach(interface)
    found = behind(account, made["TrafficMirrorTargetId"])
    assert (found.health, found.capacity) == (Health.UNHEALTHY, 10)
    assert "is not attached to an instance" in found.why


def test_an_interface_that_is_gone(account: Account) -> None:
    target = Target("tmt-1", TargetKind.INTERFACE, "eni-0123456789abcdef0")
    [found] = Backends(account.ec2, account.elb).conditions([target]).values()
    assert (found.health, found.capacity) == (Health.GONE, None)


# Endpoints


def test_an_endpoint(account: Account) -> None:
    network = account.vpc()
    endpoint = account.ec2.create_vpc_endpoint(
        VpcId=network,
        SubnetIds=[account.subnet(network)],
        ServiceName="com.amazonaws.vpce.eu-west-1.vpce-svc-0123456789abcdef0",
        VpcEndpointType="GatewayLoadBalancer",
    )["VpcEndpoint"]["VpcEndpointId"]
    made = account.ec2.create_traffic_mirror_target(GatewayLoadBalancerEndpointId=endpoint)["TrafficMirrorTarget"]
    assert behind(account, made["TrafficMirrorTargetId"]) == Condition(Health.HEALTHY)


@pytest.mark.parametrize(
    ("state", "health"),
    [
        ("available", Health.HEALTHY),
        ("Available", Health.HEALTHY),
        ("pendingAcceptance", Health.UNHEALTHY),
        ("rejected", Health.UNHEALTHY),
        ("deleting", Health.GONE),
        ("Deleted", Health.GONE),
    ],
)
def test_states_of_an_endpoint(state: str, health: Health) -> None:
    item = f"<item><vpcEndpointId>vpce-1</vpcEndpointId><state>{state}</state></item>"
    assert scripted(ENDPOINT, Reply(f"<R><vpcEndpointSet>{item}</vpcEndpointSet></R>")).health is health


def test_an_endpoint_that_is_gone_or_cannot_be_asked_about() -> None:
    assert scripted(ENDPOINT, refusal("InvalidVpcEndpointId.NotFound")).health is Health.GONE
    with pytest.raises(Refused, match="DescribeVpcEndpoints: UnauthorizedOperation"):
        scripted(ENDPOINT, refusal("UnauthorizedOperation", 403))


def test_an_endpoint_about_which_nothing_is_said_is_no_reason_to_end_sessions() -> None:
    found = scripted(ENDPOINT, Reply("<R><vpcEndpointSet/></R>"))
    assert found.health is Health.UNKNOWN
    assert "EC2 says nothing about endpoint vpce-1" in found.why
