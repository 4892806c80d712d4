"""The account around a deployed stack: production's instances, what AWS tells of them, and where an operator looks.

Everything is done by the account's root user, through the API. ministack's services tell EventBridge nothing, so every
change is followed here by the event that AWS would send; which rule takes it is the template's business.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Any

from lab.cloud import events
from lab.cloud.emulator import Emulator
from tests.waiting import until

_IMAGE = "ami-0a1b2c3d4e5f60718"

type Raw = dict[str, Any]

#: What the functions say at the end of a run.
_SAID = {"reconcile": "Reconciled", "autotag": "Autotag", "lifecycle": "Lifecycle"}


class Account:
    def __init__(self, cloud: Emulator, stack: str) -> None:
        self.cloud = cloud
        self.stack = stack
        self.client = cache(cloud.client)
        self._serials = count(1)
        made = self.client("ec2").create_vpc(CidrBlock="10.1.0.0/16")
        self.vpc: str = made["Vpc"]["VpcId"]
        self.subnets = [self._subnet(self.vpc, f"10.1.{place}.0/24", zone) for place, zone in enumerate("ab")]

    def _subnet(self, vpc: str, block: str, zone: str) -> str:
        where = {"CidrBlock": block, "AvailabilityZone": f"{events.REGION}{zone}"}
        return str(self.client("ec2").create_subnet(VpcId=vpc, **where)["Subnet"]["SubnetId"])

    # Production

    def launch(self, tags: Mapping[str, str], *groups: str) -> str:
        """In these security groups; without any, in the VPC's own."""
        specification = [{"ResourceType": "instance", "Tags": _tag_list(tags)}] if tags else []
        launched = self.client("ec2").run_instances(
            ImageId=_IMAGE,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            SubnetId=self.subnets[0],
            SecurityGroupIds=list(groups),
            TagSpecifications=specification,
        )
        return str(launched["Instances"][0]["InstanceId"])

    def terminate(self, instances: Iterable[str]) -> None:
        """Sessions go with their interfaces."""
        self.client("ec2").terminate_instances(InstanceIds=list(instances))

    def tag(self, instance: str, tags: Mapping[str, str]) -> None:
        self.client("ec2").create_tags(Resources=[instance], Tags=_tag_list(tags))

    def untag(self, instance: str, key: str) -> None:
        self.client("ec2").delete_tags(Resources=[instance], Tags=[{"Key": key}])

    def tags(self, instance: str) -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in self.instance(instance).get("Tags", ())}

    def instance(self, name: str) -> Raw:
        [reservation] = self.client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
        found: Raw = reservation["Instances"][0]
        return found

    def interface(self, instance: str) -> str:
        return str(self.instance(instance)["NetworkInterfaces"][0]["NetworkInterfaceId"])

    # Sessions

    def sessions(self, *instances: str) -> list[Raw]:
        """Of these instances by our own description of them; without any, all there are."""
        wanted = [{"Name": "description", "Values": list(instances)}] if instances else []
        found: list[Raw] = self.client("ec2").describe_traffic_mirror_sessions(Filters=wanted)["TrafficMirrorSessions"]
        return found

    def ours(self) -> list[Raw]:
        """Of the stack."""
        owner = {"Key": "mirror:managed-by", "Value": self.stack}
        return [session for session in self.sessions() if owner in session["Tags"]]

    # News

    def of_state(self, instance: str, state: str = "running") -> Raw:
        return events.instance_state(instance, state, **self._now())

    def of_tag(self, instance: str, key: str) -> Raw:
        return events.tag_change(instance, [key], self.tags(instance), version=1, **self._now())

    def of_parameter(self, name: str, operation: str = "Update") -> Raw:
        return events.parameter_change(name, operation, **self._now())

    def of_schedule(self) -> Raw:
        """The one rule that has a schedule strikes."""
        rules = self.client("events").list_rules()["Rules"]
        [arn] = [rule["Arn"] for rule in rules if rule.get("ScheduleExpression")]
        return {**events.scheduled(**self._now()), "resources": [arn]}

    def _now(self) -> Raw:
        return {"at": datetime.now(UTC), "serial": next(self._serials)}

    def tell(self, event: Raw, function: str = "reconcile") -> Raw:
        """An event as AWS sends it, and what the function says once it has dealt with it."""
        self.cloud.emit(event)
        return until(f"{function} answers to {event['detail-type']}", lambda: self._answer(event["id"], function)) or {}

    def _answer(self, event: str, function: str) -> Raw | None:
        said = (line for line in self.lines(function) if line.get("message") == _SAID[function])
        return next((line.get("report", line) for line in said if event in line.get("events", ())), None)

    def write_parameter(self, name: str, value: str) -> Raw:
        """A new value of an SSM parameter; the event that tells of it."""
        made = self.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)
        return self.of_parameter(name, "Create" if made["Version"] == 1 else "Update")

    def delete_parameter(self, name: str) -> Raw:
        self.client("ssm").delete_parameter(Name=name)
        return self.of_parameter(name, "Delete")

    def parameter(self, name: str) -> str:
        return str(self.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])

    # Where an operator looks

    def lines(self, function: str) -> list[Raw]:
        """The function's log, as far as it is JSON, in its order."""
        pages = self.client("logs").get_paginator("filter_log_events")
        group = f"/aws/lambda/{self.stack}-{function}"
        messages = [one["message"] for page in pages.paginate(logGroupName=group) for one in page["events"]]
        return [json.loads(text) for text in messages if text.startswith("{")]

    def metric(self, function: str, name: str) -> list[float]:
        """Its values in the function's log, in order, wherever it is written."""
        return [value for line in self.lines(function) if "_aws" in line for value in line.get(name, ())]

    def inventory(self) -> dict[str, set[str]]:
        """Names of all that a stack makes, by kind."""
        return {kind: set(names(self.client)) for kind, names in _KINDS.items()}


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _listing(service: str, operation: str, key: str, name: str | None) -> Callable[[Any], Iterator[str]]:
    def names(client: Callable[[str], Any]) -> Iterator[str]:
        paginator = client(service).get_paginator(operation)
        for page in paginator.paginate():
            yield from (str(one if name is None else one[name]) for one in page.get(key, ()))

    return names


