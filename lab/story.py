"""What the demo does: production under load, first unseen, then mirrored, then grown to three times its size.

All of it is what an operator would do. Everything else that happens is the product's doing.
"""

import time
from collections.abc import Callable, Collection, Iterable
from itertools import chain

from lab.show import Show
from lab.tally import Window
from lab.traffic import Mix
from lab.vpc import PRODUCTION, Lab
from replayer.ledger import Ledger

GROUP = "web"
FIRST, LAST = 2, 6  # instances of production, before and after
STAGES = 6
#: What the clients of one instance send.
MIX = Mix(gets=60, get_connections=3, posts=12, fresh=6, uploads=1)

_WATCHED = 3.0  # seconds for which a stage is looked at
_WITHIN = 20.0
QUIET_FOR = 2.0  # longer than a hole may wait to be filled, and than two looks
QUIET_WITHIN = 20.0
_LOOK = 0.1


def tell(lab: Lab, show: Show, best: Callable[[], None], now: Callable[[], float] = time.monotonic) -> list[str]:
    """From an empty account to the end of the load; the instances that it had mirrored. `best` is its best moment."""
    show.stage("the stack is deployed, its workers come up")
    lab.deploy()

    show.stage(f"production: {FIRST} instances under load, none of them mirrored")
    lab.drive(MIX)
    lab.group(GROUP, FIRST, tags={"Name": GROUP})
    show.wait("production runs", lambda: len(lab.members(GROUP)) == FIRST, _WITHIN)
    show.pause(_WATCHED)

    (key, value), *_ = PRODUCTION.items()
    show.stage(f"they get the tag {key}={value}")
    members = lab.members(GROUP)
    for one in members:
        lab.tag(one, PRODUCTION)
    new_ones = {"ResourceId": GROUP, "ResourceType": "auto-scaling-group", "PropagateAtLaunch": True}
    lab.autoscaling.create_or_update_tags(Tags=[{**new_ones, "Key": key, "Value": value}])
    show.wait("they are mirrored", lambda: all_mirrored(lab, members), _WITHIN)
    show.pause(_WATCHED)

    show.stage(f"scale out from {FIRST} to {LAST}, under load")
    lab.scale(GROUP, LAST)
    show.wait("production has grown", lambda: len(lab.members(GROUP)) == LAST, _WITHIN)
    grown = lab.members(GROUP)
    show.wait("all are mirrored", lambda: all_mirrored(lab, grown), _WITHIN)
    show.pause(2 * _WATCHED)
    best()

    show.stage("one of them loses the tag")
    lab.untag(members[0], key)
    show.wait("it is not mirrored any more", lambda: none_open(lab.windows().get(members[0], ())), _WITHIN)
    show.pause(_WATCHED / 2)

    show.stage("the clients stop; what is on its way arrives")
    for one in grown:
        lab.traffic.stop(one)
    settle(show, now)
    return grown


def all_mirrored(lab: Lab, instances: Collection[str]) -> bool:
    windows = lab.windows()
    return all(not none_open(windows.get(one, ())) for one in instances)


def none_open(windows: Iterable[Window]) -> bool:
    """Whether none of them lasts."""
    return all(window.until != float("inf") for window in windows)


def settle(show: Show, now: Callable[[], float] = time.monotonic) -> None:
    """Until nothing has moved for a while and nothing waits, or as long as patience lasts: the tally tells then."""
    deadline = now() + QUIET_WITHIN
    last, since = Ledger(), now()
    while now() < deadline and now() - since < QUIET_FOR:
        seen = show.last.ledger if show.last is not None else last
        if seen != last or busy(seen):
            last, since = seen, now()
        show.pause(_LOOK)


def busy(ledger: Ledger) -> bool:
    """Whether requests wait or are on their way."""
    return any(chain.from_iterable((part.queued, part.in_flight) for part in ledger.destinations.values()))
