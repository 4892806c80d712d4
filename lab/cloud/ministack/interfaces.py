"""Network interfaces in ministack: each in its place at an instance, or free; a session goes with its interface.

ministack gives addresses of no subnet, twice if it so happens, and MAC addresses that no interface can bear.
"""

from collections.abc import Mapping
from itertools import count
from uuid import uuid4

from ministack.services import ec2  # type: ignore[import-not-found]

from lab.cloud import addresses
from lab.cloud.faults import ApiError, Parameters
from lab.cloud.listing import Resource, page
from lab.cloud.ministack.requests import births, check_listing, dry_run, filtered, known
from lab.cloud.ministack.tags import specified
from lab.cloud.mirroring import TrafficMirroring

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

#: Addresses that were given last, by subnet.
_given: dict[str, str] = {}
_hardware = count(1)


def interfaces_of(instance: str) -> list[Resource]:
    """In the order of their place."""
    attached = [
        one for one in ec2._network_interfaces.values() if (one.get("Attachment") or {}).get("InstanceId") == instance
    ]
    return sorted(attached, key=lambda one: (one["Attachment"]["NetworkCardIndex"], one["Attachment"]["DeviceIndex"]))


def describe_interfaces(parameters: Parameters) -> Resource:
    dry_run(parameters)
    ids = parameters.get("NetworkInterfaceIds") or []
    check_listing(parameters, ids, "networkInterfaceIds")
    for name in ids:
        known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")
    interfaces = [one for name, one in ec2._network_interfaces.items() if not ids or name in ids]
    found = filtered([_interface_view(one) for one in interfaces], parameters, INTERFACE_FILTERS)
    shown, token = page(found, parameters, "NetworkInterface", lambda view: int(view["_born"]))
    return {"NetworkInterfaces": shown, "NextToken": token}


def _interface_view(interface: Resource) -> Resource:
    """With what filters ask for beside the API's own attributes."""
    attachment = interface.get("Attachment") or {}
    interface.setdefault("_born", next(births))
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


def attached_view(interface: Resource) -> Resource:
    """As an instance's description has it."""
    return {**_interface_view(interface), "Attachment": interface["Attachment"]}


def create_interface(parameters: Parameters) -> Resource:
    known(ec2._subnets, parameters.get("SubnetId", ""), "InvalidSubnetID.NotFound")
    dry_run(parameters)
    name = new_interface(parameters)
    ec2._tags[name] = specified(parameters, "network-interface")
    return {"NetworkInterface": _interface_view(ec2._network_interfaces[name])}


def new_interface(parameters: Parameters) -> str:
    """By ministack's own hand, which forgets the type."""
    before = set(ec2._network_interfaces)
    address = _new_address(parameters["SubnetId"], parameters.get("PrivateIpAddress"))
    groups = {f"SecurityGroupId.{place}": [name] for place, name in enumerate(parameters.get("Groups") or [], 1)}
    form = {"SubnetId": [parameters["SubnetId"]], "Description": [parameters.get("Description") or ""], **groups}
    ec2._create_network_interface(form)
    [name] = set(ec2._network_interfaces) - before
    record = ec2._network_interfaces[name]
    record["InterfaceType"] = parameters.get("InterfaceType") or "interface"
    record["_born"] = next(births)
    record["PrivateIpAddress"] = _given[record["SubnetId"]] = address
    record["MacAddress"] = f"02:{next(_hardware).to_bytes(5).hex(':')}"  # 02: locally administered
    return str(name)


def _new_address(subnet: str, asked_for: str | None) -> str:
    block, taken = _addressing(subnet)
    if asked_for:
        return addresses.wanted(block, taken, asked_for)
    return addresses.following(block, taken, _given.get(subnet))


