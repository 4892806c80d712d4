"""The function as Lambda runs it: the events of `events/` against a strict account."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from functions.reconcile import app
from lab.cloud.account import Account, strict_aws
from mirroring import runtime

ROOT = Path(__file__).parents[2]
EVENTS = sorted((ROOT / "events").glob("*.json"))
OWNER = "app-stack"
WEB = {"mirror": "yes"}


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 300_000


@dataclass
class Stack:
    """What the stack sets up in an account, and its function."""

    account: Account
    queue: str
    heard: str  # queue behind a rule for our own events

    def handle(self, event: Mapping[str, Any]) -> dict[str, Any]:
        return app.handler(dict(event), Context())

    def deliver(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Through a real queue, as one batch."""
        for event in events:
            self.account.sqs.send_message(QueueUrl=self.queue, MessageBody=json.dumps(event))
        records = []
        while received := self._receive():
            records += received
        answer = self.handle({"Records": records})
        failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        for record in records:
            if record["messageId"] not in failed:  # as Lambda's poller does
                self.account.sqs.delete_message(QueueUrl=self.queue, ReceiptHandle=record["receiptHandle"])
        return answer

    def _receive(self) -> list[dict[str, Any]]:
        messages = self.account.sqs.receive_message(
            QueueUrl=self.queue, MaxNumberOfMessages=10, AttributeNames=["All"]
        ).get("Messages", [])
        return [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "eventSource": "aws:sqs",
            }
            for message in messages
        ]

    def announced(self) -> list[dict[str, Any]]:
        found = []
        while messages := self.account.sqs.receive_message(QueueUrl=self.heard, MaxNumberOfMessages=10).get("Messages"):
            found += [json.loads(message["Body"]) for message in messages]
        return found

    @property
    def mirrored(self) -> list[str]:
        sessions = self.account.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        return sorted(session["Description"] for session in sessions)


