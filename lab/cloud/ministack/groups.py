"""Auto Scaling's calls in a live emulator, where ministack's say less than AWS's, or refuse less."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

from ministack.services import alb, autoscaling, ec2  # type: ignore[import-not-found]

from lab.cloud import hooks
from lab.cloud.listing import Resource
from lab.cloud.ministack import scaling
from lab.cloud.ministack.requests import Response
from lab.cloud.scaling import check_sizes

type Form = Mapping[str, Any]  # a value, or a list of values where there are several

_SHOWN = (
    *("AutoScalingGroupName", "AutoScalingGroupARN", "LaunchTemplate", "MinSize", "MaxSize", "DesiredCapacity"),
    *("DefaultCooldown", "AvailabilityZones", "TargetGroupARNs", "HealthCheckType", "HealthCheckGracePeriod"),
    *("Instances", "CreatedTime", "VPCZoneIdentifier", "Status", "Tags", "TerminationPolicies"),
    "NewInstancesProtectedFromScaleIn",
)


class Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def live() -> None:
    hooks.function(autoscaling, "_reconcile_instances", "asg", lambda _: _left_alone)
    actions = hooks.table(autoscaling, "_ACTION_MAP")
    hooks.entry(actions, "CreateAutoScalingGroup", "p", partial(_refusing, _create))
    hooks.entry(actions, "UpdateAutoScalingGroup", "p", partial(_refusing, _update))
    hooks.entry(actions, "SetDesiredCapacity", "p", partial(_refusing, _set_desired))
    hooks.entry(actions, "DeleteAutoScalingGroup", "p", partial(_refusing, _delete))
    hooks.entry(actions, "DescribeAutoScalingGroups", "p", partial(_refusing, _describe_groups))
    hooks.entry(actions, "DescribeScalingActivities", "p", partial(_refusing, _describe_activities))
    hooks.add(actions, {"TerminateInstanceInAutoScalingGroup": _refusing(_terminate, None)})


def _left_alone(asg: Resource) -> None:
    """ministack makes instances up at once."""


def _refusing(handle: Callable[[Any, Form], Response], original: Any) -> Any:
    def respond(form: Form) -> Response:
        try:
            return handle(original, form)
        except Refused as refused:
            response: Response = autoscaling._error(refused.code, autoscaling.escape(str(refused)))
            return response

    return respond


def _create(original: Any, form: Form) -> Response:
    arns = autoscaling._parse_member_list(form, "TargetGroupARNs")
    unknown = [arn for arn in arns if arn not in alb._tgs]
    if unknown:
        raise Refused("ValidationError", f"Provided Target Groups may not be valid: {', '.join(unknown)}")
    template = _template(form)
    if template is None:
        raise Refused("ValidationError", "Valid requests must contain a LaunchTemplate")
    _check_subnets(form)
    least, most = int(_value(form, "MinSize") or 0), int(_value(form, "MaxSize") or 0)
    _check_sizes(least, most, int(_value(form, "DesiredCapacity") or least))
    response: Response = original(form)
    if response[0] == 200:
        record = autoscaling._asgs[_value(form, "AutoScalingGroupName")]
        record |= {"LaunchTemplate": template, "TargetGroupARNs": arns}
    return response


def _update(original: Any, form: Form) -> Response:
    """A desired capacity that is not given gives way to the new bounds."""
    record = _known(form)
    template = _template(form)
    _check_subnets(form)
    least = int(_value(form, "MinSize") or record["MinSize"])
    most = int(_value(form, "MaxSize") or record["MaxSize"])
    kept = max(least, min(record["DesiredCapacity"], most))
    desired = int(_value(form, "DesiredCapacity") or kept)
    _check_sizes(least, most, desired)
    response: Response = original(form)
    if response[0] == 200:
        record |= {"DesiredCapacity": desired, "LaunchTemplate": template or record["LaunchTemplate"]}
    return response


def _set_desired(original: Any, form: Form) -> Response:
    record = _known(form)
    _check_sizes(record["MinSize"], record["MaxSize"], int(_value(form, "DesiredCapacity") or 0))
    response: Response = original(form)
    return response


def _delete(_: Any, form: Form) -> Response:
    record = _known(form)
    forced = _value(form, "ForceDelete") == "true"
    if scaling.members_of(record) and not forced:
        text = "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s)"
        raise Refused("ResourceInUse", f"{text} still in the group.")
    scaling.delete(record, hurried=forced)
    response: Response = autoscaling._xml(200, "DeleteAutoScalingGroupResponse", "")
    return response


def _terminate(_: Any, form: Form) -> Response:
    instance = _value(form, "InstanceId")
    found = [
        one
        for one in autoscaling._asgs.values()
        if any(member.instance == instance and member.counts for member in scaling.members_of(one))
    ]
    if not found:
        text = f"Instance Id not found - No managed instance found for instance ID {instance}"
        raise Refused("ValidationError", text)
    try:
        fewer = _value(form, "ShouldDecrementDesiredCapacity") == "true"
        scaling.dismiss(found[0], [instance], found[0]["DesiredCapacity"] - fewer)
    except ValueError as error:
        raise Refused("ValidationError", str(error)) from error
    return _answer("TerminateInstanceInAutoScalingGroup", {})


def _describe_groups(_: Any, form: Form) -> Response:
    names = autoscaling._parse_member_list(form, "AutoScalingGroupNames")
    filters = list(_filters(form))
    found = [
        one
        for name, one in autoscaling._asgs.items()
        if (not names or name in names) and all(_passes(one, *each) for each in filters)
    ]
    shown = [{name: one[name] for name in _SHOWN if one.get(name) not in (None, "", {})} for one in found]
    return _answer("DescribeAutoScalingGroups", {"AutoScalingGroups": shown})


def _filters(form: Form) -> Iterator[tuple[str, list[str]]]:
    for number in count(1):
        name = _value(form, f"Filters.member.{number}.Name")
        if not name:
            return
        yield name, autoscaling._parse_member_list(form, f"Filters.member.{number}.Values")


def _passes(record: Resource, name: str, values: Sequence[str]) -> bool:
    """https://docs.aws.amazon.com/autoscaling/ec2/APIReference/API_Filter.html"""
    tags = [(tag["Key"], tag["Value"]) for tag in record.get("Tags", ())]
    match name.partition(":"):
        case "tag-key", _, _:
            return any(key in values for key, _ in tags)
        case "tag-value", _, _:
            return any(value in values for _, value in tags)
        case "tag", ":", wanted:
            return any(key == wanted and value in values for key, value in tags)
    raise Refused("ValidationError", f"Filter name {name} is not correct.")


