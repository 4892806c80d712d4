"""Which tags the autotagger puts on instances, and which it takes off again.

A plan is the difference between an instance's tags and the tags it is to have, and working those out again from its own
answer gives the same: a second plan is empty, so our own tag events end in a look and not in a loop. Three things make
it so. Rules see only the tags that others put on (no chains, no circles). Who holds a key is written on the instance,
in the same call as the key (see `autotagged`). And where two rules name one key, the first in the policy wins, whatever
the order of the news.

A key that somebody else put on is never changed. What we put on is only taken off when mirror:until is past.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from mirroring.autotagged import SYSTEM_PREFIX, held, listing, longest, until_of
from mirroring.matching import Condition, conditions, first_miss
from mirroring.model import (
    AUTOTAGGED_TAG,
    OPT_OUT_TAG,
    TAG_VALUE_LENGTH,
    TAGS_PER_RESOURCE,
    UNTIL_TAG,
    Instance,
    Tags,
    Unwanted,
    stamp,
)
from mirroring.policy import AutotagRule, Finding, Policy

_ENDING = frozenset({"shutting-down", "terminated"})


@dataclass(frozen=True)
class FindingEvent:
    """A GuardDuty finding about an instance."""

    instance: str
    severity: float
    type: str
    id: str = ""


@dataclass(frozen=True)
class PutTags:
    instance: str
    tags: Tags  # only what is new or differs
    rule: str  # names of the rules that ask for it, separated by commas
    reason: str


@dataclass(frozen=True)
class RemoveTags:
    instance: str
    tags: Tags  # as they were seen: one that somebody changes meanwhile stays
    reason: str


@dataclass(frozen=True)
class TagPlan:
    """Removes first: a removed tag makes room for a new one."""

    put: tuple[PutTags, ...] = ()
    remove: tuple[RemoveTags, ...] = ()
    passed: tuple[Unwanted, ...] = ()  # without an instance: about a rule


def plan_tags(
    policy: Policy,
    instances: Iterable[Instance],
    now: datetime,
    *,
    allowed: Collection[str],
    findings: Sequence[FindingEvent] = (),
) -> TagPlan:
    """Applying the plan and planning again, with the same findings or with none, gives an empty one."""
    rules = [_ready(rule, allowed) for rule in policy.autotag]
    passed = [Unwanted("", "", reason) for rule in rules for reason in rule.refused]
    put: list[PutTags] = []
    remove: list[RemoveTags] = []
    about: dict[str, list[FindingEvent]] = {}
    for finding in findings:
        about.setdefault(finding.instance, []).append(finding)
    for instance in sorted(instances, key=lambda instance: instance.id):
        if reason := _left_alone(instance):
            passed.append(Unwanted(instance.id, "", reason, evident=True))
            continue
        end = _settle(instance, rules, about.get(instance.id, ()), now, allowed)
        passed += (Unwanted(instance.id, "", reason) for reason in end.passed)
        before, after = instance.tags, end.tags
        if new := {key: after[key] for key in sorted(after) if before.get(key) != after[key]}:
            put.append(_put(instance.id, new, end))
        if gone := {key: before[key] for key in sorted(before.keys() - after.keys())}:
            remove.append(RemoveTags(instance.id, gone, end.ended or "nothing of ours is left"))
    return TagPlan(tuple(put), tuple(remove), tuple(passed))


def finding_of(event: Mapping[str, Any]) -> FindingEvent | None:
    """The finding that an EventBridge event carries, if it is one about an instance."""
    if event.get("source") != "aws.guardduty" or event.get("detail-type") != "GuardDuty Finding":
        return None
    detail = _mapping(event.get("detail"))
    instance = _mapping(_mapping(detail.get("resource")).get("instanceDetails")).get("instanceId")
    severity, kind = detail.get("severity"), detail.get("type")
    if not (isinstance(instance, str) and instance and isinstance(kind, str)):
        return None
    if isinstance(severity, bool) or not isinstance(severity, int | float):
        return None
    return FindingEvent(instance, float(severity), kind, str(detail.get("id", "")))


@dataclass(frozen=True)
class _Rule:
    """A rule, ready to be asked of many instances."""

    name: str
    match: tuple[Condition, ...]
    bar: tuple[Condition, ...] | None
    tags: Tags  # those that may be put on
    finding: Finding | None
    refused: tuple[str, ...]  # one sentence for each tag that may not


@dataclass
class _End:
    """The tags that an instance is to have, as they come together."""

    tags: dict[str, str]
    stays: set[str]  # of the keys in `tags`, those that we put on
    goes: set[str]  # the same, to be taken off with mirror:until
    asked: dict[str, str] = field(default_factory=dict)  # key: the rule that asks for it
    finding: str = ""  # why mirror:until is put on
    ended: str = ""  # why something goes
    passed: list[str] = field(default_factory=list)


def _ready(rule: AutotagRule, allowed: Collection[str]) -> _Rule:
    match = conditions(rule.match) if rule.match else ()
    bar = conditions(rule.except_) if rule.except_ else None
    tags = {key: value for key, value in rule.tags.items() if key in allowed}
    remedy = "the stack does not grant it; add it to the stack's autotag keys, or take it out of the rule"
    refused = (f"autotag rule {rule.name} cannot put on {key}: {remedy}" for key in rule.tags if key not in allowed)
    return _Rule(rule.name, match, bar, tags, rule.finding, tuple(refused))


def _left_alone(instance: Instance) -> str:
    if instance.state in _ENDING:
        return f"the instance is {instance.state}"
    if OPT_OUT_TAG in instance.tags:
        return f"the instance bears {OPT_OUT_TAG}"
    return ""


def _settle(
    instance: Instance,
    rules: Sequence[_Rule],
    findings: Sequence[FindingEvent],
    now: datetime,
    allowed: Collection[str],
) -> _End:
    end = _begin(instance.tags)
    theirs = {key: value for key, value in end.tags.items() if key not in end.stays | end.goes}
    until = until_of(instance.tags)
    if until is None or until <= now:
        until = None
        _expire(end, instance.tags, allowed)
    else:
        end.tags[UNTIL_TAG] = instance.tags[UNTIL_TAG]
    put_on = {key: end.tags[key] for key in end.goes} if until else {}
    seen = replace(instance, tags=theirs)
    meant = [rule for rule in rules if first_miss(rule.match, seen) is None and not _barred(rule, seen)]
    triggered = _triggered(meant, findings)
    if triggered and UNTIL_TAG not in instance.tags and not _room(end, UNTIL_TAG):
        end.passed.append(f"a finding asks for {UNTIL_TAG}, but the instance has {TAGS_PER_RESOURCE} tags")
        triggered = {}
    _extend(end, triggered, until, now)
    acting = {rule.name for rule in meant if rule.finding is None} | triggered.keys()
    for key, (value, rule) in _wanted(rules, acting, put_on).items():
        _add(end, key, value, rule)
    if own := listing(end.stays, end.goes):
        end.tags[AUTOTAGGED_TAG] = own
    return end


def _begin(tags: Tags) -> _End:
    """An instance's tags without our own account of them, and what that says as far as it is still true."""
    plain = {key: value for key, value in tags.items() if key not in (AUTOTAGGED_TAG, UNTIL_TAG)}
    ours = held(tags)
    return _End(plain, set(ours.stays), set(ours.goes))


