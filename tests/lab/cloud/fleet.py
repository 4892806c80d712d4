"""Auto Scaling groups behind a load balancer in a live emulator, with machines and a balancer that a test moves on."""

from collections.abc import Callable
from functools import cache
from typing import Any

from lab.cloud.emulator import Emulator
from tests.lab.cloud.world import SERIALS
from tests.waiting import until

#: What a machine says next.
_OBEYS = {"pending": "running", "stopping": "stopped", "shutting-down": "terminated"}


class Fleet:
    """A VPC, two subnets, a target group that drains for `delay` seconds of AWS's, a launch template."""

    def __init__(self, living: Emulator, delay: int = 10) -> None:
        self.living = living
        self.client = _clients(living)
        self.ec2, self.elb, self.scaling = (self.client(name) for name in ("ec2", "elbv2", "autoscaling"))
        self.vpc = self.ec2.create_vpc(CidrBlock="10.6.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [self._subnet(place, zone) for place, zone in enumerate("ab")]
        self.target_group = self._target_group(delay)
        data = {"ImageId": "ami-0123456789abcdef0", "InstanceType": "c7i.large", "UserData": "IyE="}
        made = self.ec2.create_launch_template(LaunchTemplateName=f"t-{next(SERIALS)}", LaunchTemplateData=data)
        self.template = made["LaunchTemplate"]["LaunchTemplateId"]
        self._groups: list[str] = []

    def _subnet(self, place: int, zone: str) -> str:
        where = {"CidrBlock": f"10.6.{place}.0/24", "AvailabilityZone": f"eu-west-1{zone}"}
        return str(self.ec2.create_subnet(VpcId=self.vpc, **where)["Subnet"]["SubnetId"])

    def _target_group(self, delay: int) -> str:
        balancer = self.elb.create_load_balancer(Name=f"b-{next(SERIALS)}", Type="network", Subnets=self.subnets)
        arn = self.lone_target_group()
        self.elb.create_listener(
            LoadBalancerArn=balancer["LoadBalancers"][0]["LoadBalancerArn"],
            Protocol="UDP",
            Port=4789,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": arn}],
        )
        attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": str(delay)}
        self.elb.modify_target_group_attributes(TargetGroupArn=arn, Attributes=[attribute])
        return arn

    def lone_target_group(self) -> str:
        """One that no load balancer uses."""
        [made] = self.elb.create_target_group(Name=f"g-{next(SERIALS)}", Protocol="UDP", Port=4789, VpcId=self.vpc)[
            "TargetGroups"
        ]
        return str(made["TargetGroupArn"])

    def group(self, desired: int, most: int = 4, name: str = "", **more: Any) -> str:
        name = name or f"group-{next(SERIALS)}"
        plain = {
            "MinSize": 0,
            "MaxSize": most,
            "DesiredCapacity": desired,
            "LaunchTemplate": {"LaunchTemplateId": self.template, "Version": "$Latest"},
            "VPCZoneIdentifier": ",".join(self.subnets),
            "TargetGroupARNs": [self.target_group],
        }
        self.scaling.create_auto_scaling_group(AutoScalingGroupName=name, **{**plain, **more})
        self._groups.append(name)
        return name

    def close(self) -> None:
        """Without its groups; the rest does nothing by itself."""
        left = [name for name in self._groups if self.shown(name)]
        for name in left:
            self.scaling.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        self.until("no group is left", lambda: not any(self.shown(name) for name in left))

    # What others do

    def machines(self) -> None:
        """Those of this VPC do what they were told."""
        for name, state in self.states().items():
            if state in _OBEYS:
                self.living.report_machine(name, _OBEYS[state])

    def balancer(self) -> None:
        """It finds new targets healthy."""
        for name, state in self.health().items():
            if state == "initial":
                self.living.report_health(self.target_group, name, "healthy")

    def until[T](self, what: str, look: Callable[[], T]) -> T:
        """What a look gives as soon as it gives something, while machines and balancer do their work."""

        def move() -> T:
            self.machines()
            self.balancer()
            return look()

        return until(what, move)

    # What is seen

    def states(self) -> dict[str, str]:
        """Of the VPC's instances; a terminated one is in none."""
        by = [{"Name": "vpc-id", "Values": [self.vpc]}]
        reservations = self.ec2.describe_instances(Filters=by)["Reservations"]
        return {one["InstanceId"]: one["State"]["Name"] for found in reservations for one in found["Instances"]}

    def shown(self, name: str) -> dict[str, Any]:
        found = self.scaling.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"]
        return dict(found[0]) if found else {}

    def members(self, name: str) -> dict[str, str]:
        return {one["InstanceId"]: one["LifecycleState"] for one in self.shown(name).get("Instances", [])}

    def serving(self, name: str, number: int) -> list[str]:
        """The group's members, if it has just so many and all are in service and healthy."""
        members, health = self.members(name), self.health()
        ready = all(state == "InService" and health.get(one) == "healthy" for one, state in members.items())
        return [*members] if ready and len(members) == number else []

    def health(self) -> dict[str, str]:
        return {name: found["State"] for name, found in self.found().items()}

    def found(self, *targets: str, group: str = "") -> dict[str, dict[str, str]]:
        asked = {"Targets": [{"Id": name} for name in targets]} if targets else {}
        shown = self.elb.describe_target_health(TargetGroupArn=group or self.target_group, **asked)
        return {one["Target"]["Id"]: one["TargetHealth"] for one in shown["TargetHealthDescriptions"]}

    def told(self, kind: str) -> list[str]:
        """Instances that Auto Scaling told the bus of."""
        events = [one.event for one in self.living.events()]
        return [event["detail"]["EC2InstanceId"] for event in events if event["detail-type"] == kind]


@cache
def _clients(living: Emulator) -> Callable[[str], Any]:
    """Making one takes longer than most calls."""
    return cache(living.client)
