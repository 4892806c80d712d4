"""All targets' health checks: each target is checked in a task of its own, first at once and then at each interval."""

import asyncio
from collections.abc import Callable

from lab.fabric.balancer.checks import Health, Settings, State, judge
from lab.fabric.balancer.probe import probe
from lab.fabric.balancer.table import Group, Target

type Key = tuple[str, str]  # a target group's ARN, a target's id


class Watching:
    """Tells `changed` of each new state. A target that leaves is forgotten; one that comes back is new."""

    def __init__(self, tasks: asyncio.TaskGroup, changed: Callable[[Key, Health], None]) -> None:
        self._tasks, self._changed = tasks, changed
        self._watched: dict[Key, tuple[Target, Settings]] = {}
        self._running: dict[Key, asyncio.Task[None]] = {}
        self._health: dict[Key, Health] = {}

    def tell(self, groups: list[Group]) -> None:
        """From now on the targets of these groups are watched."""
        watched = {(group.arn, target.id): (target, group.settings) for group in groups for target in group.targets}
        for key in self._watched.keys() - watched.keys():
            self._running.pop(key).cancel()
            del self._health[key]
        new = watched.keys() - self._watched.keys()
        self._watched = watched
        for key in sorted(new):
            self._health[key] = Health()
            self._running[key] = self._tasks.create_task(self._watch(key))
            self._changed(key, Health())

    def states(self, group: str) -> dict[str, State]:
        """Of the group's targets."""
        return {target: health.state for (owner, target), health in self._health.items() if owner == group}

    async def _watch(self, key: Key) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            target, settings = self._watched[key]
            begun = clock()
            before = self._health[key]
            after = self._health[key] = judge(before, await probe(target, settings), settings)
            if after.state is not before.state:
                self._changed(key, after)
            await asyncio.sleep(max(0.0, begun + settings.interval - clock()))
