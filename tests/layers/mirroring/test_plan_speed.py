"""A full look asks for each page once, and its work grows with the number of interfaces: counted, not timed.

`python -m tests.bench plan` has the seconds and the megabytes.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import mirroring
from tests.bench.describes import Account, expected_pages
from tests.bench.planning import look

_OURS = str(Path(mirroring.__file__).parent)


class _Steps:
    """Lines of ours that ran, each turn of a loop anew."""

    def __init__(self) -> None:
        self.count = 0

    def take(self, code: CodeType, _: int) -> object:
        if not code.co_filename.startswith(_OURS):
            return sys.monitoring.DISABLE
        self.count += 1
        return None


@contextmanager
def _counted() -> Iterator[_Steps]:
    steps, tool, line = _Steps(), sys.monitoring.PROFILER_ID, sys.monitoring.events.LINE
    sys.monitoring.use_tool_id(tool, "steps")
    sys.monitoring.register_callback(tool, line, steps.take)
    sys.monitoring.set_events(tool, line)
    try:
        yield steps
    finally:
        sys.monitoring.set_events(tool, sys.monitoring.events.NO_EVENTS)
        sys.monitoring.register_callback(tool, line, None)
        sys.monitoring.free_tool_id(tool)


def _steps(interfaces: int) -> int:
    account = Account(interfaces, "dicts")
    with _counted() as steps:
        look(account)
    return steps.count


def test_ten_thousand_interfaces_are_seen_in_as_many_calls_as_there_are_pages() -> None:
    account = Account(10_000, "dicts")
    plan, calls = look(account)
    assert calls == account.pages == 21
    assert sorted(account.asked) == sorted(expected_pages(10_000))
    assert (len(plan.create), len(plan.modify), len(plan.delete), plan.kept) == (700, 1000, 200, 8300)


def test_ten_times_the_interfaces_are_ten_times_the_work() -> None:
    base = _steps(0)
    ratio = (_steps(3000) - base) / (_steps(300) - base)
    assert 9 < ratio < 11


def test_the_answers_as_xml_are_the_same_as_those_as_dicts() -> None:
    assert look(Account(100, "xml"))[0] == look(Account(100, "dicts"))[0]
