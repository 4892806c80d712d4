"""The terminal shows the lab while the story goes on, and the story hears when it cannot."""

import io
import threading

import pytest
from rich.console import Console

from lab.show import Show, ShowError, StoryError
from lab.view import Instance, Mirror, Snapshot
from tests.waiting import until


class _Lab:
    """Counts how often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.failure: Exception | None = None

    def look(self) -> Snapshot:
        if self.failure:
            raise self.failure
        self.looks += 1
        return Snapshot(float(self.looks), (Instance("i-1", f"look {self.looks}", "web", "running", Mirror.NO),))


def _console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=100, height=40, force_terminal=terminal, color_system=None)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_shows_each_look_and_the_stage() -> None:
    lab, console = _Lab(), _console(terminal=True)
    with Show(console, lab.look, stages=2, hint="Ctrl-C ends it") as show:
        show.stage("scale out")
        until("two looks are shown", lambda: "look 2" in _text(console))
        [picture] = show.picture()

    shown = _text(console)
    for words in ("look 1", "1/2 scale out", "Ctrl-C ends it"):
        assert words in shown
    console.print(picture)
    assert "1/2 scale out" in _text(console)[len(shown) :]


def test_without_a_terminal_each_stage_is_a_line() -> None:
    lab, console = _Lab(), _console(terminal=False)
    with Show(console, lab.look) as show:
        show.stage("one")
        show.stage("two")
        until("a look", lambda: show.last)

    first, second = _text(console).splitlines()
    assert first.endswith(" s  one")
    assert second.endswith(" s  two")


def test_nothing_is_drawn_after_the_end() -> None:
    lab = _Lab()
    with Show(_console(terminal=False), lab.look):
        until("a look", lambda: lab.looks)
    before = lab.looks

    assert not any(thread.name == "show" for thread in threading.enumerate())
    assert lab.looks == before


def test_the_story_waits_until_it_is_so() -> None:
    answers = iter([False, False, True])
    with Show(_console(terminal=False), _Lab().look) as show:
        show.wait("it is so", lambda: next(answers), 30)

    assert next(answers, None) is None


def test_what_does_not_come_ends_the_story() -> None:
    with (
        Show(_console(terminal=False), _Lab().look) as show,
        pytest.raises(StoryError, match="^it rains: not within 0"),
    ):
        show.wait("it rains", lambda: False, 0.01)


def test_a_lab_that_cannot_be_looked_at_ends_the_story() -> None:
    lab = _Lab()
    lab.failure = ValueError("the emulator is gone")
    with Show(_console(terminal=False), lab.look) as show:
        with pytest.raises(ShowError, match="the lab cannot be looked at: the emulator is gone"):
            show.pause(30)
        with pytest.raises(ShowError):
            show.wait("anything", lambda: False, 30)
        with pytest.raises(ShowError):
            show.stage("on")
