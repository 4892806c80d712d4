"""Tags in ministack: sessions, targets and filters have theirs in the model, all else in ministack's own store."""

from collections.abc import Mapping

from ministack.services import ec2  # type: ignore[import-not-found]

from lab.cloud.faults import ApiError, Parameters
from lab.cloud.listing import Resource, matching, page
from lab.cloud.ministack.requests import dry_run, known
from lab.cloud.mirroring import TrafficMirroring

#: Prefixes of mirroring ids, and the type that DescribeTags calls them.
KINDS = {
    "tmt": "traffic-mirror-target",
    "tmf": "traffic-mirror-filter",
    "tmfr": "traffic-mirror-filter-rule",
    "tms": "traffic-mirror-session",
}
TAG_FILTERS = {"key": "Key", "resource-id": "ResourceId", "resource-type": "ResourceType", "value": "Value"}


def create_tags(model: TrafficMirroring, parameters: Parameters) -> Resource:
    tags = {tag["Key"]: tag.get("Value") or "" for tag in parameters.get("Tags") or []}
    if any(key.lower().startswith("aws:") for key in tags):
        raise ApiError("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
    _check_present(model, parameters["Resources"])
    dry_run(parameters)
    for resource in parameters["Resources"]:
        if _is_ours(resource):
            model.put_tags(resource, tags)
        else:
            kept = [tag for tag in ec2._tags.get(resource, []) if tag["Key"] not in tags]
            ec2._tags[resource] = kept + _tag_list(tags)
    return {}


def delete_tags(model: TrafficMirroring, parameters: Parameters) -> Resource:
    """A key without a value goes, one with a value only if the value is the same; without any key, all go.
    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteTags.html"""
    tags = {tag["Key"]: tag.get("Value") for tag in parameters.get("Tags") or []}
    _check_present(model, parameters["Resources"])
    dry_run(parameters)
    for resource in parameters["Resources"]:
        present = model.tags[resource] if _is_ours(resource) else tag_map(resource)
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
            known(ec2._instances, resource, "InvalidInstanceID.NotFound")
        elif resource.startswith("eni-"):
            known(ec2._network_interfaces, resource, "InvalidNetworkInterfaceID.NotFound")
        elif _is_ours(resource):
            known(model.tags, resource, "InvalidID")


def _is_ours(resource: str) -> bool:
    return resource.partition("-")[0] in KINDS


def describe_tags(model: TrafficMirroring, parameters: Parameters) -> Resource:
    dry_run(parameters)
    everything = {name: tag_map(name) for name in ec2._tags} | model.tags
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


def tag_map(resource: str) -> dict[str, str]:
    return {tag["Key"]: tag.get("Value", "") for tag in ec2._tags.get(resource, [])}


def _tag_list(tags: Mapping[str, str]) -> list[Resource]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def specified(parameters: Parameters, kind: str) -> list[Resource]:
    """The tags of a request's TagSpecifications for a kind of resource."""
    tags: dict[str, str] = {}
    for specification in parameters.get("TagSpecifications") or []:
        if specification.get("ResourceType") == kind:
            tags |= {tag["Key"]: tag.get("Value") or "" for tag in specification.get("Tags") or []}
    return _tag_list(tags)
