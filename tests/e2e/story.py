"""What the chapters of tests/e2e/test_stories.py have in common: one lab, and the looks that several take."""

import json
import time
from collections.abc import Collection, Sequence
from typing import Any

from lab.tally import Window
from lab.vpc import STACK, Lab
from tests.waiting import until

WEB = "web"
_CHAPTER = 5.0  # seconds at least; a request within the margin of either end need not arrive

type Raw = dict[str, Any]


class Story:
    """The lab, and what is asked of it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.excuses: list[Window] = []  # times in which something befell the replay
        self.forgiven: set[str] = set()  # requests that were found to be missing for a good reason
        self.begun = time.time()  # this chapter

    # What arrived

    def arrivals(self, instance: str) -> int:
        """Requests of its clients at the test environment."""
        self.lab.records.look()
        return sum(f"/{instance}/" in one.name for one in self.lab.records.received)

    def answers(self, instance: str) -> int:
        self.lab.records.look()
        return len(self.lab.records.answered[instance])

    def missing(self) -> list[str]:
        """The requests of this chapter that had to arrive and did not; nothing else may be amiss."""
        until("there was time for some", lambda: time.time() > self.begun + _CHAPTER)
        return self._missing([*self.excuses, Window(0.0, self.begun)])

    def ever_missing(self) -> list[str]:
        """Those of the whole story."""
        return self._missing(self.excuses)

    def _missing(self, excuses: Sequence[Window]) -> list[str]:
        tallies = self.lab.tally(excuses)
        assert [name for one in tallies.values() for name in one.surplus + one.spoilt] == []
        assert sum(one.due for one in tallies.values()) > 0
        return [name for one in tallies.values() for name in one.missing if name not in self.forgiven]

    def times(self, names: Collection[str]) -> dict[str, Window]:
        """From the first byte that production read of a request to its answer."""
        answered = (one for requests in self.lab.records.answered.values() for one in requests)
        return {one.name: Window(one.since, one.until) for one in answered if one.name in names}

    # What is mirrored

    def mirrored(self, instances: list[str]) -> bool:
        """Whether the kernel mirrors all of these now."""
        windows = self.lab.windows()
        return bool(instances) and all(name in windows and windows[name][-1].until > time.time() for name in instances)

    def production(self, n: int = 2) -> list[str]:
        """Its instances, once there are `n`, and these and no others are mirrored."""
        self.lab.scale(WEB, n)
        until(f"{n} are mirrored", lambda: self._exactly(n), 40)
        return self.lab.members(WEB)

    def _exactly(self, n: int) -> bool:
        members = self.lab.members(WEB)
        return len(members) == n and self.mirrored(members) and len(self.lab.sessions()) == n

    # What was said

    def reports(self) -> list[Raw]:
        """What the function said at the end of its runs."""
        pages = self.lab.cloud.client("logs").get_paginator("filter_log_events")
        found = [one["message"] for page in pages.paginate(logGroupName=f"/aws/lambda/{STACK}-reconcile")
                 for one in page["events"]]  # fmt: skip
        lines = [json.loads(text) for text in found if text.startswith("{")]
        return [line["report"] for line in lines if line.get("message") == "Reconciled"]

    def findings(self, trouble: str, after: int) -> list[Raw]:
        """Of reports beyond the first `after`."""
        return [one for report in self.reports()[after:] for one in report["findings"] if one["trouble"] == trouble]

    def running_since(self, instance: str) -> float:
        """When the event `running` was sent."""
        [event] = [
            one
            for one in self.lab.cloud.events()
            if one.event["detail"].get("instance-id") == instance and one.event["detail"].get("state") == "running"
        ]
        return float(event.time)

    # Workers

    def workers(self, n: int = 2) -> list[str]:
        """Those in service, once there are `n`, all of them healthy."""
        return until(f"{n} workers are healthy", lambda: self._healthy(n), 60)

    def _healthy(self, n: int) -> list[str]:
        found = self.lab.workers()
        states = [self.health(name) for name in found]
        return found if states == ["healthy"] * n else []

    def health(self, worker: str) -> str:
        """As the load balancer's API says; empty when it is not registered."""
        group = self.lab.stack.resources["WorkerTargetGroup"]
        answer = self.lab.cloud.client("elbv2").describe_target_health(TargetGroupArn=group)
        states = {one["Target"]["Id"]: one["TargetHealth"]["State"] for one in answer["TargetHealthDescriptions"]}
        return str(states.get(worker, ""))

    def fleet(self, n: int) -> list[str]:
        """The workers, once there are `n`."""
        self.lab.scale(self.lab.stack.resources["WorkerGroup"], n)
        return self.workers(n)

    def drain_for(self, seconds: int) -> None:
        """What the group's deregistration delay is from now on, in AWS's seconds."""
        attribute = {"Key": "deregistration_delay.timeout_seconds", "Value": str(seconds)}
        group = self.lab.stack.resources["WorkerTargetGroup"]
        self.lab.cloud.client("elbv2").modify_target_group_attributes(TargetGroupArn=group, Attributes=[attribute])

    def ledgers(self) -> dict[str, Raw]:
        """The accounting of each worker that lives."""
        machines = self.lab.crew.machines
        return {name: machines.status(name)["totals"] for name in machines.workers() if name not in machines.ended()}

    def forwarded(self, worker: str) -> int:
        """Datagrams that the load balancer sent to it."""
        return dict(self.lab.balancer.counts.targets).get(worker, 0)
