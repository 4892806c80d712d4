"""Instances come and go, and their sessions with them."""

from typing import Any

import pytest

from lab.cloud.account import Account
from tests.stories.stage import WEB, Scene, Stack


def test_an_auto_scaling_group_goes_from_2_to_20_instances_and_back(
    scene: Scene, account: Account, stack: Stack
) -> None:
    first = account.group("web", 2, tags=WEB)
    scene.settle()
    assert stack.mirrored == sorted(first)
    before = {name: stack.session(name) for name in first}
    grown = account.scale("web", 20)
    scene.settle()
    assert stack.mirrored == sorted(grown)
    assert {name: stack.session(name) for name in first} == before, "the two that were there were not touched"
    left = account.scale("web", 2)
    scene.settle()
    assert stack.mirrored == sorted(left)
    assert sum(stack.metric("created")) == 20
    assert not stack.plan()["planned"]["changes"]


def test_an_instance_is_started_mirrored_stopped_and_started_again(
    scene: Scene, account: Account, stack: Stack
) -> None:
    web = account.launch(tags=WEB)
    scene.settle()
    [session] = stack.sessions
    assert session["TrafficMirrorTargetId"] == stack.target
    assert session["TrafficMirrorFilterId"] == stack.filter
    assert session["Tags"] == session["Tags"] | {"mirror:source": "web", "mirror:created": "2026-11-23T08:00:00Z"}
    account.stop(web)
    scene.settle()
    assert stack.mirrored == []
    account.start(web)
    scene.settle()
    assert stack.mirrored == web
    account.terminate(web)
    scene.settle()
    assert stack.mirrored == []


def test_a_policy_may_keep_the_sessions_of_stopped_instances(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy() | {"delete_on_stop": False})
    [kept, never] = account.launch(2, tags=WEB)
    account.stop([never])
    scene.settle()
    assert stack.mirrored == [kept]
    account.stop([kept])
    scene.settle()
    scene.sweep()
    assert stack.mirrored == [kept]
    account.terminate([kept])
    scene.settle()
    assert stack.mirrored == []


@pytest.mark.parametrize("state", ["stopping", "shutting-down"])
def test_what_is_going_down_is_not_mirrored_any_more(scene: Scene, account: Account, stack: Stack, state: str) -> None:
    web = account.launch(tags=WEB)
    scene.settle()
    account.set_state(web, state)
    scene.settle()
    assert stack.mirrored == []


def test_a_tag_is_added_and_taken_off_again(scene: Scene, account: Account, stack: Stack) -> None:
    web, other = account.launch(2)
    scene.settle()
    assert stack.mirrored == []
    account.tag([web], WEB)
    scene.settle()
    assert stack.mirrored == [web]
    account.tag([other], {"mirror": "no"})
    account.untag([web], ["mirror"])
    scene.settle()
    assert stack.mirrored == []


