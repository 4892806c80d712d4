from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirroring.matching import current
from mirroring.model import (
    AUTOTAGGED_TAG,
    OPT_OUT_TAG,
    TAG_VALUE_LENGTH,
    TAGS_PER_RESOURCE,
    UNTIL_TAG,
    Instance,
    Tags,
    stamp,
)
from mirroring.policy import AutotagRule, Finding, Match, Policy
from mirroring.tagging import (
    FindingEvent,
    TagPlan,
    finding_of,
    plan_tags,
)

NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
DAY = timedelta(hours=24)
ALLOWED = ("env", "team", "suspect", "seen", "long")
PORTSCAN = FindingEvent("i-1", 8.0, "Recon:EC2/Portscan", "f-1")

PROD = AutotagRule(name="prod", match=Match(names=("prod-*",)), tags={"env": "prod"})
SUSPECT = AutotagRule(
    name="suspect", tags={"suspect": "yes"}, finding=Finding(severity=7, types=("Recon:*",), keep=DAY)
)


def policy(*rules: AutotagRule) -> Policy:
    return Policy(autotag=rules)


def instance(tags: Tags | None = None, *, id: str = "i-1", state: str = "running", **more: str) -> Instance:  # noqa: A002
    return Instance(id, state, "m5.large", "vpc-1", "subnet-1", {**(tags or {}), **more})


def plan(
    rules: Sequence[AutotagRule],
    *instances: Instance,
    findings: Sequence[FindingEvent] = (),
    now: datetime = NOW,
    allowed: Sequence[str] = ALLOWED,
) -> TagPlan:
    return plan_tags(policy(*rules), instances, now, allowed=allowed, findings=findings)


def apply(plan: TagPlan, instances: Sequence[Instance]) -> list[Instance]:
    """As EC2 would: removes, then puts."""
    after = {one.id: dict(one.tags) for one in instances}
    for removal in plan.remove:
        for key, value in removal.tags.items():
            assert after[removal.instance].pop(key) == value
    for addition in plan.put:
        after[addition.instance] |= addition.tags
    return [replace(one, tags=after[one.id]) for one in instances]


def settled(
    rules: Sequence[AutotagRule], one: Instance, findings: Sequence[FindingEvent] = (), now: datetime = NOW
) -> Tags:
    """Its tags after the plan is applied; a second plan is empty."""
    (after,) = apply(plan(rules, one, findings=findings, now=now), [one])
    second = plan(rules, after, findings=findings, now=now)
    assert (second.put, second.remove) == ((), ())
    return after.tags


def test_a_match_gets_the_tag_and_the_account_of_it_in_one_call() -> None:
    (put,) = plan([PROD], instance(Name="prod-7")).put
    assert put.tags == {"env": "prod", AUTOTAGGED_TAG: "env"}
    assert (put.rule, put.reason) == ("prod", "asked for by prod")


def test_an_instance_that_does_not_match_is_left_as_it_is() -> None:
    assert plan([PROD], instance(Name="dev-7")) == TagPlan()


def test_except_bars_a_rule() -> None:
    rule = AutotagRule(name="prod", match=PROD.match, except_=Match(vpcs=("vpc-1",)), tags=PROD.tags)
    assert plan([rule], instance(Name="prod-7")) == TagPlan()
    assert plan([rule], replace(instance(Name="prod-7"), vpc="vpc-2")).put


def test_what_is_there_already_is_not_put_on_again() -> None:
    tags = settled([PROD], instance(Name="prod-7"))
    assert tags == {"Name": "prod-7", "env": "prod", AUTOTAGGED_TAG: "env"}


def test_somebody_elses_value_stays_and_is_reported() -> None:
    result = plan([PROD], instance(Name="prod-7", env="canary"))
    assert (result.put, result.remove) == ((), ())
    assert result.passed[0].reason == "prod asks for env=prod, but somebody else put on env=canary"


def test_somebody_elses_tag_of_the_same_value_is_nothing_to_report() -> None:
    assert plan([PROD], instance(Name="prod-7", env="prod")) == TagPlan()


def test_our_own_tag_is_put_right() -> None:
    assert settled([PROD], instance({AUTOTAGGED_TAG: "env"}, Name="prod-7", env="old"))["env"] == "prod"


def test_our_own_tag_stays_when_the_rule_is_gone() -> None:
    tags = {"Name": "prod-7", "env": "prod", AUTOTAGGED_TAG: "env"}
    assert settled([], instance(tags)) == tags


