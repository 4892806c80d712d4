"""Python's cycle collector, put aside while a large account is looked at.

A look makes hundreds of thousands of values and drops none before its plan; none of them refers back to another. The
collector walks them again and again and finds nothing: a third of the time at 100,000 interfaces, and more than its
share as they grow (docs/performance.md).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def put_aside() -> Iterator[None]:
    """Not for a run's changes: what goes wrong there makes cycles."""
    ran = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if ran:
            gc.enable()