def _barred(rule: _Rule, instance: Instance) -> bool:
    return rule.bar is not None and first_miss(rule.bar, instance) is None


def _triggered(meant: Iterable[_Rule], findings: Sequence[FindingEvent]) -> dict[str, tuple[FindingEvent, timedelta]]:
    """By rule: the finding that it acts on (of several the gravest), and for how long."""
    triggered: dict[str, tuple[FindingEvent, timedelta]] = {}
    for rule in meant:
        if rule.finding is None:
            continue
        if fit := [finding for finding in findings if _is_of(rule.finding, finding)]:
            gravest = max(fit, key=lambda finding: (finding.severity, finding.type, finding.id))
            triggered[rule.name] = gravest, rule.finding.keep
    return triggered


def _is_of(asked: Finding, finding: FindingEvent) -> bool:
    return finding.severity >= asked.severity and any(
        fnmatchcase(finding.type, kind.replace("[", "[[]")) for kind in asked.types
    )


def _extend(
    end: _End, triggered: Mapping[str, tuple[FindingEvent, timedelta]], until: datetime | None, now: datetime
) -> None:
    if not triggered:
        return
    rule, (finding, keep) = max(triggered.items(), key=lambda item: item[1][1])
    moment = (now + keep).astimezone(UTC)
    if until is None or moment > until:
        end.tags[UNTIL_TAG] = stamp(moment)
        end.asked[UNTIL_TAG] = rule
        end.finding = f"GuardDuty: {finding.type}, severity {finding.severity:g}; mirrored until {stamp(moment)}"


