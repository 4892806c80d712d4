"""The load balancers that mirror targets name: read from the ELB API, told to the process that stands for them.

Only what the API says is used. The process's own account of its targets' health goes back into it whenever the API
shows another: a report that got lost, or came too early, is made again at the next look.
"""

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from lab.cloud.emulator import EmulatorError
from lab.fabric.balancer.counts import Counts, from_json
from lab.fabric.balancer.description import IDLE, Answer, forwards_to, group, shown
from lab.fabric.balancer.table import Group, Table, write
from lab.fabric.cloud import Cloud
from lab.fabric.router import BALANCER
from lab.fabric.routes import Route
from lab.network.processes import stop

#: Bytes after the VXLAN header of a session to an interface: 8,947 bytes of IP and the Ethernet header before them
#: (traffic-mirroring-network-limitations.html). To a load balancer the API always names a PacketLength.
LONGEST_TO_INTERFACE = 8947 + 14

_ROOT = Path(__file__).resolve().parents[2]
_TOLD_WITHIN = 10.0  # seconds until a new table is in force
_SHOWN = 2000  # characters of what the process said at its end

#: https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_TargetHealth.html; checks of a network load
#: balancer fail for one reason, in whatever way they fail.
_REASONS = {"initial": "Elb.InitialHealthChecking", "healthy": "", "unhealthy": "Target.FailedHealthChecks"}
_WORDS = {"initial": "Initial health checks in progress", "healthy": "", "unhealthy": "Health checks failed: "}


class BalancerError(Exception):
    """The process that stands for the load balancers ended or does not answer; the text shows its last words."""


class Balancer:
    """The process, from `start` to `close`. `failure` is set when it ended by itself; `look` raises it."""

    def __init__(self, cloud: Cloud, pace: float, directory: Path, namespace: str = BALANCER) -> None:
        self.counts = Counts()
        self.health: Mapping[tuple[str, str], str] = {}  # (target group, target) → state
        self.failure: BalancerError | None = None
        self._cloud, self._pace = cloud, pace
        self._elb = cloud.client("elbv2")
        self._log = directory / "balancer.log"
        self._namespace = namespace
        self._addresses: dict[str, str] = {}  # of registered targets
        self._faults: dict[tuple[str, str], str] = {}
        self._told = Table()
        self._tables = self._in_force = 0
        self._news = threading.Condition()
        self._closing = False
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread(target=self._read, name="balancer", daemon=True)

    def start(self) -> None:
        """In its network namespace, which must be there."""
        module = [sys.executable, "-m", "lab.fabric.balancer"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace, *module],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader.start()

    def look(self, targets: Mapping[str, str | None], routes: Sequence[Route], addresses: Mapping[str, str]) -> None:
        """Make the process do what the ELB API says now, and the API show what the process sees.

        `targets` are the mirror targets with their load balancers' ARNs, `addresses` those of instances; that of a
        target is remembered while it is registered, though its instance is gone. When this returns, datagrams of all
        `routes` are taken: name a new session's route before its packets come, and an old one's until they come no
        longer; what still lies in its socket then is sent on.
        """
        if self.failure:
            raise self.failure
        groups, registered = {}, {}
        self._addresses.update(addresses)
        for arn in sorted({arn for arn in targets.values() if arn}):
            if described := self._describe(arn):
                groups[arn], registered[groups[arn].arn] = described
        self._addresses = {target.id: target.address for group in groups.values() for target in group.targets}
        self._tell(Table(tuple(_bounded(route) for route in routes), groups, IDLE / self._pace))
        for arn, answers in registered.items():
            self._report(arn, shown(answers))

    def close(self) -> None:
        """What lies in the sockets is still sent; `counts` are final afterwards."""
        self._closing = True
        if self._process:
            assert self._process.stdin is not None and self._process.stdout is not None
            with suppress(BrokenPipeError):  # the process may be gone
                self._process.stdin.close()
            self._reader.join(_TOLD_WITHIN)
            stop(self._process)
            self._reader.join(_TOLD_WITHIN)
            self._process.stdout.close()

    def _describe(self, arn: str) -> tuple[Group, Sequence[Answer]] | None:
        """The group behind a balancer, and what DescribeTargetHealth says; None where it has none or just left."""
        try:
            listeners = _pages(self._elb.get_paginator("describe_listeners"), "Listeners", LoadBalancerArn=arn)
            if (name := forwards_to(listeners)) is None:
                return None
            (described,) = self._elb.describe_target_groups(TargetGroupArns=[name])["TargetGroups"]
            attributes = self._elb.describe_target_group_attributes(TargetGroupArn=name)["Attributes"]
            registered = self._elb.describe_target_health(TargetGroupArn=name)["TargetHealthDescriptions"]
        except ClientError as error:
            if error.response["Error"]["Code"] in ("LoadBalancerNotFound", "TargetGroupNotFound"):
                return None
            raise
        return group(described, attributes, registered, self._addresses, self._pace), registered

    def _tell(self, table: Table) -> None:
        if table == self._told and self._tables:
            return
        assert self._process is not None and self._process.stdin is not None, "look() comes after start()"
        line = write(table).encode() + b"\n"
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        self._tables, self._told = self._tables + 1, table
        with self._news:
            self._news.wait_for(lambda: self._in_force >= self._tables or self.failure, _TOLD_WITHIN)
            if self.failure:
                raise self.failure
            if self._in_force < self._tables:
                raise BalancerError(f"the balancer did not take its table within {_TOLD_WITHIN:g} s")
            watched = {(group.arn, target.id) for group in table.groups.values() for target in group.targets}
            self.health = {key: state for key, state in self.health.items() if key in watched}
            self._faults = {key: fault for key, fault in self._faults.items() if key in watched}

    def _report(self, arn: str, states: Mapping[str, str]) -> None:
        for target, state in states.items():
            own = self.health.get((arn, target), state)
            if own != state:
                words = _WORDS[own] + (self._faults.get((arn, target), "") if own == "unhealthy" else "")
                try:
                    self._cloud.report_health(arn, target, own, _REASONS[own], words)
                except EmulatorError:  # the target left meanwhile: the next look says so
                    continue

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            self._hear(json.loads(line))
        if not self._closing:
            self._ended()

    def _hear(self, said: dict[str, Any]) -> None:
        with self._news:
            if "counts" in said:
                self.counts = from_json(said["counts"])
            elif "health" in said:
                health = said["health"]
                key = (health["group"], health["target"])
                self.health = {**self.health, key: health["state"]}
                self._faults[key] = health["fault"]
            else:
                self._in_force = said["told"]
            self._news.notify_all()

    def _ended(self) -> BalancerError:
        assert self._process is not None
        status = self._process.wait(_TOLD_WITHIN)
        words = self._log.read_text(errors="replace")[-_SHOWN:].strip()
        with self._news:
            self.failure = self.failure or BalancerError(f"the balancer ended with status {status}: {words}")
            self._news.notify_all()
            return self.failure


def _bounded(route: Route) -> Route:
    if route.balancer:
        return route
    return replace(route, packet_length=min(route.packet_length or LONGEST_TO_INTERFACE, LONGEST_TO_INTERFACE))


def _pages(paginator: Any, key: str, **parameters: str) -> Iterable[Answer]:
    for page in paginator.paginate(**parameters):
        yield from page[key]
