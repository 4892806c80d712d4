"""What is wanted of instances in every state, of every kind of interface, and the reason where nothing is."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from textwrap import dedent
from time import process_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.matching import in_share
from mirroring.model import (
    AUTOTAGGED_TAG,
    GROUP_TAG,
    UNTIL_TAG,
    Instance,
    Interface,
    Target,
    TargetKind,
    Unwanted,
    Wanted,
    Wish,
    World,
)
from mirroring.policy import Policy, load
from mirroring.tagging import FindingEvent, plan_tags
from mirroring.wanted import Barred, Step, bar, verdict, wanted

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)  # a Monday
VPC, SUBNET = "vpc-00000000000000001", "subnet-00000000000000001"
TARGET, SECOND, FILTER = "tmt-00000000000000001", "tmt-00000000000000002", "tmf-00000000000000001"
NOTHING = Barred()
STATES = ("pending", "running", "stopping", "stopped", "shutting-down", "terminated")


def policy(sources: str, rest: str = "") -> Policy:
    """With defaults that every source needs."""
    head = f"version: 1\ndefaults:\n  target: {TARGET}\n  filter: {FILTER}\n"
    return load(head + dedent(rest) + "sources:\n" + dedent(sources))


WEB = """
- name: web
  match: {tags: {app: web}}
"""


def instance(
    number: int = 1,
    *,
    state: str = "running",
    tags: Mapping[str, str] | None = None,
    indexes: tuple[int, ...] = (0,),
    instance_type: str = "m5.large",
    **interface: Any,
) -> Instance:
    name = f"i-{number:017x}"
    interfaces = tuple(Interface(f"eni-{number:x}-{index}", name, index, VPC, SUBNET) for index in indexes)
    interfaces = tuple(replace(one, **interface) for one in interfaces)
    return Instance(name, state, instance_type, VPC, SUBNET, {"app": "web"} if tags is None else tags, interfaces)


def world(*instances: Instance) -> World:
    by_id = {one.id: one for one in instances}
    return World(True, frozenset(), by_id, (), {}, {})


def decide(policy: Policy, *instances: Instance, barred: Barred = NOTHING) -> Wanted:
    return wanted(policy, world(*instances), NOW, barred=barred)


def why(policy: Policy, one: Instance, barred: Barred = NOTHING) -> Unwanted:
    """Of an instance of which nothing is wanted, for one reason."""
    decided = decide(policy, one, barred=barred)
    assert decided.wishes == {}
    [unwanted] = decided.unwanted
    return unwanted


def test_a_wish_says_all_that_the_source_says() -> None:
    asked = policy(f"""
        - name: web
          description: the shop
          match: {{tags: {{app: web}}}}
          target: [{TARGET}, {SECOND}]
          vni: 77
          session_number: 5
          packet_length: 1500
    """)
    assert decide(asked, instance()) == Wanted(
        {
            "eni-1-0": Wish(
                interface="eni-1-0",
                instance=instance().id,
                instance_type="m5.large",
                source="web",
                description="the shop",
                targets=(TARGET, SECOND),
                filter=FILTER,
                number=5,
                vni=77,
                packet_length=1500,
                create=True,
            )
        }
    )


def test_no_instance_no_wish() -> None:
    assert decide(policy(WEB)) == Wanted({})


# Sources


def test_an_instance_that_no_source_matches() -> None:
    asked = policy("""
        - name: web
          match: {tags: {app: web}}
        - name: api
          match: {tags: {app: api, env: prod}}
    """)
    other = instance(tags={"app": "batch"})
    web, api = 'its tag app is "batch", not "web"', 'its tag app is "batch", not "api"'
    reason = f"no source matches the instance: web ({web}), api ({api})"
    assert why(asked, other) == Unwanted(other.id, "", reason)


def test_many_sources_are_counted_not_named() -> None:
    asked = policy("".join(f"- {{name: s{number}, match: {{tags: {{t{number}: '*'}}}}}}\n" for number in range(5)))
    reason = (
        "no source matches the instance: s0 (it has no tag t0), s1 (it has no tag t1), s2 (it has no tag t2) and 2 more"
    )
    assert why(asked, instance()).reason == reason


def test_a_policy_without_sources_wants_nothing() -> None:
    assert why(load("version: 1"), instance()) == Unwanted(instance().id, "", "the policy has no source")


def test_the_first_source_that_matches_decides() -> None:
    asked = policy("""
        - name: first
          match: {tags: {app: web}}
        - name: second
          match: {tags: {app: '*'}}
    """)
    decided = decide(asked, instance(1), instance(2, tags={"app": "api"}))
    assert {wish.instance[-1]: wish.source for wish in decided.wishes.values()} == {"1": "first", "2": "second"}


def test_what_a_source_excepts_goes_on_to_the_next() -> None:
    asked = policy("""
        - name: first
          match: {tags: {app: web}}
          except: {tags: {canary: '*'}}
        - name: second
          match: {tags: {app: web}}
    """)
    canary = instance(2, tags={"app": "web", "canary": ""})
    decided = decide(asked, instance(1), canary)
    assert {wish.instance[-1]: wish.source for wish in decided.wishes.values()} == {"1": "first", "2": "second"}


def test_an_excepted_instance_without_a_next_source() -> None:
    asked = policy("""
        - name: web
          match: {tags: {app: web}}
          except: {tags: {canary: '*'}}
    """)
    unwanted = why(asked, instance(tags={"app": "web", "canary": ""}))
    assert unwanted.reason == "no source matches the instance: web (its except matches)"
    assert not unwanted.evident


def test_the_except_of_the_policy_wins_over_every_source() -> None:
    asked = policy(WEB, "except: {tags: {canary: '*'}}\n")
    unwanted = why(asked, instance(tags={"app": "web", "canary": ""}))
    assert unwanted == Unwanted(instance().id, "", "the policy's except matches the instance")
    assert decide(asked, instance()).wishes


# Share

SHARED = """
- name: web
  match: {tags: {app: web}}
  share: 10
