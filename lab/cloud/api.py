"""Traffic Mirroring's API as far as a request can be judged alone: parameters, ranges, filters, what may be removed.

The marks in brackets are explained in `mirroring`.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

from lab.cloud.faults import ApiError, Parameters
from lab.cloud.listing import Resource

SESSION_NUMBERS = range(1, 32767)  # [API]
RULE_NUMBERS = range(1, 32767)  # [assumed] as session numbers
PORTS = range(65536)
PROTOCOLS = range(256)
PORT_PROTOCOLS = (6, 17)  # [assumed] ports make sense for TCP and UDP only
VNIS = range(1 << 24)  # 24 bits on the wire; whether AWS takes 0 is [assumed]
NLB_PACKET_LENGTHS = range(1, 8501)  # [API]
PACKET_LENGTHS = range(1, 65536)  # [assumed] for other targets
TOKEN_LENGTH = 64  # [tokens]


@dataclass(frozen=True)
class Signature:
    """Parameters of an action, without DryRun, which all take."""

    required: frozenset[str]
    optional: frozenset[str]


_LISTING = ("Filters", "MaxResults", "NextToken")
RESOURCES = ("NetworkInterfaceId", "NetworkLoadBalancerArn", "GatewayLoadBalancerEndpointId")
RULE = ("TrafficDirection", "RuleNumber", "RuleAction", "DestinationCidrBlock", "SourceCidrBlock")
RULE_OPTIONS = ("DestinationPortRange", "SourcePortRange", "Protocol", "Description")
SESSION = ("TrafficMirrorTargetId", "TrafficMirrorFilterId", "SessionNumber")
SESSION_OPTIONS = ("PacketLength", "VirtualNetworkId", "Description")
_TARGET, _FILTER, _RULE, _SESSION = (f"TrafficMirror{kind}Id" for kind in ("Target", "Filter", "FilterRule", "Session"))


def _creating(*optional: str, required: Iterable[str] = ()) -> Signature:
    return Signature(frozenset(required), frozenset((*optional, "TagSpecifications", "ClientToken")))


def _describing(*optional: str) -> Signature:
    return Signature(frozenset(), frozenset((*optional, *_LISTING)))


def _changing(required: str, *optional: str) -> Signature:
    return Signature(frozenset((required,)), frozenset(optional))


#: [API] of each action. There is no ModifyTrafficMirrorTarget.
ACTIONS: dict[str, Signature] = {
    "CreateTrafficMirrorTarget": _creating(*RESOURCES, "Description"),
    "DescribeTrafficMirrorTargets": _describing("TrafficMirrorTargetIds"),
    "DeleteTrafficMirrorTarget": _changing(_TARGET),
    "CreateTrafficMirrorFilter": _creating("Description"),
    "DescribeTrafficMirrorFilters": _describing("TrafficMirrorFilterIds"),
    "DeleteTrafficMirrorFilter": _changing(_FILTER),
    "ModifyTrafficMirrorFilterNetworkServices": _changing(_FILTER, "AddNetworkServices", "RemoveNetworkServices"),
    "CreateTrafficMirrorFilterRule": _creating(*RULE_OPTIONS, required=(_FILTER, *RULE)),
    "ModifyTrafficMirrorFilterRule": _changing(_RULE, *RULE, *RULE_OPTIONS, "RemoveFields"),
    "DescribeTrafficMirrorFilterRules": _describing("TrafficMirrorFilterRuleIds", _FILTER),
    "DeleteTrafficMirrorFilterRule": _changing(_RULE),
    "CreateTrafficMirrorSession": _creating(*SESSION_OPTIONS, required=("NetworkInterfaceId", *SESSION)),
    "ModifyTrafficMirrorSession": _changing(_SESSION, *SESSION, *SESSION_OPTIONS, "RemoveFields"),
    "DescribeTrafficMirrorSessions": _describing("TrafficMirrorSessionIds"),
    "DeleteTrafficMirrorSession": _changing(_SESSION),
}

#: [API] documented filters of the describe actions. `tag:` is not among them.
TARGET_FILTERS = {
    "description": "Description",
    "network-interface-id": "NetworkInterfaceId",
    "network-load-balancer-arn": "NetworkLoadBalancerArn",
    "owner-id": "OwnerId",
    "traffic-mirror-target-id": "TrafficMirrorTargetId",
}
FILTER_FILTERS = {"description": "Description", "traffic-mirror-filter-id": "TrafficMirrorFilterId"}
RULE_FILTERS = {
    "traffic-mirror-filter-rule-id": "TrafficMirrorFilterRuleId",
    "traffic-mirror-filter-id": "TrafficMirrorFilterId",
    "rule-number": "RuleNumber",
    "rule-action": "RuleAction",
    "traffic-direction": "TrafficDirection",
    "protocol": "Protocol",
    "source-cidr-block": "SourceCidrBlock",
    "destination-cidr-block": "DestinationCidrBlock",
    "description": "Description",
}
SESSION_FILTERS = {
    "description": "Description",
    "network-interface-id": "NetworkInterfaceId",
    "owner-id": "OwnerId",
    "packet-length": "PacketLength",
    "session-number": "SessionNumber",
    "traffic-mirror-filter-id": "TrafficMirrorFilterId",
    "traffic-mirror-session-id": "TrafficMirrorSessionId",
    "traffic-mirror-target-id": "TrafficMirrorTargetId",
    "virtual-network-id": "VirtualNetworkId",
}

#: [API] what RemoveFields may name, and the attribute behind it.
SESSION_FIELDS = {
    "packet-length": "PacketLength",
    "description": "Description",
    "virtual-network-id": "VirtualNetworkId",
}
RULE_FIELDS = {
    "destination-port-range": "DestinationPortRange",
    "source-port-range": "SourcePortRange",
    "protocol": "Protocol",
    "description": "Description",
}


def check_parameters(action: str, parameters: Parameters) -> None:
    if action not in ACTIONS:
        raise ApiError("InvalidAction", f"The action {action} is not valid for this web service.")  # [errors]
    signature = ACTIONS[action]
    known = signature.required | signature.optional | {"DryRun"}
    for name in parameters:
        require(name in known, "UnknownParameter", f"The parameter {name} is not recognized")  # [errors]
    for name in sorted(signature.required):
        present = parameters.get(name) is not None
        require(present, "MissingParameter", f"The request must contain the parameter {name}")  # [errors]


def dry_run(parameters: Parameters) -> None:
    if parameters.get("DryRun"):
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")  # [API]


def check_rule(rule: Resource) -> None:
    direction, action, number = rule["TrafficDirection"], rule["RuleAction"], rule["RuleNumber"]
    require_value(direction in ("ingress", "egress"), "TrafficDirection", direction)  # [API]
    require_value(action in ("accept", "reject"), "RuleAction", action)  # [API]
    require_value(number in RULE_NUMBERS, "RuleNumber", number)
    source, destination = rule["SourceCidrBlock"], rule["DestinationCidrBlock"]
    require_value(_version(source) == _version(destination), "DestinationCidrBlock", destination)  # [filters]
    protocol = rule.get("Protocol")
    require_value(protocol is None or protocol in PROTOCOLS, "Protocol", protocol)
    for name in ("SourcePortRange", "DestinationPortRange"):
        ports = rule.get(name)
        if ports is not None:
            require_value(protocol in PORT_PROTOCOLS, name, ports)
            first, last = ports.get("FromPort"), ports.get("ToPort")
            require_value(first in PORTS and last in PORTS and first <= last, name, ports)


def _version(cidr: str) -> int:
    """Of IP."""
    try:
        return ipaddress.ip_network(cidr, strict=False).version
    except ValueError:
        raise ApiError("InvalidParameterValue", f"Value ({cidr}) is not a CIDR block.") from None


def given(parameters: Parameters, *names: str) -> Resource:
    return {name: deepcopy(parameters[name]) for name in names if parameters.get(name) is not None}


def remove_fields(resource: Resource, parameters: Parameters, fields: Mapping[str, str]) -> None:
    for name in parameters.get("RemoveFields") or []:
        require_value(name in fields, "RemoveFields", name)  # [API]
        attribute = fields[name]
        both = parameters.get(attribute) is not None
        require(not both, "InvalidParameterCombination", f"{attribute} is set and removed at once.")  # [assumed]
        resource.pop(attribute, None)


def require(condition: bool, code: str, text: str) -> None:
    if not condition:
        raise ApiError(code, text)


def require_room(condition: bool, code: str) -> None:
    require(condition, code, "The maximum number has been reached.")


def require_value(condition: bool, name: str, value: object) -> None:
    require(condition, "InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.")