_KINDS: Mapping[str, Callable[[Any], Iterator[str]]] = {
    kind: _listing(*how)
    for kind, how in {
        "alarms": ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        "dashboards": ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        "event sources": ("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
        "filters": ("ec2", "describe_traffic_mirror_filters", "TrafficMirrorFilters", "TrafficMirrorFilterId"),
        "functions": ("lambda", "list_functions", "Functions", "FunctionName"),
        "groups of instances": (
            "autoscaling",
            "describe_auto_scaling_groups",
            "AutoScalingGroups",
            "AutoScalingGroupName",
        ),
        "instance profiles": ("iam", "list_instance_profiles", "InstanceProfiles", "InstanceProfileName"),
        "launch templates": ("ec2", "describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
        "layers": ("lambda", "list_layers", "Layers", "LayerName"),
        "load balancers": ("elbv2", "describe_load_balancers", "LoadBalancers", "LoadBalancerArn"),
        "logs": ("logs", "describe_log_groups", "logGroups", "logGroupName"),
        "parameters": ("ssm", "describe_parameters", "Parameters", "Name"),
        "queues": ("sqs", "list_queues", "QueueUrls", None),
        "roles": ("iam", "list_roles", "Roles", "RoleName"),
        "rules": ("events", "list_rules", "Rules", "Name"),
        "security groups": ("ec2", "describe_security_groups", "SecurityGroups", "GroupId"),
        "target groups": ("elbv2", "describe_target_groups", "TargetGroups", "TargetGroupArn"),
        "targets": ("ec2", "describe_traffic_mirror_targets", "TrafficMirrorTargets", "TrafficMirrorTargetId"),
    }.items()
}
