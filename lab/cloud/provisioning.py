"""What CloudFormation in ministack lacks: types of Traffic Mirroring, lone rules of security groups, alarms on metric
math; every resource's properties checked against its schema; and a no where AWS says no.

A type is made by the same calls that anybody could send, so no rule is written here twice. ministack provisions a type
by the functions of a table; it passes properties with all references resolved.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any
from uuid import uuid4

from ministack.services import cloudformation, ec2, lambda_svc, sqs  # type: ignore[import-not-found]
from ministack.services.cloudformation import provisioners, stacks  # type: ignore[import-not-found]

from lab.cloud import hooks, schemas
from lab.cloud.faults import ApiError
from lab.cloud.ministack.balancers import network_balancer
from lab.cloud.mirroring import TrafficMirroring

type Properties = Mapping[str, Any]
type Made = tuple[str, dict[str, Any]]

MIRRORING = ("Target", "Filter", "FilterRule", "Session")
DIRECTIONS = ("Ingress", "Egress")
_SYSTEM = "aws:"  # a tag that CloudFormation sets by itself
_PATIENCE = 55.0  # shorter than clients wait
_LOOK = 0.02
_EVENT_SOURCE = "AWS::Lambda::EventSourceMapping"
_BALANCER = "AWS::ElasticLoadBalancingV2::LoadBalancer"


def extend(model: TrafficMirroring) -> None:
    """ministack, from now on, provisions these types and checks all."""
    mirroring = {f"AWS::EC2::TrafficMirror{kind}": _Mirroring(model, kind).handlers() for kind in MIRRORING}
    rules = {f"AWS::EC2::SecurityGroup{direction}": _GroupRule(direction).handlers() for direction in DIRECTIONS}
    makers = hooks.table(provisioners, "_RESOURCE_HANDLERS")
    hooks.add(makers, mirroring | rules)
    hooks.add(hooks.table(provisioners, "_STACK_TAG_PROPERTY"), dict.fromkeys(mirroring, ("Tags", "list")))
    renewing = {kind: schemas.replacing(kind) for kind in mirroring | rules}
    hooks.add(hooks.table(provisioners, "_REPLACING_PROPERTIES"), renewing)
    hooks.entry(makers[_BALANCER], "create", "logical_id props stack_name", _balancing)
    hooks.function(provisioners, "_cw_metric_alarm_record", "name props", _alarming)
    hooks.function(cloudformation, "handle_request", "method path headers body query_params", _patient)
    hooks.function(stacks, "_provision_keeping_seed", "args", partial(_checking, place=2))
    hooks.function(stacks, "_update_keeping_seed", "args", partial(_checking, place=3))


def _patient(original: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """The answer to DeleteStack waits for the deletion: SAM CLI looks at once, and then not for half a minute."""

    async def handle_request(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        response = await original(method, path, headers, body, query)
        if b"Action=DeleteStack" in body:
            await _deleted()
        return response

    return handle_request


async def _deleted() -> None:
    """The deletion is a task that has not begun when its request is answered, and nothing tells when it ends."""
    deadline, deleting = time.monotonic() + _PATIENCE, True
    while deleting and time.monotonic() < deadline:
        await asyncio.sleep(_LOOK)
        deleting = any(stack["StackStatus"] == "DELETE_IN_PROGRESS" for stack in cloudformation._stacks.values())


def _checking(original: Callable[..., Any], place: int) -> Callable[..., Any]:
    """`place` is that of the properties among the arguments; the type comes first."""

    def provision(*arguments: Any) -> Any:
        kind, properties = arguments[0], arguments[place]
        found = schemas.faults(kind, _without_system_tags(properties))
        if found:
            text = "; ".join(found)
            raise ValueError(f"Properties validation failed for resource {arguments[1]} with message: {text}")
        if kind == _EVENT_SOURCE:
            check_event_source(properties)
        return original(*arguments)

    return provision


def _without_system_tags(properties: Properties) -> Properties:
    """As the template has them: ministack puts a stack's tags in, and an empty list where there are none."""
    tags = properties.get("Tags")
    if not isinstance(tags, list | dict):
        return properties
    own: Any = (
        [tag for tag in tags if not str(tag.get("Key", "")).startswith(_SYSTEM)]
        if isinstance(tags, list)
        else {key: value for key, value in tags.items() if not key.startswith(_SYSTEM)}
    )
    rest = {name: value for name, value in properties.items() if name != "Tags"}
    return {**rest, "Tags": own} if own else rest


