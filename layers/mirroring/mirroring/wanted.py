"""What the policy wants of each interface: a session, or none and why.

An instance passes one gate after the other: its state, the worker fleet, the policy's except, the first source that
matches, that source's share and windows. Then each of its interfaces is looked at. Every gate leaves a step, which
`mirrorctl explain` prints; the step that stops an instance is the reason that a plan gives. So both are one code.

`paused` is not looked at: a plan says what would be done, and who applies it holds back.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from mirroring.matching import Condition, conditions, current, first_miss, in_share
from mirroring.model import (
    UNTIL_TAG,
    Instance,
    Interface,
    Target,
    TargetKind,
    Unwanted,
    Wanted,
    Wish,
    World,
    group_of,
    stamp,
)
from mirroring.policy import Policy, Source
from mirroring.support import may_be_source
from mirroring.windows import is_open, next_change

_TERMINATED = frozenset({"shutting-down", "terminated"})
_STOPPED = frozenset({"stopping", "stopped"})
_NAMED = 3  # sources that a reason names before it only counts them


@dataclass(frozen=True)
class Barred:
    """What is never mirrored, whatever the policy says: it would mirror what is mirrored already."""

    groups: frozenset[str] = frozenset()  # the worker fleet's Auto Scaling groups
    targets: frozenset[str] = frozenset()  # interfaces that are mirror targets


@dataclass(frozen=True, slots=True)
class Step:
    """What one rule says of an instance, or of one of its interfaces."""

    rule: str
    passed: bool
    text: str  # one sentence, without its full stop
    interface: str = ""
    evident: bool = False  # see Unwanted


def bar(groups: Iterable[str], targets: Iterable[Target]) -> Barred:
    """Of the worker fleet's groups, and of all mirror targets there are."""
    interfaces = (target.resource for target in targets if target.kind is TargetKind.INTERFACE)
    return Barred(frozenset(groups), frozenset(interfaces))


def wanted(policy: Policy, world: World, now: datetime, *, barred: Barred) -> Wanted:
    rules = _rules(policy, now, barred)
    wishes: dict[str, Wish] = {}
    unwanted: list[Unwanted] = []
    for instance in world.instances.values():
        for result in _decide(rules, instance, []):
            if isinstance(result, Wish):
                wishes[result.interface] = result
            else:
                unwanted.append(result)
    return Wanted(wishes, tuple(unwanted))


