"""AWS says no, or not now, or nothing: what follows from each."""

from datetime import timedelta

import pytest

from lab.cloud.account import Account
from tests.stories.stage import WEB, Scene, Stack

CREATE = "CreateTrafficMirrorSession"


def tries(account: Account, action: str = CREATE) -> int:
    calls = [call for call in account.model.faults.calls if call.action == action]
    return sum(not call.parameters.get("DryRun") for call in calls)


def test_an_instance_type_that_cannot_be_mirrored_is_left_alone_for_an_hour(
    scene: Scene, account: Account, stack: Stack
) -> None:
    old = account.launch(2, tags=WEB, type="t2.micro")
    web = account.launch(tags=WEB)
    scene.settle()
    scene.sweep()
    assert stack.mirrored == web
    assert tries(account) == 2, "one try for the type, one for the others"
    assert stack.metric("failed", code="NetworkInterfaceNotSupported") == [1]
    assert stack.metric("quarantined")[-1] == 2 and "t2.micro" not in stack.mirrored
    scene.wait(minutes=58)
    scene.sweep()
    assert tries(account) == 2
    scene.wait(minutes=3)
    scene.sweep()
    assert tries(account) == 3
    assert not stack.pending() and old[0] not in stack.mirrored


def test_a_new_container_asks_once_more(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(2, tags=WEB, type="t2.micro")
    scene.settle()
    stack.cold_start()
    scene.sweep()
    assert tries(account) == 2


def test_a_new_policy_is_a_reason_to_ask_once_more(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(2, tags=WEB, type="t2.micro")
    scene.settle()
    stack.put_policy(stack.policy(description="new"))
    scene.settle()
    assert tries(account) == 2


def throttle(account: Account, *, burst: float, rate: float) -> None:
    """Of the writes that are ours alone."""
    clock = lambda: account.now.timestamp()  # noqa: E731, PLW0108  `now` is another object each time
    account.model.faults.throttle(CREATE.__eq__, clock, burst=burst, rate=rate)


def test_aws_throttles_and_everything_is_done_all_the_same(scene: Scene, account: Account, stack: Stack) -> None:
    throttle(account, burst=5, rate=1)
    web = account.launch(15, tags=WEB)
    began = account.now
    scene.wait(minutes=15)
    assert stack.mirrored == sorted(web)
    refused = tries(account) - 15
    assert refused < 15, "we slow down instead of hammering"
    assert began and not stack.pending()


def test_our_own_budget_keeps_us_below_the_apis_rate(scene: Scene, account: Account, stack: Stack) -> None:
    throttle(account, burst=50, rate=5)
    stack.put_policy(stack.policy(limits={"writes_per_second": 2}))
    web = account.launch(60, tags=WEB)
    scene.settle()
    assert stack.mirrored == sorted(web)
    assert tries(account) == 60


def test_permission_is_missing_and_nothing_is_tried_again_and_again(
    scene: Scene, account: Account, stack: Stack
) -> None:
    account.model.deny(CREATE)
    account.launch(8, tags=WEB)
    scene.settle()
    assert tries(account) == 1
    assert stack.metric("stopped")[-1] == 1 and stack.metric("failed", code="UnauthorizedOperation") == [1]
    assert stack.logged("Reconciled")[-1]["level"] == "ERROR"
    assert "not authorized" in stack.reports()[-1]["stopped"]
    scene.wait(minutes=50)
    assert tries(account) <= 3 and stack.metric("forbidden")[-1] == 1
    account.model.faults.clear()
    scene.wait(minutes=15)
    scene.sweep()
    assert len(stack.sessions) == 8 and not stack.pending()


def test_permission_to_look_is_missing(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(tags=WEB)
    scene.settle()
    account.model.deny("DescribeTrafficMirrorSessions")
    account.launch(tags=WEB)
    account.stop(web)
    scene.settle()
    assert stack.mirrored == web
    assert stack.metric("stopped")[-1] == 1
    account.model.faults.clear()
    scene.wait(minutes=20)
    assert web[0] not in stack.mirrored and len(stack.mirrored) == 1


def test_a_source_beyond_what_the_stack_grants_is_found_before_the_first_change(
    scene: Scene, account: Account, stack: Stack
) -> None:
    """The others are served."""
    vpc = account.vpc()
    account.model.deny(CREATE, when=lambda call: call["NetworkInterfaceId"] in account.interfaces(far))
    [web] = account.launch(tags=WEB)
    [far] = account.launch(tags={"mirror": "far"}, vpc=vpc)
    policy = stack.policy()
    beyond = policy["sources"][0] | {"name": "far", "match": {"vpcs": vpc}}
    account.take_events()
    stack.put_policy(policy | {"sources": [beyond, *policy["sources"]]})
    scene.settle()
    assert stack.mirrored == [web]
    assert tries(account) == 1, "the other was a dry run"
    assert vpc in stack.troubles["forbidden"] and stack.metric("forbidden")[-1] == 1


def test_a_page_of_the_describe_fails_and_nothing_is_deleted(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(8, tags=WEB)
    scene.settle()
    account.model.fail("DescribeInstances", "InternalError", times=99)
    scene.sweep()
    assert stack.mirrored == sorted(web)
    assert stack.pending(), "the record comes again"
    account.model.faults.clear()
    account.untag(web[:1], ["mirror"])
    account.take_events()
    scene.wait(minutes=2)
    assert stack.mirrored == sorted(web[1:])
    assert not stack.pending()


@pytest.mark.parametrize("action", ["DescribeInstances", "DescribeTrafficMirrorSessions", "DescribeNetworkInterfaces"])
def test_the_second_page_fails_and_half_an_answer_is_none(
    scene: Scene, account: Account, stack: Stack, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirroring.describe.PAGE", 5)
    stack.put_policy(stack.policy(interfaces="all"))
    web = account.launch(6, tags=WEB)
    for instance in web:
        account.attach(instance, requester_managed=True)
    scene.settle()
    before = stack.sessions
    account.model.fail(action, "InternalError", times=99, when=lambda call: bool(call.get("NextToken")))
    scene.sweep()
    assert stack.sessions == before and len(before) == 6
    assert stack.metric("failed", code="InternalError")[-1] == 1
    account.model.faults.clear()
    scene.wait(minutes=2)
    assert stack.sessions == before and not stack.pending()


def test_describe_shows_no_instance_at_all_and_nothing_is_deleted(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(3, tags=WEB)
    scene.settle()
    scene.wait(minutes=5)
    hidden = [*web, *everybody(account)]
    account.vanish(hidden)
    scene.sweep()
    assert stack.mirrored == sorted(web)
    assert "no instance at all" in stack.troubles["guard"] and stack.metric("guard_tripped")[-1] == 1


def everybody(account: Account) -> list[str]:
    reservations = account.ec2.describe_instances()["Reservations"]
    return [one["InstanceId"] for reservation in reservations for one in reservation["Instances"]]


def test_the_answer_to_a_create_is_lost_and_no_second_session_is_made(
    scene: Scene, account: Account, stack: Stack
) -> None:
    account.model.fail(CREATE, "InternalError", times=2, lost=True)
    web = account.launch(3, tags=WEB)
    scene.settle()
    assert stack.mirrored == sorted(web)
    assert not stack.pending()


def test_what_was_created_is_not_visible_yet_when_the_next_event_comes(
    scene: Scene, account: Account, stack: Stack
) -> None:
    """The second run sees no session and creates again: EC2 knows the number, or the token, and ours is one still."""
    account.model.visible_after = 3
    [web] = account.launch(tags=WEB)
    scene.settle()
    account.tag([web], {"Name": "web-1"})
    scene.settle()
    scene.wait(minutes=10)
    for _ in range(4):
        scene.sweep()
    assert stack.mirrored == [web]
    assert stack.session(web)["SessionNumber"] == 1


def test_what_was_deleted_still_shows(scene: Scene, account: Account, stack: Stack) -> None:
    account.model.lingers = 2
    [web] = account.launch(tags=WEB)
    scene.settle()
    account.stop([web])
    scene.settle()
    scene.sweep()
    assert stack.mirrored == [] and stack.metric("failed")[-1] == 0


def test_an_error_that_nobody_knows_concerns_one_interface_only(scene: Scene, account: Account, stack: Stack) -> None:
    strange, *others = account.launch(4, tags=WEB)
    [interface] = account.interfaces(strange)
    account.model.fail(CREATE, "ItIsFriday", times=99, when=lambda call: call["NetworkInterfaceId"] == interface)
    scene.settle()
    assert stack.mirrored == sorted(others)
    assert tries(account) == 5, "twice, and then it is left alone"
    account.model.faults.clear()
    scene.wait(minutes=6)
    scene.sweep()
    assert stack.mirrored == sorted([strange, *others])


def test_the_account_has_all_the_sessions_it_may(scene: Scene, account: Account, stack: Stack) -> None:
    account.model.fail(CREATE, "TrafficMirrorSessionLimitExceeded", times=99)
    account.launch(5, tags=WEB)
    scene.settle()
    assert tries(account) == 1
    assert stack.metric("stopped")[-1] == 1


def test_the_bus_refuses_our_event_and_what_was_done_stays(scene: Scene, account: Account, stack: Stack) -> None:
    account.model.fail("PutEvents", "InternalException")
    web = account.launch(tags=WEB)
    scene.settle()
    assert stack.mirrored == web and not stack.pending()


def test_time_is_short_and_the_rest_comes_again(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(limits={"writes_per_second": 1}))
    scene.settle()
    web = account.launch(30, tags=WEB)
    records = stack.records("reconcile", account.take_events())
    began = account.now
    answer = stack.invoke("reconcile", {"Records": records}, seconds=40)
    assert (account.now - began).total_seconds() < 40
    made = set(stack.mirrored)
    assert 5 <= len(made) < 30
    failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
    left = {record["messageId"] for record in records if not any(name in record["body"] for name in made)}
    assert failed == left
    soon = [moment for moment in stack.pending() if moment - account.now <= timedelta(seconds=30)]
    assert len(soon) == len(failed), "and not only when the queue's own patience ends"
    scene.wait(minutes=35)
    assert stack.mirrored == sorted(web)


def test_there_is_no_time_at_all(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(3, tags=WEB)
    records = stack.records("reconcile", account.take_events())
    before = len(account.model.faults.calls)
    answer = stack.invoke("reconcile", {"Records": records}, seconds=5)
    assert len(answer["batchItemFailures"]) == len(records)
    asked = {call.action for call in account.model.faults.calls[before:]}
    assert asked <= {"ChangeMessageVisibility"}


def test_a_sweep_of_many_is_cut_short_and_the_next_goes_on(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(limits={"writes_per_second": 1}))
    web = account.launch(20, tags=WEB)
    account.take_events()
    summary = stack.invoke("reconcile", {"mode": "sweep", "attempt": 1}, seconds=30)
    assert (
        0 < summary["created"] < 20
        and summary["failed"] == []
        and len(summary["unfinished"]) == 20 - len(stack.mirrored)
    )
    stack.invoke("reconcile", {"mode": "sweep", "attempt": 1})
    assert stack.mirrored == sorted(web)


def test_an_unknown_event_is_passed_over_and_logged_once(scene: Scene, account: Account, stack: Stack) -> None:
    stack.send("reconcile", {"source": "aws.s3", "detail-type": "Object Created", "detail": {}})
    stack.send("autotag", {"source": "aws.s3", "detail-type": "Object Created", "detail": {}})
    scene.wait(hours=1)
    lines = stack.logged("Passed over")
    assert [line["why"] for line in lines] == ["unknown event: source 'aws.s3', detail-type 'Object Created'"] * 2
    assert stack.metric("passed_over") == [1, 1] and stack.reports() == []


@pytest.mark.parametrize("body", ["", "no json", "[]", "7", "null", '{"detail-type": 7}', '{"mode": []}'])
def test_nonsense_in_the_queue_is_passed_over(scene: Scene, account: Account, stack: Stack, body: str) -> None:
    [record] = stack.records("reconcile", [{"mode": "reconcile", "instances": []}])
    for function in stack.queues:
        assert stack.invoke(function, {"Records": [record | {"body": body}]}) == {"batchItemFailures": []}
    assert len(stack.logged("Passed over")) == 2
