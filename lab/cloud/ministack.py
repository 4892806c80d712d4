"""Makes ministack as strict as AWS where this project needs it: Traffic Mirroring comes from our model, instances have
network interfaces and give them up, lists come in pages and know their filters. `lab.cloud.moto` does the same to moto.

ministack finds an action of EC2 in a table, so actions are added and replaced there. It is imported by
`lab.cloud.launcher` alone, in a process of its own: nothing is put back at the end. What ministack is not made for is
replaced by names that it keeps to itself, so its version is pinned.
"""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import count, groupby
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from ministack.core.responses import get_account_id  # type: ignore[import-not-found]
from ministack.services import alb, ec2, ssm  # type: ignore[import-not-found]

from lab.cloud import protocol
from lab.cloud.api import ACTIONS
from lab.cloud.faults import ApiError, Parameters
from lab.cloud.listing import MAX_RESULTS, Resource, matching, page
from lab.cloud.mirroring import NetworkInterface, TrafficMirroring

type Form = Mapping[str, list[str]]
type Response = tuple[int, dict[str, str], bytes]
type Handler = Callable[[Form], Response]  # as ministack's table has them
type Handle = Callable[[Parameters], Mapping[str, Any]]

#: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
STATUS = {"DryRunOperation": 412, "UnauthorizedOperation": 403}
#: Prefixes of mirroring ids, and the type that DescribeTags calls them.
KINDS = {
    "tmt": "traffic-mirror-target",
    "tmf": "traffic-mirror-filter",
    "tmfr": "traffic-mirror-filter-rule",
    "tms": "traffic-mirror-session",
}
INSTANCE_FILTERS = {
    "image-id": "ImageId",
    "instance-id": "InstanceId",
    "instance-state-name": "StateName",
    "instance-type": "InstanceType",
    "private-ip-address": "PrivateIpAddress",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}
INTERFACE_FILTERS = {
    "attachment.attachment-id": "AttachmentId",
    "attachment.device-index": "DeviceIndex",
    "attachment.instance-id": "InstanceId",
    "interface-type": "InterfaceType",
    "network-interface-id": "NetworkInterfaceId",
    "requester-managed": "Managed",
    "status": "Status",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}
TAG_FILTERS = {"key": "Key", "resource-id": "ResourceId", "resource-type": "ResourceType", "value": "Value"}
ENDPOINT_FILTERS = {
    "service-name": "ServiceName",
    "vpc-endpoint-id": "VpcEndpointId",
    "vpc-endpoint-state": "State",
    "vpc-endpoint-type": "VpcEndpointType",
    "vpc-id": "VpcId",
}
#: Public parameters that every account can read, beside those that ministack has.
IMAGES = {"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-arm64": "ami-0c2023a1b2c3d4e50"}

_births = count(1)


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


def strict(model: TrafficMirroring) -> None:
    """ministack, from now on, behaves like AWS as far as this module knows."""
    ec2.parse_qs = partial(parse_qs, keep_blank_values=True)  # DeleteTags tells no value from an empty one
    ssm._PUBLIC_AMI_PARAMETERS |= IMAGES
    handlers: dict[str, Handle] = {
        "CreateTags": partial(_create_tags, model),
        "DeleteTags": partial(_delete_tags, model),
        "DescribeTags": partial(_describe_tags, model),
        "DescribeInstances": _describe_instances,
        "DescribeNetworkInterfaces": _describe_interfaces,
        "DescribeVpcEndpoints": _describe_endpoints,
        "CreateNetworkInterface": _create_interface,
        "AttachNetworkInterface": _attach_interface,
        "DetachNetworkInterface": _detach_interface,
        "DeleteNetworkInterface": partial(_delete_interface, model),
    }
    handlers |= {action: partial(model.call, action) for action in ACTIONS}
    ec2._ACTION_MAP |= {action: _answering(action, handle) for action, handle in handlers.items()}
    ec2._ACTION_MAP["RunInstances"] = _running(ec2._run_instances)
    ec2._ACTION_MAP["TerminateInstances"] = _terminating(ec2._terminate_instances, model)
    alb._ACTION_MAP["CreateLoadBalancer"] = _balancing(alb._create_lb)
    alb._ACTION_MAP["DescribeListeners"] = _listeners(alb._describe_listeners)


def _answering(action: str, handle: Handle) -> Handler:
    def respond(form: Form) -> Response:
        try:
            answer = handle(_parameters(action, form))
        except ApiError as error:
            return _refusal(error)
        return 200, {"Content-Type": "application/xml"}, protocol.answer(action, answer)

    return respond


