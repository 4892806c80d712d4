"""Tables in on standard input, one JSON line each; what happens out on standard output. Ends with its input.

Lines that come out: `{"told": n}` once the n-th table is in force, `{"health": …}` for each new state of a target,
`{"counts": …}` before each `told`, twice a second and at the end.
"""

import asyncio
import json
import resource
import sys
from typing import Any

from lab.fabric.balancer.checks import Health
from lab.fabric.balancer.counts import to_json
from lab.fabric.balancer.forwarding import Forwarding
from lab.fabric.balancer.table import LONGEST_LINE, read
from lab.fabric.balancer.watching import Key, Watching

_COUNTS = 0.5  # seconds between two lines of counts


def main() -> int:
    """Until the end of standard input, which comes with the end of who holds its other end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    status = 0
    try:
        asyncio.run(_serve())
    except* BrokenPipeError:  # who held the other ends is gone
        status = 1
    return status


async def _serve() -> None:
    lines = asyncio.StreamReader(limit=LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    forwarding = Forwarding()

    async def count() -> None:
        while True:
            _say(counts=to_json(forwarding.counts()))
            await asyncio.sleep(_COUNTS)

    def changed(key: Key, health: Health) -> None:
        forwarding.choose(watching.states)
        _say(health={"group": key[0], "target": key[1], "state": health.state, "fault": health.fault})

    try:
        async with asyncio.TaskGroup() as tasks:
            watching = Watching(tasks, changed)
            counting = tasks.create_task(count())
            told = 0
            async for line in lines:
                table = read(line)
                watching.tell(list(table.groups.values()))
                forwarding.tell(table, watching.states)
                told += 1
                _say(counts=to_json(forwarding.counts()))  # what went by the table before
                _say(told=told)
            watching.tell([])
            counting.cancel()
    finally:
        forwarding.close()
    _say(counts=to_json(forwarding.counts()))


def _say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.exit(main())
