"""Judgement of what stands between a mirrored packet and its worker."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring import diagnosis
from mirroring.diagnosis import Answer, Balancer, Door, Origin, Outcome, Permission, Place, Route
from mirroring.model import Direction, Filter, Health, Refused, Rule, Target, TargetKind

OWN, DEFAULT, STATE = "/mirror/policy", "/mirror/policy-default", "/mirror/state"
ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/mirror/50dc6c495c0c9188"
ORIGIN = Origin("eni-1", "vpc-1", "subnet-1", "10.1.0.4", groups=("sg-source",))
FAR = Origin("eni-2", "vpc-2", "subnet-2", "10.2.0.4")
UDP = Permission("udp", (4789, 4789), ("10.1.0.0/16",))
PLACE = Place("vpc-1", ("10.1.16.0/20",), (Door("eni-target", ("sg-1",)),))


def outcomes(answers: list[Answer]) -> list[Outcome]:
    return [answer.outcome for answer in answers]


def texts(answers: list[Answer]) -> str:
    return "\n".join(f"{answer.text} / {answer.remedy}" for answer in answers)


def rule(direction: Direction = Direction.INGRESS, *, accept: bool = True, ipv6: bool = False) -> Rule:
    network = "::/0" if ipv6 else "0.0.0.0/0"
    return Rule(direction, 100, accept, network, network, 6)


def test_the_parameters_of_a_stack_that_runs() -> None:
    found = diagnosis.parameters({OWN: None, DEFAULT: "version: 1", STATE: "running"}, OWN, DEFAULT, STATE)
    assert outcomes(found) == [Outcome.OK] * 3
    assert "the stack's default is in force" in texts(found)


def test_a_users_own_policy_wins() -> None:
    found = diagnosis.parameters({OWN: "version: 1", DEFAULT: "version: 1", STATE: "running"}, OWN, DEFAULT, STATE)
    assert f"{OWN} exists and wins" in texts(found)


def test_where_no_stack_is_one_line_says_so() -> None:
    [found] = diagnosis.parameters({}, OWN, DEFAULT, STATE)
    assert found.outcome is Outcome.FAILED
    assert "no such stack here" in found.text


def test_a_stack_without_its_default_policy() -> None:
    found = diagnosis.parameters({STATE: "running"}, OWN, DEFAULT, STATE)
    assert outcomes(found) == [Outcome.FAILED, Outcome.OK, Outcome.OK]


@pytest.mark.parametrize(("value", "said"), [("paused", "says paused"), (None, "does not exist"), ("x", "says x")])
def test_anything_but_running_changes_nothing(value: str | None, said: str) -> None:
    *_, found = diagnosis.parameters({DEFAULT: "version: 1", STATE: value}, OWN, DEFAULT, STATE)
    assert found.outcome is Outcome.FAILED
    assert said in found.text
    assert f"--name {STATE} --type String --value running" in found.remedy


def test_what_could_not_be_read_is_told_with_the_permission_that_is_missing() -> None:
    [found] = diagnosis.unreadable([Refused("DescribeRouteTables", "UnauthorizedOperation", "no")])
    assert found.outcome is Outcome.FAILED
    assert "allow DescribeRouteTables" in found.remedy


def test_a_reference_exists_and_bears_the_stacks_tag() -> None:
    assert outcomes(diagnosis.reference("target", "tmt-1", {"mirror:stack": "mirror"}, "mirror")) == [Outcome.OK]
    [other] = diagnosis.reference("target", "tmt-1", {"mirror:stack": "other"}, "mirror")
    assert "Key=mirror:stack,Value=mirror" in other.remedy
    [missing] = diagnosis.reference("filter", "tmf-1", None, "mirror")
    assert "does not exist" in missing.text
    assert "describe-traffic-mirror-filters" in missing.remedy


@pytest.mark.parametrize(
    ("health", "outcome"),
    [
        (Health.HEALTHY, Outcome.OK),
        (Health.UNKNOWN, Outcome.WARNING),
        (Health.UNHEALTHY, Outcome.FAILED),
        (Health.NO_LISTENER, Outcome.FAILED),
        (Health.GONE, Outcome.FAILED),
    ],
)
def test_the_health_of_a_target(health: Health, outcome: Outcome) -> None:
    found = diagnosis.health(Target("tmt-1", TargetKind.NLB, ARN, health, "do this"))
    assert found.outcome is outcome
    assert "net/mirror/50dc6c495c0c9188" in found.text
    assert found.remedy == ("" if outcome is Outcome.OK else "do this")


def test_an_interface_that_is_a_target_needs_no_listener() -> None:
    found = diagnosis.health(Target("tmt-1", TargetKind.INTERFACE, "eni-1"))
    assert found.text == "network-interface eni-1 is there"


def test_cross_zone_load_balancing() -> None:
    on = diagnosis.balancer("tmt-1", Balancer(True, {}), both_directions=False)
    assert outcomes(on) == [Outcome.OK]
    [off] = diagnosis.balancer("tmt-1", Balancer(False, {}), both_directions=False)
    assert off.outcome is Outcome.WARNING
    assert "load_balancing.cross_zone.enabled=true" in off.remedy


@pytest.mark.parametrize(
    ("kind", "both", "outcome"),
    [
        ("source_ip", True, Outcome.OK),
        ("source_ip", False, Outcome.OK),
        ("", False, Outcome.OK),
        ("", True, Outcome.WARNING),
    ],
)
def test_stickiness_matters_where_both_directions_are_mirrored(kind: str, both: bool, outcome: Outcome) -> None:
    _, found = diagnosis.balancer("tmt-1", Balancer(True, {"workers": kind}), both_directions=both)
    assert found.outcome is outcome


def test_a_filter_that_lets_nothing_through() -> None:
    assert "has no rule:" in texts(diagnosis.rules(Filter("tmf-1"), [ORIGIN]))
    [found] = diagnosis.rules(Filter("tmf-1", (rule(accept=False),)), [ORIGIN])
    assert found.outcome is Outcome.FAILED
    assert "no rule that accepts" in found.text


def test_a_filter_of_requests() -> None:
    filter_ = Filter("tmf-1", (rule(),))
    assert outcomes(diagnosis.rules(filter_, [ORIGIN])) == [Outcome.OK]
    assert not diagnosis.both_directions(filter_)
    assert diagnosis.both_directions(Filter("tmf-1", (rule(), rule(Direction.EGRESS))))


def test_a_filter_of_answers_alone() -> None:
    assert "has no ingress rule" in texts(diagnosis.rules(Filter("tmf-1", (rule(Direction.EGRESS),)), []))


def test_a_filter_without_the_ip_version_of_its_sources() -> None:
    found = diagnosis.rules(Filter("tmf-1", (rule(),)), [ORIGIN, replace(FAR, ipv6=True)])
    assert outcomes(found) == [Outcome.OK, Outcome.WARNING]
    assert "source eni-2 has an IPv6 address" in texts(found)
    assert "has no IPv4 rule" in texts(diagnosis.rules(Filter("tmf-1", (rule(ipv6=True),)), [ORIGIN]))


@pytest.mark.parametrize(
    "inbound",
    [
        UDP,
        Permission("17", (4000, 5000), ("10.1.0.4/32",)),
        Permission("-1", None, ("0.0.0.0/0",)),
        Permission("udp", None, ("0.0.0.0/0",)),
        Permission("udp", (4789, 4789), groups=("sg-source",)),
    ],
)
def test_security_groups_that_admit(inbound: Permission) -> None:
    [found] = diagnosis.doors("tmt-1", PLACE, [ORIGIN], {"sg-1": [inbound]})
    assert found.outcome is Outcome.OK
    assert "from the source" in found.text


@pytest.mark.parametrize(
    "inbound",
    [
        Permission("tcp", (4789, 4789), ("0.0.0.0/0",)),
        Permission("udp", (4790, 5000), ("0.0.0.0/0",)),
        Permission("udp", (4789, 4789), ("10.9.0.0/16", "::/0")),
        Permission("udp", (4789, 4789), groups=("sg-other",)),
    ],
)
def test_security_groups_that_drop(inbound: Permission) -> None:
    [found] = diagnosis.doors("tmt-1", PLACE, [ORIGIN], {"sg-1": [inbound]})
    assert found.outcome is Outcome.FAILED
    assert "drops UDP 4789 from 1 of 1 source (10.1.0.4)" in found.text
    assert "authorize-security-group-ingress --group-id sg-1" in found.remedy


def test_many_sources_that_are_dropped_are_counted_and_some_named() -> None:
    origins = [replace(FAR, address=f"10.2.0.{last}") for last in range(1, 6)]
    [found] = diagnosis.doors("tmt-1", PLACE, [ORIGIN, *origins], {"sg-1": [UDP]})
    assert "from 5 of 6 sources (10.2.0.1, 10.2.0.2, 10.2.0.3 and 2 more)" in found.text
    [admitted] = diagnosis.doors("tmt-1", PLACE, [ORIGIN, ORIGIN], {"sg-1": [UDP]})
    assert "from all 2 sources" in admitted.text


def test_behind_a_load_balancer_the_sources_groups_are_not_seen_but_its_own_are() -> None:
    hidden = Place("vpc-1", (), (Door("i-worker", ("sg-1",), sees_groups=False, through=("sg-nlb",)),))
    of_source = Permission("udp", (4789, 4789), groups=("sg-source",))
    of_balancer = Permission("udp", (4789, 4789), groups=("sg-nlb",))
    assert outcomes(diagnosis.doors("tmt-1", hidden, [ORIGIN], {"sg-1": [of_source]})) == [Outcome.FAILED]
    assert outcomes(diagnosis.doors("tmt-1", hidden, [ORIGIN], {"sg-1": [of_balancer]})) == [Outcome.OK]


def test_what_cannot_be_known_of_a_security_group_is_a_warning() -> None:
    [unread] = diagnosis.doors("tmt-1", PLACE, [ORIGIN], {})
    assert unread.outcome is Outcome.WARNING
    listed = Permission("udp", (4789, 4789), lists=("pl-1",))
    [found] = diagnosis.doors("tmt-1", PLACE, [ORIGIN], {"sg-1": [listed]})
    assert found.outcome is Outcome.WARNING
    assert "pl-1" in found.remedy


def test_within_a_vpc_no_route_is_needed() -> None:
    [found] = diagnosis.routes("tmt-1", PLACE, [ORIGIN], {})
    assert found.outcome is Outcome.OK
    assert "1 source subnet in the target's own VPC vpc-1" in found.text


@pytest.mark.parametrize("via", ["pcx-1", "tgw-1", "vpce-1"])
def test_another_vpc_is_reached_by_peering_or_transit_gateway(via: str) -> None:
    table = [Route("10.2.0.0/16", "local"), Route("0.0.0.0/0", "igw-1"), Route("10.1.0.0/16", via)]
    [found] = diagnosis.routes("tmt-1", PLACE, [FAR], {"subnet-2": table})
    assert found == Answer(Outcome.OK, "target tmt-1", f"source subnet subnet-2 has a route by {via}")


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ([Route("10.2.0.0/16", "local")], "no route to 10.1.16.0/20"),
        ([Route("0.0.0.0/0", "igw-1")], "leads to igw-1"),
        ([Route("10.1.0.0/16", "pcx-1", active=False)], "by pcx-1 is a black hole"),
        ([Route("10.0.0.0/8", "pcx-1"), Route("10.1.0.0/16", "nat-1")], "leads to nat-1"),
        ([Route("::/0", "tgw-1")], "no route"),
        (None, "could not be read"),
    ],
)
def test_subnets_that_do_not_reach_the_target(table: list[Route] | None, fault: str) -> None:
    [found] = diagnosis.routes("tmt-1", PLACE, [FAR], {} if table is None else {"subnet-2": table})
    assert found.outcome is Outcome.FAILED
    assert fault in found.text


@given(st.permutations([Route("0.0.0.0/0", "igw-1"), Route("10.0.0.0/8", "nat-1"), Route("10.1.0.0/16", "pcx-1")]))
def test_the_most_specific_route_decides_in_any_order(table: list[Route]) -> None:
    assert outcomes(diagnosis.routes("tmt-1", PLACE, [FAR], {"subnet-2": table})) == [Outcome.OK]


def test_types_that_are_not_listed_are_a_hint() -> None:
    found = diagnosis.types({"t2.micro": 2, "m5.large": 1}, {"t2.micro"})
    assert outcomes(found) == [Outcome.WARNING]
    assert "t2.micro (2 instances)" in texts(found)
    assert outcomes(diagnosis.types({"m5.large": 1}, set())) == [Outcome.OK]
    assert "selects no instance" in texts(diagnosis.types({}, set()))


def test_what_a_dry_run_said() -> None:
    assert diagnosis.permission("ec2:X", "eni-1", None).outcome is Outcome.OK
    forbidden = diagnosis.permission("ec2:X", "eni-1", Refused("X", "UnauthorizedOperation", "no"))
    assert "allow ec2:X to these credentials" in forbidden.remedy
    other = diagnosis.permission("ec2:X", "eni-1", Refused("X", "InvalidParameterValue", "no"))
    assert other.outcome is Outcome.FAILED
    assert "correct what the answer names" in other.remedy


def test_only_failures_are_wrong() -> None:
    assert not diagnosis.wrong([Answer(Outcome.OK, "", ""), Answer(Outcome.WARNING, "", "")])
    assert diagnosis.wrong([Answer(Outcome.FAILED, "", "")])
