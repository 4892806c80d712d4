"""What each event asks for, and that none is an error whatever it holds."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.model import Scope
from mirroring.scope import FRESH, understand, union

EVENTS = Path(__file__).parents[3] / "events"
NOW = datetime(2026, 11, 23, 8, 5, tzinfo=UTC)
ID = "i-1234567890abcdef0"
ONE = frozenset({ID})


def scope_of(event: object, now: datetime | None = None) -> Scope | None:
    return understand(event, now).scope


def event(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text())
    return loaded


def state(value: str, time: str = "2026-11-23T08:00:00Z") -> dict[str, Any]:
    return event("ec2-instance-running") | {"time": time, "detail": {"instance-id": ID, "state": value}}


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("ec2-instance-running", Scope(instances=ONE, fresh=ONE)),
        ("ec2-instance-stopped", Scope(instances=ONE)),
        ("ec2-instance-terminated", Scope(instances=ONE)),
        ("autoscaling-launch", Scope(instances=ONE, fresh=ONE)),
        ("autoscaling-terminate", Scope(instances=ONE)),
        ("tag-change", Scope(instances=ONE)),
        ("cloudtrail-detach-network-interface", Scope(everything=True)),
        ("guardduty-finding", Scope(instances=ONE)),
        ("parameter-store-change", Scope(everything=True, policy_changed=True)),
        ("scheduled", Scope(everything=True)),
    ],
)
def test_each_event_that_aws_sends_asks_for_its_scope(name: str, scope: Scope) -> None:
    assert scope_of(event(name), NOW) == scope


def test_an_attached_interface_asks_for_its_instance() -> None:
    attached = event("cloudtrail-attach-network-interface")
    assert scope_of(attached) == Scope(instances=frozenset({attached["detail"]["requestParameters"]["instanceId"]}))


@pytest.mark.parametrize("name", ["autoscaling-launch-to-warm-pool", "autoscaling-terminate-to-warm-pool"])
def test_a_move_into_a_warm_pool_is_no_launch_and_no_termination(name: str) -> None:
    understood = understand(event(name), NOW)
    assert understood.scope is None
    assert "warm pool" in understood.why


@pytest.mark.parametrize("name", ["autoscaling-launch", "autoscaling-terminate"])
def test_a_move_out_of_a_warm_pool_is_looked_at(name: str) -> None:
    moved = event(name)
    moved["detail"]["Origin"] = "WarmPool"
    assert scope_of(moved, NOW) is not None


@pytest.mark.parametrize("value", ["pending", "stopping", "stopped", "shutting-down", "terminated"])
def test_only_a_running_instance_is_announced(value: str) -> None:
    assert scope_of(state(value), NOW) == Scope(instances=ONE)


@pytest.mark.parametrize(
    ("time", "fresh"),
    [
        ("2026-11-23T08:00:00Z", True),
        ("2026-11-23T08:00:00", True),  # UTC where nothing is said
        ("2026-11-23T09:00:00+01:00", True),
        ("2026-11-23T08:06:00Z", True),  # clocks differ
        ("2026-11-22T08:00:00Z", False),  # redelivered for a day
        ("yyyy-mm-ddThh:mm:ssZ", False),
        ("", False),
    ],
)
def test_an_announcement_is_one_of_the_last_minutes(time: str, fresh: bool) -> None:
    assert scope_of(state("running", time), NOW) == Scope(instances=ONE, fresh=ONE if fresh else frozenset())


def test_an_announcement_ages() -> None:
    then = datetime(2026, 11, 23, 8, tzinfo=UTC)
    assert scope_of(state("running"), then + FRESH - timedelta(seconds=1)) == Scope(instances=ONE, fresh=ONE)
    assert scope_of(state("running"), then + FRESH) == Scope(instances=ONE)


def test_nothing_is_fresh_without_a_clock_or_a_time() -> None:
    assert scope_of(state("running")) == Scope(instances=ONE)
    timeless = state("running")
    del timeless["time"]
    assert scope_of(timeless, NOW) == Scope(instances=ONE)


@pytest.mark.parametrize("name", ["cloudtrail-attach-network-interface", "cloudtrail-detach-network-interface"])
def test_a_call_that_was_refused_changed_nothing(name: str) -> None:
    refused = event(name)
    refused["detail"]["errorCode"] = "Client.DryRunOperation"
    understood = understand(refused)
    assert understood.scope is None
    assert "refused" in understood.why


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"eventName": "RunInstances"}, "RunInstances"),
        ({"eventSource": "elasticloadbalancing.amazonaws.com"}, "another service"),
        ({"requestParameters": None}, "no instance id"),
        ({"requestParameters": {"instanceId": 3423151686}}, "no instance id"),
    ],
)
def test_other_calls_ask_for_nothing(change: Mapping[str, Any], why: str) -> None:
    called = event("cloudtrail-attach-network-interface")
    called["detail"] |= change
    understood = understand(called)
    assert understood.scope is None
    assert why in understood.why


@pytest.mark.parametrize(
    ("arns", "found"),
    [
        (["arn:aws-cn:ec2:cn-north-1:123456789012:instance/i-0a"], {"i-0a"}),
        (["arn:aws:ec2:eu-west-1:123456789012:instance/i-0a", "arn:aws:ec2:eu-west-1:1:volume/vol-1"], {"i-0a"}),
        (["arn:aws:ec2:eu-west-1:123456789012:instance/i-*"], set()),
        ([None, 1, {}], set()),
        ("arn:aws:ec2:eu-west-1:123456789012:instance/i-0a", set()),
        (None, set()),
    ],
)
def test_a_tag_change_names_its_instances_by_arn(arns: object, found: set[str]) -> None:
    scope = scope_of(event("tag-change") | {"resources": arns})
    assert scope == (Scope(instances=frozenset(found)) if found else None)


@pytest.mark.parametrize("change", [{"resource-type": "volume"}, {"service": "s3"}])
def test_tags_of_other_things_ask_for_nothing(change: Mapping[str, Any]) -> None:
    tagged = event("tag-change")
    tagged["detail"] |= change
    assert scope_of(tagged) is None


def test_an_event_of_a_schedule_of_the_scheduler_is_a_sweep_too() -> None:
    assert scope_of(event("scheduled") | {"source": "aws.scheduler"}) == Scope(everything=True)


def test_the_event_as_documented_without_a_version_is_understood() -> None:
    documented = state("running")
    documented.pop("version", None)
    assert scope_of(documented, NOW) == Scope(instances=ONE, fresh=ONE)


@pytest.mark.parametrize(
    ("message", "scope"),
    [
        ({"mode": "plan"}, Scope(everything=True, plan_only=True)),
        ({"mode": "plan", "instances": ["i-1"]}, Scope(instances=frozenset({"i-1"}), plan_only=True)),
        ({"mode": "sweep"}, Scope(everything=True)),
        ({"mode": "sweep", "attempt": 0}, Scope(everything=True, attempt=1)),
        ({"mode": "sweep", "attempt": 7}, Scope(everything=True, attempt=7)),
        ({"mode": "reconcile", "instances": ["i-1", "i-2", 3]}, Scope(instances=frozenset({"i-1", "i-2"}))),
    ],
)
def test_our_own_messages(message: Mapping[str, Any], scope: Scope) -> None:
    assert scope_of(message) == scope


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"mode": "reconcile"}, "no instance id"),
        ({"mode": "reconcile", "instances": "i-1"}, "not a list"),
        ({"mode": "plan", "instances": ["web-1"]}, "no instance id"),
        ({"mode": "sweep", "attempt": "2"}, "whole number"),
        ({"mode": "sweep", "attempt": True}, "whole number"),
        ({"mode": "destroy"}, "unknown mode 'destroy'"),
        ({"mode": ["plan"]}, "unknown mode"),
        ({"source": "aws.s3", "detail-type": "Object Created"}, "unknown event"),
        ({"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification"}, "no instance id"),
        ({"source": "aws.autoscaling", "detail-type": "EC2 Instance Launch Unsuccessful"}, "unknown event"),
        ({}, "unknown event"),
        ("not json", "not an object"),
        ([1], "not an object"),
        (None, "not an object"),
    ],
)
def test_what_is_not_understood_says_why(message: object, why: str) -> None:
    understood = understand(message, NOW)
    assert understood.scope is None
    assert why in understood.why


def test_a_reason_is_no_longer_than_a_log_line_should_be() -> None:
    assert len(understand({"mode": "x" * 10_000}).why) <= 300


# Properties

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
samples = [event(path.stem) for path in sorted(EVENTS.glob("*.json"))]


def keys_of(value: object) -> set[str]:
    if isinstance(value, Mapping):
        return set(value) | {key for inner in value.values() for key in keys_of(inner)}
    return set()


keys = st.sampled_from(sorted({key for sample in samples for key in keys_of(sample)}))


def damaged(value: object, victim: str, by: object) -> object:
    if isinstance(value, Mapping):
        return {key: by if key == victim else damaged(inner, victim, by) for key, inner in value.items()}
    return value


@given(st.sampled_from(samples), st.lists(st.tuples(keys, json_values), max_size=3))
def test_no_damage_makes_an_event_an_error(sample: dict[str, Any], damages: list[tuple[str, object]]) -> None:
    broken: object = sample
    for victim, by in damages:
        broken = damaged(broken, victim, by)
    understood = understand(broken, NOW)
    assert bool(understood.scope) != bool(understood.why)


@given(st.datetimes(timezones=st.timezones() | st.none()))
def test_no_time_is_an_error(time: datetime) -> None:
    understood = understand(state("running", time.isoformat()), NOW)
    assert understood.scope is not None


ids = st.frozensets(st.sampled_from(["i-1", "i-2", "i-3"]))
scopes = st.builds(
    Scope,
    everything=st.booleans(),
    instances=ids,
    policy_changed=st.booleans(),
    plan_only=st.booleans(),
    fresh=ids,
    attempt=st.integers(0, 3),
)


@given(st.lists(scopes, min_size=1, max_size=4), st.randoms())
def test_the_union_does_not_depend_on_order_or_repetition(parts: list[Scope], random: Any) -> None:
    shuffled = parts * 2
    random.shuffle(shuffled)
    assert union(shuffled) == union(parts)


@given(st.lists(scopes, min_size=1, max_size=4))
def test_the_union_covers_every_part_and_plans_only_where_no_part_wants_more(parts: list[Scope]) -> None:
    whole = union(parts)
    assert whole.plan_only == all(part.plan_only for part in parts)
    for part in parts:
        if part.plan_only and not whole.plan_only:
            continue
        assert whole.everything or not part.everything
        assert whole.policy_changed or not part.policy_changed
        assert part.instances <= whole.instances
        assert part.fresh <= whole.fresh
        assert part.attempt <= whole.attempt


@given(st.lists(scopes.filter(lambda scope: not scope.plan_only), min_size=1, max_size=4), st.lists(scopes, max_size=4))
def test_a_plan_changes_nothing_of_what_others_ask_for(real: list[Scope], others: list[Scope]) -> None:
    plans = [replace(scope, plan_only=True) for scope in others]
    assert union(real + plans) == union(real)


def test_the_union_of_nothing_is_nothing() -> None:
    assert union([]) == Scope()
