"""The guards: what a run may delete, and make, at most.

They stand between a plan and its execution, for the mistakes that no single decision shows: a policy whose selection
was emptied by a typing error, a describe that came back with nothing. A guard that trips holds back every delete, and
nothing else; the plan still tells which they are. Sessions that the world itself has ended (see `Delete.evident`) are
no sign of a mistake: a group that scales in from 200 to 20 instances is not held up by the fraction.

The limit of sessions comes last. It counts on what is deleted, so it must know what was held back.
"""

from dataclasses import replace

from mirroring.model import Finding, Plan, Trouble, World, owned
from mirroring.policy import Limits

FREE_DELETES = 5  # so few are never too large a fraction: half of four sessions is two

_REMEDY = "Look at it with `mirrorctl plan`: if it is right, `mirrorctl apply --max-deletes {}` does it once"


def guard(plan: Plan, world: World, limits: Limits, *, owner: str) -> Plan:
    """The plan, or the plan without its deletes and with a finding that says why."""
    why = _objection(plan, world, limits, owner)
    if not why:
        return plan
    number = len(plan.delete)
    finding = Finding(Trouble.GUARD, f"{number} deletes are held back: {why}")
    return replace(plan, delete=(), held=plan.delete, kept=plan.kept + number, findings=(*plan.findings, finding))


def cap(plan: Plan, limits: Limits, *, elsewhere: int = 0) -> Plan:
    """The plan with no more creates than `limits.sessions` has room for. `elsewhere`: ours outside its scope."""
    room = max(0, limits.sessions - elsewhere - plan.actual + len(plan.delete))
    beyond = len(plan.create) - room
    if beyond <= 0:
        return plan
    text = f"limits.sessions allows {limits.sessions}: {beyond} interfaces get none. Select fewer, or raise it"
    return replace(plan, create=plan.create[:room], findings=(*plan.findings, Finding(Trouble.LIMIT, text)))


def _objection(plan: Plan, world: World, limits: Limits, owner: str) -> str:
    """One sentence with the remedy, or nothing."""
    deletes = len(plan.delete)
    if not deletes:
        return ""
    if world.everything and not world.instances:
        return (
            "EC2 listed no instance at all while sessions of ours exist."
            " If that is true, delete the sessions by hand, or with the stack"
        )
    if deletes > limits.deletes:
        return f"limits.deletes allows {limits.deletes} a run. {_REMEDY.format(deletes)}"
    selected = sum(1 for delete in plan.delete if not delete.evident)
    ours = sum(1 for session in world.sessions if owned(session, owner))
    if world.everything and selected > max(FREE_DELETES, limits.delete_fraction * ours):
        return (
            f"{selected} of {ours} sessions would go because the selection changed or their instance was not listed,"
            f" and limits.delete_fraction allows {limits.delete_fraction:.0%}. {_REMEDY.format(deletes)}"
        )
    return ""