def test_the_tag_is_removed_while_the_instance_stops(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    scene.settle()
    account.set_state([web], "stopping")
    account.untag([web], ["mirror"])
    scene.settle()
    assert stack.mirrored == []
    account.start([web])
    scene.settle()
    assert stack.mirrored == [], "it came back without its tag"


def test_events_that_come_in_the_wrong_order_and_twice_change_nothing(
    scene: Scene, account: Account, stack: Stack
) -> None:
    web, gone = account.launch(2, tags=WEB)
    account.tag([web], {"Name": "late"})
    account.terminate([gone])
    news = account.take_events()
    account.events = [*reversed(news), *news]
    scene.settle()
    assert stack.mirrored == [web]
    account.events = list(reversed(news))
    scene.settle()
    assert stack.mirrored == [web]
    assert (sum(stack.metric("created")), sum(stack.metric("deleted"))) == (1, 0)


def test_a_second_interface_is_attached_and_detached(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(interfaces="all"))
    [web] = account.launch(tags=WEB)
    scene.settle()
    second = account.attach(web)
    scene.settle()
    assert {session["NetworkInterfaceId"] for session in stack.sessions} == {*account.interfaces(web), second}
    scene.wait(minutes=5)  # a session is not judged by where its interface is while it is young
    account.detach(second)
    scene.settle()
    assert [session["NetworkInterfaceId"] for session in stack.sessions] == account.interfaces(web)


def test_an_interface_deleted_right_after_it_was_detached_takes_its_session_along(
    scene: Scene, account: Account, stack: Stack
) -> None:
    stack.put_policy(stack.policy(interfaces=[1]))
    [web] = account.launch(tags=WEB)
    second = account.attach(web)
    scene.settle()
    assert [session["NetworkInterfaceId"] for session in stack.sessions] == [second]
    account.detach(second, delete=True)
    scene.settle()
    assert stack.mirrored == []
    assert sum(stack.metric("failed")) == 0


def test_only_the_primary_interface_is_mirrored_unless_the_policy_says_more(
    scene: Scene, account: Account, stack: Stack
) -> None:
    [web] = account.launch(tags=WEB)
    account.attach(web)
    account.attach(web, requester_managed=True)
    scene.settle()
    assert [session["NetworkInterfaceId"] for session in stack.sessions] == account.interfaces(web)[:1]
    stack.put_policy(stack.policy(interfaces="all"))
    scene.settle()
    assert {session["NetworkInterfaceId"] for session in stack.sessions} == set(account.interfaces(web)[:2])
    assert sum(stack.metric("failed")) == 0, "what a service manages is not even tried"


def test_an_interface_moves_to_an_instance_that_is_not_mirrored(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(interfaces="all"))
    [web], [db] = account.launch(tags=WEB), account.launch()
    moved = account.attach(web)
    scene.settle()
    assert len(stack.sessions) == 2
    account.detach(moved)
    account.ec2.attach_network_interface(NetworkInterfaceId=moved, InstanceId=db, DeviceIndex=1)
    scene.settle()
    assert [session["NetworkInterfaceId"] for session in stack.sessions] == account.interfaces(web)


def test_an_instance_goes_to_its_groups_warm_pool(scene: Scene, account: Account, stack: Stack) -> None:
    web, kept = account.group("web", 2, tags=WEB)
    scene.settle()
    account.to_warm_pool(web)
    scene.settle()
    assert stack.mirrored == [kept], "because it is stopped"
    account.start([web])
    scene.settle()
    assert stack.mirrored == sorted([web, kept])


def test_the_event_of_a_move_to_the_warm_pool_is_no_termination(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.group("web", 1, tags=WEB)
    scene.settle()
    account.to_warm_pool(web)
    [*_, moved] = account.take_events()
    assert moved["detail"]["Destination"] == "WarmPool"
    account.start([web])
    account.events = [moved]
    scene.settle()
    assert stack.mirrored == [web]
    [*_, line] = stack.logged("Passed over")
    assert "warm pool" in line["why"]


def test_the_worker_fleet_and_the_targets_are_never_mirrored(scene: Scene, account: Account, stack: Stack) -> None:
    target = account.eni_target()
    [interface] = [found["NetworkInterfaceId"] for found in targets(account, target)]
    [holder] = holders(account, interface)
    account.group("workers", 2, tags=WEB)
    account.tag([holder], WEB)
    [web] = account.launch(tags=WEB)
    scene.settle()
    scene.sweep()
    assert stack.mirrored == [web]
    assert sum(stack.metric("failed")) == 0


def targets(account: Account, target: str) -> list[Any]:
    return list(account.ec2.describe_traffic_mirror_targets(TrafficMirrorTargetIds=[target])["TrafficMirrorTargets"])


def holders(account: Account, interface: str) -> list[str]:
    found = account.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface])["NetworkInterfaces"]
    return [one["Attachment"]["InstanceId"] for one in found]


def test_an_interface_that_becomes_a_target_is_not_mirrored_any_more(
    scene: Scene, account: Account, stack: Stack
) -> None:
    """EC2 refuses a target that is mirrored; so its session goes first, by hand, and must not come back."""
    [web] = account.launch(tags=WEB)
    scene.settle()
    [session] = stack.sessions
    account.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=session["TrafficMirrorSessionId"])
    account.ec2.create_traffic_mirror_target(NetworkInterfaceId=account.interfaces(web)[0])
    scene.sweep()
    assert stack.mirrored == []
    assert sum(stack.metric("failed")) == 0


def test_all_events_are_lost_and_the_schedule_repairs_it(scene: Scene, account: Account, stack: Stack) -> None:
    stays, stops, ends, loses, gone = account.launch(5, tags=WEB)
    scene.settle()
    account.stop([stops])
    account.terminate([ends, gone])
    account.vanish([gone])
    account.untag([loses], ["mirror"])
    [new] = account.launch(tags=WEB)
    account.take_events()
    scene.sweep()
    assert stack.mirrored == sorted([stays, new])
    scene.sweep()
    assert stack.reports()[-1]["planned"] == {"create": 0, "modify": 0, "delete": 0}


def test_an_instance_that_is_not_visible_yet_comes_again_and_the_others_do_not_wait(
    scene: Scene, account: Account, stack: Stack
) -> None:
    early, web = account.launch(2, tags=WEB)
    hide(account, early)
    news = account.take_events()
    batch = [event for event in news if event["detail"]["state"] == "running"]
    for event in batch:
        stack.send("reconcile", event)
    scene.settle()
    assert stack.mirrored == [web]
    scene.wait(seconds=29)
    assert stack.mirrored == [web]
    show(account, early)
    scene.wait(seconds=16)
    assert stack.mirrored == sorted([early, web])
    assert not stack.pending()


