"""The policy changes: for the better, for the worse, and into nonsense."""

from typing import Any

import pytest

from lab.cloud.account import Account
from tests.stories.stage import WEB, Scene, Stack


def ids(stack: Stack) -> list[str]:
    return sorted(session["TrafficMirrorSessionId"] for session in stack.sessions)


def test_a_new_policy_is_applied_to_the_same_sessions(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(3, tags=WEB)
    scene.settle()
    before = ids(stack)
    target, rules = account.nlb_target(), account.filter([443])
    account.take_events()
    asked: dict[str, Any] = {"target": target, "filter": rules, "session_number": 4, "vni": 77, "packet_length": 200}
    stack.put_policy(stack.policy(**asked, description="for the tests"))
    scene.settle()
    assert ids(stack) == before
    for session in stack.sessions:
        assert (session["TrafficMirrorTargetId"], session["TrafficMirrorFilterId"]) == (target, rules)
        assert (session["SessionNumber"], session["VirtualNetworkId"], session["PacketLength"]) == (4, 77, 200)
        assert session["Tags"]["mirror:description"] == "for the tests"
    assert (sum(stack.metric("created")), sum(stack.metric("modified"))) == (3, 3)
    assert not stack.plan()["planned"]["changes"]


def test_what_a_policy_asked_for_is_unset_again(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(packet_length=200, description="short"))
    account.launch(tags=WEB)
    scene.settle()
    before = ids(stack)
    stack.put_policy(stack.policy())
    scene.settle()
    [session] = stack.sessions
    assert (ids(stack), session["PacketLength"]) == (before, 8500)
    assert "mirror:description" not in session["Tags"]
    assert not stack.plan()["planned"]["changes"]


def test_two_sources_and_the_first_that_matches_wins(scene: Scene, account: Account, stack: Stack) -> None:
    canaries = account.launch(2, tags=WEB | {"Name": "web-canary"})
    web = account.launch(2, tags=WEB)
    policy = stack.policy(vni=2)
    first = policy["sources"][0] | {"name": "canaries", "match": {"names": "*-canary"}, "vni": 1}
    stack.put_policy(policy | {"sources": [first, *policy["sources"]]})
    scene.settle()
    vnis = {session["Description"]: session["VirtualNetworkId"] for session in stack.sessions}
    assert vnis == dict.fromkeys(canaries, 1) | dict.fromkeys(web, 2)
    account.tag(web[:1], {"Name": "another-canary"})
    before = ids(stack)
    scene.settle()
    assert stack.session(web[0])["VirtualNetworkId"] == 1 and ids(stack) == before


def test_a_policy_is_altered_within_the_minute_in_which_the_old_one_is_remembered(
    scene: Scene, account: Account, stack: Stack
) -> None:
    """The event of the change is lost; what an old policy says is never the ground of a delete."""
    web, db = account.launch(2, tags=WEB)
    scene.settle()
    stack.put_policy(stack.policy(match={"tags": {"mirror": "*"}}))
    account.tag([web, db], {"mirror": "other"})
    account.events = [event for event in account.take_events() if event["source"] == "aws.tag"]
    scene.settle()
    assert stack.mirrored == sorted([web, db])
    assert sum(stack.metric("deleted")) == 0


INVALID = [
    "version: 1\nsources: [{name: web, match: {tags: {mirror: 'yes'}}, shar: 10}]",
    "{",
    "version: 2",
    "sources: [{name: web, match: {}, target: tmt-1, filter: tmf-1}]",
    "x" * 5000,
]


@pytest.mark.parametrize("text", INVALID, ids=["unknown key", "no YAML", "version", "everything", "too long"])
def test_an_invalid_policy_is_refused_and_the_last_valid_one_stays_in_force(
    scene: Scene, account: Account, stack: Stack, text: str
) -> None:
    stack.put_policy(stack.policy(session_number=3))
    web = account.launch(tags=WEB)
    scene.settle()
    force(account, stack, text)
    scene.settle()
    assert stack.mirrored == web and stack.session(web[0])["SessionNumber"] == 3
    assert stack.metric("policy_invalid")[-1] == 1
    [refused] = stack.reports()[-1]["refused"]
    assert refused.startswith(f"/{stack.owner}/policy:2: ")
    stack.cold_start()
    more = account.launch(tags=WEB)
    scene.settle()
    assert stack.mirrored == sorted([*web, *more]) and stack.reports()[-1]["policy"].endswith("/policy:1")
    stack.put_policy(stack.policy(session_number=4))
    scene.settle()
    assert stack.session(web[0])["SessionNumber"] == 4
    assert stack.metric("policy_invalid")[-1] == 0


def force(account: Account, stack: Stack, text: str) -> None:
    """A larger one than a Standard parameter holds makes it Advanced, as the console would."""
    if len(text) > 4096:
        account.ssm.put_parameter(
            Name=f"/{stack.owner}/policy", Value=text, Type="String", Overwrite=True, Tier="Advanced"
        )
        account.tick()
    else:
        stack.put_policy(text)


def test_a_users_first_policy_is_invalid_and_the_stacks_default_serves(
    scene: Scene, account: Account, stack: Stack
) -> None:
    web = account.launch(tags=WEB)
    stack.put_policy("sources: 7")
    scene.settle()
    assert stack.mirrored == web
    assert stack.metric("policy_invalid")[-1] == 1


def test_no_policy_is_valid_and_nothing_is_changed(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(tags=WEB)
    scene.settle()
    account.ssm.delete_parameter(Name=f"/{stack.owner}/policy-default")
    stack.put_policy("sources: 7")
    account.stop(web)
    scene.settle()
    scene.sweep()
    assert stack.mirrored == web
    assert stack.metric("stopped")[-1] == 1 and stack.metric("policy_invalid")[-1] == 1
    assert stack.logged("Reconciled")[-1]["level"] == "ERROR"
    assert not stack.pending(), "a retry would find the same"


def test_the_users_policy_is_deleted_and_the_default_is_in_force_again(
    scene: Scene, account: Account, stack: Stack
) -> None:
    stack.put_policy(stack.policy(session_number=3))
    [web] = account.launch(tags=WEB)
    scene.settle()
    account.ssm.delete_parameter(Name=f"/{stack.owner}/policy")
    scene.sweep()
    assert stack.session(web)["SessionNumber"] == 1


def test_a_policy_for_the_worse_and_the_guard_holds(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(8, tags=WEB)
    scene.settle()
    stack.put_policy(stack.policy(match={"tags": {"miror": "yes"}}))
    [new] = account.launch(tags={"miror": "yes"})
    scene.settle()
    assert stack.mirrored == sorted([*web, new]), "creates go on"
    assert "8 deletes are held back" in stack.troubles["guard"] and "mirrorctl plan" in stack.troubles["guard"]
    assert stack.metric("guard_tripped")[-1] == 1
    assert not stack.pending()
    stack.put_policy(stack.policy(match={"tags": {"miror": "yes"}}, limits={"delete_fraction": 1}))
    scene.settle()
    assert stack.mirrored == [new]


def test_a_run_deletes_no_more_than_its_limit(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(limits={"deletes": 3}))
    web = account.launch(4, tags=WEB)
    scene.settle()
    account.stop(web)
    scene.settle()
    assert stack.mirrored == sorted(web)
    assert "limits.deletes allows 3" in stack.troubles["guard"]


def test_the_policy_says_paused(scene: Scene, account: Account, stack: Stack) -> None:
    [old] = account.launch(tags=WEB)
    scene.settle()
    stack.put_policy(stack.policy() | {"paused": True})
    account.launch(tags=WEB)
    account.stop([old])
    scene.settle()
    assert stack.mirrored == [old]
    assert "paused: true" in stack.reports()[-1]["paused"] and stack.metric("paused")[-1] == 1
    assert stack.reports()[-1]["planned"]["create"] == 1
    assert not stack.pending()
    stack.put_policy(stack.policy())
    scene.settle()
    assert old not in stack.mirrored and len(stack.mirrored) == 1


@pytest.mark.parametrize("value", ["paused", "pausd"])
def test_the_stacks_state_says_paused(scene: Scene, account: Account, stack: Stack, value: str) -> None:
    stack.set_state(value)
    account.launch(tags=WEB)
    scene.settle()
    assert stack.mirrored == [] and stack.metric("paused")[-1] == 1
    stack.set_state("running")
    scene.sweep()
    assert len(stack.mirrored) == 1


def test_somebody_pauses_while_a_run_is_at_work(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(limits={"writes_per_second": 1}))
    account.launch(12, tags=WEB)
    made: list[object] = []

    def pause_at_the_eighth(call: object) -> bool:
        made.append(call)
        if len(made) == 8:
            stack.set_state("paused")
        return False

    account.model.fail("CreateTrafficMirrorSession", "never", when=pause_at_the_eighth)
    scene.settle()
    assert len(stack.sessions) < 12, "it looks again before it writes, at least once a second"
    assert stack.metric("paused")[-1] == 1


def test_windows_open_and_close(scene: Scene, account: Account, stack: Stack) -> None:
    """It is Monday, 08:00 UTC."""
    window = {"days": ["mon"], "from": "09:30", "to": "17:00", "zone": "Europe/Berlin"}
    stack.put_policy(stack.policy(windows=[window]))
    web = account.launch(8, tags=WEB)
    scene.settle()
    assert stack.mirrored == []
    scene.wait(minutes=31)
    scene.sweep()
    assert stack.mirrored == sorted(web)
    scene.wait(hours=7, minutes=28)
    scene.sweep()
    assert stack.mirrored == sorted(web)
    scene.wait(minutes=1)
    scene.sweep()
    assert stack.mirrored == [], "evident: no guard holds them"


def test_a_larger_share_mirrors_more_and_all_of_before(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(share=50))
    web = account.launch(16, tags=WEB)
    scene.settle()
    half = stack.mirrored
    assert 0 < len(half) < 16
    stack.put_policy(stack.policy())
    scene.settle()
    assert stack.mirrored == sorted(web) and set(half) < set(web)


def test_a_plan_by_hand_tells_and_changes_nothing(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    account.take_events()
    plan = stack.plan()
    assert [(one["action"], one["instance"]) for one in plan["planned"]["changes"]] == [("create", web)]
    assert stack.sessions == [] and plan["plan_only"]
    stack.set_state("paused")
    assert stack.plan()["planned"]["create"] == 1


def test_changes_are_told_on_the_bus(scene: Scene, account: Account, stack: Stack) -> None:
    stack.listen()
    [web] = account.launch(tags=WEB)
    scene.settle()
    stack.put_policy(stack.policy(session_number=9))
    scene.settle()
    account.stop([web])
    scene.settle()
    heard = [event["detail"] for event in stack.heard_on_the_bus()]
    assert [detail["action"] for detail in heard] == ["created", "modified", "deleted"]
    assert {detail["instance-id"] for detail in heard} == {web} and {detail["source"] for detail in heard} == {"web"}
    created, modified, deleted = heard
    assert created["reason"] == f"source web selects {web}"
    assert (modified["changes"], modified["before"]["number"], modified["session"]["number"]) == (["number"], 1, 9)
    assert "stopped" in deleted["reason"] and deleted["session"]["id"] == created["session"]["id"]
    assert [event["source"] for event in stack.heard_on_the_bus()] == ["vpc-traffic-replay"] * 3


def test_metrics_count_what_is_desired_and_what_is(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(interfaces="all"))
    _, ends = account.launch(2, tags=WEB)
    account.attach(ends)  # an interface that outlives the instance, and its session with it
    scene.settle()
    scene.wait(minutes=5)  # a young session is no orphan: its instance may not be visible yet
    account.terminate([ends])
    account.vanish([ends])
    account.take_events()
    scene.sweep()
    assert [stack.metric(name)[-1] for name in ("desired", "actual", "orphaned", "deleted")] == [1, 1, 1, 1]
    scene.sweep()
    assert [stack.metric(name)[-1] for name in ("desired", "actual", "orphaned", "deleted")] == [1, 1, 0, 0]
    assert [stack.metric(name)[-1] for name in ("quarantined", "shadowed", "failed", "modified")] == [0, 0, 0, 0]


def test_no_more_sessions_than_the_policy_allows(scene: Scene, account: Account, stack: Stack) -> None:
    stack.put_policy(stack.policy(limits={"sessions": 3}))
    account.launch(5, tags=WEB)
    scene.settle()
    assert len(stack.sessions) == 3
    assert "limits.sessions allows 3: 2 interfaces" in stack.troubles["limit"]


def test_no_more_sessions_than_the_policy_allows_when_instances_come_one_by_one(
    scene: Scene, account: Account, stack: Stack
) -> None:
    stack.put_policy(stack.policy(limits={"sessions": 3}))
    scene.settle()
    for _ in range(5):
        account.launch(tags=WEB)
        scene.settle()
    assert len(stack.sessions) == 3


def test_from_a_load_balancer_to_an_interface_and_back(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(2, tags=WEB)
    scene.settle()
    before = ids(stack)
    single = account.eni_target()
    account.take_events()
    for target in (single, stack.target):
        stack.put_policy(stack.policy(target=target))
        scene.settle()
        assert {session["TrafficMirrorTargetId"] for session in stack.sessions} == {target}
        assert not stack.plan()["planned"]["changes"]
    assert ids(stack) == before


def test_the_policy_cannot_be_read_and_is_read_later(scene: Scene, account: Account, stack: Stack) -> None:
    [old] = account.launch(tags=WEB)
    scene.settle()
    scene.wait(minutes=2)
    account.model.fail("GetParameters", "InternalServerError", times=99)
    [new] = account.launch(tags=WEB)
    account.stop([old])
    scene.settle()
    assert stack.mirrored == [old]
    account.model.faults.clear()
    scene.wait(minutes=2)
    assert stack.mirrored == [new] and not stack.pending()


def test_a_rename_of_a_source_is_only_a_change_of_tags(scene: Scene, account: Account, stack: Stack) -> None:
    account.launch(2, tags=WEB)
    scene.settle()
    before = ids(stack)
    stack.put_policy(stack.policy(name="shop"))
    scene.settle()
    assert {session["Tags"]["mirror:source"] for session in stack.sessions} == {"shop"} and ids(stack) == before
    assert not stack.plan()["planned"]["changes"]


def test_an_exception_always_wins(scene: Scene, account: Account, stack: Stack) -> None:
    web, canary = account.launch(2, tags=WEB)
    scene.settle()
    stack.put_policy(stack.policy() | {"except": {"instances": canary}})
    scene.settle()
    assert stack.mirrored == [web]
    assert "except" in stack.logged("Changed")[-1]["reason"]
