"""Targets: they lose their listener, their workers or themselves, and they get full."""

from lab.cloud.account import Account
from tests.stories.stage import WEB, Scene, Stack


def where(stack: Stack) -> dict[str, str]:
    return {session["Description"]: session["TrafficMirrorTargetId"] for session in stack.sessions}


def lose_listener(account: Account, target: str) -> None:
    arn = account.model.targets[target]["NetworkLoadBalancerArn"]
    for listener in account.elb.describe_listeners(LoadBalancerArn=arn)["Listeners"]:
        account.elb.delete_listener(ListenerArn=listener["ListenerArn"])


def test_the_target_loses_its_udp_listener(scene: Scene, account: Account, stack: Stack) -> None:
    [old] = account.launch(tags=WEB)
    scene.settle()
    lose_listener(account, stack.target)
    account.launch(tags=WEB)
    scene.sweep()
    assert stack.mirrored == [old], "what is there stays, nothing new is made"
    why = stack.troubles["target-unhealthy"]
    assert stack.target in why and "UDP listener on port 4789" in why and "interfaces that wait for a target: 1" in why
    assert stack.metric("target_unhealthy")[-1] == 1


def test_the_target_loses_its_healthy_workers_and_gets_them_back(scene: Scene, account: Account, stack: Stack) -> None:
    [old] = account.launch(tags=WEB)
    scene.settle()
    account.set_health(stack.target, healthy=False)
    scene.wait(minutes=1)
    [new] = account.launch(tags=WEB)
    scene.settle()
    scene.sweep()
    assert stack.mirrored == [old]
    assert "healthy" in stack.troubles["target-unhealthy"]
    account.set_health(stack.target, healthy=True)
    account.take_events()
    scene.sweep()
    assert stack.mirrored == sorted([old, new]) and stack.troubles == {}


def test_the_first_target_is_not_healthy_and_the_second_is_used(scene: Scene, account: Account, stack: Stack) -> None:
    second = account.nlb_target()
    stack.put_policy(stack.policy(target=[stack.target, second]))
    [old] = account.launch(tags=WEB)
    scene.settle()
    account.set_health(stack.target, healthy=False)
    [new] = account.launch(tags=WEB)
    scene.sweep()
    assert where(stack) == {old: stack.target, new: second}
    account.set_health(stack.target, healthy=True)
    account.take_events()
    scene.sweep()
    assert where(stack) == {old: stack.target, new: second}, "nothing moves without need"


def test_the_load_balancer_behind_the_target_is_deleted(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(2, tags=WEB)
    scene.settle()
    account.delete_load_balancer(stack.target)
    scene.sweep()
    assert stack.mirrored == [], "they would mirror nothing, and be billed"
    assert "does not exist" in stack.troubles["target-missing"]
    stack.put_policy(stack.policy(target=account.nlb_target()))
    scene.settle()
    assert stack.mirrored == sorted(web)


def test_the_load_balancer_goes_and_the_sessions_move_to_the_next_target(
    scene: Scene, account: Account, stack: Stack
) -> None:
    second = account.nlb_target()
    stack.put_policy(stack.policy(target=[stack.target, second]))
    account.launch(8, tags=WEB)
    scene.settle()
    before = {session["TrafficMirrorSessionId"] for session in stack.sessions}
    account.delete_load_balancer(stack.target)
    scene.sweep()
    assert set(where(stack).values()) == {second}
    assert {session["TrafficMirrorSessionId"] for session in stack.sessions} == before, "in place"


def test_all_targets_of_many_sessions_are_gone_and_the_guard_holds(
    scene: Scene, account: Account, stack: Stack
) -> None:
    web = account.launch(8, tags=WEB)
    scene.settle()
    account.delete_load_balancer(stack.target)
    scene.sweep()
    assert stack.mirrored == sorted(web)
    assert "limits.delete_fraction" in stack.troubles["guard"] and stack.metric("guard_tripped")[-1] == 1


def test_a_target_that_does_not_exist_is_named(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(2, tags=WEB)
    scene.settle()
    before = stack.sessions
    stack.put_policy(stack.policy(target="tmt-0123456789abcdef0"))
    account.launch(tags=WEB)
    scene.settle()
    scene.sweep()
    assert stack.sessions == before and len(web) == 2, "a typing error takes nothing away"
    assert "tmt-0123456789abcdef0 does not exist" in stack.troubles["target-missing"]


def test_a_filter_that_does_not_exist_or_is_empty_is_named(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(filter="tmf-0123456789abcdef0"))
    web = account.launch(tags=WEB)
    scene.settle()
    assert stack.mirrored == []
    assert "tmf-0123456789abcdef0 does not exist" in stack.troubles["filter-missing"]
    stack.put_policy(stack.policy(filter=account.filter(ports=[])))
    scene.settle()
    assert stack.mirrored == web
    assert "no rule" in stack.troubles["filter-empty"]


def test_an_interface_target_takes_ten_and_the_next_target_the_others(
    scene: Scene, account: Account, stack: Stack
) -> None:
    small = account.eni_target()
    stack.put_policy(stack.policy(target=[small, stack.target]))
    account.take_events()
    account.launch(13, tags=WEB)
    scene.settle()
    taken = list(where(stack).values())
    assert (taken.count(small), taken.count(stack.target)) == (10, 3)
    assert not stack.pending()
    scene.sweep()
    assert stack.reports()[-1]["planned"] == {"create": 0, "modify": 0, "delete": 0}


def test_the_only_target_is_full(scene: Scene, account: Account, stack: Stack) -> None:
    small = account.eni_target()
    stack.put_policy(stack.policy(target=small))
    account.take_events()
    web = account.launch(12, tags=WEB)
    scene.settle()
    assert len(stack.sessions) == 10
    scene.sweep()
    assert small in stack.troubles["target-full"] and "Network Load Balancer" in stack.troubles["target-full"]
    account.terminate([name for name in web if name in stack.mirrored][:2])
    scene.settle()
    scene.sweep()
    assert len(stack.sessions) == 10 and stack.troubles == {}


def test_a_target_of_someone_elses_making_is_refused_when_it_is_used(
    scene: Scene, account: Account, stack: Stack
) -> None:
    """AWS says so only at the create: the target is left out for an hour, the next one serves."""
    bad, good = account.nlb_target(), account.nlb_target()
    stack.put_policy(stack.policy(target=[bad, good]))
    account.take_events()
    account.model.fail(
        "CreateTrafficMirrorSession",
        "InvalidTrafficMirrorTarget",
        times=99,
        when=lambda call: call["TrafficMirrorTargetId"] == bad and not call.get("DryRun"),
    )
    web = account.launch(3, tags=WEB)
    scene.settle()
    assert where(stack) == dict.fromkeys(web, good)
    tried = [call for call in account.model.faults.calls if call.parameters.get("TrafficMirrorTargetId") == bad]
    assert len([call for call in tried if not call.parameters.get("DryRun")]) == 1
