"""Why an instance is mirrored, or is not."""

from mirroring.explain import Explanation, explain, lines
from mirroring.model import (
    OWNER_TAG,
    SOURCE_TAG,
    Create,
    Delete,
    Finding,
    Instance,
    Interface,
    Modify,
    Plan,
    Session,
    Trouble,
)
from mirroring.wanted import Step

ENI = Interface("eni-1", "i-1", 0, "vpc-1", "subnet-1")
WEB = Instance("i-1", "running", "m5.large", "vpc-1", "subnet-1", {"Name": "web-1"}, (ENI,))
OURS = Session("tms-1", "eni-1", "tmt-1", "tmf-1", 2, 7, 8500, "i-1", {OWNER_TAG: "mirror", SOURCE_TAG: "web"})
FOREIGN = Session("tms-9", "eni-1", "tmt-9", "tmf-9", 1, 9, None, "", {SOURCE_TAG: "theirs"})
MATCHED = Step("source web", True, "it matches")
YES = Step("interface eni-1", True, "source web mirrors it", "eni-1")
NO = Step("interface eni-1", False, "the interface is a mirror target", "eni-1")


def explained(
    steps: tuple[Step, ...] = (MATCHED, YES),
    sessions: tuple[Session, ...] = (),
    plan: Plan = Plan(),  # noqa: B008  a value
    findings: tuple[Finding, ...] = (),
    instance: Instance = WEB,
) -> Explanation:
    return explain(instance, steps, sessions, plan, findings, owner="mirror", policy="/mirror/policy version 3")


def intent(**given: object) -> str:
    return explained(**given).interfaces[0].intent  # type: ignore[arg-type]


def test_rules_sessions_and_findings_are_told_in_their_order() -> None:
    found = explained(
        sessions=(OURS, FOREIGN), findings=(Finding(Trouble.SHADOWED, "a foreign session.", interface="eni-1"),)
    )
    assert list(lines(found)) == [
        "i-1 (web-1): m5.large, running, vpc-1, subnet-1",
        "policy: /mirror/policy version 3",
        "",
        "Rules, in their order:",
        "  yes  source web: it matches",
        "  yes  interface eni-1: source web mirrors it",
        "",
        "eni-1: has a session of ours",
        "  foreign session tms-9: number 1, target tmt-9, filter tmf-9, VNI 9",
        "  our session tms-1 of source web: number 2, target tmt-1, filter tmf-1, VNI 7, 8500 bytes of each packet",
        "  as it is to be",
        "",
        "Findings:",
        "  shadowed: a foreign session.",
    ]


def test_an_instance_of_a_group_that_is_gone_from_its_vpc() -> None:
    gone = Instance("i-1", "terminated", "m5.large", tags={"aws:autoscaling:groupName": "web"})
    assert next(lines(explained((), instance=gone))) == "i-1: m5.large, terminated, Auto Scaling group web"


def test_what_a_run_would_do() -> None:
    create = Create(OURS, "m5.large", (), "source web selects i-1")
    assert intent(plan=Plan(create=(create,))) == "to be created: source web selects i-1"
    modify = Modify(OURS, OURS, ("number",), (), "policy changed: number 2 → 1")
    assert intent(plan=Plan(modify=(modify,)), sessions=(OURS,)) == "tms-1 to be changed: policy changed: number 2 → 1"
    delete = Delete(OURS, "the instance is stopped", True)
    assert intent(plan=Plan(delete=(delete,)), sessions=(OURS,)) == "tms-1 to be deleted: the instance is stopped"


def test_what_a_run_would_leave() -> None:
    assert intent(sessions=(OURS,)) == "as it is to be"
    assert intent() == "wanted, but not planned: see the findings and the rules above"
    assert intent(steps=(NO,)) == "nothing to do"
    assert intent(steps=(NO,), sessions=(FOREIGN,)) == "nothing to do"
    assert intent(steps=(NO,), sessions=(OURS,)) == "not wanted, but left as it is: see the findings"


def test_an_interface_that_was_detached_still_shows_its_session() -> None:
    detached = Session("tms-2", "eni-2", "tmt-1", "tmf-1", 1, 7, None, "i-1", {OWNER_TAG: "mirror"})
    found = explained(sessions=(detached,))
    assert [one.interface for one in found.interfaces] == ["eni-1", "eni-2"]
    assert [one.ours for one in found.interfaces] == [False, True]


def test_findings_about_others_are_left_out() -> None:
    about = {
        "here": Finding(Trouble.NO_SLOT, "here", source="web", interface="eni-1"),
        "instance": Finding(Trouble.QUARANTINED, "instance", instance="i-1"),
        "source": Finding(Trouble.TARGET_MISSING, "source", source="web"),
        "all": Finding(Trouble.GUARD, "all"),
        "other": Finding(Trouble.NO_SLOT, "other", instance="i-2", interface="eni-9"),
        "other source": Finding(Trouble.TARGET_MISSING, "other source", source="api"),
    }
    found = explained(findings=tuple(about.values()))
    assert [finding.text for finding in found.findings] == ["here", "instance", "source", "all"]


def test_a_delete_that_is_held_back_is_told_as_that() -> None:
    plan = Plan(held=(Delete(OURS, "the instance is stopped", True),))
    assert intent(sessions=(OURS,), plan=plan) == "tms-1 held back from being deleted: the instance is stopped"