def _wanted(rules: Sequence[_Rule], acting: Collection[str], put_on: Tags) -> dict[str, tuple[str, _Rule]]:
    """What each key is to be, and by which rule. The first rule wins.

    A finding rule still asks for the keys that it put on, as long as mirror:until is ahead: the value tells which rule
    that was, and so a later finding cannot take a key from an earlier rule.
    """
    wanted: dict[str, tuple[str, _Rule]] = {}
    for rule in rules:
        for key, value in rule.tags.items():
            if rule.name in acting or (rule.finding is not None and put_on.get(key) == value):
                wanted.setdefault(key, (value, rule))
    return wanted


def _expire(end: _End, tags: Tags, allowed: Collection[str]) -> None:
    """Drop what goes with mirror:until. What a rule asks for again comes back, and then nothing is taken off."""
    if UNTIL_TAG in tags:
        end.ended = f"{UNTIL_TAG} {tags[UNTIL_TAG]!r} has passed"
    elif end.goes:
        end.ended = f"put on for a finding, and {UNTIL_TAG} is gone"
    for key in sorted(end.goes):
        if key in allowed:
            del end.tags[key]
            end.goes.discard(key)
        else:
            end.passed.append(f"{key}, put on for a finding, has expired, but the stack does not grant its removal")


def _add(end: _End, key: str, value: str, rule: _Rule) -> None:
    ours = end.stays | end.goes
    if key not in ours:
        if key in end.tags:
            if end.tags[key] != value:
                end.passed.append(f"{rule.name} asks for {key}={value}, but somebody else put on {key}={end.tags[key]}")
            return
        if not _room(end, key, AUTOTAGGED_TAG):
            end.passed.append(f"{rule.name} asks for {key}, but the instance has {TAGS_PER_RESOURCE} tags")
            return
        if longest((*ours, key)) > TAG_VALUE_LENGTH:
            end.passed.append(f"{rule.name} asks for {key}, but {AUTOTAGGED_TAG} has no room to list it")
            return
    end.tags[key] = value
    end.asked[key] = rule.name
    (end.goes if rule.finding else end.stays).add(key)
    (end.stays if rule.finding else end.goes).discard(key)


def _room(end: _End, *keys: str) -> bool:
    """Whether the instance may bear these as well, beside its own tags and our account of those that we put on."""
    account = {AUTOTAGGED_TAG} if end.stays or end.goes else set()
    return sum(not key.startswith(SYSTEM_PREFIX) for key in end.tags.keys() | account | set(keys)) <= TAGS_PER_RESOURCE


def _put(instance: str, tags: Tags, end: _End) -> PutTags:
    rules = ", ".join(dict.fromkeys(end.asked[key] for key in tags if key in end.asked))
    reason = f"asked for by {rules}" if rules else "what we put on was taken off by hand, or has expired"
    return PutTags(instance, tags, rules, end.finding or reason)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
