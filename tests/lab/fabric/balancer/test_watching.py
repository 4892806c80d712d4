"""Targets that live, die and leave, checked over loopback."""

import asyncio
from collections.abc import Awaitable, Callable

from lab.fabric.balancer.checks import Health, Settings, State
from lab.fabric.balancer.table import Group, Target
from lab.fabric.balancer.watching import Key, Watching

OFTEN = Settings(interval=0.01, timeout=5.0, passes=2, failures=2)


class Heard:
    """What a Watching told, and the wait for more of it."""

    def __init__(self) -> None:
        self.told: list[tuple[Key, State]] = []
        self._more = asyncio.Event()

    def __call__(self, key: Key, health: Health) -> None:
        self.told.append((key, health.state))
        self._more.set()

    async def until(self, number: int) -> list[tuple[Key, State]]:
        async with asyncio.timeout(30):
            while len(self.told) < number:
                self._more.clear()
                await self._more.wait()
        return self.told


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def watched(story: Callable[[Watching, Heard, asyncio.Server, Group], Awaitable[None]]) -> None:
    """`story` is told with a target that is there."""

    async def run() -> None:
        heard = Heard()
        server = await asyncio.start_server(_close, "127.0.0.1", 0)
        group = Group("tg", (Target("i-1", "127.0.0.1", server.sockets[0].getsockname()[1]),), OFTEN)
        async with server, asyncio.TaskGroup() as tasks:
            watching = Watching(tasks, heard)
            watching.tell([group])
            await story(watching, heard, server, group)
            watching.tell([])

    asyncio.run(run())


KEY = ("tg", "i-1")


def test_a_target_is_told_initial_then_healthy_then_nothing_until_it_dies() -> None:
    async def story(watching: Watching, heard: Heard, server: asyncio.Server, _: Group) -> None:
        assert heard.told == [(KEY, State.INITIAL)]
        assert await heard.until(2) == [(KEY, State.INITIAL), (KEY, State.HEALTHY)]
        assert watching.states("tg") == {"i-1": State.HEALTHY}
        server.close()
        assert (await heard.until(3))[2:] == [(KEY, State.UNHEALTHY)]
        assert watching.states("tg") == {"i-1": State.UNHEALTHY}

    watched(story)


def test_a_target_that_leaves_and_comes_back_is_new() -> None:
    async def story(watching: Watching, heard: Heard, _: asyncio.Server, group: Group) -> None:
        await heard.until(2)
        watching.tell([])
        assert watching.states("tg") == {}
        watching.tell([group])
        assert watching.states("tg") == {"i-1": State.INITIAL}
        assert (await heard.until(4))[2:] == [(KEY, State.INITIAL), (KEY, State.HEALTHY)]

    watched(story)


def test_a_target_that_stays_keeps_its_health_when_others_come() -> None:
    async def story(watching: Watching, heard: Heard, _: asyncio.Server, group: Group) -> None:
        await heard.until(2)
        other = Target("i-2", "127.0.0.1", group.targets[0].port)
        watching.tell([Group("tg", (*group.targets, other), OFTEN)])
        assert watching.states("tg") == {"i-1": State.HEALTHY, "i-2": State.INITIAL}
        assert (await heard.until(4))[2:] == [(("tg", "i-2"), State.INITIAL), (("tg", "i-2"), State.HEALTHY)]

    watched(story)