def check_event_source(properties: Properties) -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html: Lambda refuses the mapping."""
    arn = str(properties.get("EventSourceArn", ""))
    queue = sqs._queue_by_arn(arn) if ":sqs:" in arn else None
    if queue is None:
        return
    name = str(properties.get("FunctionName", "")).split(":function:")[-1].split(":")[0]
    function = lambda_svc._functions.get(name)
    if function is None:
        return
    visibility, timeout = int(queue["attributes"]["VisibilityTimeout"]), int(function["config"]["Timeout"])
    if visibility < timeout:
        raise ValueError(
            f"Queue visibility timeout: {visibility} seconds is less than Function timeout: {timeout} seconds "
            "(Service: Lambda, Status Code: 400, Error Code: InvalidParameterValueException)"
        )


def _balancing(original: Callable[..., Made]) -> Callable[..., Made]:
    def create(*arguments: Any) -> Made:
        arn, attributes = original(*arguments)
        right = network_balancer(arn)
        name = right.split(":loadbalancer/")[1]
        return right, {**attributes, "Arn": right, "LoadBalancerArn": right, "LoadBalancerFullName": name}

    return create


def _alarming(original: Callable[[str, Properties], dict[str, Any]]) -> Callable[[str, Properties], dict[str, Any]]:
    """An alarm on metric math or a Metrics Insights query is kept, shown and never evaluated; ministack refuses it."""

    def record(name: str, properties: Properties) -> dict[str, Any]:
        metrics = properties.get("Metrics")
        if not metrics:
            return original(name, properties)
        check_alarm(properties)
        own = {"MetricName": None, "Namespace": None, "Statistic": None, "Period": None, "Metrics": metrics}
        stand_in = {**properties, "Metrics": None, "MetricName": "none", "Namespace": "none"}
        return {**original(name, stand_in), **own}

    return record


def check_alarm(properties: Properties) -> None:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html, `Metrics`."""
    both = [name for name in ("MetricName", "Namespace", "Statistic", "Period") if name in properties]
    if both:
        raise ValueError(f"Metrics list cannot be combined with {', '.join(both)}")
    returned = [one["Id"] for one in properties["Metrics"] if str(one.get("ReturnData", True)).lower() == "true"]
    if len(returned) != 1:
        raise ValueError(f"Exactly one element of the metrics list should return data, not {returned or 'none'}")


# Traffic Mirroring


class _Mirroring:
    """One of its types: the model's calls as ministack's functions."""

    def __init__(self, model: TrafficMirroring, kind: str) -> None:
        self.model = model
        self.noun = f"TrafficMirror{kind}"
        self.tag_kind = _dashed(self.noun)
        self.attribute = "TrafficMirrorFilterRuleId" if kind == "FilterRule" else "Id"  # the schema's primaryIdentifier

    def handlers(self) -> dict[str, Any]:
        return {"create": self.create, "update": self.update, "delete": self.delete}

    def create(self, logical_id: str, properties: Properties, stack: str) -> Made:
        own, system = _tags(properties)
        wanted = _parameters(properties)
        services = wanted.pop("NetworkServices", [])
        specification = [{"ResourceType": self.tag_kind, "Tags": _tag_list(own)}] if own else []
        made = self._call(f"Create{self.noun}", {**wanted, "TagSpecifications": specification})
        name = str(made[self.noun][f"{self.noun}Id"])
        self.model.tags[name] |= system
        if services:
            self._services(name, services, [])
        return name, {self.attribute: name}

    def update(self, name: str, old: Properties, new: Properties, stack: str) -> Made:
        before, after = _parameters(old), _parameters(new)
        if self.noun == "TrafficMirrorFilter":
            was, will = before.get("NetworkServices", []), after.get("NetworkServices", [])
            self._services(name, [one for one in will if one not in was], [one for one in was if one not in will])
        elif before != after:
            if before.get("NetworkInterfaceId") != after.get("NetworkInterfaceId"):
                raise ValueError(f"{name}: a session's interface cannot be changed (ModifyTrafficMirrorSession)")
            changes = {key: value for key, value in after.items() if before.get(key) != value}
            gone = [_dashed(key) for key in before if key not in after]
            more = {"RemoveFields": gone} if gone else {}
            self._call(f"Modify{self.noun}", {f"{self.noun}Id": name, **changes, **more})
        self._retag(name, old, new)
        return name, {self.attribute: name}

    def _services(self, name: str, add: list[str], remove: list[str]) -> None:
        changes = {"AddNetworkServices": add, "RemoveNetworkServices": remove}
        if add or remove:
            self._call("ModifyTrafficMirrorFilterNetworkServices", {"TrafficMirrorFilterId": name, **changes})

    def _retag(self, name: str, old: Properties, new: Properties) -> None:
        (before, _), (after, system) = _tags(old), _tags(new)
        self.model.remove_tags(name, {key: None for key in before if key not in after})
        self.model.put_tags(name, after)
        self.model.tags[name] |= system

    def delete(self, name: str, properties: Properties) -> None:
        """What is gone already is as good as deleted."""
        if self.model.knows(name):
            self._call(f"Delete{self.noun}", {f"{self.noun}Id": name})

    def _call(self, action: str, parameters: dict[str, Any]) -> Any:
        try:
            return self.model.call(action, parameters)
        except ApiError as error:
            detail = f"(Service: Ec2, Status Code: 400, Error Code: {error.code})"
            raise ValueError(f"{error.message} {detail}") from error


