"""Waiting for what another process does."""

from collections.abc import Callable
from time import monotonic, sleep

LOOK = 0.1  # seconds between two looks


def until[T](what: str, look: Callable[[], T], seconds: float = 30.0) -> T:
    """What a look gives as soon as it gives something; `what` says what is waited for."""
    deadline = monotonic() + seconds
    while not (seen := look()):
        if monotonic() >= deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s, the last look gave {seen!r}")
        sleep(LOOK)
    return seen
