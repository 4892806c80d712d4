"""Auto Scaling groups that act, in a live emulator: what `lab.cloud.scaling` decides is done, by the calls that anybody
could send. ministack's groups only say that they have instances.

A group's members are kept in its record, so whatever removes the record removes them. Launch templates only; no
lifecycle hooks, warm pools, scaling policies, standby or instance refresh.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from uuid import uuid4

from ministack.services import alb, autoscaling, ec2  # type: ignore[import-not-found]

from lab.cloud import delivery, events, launches
from lab.cloud.faults import ApiError
from lab.cloud.listing import Resource
from lab.cloud.ministack.health import Watch
from lab.cloud.scaling import SHOWN, Group, Member, Phase, Seen, check_sizes, decide, dismissed, remembered

#: Seconds after which a launch that was refused, or came to nothing, is tried again.
RETRY = 5.0
_DELETING = "Delete in progress"

_log = logging.getLogger(__name__)


class Scaling:
    """All groups of the account. Seconds pass `pace` times as fast."""

    def __init__(self, pace: float, watch: Watch, clock: Callable[[], float] = time.monotonic) -> None:
        self.pace = pace
        self._watch = watch
        self._clock = clock

    def look(self) -> None:
        """Each group is compared with what it should be, and brought nearer to it."""
        for record in autoscaling._asgs.values():
            self._tend(record)

    def _tend(self, record: Resource) -> None:
        now, members = self._clock(), members_of(record)
        for instance in record.pop("_dismissed", ()):
            members = dismissed(self._group(record), members, instance, now)
        seen = {member.instance: self._seen(record, member) for member in members}
        decision = decide(self._group(record), members, seen, now)
        where = {member.instance: member for member in (*members, *decision.members)}
        for instance in decision.enter:
            _each_target_group(record, "RegisterTargets", instance)
            _told(record, events.group_launch, where[instance], "Launching a new EC2 instance")
        for instance in decision.leave:
            _each_target_group(record, "DeregisterTargets", instance)
        for instance in decision.end:
            ec2._ACTION_MAP["TerminateInstances"]({"InstanceId.1": [instance]})
        for instance in decision.forget:
            if where[instance].phase is Phase.PENDING:  # it did not come up: nor may the next one
                record["_retry"] = now + RETRY
            _each_target_group(record, "DeregisterTargets", instance)
            _told(record, events.group_terminate, where[instance], "Terminating EC2 instance")
        record["_members"] = decision.members
        if now >= record.get("_retry", 0.0):
            self._launch(record, decision.launch, now)
        record["Instances"] = [_shown(member) for member in members_of(record)]
        if _deleting(record) and not record["_members"]:
            autoscaling._asgs.pop(record["AutoScalingGroupName"], None)
            autoscaling._tags.pop(record["AutoScalingGroupName"], None)

    def _seen(self, record: Resource, member: Member) -> Seen:
        instance = ec2._instances.get(member.instance, {"State": {"Name": ""}})
        targets = [self._watch.look(group).get(member.instance) for group in target_groups(record)]
        return Seen(instance["State"]["Name"], tuple(one.health.state for one in targets if one is not None))

    def _group(self, record: Resource) -> Group:
        deleting = _deleting(record)
        return Group(
            0 if deleting else record["DesiredCapacity"],
            tuple(subnets_of(record["VPCZoneIdentifier"])) or (ec2._DEFAULT_SUBNET_ID,),
            record["HealthCheckGracePeriod"] / self.pace,
            balanced="ELB" in record["HealthCheckType"],
            hurried=deleting and record.get("_hurried", False),
        )

    def _launch(self, record: Resource, subnets: Iterable[str], now: float) -> None:
        """By the same call as anybody's. What it refuses is an activity that failed, and is tried again later."""
        for subnet in subnets:
            try:
                template, version, data = template_of(record)
                instance = _run(launches.form(data, subnet, _tags(record, template, version)))
            except ApiError as error:
                record["_retry"] = now + RETRY
                _log.warning("%s launches nothing: %s", record["AutoScalingGroupName"], error.message)
                _remember(record, "Launching a new EC2 instance", "Failed", subnet, error.message)
                return
            record["_members"] = (*record["_members"], Member(instance, subnet, now, f"{template}:{version}"))

    def healthy(self, record: Resource) -> list[str]:
        """Members in service that all of the group's target groups find healthy."""
        needed = len(target_groups(record))
        serving = [member for member in members_of(record) if member.phase is Phase.SERVING]
        return [one.instance for one in serving if self._seen(record, one).health == ("healthy",) * needed]

    def draining(self, record: Resource) -> float:
        """Seconds that a member is deregistered for, before it ends."""
        return max(map(self._watch.delay, target_groups(record)), default=0.0)


