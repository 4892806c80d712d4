"""Side doors: what is said through them, and what is not let in. Each test has paths of its own: doors stay open."""

import asyncio
import json
from typing import Any

import pytest

from lab.cloud import doors
from lab.cloud.doors import Body


def told(body: Body) -> Body:
    if body.get("word") == "no":
        raise ValueError("no such word")
    return {"heard": body}


def ask(method: str, path: str, *parts: bytes, query: bytes = b"") -> tuple[int, Any]:
    """Through ASGI, the body in these parts; what is no door is the application's, which says 204."""
    answers: list[Any] = []
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]

    async def receive() -> Any:
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        answers.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    scope = {"type": "http", "method": method, "path": path, "query_string": query}

    async def serve() -> None:
        await doors.beside(application)(scope, receive, send)

    asyncio.run(serve())
    return answers[0]["status"], json.loads(answers[1]["body"])


def test_a_door_hears_an_object_and_answers_with_one() -> None:
    doors.register("/_lab/word", told)
    doors.register("/_lab/word", told, "GET")
    assert ask("POST", "/_lab/word", b'{"word"', b": 1}") == (200, {"heard": {"word": 1}})
    assert ask("GET", "/_lab/word", query=b"after=7") == (200, {"heard": {"after": "7"}})


def test_what_it_refuses_it_says() -> None:
    doors.register("/_lab/refusing", told)
    assert ask("POST", "/_lab/refusing", b'{"word": "no"}') == (400, {"message": "no such word"})
    status, answer = ask("POST", "/_lab/refusing", b"{")
    assert status == 400 and answer["message"].startswith("no JSON: ")
    assert ask("POST", "/_lab/refusing", b"[]") == (400, {"message": "no JSON object"})


def test_what_is_too_long_is_read_no_further() -> None:
    doors.register("/_lab/long", told)
    most = b'"' + b"x" * (doors.MOST - 2) + b'"'
    assert ask("POST", "/_lab/long", most) == (400, {"message": "no JSON object"})
    assert ask("POST", "/_lab/long", most, b" ", b"never read") == (400, {"message": f"more than {doors.MOST} bytes"})


def test_where_there_is_no_door_it_says_which_there_are() -> None:
    doors.register("/_lab/here", told)
    status, answer = ask("POST", "/_lab/elsewhere", b"{}")
    assert status == 404
    assert answer["message"].startswith("POST /_lab/elsewhere is no side door; there are: ")
    assert "POST /_lab/here" in answer["message"]
    assert ask("GET", "/_lab/here")[0] == 404


def test_all_else_is_the_applications() -> None:
    assert ask("POST", "/", b"{}") == (204, {})


def test_a_door_is_made_once_and_in_its_place() -> None:
    doors.register("/_lab/once", told)
    with pytest.raises(ValueError, match="POST /_lab/once is taken"):
        doors.register("/_lab/once", told)
    with pytest.raises(ValueError, match="begin with /_lab/"):
        doors.register("/once", told)