- name: rest
  match: {tags: {app: '*'}}
"""


def test_outside_the_share_nothing_is_mirrored_not_even_by_the_next_source() -> None:
    instances = [instance(number) for number in range(100)]
    decided = decide(policy(SHARED), *instances)
    assert {wish.source for wish in decided.wishes.values()} == {"web"}
    assert {wish.instance for wish in decided.wishes.values()} == {one.id for one in instances if in_share(one.id, 10)}
    assert {(unwanted.reason, unwanted.evident) for unwanted in decided.unwanted} == {
        ("it is not among the 10 % of the instances that source web matches", False)
    }
    assert len(decided.wishes) + len(decided.unwanted) == 100


# Windows


def windows(days: str, hours: str = 'from: "09:00", to: "17:00"') -> str:
    return f"""
- name: web
  match: {{tags: {{app: web}}}}
  windows: [{{days: {days}, {hours}, zone: Europe/Berlin}}]
- name: rest
  match: {{tags: {{app: '*'}}}}
"""


def test_an_open_window_mirrors() -> None:
    """8:00 UTC is 9:00 in Berlin: the first minute."""
    assert [wish.source for wish in decide(policy(windows("[mon]")), instance()).wishes.values()] == ["web"]


def test_a_window_that_never_closes_names_no_end() -> None:
    every = policy(windows("[mon, tue, wed, thu, fri, sat, sun]", 'from: "00:00", to: "24:00"'))
    texts = {step.rule: step.text for step in verdict(every, instance(), NOW, NOTHING)}
    assert texts["source web: windows"] == "one of them is open"


def test_a_closed_window_is_evident_and_says_when_it_opens() -> None:
    unwanted = why(policy(windows("[tue]")), instance())
    assert unwanted.reason == "source web is outside its windows until 2026-11-24T08:00:00Z"
    assert unwanted.evident


# States


@pytest.mark.parametrize("state", ["stopping", "stopped", "shutting-down", "terminated"])
def test_an_instance_that_ends_is_evident(state: str) -> None:
    unwanted = why(policy(WEB), instance(state=state))
    assert unwanted.evident
    assert unwanted.interface == ""
    assert unwanted.reason.startswith(f"the instance is {state}")


def test_a_stopped_instance_names_the_setting() -> None:
    assert why(policy(WEB), instance(state="stopped")).reason == "the instance is stopped, and delete_on_stop is true"


@pytest.mark.parametrize("state", ["pending", "stopping", "stopped", "some-day"])
def test_what_does_not_run_is_kept_but_nothing_is_made(state: str) -> None:
    [wish] = decide(policy(WEB, "delete_on_stop: false\n"), instance(state=state)).wishes.values()
    assert not wish.create


def test_terminated_is_the_end_whatever_delete_on_stop_says() -> None:
    assert why(policy(WEB, "delete_on_stop: false\n"), instance(state="terminated")).evident


def test_of_a_terminated_instance_its_end_is_the_reason_not_its_lost_tags() -> None:
    unwanted = why(policy(WEB), Instance("i-1", "terminated", "m5.large"))
    assert unwanted == Unwanted("i-1", "", "the instance is terminated", evident=True)


# The worker fleet and mirror targets


def test_the_worker_fleet_is_never_mirrored() -> None:
    worker = instance(tags={"app": "web", GROUP_TAG: "fleet"})
    unwanted = why(policy(WEB), worker, Barred(groups=frozenset({"fleet"})))
    assert unwanted.reason == "the instance is one of the worker fleet (Auto Scaling group fleet)"
    assert not unwanted.evident  # the list of groups is configuration
    assert decide(policy(WEB), worker, barred=Barred(groups=frozenset({"fleet-2"}))).wishes


def test_an_instance_without_a_group_is_not_of_a_group_without_a_name() -> None:
    assert decide(policy(WEB), instance(), barred=Barred(groups=frozenset({""}))).wishes


def test_a_mirror_target_is_never_mirrored_but_the_interface_beside_it_is() -> None:
    targets = [
        Target(TARGET, TargetKind.INTERFACE, "eni-1-0"),
        Target(SECOND, TargetKind.NLB, "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/a/b"),
    ]
    barred = bar(["fleet"], targets)
    assert barred == Barred(frozenset({"fleet"}), frozenset({"eni-1-0"}))
    decided = decide(policy(WEB + "  interfaces: all\n"), instance(indexes=(0, 1)), barred=barred)
    assert list(decided.wishes) == ["eni-1-1"]
    assert decided.unwanted == (Unwanted(instance().id, "eni-1-0", "the interface is a mirror target", evident=True),)


# Interfaces


@pytest.mark.parametrize(
    ("interfaces", "mirrored"),
    [("primary", {0}), ("all", {0, 1, 3}), ("[1]", {1}), ("[0, 3, 7]", {0, 3}), ("[2]", set())],
)
def test_interfaces_by_device_index(interfaces: str, mirrored: set[int]) -> None:
    """Whatever their order in the answer: the primary one is device index 0, not the first."""
    decided = decide(policy(WEB + f"  interfaces: {interfaces}\n"), instance(indexes=(3, 0, 1)))
    assert set(decided.wishes) == {f"eni-1-{index}" for index in mirrored}
    assert {unwanted.interface for unwanted in decided.unwanted} == {f"eni-1-{n}" for n in {0, 1, 3} - mirrored}
    assert not any(unwanted.evident for unwanted in decided.unwanted)


def test_another_device_index_is_named() -> None:
    unwanted = why(policy(WEB + "  interfaces: [4, 0]\n"), instance(indexes=(1,)))
    assert unwanted == Unwanted(instance().id, "eni-1-1", "source web mirrors device index 0 or 4, not 1")


@pytest.mark.parametrize(
    ("interfaces", "card", "reason"),
    [
        ("primary", 0, ""),
        ("primary", 1, "source web mirrors the primary interface, not one of network card 1"),
        ("[0]", 1, ""),
        ("all", 1, ""),
    ],
)
def test_the_primary_interface_is_on_the_first_network_card(interfaces: str, card: int, reason: str) -> None:
    """Device indexes begin anew on each card."""
    decided = decide(policy(WEB + f"  interfaces: {interfaces}\n"), instance(card=card))
    assert [unwanted.reason for unwanted in decided.unwanted] == ([reason] if reason else [])
    assert len(decided.wishes) == (not reason)


@pytest.mark.parametrize("kind", ["efa", "trunk", "branch", "gateway_load_balancer_endpoint"])
def test_other_kinds_of_interfaces_are_never_mirrored(kind: str) -> None:
    unwanted = why(policy(WEB), instance(kind=kind))
    assert unwanted == Unwanted(instance().id, "eni-1-0", f"an interface of type {kind} cannot be mirrored", True)


def test_requester_managed_interfaces_are_never_mirrored() -> None:
    unwanted = why(policy(WEB), instance(requester_managed=True))
    assert unwanted == Unwanted(instance().id, "eni-1-0", "an AWS service manages the interface", True)


def test_an_instance_without_interfaces() -> None:
    """It may be too young for EC2 to show them: nothing to delete for."""
    unwanted = why(policy(WEB), instance(indexes=()))
    assert unwanted == Unwanted(instance().id, "", "EC2 shows no interface of the instance")


def test_a_type_that_aws_does_not_list_is_wanted_all_the_same() -> None:
    """EC2's answer decides, not our copy of a list."""
    assert decide(policy(WEB), instance(instance_type="t2.micro")).wishes


