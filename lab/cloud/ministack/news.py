"""What AWS services tell the bus of changes that anybody makes by a call, in a live emulator: ministack's tell nothing.

Tags of instances: https://docs.aws.amazon.com/tag-editor/latest/userguide/tag-monitor.html
Parameters: https://docs.aws.amazon.com/systems-manager/latest/userguide/reference-eventbridge-events.html
Interfaces attached and detached, as CloudTrail tells them where there is a trail; there is one here.
Of instances' states tells `machines`. A launch with tags is no change of tags. [assumed]
"""

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

from ministack.services import ec2, ssm  # type: ignore[import-not-found]

from lab.cloud import delivery, events, hooks
from lab.cloud.events import Event
from lab.cloud.ministack.requests import Form, Handler, Response, parameters_of
from lab.cloud.ministack.tags import tag_map

type Change = Mapping[str, Any]

#: Of an instance's tags: each change has the next.
_versions: Counter[str] = Counter()


def live(actions: hooks.Table) -> None:
    """After `adapter.strict`: what that put in place is what is told of."""
    for action in ("CreateTags", "DeleteTags"):
        hooks.entry(actions, action, "form", partial(_tags, action))
    hooks.entry(actions, "AttachNetworkInterface", "form", _attached)
    hooks.entry(actions, "DetachNetworkInterface", "form", _detached)
    hooks.function(ssm, "_put_parameter", "data", _put)
    hooks.function(ssm, "_delete_parameter", "data", _deleted)
    hooks.function(ssm, "_delete_parameters", "data", _deleted)


def _tags(action: str, original: Handler) -> Handler:
    def change_tags(form: Form) -> Response:
        resources = parameters_of(action, form).get("Resources") or []
        instances = [name for name in dict.fromkeys(resources) if name.startswith("i-")]
        before = {name: tag_map(name) for name in instances}
        response = original(form)
        for name in instances:
            _tell_of_tags(name, before[name], tag_map(name))
        return response

    return change_tags


def _tell_of_tags(instance: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        _versions[instance] += 1
        delivery.tell(events.tag_change, instance, changed, after, version=_versions[instance])


def _attached(original: Handler) -> Handler:
    def attach(form: Form) -> Response:
        response = original(form)
        if response[0] == 200:
            wanted = parameters_of("AttachNetworkInterface", form)
            name = wanted["NetworkInterfaceId"]
            attachment = ec2._network_interfaces[name]["Attachment"]["AttachmentId"]
            delivery.tell(events.attach_interface, wanted["InstanceId"], name, wanted["DeviceIndex"], attachment)
        return response

    return attach


def _detached(original: Handler) -> Handler:
    def detach(form: Form) -> Response:
        response = original(form)
        if response[0] == 200:
            delivery.tell(events.detach_interface, parameters_of("DetachNetworkInterface", form)["AttachmentId"])
        return response

    return detach


def _put(original: Any) -> Any:
    """CloudFormation puts and deletes by the same functions."""

    def put_parameter(data: Change) -> Response:
        operation = "Update" if data.get("Name") in ssm._parameters else "Create"
        response: Response = original(data)
        if response[0] == 200:
            delivery.tell(_parameter, data["Name"], operation, ssm._parameters[data["Name"]])
        return response

    return put_parameter


def _deleted(original: Any) -> Any:
    """One parameter, or several of which some are not there."""

    def delete(data: Change) -> Response:
        names = data.get("Names") or [data.get("Name")]
        found = {name: ssm._lookup_parameter(name)[1] for name in names if isinstance(name, str)}
        response: Response = original(data)
        gone = json.loads(response[2]).get("DeletedParameters", names) if response[0] == 200 else []
        for name in dict.fromkeys(gone):
            delivery.tell(_parameter, found[name]["Name"], "Delete", found[name])
        return response

    return delete


def _parameter(name: str, operation: str, record: Change, **when: Any) -> Event:
    event = events.parameter_change(name, operation, **when)
    event["detail"] |= {"type": record["Type"], "description": record["Description"]}
    if not record["Description"]:
        del event["detail"]["description"]
    return event
