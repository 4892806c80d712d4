"""The policy: which instances are mirrored, where to, and which tags are put on. One YAML document (docs/policy.md).

`load` makes a `Policy` of its text or says, place by place, why it cannot. What `defaults` gives is filled in before a
source is checked: whoever reads a `Source` finds plain values.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import timedelta
from itertools import chain
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mirroring.autotagged import longest
from mirroring.document import Home, Place, PolicyError, Problem, elsewhere, path_of, read, short, validate
from mirroring.model import (
    AUTOTAGGED_TAG,
    NLB_PACKET_LENGTH,
    SESSION_NUMBERS,
    TAG_VALUE_LENGTH,
    TAGS_PER_RESOURCE,
    UNTIL_TAG,
    Reference,
)
from mirroring.notation import (
    Day,
    EndTime,
    FilterId,
    Flag,
    InstanceId,
    Interfaces,
    Line,
    Name,
    Number,
    OwnTagKey,
    Pattern,
    PerCent,
    Several,
    Some,
    Span,
    SubnetId,
    TagKey,
    TagValue,
    TagValues,
    TargetId,
    Time,
    Version,
    VpcId,
    Whole,
    Zone,
)

__all__ = [
    "AutotagRule",
    "Defaults",
    "Finding",
    "Limits",
    "Match",
    "Policy",
    "PolicyError",
    "Problem",
    "Source",
    "Window",
    "check_names",
    "check_size",
    "load",
    "references",
]

#: Bytes that a parameter holds (https://docs.aws.amazon.com/general/latest/gr/ssm.html).
SIZES = {"Standard": 4096, "Advanced": 8192}
LAST_VNI = (1 << 24) - 1  # RFC 7348: 24 bits
WRITES_PER_SECOND = 5  # the API's own rate: more would only be throttled
SESSIONS_PER_ACCOUNT = 10_000


class _Model(BaseModel):
    #: By name for programs, by alias for documents: `validate` allows these only.
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True)


class Match(_Model):
    """AND between keys, OR within a key."""

    tags: Some[Mapping[TagKey, TagValues]] = Field({}, description='key: values, or "*" for any value')
    vpcs: Several[VpcId] = ()
    subnets: Several[SubnetId] = ()
    groups: Several[Pattern] = Field((), description="Auto Scaling groups, with * and ?")
    instances: Several[InstanceId] = ()
    names: Several[Pattern] = Field((), description="Name tags, with * and ?")

    @model_validator(mode="after")
    def _not_everything(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError(
                "without a key every instance of the account would match: write tags, vpcs, subnets, groups, instances "
                "or names"
            )
        return self


class Window(_Model):
    """Hours of a day in which a source is mirrored. One that ends when or before it starts ends on the next day."""

    days: Several[Day] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    from_: Time = Field(alias="from")
    to: EndTime
    zone: Zone = "UTC"


class Defaults(_Model):
    """What a source says about its sessions, and what is so if it does not."""

    interfaces: Interfaces = Field("primary", description="primary (device index 0), all, or device indexes")
    share: PerCent = 100.0
    targets: Several[TargetId] = Field((), alias="target")
    filter: FilterId | None = None
    vni: Annotated[Whole, Field(ge=0, le=LAST_VNI)] | None = None
    session_number: Annotated[Whole, Field(ge=SESSION_NUMBERS[0], le=SESSION_NUMBERS[-1])] = 1
    # More than 8,500 bytes is refused for an NLB, and for another target is hardly less than all (MTU 9001).
    packet_length: Annotated[Whole, Field(ge=1, le=NLB_PACKET_LENGTH)] | None = None
    windows: tuple[Window, ...] = ()


class Source(Defaults):
    """Instances that are mirrored alike."""

    name: Name
    description: Line = ""
    match: Match
    except_: Match | None = Field(None, alias="except")
    targets: Several[TargetId] = Field(alias="target")
    filter: FilterId


class Limits(_Model):
    """What one run may do at most."""

    deletes: Annotated[Whole, Field(ge=0, le=SESSIONS_PER_ACCOUNT)] = 100
    delete_fraction: Annotated[Number, Field(ge=0, le=1)] = 0.5
    sessions: Annotated[Whole, Field(ge=0, le=SESSIONS_PER_ACCOUNT)] = SESSIONS_PER_ACCOUNT
    writes_per_second: Annotated[Number, Field(gt=0, le=WRITES_PER_SECOND)] = 2.0


class Finding(_Model):
    """Which GuardDuty findings a rule acts on, and for how long."""

    severity: Annotated[Number, Field(ge=0, le=10)] = Field(7.0, description="the least")
    types: Several[Pattern] = Field(("*",), description="with * and ?")
    keep: Span = timedelta(hours=24)


class AutotagRule(_Model):
    """Tags that are put on instances that match; with `finding`, on those that a finding names, for a set time."""

    name: Name
    match: Match | None = None
    except_: Match | None = Field(None, alias="except")
    tags: Mapping[OwnTagKey, TagValue] = {}
    finding: Finding | None = None

    @model_validator(mode="after")
    def _says_what_and_where(self) -> Self:
        if self.finding is None and self.match is None:
            raise elsewhere("this key is required: only a rule with finding can do without", "match")
        if self.finding is None and not self.tags:
            raise elsewhere("name the tags to put on: only a rule with finding can do without", "tags")
        return self


class Policy(_Model):
    version: Version = 1
    description: Line = ""
    paused: Flag = False
    delete_on_stop: Flag = True
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    except_: Match | None = Field(None, alias="except")
    sources: tuple[Source, ...] = ()
    autotag: tuple[AutotagRule, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, data: Any) -> Any:
        """What a source leaves out comes from `defaults`. What it says is null is unset again."""
        given = data.get("defaults") if isinstance(data, dict) else None
        if not isinstance(given, dict) or not isinstance(data.get("sources"), list):
            return data
        given = {key: value for key, value in given.items() if value is not None}
        sources = [{**given, **source} if isinstance(source, dict) else source for source in data["sources"]]
        return {**data, "sources": sources}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for key, entries in (("sources", self.sources), ("autotag", self.autotag)):
            names = [entry.name for entry in entries]
            for index, name in enumerate(names):
                if name in names[:index]:
                    first = path_of((key, names.index(name)))
                    raise elsewhere(f"{first} has this name: choose another", key, index, "name")
        self._check_tag_count()
        return self

    def _check_tag_count(self) -> None:
        """An instance bears 50 tags; AUTOTAGGED_TAG, which lists the others, and UNTIL_TAG are two of them."""
        keys = {key for rule in self.autotag for key in rule.tags}
        most = TAGS_PER_RESOURCE - len((AUTOTAGGED_TAG, UNTIL_TAG))
        if len(keys) > most:
            raise elsewhere(
                f"the rules name {len(keys)} tag keys, an instance has room for {most}: drop some", "autotag"
            )
        if (length := longest(keys)) > TAG_VALUE_LENGTH:
            remedy = f"the tag {AUTOTAGGED_TAG} lists the keys of all rules, which takes {length} characters"
            raise elsewhere(f"{remedy}; a tag holds {TAG_VALUE_LENGTH}: drop or shorten some", "autotag")


_HOMES = {
    "": Home("at the top level", Policy),
    "sources": Home("in a source", Source),
    "defaults": Home("under defaults", Defaults),
    "limits": Home("under limits", Limits),
    "match": Home("under match", Match),
    "except": Home("under except", Match),
    "windows": Home("in a window", Window),
    "autotag": Home("in a rule of autotag", AutotagRule),
    "finding": Home("under finding", Finding),
}
_LEGACY = frozenset(("tags", "subnets", "vpcs"))


def load(text: str) -> Policy:
    """The policy that a YAML document holds. Raises PolicyError."""
    document = read(text)
    if document.tree.keys() <= _LEGACY:
        remedy = "this is a configuration of AWS's source-automation: convert it with `mirrorctl policy import FILE`"
        raise PolicyError([Problem("document", ", ".join(document.tree), remedy, document.lines[()])])
    return validate(Policy, document, _HOMES)


def check_size(text: str, tier: Literal["Standard", "Advanced"]) -> None:
    """Raises PolicyError if a parameter of the tier does not hold the text."""
    size, most = len(text.encode()), SIZES[tier]
    if size <= most:
        return
    remedy = f"a parameter of tier {tier} holds {most}: shorten it (comments, what defaults can say)"
    if size <= SIZES["Advanced"]:
        remedy += f", or make the parameter Advanced, which holds {SIZES['Advanced']} and is billed"
    raise PolicyError([Problem("document", f"{size} bytes", remedy)])


def references(policy: Policy) -> tuple[Reference, ...]:
    """All that the policy names and the stack must be allowed to use, each once, at the place that names it first."""
    found: dict[tuple[str, str], Reference] = {}
    sources = (_of_source(index, source) for index, source in enumerate(policy.sources))
    rules = (_of_rule(index, rule) for index, rule in enumerate(policy.autotag))
    named = chain(_of_session(policy.defaults, ("defaults",)), _of_match(policy.except_, ("except",)), *sources, *rules)
    for kind, name, place in named:
        found.setdefault((kind, name), Reference(kind, name, path_of(place)))
    return tuple(found.values())


def check_names(policy: Policy, allowed_keys: Collection[str]) -> tuple[Problem, ...]:
    """Tag keys of autotag that the stack does not allow."""
    granted = ", ".join(sorted(allowed_keys)) or "none"
    remedy = f"the stack may put on these tag keys: {granted}. Use one of them, or deploy the stack with this one added"
    return tuple(
        Problem(reference.path, short(reference.id), remedy)
        for reference in references(policy)
        if reference.kind == "tag" and reference.id not in allowed_keys
    )


type _Named = tuple[str, str, Place]  # kind, id, place


def _of_session(session: Defaults, place: Place) -> Iterator[_Named]:
    for index, target in enumerate(session.targets):
        yield "target", target, (*place, "target", index) if len(session.targets) > 1 else (*place, "target")
    if session.filter is not None:
        yield "filter", session.filter, (*place, "filter")


def _of_source(index: int, source: Source) -> Iterator[_Named]:
    place = ("sources", index)
    yield from _of_match(source.match, (*place, "match"))
    yield from _of_match(source.except_, (*place, "except"))
    yield from _of_session(source, place)


def _of_rule(index: int, rule: AutotagRule) -> Iterator[_Named]:
    place = ("autotag", index)
    yield from _of_match(rule.match, (*place, "match"))
    yield from _of_match(rule.except_, (*place, "except"))
    for key in rule.tags:
        yield "tag", key, (*place, "tags", key)


def _of_match(match: Match | None, place: Place) -> Iterator[_Named]:
    for index, vpc in enumerate(match.vpcs if match else ()):
        yield "vpc", vpc, (*place, "vpcs", index)
