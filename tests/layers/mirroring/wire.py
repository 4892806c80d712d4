"""Stands in for AWS at the wire: a real client builds and signs its request and parses the answer, nothing is sent."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs

from botocore.awsrequest import AWSResponse


@dataclass(frozen=True)
class Reply:
    body: str
    status: int = 200


def refusal(code: str, status: int = 400) -> Reply:
    """As EC2 spells it."""
    return Reply(
        f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>", status
    )


def as_json(answer: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(answer), status)


class _Raw(BytesIO):
    """What urllib3 would give."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


@dataclass
class Wire:
    """Gives the replies in turn, and keeps what was asked."""

    replies: list[Reply]
    asked: list[Any] = field(default_factory=list)  # of JSON services the body, else the parameters

    def tap(self, client: Any, operation: str = "") -> Any:
        """The client, whose requests (or those of one operation) come here; before moto, if that is on."""
        service = client.meta.service_model.service_id.hyphenize()
        event = f"before-send.{service}.{operation}" if operation else "before-send"
        client.meta.events.register_first(event, self._answer)
        return client

    def _answer(self, request: Any, **_: Any) -> AWSResponse:
        self.asked.append(_read(request.body))
        reply = self.replies.pop(0)
        return AWSResponse(request.url, reply.status, {}, _Raw(reply.body.encode()))


def _read(body: Any) -> Any:
    text = body.decode() if isinstance(body, bytes) else body
    if text.startswith("{"):
        return json.loads(text)
    return {name: values[0] for name, values in parse_qs(text).items()}
