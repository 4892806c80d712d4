"""CPU time and memory of processes and of the machine, as /proc tells them; and how a helper process ends."""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of CPU, in user mode and in the kernel. The kernel keeps the sum exactly and estimates the parts."""

    user: float = 0.0
    system: float = 0.0

    @property
    def total(self) -> float:
        """Both."""
        return self.user + self.system

    def __add__(self, other: "CpuTime") -> "CpuTime":
        return CpuTime(self.user + other.user, self.system + other.system)

    def __sub__(self, other: "CpuTime") -> "CpuTime":
        return CpuTime(self.user - other.user, self.system - other.system)


def cpu_time(pids: Iterable[int]) -> CpuTime:
    """What processes have used so far, all their threads included."""
    total = CpuTime()
    for pid in pids:
        numbers = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += CpuTime(int(numbers[11]) / _TICKS, int(numbers[12]) / _TICKS)
    return total


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had in memory."""
    return _status(pid, "VmHWM")


def memory(pid: int) -> int:
    """The bytes that a process has in memory."""
    return _status(pid, "VmRSS")


def _status(pid: int, name: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kib) << 10


def end_quietly() -> None:
    """In a forked helper: signals end it, as they end any program that does not ask to be told."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def busy(seconds: float) -> float:
    """The share of all cores that is in use, watched for some seconds."""
    before = _machine()
    time.sleep(seconds)
    idle, total = (after - at for after, at in zip(_machine(), before, strict=True))
    return 1 - idle / total


def _machine() -> tuple[int, int]:
    """Ticks idle, and ticks in all."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
