"""Side doors of the emulator: what the lab says to it, or asks it, and no AWS service would.

    doors.register("/_lab/machines", report)          POST {"instance": "i-…", …} → what `report` answers
    doors.register("/_lab/events", listed, "GET")     GET /_lab/events?after=7 → `listed` gets {"after": "7"}

A door takes an object and answers with one, both as JSON. What it refuses it raises as ValueError: 400, with the text.
"""

import json
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

type Body = dict[str, Any]
type Handler = Callable[[Body], Body]
type Application = Callable[[Any, Any, Any], Awaitable[None]]  # ASGI's

PREFIX = "/_lab/"
#: Bytes of what is said at once.
MOST = 1 << 20

_doors: dict[tuple[str, str], Handler] = {}


def register(path: str, handler: Handler, method: str = "POST") -> None:
    if not path.startswith(PREFIX):
        raise ValueError(f"{path} is no side door: those begin with {PREFIX}")
    if (method, path) in _doors:
        raise ValueError(f"{method} {path} is taken")
    _doors[method, path] = handler


def beside(application: Application) -> Application:
    """The application, and the doors beside it."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await application(scope, receive, send)
            return
        query = scope.get("query_string", b"").decode()
        status, answer = enter(scope["method"], scope["path"], query, await _body(receive))
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    return serve


async def _body(receive: Any) -> bytes:
    """One byte more than may be, where it is too long."""
    body, more = b"", True
    while more and len(body) <= MOST:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body[: MOST + 1]


def enter(method: str, path: str, query: str, body: bytes) -> tuple[int, Body]:
    """Status and answer."""
    handler = _doors.get((method, path))
    if handler is None:
        known = ", ".join(f"{method} {path}" for method, path in sorted(_doors, key=lambda door: door[1]))
        return HTTPStatus.NOT_FOUND, {"message": f"{method} {path} is no side door; there are: {known or 'none'}"}
    try:
        return HTTPStatus.OK, handler(dict(parse_qsl(query)) if method == "GET" else _read(body))
    except ValueError as error:
        return HTTPStatus.BAD_REQUEST, {"message": str(error)}


def _read(body: bytes) -> Body:
    if len(body) > MOST:
        raise ValueError(f"more than {MOST} bytes")
    try:
        said = json.loads(body)
    except ValueError as error:
        raise ValueError(f"no JSON: {error}") from None
    if not isinstance(said, dict):
        raise ValueError("no JSON object")
    return said