def _describe_activities(_: Any, form: Form) -> Response:
    name = _value(form, "AutoScalingGroupName")
    records = [_known(form)] if name else autoscaling._asgs.values()
    activities = [activity for record in records for activity in record.get("_activities", ())]
    return _answer("DescribeScalingActivities", {"Activities": activities})


def _answer(action: str, members: Resource) -> Response:
    inner = f"<{action}Result>{autoscaling._member_xml(members)}</{action}Result>"
    response: Response = autoscaling._xml(200, f"{action}Response", inner)
    return response


def _value(form: Form, name: str) -> str:
    return str(autoscaling._p(form, name))


def _known(form: Form) -> Resource:
    name = _value(form, "AutoScalingGroupName")
    if name not in autoscaling._asgs:
        raise Refused("ValidationError", f"AutoScalingGroup name not found - no such group: {name}")
    record: Resource = autoscaling._asgs[name]
    return record


def _template(form: Form) -> Resource | None:
    """The launch template that a call names, by id or by name."""
    names = ("LaunchTemplateId", "LaunchTemplateName", "Version")
    wanted = {name: _value(form, f"LaunchTemplate.{name}") for name in names}
    if not wanted["LaunchTemplateId"] and not wanted["LaunchTemplateName"]:
        return None
    _, template, wrong = ec2._resolve_launch_template_data(wanted)
    if wrong or not template:
        raise Refused("ValidationError", "You must use a valid fully-formed launch template")
    return {**{name: template[name] for name in names[:2]}, "Version": wanted["Version"] or "$Default"}


def _check_subnets(form: Form) -> None:
    for name in scaling.subnets_of(_value(form, "VPCZoneIdentifier")):
        if name not in ec2._subnets:
            raise Refused("ValidationError", f"The subnet ID '{name}' does not exist")


def _check_sizes(least: int, most: int, desired: int) -> None:
    try:
        check_sizes(least, most, desired)
    except ValueError as error:
        raise Refused("ValidationError", str(error)) from error