@contextmanager
def deployed() -> Iterator[Stack]:
    runtime.forget()
    with strict_aws() as account, pytest.MonkeyPatch.context() as monkeypatch:
        queue = account.sqs.create_queue(QueueName="reconcile")["QueueUrl"]
        heard = account.sqs.create_queue(QueueName="heard")["QueueUrl"]
        account.bus.put_rule(Name="ours", EventPattern=json.dumps({"source": ["vpc-traffic-replay"]}))
        arn = account.sqs.get_queue_attributes(QueueUrl=heard, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        account.bus.put_targets(Rule="ours", Targets=[{"Id": "heard", "Arn": arn}])
        for name, value in (("MIRROR_OWNER", OWNER), ("QUEUE_URL", queue)):
            monkeypatch.setenv(name, value)
        account.ssm.put_parameter(Name=f"/{OWNER}/state", Value="running", Type="String")
        source = {"name": "web", "match": {"tags": {"mirror": ["yes"]}}}
        source |= {"target": account.nlb_target(), "filter": account.filter()}
        policy = {"version": 1, "sources": [source], "limits": {"writes_per_second": 5}}
        account.put_policy(json.dumps(policy), f"/{OWNER}/policy-default")
        account.take_events()
        yield Stack(account, queue, heard)
    runtime.forget()


@pytest.fixture
def stack() -> Iterator[Stack]:
    with deployed() as stack:
        yield stack


@pytest.fixture(scope="module")
def bystander() -> Iterator[Stack]:
    """One for all the samples: none of them is about an instance that exists."""
    with deployed() as stack:
        yield stack


def test_instances_come_and_go_and_their_sessions_with_them(stack: Stack) -> None:
    web = stack.account.launch(3, tags=WEB)
    other = stack.account.launch()
    assert stack.deliver(stack.account.take_events()) == {"batchItemFailures": []}
    assert stack.mirrored == sorted(web)
    stack.account.stop(web[:1])
    stack.account.untag(web[1:2], ["mirror"])
    stack.account.tag(other, WEB)
    stack.account.terminate(web[2:])
    assert stack.deliver(stack.account.take_events()) == {"batchItemFailures": []}
    assert stack.mirrored == other


def test_a_group_goes_from_2_to_20_instances_and_back(stack: Stack) -> None:
    stack.account.group("web", 2, tags=WEB)
    stack.deliver(stack.account.take_events())
    assert len(stack.mirrored) == 2
    grown = stack.account.scale("web", 20)
    stack.deliver(stack.account.take_events())
    assert stack.mirrored == sorted(grown)
    assert len(grown) == 20
    stayed = stack.account.scale("web", 2)
    stack.deliver(stack.account.take_events())
    assert stack.mirrored == sorted(stayed)


def test_what_is_lost_is_repaired_by_the_schedule(stack: Stack) -> None:
    web = stack.account.launch(2, tags=WEB)
    stack.account.take_events()  # all lost
    stack.account.tick()
    [tick] = stack.account.take_events()
    summary = stack.handle(tick)
    assert (summary["created"], summary["desired"]) == (2, 2)
    assert stack.mirrored == sorted(web)


def test_changes_are_heard_on_the_bus(stack: Stack) -> None:
    [web] = stack.account.launch(tags=WEB)
    stack.deliver(stack.account.take_events())
    [event] = stack.announced()
    assert (event["source"], event["detail-type"]) == ("vpc-traffic-replay", "Mirror Session Changed")
    assert event["detail"]["action"] == "created"
    assert event["detail"]["instance-id"] == web
    assert event["detail"]["owner"] == OWNER


def test_the_bus_hears_while_the_run_goes_on(stack: Stack) -> None:
    stack.account.launch(12, tags=WEB)
    stack.account.model.faults.calls.clear()
    stack.handle({"mode": "sweep"})
    made = [call.action for call in stack.account.model.faults.calls]
    told = [action for action in made if action in ("CreateTrafficMirrorSession", "PutEvents")]
    assert told == [*["CreateTrafficMirrorSession"] * 10, "PutEvents", *["CreateTrafficMirrorSession"] * 2, "PutEvents"]
    assert len(stack.announced()) == 12


def test_without_any_policy_an_alarm_has_something_to_look_at(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    def invalid() -> list[float]:
        stack.handle({"mode": "sweep"})
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "policy_invalid" in line]
        found: list[float] = lines[-1]["policy_invalid"]
        return found

    assert invalid() == [0.0]
    stack.account.ssm.delete_parameter(Name=f"/{OWNER}/policy-default")
    assert invalid() == [1.0]


def test_a_plan_in_a_batch_makes_no_sweep_of_an_event(stack: Stack) -> None:
    web, _ = stack.account.launch(2, tags=WEB)
    about_web = [event for event in stack.account.take_events() if web in json.dumps(event)]
    assert stack.deliver([{"mode": "plan"}, *about_web]) == {"batchItemFailures": []}
    assert stack.mirrored == [web]


def test_an_instance_that_ec2_does_not_show_yet_comes_again_later(stack: Stack) -> None:
    [web] = stack.account.launch(tags=WEB)
    early = json.loads((ROOT / "events/ec2-instance-running.json").read_text())
    early["time"] = datetime.now(UTC).isoformat()
    early["detail"]["instance-id"] = "i-0feedbeef00000000"
    answer = stack.deliver([*stack.account.take_events(), early])
    assert len(answer["batchItemFailures"]) == 1
    assert stack.mirrored == [web]
    hidden = stack.account.sqs.get_queue_attributes(QueueUrl=stack.queue, AttributeNames=["All"])["Attributes"]
    assert hidden["ApproximateNumberOfMessagesNotVisible"] == "1"


def test_a_warm_event_about_one_instance_costs_four_calls_beside_the_change(stack: Stack) -> None:
    web, other = stack.account.launch(2, tags=WEB)
    stack.deliver(stack.account.take_events())
    stack.account.untag([web], ["mirror"])
    [untagged] = stack.account.take_events()
    asked = runtime.store().calls
    summary = stack.handle(untagged)
    assert summary["deleted"] == 1
    assert summary["calls"] == 3 + 1  # three reads and the delete
    assert runtime.store().calls - asked <= 1 + 1  # the policy, and perhaps the look at the switch before the delete
    assert stack.mirrored == [other]


def test_a_plan_by_hand_changes_nothing(stack: Stack) -> None:
    [web] = stack.account.launch(tags=WEB)
    summary = stack.handle({"mode": "plan"})
    assert [(one["action"], one["instance"]) for one in summary["planned"]["changes"]] == [("create", web)]
    assert summary["plan_only"] is True
    assert stack.mirrored == []


def test_the_first_sweep_waits_for_a_healthy_target(stack: Stack) -> None:
    unhealthy = stack.account.nlb_target(healthy=False)
    [text] = [
        one["Value"] for one in stack.account.ssm.get_parameters(Names=[f"/{OWNER}/policy-default"])["Parameters"]
    ]
    policy = json.loads(text)
    policy["sources"][0]["target"] = unhealthy
    stack.account.put_policy(json.dumps(policy), f"/{OWNER}/policy-default")
    [web] = stack.account.launch(tags=WEB)
    stack.account.take_events()
    assert stack.handle({"mode": "sweep"})["waiting"] is False  # of a schedule: the next one comes by itself
    assert stack.handle({"mode": "sweep", "attempt": 0})["waiting"] is True
    queued = stack.account.sqs.get_queue_attributes(QueueUrl=stack.queue, AttributeNames=["All"])["Attributes"]
    assert queued["ApproximateNumberOfMessagesDelayed"] == "1"
    stack.account.set_health(unhealthy, healthy=True)
    assert stack.handle({"mode": "sweep", "attempt": 2})["waiting"] is False
    assert stack.mirrored == [web]


def test_a_stack_that_is_paused_changes_nothing(stack: Stack) -> None:
    stack.account.launch(tags=WEB)
    stack.account.ssm.put_parameter(Name=f"/{OWNER}/state", Value="paused", Type="String", Overwrite=True)
    assert stack.deliver(stack.account.take_events()) == {"batchItemFailures": []}
    stack.account.ssm.delete_parameter(Name=f"/{OWNER}/state")
    stack.account.tick()
    assert "does not exist" in stack.handle(stack.account.take_events()[0])["paused"]
    assert stack.mirrored == []


LOOKED_AT = {"autoscaling-launch", "autoscaling-terminate"}  # not those to a warm pool


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_every_sample_is_fit_for_the_handler_bare_and_in_a_batch(bystander: Stack, path: Path) -> None:
    event = json.loads(path.read_text())
    answer = bystander.handle(event)
    json.dumps(answer)
    if "Records" in event:
        assert answer == {"batchItemFailures": []}
        return
    understood = not answer["passed_over"]
    assert understood == (not path.stem.startswith(("custom-resource", "autoscaling-")) or path.stem in LOOKED_AT)
    assert bystander.deliver([event]) == {"batchItemFailures": []}
    assert bystander.mirrored == []
