"""Makes moto as strict as AWS where this project needs it: Traffic Mirroring comes from our model, terminated instances
give their interfaces up, lists come in pages, and any call can be made to fail.

moto finds an action by the name of a method of its response classes, so actions are added and replaced by setting
methods; all are put back at the end.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from threading import RLock
from typing import Any

from moto import settings
from moto.core import errors
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse, EmptyResult
from moto.core.utils import camelcase_to_underscores
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.elastic_network_interfaces import NetworkInterface as MotoInterface
from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend
from moto.ec2.models.instances import Instance as MotoInstance
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.tags import TagResponse
from moto.ec2.responses.traffic_mirrors import TrafficMirrors
from moto.elbv2 import models as elbv2_models
from moto.elbv2.models import elbv2_backends
from moto.elbv2.utils import make_arn_for_load_balancer

from lab.cloud.api import ACTIONS
from lab.cloud.faults import ApiError
from lab.cloud.listing import MAX_RESULTS, MOST_FILTERS, MOST_VALUES, Resource, page
from lab.cloud.mirroring import NetworkInterface, TrafficMirroring

PAGED = ("DescribeInstances", "DescribeNetworkInterfaces")
#: Codes that come with a server's status (https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html).
STATUS = {"InternalError": 500, "InternalFailure": 500, "Unavailable": 503, "ServiceUnavailable": 503}
STATUS["RequestLimitExceeded"] = 503
#: In the User-Agent of a caller that neither faults nor missing permissions touch.
UNHINDERED = "unhindered"
#: Prefixes of mirroring ids.
PREFIXES = ("tmt-", "tmf-", "tmfr-", "tms-")


class Injected(ServiceException):
    """A refusal by the model in the place of any service. (moto tells a service by the module of the exception's class,
    and knows none by that of its base class.)"""


class MotoSurroundings:
    """The rest of moto's account, as the model asks for it."""

    def __init__(self, account: str, region: str) -> None:
        self.account = account
        self.region = region

    def interface(self, name: str) -> NetworkInterface | None:
        interface = ec2_backends[self.account][self.region].enis.get(name)
        if interface is None:
            return None
        instance_type = interface.instance.instance_type if interface.instance else ""
        return NetworkInterface(name, instance_type, interface.interface_type, interface.requester_managed)

    def load_balancer(self, arn: str) -> bool:
        return arn in elbv2_backends[self.account][self.region].load_balancers

    def endpoint(self, name: str) -> bool:
        endpoint = ec2_backends[self.account][self.region].vpc_end_points.get(name)
        return endpoint is not None and endpoint.vpc_endpoint_type == "GatewayLoadBalancer"


@contextmanager
def strict(model: TrafficMirroring) -> Iterator[None]:
    """moto, inside of it, behaves like AWS as far as this module knows."""
    with ExitStack() as stack:
        replace = partial(_replace, stack)
        for action in ACTIONS:
            replace(TrafficMirrors, camelcase_to_underscores(action), _mirroring(model, action))
        replace(BaseResponse, "call_action", _faulty(model, BaseResponse.call_action))
        replace(TagResponse, "create_tags", _tagging(model, TagResponse.create_tags))
        replace(TagResponse, "delete_tags", _tagging(model, TagResponse.delete_tags))
        replace(TaggedEC2Resource, "get_tags", _get_tags)
        replace(ElasticNetworkInterfaces, "describe_network_interfaces", _describe_network_interfaces)
        replace(InstanceResponse, "describe_instances", _describe_instances)
        replace(NetworkInterfaceBackend, "delete_network_interface", _deleting(model))
        replace(MotoInstance, "prep_nics", _preparing(MotoInstance.prep_nics))
        replace(MotoInstance, "terminate", _terminating(MotoInstance.terminate))
        replace(MotoInstance, "network_interfaces", property(_network_interfaces))
        for name in ("vpc_id", "subnet_id"):
            replace(MotoInstance, name, property(_unless_terminated(getattr(MotoInstance, name))))
        replace(
            elbv2_models.ELBv2Backend,
            "create_load_balancer",
            _load_balancing(elbv2_models.ELBv2Backend.create_load_balancer),
        )
        replace(settings, "ec2_load_default_amis", lambda: False)  # thousands, at each beginning and end
        replace(errors, "COMMON_ERROR_CODES", list(errors.COMMON_ERROR_CODES))
        yield