def _parameters(action: str, form: Form) -> dict[str, Any]:
    return protocol.request(action, {name: values[0] for name, values in form.items() if values})


def _refusal(error: ApiError) -> Response:
    body = protocol.refusal(error.code, error.message)
    return STATUS.get(error.code, 400), {"Content-Type": "application/xml"}, body


def _dry_run(parameters: Parameters) -> None:
    if parameters.get("DryRun"):
        raise ApiError("DryRunOperation", "Request would have succeeded, but DryRun flag is set.")


def _known(store: Mapping[str, Any], name: str, code: str) -> Any:
    if name not in store:
        raise ApiError(code, f"The ID '{name}' does not exist")
    return store[name]


# Tags


def _create_tags(model: TrafficMirroring, parameters: Parameters) -> Resource:
    tags = {tag["Key"]: tag.get("Value") or "" for tag in parameters.get("Tags") or []}
    if any(key.lower().startswith("aws:") for key in tags):
        raise ApiError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    _check_present(model, parameters["Resources"])
    _dry_run(parameters)
    for resource in parameters["Resources"]:
        if _is_ours(resource):
            model.put_tags(resource, tags)
        else:
            kept = [tag for tag in ec2._tags.get(resource, []) if tag["Key"] not in tags]
            ec2._tags[resource] = kept + _tag_list(tags)
    return {}


def _delete_tags(model: TrafficMirroring, parameters: Parameters) -> Resource:
    """A key without a value goes, one with a value only if the value is the same; without any key, all go.
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteTags.html"""
    tags = {tag["Key"]: tag.get("Value") for tag in parameters.get("Tags") or []}
    _check_present(model, parameters["Resources"])
    _dry_run(parameters)
    for resource in parameters["Resources"]:
        present = model.tags[resource] if _is_ours(resource) else _tag_map(resource)
        gone = tags or {key: None for key in present if not key.lower().startswith("aws:")}
        if _is_ours(resource):
            model.remove_tags(resource, gone)
            continue
        left = {key: value for key, value in present.items() if key not in gone or gone[key] not in (None, value)}
        ec2._tags[resource] = _tag_list(left)
    return {}


def _check_present(model: TrafficMirroring, resources: list[str]) -> None:
    """ministack itself takes any id."""
    for resource in resources:
        if resource.startswith("i-"):
            _known(ec2._instances, resource, "InvalidInstanceID.NotFound")
        elif resource.startswith("eni-"):
            _known(ec2._network_interfaces, resource, "InvalidNetworkInterfaceID.NotFound")
        elif _is_ours(resource):
            _known(model.tags, resource, "InvalidID")


def _is_ours(resource: str) -> bool:
    return resource.partition("-")[0] in KINDS


def _describe_tags(model: TrafficMirroring, parameters: Parameters) -> Resource:
    _dry_run(parameters)
    everything = {name: _tag_map(name) for name in ec2._tags} | model.tags
    found = [
        {"ResourceId": name, "ResourceType": _kind(name), "Key": key, "Value": value}
        for name, tags in sorted(everything.items())
        for key, value in sorted(tags.items())
    ]
    places = {(tag["ResourceId"], tag["Key"]): place for place, tag in enumerate(found)}
    shown = matching(found, parameters, TAG_FILTERS)
    tags, token = page(shown, parameters, "Tag", lambda tag: places[tag["ResourceId"], tag["Key"]])
    return {"Tags": tags, "NextToken": token}


def _kind(resource: str) -> str:
    return KINDS.get(resource.partition("-")[0]) or str(ec2._guess_resource_type(resource))


def _tag_map(resource: str) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in ec2._tags.get(resource, [])}


def _tag_list(tags: Mapping[str, str]) -> list[Resource]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _specified(parameters: Parameters, kind: str) -> list[Resource]:
    """The tags of a request's TagSpecifications for a kind of resource."""
    tags: dict[str, str] = {}
    for specification in parameters.get("TagSpecifications") or []:
        if specification.get("ResourceType") == kind:
            tags |= {tag["Key"]: tag.get("Value") or "" for tag in specification.get("Tags") or []}
    return _tag_list(tags)


# Instances