def test_a_key_that_was_taken_off_by_hand_is_nobodys_again() -> None:
    before = instance({AUTOTAGGED_TAG: "env team"}, team="a")
    (put,) = plan([], before).put
    assert put.tags == {AUTOTAGGED_TAG: "team"}
    assert put.reason == "what we put on was taken off by hand, or has expired"
    (removal,) = plan([], instance({AUTOTAGGED_TAG: "env"})).remove
    assert (removal.tags, removal.reason) == ({AUTOTAGGED_TAG: "env"}, "nothing of ours is left")


def test_a_list_written_by_hand_does_not_make_system_tags_ours() -> None:
    group = "aws:autoscaling:groupName"
    tags = {group: "web", UNTIL_TAG: stamp(NOW + DAY), AUTOTAGGED_TAG: f"{group} {UNTIL_TAG} {OPT_OUT_TAG} {group}"}
    assert settled([], instance(tags)) == {group: "web", UNTIL_TAG: stamp(NOW + DAY)}


def test_the_first_rule_wins_key_by_key() -> None:
    every = Match(names=("*",))
    first = AutotagRule(name="first", match=every, tags={"env": "a"})
    second = AutotagRule(name="second", match=every, tags={"env": "b", "team": "b"})
    (put,) = plan([first, second], instance(Name="x")).put
    assert (put.tags["env"], put.tags["team"], put.rule) == ("a", "b", "first, second")


def test_rules_do_not_see_what_rules_put_on() -> None:
    """Or these two would change the tag for ever, each time the other did."""
    first = AutotagRule(name="first", match=Match(tags={"env": ("a",)}), tags={"env": "b"})
    second = AutotagRule(name="second", match=Match(names=("*",)), tags={"env": "a"})
    assert settled([first, second], instance(Name="x"))["env"] == "a"


def test_a_key_that_the_stack_does_not_grant_is_reported_once() -> None:
    rule = AutotagRule(name="r", match=Match(names=("*",)), tags={"cost-centre": "1"})
    result = plan([rule], instance(Name="x"), instance(Name="y", id="i-2"))
    assert (result.put, result.remove) == ((), ())
    (passed,) = result.passed
    assert passed.instance == "" and "rule r cannot put on cost-centre: the stack does not grant it" in passed.reason


@pytest.mark.parametrize("key", ["aws:x", "AWS:x", "mirror:until", "two words"])
def test_keys_of_aws_our_own_and_those_that_no_list_holds_never_reach_a_plan(key: str) -> None:
    with pytest.raises(ValueError, match="tags"):
        AutotagRule(name="r", match=Match(names=("*",)), tags={key: "1"})


@pytest.mark.parametrize("state", ["terminated", "shutting-down"])
def test_an_instance_that_ends_is_passed_over(state: str) -> None:
    result = plan([PROD, SUSPECT], instance(Name="prod-7", state=state), findings=[PORTSCAN])
    assert (result.put, result.remove) == ((), ())
    assert (result.passed[0].reason, result.passed[0].evident) == (f"the instance is {state}", True)


@pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped"])
def test_every_other_instance_is_tagged(state: str) -> None:
    assert plan([PROD], instance(Name="prod-7", state=state)).put


def test_opted_out_is_left_alone_even_when_something_has_expired() -> None:
    tags = {OPT_OUT_TAG: "", UNTIL_TAG: stamp(NOW - DAY), "Name": "prod-7"}
    result = plan([PROD, SUSPECT], instance(tags), findings=[PORTSCAN])
    assert (result.put, result.remove) == ((), ())
    assert result.passed[0].reason == "the instance bears mirror:opt-out"


def test_fifty_tags_are_the_most_and_system_tags_do_not_count() -> None:
    full = {f"k{n}": "" for n in range(TAGS_PER_RESOURCE - 3)} | {"Name": "prod-7", "aws:x": ""}
    assert len(settled([PROD], instance(full))) == TAGS_PER_RESOURCE + 1
    result = plan([PROD], instance(full, one="more"))  # the tag would fit, our account of it would not
    assert (result.put, result.remove) == ((), ())
    assert result.passed[0].reason == "prod asks for env, but the instance has 50 tags"


