"""Tables: readable at any width, and nothing in them that was not in the values."""

import io
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirroring import tables
from mirroring.diagnosis import Answer, Outcome
from mirroring.model import (
    OWNER_TAG,
    SOURCE_TAG,
    Create,
    Delete,
    Finding,
    Health,
    Modify,
    Plan,
    Session,
    Target,
    TargetKind,
    Trouble,
    Wanted,
    Wish,
    World,
)

WEB, ENI, TMS, TMT, TMF = (f"{kind}-0123456789abcdef0" for kind in ("i", "eni", "tms", "tmt", "tmf"))
SESSION = Session(TMS, ENI, TMT, TMF, 1, 7001, None, WEB, {OWNER_TAG: "mirror", SOURCE_TAG: "web"})
CREATE = Create(replace(SESSION, id=""), "m5.large", (), f"source web selects {WEB}")
MODIFY = Modify(SESSION, replace(SESSION, number=2), ("number",), (), "policy changed: number 1 → 2")
DELETE = Delete(SESSION, "the instance is stopped", True)
PLAN = Plan((CREATE,), (MODIFY,), (DELETE,), kept=3, desired=5, actual=6)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(draw: object, *arguments: object, columns: int = 120, **options: object) -> str:
    out = io.StringIO()
    draw(tables.console(out, {"COLUMNS": str(columns)}), *arguments, **options)  # type: ignore[operator]
    return out.getvalue()


def test_a_plan_tells_what_and_why() -> None:
    text = printed(tables.print_plan, PLAN, {WEB: "web-1"})
    assert [line.split()[0] for line in text.splitlines() if line.startswith(("create", "change ", "delete"))] == [
        "change",  # the heading
        "delete",
        "change",
        "create",
    ]
    assert f"{WEB} (web-1)" in text
    assert f"number 1 to {TMT} through {TMF}, VNI 7001" in text
    assert f"{TMS} of source web" in text
    for why in (CREATE.reason, MODIFY.reason, DELETE.reason):
        assert why in text
    assert "1 to create, 1 to change, 1 to delete: 5 sessions wanted, 6 there, 3 stay as they are." in text


def test_a_session_without_a_source_or_a_vni() -> None:
    bare = replace(SESSION, tags={}, vni=None)
    text = printed(tables.print_plan, Plan((Create(bare, "", (), ""),), (), (Delete(bare, "", True),)), {})
    assert "VNI" not in text
    assert "of source" not in text


def test_an_empty_plan_is_one_line() -> None:
    text = printed(tables.print_plan, Plan(desired=1, actual=1, kept=1), {})
    assert text == "Nothing to do: 1 session wanted, 1 there, 1 stay as they are.\n"


def test_a_session_that_waits_for_its_end_is_nothing_to_do() -> None:
    """An orphan that is minutes old is left alone, without a finding."""
    assert tables.summary(Plan(desired=0, actual=1, kept=1)).startswith("Nothing to do: 0 sessions wanted, 1 there")


def test_an_empty_plan_that_does_not_give_what_is_wanted() -> None:
    held = Plan(desired=1, actual=9, kept=9, held=(DELETE,) * 8)
    assert tables.summary(held).startswith("0 to create, 0 to change, 0 to delete, 8 held back: 1")
    stuck = Plan(desired=1, findings=(Finding(Trouble.TARGET_MISSING, "no target"),))
    assert tables.summary(stuck).startswith("Nothing that can be done, see the findings: 1 session wanted")


def test_what_is_held_back_has_a_table_of_its_own() -> None:
    held = replace(DELETE, session=replace(SESSION, id="tms-2"), reason="no source matches the instance")
    text = printed(tables.print_plan, replace(PLAN, held=(held,) * 3), {WEB: "web-1"}, rows=2)
    changes, rest = text.split("held back   interface")
    assert "tms-2" not in changes and DELETE.reason in changes
    assert rest.count("\ndelete ") == rest.count("tms-2 of source web") == rest.count(held.reason) == 2
    assert "… and 1 more: --rows 0 shows all." in rest
    assert "1 to create, 1 to change, 1 to delete, 3 held back: 5 sessions wanted" in rest
    assert "held back" not in printed(tables.print_plan, PLAN, {})


def test_a_long_plan_is_cut_and_says_so() -> None:
    plan = Plan(create=(CREATE,) * 5)
    assert "… and 3 more: --rows 0 shows all." in printed(tables.print_plan, plan, {}, rows=2)
    assert "more" not in printed(tables.print_plan, plan, {}, rows=0)


def test_rows_are_ordered_by_name_as_people_count() -> None:
    names = {f"i-{number}": f"web-{number}" for number in (10, 2, 1)}
    sessions = [replace(SESSION, description=name) for name in ("i-0", *names)]
    plan = Plan(delete=tuple(Delete(session, "", True) for session in sessions))
    lines = printed(tables.print_plan, plan, names).splitlines()
    assert [line.split()[0] for line in lines if line.strip().startswith("i-")] == ["i-1", "i-2", "i-10", "i-0"]


