"""Which sources of the policy the stack may serve, asked of AWS by dry runs before the first change.

IAM is the boundary that was drawn when the stack was deployed: targets and filters with its tag, and perhaps some VPCs.
A source that names anything beyond it is left alone entirely, and the others go on. What no dry run asked, or none
answered, is refused when it is tried, and learnt from that.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from mirroring.answers import Answer, answer
from mirroring.memory import Refusals
from mirroring.model import (
    OWNER_TAG,
    SOURCE_TAG,
    STACK_TAG,
    Finding,
    Plan,
    Refused,
    Session,
    Trouble,
    Wanted,
    Wish,
    World,
)
from mirroring.pace import Pace
from mirroring.repair import asked_for
from mirroring.report import Action, Failure

#: Most dry runs of one check: AWS counts them as writes.
PROBES = 20
#: Tries of one after the first, where AWS is too busy to answer.
RETRIES = 2
FORBIDDEN = "UnauthorizedOperation"


class Gate(Protocol):
    def may_create(self, session: Session) -> Refused | None: ...


@dataclass(frozen=True)
class _Probe:
    """A session to try, on behalf of a source in a VPC."""

    source: str
    vpc: str
    session: Session


class Permissions:
    """Remembers, by source, what was refused."""

    def __init__(self, gate: Gate, owner: str, pace: Pace) -> None:
        self._gate = gate
        self._owner = owner
        self._pace = pace
        self._refused = Refusals(pace.clock)

    def check(self, wanted: Wanted, world: World, remaining: Callable[[], float]) -> list[Failure]:
        """One dry run for each target, filter and VPC that a source would use; those that AWS did not answer."""
        probes = _probes(wanted, world, self._owner)
        for probe in probes:
            self._refused.discard(probe.source)
        failed = []
        for probe in probes[:PROBES]:
            refused = self._try(probe.session, remaining)
            if refused is None:
                continue
            given = answer(refused.operation, refused.code)
            if refused.code == FORBIDDEN:
                self._refused.add(probe.source, _remedy(probe, refused, self._owner))
            elif given is Answer.RETRY:
                session, text = probe.session, f"not checked for source {probe.source}: {refused}"
                failed.append(Failure(Action.READ, session.interface, session.description, refused.code, given, text))
        return failed

    def _try(self, session: Session, remaining: Callable[[], float]) -> Refused | None:
        """The last answer; none either where time is short: the run then ends before its first write."""
        refused = None
        for _ in range(1 + RETRIES):
            if not self._pace.wait(remaining):
                return refused
            self._pace.spend()
            refused = self._gate.may_create(session)
            if refused is None or answer(refused.operation, refused.code) is not Answer.RETRY:
                return refused
            self._pace.heed(refused)
        return refused

    def learn(self, source: str, text: str) -> None:
        """A change was refused: another container's check, or none, came before."""
        self._refused.add(source, f"Source {source} is left alone for an hour: {text}")

    def narrowed(self, plan: Plan, wanted: Wanted) -> Plan:
        """The plan without what it would do on interfaces of sources that may not be served."""
        sources = {wish.source for wish in wanted.wishes.values()}
        held = {source: why for source in sorted(sources) if (why := self._refused.why(source))}
        if not held:
            return plan
        untouched = {wish.interface for wish in wanted.wishes.values() if wish.source in held}
        findings = (Finding(Trouble.FORBIDDEN, why, source=source) for source, why in held.items())
        modify = tuple(one for one in plan.modify if one.after.interface not in untouched)
        delete = tuple(one for one in plan.delete if one.session.interface not in untouched)
        return replace(
            plan,
            create=tuple(one for one in plan.create if one.session.interface not in untouched),
            modify=modify,
            delete=delete,
            kept=plan.kept + len(plan.modify) - len(modify) + len(plan.delete) - len(delete),
            findings=(*plan.findings, *findings),
        )


def sample(wish: Wish, target: str, owner: str) -> Session:
    """As AWS would be asked for it, for a dry run."""
    return replace(asked_for(wish, target, wish.number), tags={OWNER_TAG: owner, SOURCE_TAG: wish.source})


def _probes(wanted: Wanted, world: World, owner: str) -> list[_Probe]:
    """The first of each source come first, so that none goes without."""
    found: dict[tuple[str, str, str, str], _Probe] = {}
    for wish in wanted.wishes.values():
        vpc = world.instances[wish.instance].vpc
        for target in _known(wish.targets, world):
            if wish.filter in world.filters:
                key = (wish.source, target, wish.filter, vpc)
                found.setdefault(key, _Probe(wish.source, vpc, sample(wish, target, owner)))
    rounds: Counter[str] = Counter()
    ranked = []
    for key in sorted(found):
        ranked.append((rounds[found[key].source], key))
        rounds[found[key].source] += 1
    return [found[key] for _, key in sorted(ranked)]


def _known(targets: Iterable[str], world: World) -> list[str]:
    return [target for target in targets if target in world.targets]


def _remedy(probe: _Probe, refused: Refused, owner: str) -> str:
    return (
        f"Source {probe.source} may not mirror {probe.vpc} to {probe.session.target} through {probe.session.filter}"
        f" ({refused.message or refused.code}): tag target and filter {STACK_TAG}={owner},"
        " name the VPC in the stack's parameters, or change the policy."
    )
