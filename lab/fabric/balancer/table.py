"""What the balancer is told, whole and anew at each change, as one line of JSON. Times are real seconds already."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from lab.fabric.balancer.checks import Settings
from lab.fabric.routes import Route

#: A socket each. An account may have 10,000 sessions; one machine has no instances for as many.
MAX_ROUTES = 4096
#: AWS's quota of targets of a load balancer whose target group is of instances, cross-zone.
MAX_TARGETS = 500
#: Bytes; of one balancer with as many routes and targets as may be it takes a tenth.
LONGEST_LINE = 1 << 24


class TableError(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class Target:
    """A registered target: an instance, or with target type `ip` an address."""

    id: str
    address: str
    port: int
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """The target group that a balancer's listener for mirrored packets forwards to."""

    arn: str
    targets: tuple[Target, ...]
    settings: Settings
    by_address: bool = False  # stickiness: all that comes from one address goes to one target


@dataclass(frozen=True, slots=True)
class Table:
    """The routes, and behind the balancers they name the target groups. A balancer without a group has no listener."""

    routes: tuple[Route, ...] = ()
    groups: dict[str, Group] = field(default_factory=dict)  # by the balancer's ARN
    idle: float = 120.0


def write(table: Table) -> str:
    """One line. Raises TableError where the table is longer than the balancer takes."""
    _bound("sessions", len(table.routes), MAX_ROUTES)
    for group in table.groups.values():
        _bound(f"targets in {group.arn}", len(group.targets), MAX_TARGETS)
    line = json.dumps(asdict(table))
    _bound("bytes of load balancers and their targets", len(line), LONGEST_LINE - 1)
    return line


def read(line: str | bytes) -> Table:
    """The table that `write` wrote."""
    values: dict[str, Any] = json.loads(line)
    routes = tuple(Route(**route) for route in values["routes"])
    return Table(routes, {arn: _group(**group) for arn, group in values["groups"].items()}, values["idle"])


def _group(targets: list[dict[str, Any]], settings: dict[str, Any], **rest: Any) -> Group:
    return Group(targets=tuple(Target(**target) for target in targets), settings=Settings(**settings), **rest)


def _bound(what: str, number: int, most: int) -> None:
    if number > most:
        raise TableError(f"{number} {what}: the lab's balancer takes {most}; delete some")
