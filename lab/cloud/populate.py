"""Fills an account with what a first look needs: 50 instances in three VPCs, a stack's parameters, a target, a filter.

The shop's VPC is peered with that of the workers, the payments' is not: `mirrorctl checkup` has something to find. A
foreign session stands in front of one web server. Ids are the same every time, as far as moto's own randomness goes.

`python -m lab.cloud.populate` serves such an account until it is interrupted, and prints how to reach it.
"""

import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moto.moto_api._internal import mock_random

from lab.cloud.account import ENVIRONMENT, Account, strict_server
from lab.network.mirror import VXLAN_PORT

STACK = "vpc-traffic-replay"
DEFAULT = f"/{STACK}/policy-default"
STATE = f"/{STACK}/state"
WORKERS = f"{STACK}-workers"
_SEED = 50

POLICY = """\
version: 1
description: Production web and payments, to the test environment
limits: {{deletes: 10, writes_per_second: 5}}
defaults:
  target: {target}
  filter: {filter}
except:
  tags: {{mirror: ["no"]}}
sources:
  - name: web
    description: The shop's web servers
    match:
      groups: ["web-*"]
      tags: {{Env: [production]}}
  - name: api
    match: {{names: ["api-*"]}}
    vni: 7001
  - name: payments
    match:
      vpcs: [{payments}]
      tags: {{Env: [production]}}
    interfaces: all
"""


@dataclass(frozen=True)
class Population:
    shop: str  # VPCs
    payments: str
    tools: str
    target: str
    filter: str
    web: tuple[str, ...]  # instances
    api: tuple[str, ...]
    pay: tuple[str, ...]
    foreign: str  # a session that is not ours


def populate(account: Account) -> Population:
    _seed(account)
    shop, payments, tools = (account.vpc() for _ in range(3))
    _peer(account, shop, tools)
    _open(account, tools, "10.0.0.0/8")
    workers = account.group(WORKERS, 3, vpc=tools, tags={"Name": "worker"}, type="c6i.large")
    _belongs_to_stack(account)
    owned = {"mirror:stack": STACK}
    target = account.nlb_target(healthy=False, vpc=tools, tags=owned)
    _register(account, target, workers)
    rules = account.filter(ports=[80, 8080], tags=owned)
    web = account.group("web-blue", 20, vpc=shop, tags={"Env": "production", "Name": "web"})
    api = [*_named(account, "api", 6, shop, "c6i.large"), *_named(account, "api-old", 1, shop, "t2.medium")]
    pay = _named(account, "pay", 10, payments, "m6i.large", {"Env": "production"})
    _named(account, "pay-test", 4, payments, "t3.medium", {"Env": "staging"})
    _named(account, "batch", 5, tools, "m5.large", {"Env": "production"})
    account.attach(pay[0])
    account.stop(pay[9:])
    account.tag(web[19:], {"mirror": "no"})
    foreign = _foreign(account, web[0])
    text = POLICY.format(target=target, filter=rules, payments=payments)
    account.put_policy(text, DEFAULT)
    account.ssm.put_parameter(Name=STATE, Value="running", Type="String")
    account.take_events()
    return Population(shop, payments, tools, target, rules, tuple(web), tuple(api), tuple(pay), foreign)


def _seed(account: Account) -> None:
    """From here on moto's ids repeat. What it makes at a service's first call (default VPCs) is made before."""
    account.ec2.describe_vpcs()
    account.elb.describe_load_balancers()
    account.client("autoscaling").describe_auto_scaling_groups()
    account.ssm.describe_parameters()
    mock_random.seed(_SEED)


def _named(
    account: Account, name: str, number: int, vpc: str, kind: str, tags: Mapping[str, str] | None = None
) -> list[str]:
    return [
        instance
        for index in range(1, number + 1)
        for instance in account.launch(vpc=vpc, type=kind, tags={"Name": f"{name}-{index}", **(tags or {})})
    ]


def _peer(account: Account, one: str, other: str) -> None:
    """Two VPCs that reach each other."""
    made = account.ec2.create_vpc_peering_connection(VpcId=one, PeerVpcId=other)["VpcPeeringConnection"]
    peering = made["VpcPeeringConnectionId"]
    account.ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=peering)
    blocks = {raw["VpcId"]: raw["CidrBlock"] for raw in account.ec2.describe_vpcs(VpcIds=[one, other])["Vpcs"]}
    for here, there in ((one, other), (other, one)):
        filters = [{"Name": "vpc-id", "Values": [here]}]
        for table in account.ec2.describe_route_tables(Filters=filters)["RouteTables"]:
            account.ec2.create_route(
                RouteTableId=table["RouteTableId"],
                DestinationCidrBlock=blocks[there],
                VpcPeeringConnectionId=peering,
            )


def _open(account: Account, vpc: str, network: str) -> None:
    """The VPC's default security group admits mirrored packets from a network."""
    filters = [{"Name": "vpc-id", "Values": [vpc]}]
    [group] = account.ec2.describe_security_groups(Filters=filters)["SecurityGroups"]
    rule = {"IpProtocol": "udp", "FromPort": VXLAN_PORT, "ToPort": VXLAN_PORT, "IpRanges": [{"CidrIp": network}]}
    account.ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[rule])


def _belongs_to_stack(account: Account) -> None:
    """CloudFormation's tag, which all that a stack makes bears."""
    tag: dict[str, Any] = {"ResourceId": WORKERS, "ResourceType": "auto-scaling-group", "PropagateAtLaunch": True}
    tag |= {"Key": "aws:cloudformation:stack-name", "Value": STACK}
    account.client("autoscaling").create_or_update_tags(Tags=[tag])


def _register(account: Account, target: str, workers: list[str]) -> None:
    """The workers stand behind the target's load balancer."""
    found = account.ec2.describe_traffic_mirror_targets(TrafficMirrorTargetIds=[target])["TrafficMirrorTargets"]
    groups = account.elb.describe_target_groups(LoadBalancerArn=found[0]["NetworkLoadBalancerArn"])["TargetGroups"]
    targets = [{"Id": worker, "Port": VXLAN_PORT} for worker in workers]
    account.elb.register_targets(TargetGroupArn=groups[0]["TargetGroupArn"], Targets=targets)


def _foreign(account: Account, instance: str) -> str:
    """A session of somebody else's that takes all requests."""
    target = account.eni_target()
    rules = account.filter(ports=[80])
    made = account.ec2.create_traffic_mirror_session(
        NetworkInterfaceId=account.interfaces(instance)[0],
        TrafficMirrorTargetId=target,
        TrafficMirrorFilterId=rules,
        SessionNumber=1,
        Description="intrusion detection",
    )
    session: str = made["TrafficMirrorSession"]["TrafficMirrorSessionId"]
    return session


def main() -> None:
    """Serve the account; SIGINT and SIGTERM end it."""
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with strict_server() as account:
        populate(account)
        region = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), account.region)  # not every program reads both
        settings = {**ENVIRONMENT, **region, "AWS_ENDPOINT_URL": account.url}
        print("".join(f"export {name}={value}\n" for name, value in sorted(settings.items())), end="", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
