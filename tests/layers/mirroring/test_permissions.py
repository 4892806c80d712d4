"""Which dry runs are made, and what is left alone after a refusal."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from mirroring.memory import UNSUPPORTED
from mirroring.model import (
    OWNER_TAG,
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
from mirroring.permissions import FORBIDDEN, PROBES, Permissions


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 23, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Gate:
    """Refuses these targets with this code."""

    refused: set[str] = field(default_factory=set)
    code: str = FORBIDDEN
    asked: list[Session] = field(default_factory=list)

    def may_create(self, session: Session) -> Refused | None:
        self.asked.append(session)
        refused = session.target in self.refused
        return Refused("CreateTrafficMirrorSession", self.code, "") if refused else None


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
    gate = Gate()
    every = wanted(
        wish(0, targets=("tmt-1", "tmt-2")), wish(1, targets=("tmt-1", "tmt-2")), wish(2), wish(3, source="db")
    )
    Permissions(gate, "stack", Clock()).check(every, world("vpc-a", "vpc-a", "vpc-b", "vpc-a"))
    assert [(one.description, one.target) for one in gate.asked] == [
        ("i-3", "tmt-1"),
        ("i-0", "tmt-1"),
        ("i-2", "tmt-1"),
        ("i-0", "tmt-2"),
    ]
    assert {one.tags[OWNER_TAG] for one in gate.asked} == {"stack"}


def test_what_does_not_exist_is_not_tried() -> None:
    gate = Gate()
    here = world("vpc-a", "vpc-a")
    lost = replace(wish(1), filter="tmf-9")
    Permissions(gate, "stack", Clock()).check(wanted(wish(0, targets=("tmt-9",)), lost), here)
    assert gate.asked == []


def test_dry_runs_have_an_end() -> None:
    gate = Gate()
    many = PROBES + 20
    here = world(*(f"vpc-{number}" for number in range(many)))
    Permissions(gate, "stack", Clock()).check(wanted(*map(wish, range(many))), here)
    assert len(gate.asked) == PROBES


def planned() -> Plan:
    """Changes of every kind on the interfaces 0 and 1."""
    return Plan(
        create=tuple(Create(session(number), "m5.large", (), "tagged") for number in (0, 1)),
        modify=tuple(Modify(session(number), session(number), ("number",), (), "policy") for number in (0, 1)),
        delete=tuple(Delete(session(number), "surplus", evident=True) for number in (0, 1, 7)),
    )


def test_all_interfaces_of_a_refused_source_are_left_alone() -> None:
    permissions = Permissions(Gate({"tmt-2"}), "stack", Clock())
    every = wanted(wish(0), wish(1, "db", ("tmt-1", "tmt-2")))
    permissions.check(every, world("vpc-a", "vpc-b"))
    left = permissions.narrowed(planned(), every)
    assert [one.session.interface for one in left.create] == ["eni-0"]
    assert [one.after.interface for one in left.modify] == ["eni-0"]
    assert [one.session.interface for one in left.delete] == ["eni-0", "eni-7"]
    [finding] = left.findings
    assert (finding.trouble, finding.source) == (Trouble.FORBIDDEN, "db")
    for named in ("vpc-b", "tmt-2", "tmf-1", "mirror:stack=stack"):
        assert named in finding.text


def test_where_all_is_allowed_a_plan_stays_as_it_is() -> None:
    permissions = Permissions(Gate(), "stack", Clock())
    every = wanted(wish(0), wish(1))
    permissions.check(every, world("vpc-a", "vpc-a"))
    assert permissions.narrowed(planned(), every) == planned()


def test_a_refusal_for_another_reason_forbids_nothing() -> None:
    permissions = Permissions(Gate({"tmt-1"}, "InvalidNetworkInterfaceID.NotFound"), "stack", Clock())
    permissions.check(wanted(wish(0)), world("vpc-a"))
    assert permissions.narrowed(planned(), wanted(wish(0))) == planned()


def test_the_next_check_takes_a_refusal_back() -> None:
    gate = Gate({"tmt-1"})
    permissions = Permissions(gate, "stack", Clock())
    permissions.check(wanted(wish(0)), world("vpc-a"))
    gate.refused.clear()
    permissions.check(wanted(wish(0)), world("vpc-a"))
    assert permissions.narrowed(planned(), wanted(wish(0))) == planned()


def test_what_a_change_was_refused_for_is_learnt_for_an_hour() -> None:
    clock = Clock()
    permissions = Permissions(Gate(), "stack", clock)
    permissions.learn("web", "CreateTrafficMirrorSession: UnauthorizedOperation")
    assert [one.session.interface for one in permissions.narrowed(planned(), wanted(wish(0))).create] == ["eni-1"]
    clock.now += UNSUPPORTED - timedelta(seconds=1)
    assert permissions.narrowed(planned(), wanted(wish(0))).findings
    clock.now += timedelta(seconds=1)
    assert permissions.narrowed(planned(), wanted(wish(0))) == planned()
