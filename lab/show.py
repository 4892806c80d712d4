"""The lab on the terminal while something goes on in it: a thread looks and draws, the caller tells the story.

    with Show(console, lab.snapshot) as show:
        show.stage("scale out")
        show.wait("six run", lambda: len(lab.members("web")) == 6, 20)

A line is printed for each stage. Where there is no terminal, that is all.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live

from lab import screen
from lab.screen import Stage
from lab.view import Snapshot

_LOOK = 0.5  # seconds between two looks at the lab
_DRAW = 0.25
_POLL = 0.1


class ShowError(Exception):
    """The lab could not be looked at; the cause is."""


class StoryError(Exception):
    """What was waited for did not come; the text is one line."""


class Show:
    """`stages` is how many there will be, if that is known."""

    def __init__(self, console: Console, look: Callable[[], Snapshot], stages: int = 0, hint: str = "") -> None:
        self.last: Snapshot | None = None
        self._console, self._look = console, look
        self._stage = Stage("", 0, stages, hint)
        self._before: tuple[Snapshot, ...] = ()
        self._began = time.monotonic()
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._draw, name="show", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def stage(self, title: str) -> None:
        """The next part of the story."""
        self._check()
        self._stage = replace(self._stage, title=title, number=self._stage.number + 1)
        self._console.print(f"{time.monotonic() - self._began:5.1f} s  {title}", highlight=False, soft_wrap=True)

    def pause(self, seconds: float) -> None:
        """Let things go on."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._check()
            time.sleep(min(left, _POLL))

    def wait(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Until it is done. Raises StoryError when that takes longer."""
        deadline = time.monotonic() + seconds
        while not done():
            self._check()
            if time.monotonic() > deadline:
                raise StoryError(f"{what}: not within {seconds:g} s")
            time.sleep(_POLL)

    def picture(self) -> list[RenderableType]:
        """The screen as it is now; nothing before the first look."""
        if self.last is None:
            return []
        return [screen.live(self.last, self._stage, self._before)]

    def _check(self) -> None:
        if self._failure is not None:
            raise ShowError(f"the lab cannot be looked at: {self._failure}") from self._failure

    def _draw(self) -> None:
        try:
            if self._console.is_terminal:
                with Live(console=self._console, auto_refresh=False, transient=True) as live:
                    self._run(live)
            else:
                self._run(None)
        except Exception as error:  # noqa: BLE001  the top of a thread: the story hears of it
            self._failure = error

    def _run(self, live: Live | None) -> None:
        looked = 0.0
        while not self._ended.is_set():
            if time.monotonic() - looked >= _LOOK:
                if self.last is not None:
                    self._before = (*self._before, self.last)[-screen.CURVE :]
                self.last, looked = self._look(), time.monotonic()
            if live is not None:
                live.update(Group(*self.picture()), refresh=True)
            self._ended.wait(_DRAW)
