"""The commands of mirrorctl: each looks by way of a workbench, prints, and returns the exit code."""

import json
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TextIO

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mirroring import checkup, diagnosis, plain, prices, tables
from mirroring.diagnosis import Answer, Outcome, counted
from mirroring.explain import explain, lines
from mirroring.legacy import convert
from mirroring.model import Finding, MirroringError, Refused, Scope, Trouble, owned
from mirroring.policy import Policy, PolicyError, check_names, check_size
from mirroring.reconcile import Decision
from mirroring.report import Change, Report, count
from mirroring.store import NoPolicy
from mirroring.wanted import verdict
from mirroring.workbench import Options, Workbench, load_file, read_file

DONE, FAULTY, UNUSABLE, PENDING = 0, 1, 2, 3

_EVERYTHING = Scope(everything=True, plan_only=True)
_NAMED_ONE_BY_ONE = 1000  # instances; the names of more come with a list of all
_PROGRESS_EVERY = 10.0  # seconds between lines of progress where no terminal shows a bar


@dataclass(frozen=True)
class Outside:
    """What a command sees of the machine."""

    out: TextIO
    err: TextIO
    environment: Mapping[str, str]
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]
    ask: Callable[[str], str] | None = None  # None: nobody is there to answer


class Desk:
    """One command at work: its options, its printers, its workbench."""

    def __init__(self, options: Namespace, outside: Outside) -> None:
        self.options = options
        self.outside = outside
        self.out = tables.console(outside.out, outside.environment)
        self.err = tables.console(outside.err, outside.environment)
        self.bench = Workbench(
            Options(
                options.policy,
                options.parameter,
                options.stack,
                options.profile,
                options.region,
                options.worker_groups,
                options.autotag_keys,
            ),
            outside.clock,
            outside.sleep,
        )

    def say(self, text: str) -> None:
        """On standard error, as it is."""
        print(f"mirrorctl: {text}", file=self.outside.err, flush=True)

    def json(self, value: Any) -> None:
        print(json.dumps(plain.plain(value), indent=2, ensure_ascii=False), file=self.outside.out)


# policy


