"""What we send: our own events to the bus, and messages to our own queue."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirroring.clients import call
from mirroring.model import Refused

SOURCE = "vpc-traffic-replay"
DETAIL_TYPE = "Mirror Session Changed"

ENTRIES_PER_CALL = 10
BYTES_PER_CALL = 262_144  # https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html
LONGEST_DELAY = 900  # seconds, of an SQS message
LONGEST_INVISIBILITY = 43_200  # seconds, of an SQS message

TOO_LARGE = "TooLarge"


@dataclass(frozen=True)
class Unsent:
    """An event that did not reach the bus."""

    detail: Mapping[str, Any]
    code: str
    message: str


class Bus:
    def __init__(self, events: Any, sqs: Any, queue_url: str, bus_name: str) -> None:
        self._events = events
        self._sqs = sqs
        self._queue_url = queue_url
        self._bus_name = bus_name

    def announce(self, details: Iterable[Mapping[str, Any]]) -> tuple[Unsent, ...]:
        """Each detail becomes an event. What was changed stays changed: an event that fails is a value, no error."""
        entries = [(detail, self._entry(detail)) for detail in details]
        large = [
            Unsent(detail, TOO_LARGE, f"an event of more than {BYTES_PER_CALL} bytes")
            for detail, entry in entries
            if size(entry) > BYTES_PER_CALL
        ]
        fit = [(detail, entry) for detail, entry in entries if size(entry) <= BYTES_PER_CALL]
        return (*large, *(unsent for chunk in _chunks(fit) for unsent in self._put(chunk)))

    def enqueue(self, message: Mapping[str, Any], delay: int) -> None:
        """A message to ourselves, `delay` seconds from now (SQS waits 15 minutes at most)."""
        call(
            self._sqs,
            "SendMessage",
            QueueUrl=self._queue_url,
            MessageBody=json.dumps(message, sort_keys=True),
            DelaySeconds=max(0, min(delay, LONGEST_DELAY)),
        )

    def postpone(self, receipt_handle: str, seconds: int) -> None:
        """A message that we give back shall come again no sooner than in `seconds` (SQS: 12 hours at most)."""
        call(
            self._sqs,
            "ChangeMessageVisibility",
            QueueUrl=self._queue_url,
            ReceiptHandle=receipt_handle,
            VisibilityTimeout=max(0, min(seconds, LONGEST_INVISIBILITY)),
        )

    def _entry(self, detail: Mapping[str, Any]) -> dict[str, str]:
        return {
            "Source": SOURCE,
            "DetailType": DETAIL_TYPE,
            "Detail": json.dumps(detail, sort_keys=True),
            "EventBusName": self._bus_name,
        }

    def _put(self, chunk: Sequence[tuple[Mapping[str, Any], dict[str, str]]]) -> Iterator[Unsent]:
        try:
            answer = call(self._events, "PutEvents", Entries=[entry for _, entry in chunk])
        except Refused as refused:
            yield from (Unsent(detail, refused.code, refused.message) for detail, _ in chunk)
            return
        for (detail, _), result in zip(chunk, answer["Entries"], strict=True):  # in the order of the request
            if code := result.get("ErrorCode"):
                yield Unsent(detail, code, result.get("ErrorMessage", ""))


def size(entry: Mapping[str, str]) -> int:
    """Bytes of an entry as EventBridge counts them."""
    return sum(len(entry[key].encode()) for key in ("Source", "DetailType", "Detail"))


def _chunks[T](entries: Iterable[tuple[T, dict[str, str]]]) -> Iterator[list[tuple[T, dict[str, str]]]]:
    """As many as one call takes, in count and in bytes."""
    chunk: list[tuple[T, dict[str, str]]] = []
    weight = 0
    for detail, entry in entries:
        if chunk and (len(chunk) == ENTRIES_PER_CALL or weight + size(entry) > BYTES_PER_CALL):
            yield chunk
            chunk, weight = [], 0
        chunk.append((detail, entry))
        weight += size(entry)
    if chunk:
        yield chunk