def test_the_record_of_an_instance_that_is_not_visible_is_the_only_one_that_fails(
    account: Account, stack: Stack
) -> None:
    early, web = account.launch(2, tags=WEB)
    hide(account, early)
    about = {event["detail"]["instance-id"]: event for event in account.take_events()}
    records = stack.records("reconcile", [about[early], about[web]])
    answer = stack.invoke("reconcile", {"Records": records})
    assert answer == {"batchItemFailures": [{"itemIdentifier": records[0]["messageId"]}]}
    assert stack.mirrored == [web]


def test_an_instance_that_never_shows_is_given_up_after_a_quarter_of_an_hour(
    scene: Scene, account: Account, stack: Stack
) -> None:
    [early] = account.launch(tags=WEB)
    hide(account, early)
    scene.wait(minutes=45)
    assert not stack.pending()
    assert stack.mirrored == []


def hide(account: Account, instance: str) -> None:
    """Describe does not show it yet (moto shows everything at once)."""
    for reservation in account._backend().reservations.values():
        reservation.hidden = [one for one in reservation.instances if one.id == instance]
        reservation.instances = [one for one in reservation.instances if one.id != instance]


def show(account: Account, instance: str) -> None:
    for reservation in account._backend().reservations.values():
        reservation.instances = [*reservation.instances, *reservation.__dict__.pop("hidden", [])]


def test_a_new_instance_is_pending_when_the_event_comes(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    running = account.take_events()[-1]
    account.set_state([web], "pending")
    account.events = [running]
    scene.settle()
    assert stack.mirrored == []
    account.set_state([web], "running")
    account.take_events()
    scene.wait(minutes=1)
    assert stack.mirrored == [web]


def test_a_warm_event_about_one_instance_costs_four_calls_beside_the_change(
    scene: Scene, account: Account, stack: Stack
) -> None:
    account.launch(tags=WEB)
    scene.settle()
    account.launch(tags=WEB)
    news = account.take_events()[-1]
    before = len(account.model.faults.calls)
    stack.invoke("reconcile", news)
    made = [call.action for call in account.model.faults.calls[before:]]
    asked = [action for action in made if action not in ("CreateTrafficMirrorSession", "PutEvents")]
    assert made.count("CreateTrafficMirrorSession") == 1
    assert len(asked) <= 4, asked


def test_twenty_events_about_one_instance_are_one_look(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    news = account.take_events()[-1]
    before = len(account.model.faults.calls)
    stack.invoke("reconcile", {"Records": stack.records("reconcile", [news] * 20)})
    made = [call.action for call in account.model.faults.calls[before:]]
    assert made.count("DescribeInstances") <= 2  # one of them may be for a target's health
    assert stack.mirrored == [web]


def test_an_interface_that_outlives_its_instance_loses_its_session(
    scene: Scene, account: Account, stack: Stack
) -> None:
    stack.put_policy(stack.policy(interfaces="all"))
    [web] = account.launch(tags=WEB)
    account.attach(web)
    scene.settle()
    assert len(stack.sessions) == 2
    account.terminate([web])
    scene.settle()
    assert stack.sessions == []


def test_an_interface_moves_to_another_mirrored_instance(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(interfaces="all"))
    one, other = account.launch(2, tags=WEB)
    moved = account.attach(one)
    scene.settle()
    account.detach(moved)
    account.ec2.attach_network_interface(NetworkInterfaceId=moved, InstanceId=other, DeviceIndex=1)
    scene.settle()
    [session] = [session for session in stack.sessions if session["NetworkInterfaceId"] == moved]
    assert session["Description"] == other
    account.stop([other])
    scene.settle()
    assert stack.mirrored == [one]


def test_somebody_asks_for_an_instance_by_hand(scene: Scene, account: Account, stack: Stack) -> None:
    web, other = account.launch(2, tags=WEB)
    account.take_events()
    summary = stack.invoke("reconcile", {"mode": "reconcile", "instances": [web]})
    assert (stack.mirrored, summary["created"]) == ([web], 1)
    plan = stack.invoke("reconcile", {"mode": "plan", "instances": [other]})
    assert plan["planned"]["create"] == 1 and stack.mirrored == [web]


def test_the_log_names_the_event(account: Account, stack: Stack) -> None:
    account.launch(tags=WEB)
    event = account.take_events()[-1]
    stack.invoke("reconcile", {"Records": stack.records("reconcile", [event])})
    assert {line["correlation_id"] for line in stack.logged("Reconciled") + stack.logged("Changed")} == {event["id"]}
