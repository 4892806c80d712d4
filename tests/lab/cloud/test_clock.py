"""What an application does beside its requests."""

import asyncio
from typing import Any

from lab.cloud.clock import regularly


async def nothing(*_: Any) -> None: ...


def test_it_is_done_while_the_application_runs_even_after_a_failure() -> None:
    done: list[int] = []

    async def live() -> int:
        enough = asyncio.Event()

        def do() -> None:
            done.append(len(done))
            if len(done) == 1:
                raise ZeroDivisionError
            if len(done) == 3:
                enough.set()

        async def until_enough(scope: Any, receive: Any, send: Any) -> None:
            await enough.wait()

        await regularly(until_enough, do, 0.0)({"type": "lifespan"}, nothing, nothing)
        ended = len(done)
        for _ in range(10):
            await asyncio.sleep(0)
        return ended

    assert asyncio.run(asyncio.wait_for(live(), 10)) == len(done)


def test_a_request_is_only_passed_on() -> None:
    asked: list[str] = []
    done: list[int] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    async def request() -> None:
        await regularly(application, lambda: done.append(1), 0.0)({"type": "http"}, nothing, nothing)

    asyncio.run(request())
    assert (asked, done) == (["http"], [])
