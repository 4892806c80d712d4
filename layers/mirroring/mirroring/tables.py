"""What mirrorctl prints: values of the control plane as rich tables for people."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mirroring.diagnosis import Answer, Outcome, counted
from mirroring.model import (
    SOURCE_TAG,
    Create,
    Delete,
    Finding,
    Health,
    Modify,
    Plan,
    Session,
    Target,
    Wanted,
    World,
    owned,
)

ROWS = 100  # of changes or findings, unless told otherwise
_WIDTH = 120  # where no terminal says how wide it is
_STYLES = {"create": "green", "change": "yellow", "delete": "red"}
_WHOLE = frozenset({"change", "held back", "finding", "failed", "target", ""})  # columns that never wrap
_WITH_IDS = frozenset({"interface", "where", "what and why"})
_ID_WIDTH = 21  # of eni-0123456789abcdef0
_OUTCOMES = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.FAILED: "red"}

type _Row = tuple[str, Session, str, str]  # kind, session, what, why


@dataclass(frozen=True)
class Standing:
    """How far one source's sessions are what the policy wants."""

    source: str
    in_policy: bool
    wanted: int
    sessions: int
    create: int
    modify: int
    delete: int
    held_back: int = 0


def console(out: TextIO, environment: Mapping[str, str]) -> Console:
    """Colours on a terminal only, and never where NO_COLOR is set; as wide as COLUMNS or the terminal says."""
    width = None if out.isatty() else _WIDTH
    columns = environment.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        width = int(columns)
    return Console(
        file=out,
        width=width,
        no_color=bool(environment.get("NO_COLOR")),
        highlight=False,
        emoji=False,
        soft_wrap=False,
        _environ={key: value for key, value in environment.items() if key not in ("FORCE_COLOR", "COLUMNS")},
    )


def print_plan(to: Console, plan: Plan, names: Mapping[str, str], *, rows: int = ROWS) -> None:
    """What would be done, what a guard keeps from being done, and why."""
    kinds = (map(_deleted, plan.delete), map(_modified, plan.modify), map(_created, plan.create))
    found = [row for kind in kinds for row in _sorted(kind, names)]
    _print_changes(to, "change", found, names, rows)
    _print_changes(to, "held back", _sorted(map(_deleted, plan.held), names), names, rows)
    print_findings(to, plan.findings, rows=rows)
    to.print(summary(plan))


def _print_changes(to: Console, heading: str, found: Sequence[_Row], names: Mapping[str, str], rows: int) -> None:
    if not found:
        return
    table = _table(heading, "interface", "what and why")
    for kind, session, what, why in _cut(found, rows):
        instance = session.description
        name = f" ({names[instance]})" if names.get(instance) else ""
        where = f"{session.interface}\n{instance}{name}"
        table.add_row(f"[{_STYLES[kind]}]{kind}[/]", escape(where), escape(f"{what}\n{why}"))
    to.print(table)
    _rest(to, len(found), rows)
    to.print()


def _sorted(found: Iterable[_Row], names: Mapping[str, str]) -> list[_Row]:
    return sorted(found, key=lambda row: _order(row[1], names))


def _order(session: Session, names: Mapping[str, str]) -> tuple[bool, list[str | int], str]:
    """By the instance's name, web-2 before web-10; those without one at the end."""
    name = names.get(session.description, "")
    parts = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    return not name, parts, session.interface


def summary(plan: Plan) -> str:
    """The plan in one line."""
    counts = f"{len(plan.create):,} to create, {len(plan.modify):,} to change, {len(plan.delete):,} to delete"
    have = f"{counted(plan.desired, 'session')} wanted, {plan.actual:,} there, {plan.kept:,} stay as they are"
    if plan.held:
        counts += f", {len(plan.held):,} held back"
    elif not changes(plan):
        unmet = plan.desired != plan.kept and plan.findings
        counts = "Nothing that can be done, see the findings" if unmet else "Nothing to do"
    return f"{counts}: {have}."


def changes(plan: Plan) -> int:
    return len(plan.create) + len(plan.modify) + len(plan.delete)


def _created(change: Create) -> _Row:
    session = change.session
    vni = "" if session.vni is None else f", VNI {session.vni}"
    what = f"number {session.number} to {session.target} through {session.filter}{vni}"
    return "create", session, what, change.reason


def _modified(change: Modify) -> _Row:
    """The reason of a modification names what differs."""
    return "change", change.after, _named(change.after), change.reason


def _deleted(change: Delete) -> _Row:
    return "delete", change.session, _named(change.session), change.reason


def _named(session: Session) -> str:
    source = session.tags.get(SOURCE_TAG, "")
    return f"{session.id} of source {source}" if source else session.id


def print_findings(to: Console, findings: Sequence[Finding], *, rows: int = ROWS) -> None:
    """What cannot be put right by a plan."""
    if not findings:
        return
    table = _table("finding", "where", "what")
    for finding in _cut(findings, rows):
        where = finding.session or finding.interface or finding.instance or finding.source
        table.add_row(f"[yellow]{finding.trouble}[/]", escape(where), escape(finding.text))
    to.print(table)
    _rest(to, len(findings), rows)
    to.print()


