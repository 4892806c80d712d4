"""What a plan found that it cannot put right, in sentences with the remedy."""

from collections import Counter
from collections.abc import Iterable, Mapping

from mirroring.model import SESSIONS_PER_INTERFACE, Filter, Finding, Rule, Session, Trouble, Wish, World
from mirroring.placement import Bars, Room, full
from mirroring.policy import Source
from mirroring.shadow import overlap

type Sessions = Mapping[str, list[Session]]  # by interface


def no_slot(wish: Wish) -> Finding:
    text = f"{wish.interface} has {SESSIONS_PER_INTERFACE} foreign sessions, as many as it may: delete one"
    return _about(wish, Trouble.NO_SLOT, text)


def quarantined(wish: Wish, why: str) -> Finding:
    return _about(wish, Trouble.QUARANTINED, f"{wish.interface} is left as it is for now: {why}")


def of_targets(
    wishes: Iterable[Wish], waiting: Iterable[Wish], sources: Iterable[Source], barred: Bars, room: Room
) -> list[Finding]:
    """Once per source and target, however many interfaces are concerned. `waiting`: for one of their targets."""
    waits = Counter(wish.source for wish in waiting)
    too_full = {(wish.source, target) for wish in waiting for target in full(wish, barred, room)}
    pairs = {(wish.source, target) for wish in wishes for target in wish.targets}
    pairs |= {(source.name, target) for source in sources for target in source.targets}
    found = []
    for source, target in sorted(pairs):
        number = f" (interfaces that wait for a target: {waits[source]})" if source in waits else ""
        if target in barred:
            found.append(Finding(barred[target].trouble, barred[target].text + number, source))
        elif (source, target) in too_full:
            remedy = "name a further target in the policy, or a Network Load Balancer, which has no such limit"
            found.append(Finding(Trouble.TARGET_FULL, f"Mirror target {target} is full: {remedy}{number}", source))
    return found


def of_filters(wishes: Iterable[Wish], sources: Iterable[Source], world: World) -> list[Finding]:
    """Once per source, whether it selects something now or not."""
    found = []
    pairs = {(wish.source, wish.filter) for wish in wishes} | {(source.name, source.filter) for source in sources}
    for source, name in sorted(pairs):
        if name not in world.filters:
            text = f"Filter {name} does not exist here: name one that does in the policy"
            found.append(Finding(Trouble.FILTER_MISSING, text, source))
        elif not world.filters[name].rules:
            text = f"Filter {name} has no rule, so that nothing is mirrored: give it one"
            found.append(Finding(Trouble.FILTER_EMPTY, text, source))
    return found


def shadows(final: Iterable[tuple[Session, Wish]], foreign: Sessions, world: World) -> list[Finding]:
    """Foreign sessions in front of ours that may take packets which ours should get."""
    found = []
    for session, wish in final:
        for other in foreign.get(session.interface, ()):
            rule = _shadow(session, other, world) if other.number < session.number else None
            if rule:
                text = (
                    f"Foreign session {other.id} (number {other.number}) stands in front of ours"
                    f" (number {session.number}) on {session.interface}: {rule.direction} rule {rule.number} of its"
                    f" filter {other.filter} accepts packets that ours should get."
                    " Prefer a lower session_number, or narrow that filter"
                )
                found.append(_about(wish, Trouble.SHADOWED, text, other.id))
    return found


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=_order))


def _order(finding: Finding) -> tuple[str, ...]:
    return finding.trouble, finding.source, finding.interface, finding.session, finding.text


def _about(wish: Wish, trouble: Trouble, text: str, session: str = "") -> Finding:
    return Finding(trouble, text, wish.source, wish.instance, wish.interface, session)


def _shadow(ours: Session, theirs: Session, world: World) -> Rule | None:
    """The rule of theirs that accepts what ours should get. A filter out of sight is not accused."""
    return overlap(world.filters[ours.filter], world.filters.get(theirs.filter, Filter(theirs.filter)))
