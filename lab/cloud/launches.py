"""A launch template's data as RunInstances' form: what an Auto Scaling group launches by, or a call that names one.

The spelling is that of LaunchTemplateData, which CloudFormation and the API share. Security groups of the first
interface count as the instance's. What the emulator has no use for (volumes, metadata options …) is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

type Form = dict[str, list[str]]
type Data = Mapping[str, Any]


def form(data: Data, subnet: str, tags: Mapping[str, str]) -> Form:
    """For one instance in a subnet. `tags` are the group's; the template's own give way to them."""
    pairs = [*_plain(data, subnet), *_groups(data), *_interfaces(data), *_tagged(data, tags)]
    return {name: [value] for name, value in pairs}


def completed(
    own: Mapping[str, list[str]], specifications: Sequence[Data], data: Data, tags: Mapping[str, str]
) -> Form:
    """A call's own form with what the template adds to it. The call's values go before the template's; `specifications`
    are its tags, of which those of the same kind of resource are joined. [assumed] `tags` are the instance's besides.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html, LaunchTemplate
    """
    kinds = {one["ResourceType"]: _tag_map(one.get("Tags")) for one in data.get("TagSpecifications") or []}
    for one in specifications:
        kinds[one["ResourceType"]] = kinds.get(one["ResourceType"], {}) | _tag_map(one.get("Tags"))
    joined = [
        {"ResourceType": kind, "Tags": [{"Key": key, "Value": value} for key, value in wanted.items()]}
        for kind, wanted in kinds.items()
    ]
    given = {name.partition(".")[0] for name in own if not name.startswith("TagSpecification.")}
    interfaces = data.get("NetworkInterfaces") or [{}]
    subnet = "" if "NetworkInterface" in given else str(interfaces[0].get("SubnetId") or "")
    made = form({**data, "TagSpecifications": joined}, subnet, tags)
    rest = {name: value for name, value in made.items() if name.partition(".")[0] not in given and value != [""]}
    return {**{name: value for name, value in own.items() if not name.startswith("TagSpecification.")}, **rest}


def _plain(data: Data, subnet: str) -> Iterator[tuple[str, str]]:
    yield from (("MinCount", "1"), ("MaxCount", "1"), ("SubnetId", subnet))
    for name in ("ImageId", "InstanceType", "KeyName", "UserData"):
        if data.get(name):
            yield name, str(data[name])
    for name, value in (data.get("IamInstanceProfile") or {}).items():
        yield f"IamInstanceProfile.{name}", str(value)


def _groups(data: Data) -> Iterator[tuple[str, str]]:
    interfaces = data.get("NetworkInterfaces") or [{}]
    for place, group in enumerate(data.get("SecurityGroupIds") or interfaces[0].get("Groups") or [], 1):
        yield f"SecurityGroupId.{place}", str(group)


def _interfaces(data: Data) -> Iterator[tuple[str, str]]:
    names = ("DeviceIndex", "NetworkCardIndex", "InterfaceType", "DeleteOnTermination", "NetworkInterfaceId")
    for place, interface in enumerate(data.get("NetworkInterfaces") or [], 1):
        for name in names:
            if interface.get(name) is not None:
                yield f"NetworkInterface.{place}.{name}", str(interface[name])


def _tagged(data: Data, tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    specifications = {one["ResourceType"]: _tag_map(one.get("Tags")) for one in data.get("TagSpecifications") or []}
    specifications["instance"] = {**specifications.get("instance", {}), **tags}
    for place, (kind, wanted) in enumerate(specifications.items(), 1):
        yield f"TagSpecification.{place}.ResourceType", kind
        for number, (key, value) in enumerate(wanted.items(), 1):
            yield f"TagSpecification.{place}.Tag.{number}.Key", key
            yield f"TagSpecification.{place}.Tag.{number}.Value", value


def _tag_map(tags: Sequence[Mapping[str, Any]] | None) -> dict[str, str]:
    return {str(tag["Key"]): str(tag.get("Value", "")) for tag in tags or ()}
