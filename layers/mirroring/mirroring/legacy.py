"""The configuration of AWS's sample aws-vpc-traffic-mirroring-source-automation, made into a policy.

Its lists are looked at in the order tags, subnets, vpcs, and the first entry that matches decides: so do the sources
of the policy, in that order. The pairs of a `tagList` are alternatives (one that the instance bears is enough), which
a match says of the values of one key only: an entry with several keys becomes several sources.
"""

from collections.abc import Iterator
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mirroring.document import Document, Home, Place, PolicyError, Problem, line_of, path_of, read, validate
from mirroring.notation import ExactValue, FilterId, Some, SubnetId, TagKey, TargetId, VpcId

_PLACEHOLDER = "<INSERT_VALUE>"  # the sample's own, which it takes for nothing
_SESSION_NUMBER = 100  # of all sessions that the sample makes


def _filled(value: object) -> object:
    if value == _PLACEHOLDER:
        raise ValueError("this is the sample's placeholder: write a value of your own")
    return value


def _or_nothing(value: object) -> object:
    return None if value in ("", _PLACEHOLDER) else value


def _or_none(value: object) -> object:
    return () if value is None else value


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Pair(_Model):
    key: Annotated[TagKey, BeforeValidator(_filled)] = Field(alias="Key")
    value: Annotated[ExactValue, BeforeValidator(_filled)] = Field(alias="Value")


class _Entry(_Model):
    filter: Annotated[FilterId | None, BeforeValidator(_or_nothing)] = Field(None, alias="filterId")
    target: Annotated[TargetId | None, BeforeValidator(_or_nothing)] = Field(None, alias="targetId")
    # How the sample launches a target if none is named.
    type: Any = Field(None, alias="targetInstanceType")
    image: Any = Field(None, alias="targetInstanceAmi")
    groups: Any = Field(None, alias="targetSecurityGroupIds")
    place: Any = Field(None, alias="targetSubnetId")


class _Tags(_Entry):
    pairs: Some[tuple[_Pair, ...]] = Field(alias="tagList")


class _Subnet(_Entry):
    subnet: SubnetId = Field(alias="subnetId")


class _Vpc(_Entry):
    vpc: VpcId = Field(alias="vpcId")


class _Old(_Model):
    tags: Annotated[tuple[_Tags, ...], BeforeValidator(_or_none)] = ()
    subnets: Annotated[tuple[_Subnet, ...], BeforeValidator(_or_none)] = ()
    vpcs: Annotated[tuple[_Vpc, ...], BeforeValidator(_or_none)] = ()


class _Given(_Model):
    target: TargetId | None
    filter: FilterId | None


_HOMES = {
    "": Home("at the top level", _Old),
    "tags": Home("in an entry of tags", _Tags),
    "tagList": Home("in an entry of tagList", _Pair),
    "subnets": Home("in an entry of subnets", _Subnet),
    "vpcs": Home("in an entry of vpcs", _Vpc),
}

_HEAD = f"""\
# Made from a configuration of aws-vpc-traffic-mirroring-source-automation. What is not as before:
# - Instances are looked at all the time, not at their launch alone; sessions go when an instance stops or matches no
#   more.
# - Sessions that the old tool made (number {_SESSION_NUMBER}) are not ours and stay. They stand in front of ours, which
#   get the next free number and none of the packets that the old ones take. Delete the old ones; ours then move to
#   {_SESSION_NUMBER}.
# - To mirror on a GuardDuty finding only was a parameter of the old stack. Here an autotag rule with finding does it.
version: 1
"""


def convert(text: str, target: str | None = None, filter: str | None = None) -> str:  # noqa: A002 (AWS's word)
    """The policy that does what a configuration says, as YAML. Raises PolicyError.

    `target` and `filter`, if given, stand in the place of all that the configuration names.
    """
    given = validate(_Given, Document({"target": target, "filter": filter}, {}), {"": Home("", _Given)})
    document = read(text)
    old = validate(_Old, document, _HOMES)
    entries = list(_entries(old))
    if problems := list(_missing(document, entries, given)):
        raise PolicyError(problems)
    defaults = {"session_number": _SESSION_NUMBER, **given.model_dump(exclude_none=True)}
    sources = (_source(place, entry, given) for place, entry in entries)
    return "".join((_HEAD, _yaml({"defaults": defaults}), "sources:\n", *sources))


def _entries(old: _Old) -> Iterator[tuple[Place, _Tags | _Subnet | _Vpc]]:
    """In the order in which the sample looks at them, wherever they stand."""
    lists: dict[str, tuple[_Tags | _Subnet | _Vpc, ...]] = {
        "tags": old.tags,
        "subnets": old.subnets,
        "vpcs": old.vpcs,
    }
    for key, entries in lists.items():
        for index, entry in enumerate(entries):
            yield (key, index), entry


def _missing(document: Document, entries: list[tuple[Place, Any]], given: _Given) -> Iterator[Problem]:
    if not entries:
        yield Problem("document", "", "it names nothing to mirror: write entries under tags, subnets or vpcs", 1)
    for place, entry in entries:
        line = line_of(document, place)
        if not (given.target or entry.target):
            remedy = "the old tool launched a target here, this one does not: give --target tmt-..."
            yield Problem(path_of((*place, "targetId")), "", remedy, line)
        if not (given.filter or entry.filter):
            yield Problem(path_of((*place, "filterId")), "", "this key is required, or give --filter tmf-...", line)


def _source(place: Place, entry: _Tags | _Subnet | _Vpc, given: _Given) -> str:
    """The source, or sources, of one entry, under a comment that says where it was."""
    before = {"target": entry.target, "filter": entry.filter}
    after = given.model_dump()
    own = {key: value for key, value in before.items() if not after[key]}
    changed = [f"{key} {value}" for key, value in before.items() if value and after[key] not in (None, value)]
    comment = path_of(place) + (f", there with {' and '.join(changed)}" if changed else "")
    matches = list(_matches(entry))
    name = f"{str(place[0]).removesuffix('s')}-{int(place[1]) + 1}"
    names = [name] if len(matches) == 1 else [f"{name}-{number}" for number in range(1, len(matches) + 1)]
    sources = [{"name": name, "match": match, **own} for name, match in zip(names, matches, strict=True)]
    return f"# {comment}\n{_yaml(sources)}"


def _matches(entry: _Tags | _Subnet | _Vpc) -> Iterator[dict[str, Any]]:
    match entry:
        case _Subnet():
            yield {"subnets": [entry.subnet]}
        case _Vpc():
            yield {"vpcs": [entry.vpc]}
        case _Tags():
            values: dict[str, list[str]] = {}
            for pair in entry.pairs:
                values.setdefault(pair.key, []).append(pair.value)
            yield from ({"tags": {key: values[key]}} for key in values)


def _yaml(value: object) -> str:
    # One line each: PyYAML breaks some quoted lines (a no-break space beside a space) so that they read back otherwise.
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100_000)
