"""A stage for stories: a strict account, stacks in it as a deploy would leave them, and time that passes at once.

Things happen to `account`; `settle` carries the events that follow through each stack's rules and queues to the real
handlers of `functions/`, in batches, until no queue holds a message that is visible; `wait` lets time pass, in which
messages that were put off come again. The one clock is `account.now`: the functions read it, their sleeps move it, and
so do the queues' delays. Nothing else is made up.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from moto.sqs.models import sqs_backends

import mirroring.runtime
from lab.cloud import events
from lab.cloud.account import Account
from mirroring import clients
from mirroring.model import OWNER_TAG
from tests.layers.mirroring.formation import CloudFormation

ROOT = Path(__file__).parents[2]
WEB = {"mirror": "yes"}
#: Most deliveries until the queues are empty: events that bring forth events for ever end here.
ROUNDS = 40
INSTANT = timedelta(milliseconds=1)
INVOCATION = timedelta(seconds=1)  # what one takes
VISIBILITY = 1800  # seconds; AWS asks for six times the function's timeout


@cache
def client_of(service: str, *, attempts: int = clients.READ_ATTEMPTS) -> Any:
    """One for all stories: to make EC2's takes longer than most of them."""
    return clients.client(service, attempts=attempts)


@dataclass
class Context:
    """What Lambda says of an invocation, whose time runs on the account's clock."""

    account: Account
    until: float

    def get_remaining_time_in_millis(self) -> int:
        return int(1000 * (self.until - self.account.now.timestamp()))


