"""Makes ministack as strict as AWS where this project needs it: Traffic Mirroring comes from our model, instances have
network interfaces and give them up, lists come in pages and know their filters. `lab.cloud.moto` does the same to moto.

ministack finds an action of EC2 in a table, so actions are added and replaced there. It is imported by
`lab.cloud.launcher` alone, in a process of its own: nothing is put back at the end.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ministack.services import alb, ec2, ssm  # type: ignore[import-not-found]

from lab.cloud import hooks
from lab.cloud.api import ACTIONS
from lab.cloud.listing import Resource
from lab.cloud.ministack import balancers, endpoints, instances, interfaces, machines, news, tags
from lab.cloud.ministack.requests import Handle, Handler, answering
from lab.cloud.mirroring import NetworkInterface, TrafficMirroring

#: Public parameters that every account can read, beside those that ministack has.
IMAGES = {"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64": "ami-0c2023a1b2c3d4e50"}
_PARSE_QS = "qs keep_blank_values strict_parsing encoding errors max_num_fields separator"


class Surroundings:
    """The rest of ministack's account, as the model asks for it."""

    def interface(self, name: str) -> NetworkInterface | None:
        interface = ec2._network_interfaces.get(name)
        if interface is None:
            return None
        attachment = interface.get("Attachment") or {}
        instance = ec2._instances.get(attachment.get("InstanceId"), {})
        return NetworkInterface(name, instance.get("InstanceType", ""), interface["InterfaceType"])

    def load_balancer(self, arn: str) -> bool:
        return bool(alb._lbs.get(arn, {}).get("Type") == "network")

    def endpoint(self, name: str) -> bool:
        return bool(ec2._vpc_endpoints.get(name, {}).get("VpcEndpointType") == "GatewayLoadBalancer")


#: The mirroring of the process's one account, for whoever judges by its tags.
MODEL = TrafficMirroring(Surroundings())


def strict(model: TrafficMirroring, live: bool = False) -> None:
    """ministack, from now on, behaves like AWS as far as this package knows. `live`: instances take their time, as long
    as somebody's machines do, and the bus learns of changes."""
    hooks.function(ec2, "parse_qs", _PARSE_QS, _keeping_blanks)
    hooks.add(hooks.table(ssm, "_PUBLIC_AMI_PARAMETERS"), IMAGES)
    actions = hooks.table(ec2, "_ACTION_MAP")
    hooks.add(actions, {action: answering(action, partial(model.call, action)) for action in ACTIONS})
    for action, handle in _handles(model).items():
        hooks.entry(actions, action, "p", partial(_instead, answering(action, handle)))
    hooks.entry(actions, "RunInstances", "p", partial(instances.running, machines.begin if live else _at_once))
    hooks.entry(actions, "TerminateInstances", "p", partial(instances.terminating, model))
    hooks.entry(actions, "DescribeInstanceAttribute", "p", instances.user_data)
    if live:
        machines.live(actions)
        news.live(actions)
    balancing = hooks.table(alb, "_ACTION_MAP")
    hooks.entry(balancing, "CreateLoadBalancer", "params", balancers.balancing)
    hooks.entry(balancing, "DescribeListeners", "params", balancers.listeners)


def _handles(model: TrafficMirroring) -> Mapping[str, Handle]:
    """What replaces an action of ministack's altogether."""
    return {
        "CreateTags": partial(tags.create_tags, model),
        "DeleteTags": partial(tags.delete_tags, model),
        "DescribeTags": partial(tags.describe_tags, model),
        "DescribeInstances": instances.describe_instances,
        "DescribeNetworkInterfaces": interfaces.describe_interfaces,
        "DescribeVpcEndpoints": endpoints.describe_endpoints,
        "CreateNetworkInterface": interfaces.create_interface,
        "AttachNetworkInterface": interfaces.attach_interface,
        "DetachNetworkInterface": interfaces.detach_interface,
        "DeleteNetworkInterface": partial(interfaces.delete_interface, model),
    }


def _at_once(_: Resource) -> None:
    """A launched instance runs."""


def _keeping_blanks(parse: Callable[..., Any]) -> Callable[..., Any]:
    """DeleteTags tells no value from an empty one."""
    return partial(parse, keep_blank_values=True)


def _instead(handler: Handler, _: Handler) -> Handler:
    return handler
