"""An AWS account for tests and labs: moto made strict, things that happen in it, and the events that AWS would send.

with strict_aws() as account:
    target, rules = account.nlb_target(), account.filter(ports=[80])
    web = account.launch(2, tags={"mirror": "yes"})
    account.stop(web[:1])
    account.take_events()  # pending, running, pending, running, stopping, stopped
"""

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import count
from typing import Any

import boto3
from botocore.config import Config
from moto import mock_aws
from moto.ec2.models import ec2_backends
from moto.moto_api._internal.models import moto_api_backend
from moto.server import ThreadedMotoServer

from lab.cloud import events
from lab.cloud.events import ACCOUNT, REGION, Event
from lab.cloud.mirroring import Quotas, TrafficMirroring
from lab.cloud.moto import UNHINDERED, MotoSurroundings, strict
from lab.network.mirror import VXLAN_PORT

GROUP_TAG = "aws:autoscaling:groupName"
IMAGE = "ami-0123456789abcdef0"
POLICY = "/vpc-traffic-replay/policy"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class Account:
    """What people, services and chance do in an account; each deed appends the events that follow from it."""

    def __init__(self, model: TrafficMirroring, region: str = REGION, url: str | None = None) -> None:
        self.model = model
        self.region = region
        self.url = url  # of the server, if there is one
        self.now = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)  # of the next events
        self.events: list[Event] = []
        self._serials = count(1)
        self._versions: dict[str, int] = {}  # of an instance's tags
        self._networks = count(1)
        self._subnets: dict[str, list[str]] = {}  # by VPC
        self._balancers: dict[str, tuple[str, str]] = {}  # load balancer and target group, by mirror target

    # Clients for what is tested: their calls are counted, and may be made to fail (`model.fail`, `model.deny`)

    @cached_property
    def ec2(self) -> Any:
        return self.client("ec2")

    @cached_property
    def elb(self) -> Any:
        return self.client("elbv2")

    @cached_property
    def ssm(self) -> Any:
        return self.client("ssm")

    @cached_property
    def sqs(self) -> Any:
        return self.client("sqs")

    @cached_property
    def bus(self) -> Any:
        return self.client("events")

    def client(self, service: str) -> Any:
        """One that tries once, so that a fault is seen and nobody waits."""
        config = Config(retries={"total_max_attempts": 1})
        return _session().client(service, region_name=self.region, endpoint_url=self.url, config=config)

    # Clients of those who live in the account: nothing hinders them

    @cached_property
    def _ec2(self) -> Any:
        return self._own("ec2")

    @cached_property
    def _elb(self) -> Any:
        return self._own("elbv2")

    @cached_property
    def _ssm(self) -> Any:
        return self._own("ssm")

    @cached_property
    def _autoscaling(self) -> Any:
        return self._own("autoscaling")

    def _own(self, service: str) -> Any:
        config = Config(user_agent_extra=UNHINDERED)
        return _session().client(service, region_name=self.region, endpoint_url=self.url, config=config)

    def take_events(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken

    # Networks, targets and filters

    def vpc(self) -> str:
        network = next(self._networks)
        vpc: str = self._ec2.create_vpc(CidrBlock=f"10.{network}.0.0/16")["Vpc"]["VpcId"]
        self._subnets[vpc] = []
        self._block(vpc, network)
        return vpc

    def subnet(self, vpc: str) -> str:
        """Another subnet; a VPC has one from its beginning."""
        [found] = self._ec2.describe_vpcs(VpcIds=[vpc])["Vpcs"]
        return self._block(vpc, int(found["CidrBlock"].split(".")[1]))

    def _block(self, vpc: str, network: int) -> str:
        block = f"10.{network}.{16 * len(self._subnets[vpc])}.0/20"
        zone = f"{self.region}{'abc'[len(self._subnets[vpc]) % 3]}"
        subnet: str = self._ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        self._subnets[vpc].append(subnet)
        return subnet

    def _place(self, vpc: str | None, subnet: str | None = None) -> str:
        if subnet:
            return subnet
        return self._subnets[vpc or self._home()][0]

    def _home(self) -> str:
        """The first VPC."""
        return next(iter(self._subnets), None) or self.vpc()

    def nlb_target(
        self,
        *,
        healthy: bool = True,
        listener: bool = True,
        vpc: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """A mirror target that is a Network Load Balancer with one worker behind it."""
        place = self._place(vpc)
        name = f"mirror-{next(self._serials)}"
        [balancer] = self._elb.create_load_balancer(Name=name, Type="network", Scheme="internal", Subnets=[place])[
            "LoadBalancers"
        ]
        arn = balancer["LoadBalancerArn"]
        [group] = self._elb.create_target_group(
            Name=name, Protocol="UDP", Port=VXLAN_PORT, VpcId=balancer["VpcId"], HealthCheckProtocol="TCP"
        )["TargetGroups"]
        if listener:
            forward = {"Type": "forward", "TargetGroupArn": group["TargetGroupArn"]}
            self._elb.create_listener(LoadBalancerArn=arn, Protocol="UDP", Port=VXLAN_PORT, DefaultActions=[forward])
        target: str = self._ec2.create_traffic_mirror_target(
            NetworkLoadBalancerArn=arn, TagSpecifications=_specification("traffic-mirror-target", tags)
        )["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
        self._balancers[target] = (arn, group["TargetGroupArn"])
        self.set_health(target, healthy)
        return target

    def set_health(self, target: str, healthy: bool) -> None:
        """A worker comes to the target's load balancer, or all leave it."""
        _, group = self._balancers[target]
        if healthy:
            [worker] = self._run(1, self._place(None), "m5.large", {})
            self._elb.register_targets(TargetGroupArn=group, Targets=[{"Id": worker, "Port": VXLAN_PORT}])
            return
        health = self._elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]
        present = [{"Id": item["Target"]["Id"], "Port": VXLAN_PORT} for item in health]
        if present:
            self._elb.deregister_targets(TargetGroupArn=group, Targets=present)

    def delete_load_balancer(self, target: str) -> None:
        """The load balancer goes; the mirror target stays and leads nowhere."""
        self._elb.delete_load_balancer(LoadBalancerArn=self._balancers[target][0])

    def eni_target(self, type: str = "m5.large", tags: Mapping[str, str] | None = None) -> str:  # noqa: A002
        """A mirror target that is the interface of an instance."""
        [worker] = self._run(1, self._place(None), type, {})
        return str(
            self._ec2.create_traffic_mirror_target(
                NetworkInterfaceId=self.interfaces(worker)[0],
                TagSpecifications=_specification("traffic-mirror-target", tags),
            )["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
        )

    def endpoint_target(self, tags: Mapping[str, str] | None = None) -> str:
        """A mirror target that is a Gateway Load Balancer endpoint."""
        endpoint = self._ec2.create_vpc_endpoint(
            VpcId=self._home(),
            ServiceName=f"com.amazonaws.vpce.{self.region}.vpce-svc-0123456789abcdef0",
            VpcEndpointType="GatewayLoadBalancer",
        )["VpcEndpoint"]["VpcEndpointId"]
        return str(
            self._ec2.create_traffic_mirror_target(
                GatewayLoadBalancerEndpointId=endpoint,
                TagSpecifications=_specification("traffic-mirror-target", tags),
            )["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
        )

    def filter(
        self, ports: Sequence[int] = (80,), *, egress: bool = False, tags: Mapping[str, str] | None = None
    ) -> str:
        """A filter that accepts requests to these TCP ports and, with `egress`, the answers."""
        made = self._ec2.create_traffic_mirror_filter(TagSpecifications=_specification("traffic-mirror-filter", tags))
        identity: str = made["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
        rule = {"TrafficMirrorFilterId": identity, "RuleAction": "accept", "Protocol": 6}
        rule |= {"SourceCidrBlock": "0.0.0.0/0", "DestinationCidrBlock": "0.0.0.0/0"}
        for number, port in enumerate(ports, 1):
            only = {"FromPort": port, "ToPort": port}
            self._ec2.create_traffic_mirror_filter_rule(
                **rule, TrafficDirection="ingress", RuleNumber=100 * number, DestinationPortRange=only
            )
            if egress:
                self._ec2.create_traffic_mirror_filter_rule(
                    **rule, TrafficDirection="egress", RuleNumber=100 * number, SourcePortRange=only
                )
        return identity

    # Instances

    def launch(
        self,
        n: int = 1,
        *,
        vpc: str | None = None,
        subnet: str | None = None,
        tags: Mapping[str, str] | None = None,
        type: str = "m5.large",  # noqa: A002  AWS's own word
        group: str | None = None,
    ) -> list[str]:
        """Launch instances; with `group` as members of an Auto Scaling group that somebody else looks after."""
        place = self._place(vpc, subnet)
        instances = self._run(n, place, type, dict(tags or {}) | ({GROUP_TAG: group} if group else {}))
        for instance in instances:
            self._came_up(instance, group, place)
        return instances

    def start(self, instances: Collection[str]) -> None:
        self._ec2.start_instances(InstanceIds=list(instances))
        for instance in instances:
            self._states(instance, "pending", "running")

    def stop(self, instances: Collection[str]) -> None:
        self._ec2.stop_instances(InstanceIds=list(instances))
        for instance in instances:
            self._states(instance, "stopping", "stopped")

    def terminate(self, instances: Collection[str]) -> None:
        """Terminate them; a real Auto Scaling group launches others in their place."""
        groups = {instance: self._tags(instance).get(GROUP_TAG) for instance in instances}
        before = self._members()
        self._ec2.terminate_instances(InstanceIds=list(instances))
        for instance in instances:
            self._went_down(instance, groups[instance])
        self._follow(before, but=instances)

    def vanish(self, instances: Collection[str]) -> None:
        """Describe does not show terminated instances any more, about an hour later."""
        for reservation in self._backend().reservations.values():
            kept = [instance for instance in reservation.instances if instance.id not in instances]
            reservation.instances = kept

    def set_state(self, instances: Collection[str], state: str) -> None:
        """Hold instances in a state that moto passes through at once (pending, stopping, shutting-down)."""
        codes = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
        for instance in instances:
            found = self._backend().get_instance(instance)
            found._state.name, found._state.code = state, codes[state]
            self._states(instance, state)

    def tag(self, instances: Collection[str], tags: Mapping[str, str]) -> None:
        self._ec2.create_tags(Resources=list(instances), Tags=_list(tags))
        for instance in instances:
            self._tagged(instance, tags)

    def untag(self, instances: Collection[str], keys: Collection[str]) -> None:
        self._ec2.delete_tags(Resources=list(instances), Tags=[{"Key": key} for key in keys])
        for instance in instances:
            self._tagged(instance, keys)

    def attach(self, instance: str, *, device_index: int | None = None, requester_managed: bool = False) -> str:
        """A further interface; its id."""
        [found] = self._describe([instance])
        if device_index is None:
            device_index = 1 + max(item["Attachment"]["DeviceIndex"] for item in found["NetworkInterfaces"])
        made = self._ec2.create_network_interface(SubnetId=found["SubnetId"])
        interface: str = made["NetworkInterface"]["NetworkInterfaceId"]
        self._backend().enis[interface].requester_managed = requester_managed
        attachment = self._ec2.attach_network_interface(
            NetworkInterfaceId=interface, InstanceId=instance, DeviceIndex=device_index
        )["AttachmentId"]
        self.events.append(events.attach_interface(instance, interface, device_index, attachment, **self._when()))
        return interface

    def detach(self, interface: str, *, delete: bool = False) -> None:
        [found] = self._ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
        attachment = found["Attachment"]["AttachmentId"]
        self._ec2.detach_network_interface(AttachmentId=attachment)
        self.events.append(events.detach_interface(attachment, **self._when()))
        if delete:
            self._ec2.delete_network_interface(NetworkInterfaceId=interface)

    def interfaces(self, instance: str) -> list[str]:
        """Interface ids of an instance, by device index."""
        [found] = self._describe([instance])
        attached = sorted(found["NetworkInterfaces"], key=lambda item: item["Attachment"]["DeviceIndex"])
        return [item["NetworkInterfaceId"] for item in attached]

    # Auto Scaling

    def group(
        self,
        name: str,
        n: int,
        *,
        vpc: str | None = None,
        tags: Mapping[str, str] | None = None,
        type: str = "m5.large",  # noqa: A002
    ) -> list[str]:
        """A new Auto Scaling group of `n` instances."""
        template = self._ec2.create_launch_template(
            LaunchTemplateName=name, LaunchTemplateData={"ImageId": IMAGE, "InstanceType": type}
        )["LaunchTemplate"]["LaunchTemplateId"]
        self._autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=0,
            MaxSize=10_000,
            DesiredCapacity=0,
            LaunchTemplate={"LaunchTemplateId": template},
            VPCZoneIdentifier=self._place(vpc),
            Tags=[{"Key": key, "Value": value, "PropagateAtLaunch": True} for key, value in (tags or {}).items()],
        )
        return self.scale(name, n)

    def scale(self, group: str, n: int) -> list[str]:
        """Set the group's desired capacity (a new group is made); the ids of its instances then."""
        if not self._autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])["AutoScalingGroups"]:
            return self.group(group, n)
        before = self._members()
        self._autoscaling.set_desired_capacity(AutoScalingGroupName=group, DesiredCapacity=n)
        self._follow(before)
        return [instance for instance, name in self._members().items() if name == group]

    def to_warm_pool(self, instance: str) -> None:
        """A scale-in that stops an instance and returns it to its group's warm pool: not a termination."""
        name = self._tags(instance)[GROUP_TAG]
        self.stop([instance])
        self.events.append(events.group_terminate(instance, name, warm=True, **self._when()))

    def _members(self) -> dict[str, str]:
        """Groups of instances that belong to one."""
        shown = self._autoscaling.describe_auto_scaling_instances()["AutoScalingInstances"]
        return {item["InstanceId"]: item["AutoScalingGroupName"] for item in shown}

    def _follow(self, before: Mapping[str, str], but: Collection[str] = ()) -> None:
        """Events of what a group did by itself."""
        after = self._members()
        for instance in after.keys() - before.keys():
            self._came_up(instance, after[instance], "")
        for instance in before.keys() - after.keys() - set(but):
            self._went_down(instance, before[instance])

    # Other news

    def put_policy(self, text: str, name: str = POLICY) -> None:
        known = self._ssm.get_parameters(Names=[name])["Parameters"]
        self._ssm.put_parameter(Name=name, Value=text, Type="String", Overwrite=True)
        operation = "Update" if known else "Create"
        self.events.append(events.parameter_change(name, operation, **self._when()))

    def tick(self) -> None:
        """The schedule of the sweep."""
        self.events.append(events.scheduled(**self._when()))

    def find(self, instance: str, kind: str = "Backdoor:EC2/C&CActivity.B!DNS", severity: float = 8) -> None:
        """GuardDuty finds something."""
        self.events.append(events.guardduty_finding(instance, kind, severity, **self._when()))

    # How

    def _run(self, n: int, subnet: str, instance_type: str, tags: Mapping[str, str]) -> list[str]:
        launched = self._ec2.run_instances(
            ImageId=IMAGE, MinCount=n, MaxCount=n, InstanceType=instance_type, SubnetId=subnet
        )["Instances"]
        instances = [item["InstanceId"] for item in launched]
        if tags:
            self._backend().create_tags(instances, dict(tags))  # the API would refuse AWS's own tags
        return instances

    def _came_up(self, instance: str, group: str | None, subnet: str) -> None:
        self._states(instance, "pending", "running")
        if group:
            self.events.append(events.group_launch(instance, group, subnet=subnet, **self._when()))

    def _went_down(self, instance: str, group: str | None) -> None:
        self._states(instance, "shutting-down", "terminated")
        if group:
            self.events.append(events.group_terminate(instance, group, **self._when()))

    def _states(self, instance: str, *states: str) -> None:
        self.events += [events.instance_state(instance, state, **self._when()) for state in states]

    def _tagged(self, instance: str, changed: Collection[str]) -> None:
        version = self._versions[instance] = self._versions.get(instance, 0) + 1
        tags = self._tags(instance)
        self.events.append(events.tag_change(instance, changed, tags, version=version, **self._when()))

    def _when(self) -> dict[str, Any]:
        return {"at": self.now, "serial": next(self._serials), "region": self.region}

    def _tags(self, instance: str) -> dict[str, str]:
        [found] = self._describe([instance])
        return {tag["Key"]: tag["Value"] for tag in found.get("Tags", [])}

    def _describe(self, instances: Sequence[str]) -> list[Any]:
        reservations = self._ec2.describe_instances(InstanceIds=instances)["Reservations"]
        return [instance for reservation in reservations for instance in reservation["Instances"]]

    def _backend(self) -> Any:
        return ec2_backends[ACCOUNT][self.region]


@cache
def _session() -> boto3.Session:
    """One for all accounts: reading EC2's description takes longer than most tests."""
    return boto3.Session(aws_access_key_id="testing", aws_secret_access_key="testing")


@contextmanager
def strict_aws(region: str = REGION, quotas: Quotas | None = None) -> Iterator[Account]:
    """An account inside this process: all boto3 clients made within talk to it."""
    model = TrafficMirroring(MotoSurroundings(ACCOUNT, region), ACCOUNT, quotas)
    with strict(model), mock_aws(), _environment(region):
        yield Account(model, region)


@contextmanager
def strict_server(region: str = REGION, quotas: Quotas | None = None) -> Iterator[Account]:
    """An account behind HTTP on 127.0.0.1, at `account.url`, for programs of their own.

    The environment says so too (AWS_ENDPOINT_URL), for this process and those that it starts.
    """
    model = TrafficMirroring(MotoSurroundings(ACCOUNT, region), ACCOUNT, quotas)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with strict(model), _silence("werkzeug"):
        moto_api_backend.reset()
        server.start()
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        try:
            with _environment(region, AWS_ENDPOINT_URL=url):
                yield Account(model, region, url)
        finally:
            server.stop()
            moto_api_backend.reset()


@contextmanager
def _silence(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def _environment(region: str, **more: str) -> Iterator[None]:
    """Dummy credentials, and nothing of the machine's own settings."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update({**ENVIRONMENT, "AWS_DEFAULT_REGION": region, "AWS_REGION": region, **more})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _specification(kind: str, tags: Mapping[str, str] | None) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": _list(tags)}] if tags else []
