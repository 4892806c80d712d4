"""Other people's hands: on our sessions, and on sessions of their own beside ours."""

from collections.abc import Mapping
from typing import Any

from lab.cloud.account import Account
from mirroring.model import CONFIG_TAG, OWNER_TAG, SOURCE_TAG
from tests.stories.stage import WEB, Scene, Stack


def theirs(account: Account, stack: Stack, instance: str, number: int, *, ports: tuple[int, ...] = (80,)) -> str:
    """Somebody mirrors the primary interface to a target of their own; the session's id."""
    made = account.ec2.create_traffic_mirror_session(
        NetworkInterfaceId=account.interfaces(instance)[0],
        TrafficMirrorTargetId=stack.target,
        TrafficMirrorFilterId=account.filter(ports),
        SessionNumber=number,
        Description=instance,  # as ours have it
    )
    return str(made["TrafficMirrorSession"]["TrafficMirrorSessionId"])


def foreign(account: Account) -> list[dict[str, Any]]:
    """Sessions that nobody of us owns."""
    marks = {OWNER_TAG, SOURCE_TAG, CONFIG_TAG}
    sessions = account.model.all_sessions()
    return [session for session in sessions if not marks & {tag["Key"] for tag in session["Tags"]}]


def mirrored_and_settled(scene: Scene, account: Account, n: int = 1) -> list[str]:
    web = account.launch(n, tags=WEB)
    scene.settle()
    return web


def test_somebody_deletes_a_session_by_hand(scene: Scene, account: Account, stack: Stack) -> None:
    web = mirrored_and_settled(scene, account)
    [session] = stack.sessions
    account.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=session["TrafficMirrorSessionId"])
    scene.sweep()
    assert stack.mirrored == web