def dismiss(record: Resource, instances: Iterable[str], desired: int) -> None:
    """They leave as if they were too many, at the next look, and are replaced as far as `desired` wants it. One change,
    as it may come from another thread than looks do."""
    check_sizes(record["MinSize"], record["MaxSize"], desired)
    record |= {"DesiredCapacity": desired, "_dismissed": (*record.get("_dismissed", ()), *instances)}


def delete(record: Resource, hurried: bool = False) -> None:
    """Its members leave first; it goes with the last."""
    record |= {"MinSize": 0, "DesiredCapacity": 0, "Status": _DELETING, "_hurried": hurried}


def members_of(record: Resource) -> Sequence[Member]:
    members: Sequence[Member] = record.get("_members", ())
    return members


def outdated(record: Resource) -> list[str]:
    """Members that a launch now would not give, the oldest first."""
    template, version, _ = template_of(record)
    return [one.instance for one in members_of(record) if one.counts and one.template != f"{template}:{version}"]


def target_groups(record: Resource) -> list[str]:
    """Those that are still there."""
    return [arn for arn in record.get("TargetGroupARNs", ()) if arn in alb._tgs]


def _deleting(record: Resource) -> bool:
    return bool(record["Status"] == _DELETING)


def subnets_of(identifier: str) -> list[str]:
    return [name.strip() for name in identifier.split(",") if name.strip()]


def _each_target_group(record: Resource, action: str, instance: str) -> None:
    for arn in target_groups(record):
        alb._ACTION_MAP[action]({"TargetGroupArn": [arn], "Targets.member.1.Id": [instance]})


def template_of(record: Resource) -> tuple[str, str, Resource]:
    """Id, version and data of a group's launch template, as it would be launched now."""
    specification = record["LaunchTemplate"]
    data, template, wrong = ec2._resolve_launch_template_data(specification)
    if wrong or not template:
        name = specification.get("LaunchTemplateId")
        raise ApiError("ValidationError", f"You must use a valid fully-formed launch template: there is no {name}")
    version = {"$Latest": template["LatestVersionNumber"], "$Default": template["DefaultVersionNumber"]}
    wanted = str(specification.get("Version") or "$Default")
    return template["LaunchTemplateId"], str(version.get(wanted, wanted)), data


def _run(form: launches.Form) -> str:
    before = set(ec2._instances)
    status, _, body = ec2._ACTION_MAP["RunInstances"](form)
    if status != 200:
        raise ApiError("ValidationError", f"RunInstances refused: {body.decode()}")
    [instance] = set(ec2._instances) - before
    return str(instance)


def _tags(record: Resource, template: str, version: str) -> dict[str, str]:
    """https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-tagging.html"""
    own = {tag["Key"]: tag["Value"] for tag in record["Tags"] if tag["PropagateAtLaunch"]}
    system = {"aws:autoscaling:groupName": record["AutoScalingGroupName"]}
    return {**own, **system, "aws:ec2launchtemplate:id": template, "aws:ec2launchtemplate:version": version}


def _told(record: Resource, shape: Callable[..., events.Event], member: Member, deed: str) -> None:
    zone = ec2._subnets.get(member.subnet, {}).get("AvailabilityZone", "")
    where = {"subnet": member.subnet, "zone": zone}
    delivery.tell(shape, member.instance, record["AutoScalingGroupName"], cause=_cause(member.unhealthy), **where)
    _remember(record, f"{deed}: {member.instance}", "Successful", member.subnet, member.unhealthy)


def _cause(why: str) -> str:
    return f"At {autoscaling.now_iso()} {why or 'the group was brought to its desired capacity'}."


def _remember(record: Resource, description: str, status: str, subnet: str, why: str) -> None:
    activity = {
        "ActivityId": str(uuid4()),
        "AutoScalingGroupName": record["AutoScalingGroupName"],
        "Description": description,
        "Cause": _cause(why),
        "StartTime": autoscaling.now_iso(),
        "EndTime": autoscaling.now_iso(),
        "StatusCode": status,
        "Progress": 100,
        "Details": f'{{"Subnet ID":"{subnet}"}}',
    }
    record["_activities"] = remembered(activity, record.get("_activities", []))


def _shown(member: Member) -> Resource:
    """As DescribeAutoScalingInstances has it."""
    template, _, version = member.template.rpartition(":")
    name = ec2._launch_templates.get(template, {}).get("LaunchTemplateName", "")
    return {
        "InstanceId": member.instance,
        "InstanceType": ec2._instances.get(member.instance, {}).get("InstanceType", ""),
        "AvailabilityZone": ec2._subnets.get(member.subnet, {}).get("AvailabilityZone", ""),
        "LifecycleState": SHOWN[member.phase],
        "HealthStatus": "Unhealthy" if member.unhealthy else "Healthy",
        "LaunchTemplate": {"LaunchTemplateId": template, "LaunchTemplateName": name, "Version": version},
        "ProtectedFromScaleIn": False,
    }