def test_a_list_that_is_full_takes_no_further_key() -> None:
    ours = [f"{n:03}".ljust(60, "x") for n in range(4)]
    tags = dict.fromkeys(ours, "") | {AUTOTAGGED_TAG: " ".join(ours), "Name": "prod-7"}
    result = plan([PROD], instance(tags))
    assert (result.put, result.remove) == ((), ())
    assert result.passed[0].reason == "prod asks for env, but mirror:autotagged has no room to list it"


def test_a_finding_puts_on_tags_for_a_time() -> None:
    (put,) = plan([SUSPECT], instance(), findings=[PORTSCAN]).put
    assert put.tags == {"suspect": "yes", UNTIL_TAG: stamp(NOW + DAY), AUTOTAGGED_TAG: "mirror:until suspect"}
    assert put.rule == "suspect"
    assert put.reason == "GuardDuty: Recon:EC2/Portscan, severity 8; mirrored until 2026-11-24T09:00:00Z"


def test_a_finding_rule_without_tags_puts_on_the_expiry_alone() -> None:
    rule = AutotagRule(name="suspect", finding=Finding(keep=DAY))
    assert settled([rule], instance(), [PORTSCAN]) == {UNTIL_TAG: stamp(NOW + DAY)}


@pytest.mark.parametrize(
    "finding",
    [
        replace(PORTSCAN, severity=6.9),
        replace(PORTSCAN, type="Backdoor:EC2/Spambot"),
        replace(PORTSCAN, instance="i-2"),
    ],
)
def test_a_finding_that_the_rule_does_not_mean_changes_nothing(finding: FindingEvent) -> None:
    assert plan([SUSPECT], instance(), findings=[finding]) == TagPlan()


def test_a_bracket_in_a_type_is_a_bracket() -> None:
    rule = AutotagRule(name="r", finding=Finding(types=("[R]*",)))
    assert plan([rule], instance(), findings=[PORTSCAN]) == TagPlan()
    assert plan([rule], instance(), findings=[replace(PORTSCAN, type="[R]econ")]).put


def test_a_finding_rule_may_be_for_some_instances_only() -> None:
    rule = AutotagRule(name="r", match=Match(names=("prod-*",)), finding=Finding())
    assert plan([rule], instance(Name="dev"), findings=[PORTSCAN]) == TagPlan()
    assert plan([rule], instance(Name="prod-1"), findings=[PORTSCAN]).put


def test_a_later_finding_extends_and_none_shortens() -> None:
    tags = settled([SUSPECT], instance(), [PORTSCAN])
    later = settled([SUSPECT], instance(tags), [PORTSCAN], now=NOW + timedelta(hours=1))
    assert later[UNTIL_TAG] == stamp(NOW + DAY + timedelta(hours=1))
    short = AutotagRule(name="suspect", tags=SUSPECT.tags, finding=Finding(keep=timedelta(hours=1)))
    assert settled([short], instance(tags), [PORTSCAN]) == tags


def test_the_same_moment_in_a_fraction_of_a_second_extends_nothing() -> None:
    settled([SUSPECT], instance(), [PORTSCAN], now=NOW + timedelta(microseconds=700_000))


def test_a_key_that_is_listed_twice_stays() -> None:
    tags = {"suspect": "yes", AUTOTAGGED_TAG: "suspect mirror:until suspect"}
    assert settled([], instance(tags)) == {"suspect": "yes", AUTOTAGGED_TAG: "suspect"}


def test_the_longest_of_several_rules_counts() -> None:
    short = AutotagRule(name="short", finding=Finding(keep=timedelta(hours=1)))
    long = AutotagRule(name="long", finding=Finding(keep=DAY))
    for rules in ([short, long], [long, short]):
        assert settled(rules, instance(), [PORTSCAN])[UNTIL_TAG] == stamp(NOW + DAY)


def test_without_a_finding_what_it_put_on_stays_until_its_time() -> None:
    tags = settled([SUSPECT], instance(), [PORTSCAN])
    assert settled([SUSPECT], instance(tags), now=NOW + DAY - timedelta(seconds=1)) == tags


def test_then_it_goes() -> None:
    tags = settled([SUSPECT], instance(Name="x", team="ours"), [PORTSCAN])
    (removal,) = plan([SUSPECT], instance(tags), now=NOW + DAY).remove
    assert list(removal.tags) == [AUTOTAGGED_TAG, UNTIL_TAG, "suspect"]
    assert removal.reason == "mirror:until '2026-11-24T09:00:00Z' has passed"
    assert settled([SUSPECT], instance(tags), now=NOW + DAY) == {"Name": "x", "team": "ours"}


