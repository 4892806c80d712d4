"""Instances in ministack: they start with interfaces, give them up at their end, and are listed in pages."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import groupby
from uuid import uuid4

from ministack.core.responses import get_account_id, get_region  # type: ignore[import-not-found]
from ministack.services import ec2  # type: ignore[import-not-found]

from lab.cloud import launches, protocol
from lab.cloud.faults import ApiError, Parameters
from lab.cloud.listing import Resource, page
from lab.cloud.ministack.interfaces import (
    attach,
    attached_view,
    check_addresses,
    fitting,
    interfaces_of,
    let_go,
    new_interface,
)
from lab.cloud.ministack.requests import (
    Form,
    Handler,
    Response,
    births,
    check_listing,
    dry_run,
    filtered,
    known,
    parameters_of,
    refusal,
)
from lab.cloud.ministack.tags import specified
from lab.cloud.mirroring import TrafficMirroring

INSTANCE_FILTERS = {
    "image-id": "ImageId",
    "instance-id": "InstanceId",
    "instance-state-name": "StateName",
    "instance-type": "InstanceType",
    "private-ip-address": "PrivateIpAddress",
    "subnet-id": "SubnetId",
    "vpc-id": "VpcId",
}


def running(begin: Callable[[Resource], None], original: Handler) -> Handler:
    """RunInstances as ministack has it, once its instances have interfaces; `begin` is what happens to each then."""

    def run_instances(form: Form) -> Response:
        try:
            form = _completed(form)
            parameters = parameters_of("RunInstances", form)
            specifications = parameters.get("NetworkInterfaces") or [_only_interface(parameters)]
            _check_places(specifications)
            subnet = _subnet(parameters, specifications[0])
            new = [one for one in specifications if not one.get("NetworkInterfaceId")]
            for specification in new:
                place = specification.get("SubnetId") or subnet
                check_addresses(place, specification.get("PrivateIpAddress"), int(parameters.get("MaxCount", 1)))
            subnets = Counter(one.get("SubnetId") or subnet for one in new)
            number = fitting(subnets, int(parameters.get("MinCount", 1)), int(parameters.get("MaxCount", 1)))
            dry_run(parameters)
        except ApiError as error:
            return refusal(error)
        before = set(ec2._instances)
        counts = {"MinCount": [str(number)], "MaxCount": [str(number)]}  # ministack launches as few as it may
        response = original({**form, "SubnetId": [subnet], **counts})
        if response[0] != 200:
            return response
        reservation = f"r-{uuid4().hex[:17]}"
        launched = [one for name, one in ec2._instances.items() if name not in before]
        for instance in launched:
            instance["_reservation"] = reservation
            for specification in specifications:
                _equip(instance, {"SubnetId": subnet} | specification, parameters)
            begin(instance)
        answer = _reservation([_instance_view(one) for one in launched], reservation)
        return response[0], response[1], protocol.answer("RunInstances", answer)

    return run_instances


def _completed(form: Form) -> Form:
    """With what the launch template says, where the call names one."""
    parameters = parameters_of("RunInstances", form)
    specification = parameters.get("LaunchTemplate")
    if not specification:
        return form
    data, template, wrong = ec2._resolve_launch_template_data(specification)
    if wrong or not template:
        name = specification.get("LaunchTemplateId") or specification.get("LaunchTemplateName")
        text = f"The specified launch template, with template ID or name {name}, does not exist."
        raise ApiError("InvalidLaunchTemplateId.NotFound", text)
    tags = {"aws:ec2launchtemplate:id": template["LaunchTemplateId"]}
    return launches.completed(form, parameters.get("TagSpecifications") or [], data, tags)


def _check_places(specifications: Iterable[Resource]) -> None:
    places = Counter((one.get("NetworkCardIndex", 0), one.get("DeviceIndex", 0)) for one in specifications)
    if max(places.values()) > 1:
        raise ApiError("InvalidParameterValue", "Each network interface requires a unique device index.")


def _only_interface(parameters: Parameters) -> Resource:
    return {"DeviceIndex": 0, "PrivateIpAddress": parameters.get("PrivateIpAddress")}


def _subnet(parameters: Parameters, first: Resource) -> str:
    """That of an interface which is there already goes before all."""
    if name := first.get("NetworkInterfaceId"):
        found: str = known(ec2._network_interfaces, name, "InvalidNetworkInterfaceID.NotFound")["SubnetId"]
        return found
    subnet: str = parameters.get("SubnetId") or first.get("SubnetId") or ec2._DEFAULT_SUBNET_ID
    known(ec2._subnets, subnet, "InvalidSubnetID.NotFound")
    return subnet


def _equip(instance: Resource, specification: Resource, parameters: Parameters) -> None:
    """An interface that comes with a launch goes with the instance unless the caller says otherwise."""
    name = specification.get("NetworkInterfaceId")
    if name is None:
        wanted = {key: specification.get(key) for key in ("SubnetId", "InterfaceType", "PrivateIpAddress")}
        name = new_interface(wanted | {"Groups": [group["GroupId"] for group in instance["SecurityGroups"]]})
        ec2._tags[name] = specified(parameters, "network-interface")
    attach(name, instance["InstanceId"], specification, specification.get("DeleteOnTermination", True))
    if specification.get("DeviceIndex", 0) == 0:
        primary = ec2._network_interfaces[name]
        address = instance["PrivateIpAddress"] = primary["PrivateIpAddress"]
        instance["PrivateDnsName"] = f"ip-{address.replace('.', '-')}.{get_region()}.compute.internal"
        instance["Placement"] = instance["Placement"] | {"AvailabilityZone": primary["AvailabilityZone"]}


def user_data(original: Handler) -> Handler:
    """DescribeInstanceAttribute: ministack keeps the user data of a launch and never shows it."""

    def describe_attribute(form: Form) -> Response:
        response = original(form)
        asked = parameters_of("DescribeInstanceAttribute", form)
        if response[0] != 200 or asked.get("Attribute") != "userData":
            return response
        kept = ec2._instances[asked["InstanceId"]].get("UserData")
        answer = {"InstanceId": asked["InstanceId"], "UserData": {"Value": kept} if kept else {}}
        return response[0], response[1], protocol.answer("DescribeInstanceAttribute", answer)

    return describe_attribute


def terminating(model: TrafficMirroring, original: Handler) -> Handler:
    def terminate_instances(form: Form) -> Response:
        response = original(form)
        if response[0] == 200:
            for instance in parameters_of("TerminateInstances", form).get("InstanceIds") or []:
                for interface in interfaces_of(instance):
                    let_go(interface, model)
        return response

    return terminate_instances


def describe_instances(parameters: Parameters) -> Resource:
    """In pages of instances; a reservation is whole as far as a page reaches."""
    dry_run(parameters)
    ec2._cleanup_terminated()
    ids = parameters.get("InstanceIds") or []
    check_listing(parameters, ids, "instancesSet")
    for name in ids:
        if not ec2._INSTANCE_ID_RE.match(name):
            raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{name}"')
        known(ec2._instances, name, "InvalidInstanceID.NotFound")
    views = [_instance_view(one) for one in ec2._instances.values() if not ids or one["InstanceId"] in ids]
    found = filtered(views, parameters, INSTANCE_FILTERS)
    shown, token = page(found, parameters, "Instance", lambda view: int(view["_born"]))
    groups = groupby(shown, key=lambda view: str(view["_reservation"]))
    return {"Reservations": [_reservation(list(group), name) for name, group in groups], "NextToken": token}


def _reservation(instances: list[Resource], name: str) -> Resource:
    return {"ReservationId": name, "OwnerId": get_account_id(), "Groups": [], "Instances": instances}


def _instance_view(instance: Resource) -> Resource:
    """ministack's record in the API's spelling; a terminated instance is in no subnet and has no interface."""
    name = instance["InstanceId"]
    instance.setdefault("_born", next(births))
    instance.setdefault("_reservation", f"r-{name[2:]}")
    view = {
        **instance,
        "StateName": instance["State"]["Name"],
        "VirtualizationType": instance["Virtualization"],
        "Tags": ec2._tags.get(name, []),
        "NetworkInterfaces": [attached_view(one) for one in interfaces_of(name)],
    }
    if instance["State"]["Name"] == "terminated":
        for gone in ("SubnetId", "VpcId", "PrivateIpAddress", "PublicIpAddress"):
            view.pop(gone, None)
        view["NetworkInterfaces"] = []
    return view