def policy_validate(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    if options.offline:
        if not options.policy:
            raise MirroringError("--offline checks a file: name it by --policy FILE")
        policy, text = load_file(options.policy)
        answers = [*_valid(options.policy, policy), *_size(text, options.tier), *_keys(policy, options)]
    else:
        answers = _validated(desk)
    return _print_answers(desk, answers)


def _validated(desk: Desk) -> list[Answer]:
    decision = desk.bench.reconciler().look(_EVERYTHING)
    text = decision.in_force.text
    reader = checkup.Reader(desk.bench.client("ec2"), desk.bench.client("elbv2"))
    return [
        *_policy_in_force(decision),
        *(_size(text, desk.options.tier) if desk.options.policy or desk.options.tier else ()),
        *_keys(decision.in_force.policy, desk.options),
        *checkup.check_references(decision, reader.vpcs(decision.in_force.policy), desk.bench.owner),
        *_selected(decision),
        *checkup.probe(desk.bench.cloud, decision, desk.bench.owner),
    ]


def _policy_in_force(decision: Decision) -> list[Answer]:
    in_force = decision.in_force
    refused = [
        Answer(
            Outcome.FAILED, "policy", f"{_version(one.parameter, one.version)} is refused: {one.error}", "correct it"
        )
        for one in in_force.refused
    ]
    return [*refused, *_valid(_place(decision), in_force.policy)]


def _valid(place: str, policy: Policy) -> list[Answer]:
    what = f"{counted(len(policy.sources), 'source')}, {counted(len(policy.autotag), 'autotag rule')}"
    return [Answer(Outcome.OK, "policy", f"{place} is valid: {what}")]


def _size(text: str, tier: Literal["Standard", "Advanced"] | None) -> list[Answer]:
    size = f"{len(text.encode()):,} bytes"
    tiers: tuple[Literal["Standard", "Advanced"], ...] = (tier,) if tier else ("Standard", "Advanced")
    for name in tiers:
        try:
            check_size(text, name)
        except PolicyError as error:
            refusal = error.problems[0]
        else:
            return [Answer(Outcome.OK, "size", f"{size} fit a parameter of tier {name}")]
    return [Answer(Outcome.FAILED, "size", f"{size} are too many", refusal.remedy)]


def _keys(policy: Policy, options: Namespace) -> list[Answer]:
    """Only where it is known what the stack allows."""
    allowed = {key.strip() for key in options.autotag_keys.split(",") if key.strip()}
    if not allowed:
        return []
    problems = check_names(policy, allowed)
    return [Answer(Outcome.FAILED, one.path, f"tag key {one.value} is not allowed", one.remedy) for one in problems]


def _selected(decision: Decision) -> list[Answer]:
    found = Counter(wish.source for wish in decision.wanted.wishes.values())
    return [
        Answer(Outcome.OK, "selection", f"source {source.name} selects {counted(found[source.name], 'interface')}")
        if found[source.name]
        else Answer(
            Outcome.WARNING,
            "selection",
            f"source {source.name} selects no interface now",
            "`mirrorctl explain INSTANCE` says why an instance is not among them",
        )
        for source in decision.in_force.policy.sources
    ]


def policy_show(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    in_force = desk.bench.policies.read()
    for refusal in in_force.refused:
        desk.say(f"{refusal.parameter} version {refusal.version} is refused: {refusal.error}")
    place = _version(in_force.parameter, in_force.version)
    if options.json:
        desk.json(
            {
                "parameter": in_force.parameter,
                "version": in_force.version,
                "paused": in_force.why_paused,
                "refused": [f"{one.parameter}:{one.version}: {one.error}" for one in in_force.refused],
                "policy": in_force.policy,
            }
        )
        return DONE
    print(f"# {place}", file=outside.out)
    if in_force.why_paused:
        print(f"# paused: {in_force.why_paused}", file=outside.out)
    print(in_force.text.rstrip("\n"), file=outside.out)
    return DONE


def policy_import(options: Namespace, outside: Outside) -> int:
    try:
        text = convert(read_file(options.old), options.target, options.filter)
    except PolicyError as error:
        raise MirroringError(f"{options.old} cannot be converted:\n{error}") from error
    outside.out.write(text)
    return DONE


# plan and apply


def plan(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    report = _planned(desk)
    if options.json:
        desk.json(plain.of_plan(report))
    else:
        _print_plan(desk, report)
    pending = tables.changes(report.plan) or tables.held_back(report.findings)
    return PENDING if options.check and pending else DONE


def apply(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    if not options.yes and (options.json or outside.ask is None):
        raise MirroringError("apply asks before it changes anything, and here it cannot: pass --yes")
    reconciler = desk.bench.reconciler(deletes=options.max_deletes)
    report = _usable(desk, reconciler.run(_EVERYTHING, _no_end))
    if not options.json:
        _print_plan(desk, report)
    if report.paused or not tables.changes(report.plan):
        if report.paused:
            desk.say(f"nothing was changed: {report.why_paused}")
        if options.json:
            desk.json(plain.of_run(report))
        _tell_of_guard(desk, report)
        return FAULTY if _incomplete(report) else DONE
    if not options.yes and outside.ask is not None and outside.ask("Apply? [y/N] ").strip().lower() not in ("y", "yes"):
        desk.say("nothing was changed")
        return FAULTY
    with _Tally(desk, tables.changes(report.plan)) as tally:
        done = reconciler.run(Scope(everything=True), _no_end, on_change=tally.add)
    _print_run(desk, done, told=report.findings)
    _tell_of_guard(desk, done)
    return FAULTY if _incomplete(done) else DONE


def _incomplete(report: Report) -> bool:
    held = tables.held_back(report.findings)
    return bool(held or report.failed or report.stopped or report.paused or report.unfinished or report.everything)


def _tell_of_guard(desk: Desk, report: Report) -> None:
    if tables.held_back(report.findings):
        desk.say("if the deletes that a guard holds back are right, --max-deletes N lets N of them through")


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
    return _usable(desk, desk.bench.reconciler().run(_EVERYTHING, _no_end))


def _usable(desk: Desk, report: Report) -> Report:
    """Half a look is none: nothing is printed of a world that could not be read."""
    if report.stopped or report.everything:
        raise MirroringError(report.stopped or report.failed[0].text)
    for refusal in report.refused:
        desk.say(f"a policy is refused, an older one is in force: {refusal}")
    return report


def _print_plan(desk: Desk, report: Report) -> None:
    concerned = tables.instances(report.plan)
    found = desk.bench.cloud.instances(concerned if len(concerned) <= _NAMED_ONE_BY_ONE else None)
    names = tables.labels(found.values())
    tables.print_plan(desk.out, report.plan, names, rows=desk.options.rows)
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
    decision = desk.bench.reconciler().look(_EVERYTHING)
    owner, world, in_force = desk.bench.owner, decision.world, decision.in_force
    sources = [source.name for source in in_force.policy.sources]
    standings = tables.standings(sources, decision.wanted, world, decision.plan, owner)
    targets = [world.targets[name] for name in sorted(world.targets)]
    ours = [session for session in world.sessions if owned(session, owner)]
    foreign = len(world.sessions) - len(ours)
    if options.json:
        desk.json(
            {
                "policy": _place(decision),
                "paused": in_force.why_paused,
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
    out.print(escape(f"Policy: {_place(decision)}"))
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
        policy=_place(decision),
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
        decision = bench.reconciler().look(_EVERYTHING)
    except NoPolicy as error:
        return _print_answers(desk, [*answers, Answer(Outcome.FAILED, "policy", str(error), "see the line itself")])
    except Refused as refused:
        return _print_answers(desk, [*answers, *diagnosis.unreadable([refused])])
    reader = checkup.Reader(bench.client("ec2"), bench.client("elbv2"))
    answers += _policy_in_force(decision)
    answers += checkup.check_references(decision, reader.vpcs(decision.in_force.policy), bench.owner)
    answers += checkup.check_network(decision, reader.facts(decision))
    answers += checkup.probe(bench.cloud, decision, bench.owner)
    return _print_answers(desk, answers)


def _print_answers(desk: Desk, answers: Sequence[Answer]) -> int:
    if desk.options.json:
        desk.json(plain.of_answers(list(answers)))
    else:
        tables.print_answers(desk.out, answers)
    return FAULTY if diagnosis.wrong(answers) else DONE


def _place(decision: Decision) -> str:
    return _version(decision.in_force.parameter, decision.in_force.version)


def _version(parameter: str, version: int) -> str:
    """A file has no version."""
    return f"{parameter} version {version}" if version else parameter