def print_outcome(to: Console, counts: Mapping[str, int], failures: Sequence[tuple[str, str, str]]) -> None:
    """What was done: counts by verb; action, place and text of what failed."""
    if failures:
        table = _table("failed", "where", "why")
        for action, where, text in failures:
            table.add_row(f"[red]{escape(action)}[/]", escape(where), escape(text))
        to.print(table)
        to.print()
    to.print(f"{', '.join(f'{verb} {number:,}' for verb, number in counts.items())}.")


def standings(sources: Iterable[str], wanted: Wanted, world: World, plan: Plan, owner: str) -> list[Standing]:
    """Every source of the policy in its order, then those that only sessions know."""
    wishes = _tally(wish.source for wish in wanted.wishes.values())
    have = _tally(session.tags.get(SOURCE_TAG, "") for session in world.sessions if owned(session, owner))
    create = _tally(change.session.tags.get(SOURCE_TAG, "") for change in plan.create)
    modify = _tally(change.after.tags.get(SOURCE_TAG, "") for change in plan.modify)
    delete = _tally(change.session.tags.get(SOURCE_TAG, "") for change in plan.delete)
    held = _tally(change.session.tags.get(SOURCE_TAG, "") for change in plan.held)
    known = list(sources)
    return [
        Standing(
            source=name,
            in_policy=name in known,
            wanted=wishes.get(name, 0),
            sessions=have.get(name, 0),
            create=create.get(name, 0),
            modify=modify.get(name, 0),
            delete=delete.get(name, 0),
            held_back=held.get(name, 0),
        )
        for name in [*known, *sorted(have.keys() - set(known))]
    ]


def print_standings(to: Console, found: Sequence[Standing]) -> None:
    """The deletes that are held back have a column where there are any."""
    columns = ["wanted", "sessions", "to create", "to change", "to delete"]
    if held := any(one.held_back for one in found):
        columns.append("held back")
    table = _table("source", *columns, right=len(columns))
    for one in found:
        name = one.source or "(no source tag)"
        label = name if one.in_policy else f"{name} (not in the policy)"
        numbers = [one.wanted, one.sessions, one.create, one.modify, one.delete, *([one.held_back] if held else [])]
        table.add_row(escape(label), *(f"{number:,}" for number in numbers))
    to.print(table)
    to.print()


def print_targets(to: Console, targets: Sequence[Target], sessions: Sequence[Session], owner: str) -> None:
    """Health of each target, and how many sessions use it."""
    ours = _tally(session.target for session in sessions if owned(session, owner))
    others = _tally(session.target for session in sessions if not owned(session, owner))
    if not targets:
        return
    table = _table("target", "kind", "ours", "foreign", "health", right=(2, 3))
    for target in targets:
        style = "green" if target.health is Health.HEALTHY else "yellow"
        health = f"[{style}]{target.health}[/]{f': {escape(target.why)}' if target.why else ''}"
        counts = f"{ours.get(target.id, 0):,}", f"{others.get(target.id, 0):,}"
        table.add_row(target.id, target.kind, *counts, health)
    to.print(table)
    to.print()


def print_answers(to: Console, answers: Sequence[Answer]) -> None:
    """A checkup, each line with its remedy."""
    table = _table("", "about", "what")
    for answer in answers:
        remedy = f"\nremedy: {answer.remedy}" if answer.remedy else ""
        text = escape(f"{answer.text}{remedy}")
        table.add_row(f"[{_OUTCOMES[answer.outcome]}]{answer.outcome}[/]", escape(answer.about), text)
    to.print(table)
    to.print()
    counts = _tally(answer.outcome for answer in answers)
    warnings, failed = counts.get(Outcome.WARNING, 0), counts.get(Outcome.FAILED, 0)
    to.print(f"{counts.get(Outcome.OK, 0)} ok, {counted(warnings, 'warning')}, {failed} failed.")


def _table(*columns: str, right: int | tuple[int, ...] = ()) -> Table:
    """Borderless, its ids whole: a column of ids is never cut, text wraps. `right`: the last so many, or which."""
    places = range(len(columns) - right, len(columns)) if isinstance(right, int) else right
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for place, column in enumerate(columns):
        table.add_column(
            column,
            overflow="fold",
            justify="right" if place in places else "left",
            no_wrap=column in _WHOLE,
            min_width=_ID_WIDTH if column in _WITH_IDS else None,
        )
    return table


def _cut[T](rows: Sequence[T], most: int) -> Sequence[T]:
    return rows[:most] if most else rows


def _rest(to: Console, number: int, most: int) -> None:
    if most and number > most:
        to.print(f"… and {number - most:,} more: --rows 0 shows all.")


def _tally[T](values: Iterable[T]) -> dict[T, int]:
    counts: dict[T, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts
