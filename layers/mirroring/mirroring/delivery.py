"""An invocation as it comes in, and as it is answered record by record.

A batch of SQS messages and a bare event or message alike. All records of a batch are one scope and one run, so that
twenty events about one instance are one look. A record comes again only if what it asked for is unfinished, and then
later: after 30 s, 60 s, … 15 minutes, in which what AWS does not show yet will show. Only where nothing but time ran
out it comes again after 30 s whatever its count.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from mirroring.model import Refused, Scope
from mirroring.scope import Understood, understand
from mirroring.telemetry import Telemetry

FIRST_DELAY = 30  # seconds
LONGEST_DELAY = 900


class Postpones(Protocol):
    def postpone(self, receipt_handle: str, seconds: int) -> None: ...


class Outcome(Protocol):
    @property
    def out_of_time(self) -> bool: ...
    def summary(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Hint:
    """One event of a delivery."""

    id: str
    message: str  # id of the SQS message, or nothing
    event: object
    understood: Understood


@dataclass(frozen=True)
class Delivery:
    hints: tuple[Hint, ...]
    batch: Mapping[str, Any] | None  # of SQS, as it came; None: a bare event

    @property
    def scopes(self) -> list[Scope]:
        return [hint.understood.scope for hint in self.hints if hint.understood.scope]

    @property
    def passed_over(self) -> list[str]:
        return [hint.understood.why for hint in self.hints if hint.understood.scope is None]


class Unfinished(Exception):
    """Tells the batch processor that a record is to come again."""


def serve[R: Outcome](
    event: Mapping[str, Any],
    context: Any,
    now: datetime,
    telemetry: Telemetry,
    bus: Postpones,
    run: Callable[[Delivery, Callable[[], float]], R],
    unfinished: Callable[[R, Scope], bool],
) -> dict[str, Any]:
    """What Lambda is answered: the records that are to come again, or the summary of the run."""
    delivery = unpack(event, now)
    telemetry.begin([hint.id for hint in delivery.hints])
    telemetry.passed_over(delivery.passed_over)
    report = run(delivery, lambda: context.get_remaining_time_in_millis() / 1000)
    if delivery.batch is None:
        return report.summary() | {"passed_over": delivery.passed_over}

    def postpone(receipt: str, seconds: int) -> None:
        try:
            bus.postpone(receipt, seconds)
        except Refused as refused:
            telemetry.not_postponed(str(refused))

    return settle(delivery, lambda scope: unfinished(report, scope), postpone, in_turn=not report.out_of_time)


def unpack(event: Mapping[str, Any], now: datetime) -> Delivery:
    """The events in an SQS batch, or the one event that came bare."""
    records = event.get("Records")
    if not isinstance(records, list):
        return Delivery((_hint(event, "", now),), None)
    return Delivery(tuple(_hint(_body(record), record["messageId"], now) for record in records), event)


def settle(
    delivery: Delivery, again: Callable[[Scope], bool], postpone: Callable[[str, int], None], *, in_turn: bool = True
) -> dict[str, Any]:
    """The answer to an SQS batch. A record whose scope is to be looked at `again` fails, and is postponed."""
    if not delivery.batch or not delivery.hints:
        return {"batchItemFailures": []}
    hints = {hint.message: hint for hint in delivery.hints}

    def judge(record: SQSRecord) -> None:
        scope = hints[record.message_id].understood.scope
        if scope and again(scope):
            received = int(record.attributes.approximate_receive_count or 1)
            postpone(record.receipt_handle, delay_of(received if in_turn else 1))
            raise Unfinished

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return dict(process_partial_response(event=dict(delivery.batch), record_handler=judge, processor=processor))


def delay_of(received: int) -> int:
    """Seconds until a record comes again that came so many times."""
    doublings = min(max(received, 1) - 1, 10)
    return min(FIRST_DELAY << doublings, LONGEST_DELAY)


def _hint(event: object, message: str, now: datetime) -> Hint:
    name = event.get("id") if isinstance(event, Mapping) else None
    return Hint(name if isinstance(name, str) and name else message, message, event, understand(event, now))


def _body(record: Mapping[str, Any]) -> object:
    """What the message holds; text that is no JSON is nobody's event, and `understand` says so."""
    try:
        return json.loads(record["body"])
    except ValueError:
        return record["body"]
