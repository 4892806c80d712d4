"""Which dry runs are made, how fast, and what is left alone after a refusal."""

from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from mirroring.memory import UNSUPPORTED
from mirroring.model import (
    OWNER_TAG,
    SOURCE_TAG,
    Create,
    Delete,
    Filter,
    Instance,
    Modify,
    Plan,
    Refused,
    Session,
    Target,
    TargetKind,
    Trouble,
    Wanted,
    Wish,
    World,
)
from mirroring.pace import BURST, MARGIN, Pace
from mirroring.permissions import FORBIDDEN, PROBES, RETRIES, Permissions, sample
from mirroring.report import Action, Failure
from tests.layers.mirroring.fake_cloud import FakeTime

RATE = 2.0


@dataclass
class Gate:
    """Refuses these targets with this code."""

    refused: set[str] = field(default_factory=set)
    code: str = FORBIDDEN
    times: int = 1000
    asked: list[Session] = field(default_factory=list)

    def may_create(self, session: Session) -> Refused | None:
        self.asked.append(session)
        refused = session.target in self.refused and self.times > 0
        self.times -= refused
        return Refused("CreateTrafficMirrorSession", self.code, "") if refused else None


class Stage:
    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()
        self.time = FakeTime()
        self.start = self.time.seconds()
        pace = Pace(self.time, self.time.sleep)
        pace.at(RATE)
        self.permissions = Permissions(self.gate, "stack", pace)

    def check(self, wanted: Wanted, world: World, seconds: float = 1000.0) -> list[Failure]:
        return self.permissions.check(wanted, world, lambda: seconds - (self.time.seconds() - self.start))

    def narrowed(self, wanted: Wanted) -> Plan:
        return self.permissions.narrowed(planned(), wanted)


def wish(number: int, source: str = "web", targets: tuple[str, ...] = ("tmt-1",)) -> Wish:
    return Wish(f"eni-{number}", f"i-{number}", "m5.large", source, "", targets, "tmf-1", 1, None, None)


def wanted(*wishes: Wish) -> Wanted:
    return Wanted({one.interface: one for one in wishes})


def world(*vpcs: str) -> World:
    """Instances 0, 1, … in these VPCs."""
    instances = {f"i-{number}": Instance(f"i-{number}", "running", "m5.large", vpc) for number, vpc in enumerate(vpcs)}
    targets = {name: Target(name, TargetKind.NLB, "arn") for name in ("tmt-1", "tmt-2")}
    return World(True, frozenset(), instances, (), targets, {"tmf-1": Filter("tmf-1")})


def session(number: int) -> Session:
    return Session("", f"eni-{number}", "tmt-1", "tmf-1", 1, None, None, f"i-{number}")


def test_each_target_filter_and_vpc_of_a_source_is_tried_once_as_ours() -> None:
    stage = Stage()
    every = wanted(
        wish(0, targets=("tmt-1", "tmt-2")), wish(1, targets=("tmt-1", "tmt-2")), wish(2), wish(3, source="db")
    )
    assert stage.check(every, world("vpc-a", "vpc-a", "vpc-b", "vpc-a")) == []
    assert [(one.description, one.target) for one in stage.gate.asked] == [
        ("i-3", "tmt-1"),
        ("i-0", "tmt-1"),
        ("i-2", "tmt-1"),
        ("i-0", "tmt-2"),
    ]
    assert {one.tags[OWNER_TAG] for one in stage.gate.asked} == {"stack"}


def test_a_dry_run_asks_for_what_would_be_made() -> None:
    asked = sample(replace(wish(0), vni=7, packet_length=200), "tmt-2", "stack")
    tags = {OWNER_TAG: "stack", SOURCE_TAG: "web"}
    assert asked == Session("", "eni-0", "tmt-2", "tmf-1", 1, 7, 200, "i-0", tags)


def test_what_does_not_exist_is_not_tried() -> None:
    stage = Stage()
    lost = replace(wish(1), filter="tmf-9")
    stage.check(wanted(wish(0, targets=("tmt-9",)), lost), world("vpc-a", "vpc-a"))
    assert stage.gate.asked == []


def test_dry_runs_have_an_end_and_every_source_its_first() -> None:
    stage = Stage()
    many = PROBES + 10
    wishes = [*map(wish, range(many)), wish(many, "zoo")]
    here = world(*(f"vpc-{number:02}" for number in range(many + 1)))
    stage.check(wanted(*wishes), here)
    assert len(stage.gate.asked) == PROBES
    assert {one.tags[SOURCE_TAG] for one in stage.gate.asked} == {"web", "zoo"}


# Pace and time