class Container:
    """A function's code as Lambda loads it, by path, in a world of its own: what `runtime` remembers is not shared."""

    def __init__(self, function: str, environment: Mapping[str, str], scene: "Scene", again: list[Any]) -> None:
        self._environment = environment
        runtime = _load("mirroring_runtime", Path(str(mirroring.runtime.__file__)))
        vars(runtime).update(
            now=lambda: scene.account.now,
            time=SimpleNamespace(sleep=scene.sleep),
            client=client_of,
            invoke_again=again.append,
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(mirroring, "runtime", runtime)
            self._handler = _load(f"function_{function}", ROOT / "functions" / function / "app.py").handler

    def run(self, event: Mapping[str, Any], context: Context) -> dict[str, Any]:
        os.environ.update(self._environment)
        answer: dict[str, Any] = self._handler(dict(event), context)
        json.dumps(answer)  # Lambda's answer is JSON
        return answer


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Scene:
    """An account, the stacks in it, and its time."""

    def __init__(self, account: Account, capture: pytest.CaptureFixture[str]) -> None:
        self.account = account
        self.sqs = account._own("sqs")  # and EventBridge: nothing hinders them
        self.stacks: list[Stack] = []
        self.on_sleep: Callable[[float], None] | None = None
        self._capture = capture
        self._lines: list[dict[str, Any]] = []
        self._serials = count(10**6)

    # Time

    def sleep(self, seconds: float) -> None:
        self.account.now += timedelta(seconds=seconds)
        if self.on_sleep:
            self.on_sleep(seconds)

    def wait(self, **span: float) -> None:
        """Let time pass, as `timedelta` names it, and whatever comes up in it be done."""
        end = self.account.now + timedelta(**span)
        self.settle()
        while self.account.now < end:
            due = [moment for stack in self.stacks for moment in stack.pending()]
            self.account.now = max(self.account.now, min([end, *(moment + INSTANT for moment in due)]))
            self.settle()

    # Events

    def settle(self) -> None:
        for _ in range(ROUNDS):
            for event in self.account.take_events():
                for stack in self.stacks:
                    stack.receive(event)
            if not [stack for stack in self.stacks if stack.poll()]:
                return
        raise AssertionError(f"after {ROUNDS} rounds the queues still hold messages")

    def sweep(self) -> None:
        """The schedule strikes."""
        self.account.tick()
        self.settle()

    def tell_of_tags(self, since: int) -> None:
        """The events of what a function itself did to instances' tags, in its calls since then."""
        for call in self.account.model.faults.calls[since:]:
            if call.action in ("CreateTags", "DeleteTags"):
                keys = {tag["Key"] for tag in call.parameters["Tags"]}
                instances = [name for name in call.parameters["Resources"] if name.startswith("i-")]
                for name in instances:
                    there = keys <= tags_of(self.account, name).keys()
                    if there == (call.action == "CreateTags"):  # it was not refused
                        self.account.events.append(self._tag_event(name, sorted(keys)))

    def _tag_event(self, instance: str, keys: list[str]) -> dict[str, Any]:
        serial = next(self._serials)
        return events.tag_change(
            instance, keys, tags_of(self.account, instance), version=serial, at=self.account.now, serial=serial
        )

    # Queues

    def queue(self, name: str) -> str:
        made = self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(VISIBILITY)})
        return str(made["QueueUrl"])

    def due(self, url: str) -> list[datetime]:
        """When each message of a queue is visible."""
        queue = sqs_backends[events.ACCOUNT][self.account.region].get_queue(url.rsplit("/", 1)[-1])
        due = [max(one.visible_at, one.delayed_until) for one in queue._messages]
        return [datetime.fromtimestamp(milliseconds / 1000, UTC) for milliseconds in due]

    def received(self, url: str) -> Iterator[dict[str, Any]]:
        """Records of all messages that a queue shows now."""
        arn = f"arn:aws:sqs:{self.account.region}:{events.ACCOUNT}:{url.rsplit('/', 1)[-1]}"
        while min(self.due(url), default=self.account.now) < self.account.now:
            for message in self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=VISIBILITY, AttributeNames=["All"]
            )["Messages"]:
                yield {
                    "messageId": message["MessageId"],
                    "receiptHandle": message["ReceiptHandle"],
                    "body": message["Body"],
                    "attributes": message["Attributes"],
                    "messageAttributes": {},
                    "md5OfBody": message["MD5OfBody"],
                    "eventSource": "aws:sqs",
                    "eventSourceARN": arn,
                    "awsRegion": self.account.region,
                }

    # What was written

    def lines(self) -> list[dict[str, Any]]:
        """All that the functions wrote: log and metrics."""
        out = self._capture.readouterr().out
        self._lines += [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return self._lines


@dataclass
class Stack:
    """What a deploy makes: parameters, rules, queues and functions."""

    scene: Scene
    owner: str
    target: str
    filter: str
    queues: dict[str, str]  # by function
    formation: CloudFormation
    tagging: bool = False  # whether the rules for autotag are enabled
    heard: str = ""  # queue behind somebody's rule for our own events
    again: list[dict[str, Any]] = field(default_factory=list)  # events with which a function invoked itself
    heard_so_far: list[dict[str, Any]] = field(default_factory=list)
    containers: dict[str, Container] = field(default_factory=dict)  # that are warm, by function

    @property
    def account(self) -> Account:
        return self.scene.account

    # Policy and state

    def put_policy(self, policy: str | Mapping[str, Any], *, default: bool = False) -> None:
        text = policy if isinstance(policy, str) else json.dumps(policy)
        self.account.put_policy(text, f"/{self.owner}/{'policy-default' if default else 'policy'}")

    def policy(self, *, limits: Mapping[str, Any] | None = None, **source: Any) -> dict[str, Any]:
        """Of one source, for instances with the tag, with these settings."""
        web = {"name": "web", "match": {"tags": {"mirror": "yes"}}, "target": self.target, "filter": self.filter}
        return {"version": 1, "sources": [web | source], "limits": {"writes_per_second": 5} | dict(limits or {})}

    def set_state(self, value: str) -> None:
        self.account.ssm.put_parameter(Name=f"/{self.owner}/state", Value=value, Type="String", Overwrite=True)

    # Events

    def receive(self, event: Mapping[str, Any]) -> None:
        """As the stack's rules pass it on."""
        for function in _destinations(event):
            if function != "autotag" or self.tagging:
                self.send(function, event)

    def send(self, function: str, message: Mapping[str, Any]) -> None:
        self.scene.sqs.send_message(QueueUrl=self.queues[function], MessageBody=json.dumps(message))

    def poll(self) -> bool:
        """Lambda's poller: each queue's visible messages in one batch. Whether there were any."""
        polled = [self._poll(function) for function in self.queues]
        return any(polled)

    def pending(self) -> list[datetime]:
        """When each message that waits in a queue is visible."""
        return sorted(moment for url in self.queues.values() for moment in self.scene.due(url))

    def records(self, function: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """As the poller hands these messages, and whatever else the queue holds, to the function."""
        for message in messages:
            self.send(function, message)
        return list(self.scene.received(self.queues[function]))

    def _poll(self, function: str) -> bool:
        url = self.queues[function]
        records = list(self.scene.received(url))
        if records:
            answer = self.invoke(function, {"Records": records})
            failed = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
            for record in records:
                if record["messageId"] not in failed:
                    self.scene.sqs.delete_message(QueueUrl=url, ReceiptHandle=record["receiptHandle"])
        return bool(records)

    def invoke(self, function: str, event: Mapping[str, Any], *, seconds: float = 300) -> dict[str, Any]:
        """One invocation of a function that may take so long."""
        container = self.containers.get(function) or self._start(function)
        done = len(self.account.model.faults.calls)
        answer = container.run(event, Context(self.account, self.account.now.timestamp() + seconds))
        self.account.now += INVOCATION
        self.scene.tell_of_tags(done)
        return answer

    def beside(self, function: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """The same in a second container, while the first may be at work."""
        first = self.containers.pop(function)
        try:
            return self.invoke(function, event)
        finally:
            self.containers[function] = first

    def _start(self, function: str) -> Container:
        environment = {"MIRROR_OWNER": self.owner, "AUTOTAG_KEYS": "mirror,env", "WORKER_GROUPS": "workers"}
        environment["QUEUE_URL"] = self.queues.get(function, self.queues["reconcile"])
        self.containers[function] = Container(function, environment, self.scene, self.again)
        return self.containers[function]

    def plan(self) -> dict[str, Any]:
        return self.invoke("reconcile", {"mode": "plan"})

    def cold_start(self) -> None:
        """The next invocations find new containers."""
        self.containers.clear()

    # CloudFormation

    def ask(self, kind: str) -> dict[str, Any]:
        """What CloudFormation sends to the custom resource; kind is Create, Update or Delete."""
        return events.custom_resource(kind, response_url=self.formation.url)

    def lifecycle(self, kind: str, *, seconds: float = 900) -> dict[str, Any]:
        """CloudFormation asks, and each invocation of the function by itself follows; its last answer."""
        outcome = self.invoke("lifecycle", self.ask(kind), seconds=seconds)
        while self.again:
            outcome = self.invoke("lifecycle", self.again.pop(), seconds=seconds)
        return outcome

    # What there is

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """Ours, with their tags as a mapping."""
        shown = ({**session, "Tags": plain(session["Tags"])} for session in self.account.model.all_sessions())
        return [session for session in shown if session["Tags"].get(OWNER_TAG) == self.owner]

    @property
    def mirrored(self) -> list[str]:
        return sorted(session["Description"] for session in self.sessions)

    def session(self, instance: str) -> dict[str, Any]:
        [found] = [session for session in self.sessions if session["Description"] == instance]
        return found

    # What was told

    def logged(self, message: str) -> list[dict[str, Any]]:
        lines = [line for line in self.scene.lines() if line.get("service") == self.owner]
        return [line for line in lines if line.get("message") == message]

    def reports(self) -> list[dict[str, Any]]:
        """Of the reconciles so far, the last at the end."""
        return [line["report"] for line in self.logged("Reconciled")]

    @property
    def troubles(self) -> dict[str, str]:
        """Findings of the last reconcile: what, and one text of it."""
        return {finding["trouble"]: finding["text"] for finding in self.reports()[-1]["findings"]}

    def metric(self, name: str, **dimensions: str) -> list[float]:
        """Values of a metric in the order in which they were written."""
        wanted = {"service": self.owner, **dimensions}
        lines = [line for line in self.scene.lines() if "_aws" in line and name in line]
        return [line[name][0] for line in lines if all(line.get(key) == value for key, value in wanted.items())]

    def listen(self) -> None:
        """Somebody's rule for our own events."""
        self.heard = self.scene.queue(f"{self.owner}-heard")
        arn = self.scene.sqs.get_queue_attributes(QueueUrl=self.heard, AttributeNames=["QueueArn"])["Attributes"]
        pattern = {"source": ["vpc-traffic-replay"], "detail-type": ["Mirror Session Changed"]}
        self.account.bus.put_rule(Name=self.owner, EventPattern=json.dumps(pattern))
        self.account.bus.put_targets(Rule=self.owner, Targets=[{"Id": "heard", "Arn": arn["QueueArn"]}])

    def heard_on_the_bus(self) -> list[dict[str, Any]]:
        for record in self.scene.received(self.heard):
            self.heard_so_far.append(json.loads(record["body"]))
        return [event for event in self.heard_so_far if event["detail"]["owner"] == self.owner]


def _destinations(event: Mapping[str, Any]) -> list[str]:
    """The functions whose rules fit an event."""
    match event["detail-type"]:
        case "GuardDuty Finding":
            return ["autotag"]
        case "EC2 Instance Launch Successful" | "Tag Change on Resource" | "Scheduled Event":
            return ["autotag", "reconcile"]
        case "EC2 Instance State-change Notification" if event["detail"]["state"] == "running":
            return ["autotag", "reconcile"]
    return ["reconcile"]


def plain(tags: list[dict[str, str]]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in tags}


def tags_of(account: Account, instance: str) -> dict[str, str]:
    [reservation] = account._ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return plain(reservation["Instances"][0].get("Tags", []))