def _parameters(properties: Properties) -> dict[str, Any]:
    """Of the calls: numbers may have come as strings, and the owner is whoever calls."""
    return {key: _plain(key, value) for key, value in properties.items() if key not in ("Tags", "OwnerId")}


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {inner: _plain(inner, one) for inner, one in value.items()}
    if key in {"RuleNumber", "Protocol", "FromPort", "ToPort", "SessionNumber", "VirtualNetworkId", "PacketLength"}:
        return int(value)
    return value


def _dashed(name: str) -> str:
    """As RemoveFields spells attributes, and tag specifications types: PacketLength → packet-length."""
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")


def _tags(properties: Properties) -> tuple[dict[str, str], dict[str, str]]:
    """The template's, and CloudFormation's own, which nobody else may set."""
    tags = {tag["Key"]: str(tag["Value"]) for tag in properties.get("Tags") or []}
    own = {key: value for key, value in tags.items() if not key.startswith(_SYSTEM)}
    return own, {key: value for key, value in tags.items() if key not in own}


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


# Rules of security groups


class _GroupRule:
    """AWS::EC2::SecurityGroupIngress and …Egress."""

    def __init__(self, direction: str) -> None:
        self.direction = direction

    def handlers(self) -> dict[str, Any]:
        return {"create": self.create, "update": self.update, "delete": self.delete}

    def create(self, logical_id: str, properties: Properties, stack: str) -> Made:
        self._call("Authorize", properties)
        name = f"sgr-0{uuid4().hex[:16]}"
        return name, {"Id": name}

    def update(self, name: str, old: Properties, new: Properties, stack: str) -> Made:
        """Only a description can change in place."""
        self._call("Revoke", old)
        self._call("Authorize", new)
        return name, {"Id": name}

    def delete(self, name: str, properties: Properties) -> None:
        if properties["GroupId"] in ec2._security_groups:
            self._call("Revoke", properties)

    def _call(self, deed: str, properties: Properties) -> None:
        form = {"GroupId": [str(properties["GroupId"])], **dict(_permission(properties))}
        status, _, body = ec2._ACTION_MAP[f"{deed}SecurityGroup{self.direction}"](form)
        if status != 200:
            raise ValueError(f"{deed}SecurityGroup{self.direction}: {body.decode()}")


def _permission(properties: Properties) -> Iterator[tuple[str, list[str]]]:
    """A rule in EC2's form."""
    spelled = {
        "IpProtocol": "IpProtocol",
        "FromPort": "FromPort",
        "ToPort": "ToPort",
        "CidrIp": "IpRanges.1.CidrIp",
        "CidrIpv6": "Ipv6Ranges.1.CidrIpv6",
        "SourcePrefixListId": "PrefixListIds.1.PrefixListId",
        "DestinationPrefixListId": "PrefixListIds.1.PrefixListId",
        "SourceSecurityGroupId": "Groups.1.GroupId",
        "DestinationSecurityGroupId": "Groups.1.GroupId",
    }
    for name, place in spelled.items():
        if name in properties:
            yield f"IpPermissions.1.{place}", [str(properties[name])]