# Expiry

SUSPECTS = """
- name: suspects
  match: {tags: {suspect: '*'}}
"""


def suspect(until: str, **tags: str) -> Instance:
    return instance(tags={"suspect": "yes", UNTIL_TAG: until, AUTOTAGGED_TAG: f"{UNTIL_TAG} suspect", **tags})


def test_a_suspect_is_mirrored_until_then() -> None:
    assert decide(policy(SUSPECTS), suspect("2026-11-23T08:00:01Z")).wishes


def test_and_then_no_more_evidently() -> None:
    unwanted = why(policy(SUSPECTS), suspect("2026-11-23T08:00:00Z"))
    assert unwanted.evident
    assert unwanted.reason == (
        "its tag mirror:until is past (2026-11-23T08:00:00Z),"
        " and no source matches the instance without what went with it"
    )


def test_nor_when_a_hand_took_the_moment_off() -> None:
    one = suspect("")
    unwanted = why(policy(SUSPECTS), replace(one, tags={key: one.tags[key] for key in ("suspect", AUTOTAGGED_TAG)}))
    assert unwanted.evident
    assert unwanted.reason.startswith("its tag mirror:until is gone, and no source matches")


@pytest.mark.parametrize(("minutes", "mirrored"), [(0, True), (59, True), (60, False), (120, False)])
def test_a_finding_mirrors_an_instance_for_its_time_and_no_longer(minutes: int, mirrored: bool) -> None:
    """By the tags that the autotagger writes, and before any sweep took them off."""
    asked = policy(SUSPECTS, "autotag: [{name: suspects, tags: {suspect: 'yes'}, finding: {keep: 1h}}]\n")
    one, then = instance(), NOW - timedelta(minutes=minutes)
    finding = FindingEvent(one.id, 8.0, "Backdoor:EC2/C&CActivity.B")
    [put] = plan_tags(asked, [one], then, allowed={"suspect"}, findings=[finding]).put
    assert bool(decide(asked, replace(one, tags={**one.tags, **put.tags})).wishes) is mirrored