def verdict(policy: Policy, instance: Instance, now: datetime, barred: Barred) -> list[Step]:
    """The steps to the decision about one instance. It is mirrored where a passed step names an interface."""
    steps = [_PAUSED] if policy.paused else []
    _decide(_rules(policy, now, barred), instance, steps)
    return steps


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A source, with all of it that is the same for every instance worked out once."""

    source: Source
    match: tuple[Condition, ...]
    exempt: tuple[Condition, ...] | None
    matched: Step
    shared: Step
    unshared: Step
    window: Step
    result: str


@dataclass(frozen=True, slots=True)
class _Rules:
    now: datetime
    delete_on_stop: bool
    exempt: tuple[Condition, ...] | None
    candidates: tuple[_Candidate, ...]
    barred: Barred


def _rules(policy: Policy, now: datetime, barred: Barred) -> _Rules:
    return _Rules(
        now=now,
        delete_on_stop=policy.delete_on_stop,
        exempt=None if policy.except_ is None else conditions(policy.except_),
        candidates=tuple(_candidate(source, now) for source in policy.sources),
        barred=barred,
    )


def _candidate(source: Source, now: datetime) -> _Candidate:
    name = f"source {source.name}"
    share = f"{source.share:g} % of the instances that source {source.name} matches"
    return _Candidate(
        source=source,
        match=conditions(source.match),
        exempt=None if source.except_ is None else conditions(source.except_),
        matched=Step(name, True, "it matches, and no source before it does"),
        shared=Step(f"{name}: share", True, f"it is among the {share}"),
        unshared=Step(f"{name}: share", False, f"it is not among the {share}"),
        window=_window(source, now),
        result=f"source {source.name} mirrors it to {' or else '.join(source.targets)} through {source.filter}",
    )


def _window(source: Source, now: datetime) -> Step:
    rule = f"source {source.name}: windows"
    if not source.windows:
        return Step(rule, True, "the source has none: it mirrors at any time")
    change = next_change(source.windows, now)
    until = "" if change is None else f" until {stamp(change)}"
    if is_open(source.windows, now):
        return Step(rule, True, f"one of them is open{until}")
    return Step(rule, False, f"source {source.name} is outside its windows{until}", evident=True)


def _decide(rules: _Rules, instance: Instance, steps: list[Step]) -> list[Wish | Unwanted]:
    """Appends the steps taken: the decision is the last one's, or the interfaces' own."""
    candidate = _chosen(rules, instance, steps)
    if candidate is None:
        return [_unwanted(instance, steps[-1])]
    if not instance.interfaces:
        steps.append(_NO_INTERFACE)
        return [_unwanted(instance, _NO_INTERFACE)]
    results: list[Wish | Unwanted] = []
    for interface in instance.interfaces:
        step = _interface(rules, candidate, interface)
        steps.append(step)
        results.append(_wish(candidate.source, instance, interface) if step.passed else _unwanted(instance, step))
    return results


def _unwanted(instance: Instance, step: Step) -> Unwanted:
    return Unwanted(instance.id, step.interface, step.text, step.evident)


def _chosen(rules: _Rules, instance: Instance, steps: list[Step]) -> _Candidate | None:
    """The source that mirrors the instance. If there is none, the last step says why."""
    standing = current(instance, rules.now)
    if not _pass(_gates(rules, standing), steps):
        return None
    candidate = _first_match(rules, standing, steps)
    if candidate is None:
        if standing is not instance and _would_match(rules, instance):
            steps.append(_expired(instance))
        return None
    return candidate if _pass(_own_gates(candidate, standing), steps) else None


def _pass(gates: Iterator[Step], steps: list[Step]) -> bool:
    for step in gates:
        steps.append(step)
        if not step.passed:
            return False
    return True


def _gates(rules: _Rules, instance: Instance) -> Iterator[Step]:
    """The rules that hold for every source."""
    yield _state(rules, instance)
    yield _fleet(rules, instance)
    if rules.exempt is not None:
        yield _exempt(rules.exempt, instance)


def _own_gates(candidate: _Candidate, instance: Instance) -> Iterator[Step]:
    """The rules of the source that matches: where they end, no other source is asked."""
    if not may_be_source(instance.type):
        yield _unlisted(instance)
    yield candidate.shared if in_share(instance.id, candidate.source.share) else candidate.unshared
    yield candidate.window


_PAUSED = Step("paused", True, "the policy is paused: whatever follows, nothing is changed")
_NO_INTERFACE = Step("interfaces", False, "EC2 shows no interface of the instance")
_RUNNING = Step("state", True, "the instance is running")
_NO_FLEET = Step("worker fleet", True, "the instance is not one of the worker fleet")


def _state(rules: _Rules, instance: Instance) -> Step:
    state = instance.state
    if state == "running":
        return _RUNNING
    if state in _TERMINATED:
        return Step("state", False, f"the instance is {state}", evident=True)
    if state in _STOPPED and rules.delete_on_stop:
        return Step("state", False, f"the instance is {state}, and delete_on_stop is true", evident=True)
    return Step("state", True, f"the instance is {state}: a session that it has is kept, none is made")


def _fleet(rules: _Rules, instance: Instance) -> Step:
    group = group_of(instance)
    if group and group in rules.barred.groups:
        return Step("worker fleet", False, f"the instance is one of the worker fleet (Auto Scaling group {group})")
    return _NO_FLEET


def _exempt(exempt: tuple[Condition, ...], instance: Instance) -> Step:
    missed = first_miss(exempt, instance)
    if missed is None:
        return Step("except", False, "the policy's except matches the instance")
    return Step("except", True, f"the policy's except does not match the instance: {missed.miss(instance)}")


def _first_match(rules: _Rules, instance: Instance, steps: list[Step]) -> _Candidate | None:
    refusals = []
    for candidate in rules.candidates:
        why = _refusal(candidate, instance)
        if not why:
            steps.append(candidate.matched)
            return candidate
        refusals.append(f"{candidate.source.name} ({why})")
        steps.append(Step(candidate.matched.rule, False, f"it does not match: {why}"))
    steps.append(Step("sources", False, _unmatched(refusals)))
    return None


def _refusal(candidate: _Candidate, instance: Instance) -> str:
    """Why a source does not take the instance, as a clause; empty if it does."""
    missed = first_miss(candidate.match, instance)
    if missed is not None:
        return missed.miss(instance)
    if candidate.exempt is not None and first_miss(candidate.exempt, instance) is None:
        return "its except matches"
    return ""


def _unmatched(refusals: list[str]) -> str:
    if not refusals:
        return "the policy has no source"
    more = len(refusals) - _NAMED
    others = f" and {more} more" if more > 0 else ""
    return f"no source matches the instance: {', '.join(refusals[:_NAMED])}{others}"


def _would_match(rules: _Rules, instance: Instance) -> bool:
    return any(not _refusal(candidate, instance) for candidate in rules.candidates)


def _expired(instance: Instance) -> Step:
    """Evident, as a closed window is: the time is over that was set."""
    until = instance.tags.get(UNTIL_TAG)
    what = "gone" if until is None else f"past ({until})"
    text = f"its tag {UNTIL_TAG} is {what}, and no source matches the instance without what went with it"
    return Step(UNTIL_TAG, False, text, evident=True)


def _unlisted(instance: Instance) -> Step:
    text = f"AWS does not list {instance.type} among the instance types that can be mirrored: EC2 may refuse it"
    return Step("instance type", True, text)


def _interface(rules: _Rules, candidate: _Candidate, interface: Interface) -> Step:
    rule = f"interface {interface.id}"
    if why := _unfit(rules.barred, interface):
        return Step(rule, False, why, interface.id, evident=True)
    if why := _not_meant(candidate.source, interface):
        return Step(rule, False, why, interface.id)
    return Step(rule, True, candidate.result, interface.id)


def _unfit(barred: Barred, interface: Interface) -> str:
    """Why an interface is never mirrored, whatever the source says; empty if it may be."""
    if interface.kind != "interface":
        return f"an interface of type {interface.kind} cannot be mirrored"
    if interface.requester_managed:
        return "an AWS service manages the interface"
    if interface.id in barred.targets:
        return "the interface is a mirror target"
    return ""


def _not_meant(source: Source, interface: Interface) -> str:
    """Why the source leaves out this interface of an instance that it mirrors; empty if it does not."""
    if source.interfaces == "all":
        return ""
    if source.interfaces == "primary" and interface.card:
        return f"source {source.name} mirrors the primary interface, not one of network card {interface.card}"
    indexes = (0,) if source.interfaces == "primary" else source.interfaces
    if interface.device_index in indexes:
        return ""
    mirrored = " or ".join(str(index) for index in sorted(set(indexes)))
    return f"source {source.name} mirrors device index {mirrored}, not {interface.device_index}"


def _wish(source: Source, instance: Instance, interface: Interface) -> Wish:
    return Wish(
        interface=interface.id,
        instance=instance.id,
        instance_type=instance.type,
        source=source.name,
        description=source.description,
        targets=source.targets,
        filter=source.filter,
        number=source.session_number,
        vni=source.vni,
        packet_length=source.packet_length,
        create=instance.state == "running",
    )