def _running(original: Handler) -> Handler:
    """RunInstances as ministack has it, once its instances have got interfaces."""

    def run_instances(form: Form) -> Response:
        parameters = _parameters("RunInstances", form)
        specifications = parameters.get("NetworkInterfaces") or [{"DeviceIndex": 0}]
        subnet = parameters.get("SubnetId") or specifications[0].get("SubnetId") or ec2._DEFAULT_SUBNET_ID
        try:
            _known(ec2._subnets, subnet, "InvalidSubnetID.NotFound")
            _dry_run(parameters)
        except ApiError as error:
            return _refusal(error)
        before = set(ec2._instances)
        most = str(parameters.get("MaxCount", 1))  # ministack launches as few as it may
        response = original({**form, "SubnetId": [subnet], "MinCount": [most]})
        if response[0] != 200:
            return response
        reservation = f"r-{uuid4().hex[:17]}"
        launched = [one for name, one in ec2._instances.items() if name not in before]
        for instance in launched:
            instance["_reservation"] = reservation
            for specification in specifications:
                _equip(instance, {"SubnetId": subnet} | specification, parameters)
        answer = _reservation([_instance_view(one) for one in launched], reservation)
        return response[0], response[1], protocol.answer("RunInstances", answer)

    return run_instances


def _equip(instance: Resource, specification: Resource, parameters: Parameters) -> None:
    """An interface that comes with a launch goes with the instance unless the caller says otherwise."""
    name = specification.get("NetworkInterfaceId")
    if name is None:
        wanted = {"SubnetId": specification["SubnetId"], "InterfaceType": specification.get("InterfaceType")}
        name = _new_interface(wanted | {"Groups": [group["GroupId"] for group in instance["SecurityGroups"]]})
        ec2._tags[name] = _specified(parameters, "network-interface")
    _attach(name, instance["InstanceId"], specification, specification.get("DeleteOnTermination", True))
    if specification.get("DeviceIndex", 0) == 0:
        ec2._network_interfaces[name]["PrivateIpAddress"] = instance["PrivateIpAddress"]


def _terminating(original: Handler, model: TrafficMirroring) -> Handler:
    def terminate_instances(form: Form) -> Response:
        response = original(form)
        if response[0] == 200:
            for instance in _parameters("TerminateInstances", form).get("InstanceIds") or []:
                for interface in _interfaces_of(instance):
                    _let_go(interface, model)
        return response

    return terminate_instances


def _let_go(interface: Resource, model: TrafficMirroring) -> None:
    """The sessions of a deleted interface go with it."""
    doomed = interface["Attachment"]["DeleteOnTermination"]
    interface["Attachment"], interface["Status"] = None, "available"
    if doomed:
        _forget_interface(interface["NetworkInterfaceId"], model)


def _describe_instances(parameters: Parameters) -> Resource:
    """In pages of instances; a reservation is whole as far as a page reaches."""
    _dry_run(parameters)
    ec2._cleanup_terminated()
    ids = parameters.get("InstanceIds") or []
    _check_listing(parameters, ids, "instancesSet")
    for name in ids:
        if not ec2._INSTANCE_ID_RE.match(name):
            raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{name}"')
        _known(ec2._instances, name, "InvalidInstanceID.NotFound")
    views = [_instance_view(one) for one in ec2._instances.values() if not ids or one["InstanceId"] in ids]
    found = _filtered(views, parameters, INSTANCE_FILTERS)
    shown, token = page(found, parameters, "Instance", lambda view: int(view["_born"]))
    groups = groupby(shown, key=lambda view: str(view["_reservation"]))
    return {"Reservations": [_reservation(list(group), name) for name, group in groups], "NextToken": token}


def _reservation(instances: list[Resource], name: str) -> Resource:
    return {"ReservationId": name, "OwnerId": get_account_id(), "Groups": [], "Instances": instances}


def _instance_view(instance: Resource) -> Resource:
    """ministack's record in the API's spelling; a terminated instance is in no subnet and has no interface."""
    name = instance["InstanceId"]
    instance.setdefault("_born", next(_births))
    instance.setdefault("_reservation", f"r-{name[2:]}")
    view = {
        **instance,
        "StateName": instance["State"]["Name"],
        "VirtualizationType": instance["Virtualization"],
        "Tags": ec2._tags.get(name, []),
        "NetworkInterfaces": [_attached_view(one) for one in _interfaces_of(name)],
    }
    if instance["State"]["Name"] == "terminated":
        for gone in ("SubnetId", "VpcId", "PrivateIpAddress", "PublicIpAddress"):
            view.pop(gone, None)
        view["NetworkInterfaces"] = []
    return view


