"""Two functions at once, or one after the other within a second."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from lab.cloud.account import Account
from tests.stories.stage import WEB, Scene, Stack

CREATE = "CreateTrafficMirrorSession"


@pytest.mark.parametrize("apart", [0.0, 3.0], ids=["in the same second", "seconds apart"])
def test_two_reconciles_at_once_make_one_session_each(
    scene: Scene, account: Account, stack: Stack, apart: float
) -> None:
    """The second begins and ends while the first one's first create is on its way."""
    web = account.launch(4, tags=WEB)
    account.take_events()
    rivals: list[dict[str, Any]] = []

    def overtake(_: Mapping[str, Any]) -> bool:
        if not rivals:
            rivals.append({})
            account.now += timedelta(seconds=apart)
            rivals[0] = stack.beside("reconcile", {"mode": "sweep", "attempt": 1})
        return False

    account.model.fail(CREATE, "never", when=overtake)
    first = stack.invoke("reconcile", {"mode": "sweep", "attempt": 1})
    assert stack.mirrored == sorted(web)
    assert rivals[0]["created"] == 4 and first["failed"] == []
    scene.sweep()
    assert stack.reports()[-1]["planned"] == {"create": 0, "modify": 0, "delete": 0}


def test_two_reconciles_delete_at_once(scene: Scene, account: Account, stack: Stack) -> None:
    web = account.launch(3, tags=WEB)
    scene.settle()
    account.stop(web)
    account.take_events()
    rivals: list[dict[str, Any]] = []

    def overtake(_: Mapping[str, Any]) -> bool:
        if not rivals:
            rivals.append({})
            rivals[0] = stack.beside("reconcile", {"mode": "sweep", "attempt": 1})
        return False

    account.model.fail("DeleteTrafficMirrorSession", "never", when=overtake)
    first = stack.invoke("reconcile", {"mode": "sweep", "attempt": 1})
    assert stack.mirrored == [] and first["failed"] == [] and rivals[0]["deleted"] == 3


def test_the_instance_ends_between_the_look_and_the_call(scene: Scene, account: Account, stack: Stack) -> None:
    web, doomed = account.launch(2, tags=WEB)
    [interface] = account.interfaces(doomed)

    def end(call: Mapping[str, Any]) -> bool:
        if call["NetworkInterfaceId"] == interface:
            account.terminate([doomed])
        return False

    account.model.fail(CREATE, "never", when=end)
    scene.wait(minutes=20)
    assert stack.mirrored == [web] and not stack.pending()


def test_the_tag_is_off_and_on_again_within_a_second(scene: Scene, account: Account, stack: Stack) -> None:
    """Created, deleted and created again: the second create must not get the answer of the first."""
    [web] = account.launch(tags=WEB)
    began = account.now

    def at_once() -> None:
        scene.settle()
        account.now = began

    at_once()
    account.untag([web], ["mirror"])
    at_once()
    account.tag([web], WEB)
    at_once()
    assert stack.mirrored == [web]
