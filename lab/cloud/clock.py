"""Something that an ASGI application does by itself from time to time, on its own event loop: between two requests, so
that neither sees the other half done."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

type Application = Callable[[Any, Any, Any], Awaitable[None]]

_log = logging.getLogger(__name__)


def regularly(application: Application, do: Callable[[], None], seconds: float) -> Application:
    """The application; while it runs, `do` is done again and again, and what it raises goes into the log."""

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await application(scope, receive, send)
            return
        doing = asyncio.create_task(_again(do, seconds))
        try:
            await application(scope, receive, send)
        finally:
            doing.cancel()

    return serve


async def _again(do: Callable[[], None], seconds: float) -> None:
    while True:
        try:
            do()
        except Exception:  # noqa: BLE001  the top of a task: what went wrong now may go well the next time
            _log.exception("what is done regularly failed")
        await asyncio.sleep(seconds)
