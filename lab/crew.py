"""Everybody who works in the instances of a lab: their software, their clients, and who reads their logs."""

import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.fabric.hosts import Host
from lab.images import Software, duty
from lab.machines import Machines
from lab.records import Records
from lab.tally import Window
from lab.traffic import Mix, Traffic

#: Ends that are remembered. A surplus at an older one shows in the tally, which is the counter of this cap.
MOST_ENDS = 10_000


class Crew:
    """What boots and halts the fabric's hosts. `mix` is what clients send to production that boots from now on."""

    def __init__(self, machines: Path, traffic: Path, endpoint_url: str) -> None:
        self.machines = Machines(machines, endpoint_url)
        self.traffic = Traffic(traffic)
        self.records = Records()
        self.mix: Mix | None = None
        #: When servers of production ended: what they had not read by then was mirrored all the same.
        self.ends: deque[Window] = deque(maxlen=MOST_ENDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """All clients and all software end, by force."""
        self.traffic.close()
        self.machines.close()

    def boot(self, host: Host) -> None:
        """Software first, then its clients."""
        self.machines.boot(host)
        software = duty(host.image, host.user_data).software
        if software is Software.TEST:
            self.records.watch_test(self.machines.log(host.instance))
        if software is Software.WEB:
            self.records.watch_production(host.instance, self.machines.log(host.instance))
            if self.mix is not None:
                self.traffic.start(host.instance, host.interfaces[0].address, self.mix)

    def halt(self, host: Host) -> None:
        """Clients first."""
        since = time.time()
        self.traffic.stop(host.instance)
        try:
            self.machines.halt(host)
        finally:
            if host.instance in self.records.answered:
                self.ends.append(Window(since, time.time()))
