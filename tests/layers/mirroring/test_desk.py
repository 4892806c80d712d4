"""A command at work: where it prints, and the exit code that answers come to."""

import io
import json

import pytest

from mirroring.cli import parse
from mirroring.desk import DONE, FAULTY, Desk, Outside, print_answers, version
from mirroring.diagnosis import Answer, Outcome
from tests.layers.mirroring.program import Clock


def desk(*more: str) -> tuple[Desk, io.StringIO, io.StringIO]:
    clock, out, err = Clock(), io.StringIO(), io.StringIO()
    options = parse(["plan", "--stack", "payments", "--worker-groups", "a", *more], {})
    return Desk(options, Outside(out, err, {}, clock, clock.sleep)), out, err


def test_a_desk_works_for_the_stack_that_its_options_name() -> None:
    made, _, _ = desk("--autotag-keys", "env")
    assert made.bench.owner == "payments"
    assert made.bench.environment.worker_groups == {"a"}
    assert made.bench.environment.autotag_keys == frozenset({"env"})


def test_results_are_on_standard_output_and_words_on_standard_error() -> None:
    made, out, err = desk()
    made.json({"naïve": {"b", "a"}})
    made.say("[red]as it is[/]")
    assert out.getvalue() == '{\n  "naïve": [\n    "a",\n    "b"\n  ]\n}\n'
    assert err.getvalue() == "mirrorctl: [red]as it is[/]\n"


@pytest.mark.parametrize(("outcome", "code"), [(Outcome.OK, DONE), (Outcome.WARNING, DONE), (Outcome.FAILED, FAULTY)])
def test_only_what_failed_is_a_fault(outcome: Outcome, code: int) -> None:
    answers = [Answer(Outcome.OK, "policy", "valid"), Answer(outcome, "filter", "looked at")]
    made, out, _ = desk()
    assert print_answers(made, answers) == code
    assert "looked at" in out.getvalue()
    made, out, _ = desk("--json")
    assert print_answers(made, answers) == code
    assert [one["outcome"] for one in json.loads(out.getvalue())["answers"]] == ["ok", outcome]


def test_a_file_has_no_version() -> None:
    assert version("/stack/policy", 3) == "/stack/policy version 3"
    assert version("policy.yaml", 0) == "policy.yaml"