def fitting(subnets: Mapping[str, int], least: int, most: int) -> int:
    """How many instances can be launched that have so many new interfaces in each of these subnets. What AWS cannot
    launch all of, it launches as many of as it can (RunInstances, MinCount and MaxCount)."""
    if least > most:
        raise ApiError("InvalidParameterCombination", f"MinCount, {least}, must not exceed MaxCount, {most}.")
    rooms = [addresses.room(*_addressing(subnet)) // n for subnet, n in subnets.items()]
    number = min(most, *rooms) if rooms else most
    if number < least:
        text = f"There are not enough free addresses in {', '.join(subnets)} to satisfy the request for {least}."
        raise ApiError("InsufficientFreeAddressesInSubnet", text)
    return number


def check_addresses(subnet: str, asked_for: str | None, n: int) -> None:
    """Before there is anything that would have to be taken back: can each of `n` instances have its address?"""
    known(ec2._subnets, subnet, "InvalidSubnetID.NotFound")
    if asked_for and n != 1:
        text = "A private IP address can be given to a single instance only."
        raise ApiError("InvalidParameterCombination", text)
    block, taken = _addressing(subnet)
    if asked_for:
        addresses.wanted(block, taken, asked_for)


def _addressing(subnet: str) -> tuple[str, set[str]]:
    """A subnet's block, and the addresses of its VPC that somebody has."""
    place = ec2._subnets[subnet]
    everybody = ec2._network_interfaces.values()
    return place["CidrBlock"], {one["PrivateIpAddress"] for one in everybody if one["VpcId"] == place["VpcId"]}


def attach_interface(parameters: Parameters) -> Resource:
    name, instance = parameters["NetworkInterfaceId"], parameters["InstanceId"]
    interface = known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")
    state = known(ec2._instances, instance, "InvalidInstanceID.NotFound")["State"]["Name"]
    if state not in ("running", "stopped"):
        raise ApiError("IncorrectState", f"Instance '{instance}' is {state}, neither 'running' nor 'stopped'.")
    dry_run(parameters)
    if interface["Attachment"]:
        raise ApiError("InvalidNetworkInterface.InUse", f"Network interface '{name}' is in use.")
    place = (parameters.get("NetworkCardIndex", 0), parameters["DeviceIndex"])
    taken = [
        (one["Attachment"]["NetworkCardIndex"], one["Attachment"]["DeviceIndex"]) for one in interfaces_of(instance)
    ]
    if place in taken:
        raise ApiError("InvalidParameterValue", f"Instance {instance} has an interface at device index {place[1]}.")
    attachment = attach(name, instance, parameters, goes=False)
    return {"AttachmentId": attachment, "NetworkCardIndex": place[0]}


def attach(name: str, instance: str, place: Parameters, goes: bool) -> str:
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


def detach_interface(parameters: Parameters) -> Resource:
    attachments = {
        one["Attachment"]["AttachmentId"]: one for one in ec2._network_interfaces.values() if one["Attachment"]
    }
    interface = known(attachments, parameters["AttachmentId"], "InvalidAttachmentID.NotFound")
    dry_run(parameters)
    if interface["Attachment"]["DeviceIndex"] == 0:
        raise ApiError("OperationNotPermitted", "The network interface at device index 0 cannot be detached.")
    interface["Attachment"], interface["Status"] = None, "available"
    return {}


def delete_interface(model: TrafficMirroring, parameters: Parameters) -> Resource:
    """Only a free interface can be deleted."""
    name = parameters["NetworkInterfaceId"]
    interface = known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")
    dry_run(parameters)
    if interface["Attachment"]:
        raise ApiError("InvalidNetworkInterface.InUse", f"Network interface '{name}' is in use.")
    _forget_interface(name, model)
    return {}


def let_go(interface: Resource, model: TrafficMirroring) -> None:
    """The sessions of a deleted interface go with it."""
    doomed = interface["Attachment"]["DeleteOnTermination"]
    interface["Attachment"], interface["Status"] = None, "available"
    if doomed:
        _forget_interface(interface["NetworkInterfaceId"], model)


def _forget_interface(name: str, model: TrafficMirroring) -> None:
    del ec2._network_interfaces[name]
    ec2._tags.pop(name, None)
    model.interface_deleted(name)