def test_another_source_may_still_want_it() -> None:
    [wish] = decide(policy(SUSPECTS + WEB), suspect("2026-11-23T07:00:00Z", app="web")).wishes.values()
    assert wish.source == "web"


def test_an_expired_instance_that_nothing_matched_before_is_not_evident() -> None:
    unwanted = why(policy(WEB), suspect("2026-11-23T07:00:00Z"))
    assert unwanted == Unwanted(instance().id, "", "no source matches the instance: web (it has no tag app)")


# Steps


def test_the_steps_to_a_session() -> None:
    asked = policy(SUSPECTS + WEB + "  share: 50\n", "except: {vpcs: [vpc-00000000000000009]}\n")
    assert verdict(asked, instance(2, indexes=(0, 1)), NOW, NOTHING) == [
        Step("state", True, "the instance is running"),
        Step("worker fleet", True, "the instance is not one of the worker fleet"),
        Step(
            "except",
            True,
            f"the policy's except does not match the instance: its VPC is {VPC}, not vpc-00000000000000009",
        ),
        Step("source suspects", False, "it does not match: it has no tag suspect"),
        Step("source web", True, "it matches, and no source before it does"),
        Step("source web: share", True, "it is among the 50 % of the instances that source web matches"),
        Step("source web: windows", True, "the source has none: it mirrors at any time"),
        Step("interface eni-2-0", True, f"source web mirrors it to {TARGET} through {FILTER}", "eni-2-0"),
        Step("interface eni-2-1", False, "source web mirrors device index 0, not 1", "eni-2-1"),
    ]


def test_a_step_says_that_aws_does_not_list_the_type() -> None:
    rules = {step.rule: step for step in verdict(policy(WEB), instance(instance_type="t2.micro"), NOW, NOTHING)}
    assert rules["instance type"] == Step(
        "instance type",
        True,
        "AWS does not list t2.micro among the instance types that can be mirrored: EC2 may refuse it",
    )


def test_an_open_window_says_until_when() -> None:
    rules = {step.rule: step.text for step in verdict(policy(windows("[mon]")), instance(), NOW, NOTHING)}
    assert rules["source web: windows"] == "one of them is open until 2026-11-23T16:00:00Z"


def test_a_paused_policy_is_the_first_thing_said_and_changes_no_decision() -> None:
    paused = policy(WEB, "paused: true\n")
    first, *others = verdict(paused, instance(), NOW, NOTHING)
    assert first == Step("paused", True, "the policy is paused: whatever follows, nothing is changed")
    assert others == verdict(policy(WEB), instance(), NOW, NOTHING)
    assert decide(paused, instance()) == decide(policy(WEB), instance())