# Interfaces


def _interfaces_of(instance: str) -> list[Resource]:
    """In the order of their place."""
    attached = [
        one for one in ec2._network_interfaces.values() if (one.get("Attachment") or {}).get("InstanceId") == instance
    ]
    return sorted(attached, key=lambda one: (one["Attachment"]["NetworkCardIndex"], one["Attachment"]["DeviceIndex"]))


def _describe_interfaces(parameters: Parameters) -> Resource:
    _dry_run(parameters)
    ids = parameters.get("NetworkInterfaceIds") or []
    _check_listing(parameters, ids, "networkInterfaceIds")
    for name in ids:
        _known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")
    interfaces = [one for name, one in ec2._network_interfaces.items() if not ids or name in ids]
    found = _filtered([_interface_view(one) for one in interfaces], parameters, INTERFACE_FILTERS)
    shown, token = page(found, parameters, "NetworkInterface", lambda view: int(view["_born"]))
    return {"NetworkInterfaces": shown, "NextToken": token}


def _interface_view(interface: Resource) -> Resource:
    """With what filters ask for beside the API's own attributes."""
    attachment = interface.get("Attachment") or {}
    interface.setdefault("_born", next(_births))
    tags = ec2._tags.get(interface["NetworkInterfaceId"], [])
    return {
        **interface,
        **attachment,
        "Status": interface["Status"],
        "Attachment": attachment | {"InstanceOwnerId": interface["OwnerId"]} if attachment else None,
        "Managed": "false",
        "RequesterManaged": False,
        "Tags": tags,
        "TagSet": tags,
        "PrivateIpAddresses": [{"PrivateIpAddress": interface["PrivateIpAddress"], "Primary": True}],
    }


def _attached_view(interface: Resource) -> Resource:
    """As an instance's description has it."""
    return {**_interface_view(interface), "Attachment": interface["Attachment"]}


def _create_interface(parameters: Parameters) -> Resource:
    _known(ec2._subnets, parameters.get("SubnetId", ""), "InvalidSubnetID.NotFound")
    _dry_run(parameters)
    name = _new_interface(parameters)
    ec2._tags[name] = _specified(parameters, "network-interface")
    return {"NetworkInterface": _interface_view(ec2._network_interfaces[name])}


def _new_interface(parameters: Parameters) -> str:
    """By ministack's own hand, which forgets the type."""
    before = set(ec2._network_interfaces)
    groups = {f"SecurityGroupId.{place}": [name] for place, name in enumerate(parameters.get("Groups") or [], 1)}
    form = {"SubnetId": [parameters["SubnetId"]], "Description": [parameters.get("Description") or ""], **groups}
    ec2._create_network_interface(form)
    [name] = set(ec2._network_interfaces) - before
    record = ec2._network_interfaces[name]
    record["InterfaceType"] = parameters.get("InterfaceType") or "interface"
    record["_born"] = next(_births)
    return str(name)


def _attach_interface(parameters: Parameters) -> Resource:
    name, instance = parameters["NetworkInterfaceId"], parameters["InstanceId"]
    interface = _known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")
    _known(ec2._instances, instance, "InvalidInstanceID.NotFound")
    _dry_run(parameters)
    if interface["Attachment"]:
        raise ApiError("InvalidNetworkInterface.InUse", f"Network interface '{name}' is in use.")
    place = (parameters.get("NetworkCardIndex", 0), parameters["DeviceIndex"])
    taken = [
        (one["Attachment"]["NetworkCardIndex"], one["Attachment"]["DeviceIndex"]) for one in _interfaces_of(instance)
    ]
    if place in taken:
        raise ApiError("InvalidParameterValue", f"Instance {instance} has an interface at device index {place[1]}.")
    attachment = _attach(name, instance, parameters, goes=False)
    return {"AttachmentId": attachment, "NetworkCardIndex": place[0]}


def _attach(name: str, instance: str, place: Parameters, goes: bool) -> str:
    identity = f"eni-attach-0{uuid4().hex[:16]}"
    interface = ec2._network_interfaces[name]
    interface["Status"] = "in-use"
    interface["Attachment"] = {
        "AttachmentId": identity,
        "InstanceId": instance,
        "DeviceIndex": place.get("DeviceIndex", 0),
        "NetworkCardIndex": place.get("NetworkCardIndex", 0),
        "Status": "attached",
        "AttachTime": ec2._now_ts(),
        "DeleteOnTermination": goes,
    }
    return identity