def test_it_goes_when_the_rule_is_gone_too() -> None:
    tags = settled([SUSPECT], instance(), [PORTSCAN])
    assert settled([], instance(tags), now=NOW + DAY) == {}


def test_it_goes_when_somebody_took_off_the_expiry() -> None:
    tags = dict(settled([SUSPECT], instance(), [PORTSCAN]))
    del tags[UNTIL_TAG]
    (removal,) = plan([SUSPECT], instance(tags)).remove
    assert removal.reason == "put on for a finding, and mirror:until is gone"
    assert settled([SUSPECT], instance(tags)) == {}


def test_what_the_stack_no_longer_grants_cannot_go_and_stays_on_the_list() -> None:
    tags = settled([SUSPECT], instance(), [PORTSCAN])
    result = plan([SUSPECT], instance(tags), now=NOW + DAY, allowed=["env"])
    assert result.remove[0].tags.keys() == {UNTIL_TAG}
    assert "suspect, put on for a finding, has expired" in result.passed[-1].reason
    assert apply(result, [instance(tags)])[0].tags == {"suspect": "yes", AUTOTAGGED_TAG: "mirror:until suspect"}


def test_an_expiry_that_cannot_be_read_has_passed() -> None:
    assert settled([], instance({UNTIL_TAG: "next week"})) == {}


def test_an_expiry_set_by_hand_is_honoured() -> None:
    assert settled([SUSPECT], instance({UNTIL_TAG: "2026-11-24"})) == {UNTIL_TAG: "2026-11-24"}
    assert settled([SUSPECT], instance({UNTIL_TAG: "2026-11-23"})) == {}


def test_expired_and_found_again_is_one_change() -> None:
    tags = settled([SUSPECT], instance(), [PORTSCAN])
    result = plan([SUSPECT], instance(tags), findings=[PORTSCAN], now=NOW + 2 * DAY)
    assert result.remove == ()
    assert result.put[0].tags == {UNTIL_TAG: stamp(NOW + 3 * DAY)}


def test_without_room_for_the_expiry_a_finding_puts_on_nothing() -> None:
    result = plan([SUSPECT], instance({f"k{n}": "" for n in range(50)}), findings=[PORTSCAN])
    assert (result.put, result.remove) == ((), ())
    assert result.passed[0].reason == "a finding asks for mirror:until, but the instance has 50 tags"


def test_an_earlier_plain_rule_keeps_its_key_from_a_finding() -> None:
    plain = AutotagRule(name="plain", match=Match(names=("*",)), tags={"suspect": "no"})
    tags = settled([plain, SUSPECT], instance(Name="x"), [PORTSCAN])
    assert (tags["suspect"], tags[AUTOTAGGED_TAG]) == ("no", "suspect")


def test_a_later_plain_rule_gets_its_key_back_when_the_finding_is_over() -> None:
    plain = AutotagRule(name="plain", match=Match(names=("*",)), tags={"suspect": "no"})
    before = settled([SUSPECT, plain], instance(Name="x"))
    during = settled([SUSPECT, plain], instance(before), [PORTSCAN])
    after = settled([SUSPECT, plain], instance(during), now=NOW + DAY)
    assert [tags["suspect"] for tags in (before, during, after)] == ["no", "yes", "no"]
    assert after == before


def test_two_finding_rules_of_one_key_end_alike_in_either_order() -> None:
    def rule(name: str, kind: str) -> AutotagRule:
        return AutotagRule(name=name, tags={"suspect": name}, finding=Finding(types=(kind,), keep=DAY))

    rules = [rule("first", "Recon:*"), rule("second", "Backdoor:*")]
    backdoor = replace(PORTSCAN, type="Backdoor:EC2/Spambot")
    ends = [
        settled(rules, instance(settled(rules, instance(), [one])), [other])
        for one, other in ((PORTSCAN, backdoor), (backdoor, PORTSCAN))
    ]
    assert ends[0] == ends[1] == settled(rules, instance(), [backdoor, PORTSCAN])
    assert ends[0]["suspect"] == "first"