def test_an_instance_without_interfaces_is_told_so() -> None:
    last = verdict(policy(WEB), instance(indexes=()), NOW, NOTHING)[-1]
    assert (last.rule, last.passed) == ("interfaces", False)


POLICIES = (
    policy(WEB),
    policy(SHARED, "delete_on_stop: false\n"),
    policy(SUSPECTS + WEB + "  interfaces: [0, 2]\n", "except: {tags: {canary: '*'}}\n"),
    policy(windows("[tue]")),
    policy(windows("[mon]") + SUSPECTS),
    load("version: 1"),
)


@st.composite
def any_instance(draw: st.DrawFn) -> Instance:
    tags = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "app": st.sampled_from(["web", "api"]),
                "canary": st.just(""),
                "suspect": st.just("yes"),
                UNTIL_TAG: st.sampled_from(["2026-11-23T07:00:00Z", "2026-11-23T09:00:00Z", "soon"]),
                AUTOTAGGED_TAG: st.sampled_from(["suspect", "/ suspect"]),
                GROUP_TAG: st.sampled_from(["web-1", "fleet"]),
            },
        )
    )
    one = instance(
        draw(st.integers(0, 50)),
        state=draw(st.sampled_from((*STATES, "running", "running"))),
        tags=tags,
        indexes=tuple(draw(st.lists(st.integers(0, 3), max_size=3, unique=True))),
        instance_type=draw(st.sampled_from(["m5.large", "t2.micro"])),
    )
    kinds = st.sampled_from(["interface", "interface", "efa"])
    interfaces = tuple(
        replace(each, kind=draw(kinds), requester_managed=draw(st.sampled_from([False, False, True])))
        for each in one.interfaces
    )
    return replace(one, interfaces=interfaces)


BARRED = Barred(frozenset({"fleet"}), frozenset({"eni-1-0", "eni-2-1", "eni-3-2"}))


@given(st.sampled_from(POLICIES), any_instance())
def test_what_is_wanted_and_why_never_disagree(asked: Policy, one: Instance) -> None:
    """A passed step names an interface where there is a wish. Else its own failed step is the reason, or the last."""
    decided = decide(asked, one, barred=BARRED)
    steps = verdict(asked, one, NOW, BARRED)
    assert {step.interface for step in steps if step.passed and step.interface} == set(decided.wishes)
    last = steps[-1]
    whole = [] if last.interface else [Unwanted(one.id, "", last.text, last.evident)]
    each = [Unwanted(one.id, step.interface, step.text, step.evident) for step in steps if step.interface]
    assert list(decided.unwanted) == whole + [entry for entry in each if entry.interface not in decided.wishes]


@given(st.sampled_from(POLICIES), any_instance())
def test_never_mirrored(asked: Policy, one: Instance) -> None:
    decided = decide(asked, one, barred=BARRED)
    by_id = {each.id: each for each in one.interfaces}
    for wish in decided.wishes.values():
        interface = by_id[wish.interface]
        assert interface.kind == "interface"
        assert not interface.requester_managed
        assert interface.id not in BARRED.targets
        assert one.tags.get(GROUP_TAG) != "fleet"
        assert one.state not in ("shutting-down", "terminated")
        assert wish.create == (one.state == "running")
    told = {unwanted.interface for unwanted in decided.unwanted}
    assert decided.wishes.keys() | told >= by_id.keys() or told == {""}


def test_ten_thousand_instances_are_decided_in_a_moment() -> None:
    """Measured at 0.2 s of CPU; a pattern or a set made for each instance costs ten times as much."""
    asked = policy(
        "".join(
            f"- {{name: s{number}, match: {{groups: ['g{number}-*', 'h{number}-?'], tags: {{app: [web, api]}}}}}}\n"
            for number in range(10)
        ),
        "except: {names: ['*canary*', '*test*']}\n",
    )
    many = [
        instance(number, tags={"app": "web", "Name": f"n{number}", GROUP_TAG: f"g{number % 12}-x"})
        for number in range(10_000)
    ]
    before = process_time()
    decided = decide(asked, *many)
    assert process_time() - before < 1
    assert len(decided.wishes) + len(decided.unwanted) == 10_000
    assert {unwanted.instance for unwanted in decided.unwanted} == {one.id for n, one in enumerate(many) if n % 12 > 9}