def _detach_interface(parameters: Parameters) -> Resource:
    attachments = {
        one["Attachment"]["AttachmentId"]: one for one in ec2._network_interfaces.values() if one["Attachment"]
    }
    interface = _known(attachments, parameters["AttachmentId"], "InvalidAttachmentID.NotFound")
    _dry_run(parameters)
    if interface["Attachment"]["DeviceIndex"] == 0:
        raise ApiError("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    interface["Attachment"], interface["Status"] = None, "available"
    return {}


def _delete_interface(model: TrafficMirroring, parameters: Parameters) -> Resource:
    """Only a free interface can be deleted."""
    name = parameters["NetworkInterfaceId"]
    interface = _known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")
    _dry_run(parameters)
    if interface["Attachment"]:
        raise ApiError("InvalidNetworkInterface.InUse", f"Network interface '{name}' is in use.")
    _forget_interface(name, model)
    return {}


def _forget_interface(name: str, model: TrafficMirroring) -> None:
    del ec2._network_interfaces[name]
    ec2._tags.pop(name, None)
    model.interface_deleted(name)


# Endpoints and load balancers


def _describe_endpoints(parameters: Parameters) -> Resource:
    _dry_run(parameters)
    ids = parameters.get("VpcEndpointIds") or []
    for name in ids:
        _known(ec2._vpc_endpoints, name, "InvalidVpcEndpointId.NotFound")
    views = [
        {**one, "Tags": ec2._tags.get(name, []), "_born": place}
        for place, (name, one) in enumerate(ec2._vpc_endpoints.items())
        if not ids or name in ids
    ]
    found = _filtered(views, parameters, ENDPOINT_FILTERS)
    shown, token = page(found, parameters, "VpcEndpoint", lambda view: int(view["_born"]))
    return {"VpcEndpoints": shown, "NextToken": token}


def _balancing(original: Handler) -> Handler:
    def create_load_balancer(form: Form) -> Response:
        before = set(alb._lbs)
        response = original(form)
        for arn in set(alb._lbs) - before:
            shown: str = alb._lb_xml(alb._lbs[network_balancer(arn)])
            response = alb._xml(200, "CreateLoadBalancer", f"<LoadBalancers>{shown}</LoadBalancers>")
        return response

    return create_load_balancer


def network_balancer(arn: str) -> str:
    """ministack gives every load balancer the ARN of an application load balancer: the one that it should have."""
    balancer = alb._lbs[arn]
    subnets = [ec2._subnets[name]["VpcId"] for name in balancer["Subnets"] if name in ec2._subnets]
    balancer["VpcId"] = subnets[0] if subnets else balancer["VpcId"]
    if balancer["Type"] != "network":
        return arn
    balancer["LoadBalancerArn"] = right = arn.replace("loadbalancer/app/", "loadbalancer/net/")
    for store in (alb._lbs, alb._tags, alb._lb_attrs):
        if arn in store:
            store[right] = store.pop(arn)
    return right


def _listeners(original: Handler) -> Handler:
    """ministack finds no listeners where there is no load balancer; AWS refuses."""

    def describe_listeners(form: Form) -> Response:
        arn = (form.get("LoadBalancerArn") or [""])[0]
        if arn and arn not in alb._lbs:
            response: Response = alb._error("LoadBalancerNotFound", f"Load balancer '{arn}' not found", 400)
            return response
        return original(form)

    return describe_listeners


# Lists


def _check_listing(parameters: Parameters, ids: list[str], name: str) -> None:
    size = parameters.get("MaxResults")
    if ids and size is not None:
        text = f"The parameter {name} cannot be used with the parameter maxResults"
        raise ApiError("InvalidParameterCombination", text)
    if size is not None and size not in MAX_RESULTS:
        raise ApiError("InvalidParameterValue", f"Value ({size}) for parameter maxResults is invalid.")


def _filtered(views: list[Resource], parameters: Parameters, names: Mapping[str, str]) -> list[Resource]:
    """Those that the filters let pass, `tag:…` and `tag-key` among them."""
    wanted = [item["Name"] for item in parameters.get("Filters") or []]
    for key in {name.removeprefix("tag:") for name in wanted if name.startswith("tag:")}:
        names = {**names, f"tag:{key}": f"tag:{key}"}
    for view in views:
        view |= {f"tag:{tag['Key']}": tag["Value"] for tag in view["Tags"]}
    return matching(views, parameters, names)