# The shape is GuardDuty's own, lower camel; tags are key and value there (facts: control plane, 2.6).
FINDING_EVENT: dict[str, Any] = {
    "version": "0",
    "id": "cd2d702e-ab31-411b-9344-793ce56b1bc7",
    "detail-type": "GuardDuty Finding",
    "source": "aws.guardduty",
    "detail": {
        "id": "f-1",
        "type": "Recon:EC2/Portscan",
        "severity": 8,
        "resource": {"resourceType": "Instance", "instanceDetails": {"instanceId": "i-1"}},
    },
}


def test_reads_a_finding() -> None:
    assert finding_of(FINDING_EVENT) == PORTSCAN


@pytest.mark.parametrize(
    "event",
    [
        {},
        {**FINDING_EVENT, "source": "aws.ec2"},
        {**FINDING_EVENT, "detail-type": "GuardDuty Malware Protection Object Scan Result"},
        {**FINDING_EVENT, "detail": "text"},
        {**FINDING_EVENT, "detail": {**FINDING_EVENT["detail"], "resource": {"resourceType": "AccessKey"}}},
        {**FINDING_EVENT, "detail": {**FINDING_EVENT["detail"], "resource": {"instanceDetails": {"instanceId": ""}}}},
        {**FINDING_EVENT, "detail": {**FINDING_EVENT["detail"], "severity": "high"}},
        {**FINDING_EVENT, "detail": {**FINDING_EVENT["detail"], "severity": True}},
        {**FINDING_EVENT, "detail": {**FINDING_EVENT["detail"], "type": None}},
    ],
)
def test_what_is_no_finding_about_an_instance_is_none(event: Mapping[str, Any]) -> None:
    assert finding_of(event) is None


# Properties, over worlds that are small enough to be full of clashes.

KEYS = st.sampled_from(ALLOWED)
VALUES = st.sampled_from(["a", "b", "yes"])
NAMES = st.sampled_from(["*", "a*", "b"])
MATCHES = st.one_of(
    st.builds(lambda name: Match(names=(name,)), NAMES),
    st.builds(lambda key, value: Match(tags={key: (value,)}), KEYS, VALUES),
)
FINDINGS = st.builds(
    Finding,
    severity=st.sampled_from([1.0, 7.0]),
    types=st.sampled_from([("*",), ("Recon:*",)]),
    keep=st.sampled_from([timedelta(hours=1), DAY]),
)
RULES = st.lists(
    st.one_of(
        st.tuples(MATCHES, st.none() | MATCHES, st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), st.none()),
        st.tuples(st.none() | MATCHES, st.none() | MATCHES, st.dictionaries(KEYS, VALUES, max_size=3), FINDINGS),
    ),
    max_size=5,
).map(
    lambda many: tuple(
        AutotagRule(name=f"r{n}", match=match, except_=bar, tags=tags, finding=finding)
        for n, (match, bar, tags, finding) in enumerate(many)
    )
)
MOMENTS = st.sampled_from([stamp(NOW - DAY), stamp(NOW), stamp(NOW + DAY), "2026-12-01", "never"])
LISTS = st.lists(st.sampled_from([*ALLOWED, UNTIL_TAG, "aws:x", "Name"]), max_size=6).map(" ".join)
CROWDS = st.sampled_from([0, 0, 44, 46, 47, 48, 49])
LONG = {f"{n}".ljust(58, "x"): "" for n in range(4)}


@st.composite
def instances(draw: st.DrawFn, name: str = "i-1") -> Instance:
    tags = draw(st.dictionaries(KEYS | st.just("Name"), VALUES, max_size=5))
    listed = draw(st.none() | LISTS)
    if draw(st.booleans()):
        tags |= LONG
        listed = " ".join([listed or "", *LONG])
    if listed is not None:
        tags[AUTOTAGGED_TAG] = listed[:TAG_VALUE_LENGTH]
    if draw(st.booleans()):
        tags[UNTIL_TAG] = draw(MOMENTS)
    crowd = draw(CROWDS)
    tags |= {f"k{n}": "" for n in range(max(0, crowd - len(tags)))}
    return Instance(name, draw(st.sampled_from(["running", "stopped", "pending"])), "m5.large", tags=tags)


EVENTS = st.lists(
    st.builds(
        FindingEvent, st.just("i-1"), st.sampled_from([1.0, 8.0]), st.sampled_from(["Recon:EC2/Portscan", "Backdoor:x"])
    ),
    max_size=4,
)
ALLOWANCES = st.sampled_from([ALLOWED, ALLOWED, ("env", "team"), ()])


