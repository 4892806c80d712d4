"""Events as services send them, and queues that rules may write into: as much as EventBridge delivers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab.cloud.emulator import Emulator, EmulatorError
from lab.cloud.events import ACCOUNT, REGION, sample
from lab.cloud.post import Posted
from tests.waiting import until


class Wiring:
    """A rule with one queue, and a dead-letter queue; who may send to which is up to the test."""

    def __init__(self, cloud: Emulator, name: str) -> None:
        self.sqs, bus = cloud.client("sqs"), cloud.client("events")
        self.queue, self.letters = self._queue(name), self._queue(f"{name}-letters")
        self.rule = bus.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.ec2"]}))["RuleArn"]
        target = {"Id": "1", "Arn": self.arn(self.queue), "DeadLetterConfig": {"Arn": self.arn(self.letters)}}
        bus.put_targets(Rule=name, Targets=[target])

    def _queue(self, name: str) -> str:
        url: str = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        return url

    def arn(self, queue: str) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.rsplit('/', 1)[1]}"

    def let_in(self, queue: str, source: str) -> None:
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": self.arn(queue),
            "Condition": {"ArnEquals": {"aws:SourceArn": source}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})

    def received(self, queue: str) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])
        return list(answer.get("Messages", []))


def test_an_event_of_a_service_arrives_as_it_is(cloud: Emulator) -> None:
    wiring, event = Wiring(cloud, "arrives"), sample("ec2-instance-running")
    wiring.let_in(wiring.queue, wiring.rule)
    assert cloud.emit(event) == event["id"]
    [message] = wiring.received(wiring.queue)
    assert json.loads(message["Body"]) == {"version": "0", **event}
    cloud.emit(sample("tag-change"))
    assert wiring.received(wiring.queue) == []


@pytest.mark.parametrize("source", ["", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/another"])
def test_a_rule_that_the_queue_does_not_let_in_sends_to_the_dead_letters(cloud: Emulator, source: str) -> None:
    wiring = Wiring(cloud, f"dead{len(source)}")
    wiring.let_in(wiring.letters, wiring.rule)
    if source:
        wiring.let_in(wiring.queue, source)
    cloud.emit(sample("ec2-instance-stopped"))
    assert wiring.received(wiring.queue) == []
    [message] = wiring.received(wiring.letters)
    told = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert told == {
        "RULE_ARN": wiring.rule,
        "TARGET_ARN": wiring.arn(wiring.queue),
        "ERROR_CODE": "NO_PERMISSIONS",
    }


def test_an_event_that_nobody_may_take_is_lost(cloud: Emulator) -> None:
    wiring = Wiring(cloud, "lost")
    cloud.emit(sample("ec2-instance-stopped"))
    assert wiring.received(wiring.queue) == [] == wiring.received(wiring.letters)
    assert "event dropped: NO_PERMISSIONS" in cloud.output()


def test_services_events_come_by_the_side_door_alone(cloud: Emulator) -> None:
    entry = {"Source": "aws.ec2", "DetailType": "x", "Detail": "{}"}
    [answer] = cloud.client("events").put_events(Entries=[entry])["Entries"]
    assert answer["ErrorCode"] == "NotAuthorizedForSourceException"
    with pytest.raises(EmulatorError, match="without id, account"):
        cloud.emit({"source": "aws.ec2", "detail-type": "x"})


# Schedules


def _queue(cloud: Emulator, rule: str, state: str) -> str:
    """Where a schedule of this name sends to."""
    sqs, bus = cloud.client("sqs"), cloud.client("events")
    queue: str = sqs.create_queue(QueueName=rule)["QueueUrl"]
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{rule}"
    grant = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [{**grant, "Resource": arn}]})
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})
    bus.put_rule(Name=rule, ScheduleExpression="rate(15 minutes)", State=state)
    bus.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": arn}])
    return queue


def test_a_schedule_strikes_where_it_is_named_and_enabled(cloud: Emulator) -> None:
    queues = {rule: _queue(cloud, rule, state) for rule, state in (("one", "ENABLED"), ("other", "ENABLED"))}
    queues["off"] = _queue(cloud, "off", "DISABLED")
    named = [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{rule}" for rule in ("one", "off")]
    event = {**sample("scheduled"), "resources": named}
    cloud.emit(event)
    sqs = cloud.client("sqs")
    received = {rule: sqs.receive_message(QueueUrl=queue).get("Messages", []) for rule, queue in queues.items()}
    assert {rule: len(messages) for rule, messages in received.items()} == {"one": 1, "other": 0, "off": 0}
    assert json.loads(received["one"][0]["Body"]) == event


def test_a_still_emulator_has_no_weather_and_sweeps_nothing(cloud: Emulator) -> None:
    for call in (cloud.sweep, cloud.events, cloud.bus):
        with pytest.raises(EmulatorError, match="is no side door; there are: POST /_lab/events"):
            call()


# The way of events in a live one


@pytest.fixture
def weather(living: Emulator) -> Iterator[Emulator]:
    yield living
    living.bus()


def test_bad_weather_is_what_the_queue_sees(weather: Emulator) -> None:
    wiring, event = Wiring(weather, "weather"), sample("ec2-instance-running")
    wiring.let_in(wiring.queue, wiring.rule)
    before = max((one.number for one in weather.events()), default=0)
    for name in ("lost", "doubled", "late"):
        weather.door("bus", {name: 1, "seconds": 0.3})
        assert weather.emit({**event, "detail": {"weather": name}}) == event["id"]
    got: list[str] = []

    def received() -> bool:
        got.extend(json.loads(message["Body"])["detail"]["weather"] for message in wiring.received(wiring.queue))
        return len(got) >= 3

    until("three have come", received)
    assert got[0] == "doubled" and sorted(got) == ["doubled", "doubled", "late"]

    def fates() -> list[Posted]:
        found = [one for one in weather.events(before) if one.event["id"] == event["id"]]
        return found if all(len(one.sent) == one.copies for one in found) else []

    lost, doubled, late = until("all are out", fates)
    assert [one.copies for one in (lost, doubled, late)] == [0, 2, 1]
    assert 0.25 < late.sent[0] - late.time < 5


def test_there_is_no_weather_but_what_there_is(weather: Emulator) -> None:
    with pytest.raises(EmulatorError, match="lost is a share from 0 to 1, not 2"):
        weather.bus(lost=2)
    with pytest.raises(EmulatorError, match="no such weather"):
        weather.door("bus", {"rain": 1})


def test_a_sweep_comes_whatever_the_weather(weather: Emulator) -> None:
    with pytest.raises(EmulatorError, match="is the stack deployed"):
        weather.sweep()
    queues = {rule: _queue(weather, rule, state) for rule, state in (("swept", "ENABLED"), ("unswept", "DISABLED"))}
    weather.bus(lost=1)
    identity, sqs = weather.sweep(), weather.client("sqs")
    [message] = until("it strikes", lambda: sqs.receive_message(QueueUrl=queues["swept"]).get("Messages", []))
    struck = json.loads(message["Body"])
    assert (struck["id"], struck["source"]) == (identity, "aws.events")
    assert struck["resources"] == [f"arn:aws:events:{REGION}:{ACCOUNT}:rule/swept"]
    assert "Messages" not in sqs.receive_message(QueueUrl=queues["unswept"])
    weather.client("events").disable_rule(Name="swept")


def test_more_events_than_one_answer_holds_are_all_there(weather: Emulator) -> None:
    before = max((one.number for one in weather.events()), default=0)
    weather.bus(lost=1)
    for number in range(1100):
        weather.emit({**sample("tag-change"), "id": f"many-{number}"})
    found = [one.event["id"] for one in weather.events(before) if one.event["id"].startswith("many-")]
    assert found == [f"many-{number}" for number in range(1100)]
