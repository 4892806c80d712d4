"""`replayer extract`: capture files in, one JSON object a line per request out.

Several files are one timeline, merged by time: the parts of a rotated capture continue each other's connections.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from replayer.capture import CaptureError, Frame, read_all
from replayer.decap import endpoints
from replayer.head import Request, fields
from replayer.ledger import Ledger
from replayer.pipeline import Pipeline
from replayer.report import accounting
from replayer.settings import Settings

_TIMERS_EVERY = 0.05
_SETBACK = 1.0


class Timeline:
    """Capture time as a clock that never goes back.

    A small step back is packets out of order: the clock stands still. A larger one is a clock that was set back, or
    an older capture behind a newer one: the clock goes on from where it was.
    """

    def __init__(self) -> None:
        self._now = float("-inf")
        self._shift = 0.0

    def now(self, at: float) -> float:
        """The clock's time for a frame captured `at`."""
        if at + self._shift < self._now - _SETBACK:
            self._shift = self._now - at
        self._now = max(self._now, at + self._shift)
        return self._now

    def captured(self, now: float) -> float:
        """When a frame of the clock's time `now` was captured."""
        return now - self._shift


def requests(frames: Iterator[Frame], pipeline: Pipeline, timeline: Timeline) -> Iterator[list[Request]]:
    """What each frame completes (mostly nothing), with the timers run before it; then what the end yields."""
    timers_at = now = float("-inf")
    for frame in frames:
        now = timeline.now(frame.at)
        if now >= timers_at + _TIMERS_EVERY:
            timers_at = now
            yield pipeline.expire(now)
        yield pipeline.receive_frame(frame.link_type, frame.data, now)
    yield pipeline.close(max(now, 0.0))


def extract(paths: Sequence[str], settings: Settings, out: TextIO, err: TextIO, *, with_body: bool) -> int:
    """Write the requests to `out` and the accounting to `err`; 0, or 3 where a file is damaged.

    Raises CaptureError for a file that is none.
    """
    ledger, timeline = Ledger(), Timeline()
    damaged: list[CaptureError] = []
    for found in requests(read_all(paths, damaged), Pipeline(settings, ledger), timeline):
        out.writelines(
            json.dumps(as_json(request, timeline.captured(request.at), with_body=with_body)) + "\n" for request in found
        )
    out.flush()
    print(accounting(ledger), file=err)
    for error in damaged:
        print(f"replayer: {error}", file=err)
    return 3 if damaged else 0


def as_json(request: Request, ts: float, *, with_body: bool) -> dict[str, Any]:
    """A request as JSON-ready values; bytes of the head become text of the same code points (Latin-1)."""
    ends = endpoints(request.key)
    values = {
        "ts": round(ts, 6),
        "vni": ends.vni,
        "src": ends.src,
        "src_port": ends.src_port,
        "dst": ends.dst,
        "dst_port": ends.dst_port,
        "method": request.method.decode("latin-1"),
        "target": request.target.decode("latin-1"),
        "version": request.version.decode("latin-1"),
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in fields(request)],
        "body_length": len(request.body),
        "body_sha256": hashlib.sha256(request.body).hexdigest(),
    }
    if with_body:
        values["body"] = base64.b64encode(request.body).decode("ascii")
    return values