@settings(max_examples=25, deadline=None)
@given(st.integers(min_value=60, max_value=300))
def test_ids_stay_whole_at_any_width(columns: int) -> None:
    text = printed(tables.print_plan, PLAN, {}, columns=columns)
    for name in (ENI, WEB, TMS, TMT):
        assert name in text
    assert max(map(len, text.splitlines())) <= columns


def test_markup_in_names_is_text() -> None:
    finding = Finding(Trouble.NO_SLOT, "[red]three[/red] sessions", source="[bold]")
    text = printed(tables.print_findings, [finding])
    assert "[red]three[/red] sessions" in text
    assert "[bold]" in text


def test_without_findings_nothing_is_printed() -> None:
    assert printed(tables.print_findings, []) == ""


def test_findings_are_cut_too() -> None:
    finding = Finding(Trouble.SHADOWED, "text", session=TMS)
    assert "… and 1 more" in printed(tables.print_findings, [finding] * 2, rows=1)


def test_an_outcome() -> None:
    counts = {"Created": 1, "deleted": 2000}
    assert printed(tables.print_outcome, counts, []) == "Created 1, deleted 2,000.\n"
    text = printed(tables.print_outcome, counts, [("create", ENI, "refused")])
    assert ENI in text
    assert "refused" in text


def test_how_each_source_stands() -> None:
    wish = Wish(ENI, WEB, "m5.large", "web", "", (TMT,), TMF, 1, None, None)
    old = replace(SESSION, id="tms-2", tags={OWNER_TAG: "mirror", SOURCE_TAG: "old"})
    foreign = replace(SESSION, id="tms-3", tags={SOURCE_TAG: "web"})
    world = World(True, frozenset(), {}, (SESSION, old, foreign), {}, {})
    plan = Plan((CREATE,), (MODIFY,), (Delete(old, "", False),))
    found = tables.standings(["web", "api"], Wanted({ENI: wish}), world, plan, "mirror")
    assert found == [
        tables.Standing("web", True, wanted=1, sessions=1, create=1, modify=1, delete=0),
        tables.Standing("api", True, wanted=0, sessions=0, create=0, modify=0, delete=0),
        tables.Standing("old", False, wanted=0, sessions=1, create=0, modify=0, delete=1),
    ]
    text = printed(tables.print_standings, [*found, replace(found[0], source="", in_policy=False)])
    assert "old (not in the policy)" in text
    assert "(no source tag) (not in the policy)" in text
    assert "held back" not in text


def test_what_is_held_back_of_each_source() -> None:
    plan = Plan(held=(DELETE, DELETE))
    found = tables.standings(["web", "api"], Wanted({}), World(True, frozenset(), {}, (), {}, {}), plan, "mirror")
    assert [one.held_back for one in found] == [2, 0]
    lines = [line.split() for line in printed(tables.print_standings, found).splitlines()]
    assert lines[0][-2:] == ["held", "back"]
    assert lines[2:4] == [["web", *"000002"], ["api", *"000000"]]


def test_targets_with_their_sessions_and_health() -> None:
    targets = [
        Target(TMT, TargetKind.NLB, "arn"),
        Target("tmt-2", TargetKind.INTERFACE, "eni-9", Health.GONE, "the interface is gone: name another"),
    ]
    text = printed(tables.print_targets, targets, [SESSION, replace(SESSION, id="tms-2", tags={})], "mirror")
    assert text.splitlines()[2].split() == [TMT, "network-load-balancer", "1", "1", "healthy"]
    assert "gone: the interface is gone: name another" in text
    assert printed(tables.print_targets, [], [], "mirror") == ""


def test_answers_with_remedies_and_their_count() -> None:
    answers = [
        Answer(Outcome.OK, "policy", "valid"),
        Answer(Outcome.WARNING, "target", "cross-zone is off", "set it"),
        Answer(Outcome.FAILED, "filter", "no rule", "add one"),
    ]
    text = printed(tables.print_answers, answers)
    assert "remedy: set it" in text
    assert text.endswith("1 ok, 1 warning, 1 failed.\n")


@pytest.mark.parametrize(
    ("out", "environment", "coloured"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
        (io.StringIO(), {"TERM": "xterm", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_on_a_terminal_only(out: io.StringIO, environment: dict[str, str], coloured: bool) -> None:
    tables.print_findings(tables.console(out, environment), [Finding(Trouble.GUARD, "text")])
    assert ("\x1b[33m" in out.getvalue()) is coloured


def test_the_width_of_a_pipe_is_fixed_and_can_be_told() -> None:
    assert tables.console(io.StringIO(), {}).width == 120
    assert tables.console(io.StringIO(), {"COLUMNS": "77"}).width == 77
    assert tables.console(io.StringIO(), {"COLUMNS": "wide"}).width == 120
