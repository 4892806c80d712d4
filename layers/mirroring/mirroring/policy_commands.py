"""The commands of mirrorctl about a policy as such: each looks by way of a desk, prints, and returns the exit code."""

from argparse import Namespace
from collections import Counter
from typing import Literal

from mirroring import checkup
from mirroring.desk import DONE, EVERYTHING, Desk, Outside, place_of, print_answers, version
from mirroring.diagnosis import Answer, Outcome, counted
from mirroring.legacy import convert
from mirroring.model import MirroringError
from mirroring.policy import Policy, PolicyError, check_names, check_size
from mirroring.reconcile import Decision
from mirroring.workbench import load_file, read_file


def validate(options: Namespace, outside: Outside) -> int:
    desk = Desk(options, outside)
    if options.offline:
        if not options.policy:
            raise MirroringError("--offline checks a file: name it by --policy FILE")
        policy, text = load_file(options.policy)
        answers = [*_valid(options.policy, policy), *_size(text, options.tier), *_keys(policy, options)]
    else:
        answers = _validated(desk)
    return print_answers(desk, answers)


def _validated(desk: Desk) -> list[Answer]:
    decision = desk.bench.reconciler().look(EVERYTHING)
    text = decision.in_force.text
    reader = checkup.Reader(desk.bench.client("ec2"), desk.bench.client("elbv2"))
    return [
        *in_force(decision),
        *(_size(text, desk.options.tier) if desk.options.policy or desk.options.tier else ()),
        *_keys(decision.in_force.policy, desk.options),
        *checkup.check_references(decision, reader.vpcs(decision.in_force.policy), desk.bench.owner),
        *_selected(decision),
        *checkup.probe(desk.bench.cloud, decision, desk.bench.owner),
    ]


def in_force(decision: Decision) -> list[Answer]:
    """The policy by which a run would go, after the newer ones that were refused."""
    refused = [
        Answer(Outcome.FAILED, "policy", f"{version(one.parameter, one.version)} is refused: {one.error}", "correct it")
        for one in decision.in_force.refused
    ]
    return [*refused, *_valid(place_of(decision), decision.in_force.policy)]


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


def show(options: Namespace, outside: Outside) -> int:
    """The policy alone on standard output: redirected to a file and changed there, it is not that version any more."""
    desk = Desk(options, outside)
    in_force = desk.bench.policies.read()
    for refusal in in_force.refused:
        desk.say(f"{refusal.parameter} version {refusal.version} is refused: {refusal.error}")
    if options.json:
        desk.json(
            {
                "parameter": in_force.parameter,
                "version": in_force.version,
                "paused": in_force.why_paused,
                "refused": [str(one) for one in in_force.refused],
                "policy": in_force.policy,
            }
        )
        return DONE
    print(in_force.text.rstrip("\n"), file=outside.out, flush=True)
    desk.say(f"in force is {version(in_force.parameter, in_force.version)}")
    if in_force.why_paused:
        desk.say(f"paused: {in_force.why_paused}")
    return DONE


def import_(options: Namespace, outside: Outside) -> int:
    try:
        text = convert(read_file(options.old), options.target, options.filter)
    except PolicyError as error:
        raise MirroringError(f"{options.old} cannot be converted:\n{error}") from error
    outside.out.write(text)
    return DONE
