"""The commands of mirrorctl about sessions: each looks by way of a desk, prints, and returns the exit code."""

import math
from argparse import Namespace
from collections.abc import Sequence

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mirroring import checkup, diagnosis, plain, policy_commands, prices, tables
from mirroring.desk import DONE, EVERYTHING, FAULTY, PENDING, Desk, Outside, place_of, print_answers, version
from mirroring.diagnosis import Answer, Outcome, counted
from mirroring.explain import explain, lines
from mirroring.model import Finding, MirroringError, Refused, Scope, Trouble, owned
from mirroring.report import Change, Report, count
from mirroring.store import NoPolicy
from mirroring.wanted import verdict

_PROGRESS_EVERY = 10.0  # seconds between lines of progress where no terminal shows a bar


# plan and apply


def plan(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    report = _planned(desk)
    if options.json:
        desk.json(plain.of_plan(report))
    else:
        _print_plan(desk, report)
    pending = tables.changes(report.plan) or report.plan.held
    return PENDING if options.check and pending else DONE


def apply(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    if not options.yes and (options.json or outside.ask is None):
        raise MirroringError("apply asks before it changes anything, and here it cannot: pass --yes")
    reconciler = desk.bench.reconciler(deletes=options.max_deletes)
    report = _usable(desk, reconciler.run(EVERYTHING, _no_end))
    if not options.json:
        _print_plan(desk, report)
    if report.paused or not tables.changes(report.plan):
        if report.paused:
            desk.say(f"nothing was changed: {report.why_paused}")
        if options.json:
            desk.json(plain.of_run(report))
        return FAULTY if _incomplete(report) else DONE
    if not options.yes and outside.ask is not None and outside.ask("Apply? [y/N] ").strip().lower() not in ("y", "yes"):
        desk.say("nothing was changed")
        return FAULTY
    with _Tally(desk, tables.changes(report.plan)) as tally:
        done = reconciler.run(Scope(everything=True), _no_end, on_change=tally.add)
    _print_run(desk, done, told=report.findings)
    return FAULTY if _incomplete(done) else DONE


def _incomplete(report: Report) -> bool:
    held = report.plan.held
    return bool(held or report.failed or report.stopped or report.paused or report.unfinished or report.everything)


def _no_end() -> float:
    return math.inf


class _Tally:
    """Progress of an apply, on standard error: a bar on a terminal, else a line now and then."""

    def __init__(self, desk: Desk, planned: int) -> None:
        self._desk = desk
        self._planned = planned
        self._done = 0
        self._told = desk.outside.clock()
        self._bar: Progress | None = None

    def __enter__(self) -> "_Tally":
        if self._desk.err.is_terminal:
            columns = (TextColumn("applying"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=self._desk.err, transient=True)
            self._bar.add_task("", total=self._planned)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            self._desk.say(f"interrupted after {counted(self._done, 'change')}; `mirrorctl plan` shows what is left")

    def add(self, _: Change) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0])
        elif (self._desk.outside.clock() - self._told).total_seconds() >= _PROGRESS_EVERY:
            self._told = self._desk.outside.clock()
            self._desk.say(f"{self._done:,} of {self._planned:,} changes done")


def _planned(desk: Desk) -> Report:
    return _usable(desk, desk.bench.reconciler().run(EVERYTHING, _no_end))


def _usable(desk: Desk, report: Report) -> Report:
    """Half a look is none: nothing is printed of a world that could not be read."""
    if report.stopped or report.everything:
        raise MirroringError(report.stopped or report.failed[0].text)
    for refusal in report.refused:
        desk.say(f"a policy is refused, an older one is in force: {refusal}")
    return report


def _print_plan(desk: Desk, report: Report) -> None:
    tables.print_plan(desk.out, report.plan, desk.bench.names, rows=desk.options.rows)
    if report.why_paused:
        desk.out.print(escape(f"Paused: {report.why_paused}."))


def _print_run(desk: Desk, report: Report, told: Sequence[Finding]) -> None:
    """What was done. Findings that were told with the plan are not told again."""
    if desk.options.json:
        desk.json(plain.of_run(report))
        return
    counts = {
        "Created": len(report.created),
        "changed": len(report.modified),
        "deleted": len(report.deleted),
        "failed": len(report.failed),
    }
    failures = [(str(one.action), one.interface or one.instance, one.text) for one in report.failed]
    new = [finding for finding in report.findings if finding not in told]
    tables.print_findings(desk.out, new, rows=desk.options.rows)
    tables.print_outcome(desk.out, counts, failures)
    if report.stopped:
        desk.say(f"ended early: {report.stopped}")
    if report.paused:
        desk.say("ended early: it was paused meanwhile")
    if report.unfinished:
        desk.say(f"{counted(len(report.unfinished), 'instance')} still to be looked at: run it again")


# status, explain, checkup


def status(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    decision = desk.bench.reconciler().look(EVERYTHING)
    owner, world, in_force = desk.bench.owner, decision.world, decision.in_force
    sources = [source.name for source in in_force.policy.sources]
    standings = tables.standings(sources, decision.wanted, world, decision.plan, owner)
    targets = [world.targets[name] for name in sorted(world.targets)]
    ours = [session for session in world.sessions if owned(session, owner)]
    foreign = len(world.sessions) - len(ours)
    if options.json:
        desk.json(
            {
                "policy": place_of(decision),
                "paused": in_force.why_paused,
                "refused": [str(one) for one in in_force.refused],
                "sources": standings,
                "targets": targets,
                "sessions": len(ours),
                "foreign_sessions": foreign,
                "findings": decision.plan.findings,
                "cost_per_hour": {
                    "amount": prices.per_hour(len(ours)),
                    "price": prices.LIST_PRICE,
                },
            }
        )
        return DONE
    out = desk.out
    out.print(escape(f"Policy: {place_of(decision)}"))
    for one in in_force.refused:
        out.print(escape(f"Refused: {version(one.parameter, one.version)}: {one.error}"))
    if in_force.why_paused:
        out.print(escape(f"Paused: {in_force.why_paused}."))
    out.print()
    tables.print_standings(out, standings)
    tables.print_targets(out, targets, world.sessions, owner)
    tables.print_findings(out, decision.plan.findings, rows=options.rows)
    shadowed = count(decision.plan.findings, Trouble.SHADOWED)
    out.print(f"{counted(len(ours), 'session')} of ours, {foreign:,} foreign; {shadowed:,} possibly shadowed.")
    out.print(escape(f"Cost: {prices.estimate(len(ours))}."))
    return DONE


def explain_instance(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    name = options.instance
    scope = Scope(instances=frozenset({name}), plan_only=True)
    reconciler = desk.bench.reconciler()
    decision = reconciler.look(scope)
    instance = decision.world.instances.get(name)
    if instance is None:
        raise MirroringError(f"there is no instance {name} in this account and Region")
    report = _usable(desk, reconciler.run(scope, _no_end))
    found = explain(
        instance,
        verdict(decision.in_force.policy, instance, desk.bench.now, decision.barred),
        decision.world.sessions,
        report.plan,
        report.findings,
        owner=desk.bench.owner,
        policy=place_of(decision),
    )
    if options.json:
        desk.json(found)
        return DONE
    for line in lines(found):
        desk.out.print(escape(line), soft_wrap=True)
    if report.why_paused:
        desk.out.print(escape(f"Paused: {report.why_paused}."), soft_wrap=True)
    return DONE


def check_up(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    bench = desk.bench
    answers = diagnosis.parameters(*bench.parameters())
    try:
        decision = bench.reconciler().look(EVERYTHING)
    except NoPolicy as error:
        return print_answers(desk, [*answers, Answer(Outcome.FAILED, "policy", str(error), "see the line itself")])
    except Refused as refused:
        return print_answers(desk, [*answers, *diagnosis.unreadable([refused])])
    reader = checkup.Reader(bench.client("ec2"), bench.client("elbv2"))
    answers += policy_commands.in_force(decision)
    answers += checkup.check_references(decision, reader.vpcs(decision.in_force.policy), bench.owner)
    answers += checkup.check_network(decision, reader.facts(decision))
    answers += checkup.probe(bench.cloud, decision, bench.owner)
    return print_answers(desk, answers)
