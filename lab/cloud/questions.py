"""What AWS asks IAM about a request: one question on each resource that it names or makes, with its condition keys.

The request may pass if all of them are answered yes. Here are the actions that our roles name, without those where the
first id in a request is all there is to ask about.

    [SAR]     https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
              (a page for each service: its actions, their resources, their condition keys)
    [create]  https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    [assumed] nobody says
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Protocol

type Tags = Mapping[str, str]
#: Condition keys; those that hold sets have lists.
type Keys = dict[str, str | list[str]]


@dataclass(frozen=True)
class Interface:
    """Where a network interface is."""

    vpc: str
    subnet: str


class Account(Protocol):
    """What conditions may ask about the account's resources."""

    def tags(self, resource: str) -> Tags:
        """Of an EC2 resource, by its id."""

    def interface(self, name: str) -> Interface | None: ...

    def stack(self, name: str) -> str:
        """The ARN of a CloudFormation stack, by its name or ARN."""


@dataclass(frozen=True)
class Request:
    """One API call; `resource` is the one that ministack found in it."""

    action: str
    parameters: Mapping[str, Any]
    resource: str
    region: str
    account: str

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


@dataclass(frozen=True)
class Question:
    """May this action be done to this resource?"""

    action: str
    resource: str
    keys: Keys = field(default_factory=dict)


type Asker = Callable[[Request, Account], Iterable[Question]]


# EC2

#: Parameters that name what exists, by its type in ARNs. One that is left out is not asked about. [SAR]
_NAMED: Mapping[str, Mapping[str, str]] = {
    "ec2:CreateTrafficMirrorSession": {
        "network-interface": "NetworkInterfaceId",
        "traffic-mirror-target": "TrafficMirrorTargetId",
        "traffic-mirror-filter": "TrafficMirrorFilterId",
    },
    "ec2:ModifyTrafficMirrorSession": {
        "traffic-mirror-session": "TrafficMirrorSessionId",
        "traffic-mirror-target": "TrafficMirrorTargetId",
        "traffic-mirror-filter": "TrafficMirrorFilterId",
    },
    "ec2:DeleteTrafficMirrorSession": {"traffic-mirror-session": "TrafficMirrorSessionId"},
}
#: Types by the beginnings of ids.
_TYPES = {
    "eni-": "network-interface",
    "i-": "instance",
    "tmf-": "traffic-mirror-filter",
    "tmfr-": "traffic-mirror-filter-rule",
    "tms-": "traffic-mirror-session",
    "tmt-": "traffic-mirror-target",
}
_SPECIFIED = re.compile(r"(TagSpecification\.\d+)\.(Tag\.\d+)\.Key")
_TAG = re.compile(r"(Tag\.\d+)\.Key")
_RESOURCE = re.compile(r"ResourceId\.\d+")


def _changing(request: Request, account: Account) -> Iterable[Question]:
    for kind, parameter in _NAMED[request.action].items():
        if name := request.parameters.get(parameter):
            yield _on(request, account, kind, name)


def _creating(request: Request, account: Account) -> Iterable[Question]:
    """A create with tags is a CreateTags too. [create]"""
    yield from _changing(request, account)
    kind, tags = "traffic-mirror-session", _specified(request, "traffic-mirror-session")
    new, keys = request.arn("ec2", f"{kind}/*"), _region(request) | _requested(tags)
    yield Question(request.action, new, keys)
    if tags:
        yield Question("ec2:CreateTags", new, keys | {"ec2:CreateAction": request.action.partition(":")[2]})


def _tagging(request: Request, account: Account) -> Iterable[Question]:
    """A key that comes without a value, as in DeleteTags, counts as one with an empty value. [assumed]"""
    names = [value for name, value in request.parameters.items() if _RESOURCE.fullmatch(name)]
    found = [match[1] for name in request.parameters if (match := _TAG.fullmatch(name))]
    tags = {request.parameters[f"{tag}.Key"]: request.parameters.get(f"{tag}.Value", "") for tag in found}
    for name in names:
        kind = next((kind for start, kind in _TYPES.items() if name.startswith(start)), "*")
        yield _on(request, account, kind, name, _requested(tags))


def _describing(request: Request, account: Account) -> Iterable[Question]:
    """No describe call knows resources. [SAR]"""
    yield Question(request.action, "*", _region(request))


def _on(request: Request, account: Account, kind: str, name: str, keys: Keys | None = None) -> Question:
    """About something that exists. What does not has no tags, so that a condition on one is not met."""
    tags = account.tags(name)
    place = account.interface(name) if kind == "network-interface" else None
    where = (
        {
            "ec2:Vpc": request.arn("ec2", f"vpc/{place.vpc}"),
            "ec2:Subnet": request.arn("ec2", f"subnet/{place.subnet}"),
            "ec2:NetworkInterfaceID": name,
        }
        if place
        else {}
    )
    worn = {f"{scope}:ResourceTag/{key}": value for key, value in tags.items() for scope in ("aws", "ec2")}
    return Question(
        request.action, request.arn("ec2", f"{kind}/{name}"), {**_region(request), **where, **worn, **(keys or {})}
    )


def _region(request: Request) -> Keys:
    return {"ec2:Region": request.region}


def _requested(tags: Tags) -> Keys:
    """No tags: no keys, and not a list of none, which `Null` would take for one."""
    keys: Keys = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return keys | {"aws:TagKeys": list(tags)} if tags else {}


def _specified(request: Request, kind: str) -> Tags:
    found = [match for name in request.parameters if (match := _SPECIFIED.fullmatch(name))]
    return {
        request.parameters[f"{specification}.{tag}.Key"]: request.parameters.get(f"{specification}.{tag}.Value", "")
        for specification, tag in (match.groups() for match in found)
        if request.parameters.get(f"{specification}.ResourceType") == kind
    }


# Other services


def _describing_balancers(request: Request, account: Account) -> Iterable[Question]:
    yield Question(request.action, "*")


def _putting_events(request: Request, account: Account) -> Iterable[Question]:
    """On each bus, with the sources and types of all that go there."""
    entries: dict[str, list[Mapping[str, str]]] = {}
    for entry in request.parameters.get("Entries", ()):
        entries.setdefault(entry.get("EventBusName") or "default", []).append(entry)
    for bus, those in entries.items():
        keys = {
            "events:source": [entry["Source"] for entry in those if "Source" in entry],
            "events:detail-type": [entry["DetailType"] for entry in those if "DetailType" in entry],
        }
        arn = bus if bus.startswith("arn:") else request.arn("events", f"event-bus/{bus}")
        yield Question(request.action, arn, {key: values for key, values in keys.items() if values})


def _naming_parameters(request: Request, account: Account) -> Iterable[Question]:
    """Each parameter by itself; a version or label after a colon is not part of its name."""
    for name in [*request.parameters.get("Names", ()), *filter(None, [request.parameters.get("Name")])]:
        arn = name if name.startswith("arn:") else request.arn("ssm", f"parameter/{name.removeprefix('/')}")
        yield Question(request.action, ":".join(arn.split(":")[:6]))


def _naming_a_queue(request: Request, account: Account) -> Iterable[Question]:
    """The batch forms have no action of their own. [SAR]"""
    yield Question(request.action.removesuffix("Batch"), request.resource)


def _naming_a_log_stream(request: Request, account: Account) -> Iterable[Question]:
    """A group's ARN as CloudFormation gives it ends in `:*`, and stands for its streams."""
    group, stream = (request.parameters.get(name, "") for name in ("logGroupName", "logStreamName"))
    yield Question(request.action, request.arn("logs", f"log-group:{group}:log-stream:{stream}"))


def _naming_a_stack(request: Request, account: Account) -> Iterable[Question]:
    yield Question(request.action, account.stack(request.parameters.get("StackName", "")))


#: By action, or a pattern of it; the first that fits.
QUESTIONS: Mapping[str, Asker] = {
    "ec2:CreateTrafficMirrorSession": _creating,
    "ec2:ModifyTrafficMirrorSession": _changing,
    "ec2:DeleteTrafficMirrorSession": _changing,
    "ec2:CreateTags": _tagging,
    "ec2:DeleteTags": _tagging,
    "ec2:Describe*": _describing,
    "elasticloadbalancing:Describe*": _describing_balancers,
    "events:PutEvents": _putting_events,
    "ssm:GetParameter": _naming_parameters,
    "ssm:GetParameters": _naming_parameters,
    "ssm:GetParameterHistory": _naming_parameters,
    "ssm:PutParameter": _naming_parameters,
    "ssm:DeleteParameter": _naming_parameters,
    "sqs:*Batch": _naming_a_queue,
    "logs:CreateLogStream": _naming_a_log_stream,
    "logs:PutLogEvents": _naming_a_log_stream,
    "logs:DescribeLogStreams": _naming_a_log_stream,
    "cloudformation:SignalResource": _naming_a_stack,
}


def asker_of(action: str) -> Asker | None:
    """None where ministack asks as AWS does, or where nobody taught it."""
    return next((asker for pattern, asker in QUESTIONS.items() if fnmatchcase(action, pattern)), None)
