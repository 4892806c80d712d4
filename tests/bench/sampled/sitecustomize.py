"""Imported by each Python that has this directory on its path: samples it if it is a shard, and writes what it saw.

The kernel's profiling timer counts the process's CPU time, in the kernel and outside; the handler notes which Python
function is running, which one called it, and in which line it is. C code, system calls among it, counts for the line
that called it.
"""

import atexit
import json
import os
import signal
import sys
from collections import Counter
from types import FrameType

_EVERY = 0.001
_DEPTH = 30
_SERVING = "runners.py Runner.run"
_self: Counter[str] = Counter()
_total: Counter[str] = Counter()
_lines: Counter[str] = Counter()


def _sample(_number: int, frame: FrameType | None) -> None:
    stack: list[FrameType] = []
    while frame is not None and len(stack) < _DEPTH:
        stack.append(frame)
        frame = frame.f_back
    names = [_name(entry) for entry in stack]
    if _SERVING not in names:  # it is starting, or ending
        return
    _self[names[0]] += 1
    _lines[f"{os.path.basename(stack[0].f_code.co_filename)}:{stack[0].f_lineno}"] += 1
    _total.update(set(names[: names.index(_SERVING)]))


def _name(frame: FrameType) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)} {frame.f_code.co_qualname}"


def _write() -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    with open(os.environ["BENCH_SAMPLES"], "w") as file:
        json.dump({"self": _self, "total": _total, "lines": _lines}, file)


if "BENCH_SAMPLES" in os.environ and "replayer.shard" in sys.orig_argv:
    signal.signal(signal.SIGPROF, _sample)
    signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)
    atexit.register(_write)
