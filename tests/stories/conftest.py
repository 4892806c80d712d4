"""Fixtures of the stories: a scene, and stacks in it as a deploy leaves them."""

from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace
from typing import Any

import botocore.endpoint
import moto.sqs.models
import pytest

from lab.cloud.account import Account, strict_aws
from tests.layers.mirroring.formation import CloudFormation, listening
from tests.stories.stage import Scene, Stack

_owners = count(1)  # powertools keeps a logger per name, and with it the output of the test that made it


@pytest.fixture(scope="session")
def _formation() -> Iterator[CloudFormation]:
    with listening() as server:
        yield server


@pytest.fixture
def formation(_formation: CloudFormation) -> CloudFormation:
    _formation.answers.clear()
    return _formation


_clients: dict[tuple[str, str], Any] = {}


def _once(make: Callable[[Account, str], Any]) -> Callable[[Account, str], Any]:
    """One client for all accounts: all are alike, and making EC2's takes longer than a story."""

    def client(account: Account, service: str) -> Any:
        key = (make.__name__, service)
        if key not in _clients:
            _clients[key] = make(account, service)
        return _clients[key]

    return client


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
    monkeypatch.setattr(Account, "client", _once(Account.client))
    monkeypatch.setattr(Account, "_own", _once(Account._own))
    with strict_aws() as account:
        scene = Scene(account, capsys)
        monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=scene.sleep))
        monkeypatch.setattr(moto.sqs.models, "unix_time_millis", lambda: 1000 * account.now.timestamp())
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield scene


@pytest.fixture
def account(scene: Scene) -> Account:
    return scene.account


@pytest.fixture
def deploy(scene: Scene, formation: CloudFormation) -> Callable[[], Stack]:
    """Deploys a stack: parameters, queues and functions, with a default policy that mirrors all with the tag."""

    def deploy() -> Stack:
        account, owner = scene.account, f"story-{next(_owners)}"
        queues = {name: scene.queue(f"{owner}-{name}") for name in ("reconcile", "autotag")}
        stack = Stack(scene, owner, account.nlb_target(), account.filter(), queues, formation)
        stack.set_state("running")
        stack.put_policy(stack.policy(), default=True)
        account.take_events()
        scene.stacks.append(stack)
        return stack

    return deploy


@pytest.fixture
def stack(deploy: Callable[[], Stack]) -> Stack:
    return deploy()


@pytest.fixture
def other_stack(deploy: Callable[[], Stack]) -> Stack:
    return deploy()
