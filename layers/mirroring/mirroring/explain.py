"""Why an instance is mirrored, or is not: the rules' own steps, then what is there and what a run would do about it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mirroring.model import SOURCE_TAG, Finding, Instance, Plan, Session, group_of, name_of, owned
from mirroring.wanted import Step


@dataclass(frozen=True)
class OnInterface:
    """What is on one interface, and what a run would make of it."""

    interface: str
    ours: bool  # whether a session of ours is there now
    sessions: tuple[str, ...]  # in words, ours and foreign ones, in the order in which packets meet them
    intent: str


@dataclass(frozen=True)
class Explanation:
    instance: Instance
    policy: str  # parameter and version, or the file
    steps: tuple[Step, ...]
    interfaces: tuple[OnInterface, ...]
    findings: tuple[Finding, ...]


def explain(
    instance: Instance,
    steps: Iterable[Step],
    sessions: Sequence[Session],
    plan: Plan,
    findings: Iterable[Finding],
    *,
    owner: str,
    policy: str,
) -> Explanation:
    """`sessions` are those on its interfaces and those of ours that name it; `findings` may be about others too."""
    steps = tuple(steps)
    attached = [interface.id for interface in instance.interfaces]
    ours = [session for session in sessions if session.description == instance.id and owned(session, owner)]
    elsewhere = dict.fromkeys(session.interface for session in ours if session.interface not in attached)
    sources = {step.rule.removeprefix("source ") for step in steps if step.passed and step.rule.startswith("source ")}
    return Explanation(
        instance,
        policy,
        steps,
        tuple(_on(interface, steps, sessions, plan, owner) for interface in [*attached, *elsewhere]),
        tuple(finding for finding in findings if _concerns(finding, instance, sources)),
    )


def lines(explanation: Explanation) -> Iterator[str]:
    """The explanation for people."""
    instance = explanation.instance
    name = f" ({name_of(instance)})" if name_of(instance) else ""
    group = f", Auto Scaling group {group_of(instance)}" if group_of(instance) else ""
    place = f", {instance.vpc}, {instance.subnet}" if instance.vpc else ""
    yield f"{instance.id}{name}: {instance.type}, {instance.state}{place}{group}"
    yield f"policy: {explanation.policy}"
    yield ""
    yield "Rules, in their order:"
    for step in explanation.steps:
        yield f"  {'yes' if step.passed else 'no ':3}  {step.rule}: {step.text}"
    for found in explanation.interfaces:
        yield ""
        yield f"{found.interface}: {'has a session of ours' if found.ours else 'has no session of ours'}"
        for session in found.sessions:
            yield f"  {session}"
        yield f"  {found.intent}"
    if explanation.findings:
        yield ""
        yield "Findings:"
        yield from (f"  {finding.trouble}: {finding.text}" for finding in explanation.findings)


def _on(interface: str, steps: Sequence[Step], sessions: Sequence[Session], plan: Plan, owner: str) -> OnInterface:
    here = sorted((session for session in sessions if session.interface == interface), key=lambda one: one.number)
    return OnInterface(
        interface,
        ours=any(owned(session, owner) for session in here),
        sessions=tuple(_session(session, owner) for session in here),
        intent=_intent(interface, steps, here, plan, owner),
    )


def _session(session: Session, owner: str) -> str:
    whose = f"our session {session.id}" if owned(session, owner) else f"foreign session {session.id}"
    source = session.tags.get(SOURCE_TAG, "")
    of = f" of source {source}" if source and owned(session, owner) else ""
    length = "" if session.packet_length is None else f", {session.packet_length} bytes of each packet"
    return (
        f"{whose}{of}: number {session.number}, target {session.target}, filter {session.filter}, "
        f"VNI {session.vni}{length}"
    )


def _intent(interface: str, steps: Sequence[Step], here: Sequence[Session], plan: Plan, owner: str) -> str:
    """What a run would do. A wished session that is not planned has a finding that says why."""
    found = [
        *(f"to be created: {one.reason}" for one in plan.create if one.session.interface == interface),
        *(f"{one.before.id} to be changed: {one.reason}" for one in plan.modify if one.after.interface == interface),
        *(f"{one.session.id} to be deleted: {one.reason}" for one in plan.delete if one.session.interface == interface),
        *(
            f"{one.session.id} held back from being deleted: {one.reason}"
            for one in plan.held
            if one.session.interface == interface
        ),
    ]
    if found:
        return "; ".join(found)
    wished = any(step.passed and step.interface == interface for step in steps)
    has = any(owned(session, owner) for session in here)
    if wished:
        return "as it is to be" if has else "wanted, but not planned: see the findings and the rules above"
    return "not wanted, but left as it is: see the findings" if has else "nothing to do"


def _concerns(finding: Finding, instance: Instance, sources: set[str]) -> bool:
    if finding.instance or finding.interface:
        return finding.instance == instance.id or finding.interface in {one.id for one in instance.interfaces}
    return not finding.source or finding.source in sources
