"""The function as Lambda calls it, on moto made strict."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from functions.autotag import app
from lab.cloud.account import Account, strict_aws
from mirroring import runtime
from mirroring.model import AUTOTAGGED_TAG, UNTIL_TAG

EVENTS = Path(__file__).parents[2] / "events"
POLICY = """
version: 1
autotag:
  - {name: prod, match: {names: ["web-*"]}, tags: {env: prod}}
  - {name: suspect, tags: {suspect: "yes"}, finding: {severity: 7, types: ["Backdoor:*"], keep: 24h}}
limits: {writes_per_second: 5}
"""

_owners = count()  # powertools keeps one logger per name, and with it the stream of the first test


class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 60_000


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    with strict_aws() as account:
        monkeypatch.setenv("MIRROR_OWNER", f"tagger-{next(_owners)}")
        monkeypatch.setenv("POLICY_PARAMETER", "/replay/policy")
        monkeypatch.setenv("STATE_PARAMETER", "/replay/state")
        monkeypatch.setenv("AUTOTAG_KEYS", "env,suspect")
        account.ssm.put_parameter(Name="/replay/policy", Value=POLICY, Type="String")
        account.ssm.put_parameter(Name="/replay/state", Value="running", Type="String")
        url = account.sqs.create_queue(QueueName="autotag")["QueueUrl"]
        monkeypatch.setenv("QUEUE_URL", url)
        runtime.forget()
        yield account
        runtime.forget()


def sample(name: str, instance: str) -> dict[str, Any]:
    """One of the events that the docs and `sam local invoke` use, about an instance that there is."""
    text = (EVENTS / name).read_text().replace("i-1234567890abcdef0", instance)
    event: dict[str, Any] = json.loads(text)
    return event


def tags(account: Account, instance: str) -> dict[str, str]:
    (reservation,) = account.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return {tag["Key"]: tag["Value"] for tag in reservation["Instances"][0]["Tags"]}


def sent(account: Account, url: str, *events: object) -> dict[str, Any]:
    """The batch that Lambda gets of messages that bear these events."""
    for event in events:
        account.sqs.send_message(QueueUrl=url, MessageBody=json.dumps(event))
    messages = account.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"])["Messages"]
    return {
        "Records": [
            {
                "messageId": message["MessageId"],
                "receiptHandle": message["ReceiptHandle"],
                "body": message["Body"],
                "attributes": message["Attributes"],
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:autotag",
                "awsRegion": "eu-west-1",
            }
            for message in messages
        ]
    }


def logged(capsys: pytest.CaptureFixture[str], message: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("message") == message]


@pytest.mark.parametrize("name", ["ec2-instance-running.json", "autoscaling-launch.json", "scheduled.json"])
def test_a_bare_event_tags_the_instance(account: Account, name: str) -> None:
    (web,) = account.launch(tags={"Name": "web-1"})
    summary = app.handler(sample(name, web), Context())
    assert tags(account, web) == {"Name": "web-1", "env": "prod", AUTOTAGGED_TAG: "env"}
    assert (summary["changed"], summary["policy"], summary["failed"]) == (1, "/replay/policy:1", [])


def test_before_and_after_are_in_the_log(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    (web,) = account.launch(tags={"Name": "web-1", "env": "old", AUTOTAGGED_TAG: "env"})
    app.handler(sample("ec2-instance-running.json", web), Context())
    (line,) = logged(capsys, "Tagged")
    assert (line["instance"], line["before"], line["after"]) == (web, {"env": "old"}, {"env": "prod"})
    assert (line["rule"], line["correlation_id"]) == ("prod", "7bf73129-1428-4cd3-a780-95db273d1602")


def test_its_own_tag_event_changes_nothing(account: Account) -> None:
    (web,) = account.launch(tags={"Name": "web-1"})
    app.handler(sample("ec2-instance-running.json", web), Context())
    assert app.handler(sample("tag-change.json", web), Context())["planned"] == {"put": 0, "remove": 0}


def test_a_finding_marks_the_instance_for_a_day(account: Account) -> None:
    (web,) = account.launch(tags={"Name": "db-1"})
    app.handler(sample("guardduty-finding.json", web), Context())
    assert tags(account, web).keys() == {"Name", "suspect", UNTIL_TAG, AUTOTAGGED_TAG}


def test_a_sweep_takes_off_what_has_expired(account: Account) -> None:
    expired = {UNTIL_TAG: "2026-01-01T00:00:00Z", "suspect": "yes", AUTOTAGGED_TAG: f"{UNTIL_TAG} suspect"}
    (web,) = account.launch(tags={"Name": "db-1", **expired})
    app.handler({"mode": "sweep"}, Context())
    assert tags(account, web) == {"Name": "db-1"}


def test_a_plan_by_hand_changes_nothing(account: Account) -> None:
    (web,) = account.launch(tags={"Name": "web-1"})
    summary = app.handler({"mode": "plan"}, Context())
    assert (summary["planned"]["put"], summary["changed"], tags(account, web)) == (1, 0, {"Name": "web-1"})


def test_a_batch_is_one_look(account: Account) -> None:
    (one, other) = account.launch(2, tags={"Name": "web-1"})
    url = runtime.environment().queue_url
    finding = sample("guardduty-finding.json", other)
    batch = sent(account, url, sample("ec2-instance-running.json", one), finding, finding)
    account.model.faults.calls.clear()
    assert app.handler(batch, Context()) == {"batchItemFailures": []}
    assert tags(account, one)["env"] == "prod" and tags(account, other)["suspect"] == "yes"
    asked = [call.action for call in account.model.faults.calls]
    assert asked.count("CreateTags") == 2


def test_a_record_about_an_instance_that_cannot_be_tagged_yet_comes_again_later(account: Account) -> None:
    one, other = account.launch(2, tags={"Name": "web-1"})
    account.model.deny("CreateTags", when=lambda call: one in str(call))
    url = runtime.environment().queue_url
    batch = sent(account, url, *(sample("ec2-instance-running.json", name) for name in (one, other)))
    failures = app.handler(batch, Context())["batchItemFailures"]
    (about_one,) = [record["messageId"] for record in batch["Records"] if one in record["body"]]
    assert failures == [{"itemIdentifier": about_one}]
    assert tags(account, other)["env"] == "prod"


def test_a_receipt_that_is_no_longer_good_is_only_logged(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    (web,) = account.launch(tags={"Name": "web-1"})
    account.model.deny("CreateTags")
    batch = sent(account, runtime.environment().queue_url, sample("ec2-instance-running.json", web))
    batch["Records"][0]["receiptHandle"] = "gone"
    assert len(app.handler(batch, Context())["batchItemFailures"]) == 1
    assert logged(capsys, "Not postponed")


def test_an_unknown_event_is_passed_over(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    summary = app.handler({"source": "aws.s3", "detail-type": "Object Created", "detail": {}}, Context())
    assert summary["passed_over"] == ["unknown event: source 'aws.s3', detail-type 'Object Created'"]
    assert summary["calls"] == 0
    assert len(logged(capsys, "Passed over")) == 1


def test_metrics(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.launch(2, tags={"Name": "web-1"})
    app.handler({"mode": "sweep"}, Context())
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (metrics,) = [line for line in lines if "autotag_changed" in line]
    assert metrics["autotag_changed"] == [2.0] and metrics["service"] == runtime.environment().owner
    assert metrics["autotag_failed"] == metrics["autotag_unfinished"] == metrics["autotag_stopped"] == [0.0]


def test_a_run_that_was_stopped_is_an_error_in_the_log(account: Account, capsys: pytest.CaptureFixture[str]) -> None:
    account.ssm.delete_parameter(Name="/replay/policy")
    app.handler({"mode": "sweep"}, Context())
    (line,) = logged(capsys, "Autotag")
    assert line["level"] == "ERROR" and "there is no policy" in line["stopped"]
