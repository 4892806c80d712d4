"""The custom resource as CloudFormation and Lambda call it, on moto made strict."""

import json
from collections.abc import Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from functions.lifecycle import app
from lab.cloud.account import Account, strict_aws
from mirroring import runtime
from mirroring.lifecycle import Lifecycle
from mirroring.model import OWNER_TAG, Scope
from tests.layers.mirroring.fake_cloud import FakeTime
from tests.layers.mirroring.formation import CloudFormation, listening

EVENTS = Path(__file__).parents[2] / "events"

_owners = count()  # powertools keeps one logger per name, and with it the stream of the first test


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 900_000


@pytest.fixture
def formation(monkeypatch: pytest.MonkeyPatch) -> Iterator[CloudFormation]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with listening() as server:
        yield server


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with strict_aws() as account:
        monkeypatch.setenv("MIRROR_OWNER", f"lifecycle-{next(_owners)}")
        monkeypatch.setenv("POLICY_PARAMETER", "/replay/policy")
        monkeypatch.setenv("STATE_PARAMETER", "/replay/state")
        monkeypatch.setenv("QUEUE_URL", account.sqs.create_queue(QueueName="reconcile")["QueueUrl"])
        account.ssm.put_parameter(Name="/replay/state", Value="paused", Type="String")
        runtime.forget()
        yield account
        runtime.forget()


def request(formation: CloudFormation, name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / name).read_text())
    return event | {"ResponseURL": formation.url}


def state(account: Account) -> str:
    return str(account.ssm.get_parameter(Name="/replay/state")["Parameter"]["Value"])


def test_create_starts_the_stack_whatever_its_policy(account: Account, formation: CloudFormation) -> None:
    account.ssm.put_parameter(Name="/replay/policy", Value="{nonsense", Type="String")
    outcome = app.handler(request(formation, "custom-resource-create.json"), Context())
    assert (outcome["status"], formation.answers[0]["Status"], state(account)) == ("SUCCESS", "SUCCESS", "running")
    (message,) = account.sqs.receive_message(QueueUrl=runtime.environment().queue_url)["Messages"]
    assert json.loads(message["Body"]) == {"mode": "sweep", "attempt": 0}


def test_update_leaves_everything_as_it_is(account: Account, formation: CloudFormation) -> None:
    event = request(formation, "custom-resource-update.json")
    app.handler(event, Context())
    assert (formation.answers[0]["Status"], state(account)) == ("SUCCESS", "paused")
    assert formation.answers[0]["PhysicalResourceId"] == event["PhysicalResourceId"]
    assert account.sqs.receive_message(QueueUrl=runtime.environment().queue_url).get("Messages", []) == []


def test_delete_removes_what_a_sweep_made(
    account: Account, formation: CloudFormation, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target, rules = account.nlb_target(), account.filter([80])
    web, _ = account.launch(2, tags={"mirror": "yes"})
    source = f"{{name: web, match: {{tags: {{mirror: '*'}}}}, target: {target}, filter: {rules}}}"
    policy = f"{{version: 1, sources: [{source}]}}"
    account.ssm.put_parameter(Name="/replay/policy", Value=policy, Type="String")
    runtime.store().resume()
    assert len(runtime.reconciler().run(Scope(everything=True), lambda: 600.0).created) == 2
    theirs = {"NetworkInterfaceId": account.interfaces(web)[0], "SessionNumber": 9}
    account.ec2.create_traffic_mirror_session(TrafficMirrorTargetId=target, TrafficMirrorFilterId=rules, **theirs)
    time = FakeTime()
    built = Lifecycle(
        runtime.cloud(), runtime.store(), runtime.bus(), runtime.invoke_again, runtime.environment(), time, time.sleep
    )
    monkeypatch.setattr(runtime, "lifecycle", cache(lambda: built))
    outcome = app.handler(request(formation, "custom-resource-delete.json"), Context())
    assert outcome == {"status": "SUCCESS", "reason": "none of our sessions is left; 2 deleted", "deleted": 2}
    assert formation.answers[0]["Status"] == "SUCCESS"
    with pytest.raises(account.ssm.exceptions.ParameterNotFound):
        state(account)
    (left,) = runtime.cloud().sessions()
    assert OWNER_TAG not in left.tags
    assert runtime.reconciler().run(Scope(everything=True), lambda: 600.0).paused
    out = capsys.readouterr().out
    (line,) = [json.loads(line) for line in out.splitlines() if '"Lifecycle"' in line]
    assert (line["level"], line["request"]) == ("INFO", "Delete")
    assert "X-Amz-Signature" not in out


def test_what_failed_is_an_error_in_the_log(
    account: Account, formation: CloudFormation, capsys: pytest.CaptureFixture[str]
) -> None:
    event = request(formation, "custom-resource-create.json") | {"RequestType": "Rename"}
    assert app.handler(event, Context())["status"] == "FAILED"
    assert formation.answers[0]["Status"] == "FAILED"
    assert '"level":"ERROR"' in capsys.readouterr().out
