"""What the fabric needs of the emulator, live: the API that anybody has, and the side doors of who runs machines."""

from typing import Any, Protocol


class Cloud(Protocol):
    """`lab.cloud.emulator.Emulator`."""

    def client(self, service: str) -> Any: ...

    def report_machine(self, instance: str, state: str) -> None: ...

    def report_health(self, group: str, target: str, state: str, reason: str = "", description: str = "") -> None: ...
