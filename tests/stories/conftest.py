"""Fixtures of the stories: a scene, and stacks in it as a deploy leaves them."""

import json
import threading
from collections.abc import Callable, Iterator
from itertools import count
from types import SimpleNamespace

import botocore.endpoint
import moto.sqs.models
import pytest

from lab.cloud.account import Account, strict_aws
from tests.stories.stage import VISIBILITY, Formation, Scene, Stack

_owners = count(1)  # powertools keeps a logger per name, and with it the output of the test that made it


@pytest.fixture(scope="session")
def _formation() -> Iterator[Formation]:
    with Formation() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def formation(_formation: Formation) -> Formation:
    _formation.answers.clear()
    return _formation


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Scene]:
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
def deploy(scene: Scene, formation: Formation) -> Callable[[], Stack]:
    """Deploys a stack: parameters, queues and functions, with a default policy that mirrors all with the tag."""

    def deploy() -> Stack:
        account, owner = scene.account, f"story-{next(_owners)}"
        queues = {name: _queue(account, f"{owner}-{name}") for name in ("reconcile", "autotag")}
        heard = _queue(account, f"{owner}-heard")
        _listen(account, owner, heard)
        stack = Stack(scene, owner, account.nlb_target(), account.filter(), queues, heard, formation)
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


def _queue(account: Account, name: str) -> str:
    made = account.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(VISIBILITY)})
    return str(made["QueueUrl"])


def _listen(account: Account, owner: str, url: str) -> None:
    """Somebody's rule for our own events."""
    pattern = {"source": ["vpc-traffic-replay"], "detail-type": ["Mirror Session Changed"]}
    arn = account.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    account.bus.put_rule(Name=owner, EventPattern=json.dumps(pattern))
    account.bus.put_targets(Rule=owner, Targets=[{"Id": "heard", "Arn": arn}])