def test_dry_runs_keep_to_the_budget_of_writes() -> None:
    stage = Stage()
    stage.check(wanted(*map(wish, range(PROBES))), world(*(f"vpc-{number}" for number in range(PROBES))))
    assert stage.time.slept == pytest.approx((PROBES - BURST * RATE) / RATE)


def test_no_dry_run_is_begun_that_time_does_not_allow() -> None:
    stage = Stage()
    assert stage.check(wanted(wish(0)), world("vpc-a"), seconds=MARGIN - 1) == []
    assert stage.gate.asked == []


def test_a_throttled_dry_run_is_made_again_more_slowly() -> None:
    stage = Stage(Gate({"tmt-1"}, "RequestLimitExceeded", times=1))
    assert stage.check(wanted(wish(0), wish(1)), world("vpc-a", "vpc-b")) == []
    assert [one.interface for one in stage.gate.asked] == ["eni-0", "eni-0", "eni-1"]
    assert stage.time.slept > 1


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "InternalError", "Unreachable"])
def test_a_dry_run_that_stays_without_an_answer_is_told_and_forbids_nothing(code: str) -> None:
    stage = Stage(Gate({"tmt-1"}, code))
    [failure] = stage.check(wanted(wish(0)), world("vpc-a"))
    assert len(stage.gate.asked) == 1 + RETRIES
    assert (failure.action, failure.interface, failure.instance, failure.code) == (Action.READ, "eni-0", "i-0", code)
    assert failure.text.startswith("not checked for source web: ")
    assert stage.narrowed(wanted(wish(0))) == planned()


def test_a_throttled_dry_run_is_told_if_time_runs_out_before_the_next() -> None:
    stage = Stage(Gate({"tmt-1"}, "RequestLimitExceeded"))
    [failure] = stage.check(wanted(wish(0)), world("vpc-a"), seconds=MARGIN + 0.5)
    assert failure.code == "RequestLimitExceeded"
    assert len(stage.gate.asked) == 1


# What follows


def planned() -> Plan:
    """Changes of every kind on the interfaces 0 and 1."""
    return Plan(
        create=tuple(Create(session(number), "m5.large", (), "tagged") for number in (0, 1)),
        modify=tuple(Modify(session(number), session(number), ("number",), (), "policy") for number in (0, 1)),
        delete=tuple(Delete(session(number), "surplus", evident=True) for number in (0, 1, 7)),
        kept=4,
        actual=9,
    )


def test_all_interfaces_of_a_refused_source_are_left_alone() -> None:
    stage = Stage(Gate({"tmt-2"}))
    every = wanted(wish(0), wish(1, "db", ("tmt-1", "tmt-2")))
    assert stage.check(every, world("vpc-a", "vpc-b")) == []
    left = stage.narrowed(every)
    assert [one.session.interface for one in left.create] == ["eni-0"]
    assert [one.after.interface for one in left.modify] == ["eni-0"]
    assert [one.session.interface for one in left.delete] == ["eni-0", "eni-7"]
    assert (left.kept, left.actual) == (6, 9)
    [finding] = left.findings
    assert (finding.trouble, finding.source) == (Trouble.FORBIDDEN, "db")
    for named in ("vpc-b", "tmt-2", "tmf-1", "mirror:stack=stack"):
        assert named in finding.text


def test_where_all_is_allowed_a_plan_stays_as_it_is() -> None:
    stage = Stage()
    every = wanted(wish(0), wish(1))
    stage.check(every, world("vpc-a", "vpc-a"))
    assert stage.narrowed(every) == planned()


def test_a_refusal_for_another_reason_forbids_nothing() -> None:
    stage = Stage(Gate({"tmt-1"}, "NetworkInterfaceNotSupported"))
    assert stage.check(wanted(wish(0)), world("vpc-a")) == []
    assert len(stage.gate.asked) == 1
    assert stage.narrowed(wanted(wish(0))) == planned()


def test_the_next_check_takes_a_refusal_back() -> None:
    stage = Stage(Gate({"tmt-1"}))
    stage.check(wanted(wish(0)), world("vpc-a"))
    stage.gate.refused.clear()
    stage.check(wanted(wish(0)), world("vpc-a"))
    assert stage.narrowed(wanted(wish(0))) == planned()


def test_what_a_change_was_refused_for_is_learnt_for_an_hour() -> None:
    stage = Stage()
    stage.permissions.learn("web", "CreateTrafficMirrorSession: UnauthorizedOperation")
    assert [one.session.interface for one in stage.narrowed(wanted(wish(0))).create] == ["eni-1"]
    stage.time.now += UNSUPPORTED - timedelta(seconds=1)
    assert stage.narrowed(wanted(wish(0))).findings
    stage.time.now += timedelta(seconds=1)
    assert stage.narrowed(wanted(wish(0))) == planned()