@settings(max_examples=300)
@given(RULES, instances(), EVENTS, ALLOWANCES, st.data())
def test_a_second_plan_is_empty_whatever_the_order_and_number_of_the_findings(
    rules: tuple[AutotagRule, ...],
    one: Instance,
    findings: list[FindingEvent],
    allowed: tuple[str, ...],
    data: st.DataObject,
) -> None:
    first = plan(rules, one, findings=findings, allowed=allowed)
    shuffled = data.draw(st.permutations(findings + findings))
    assert plan(rules, one, findings=shuffled, allowed=allowed) == first
    after = apply(first, [one])
    for again in (findings, shuffled, []):
        second = plan(rules, *after, findings=again, allowed=allowed)
        assert (second.put, second.remove) == ((), ())


@settings(max_examples=200)
@given(RULES, instances(), EVENTS, ALLOWANCES)
def test_never_touches_what_others_put_on_and_keeps_the_limits(
    rules: tuple[AutotagRule, ...], one: Instance, findings: list[FindingEvent], allowed: tuple[str, ...]
) -> None:
    result = plan(rules, one, findings=findings, allowed=allowed)
    (after,) = apply(result, [one])
    ours = set(one.tags.get(AUTOTAGGED_TAG, "").split()) | {AUTOTAGGED_TAG, UNTIL_TAG}
    for key, value in one.tags.items():
        if key not in ours or key.startswith("aws:"):
            assert after.tags[key] == value
    new = {key for put in result.put for key in put.tags} | {key for one in result.remove for key in one.tags}
    assert new <= {*allowed, AUTOTAGGED_TAG, UNTIL_TAG}
    count = sum(not key.startswith("aws:") for key in after.tags)
    assert count <= max(TAGS_PER_RESOURCE, sum(not key.startswith("aws:") for key in one.tags))
    assert len(after.tags.get(AUTOTAGGED_TAG, "")) <= TAG_VALUE_LENGTH


@settings(max_examples=200)
@given(RULES, instances(), EVENTS)
def test_when_all_has_expired_only_what_plain_rules_put_on_is_left(
    rules: tuple[AutotagRule, ...], one: Instance, findings: list[FindingEvent]
) -> None:
    one = replace(one, tags={key: value for key, value in one.tags.items() if key not in (AUTOTAGGED_TAG, UNTIL_TAG)})
    during = apply(plan(rules, one, findings=findings), [one])
    later = NOW + timedelta(days=30)
    (after,) = apply(plan(rules, *during, now=later), during)
    assert UNTIL_TAG not in after.tags
    (never,) = apply(plan(rules, one, now=later), [one])
    assert after.tags.items() >= one.tags.items()
    if len(never.tags) < TAGS_PER_RESOURCE:  # with no room to spare, a finding may have kept a plain rule out meanwhile
        assert after.tags == never.tags


@settings(max_examples=200)
@given(RULES, instances(), EVENTS, st.sampled_from([timedelta(0), timedelta(hours=1), DAY, 30 * DAY]))
def test_for_sources_a_tag_is_gone_from_the_moment_on_at_which_a_sweep_would_take_it_off(
    rules: tuple[AutotagRule, ...], one: Instance, findings: list[FindingEvent], passed: timedelta
) -> None:
    """Not only when the sweep has been there, which may take off what the stack grants."""
    tagged = apply(plan(rules, one, findings=findings), [one])
    (swept,) = apply(plan((), *tagged, now=NOW + passed, allowed=(*ALLOWED, *LONG)), tagged)
    selected = current(tagged[0], NOW + passed)
    assert selected.tags.keys() - {AUTOTAGGED_TAG} == swept.tags.keys() - {AUTOTAGGED_TAG}


@settings(max_examples=100)
@given(RULES, st.lists(instances(), min_size=2, max_size=3), EVENTS)
def test_instances_are_planned_each_for_itself(
    rules: tuple[AutotagRule, ...], many: list[Instance], findings: list[FindingEvent]
) -> None:
    named = [replace(one, id=f"i-{n}") for n, one in enumerate(many)]
    together = plan(rules, *named, findings=findings)
    apart = [plan(rules, one, findings=findings) for one in named]
    assert together.put == tuple(put for one in apart for put in one.put)
    assert together.remove == tuple(removal for one in apart for removal in one.remove)
    assert plan(rules, *reversed(named), findings=findings) == together
