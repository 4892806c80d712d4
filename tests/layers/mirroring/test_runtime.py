"""What a container builds, when, and how often."""

import json
from collections.abc import Callable, Iterator

import pytest

from lab.cloud.account import Account, strict_aws
from mirroring import clients, runtime
from mirroring.autotag import Autotagger
from mirroring.batch import Shell
from mirroring.lifecycle import Lifecycle
from mirroring.model import Refused
from tests.layers.mirroring.wire import Reply, Wire


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    runtime.forget()
    with strict_aws() as account:
        monkeypatch.setenv("MIRROR_OWNER", "runtime-stack")
        yield account
    runtime.forget()


@pytest.mark.parametrize(
    ("build", "kind"),
    [(runtime.shell, Shell), (runtime.autotagger, Autotagger), (runtime.lifecycle, Lifecycle)],
)
def test_a_function_is_built_once_per_container(account: Account, build: Callable[[], object], kind: type) -> None:
    assert isinstance(build(), kind)
    assert build() is build()
    first = build()
    runtime.forget()
    assert build() is not first


def test_functions_of_one_container_share_their_parts(account: Account) -> None:
    assert runtime.cloud() is runtime.cloud()
    assert runtime.store() is runtime.store()
    assert runtime.bus() is runtime.bus()
    assert runtime.telemetry() is runtime.telemetry()


def test_the_environment_is_read_once(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    assert runtime.environment().owner == "runtime-stack"
    monkeypatch.setenv("MIRROR_OWNER", "another")
    assert runtime.environment().owner == "runtime-stack"


def test_the_clock_knows_its_zone() -> None:
    assert runtime.now().utcoffset() is not None


def test_a_function_invokes_itself_without_waiting(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire([Reply("", 202), Reply(json.dumps({"message": "no"}), 403)])
    tapped = wire.tap(clients.client("lambda"))
    monkeypatch.setattr(runtime, "client", lambda service: tapped if service == "lambda" else None)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "lifecycle")
    runtime.invoke_again({"RequestType": "Delete"})
    assert wire.asked == [{"RequestType": "Delete"}]
    with pytest.raises(Refused):
        runtime.invoke_again({"RequestType": "Delete"})
