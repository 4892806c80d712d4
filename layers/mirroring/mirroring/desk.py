"""A command of mirrorctl at work: what it was told, what it sees of the machine, and where it prints."""

import json
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TextIO

from mirroring import diagnosis, plain, tables
from mirroring.diagnosis import Answer
from mirroring.model import Scope
from mirroring.reconcile import Decision
from mirroring.workbench import Options, Workbench

DONE, FAULTY, PENDING = 0, 1, 3  # exit codes

EVERYTHING = Scope(everything=True, plan_only=True)


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


def print_answers(desk: Desk, answers: Sequence[Answer]) -> int:
    """A checkup or the like; the exit code that it comes to."""
    if desk.options.json:
        desk.json(plain.of_answers(list(answers)))
    else:
        tables.print_answers(desk.out, answers)
    return FAULTY if diagnosis.wrong(answers) else DONE


def place_of(decision: Decision) -> str:
    """Where the policy in force is written down."""
    return version(decision.in_force.parameter, decision.in_force.version)


def version(parameter: str, number: int) -> str:
    """A file has no version."""
    return f"{parameter} version {number}" if number else parameter