def test_somebody_alters_a_session_by_hand(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = mirrored_and_settled(scene, account)
    before = stack.session(web)
    account.ec2.modify_traffic_mirror_session(
        TrafficMirrorSessionId=before["TrafficMirrorSessionId"],
        TrafficMirrorTargetId=account.nlb_target(),
        TrafficMirrorFilterId=account.filter([443]),
        SessionNumber=7,
        PacketLength=100,
        Description="mine now",
    )
    scene.sweep()
    assert stack.session(web) == before
    [*_, change] = stack.logged("Changed")
    assert change["action"] == "modify" and change["reason"].startswith("altered by hand: ")


def test_somebody_takes_off_our_other_tags(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = mirrored_and_settled(scene, account)
    before = stack.session(web)
    name = before["TrafficMirrorSessionId"]
    account.ec2.delete_tags(Resources=[name], Tags=[{"Key": SOURCE_TAG}, {"Key": CONFIG_TAG}])
    account.ec2.create_tags(Resources=[name], Tags=[{"Key": "team", "Value": "blue"}])
    scene.sweep()
    assert stack.session(web)["Tags"] == {**before["Tags"], "team": "blue"}


def test_somebody_takes_off_our_ownership(scene: Scene, account: Account, stack: Stack) -> None:
    """It is foreign from then on: never touched, and another is made beside it."""
    [web] = mirrored_and_settled(scene, account)
    name = stack.session(web)["TrafficMirrorSessionId"]
    account.ec2.delete_tags(Resources=[name], Tags=[{"Key": OWNER_TAG}])
    before = [session for session in account.model.all_sessions() if session["TrafficMirrorSessionId"] == name]
    scene.sweep()
    assert stack.session(web)["SessionNumber"] == 2
    account.terminate([web])
    scene.settle()
    assert before and stack.mirrored == []


def test_somebody_mirrors_a_second_time_in_our_name(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = mirrored_and_settled(scene, account)
    kept = stack.session(web)
    copy = theirs(account, stack, web, 9)
    account.ec2.create_tags(Resources=[copy], Tags=[{"Key": OWNER_TAG, "Value": stack.owner}])
    scene.sweep()
    assert stack.sessions == [kept]


def test_foreign_sessions_are_never_touched(scene: Scene, account: Account, stack: Stack) -> None:
    web, db = account.launch(2, tags=WEB)
    theirs(account, stack, web, 3)
    theirs(account, stack, db, 1)
    before = foreign(account)
    scene.settle()
    account.untag([web, db], ["mirror"])
    scene.settle()
    account.stop([web])
    scene.sweep()
    assert stack.mirrored == [] and foreign(account) == before


def test_a_foreign_session_holds_the_preferred_number(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    stack.put_policy(stack.policy(session_number=5))
    first, second = theirs(account, stack, web, 5), theirs(account, stack, web, 6)
    scene.settle()
    assert stack.session(web)["SessionNumber"] == 7
    account.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=second)
    scene.sweep()
    assert stack.session(web)["SessionNumber"] == 6
    account.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=first)
    scene.sweep()
    assert stack.session(web)["SessionNumber"] == 5


def test_the_last_number_is_taken_and_the_lowest_free_one_is_used(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    stack.put_policy(stack.policy(session_number=32766))
    theirs(account, stack, web, 32766)
    theirs(account, stack, web, 1)
    scene.settle()
    assert stack.session(web)["SessionNumber"] == 2


def test_a_foreign_session_in_front_takes_our_packets(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    front = theirs(account, stack, web, 1, ports=(443, 80))
    scene.settle()
    scene.sweep()
    assert stack.session(web)["SessionNumber"] == 2
    assert front in stack.troubles["shadowed"] and "session_number" in stack.troubles["shadowed"]
    assert stack.metric("shadowed")[-1] == 1


def test_a_foreign_session_in_front_takes_other_packets(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    theirs(account, stack, web, 1, ports=(443,))
    scene.sweep()
    assert stack.mirrored == [web]
    assert stack.troubles == {} and stack.metric("shadowed")[-1] == 0


def test_a_foreign_session_behind_takes_what_is_left(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    theirs(account, stack, web, 2)
    scene.sweep()
    assert stack.session(web)["SessionNumber"] == 1
    assert stack.troubles == {} and stack.metric("shadowed")[-1] == 0


def test_three_foreign_sessions_leave_no_slot(scene: Scene, account: Account, stack: Stack) -> None:
    full, web = account.launch(2, tags=WEB)
    names = [theirs(account, stack, full, number) for number in (1, 2, 3)]
    scene.sweep()
    assert stack.mirrored == [web]
    assert account.interfaces(full)[0] in stack.troubles["no-slot"]
    assert sum(stack.metric("failed")) == 0, "it is not even tried"
    account.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=names[0])
    scene.sweep()
    assert stack.mirrored == sorted([full, web])


def test_somebody_takes_the_number_between_our_look_and_our_call(scene: Scene, account: Account, stack: Stack) -> None:
    [web] = account.launch(tags=WEB)
    pushed: list[str] = []

    def push_in(_: object) -> bool:
        if not pushed:
            pushed.append("")
            pushed[0] = theirs(account, stack, web, 1)
        return False

    account.model.fail("CreateTrafficMirrorSession", "never", when=push_in)
    scene.settle()
    assert stack.session(web)["SessionNumber"] == 2
    assert not stack.pending()


def test_two_stacks_in_one_account_leave_each_other_alone(
    scene: Scene, account: Account, stack: Stack, other_stack: Stack
) -> None:
    other_stack.put_policy(other_stack.policy(match={"tags": {"mirror": ["yes", "other"]}}, session_number=2))
    account.take_events()
    web = account.launch(2, tags=WEB)
    [only] = account.launch(tags={"mirror": "other"})
    scene.settle()
    scene.sweep()
    assert stack.mirrored == sorted(web)
    assert other_stack.mirrored == sorted([*web, only])
    before = other_stack.sessions
    account.untag(web, ["mirror"])
    account.events = []
    assert stack.lifecycle("Delete")["status"] == "SUCCESS"
    assert stack.mirrored == [] and other_stack.sessions == before
    scene.sweep()
    assert other_stack.mirrored == [only]


def test_three_sessions_push_in_between_our_look_and_our_call(scene: Scene, account: Account, stack: Stack) -> None:
    full, web = account.launch(2, tags=WEB)
    [interface] = account.interfaces(full)
    pushed: list[str] = []

    def push_in(call: Mapping[str, Any]) -> bool:
        if call["NetworkInterfaceId"] == interface and not pushed:
            pushed.append("")
            pushed[:] = [theirs(account, stack, full, number) for number in (1, 2, 3)]
        return False

    account.model.fail("CreateTrafficMirrorSession", "never", when=push_in)
    scene.settle()
    assert stack.mirrored == [web] and not stack.pending()
    scene.sweep()
    assert stack.troubles.keys() == {"no-slot"}


def test_a_session_with_a_strangers_description_goes_with_the_next_sweep(
    scene: Scene, account: Account, stack: Stack
) -> None:
    """Sessions of instances that do not run are looked for by description."""
    [web] = mirrored_and_settled(scene, account)
    name = stack.session(web)["TrafficMirrorSessionId"]
    account.ec2.modify_traffic_mirror_session(TrafficMirrorSessionId=name, Description="keep this")
    account.stop([web])
    scene.settle()
    scene.sweep()
    assert stack.sessions == []
