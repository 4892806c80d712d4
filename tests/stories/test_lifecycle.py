"""A stack is made, updated and deleted, whatever else is going on."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from lab.cloud.account import Account
from mirroring.clients import WRITE_ATTEMPTS
from mirroring.lifecycle import PAUSE
from tests.layers.mirroring.formation import CloudFormation
from tests.stories.stage import WEB, Scene, Stack, client_of

CREATE = "CreateTrafficMirrorSession"


def state(stack: Stack) -> str:
    found = stack.account.ssm.get_parameter(Name=f"/{stack.owner}/state")
    return str(found["Parameter"]["Value"])


def foreign_session(account: Account, stack: Stack, instance: str) -> str:
    made = account.ec2.create_traffic_mirror_session(
        NetworkInterfaceId=account.interfaces(instance)[0],
        TrafficMirrorTargetId=stack.target,
        TrafficMirrorFilterId=stack.filter,
        SessionNumber=9,
    )
    return str(made["TrafficMirrorSession"]["TrafficMirrorSessionId"])


def test_a_stack_is_made_and_mirrors_what_is_there(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    stack.set_state("paused")  # as the template has it
    web = account.launch(3, tags=WEB)
    account.take_events()
    assert stack.lifecycle("Create")["status"] == "SUCCESS"
    assert (state(stack), stack.mirrored) == ("running", []), "CloudFormation need not wait for the sweep"
    scene.settle()
    assert stack.mirrored == sorted(web)
    [answer] = formation.answers
    assert answer["Status"] == "SUCCESS" and answer["PhysicalResourceId"]


def test_the_first_sweep_waits_for_a_healthy_target(scene: Scene, account: Account, stack: Stack) -> None:
    account.set_health(stack.target, healthy=False)
    web = account.launch(tags=WEB)
    account.take_events()
    stack.lifecycle("Create")
    scene.wait(minutes=4)
    assert stack.mirrored == [] and stack.pending()
    account.set_health(stack.target, healthy=True)
    account.take_events()
    scene.wait(minutes=6)
    assert stack.mirrored == web and not stack.pending()


def test_no_target_ever_gets_healthy_and_the_first_sweep_ends(scene: Scene, account: Account, stack: Stack) -> None:
    account.set_health(stack.target, healthy=False)
    account.launch(tags=WEB)
    account.take_events()
    stack.lifecycle("Create")
    scene.wait(hours=3)
    assert not stack.pending()
    assert 5 <= len(stack.reports()) <= 12
    assert stack.reports()[-1]["waiting"] and stack.troubles.keys() == {"target-unhealthy"}


def test_the_first_sweep_cannot_queue_the_next_and_the_schedule_goes_on(
    scene: Scene, account: Account, stack: Stack
) -> None:
    account.set_health(stack.target, healthy=False)
    web = account.launch(tags=WEB)
    account.take_events()
    stack.lifecycle("Create")
    account.model.fail("SendMessage", "ServiceUnavailable", times=99)
    scene.settle()
    account.model.faults.clear()
    account.set_health(stack.target, healthy=True)
    account.take_events()
    scene.wait(minutes=2)
    scene.sweep()
    assert stack.mirrored == web


def test_a_bad_policy_rolls_nothing_back(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy("nonsense: 1", default=True)
    account.ssm.delete_parameter(Name=f"/{stack.owner}/policy-default")
    stack.put_policy("nonsense: 1", default=True)
    assert stack.lifecycle("Create")["status"] == "SUCCESS"
    scene.wait(hours=1)
    assert stack.metric("stopped")[-1] == 1 and not stack.pending()


def test_an_update_changes_nothing_and_its_name_stays(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    account.launch(2, tags=WEB)
    scene.settle()
    before = stack.sessions
    for kind in ("Create", "Update", "Delete"):
        stack.lifecycle(kind)
        if kind == "Update":
            scene.settle()
            assert stack.sessions == before
    first, second, third = (answer["PhysicalResourceId"] for answer in formation.answers)
    assert second == third == stack.ask("Update")["PhysicalResourceId"] and first


def test_a_stack_is_deleted_and_foreign_sessions_stay(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    web = account.launch(6, tags=WEB)
    theirs = foreign_session(account, stack, web[0])
    scene.settle()
    outcome = stack.lifecycle("Delete")
    assert (outcome["status"], outcome["deleted"], formation.answers[-1]["Status"]) == ("SUCCESS", 6, "SUCCESS")
    account.launch(tags=WEB)
    account.tag(web[:1], {"Name": "late"})
    scene.settle()
    scene.sweep()
    assert [session["TrafficMirrorSessionId"] for session in account.model.all_sessions()] == [theirs]
    assert stack.metric("paused")[-1] == 1


def test_a_stack_whose_creation_failed_is_deleted(account: Account, stack: Stack, formation: CloudFormation) -> None:
    for name in ("state", "policy-default"):
        account.ssm.delete_parameter(Name=f"/{stack.owner}/{name}")
    assert stack.lifecycle("Delete")["status"] == "SUCCESS"
    assert formation.answers[-1]["PhysicalResourceId"] == stack.ask("Delete")["PhysicalResourceId"]


def test_a_stack_is_deleted_while_a_reconcile_is_at_work(scene: Scene, account: Account, stack: Stack) -> None:
    """Its fifth create is on its way when Delete begins, lands between two looks, and there is no sixth."""
    web = account.launch(12, tags=WEB)
    theirs = foreign_session(account, stack, web[0])
    records = stack.records("reconcile", account.take_events())
    on_its_way, may_land = threading.Event(), threading.Event()
    sent = count(1)

    def hold_the_fifth(**_: Any) -> None:
        if next(sent) == 5:
            on_its_way.set()
            assert may_land.wait(20)

    at_work = threading.Thread(target=stack.invoke, args=("reconcile", {"Records": records}))
    with hook(f"before-call.ec2.{CREATE}", hold_the_fifth):
        at_work.start()
        assert on_its_way.wait(20)

        def let_it_land(seconds: float) -> None:
            if seconds == PAUSE:
                may_land.set()
                at_work.join()

        scene.on_sleep = let_it_land
        outcome = stack.lifecycle("Delete")
        at_work.join()
    assert (outcome["status"], outcome["deleted"], next(sent)) == ("SUCCESS", 5, 6)
    scene.wait(minutes=35)
    assert [session["TrafficMirrorSessionId"] for session in account.model.all_sessions()] == [theirs]


@contextmanager
def hook(event: str, handler: Callable[..., None]) -> Iterator[None]:
    """Have the client that writes call it."""
    hooks = client_of("ec2", attempts=WRITE_ATTEMPTS).meta.events
    hooks.register(event, handler)
    yield
    hooks.unregister(event, handler)


def test_what_was_just_created_does_not_show_yet_when_the_stack_is_deleted(
    scene: Scene, account: Account, stack: Stack
) -> None:
    account.model.visible_after = 2
    account.launch(3, tags=WEB)
    scene.settle()
    assert stack.lifecycle("Delete")["status"] == "SUCCESS"
    assert stack.sessions == []


def test_one_invocation_is_too_short_to_delete_them_all(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    account.launch(20, tags=WEB)
    scene.settle()
    first = stack.invoke("lifecycle", stack.ask("Delete"), seconds=62)
    assert first["status"] == "AGAIN" and 0 < len(stack.sessions) < 20 and formation.answers == []
    while stack.again:
        outcome = stack.invoke("lifecycle", stack.again.pop(), seconds=120)
    assert (outcome["status"], stack.sessions) == ("SUCCESS", [])
    assert [answer["Status"] for answer in formation.answers] == ["SUCCESS"]


def test_invocations_that_are_too_short_end_in_a_failure_and_not_in_silence(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    account.launch(3, tags=WEB)
    scene.settle()
    assert stack.lifecycle("Delete", seconds=59)["status"] == "FAILED"
    assert formation.answers[-1]["Reason"].startswith("12 invocations were not enough")


def test_a_throttled_account_takes_longer(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(10, tags=WEB)
    scene.settle()
    clock: Callable[[], float] = lambda: account.now.timestamp()  # noqa: E731, PLW0108  `now` is another object each time
    account.model.faults.throttle("DeleteTrafficMirrorSession".__eq__, clock, burst=2, rate=0.5)
    assert stack.lifecycle("Delete")["status"] == "SUCCESS"
    assert stack.sessions == []


def test_nothing_may_be_deleted_and_the_answer_does_not_lie(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    account.launch(3, tags=WEB)
    scene.settle()
    account.model.deny("DeleteTrafficMirrorSession")
    assert stack.lifecycle("Delete")["status"] == "FAILED"
    assert "3 of our sessions were left" in formation.answers[-1]["Reason"]
    account.model.faults.clear()
    assert stack.lifecycle("Delete")["status"] == "SUCCESS"
    assert stack.sessions == []


def test_sessions_cannot_be_listed_and_the_answer_does_not_lie(
    scene: Scene, account: Account, stack: Stack, formation: CloudFormation
) -> None:
    account.launch(tags=WEB)
    scene.settle()
    account.model.fail("DescribeTrafficMirrorSessions", "InternalError", times=1000)
    assert stack.lifecycle("Delete")["status"] == "FAILED"
    assert "could not be listed" in formation.answers[-1]["Reason"]
