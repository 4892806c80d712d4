"""An account that tests set up through EC2's own API, whoever answers it."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from botocore.exceptions import ClientError

type Answer = dict[str, Any]

SERIALS = count(1)  # of names that an account has once

#: What every launch needs, wherever it is.
IMAGE = {"ImageId": "ami-0123456789abcdef0", "InstanceType": "m5.large"}


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
            ImageId="ami-0123456789abcdef0", MinCount=n, MaxCount=n, InstanceType=kind, **place, **more
        )
        return [instance["InstanceId"] for instance in made["Instances"]]

    def small_subnet(self) -> str:
        """With room for eleven."""
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.9.240.0/28", AvailabilityZone="eu-west-1c")
        return str(made["Subnet"]["SubnetId"])

    def instance(self, name: str) -> Answer:
        [reservation] = self.ec2.describe_instances(InstanceIds=[name])["Reservations"]
        [found] = reservation["Instances"]
        return dict(found)

    def tags(self, instance: str) -> list[dict[str, str]]:
        return list(self.instance(instance).get("Tags", []))

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


def refused(call: Callable[..., object], **parameters: object) -> str:
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    code: str = caught.value.response["Error"]["Code"]
    return code
