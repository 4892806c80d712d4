"""Events to the bus and messages to the queue, against moto and against scripted answers."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from mirroring.bus import BYTES_PER_CALL, DETAIL_TYPE, ENTRIES_PER_CALL, SOURCE, TOO_LARGE, Bus, size
from mirroring.clients import client
from mirroring.model import Refused
from tests.layers.mirroring.wire import Reply, Wire, as_json

REGION = "eu-west-1"
SENT = {"EventId": "1"}


@pytest.fixture(autouse=True)
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)


@pytest.fixture
def sqs() -> Iterator[Any]:
    with mock_aws():
        yield client("sqs")


def scripted(*replies: Reply) -> tuple[Bus, Wire]:
    wire = Wire(list(replies))
    return Bus(wire.tap(client("events", attempts=1)), None, "", "default"), wire


def result(*failed: bool) -> Reply:
    entries = [{"ErrorCode": "InternalFailure", "ErrorMessage": "no"} if bad else SENT for bad in failed]
    return as_json({"FailedEntryCount": sum(failed), "Entries": entries})


class TestAnnounce:
    def test_each_detail_reaches_the_bus_as_an_event_of_ours(self, sqs: Any) -> None:
        events = boto3.client("events")
        url = sqs.create_queue(QueueName="listener")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        events.create_event_bus(Name="ours")
        pattern = json.dumps({"source": [SOURCE], "detail-type": [DETAIL_TYPE]})
        events.put_rule(Name="all", EventBusName="ours", EventPattern=pattern)
        events.put_targets(Rule="all", EventBusName="ours", Targets=[{"Id": "1", "Arn": arn}])
        assert Bus(client("events"), sqs, url, "ours").announce([{"created": 1}, {"deleted": ["tms-1"]}]) == ()
        received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
        assert [json.loads(message["Body"])["detail"] for message in received] == [
            {"created": 1},
            {"deleted": ["tms-1"]},
        ]

    def test_nothing_to_say_is_no_call(self) -> None:
        bus, wire = scripted()
        assert bus.announce([]) == ()
        assert wire.asked == []

    def test_ten_entries_a_call(self) -> None:
        bus, wire = scripted(result(*[False] * ENTRIES_PER_CALL), result(False))
        assert bus.announce([{"n": n} for n in range(11)]) == ()
        assert [len(asked["Entries"]) for asked in wire.asked] == [10, 1]
        said = [json.loads(entry["Detail"])["n"] for asked in wire.asked for entry in asked["Entries"]]
        assert said == list(range(11))

    def test_as_many_bytes_a_call_as_the_bus_takes(self) -> None:
        bus, wire = scripted(result(False, False), result(False))
        assert bus.announce([{"text": "x" * 100_000}] * 3) == ()
        assert [len(asked["Entries"]) for asked in wire.asked] == [2, 1]
        assert all(sum(map(size, asked["Entries"])) <= BYTES_PER_CALL for asked in wire.asked)

    def test_an_entry_of_exactly_the_most_bytes_is_sent_and_one_more_is_reported(self) -> None:
        empty = size({"Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": '{"t": ""}'})
        fits, large = {"t": "x" * (BYTES_PER_CALL - empty)}, {"t": "x" * (BYTES_PER_CALL - empty + 1)}
        bus, wire = scripted(result(False))
        (unsent,) = bus.announce([large, fits])
        assert (unsent.detail, unsent.code) == (large, TOO_LARGE)
        assert len(wire.asked) == 1

    def test_entries_that_the_bus_refuses_are_reported(self) -> None:
        bus, _ = scripted(result(False, True))
        (unsent,) = bus.announce([{"n": 1}, {"n": 2}])
        assert (unsent.detail, unsent.code, unsent.message) == ({"n": 2}, "InternalFailure", "no")

    def test_a_call_that_fails_loses_its_own_entries_only(self) -> None:
        refused = as_json({"__type": "ThrottlingException", "message": "slow"}, 400)
        bus, _ = scripted(refused, result(False))
        unsent = bus.announce([{"n": n} for n in range(11)])
        assert [one.detail["n"] for one in unsent] == list(range(10))
        assert {one.code for one in unsent} == {"ThrottlingException"}


class TestQueue:
    def test_a_message_comes_back_as_it_went(self, sqs: Any) -> None:
        url = sqs.create_queue(QueueName="ours")["QueueUrl"]
        Bus(None, sqs, url, "default").enqueue({"mode": "sweep", "attempt": 2}, 0)
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        assert json.loads(message["Body"]) == {"mode": "sweep", "attempt": 2}

    @pytest.mark.parametrize(("wished", "sent"), [(-1, 0), (60, 60), (900, 900), (901, 900)])
    def test_a_delay_is_what_sqs_takes(self, wished: int, sent: int) -> None:
        wire = Wire([as_json({"MessageId": "1"})])
        sqs = wire.tap(client("sqs", attempts=1))
        Bus(None, sqs, "https://sqs.eu-west-1.amazonaws.com/123456789012/ours", "default").enqueue({}, wished)
        assert wire.asked[0]["DelaySeconds"] == sent

    @pytest.mark.parametrize(("wished", "sent"), [(-1, 0), (600, 600), (43_200, 43_200), (50_000, 43_200)])
    def test_a_visibility_is_what_sqs_takes(self, wished: int, sent: int) -> None:
        wire = Wire([as_json({})])
        sqs = wire.tap(client("sqs", attempts=1))
        Bus(None, sqs, "https://sqs.eu-west-1.amazonaws.com/123456789012/ours", "default").postpone("handle", wished)
        assert (wire.asked[0]["ReceiptHandle"], wire.asked[0]["VisibilityTimeout"]) == ("handle", sent)

    def test_a_message_given_back_is_not_seen_meanwhile(self, sqs: Any) -> None:
        url = sqs.create_queue(QueueName="ours", Attributes={"VisibilityTimeout": "0"})["QueueUrl"]
        bus = Bus(None, sqs, url, "default")
        bus.enqueue({}, 0)
        (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
        bus.postpone(message["ReceiptHandle"], 600)
        assert "Messages" not in sqs.receive_message(QueueUrl=url)

    def test_a_queue_that_is_gone_is_an_error(self, sqs: Any) -> None:
        with pytest.raises(Refused, match="NonExistentQueue"):
            Bus(None, sqs, "https://sqs.eu-west-1.amazonaws.com/123456789012/gone", "default").enqueue({}, 0)