def _replace(stack: ExitStack, owner: Any, name: str, value: Any) -> None:
    if name in vars(owner):
        stack.callback(setattr, owner, name, vars(owner)[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)


# Calls


def _mirroring(model: TrafficMirroring, action: str) -> Callable[[Any], ActionResult]:
    def handle(response: Any) -> ActionResult:
        try:
            perform = model.perform if _unhindered(response) else model.call
            return ActionResult(perform(action, _parameters(response)))
        except ApiError as error:
            raise EC2ClientError(error.code, error.message) from error

    return handle


def _faulty(model: TrafficMirroring, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """All other actions of all services, with the model's faults around them; one at a time, as moto is not made for
    more."""
    turn = RLock()

    def call_action(response: Any) -> Any:
        with turn:
            return act(response)

    def act(response: Any) -> Any:
        action = response._get_action() or ""
        if action in ACTIONS:
            return _status(original(response))
        if _unhindered(response):
            return original(response)
        parameters = _parameters(response)
        try:
            with model.faults.around(action, parameters):
                if response.service_name == "ec2":
                    _check_listing(action, parameters)
                return original(response)
        except ApiError as error:
            errors.COMMON_ERROR_CODES.append(error.code)  # or moto warns of codes that are not in a service's model
            _, headers, body = response.serialized(ActionResult(Injected(error.code, error.message)))
            status = STATUS.get(error.code, 400)
            headers["status"] = str(status)
            headers, body = response._enrich_response(headers, body)
            return status, headers, body

    return call_action


def _unhindered(response: Any) -> bool:
    return UNHINDERED in (response.headers.get("User-Agent") or "")


def _status(answer: Any) -> Any:
    """An answer of the model's, with the status that belongs to its code."""
    status, headers, body = answer
    if int(status) == 400:
        text = body if isinstance(body, str) else body.decode()
        status = next((status for code, status in STATUS.items() if f"<Code>{code}</Code>" in text), status)
        headers["status"] = str(status)
    return status, headers, body


def _parameters(response: Any) -> dict[str, Any]:
    if getattr(response, "params", None):
        return dict(response.params)
    body: dict[str, Any] = json.loads(response.body or "{}")
    return body


def _check_listing(action: str, parameters: dict[str, Any]) -> None:
    filters = parameters.get("Filters") or []
    if len(filters) > MOST_FILTERS or any(len(item.get("Values") or ()) > MOST_VALUES for item in filters):
        raise ApiError("FilterLimitExceeded", "The request uses too many filters or too many filter values.")
    size = parameters.get("MaxResults")
    if action in PAGED and size is not None and size not in MAX_RESULTS:
        raise ApiError("InvalidParameterValue", f"Value ({size}) for parameter maxResults is invalid.")


# Tags


def _tagging(model: TrafficMirroring, original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """CreateTags and DeleteTags: mirroring resources are the model's, and AWS's own prefix is nobody's."""
    create = original.__name__ == "create_tags"

    def handle(response: Any) -> Any:
        parameters = _parameters(response)
        tags = {tag["Key"]: tag.get("Value") for tag in parameters.get("Tags") or []}
        if create and any(key.lower().startswith("aws:") for key in tags):
            raise EC2ClientError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
        ids = parameters.get("Resources") or []
        for instance in ids:
            if instance.startswith("i-"):
                response.ec2_backend.get_instance(instance)  # or it refuses; moto itself takes any id
        ours = [resource for resource in ids if resource.startswith(PREFIXES)]
        if not ours:
            return original(response)
        if parameters.get("DryRun"):
            response.error_on_dryrun()
        try:
            for resource in ours:
                if create:
                    model.put_tags(resource, {key: value or "" for key, value in tags.items()})
                else:
                    model.remove_tags(resource, tags)
        except ApiError as error:
            raise EC2ClientError(error.code, error.message) from error
        others = [resource for resource in ids if resource not in ours]
        if others:
            response.params = {**response.params, "Resources": others}
            return original(response)
        return EmptyResult()

    return handle


def _get_tags(resource: Any) -> list[dict[str, str]]:
    """What moto finds by looking through the tags of all resources."""
    tags = resource.ec2_backend.tags.get(resource.id, {})
    return [{"resource_id": resource.id, "key": key, "value": value} for key, value in tags.items()]


# Lists


def _describe_network_interfaces(response: Any) -> ActionResult:
    response.error_on_dryrun()
    parameters = _parameters(response)
    ids = parameters.get("NetworkInterfaceIds") or []
    _not_both(ids, parameters, "networkInterfaceIds")
    found = response.ec2_backend.get_all_network_interfaces(ids, response._filters_from_querystring())
    births = {key: birth for birth, key in enumerate(response.ec2_backend.enis)}
    shown, token = _page(found, parameters, "NetworkInterface", lambda interface: births[interface.id])
    return ActionResult({"NetworkInterfaces": shown, "NextToken": token})


def _describe_instances(response: Any) -> ActionResult:
    """In pages of instances, as AWS has it; moto counts reservations."""
    response.error_on_dryrun()
    parameters = _parameters(response)
    ids, backend = parameters.get("InstanceIds") or [], response.ec2_backend
    _not_both(ids, parameters, "instancesSet")
    filters = response._filters_from_querystring()
    reservations = (
        backend.get_reservations_by_instance_ids(ids, filters=filters)
        if ids
        else backend.describe_instances(filters=filters)
    )
    pairs = [(reservation, instance) for reservation in reservations for instance in reservation.instances]
    births = {instance.id: birth for birth, instance in enumerate(backend.all_instances())}
    shown, token = _page(pairs, parameters, "Instance", lambda pair: births[pair[1].id])
    groups = groupby(shown, key=lambda pair: pair[0].id)
    return ActionResult({"Reservations": [_reservation(list(group)) for _, group in groups], "NextToken": token})


def _reservation(pairs: list[Any]) -> Resource:
    reservation = pairs[0][0]
    instances = [instance for _, instance in pairs]
    return {"ReservationId": reservation.id, "OwnerId": reservation.owner_id, "Groups": [], "Instances": instances}


def _not_both(ids: list[str], parameters: dict[str, Any], name: str) -> None:
    if ids and parameters.get("MaxResults") is not None:
        text = f"The parameter {name} cannot be used with the parameter maxResults"
        raise EC2ClientError("InvalidParameterCombination", text)


def _page(found: list[Any], parameters: dict[str, Any], kind: str, birth: Callable[[Any], int]) -> Any:
    try:
        return page(found, parameters, kind, birth)
    except ApiError as error:
        raise EC2ClientError(error.code, error.message) from error


# Instances and interfaces


def _preparing(original: Callable[..., None]) -> Callable[..., None]:
    """Interfaces that a launch makes go with the instance unless the caller says otherwise; moto keeps them."""

    def prep_nics(instance: Any, nic_spec: list[dict[str, Any]], *positional: Any, **named: Any) -> None:
        for nic in nic_spec:
            nic.setdefault("DeleteOnTermination", True)
        original(instance, nic_spec, *positional, **named)
        if not nic_spec:  # moto made the primary interface by itself
            for nic in instance.nics.values():
                nic.delete_on_termination = True

    return prep_nics


def _terminating(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def terminate(instance: Any) -> Any:
        if instance.state != "terminated":
            for nic in list(instance.nics.values()):
                _let_go(nic)
        return original(instance)

    return terminate


def _let_go(interface: MotoInterface) -> None:
    doomed = interface.delete_on_termination
    interface.instance, interface.attachment_id, interface.attach_time = None, None, None
    interface.status, interface.delete_on_termination = "available", False
    if doomed:
        interface.ec2_backend.delete_network_interface(interface.id)


def _deleting(model: TrafficMirroring) -> Callable[[Any, str], None]:
    """Only a free interface can be deleted, and its sessions go with it."""
    original = NetworkInterfaceBackend.delete_network_interface

    def delete_network_interface(backend: Any, eni_id: str) -> None:
        interface = backend.enis.get(eni_id)
        if interface is not None and interface.instance is not None:
            raise EC2ClientError("InvalidNetworkInterface.InUse", f"Network interface '{eni_id}' is in use.")
        original(backend, eni_id)
        model.interface_deleted(eni_id)

    return delete_network_interface


def _network_interfaces(instance: Any) -> list[Any]:
    return [] if instance.state == "terminated" else list(instance.nics.values())


def _unless_terminated(original: property) -> Callable[[Any], Any]:
    def read(instance: Any) -> Any:
        terminated = getattr(instance, "_state", None) is not None and instance.state == "terminated"
        return None if terminated else original.__get__(instance)

    return read


# Load balancers


def _load_balancing(original: Callable[..., Any]) -> Callable[..., Any]:
    """moto gives every load balancer the ARN of an application load balancer."""

    def create_load_balancer(backend: Any, *positional: Any, **named: Any) -> Any:
        kind = {"network": "net", "gateway": "gwy"}.get(named.get("loadbalancer_type") or "", "app")
        with ExitStack() as stack:
            _replace(stack, elbv2_models, "make_arn_for_load_balancer", partial(_arn, kind))
            return original(backend, *positional, **named)

    return create_load_balancer


def _arn(kind: str, **parts: str) -> str:
    return make_arn_for_load_balancer(**parts).replace("loadbalancer/app/", f"loadbalancer/{kind}/")
