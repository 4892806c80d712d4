"""Which sources of the policy the stack may serve, asked of AWS by dry runs before the first change.

IAM is the boundary that was drawn when the stack was deployed: targets and filters with its tag, and perhaps some VPCs.
A source that names anything beyond it is left alone entirely, and the others go on.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Protocol

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

#: Most dry runs of one check. What lies beyond them is refused when it is tried.
PROBES = 100
FORBIDDEN = "UnauthorizedOperation"


class Gate(Protocol):
    def may_create(self, session: Session) -> Refused | None: ...


class Permissions:
    """Remembers, by source, what was refused."""

    def __init__(self, gate: Gate, owner: str, clock: Callable[[], datetime]) -> None:
        self._gate = gate
        self._owner = owner
        self._refused = Refusals(clock)

    def check(self, wanted: Wanted, world: World) -> None:
        """One dry run for each target, filter and VPC that a source would use."""
        probes = _probes(wanted, world, self._owner)
        for source, _, _ in probes:
            self._refused.discard(source)
        for source, vpc, session in probes[:PROBES]:
            refused = self._gate.may_create(session)
            if refused is not None and refused.code == FORBIDDEN:
                self._refused.add(source, _remedy(source, vpc, session, refused, self._owner))

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
        return replace(
            plan,
            create=tuple(one for one in plan.create if one.session.interface not in untouched),
            modify=tuple(one for one in plan.modify if one.after.interface not in untouched),
            delete=tuple(one for one in plan.delete if one.session.interface not in untouched),
            findings=(*plan.findings, *findings),
        )


def _probes(wanted: Wanted, world: World, owner: str) -> list[tuple[str, str, Session]]:
    """Source, VPC, and a session to try."""
    found: dict[tuple[str, str, str, str], tuple[str, str, Session]] = {}
    for wish in wanted.wishes.values():
        vpc = world.instances[wish.instance].vpc
        for target in _known(wish.targets, world):
            if wish.filter in world.filters:
                key = (wish.source, target, wish.filter, vpc)
                found.setdefault(key, (wish.source, vpc, _sample(wish, target, owner)))
    return [found[key] for key in sorted(found)]


def _known(targets: Iterable[str], world: World) -> list[str]:
    return [target for target in targets if target in world.targets]


def _sample(wish: Wish, target: str, owner: str) -> Session:
    tags = {OWNER_TAG: owner, SOURCE_TAG: wish.source}
    return Session(
        "", wish.interface, target, wish.filter, wish.number, wish.vni, wish.packet_length, wish.instance, tags
    )


def _remedy(source: str, vpc: str, session: Session, refused: Refused, owner: str) -> str:
    return (
        f"Source {source} may not mirror {vpc} to {session.target} through {session.filter}"
        f" ({refused.message or refused.code}): tag target and filter {STACK_TAG}={owner},"
        " name the VPC in the stack's parameters, or change the policy."
    )
