"""The lab's screen, for a terminal of 100 × 32: what `lab.view.Snapshot` holds, drawn again at each look."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from lab.view import Happening, Mirror, Snapshot, Worker, law, troubles

WIDTH, HEIGHT = 100, 32
#: Rows of the lists; what does not fit is said to be more.
INSTANCES, WORKERS, HAPPENINGS = 7, 3, 4
#: Looks that the curves show.
CURVE = 34

_BARS = " ▁▂▃▄▅▆▇█"
_SPARE = 1  # seconds of a change that are called "now"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where the story stands."""

    title: str
    number: int = 0  # of `stages`; 0 when there are none
    stages: int = 0
    hint: str = ""  # the last line


def live(snapshot: Snapshot, stage: Stage, before: Sequence[Snapshot] = ()) -> RenderableType:
    """The screen: never wider than WIDTH nor higher than HEIGHT. `before` are earlier looks, for the curves."""
    middle = Table.grid(expand=True)
    middle.add_column(ratio=1)
    middle.add_column(ratio=1)
    middle.add_row(_rates(snapshot, before), _workers(snapshot.workers))
    parts = [
        _head(stage),
        _instances(snapshot),
        middle,
        _law(snapshot),
        _happenings(snapshot.happenings, stage.hint),
    ]
    frame = Table.grid(expand=False)
    frame.add_column(width=WIDTH)
    frame.add_row(Group(*parts))
    return frame


def _law(snapshot: Snapshot) -> RenderableType:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for name, value in law(snapshot):
        table.add_row(name, value)
    found = troubles(snapshot)
    below = _text("; ".join(found), style="yellow") if found else None
    return _panel(table, "what became of it", below)


def _head(stage: Stage) -> RenderableType:
    where = f"{stage.number}/{stage.stages} " if stage.stages else ""
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_row(Text.assemble(("VPC Traffic Replay  ", "bold"), _text(f"{where}{stage.title}", style="bold cyan")))
    return table


def _instances(snapshot: Snapshot) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("instance", no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column("id", no_wrap=True, width=19)
    table.add_column("state", no_wrap=True, width=13)
    table.add_column("packets", no_wrap=True, width=20, overflow="ellipsis")
    table.add_column("production", justify="right", no_wrap=True, width=10)
    table.add_column("test", justify="right", no_wrap=True, width=7)
    rows = sorted(snapshot.instances, key=lambda one: one.image != "web")  # production first
    shown = rows if len(rows) <= INSTANCES else rows[: INSTANCES - 1]
    for one in shown:
        table.add_row(
            _text(one.name or one.image),
            _text(one.id),
            _text(one.state, style=_STATES.get(one.state, "yellow")),
            Text(f"{one.mirror}{_ago(snapshot.at, one.since)}", style=_MIRRORS[one.mirror]),
            _rate(one.production),
            _rate(one.test),
        )
    if len(shown) < len(rows):
        table.add_row(f"and {len(rows) - len(shown)} more")
    _fill(table, INSTANCES - len(shown) - (len(shown) < len(rows)))
    title = "instances; requests a second in production and in the test environment"
    return _panel(table, title)


_STATES = {"running": "green", "stopped": "dim", "terminated": "dim"}
_MIRRORS = {Mirror.NO: "dim", Mirror.COMING: "yellow", Mirror.YES: "bold green", Mirror.ENDING: "yellow"}
_HEALTH = {"healthy": "green", "unhealthy": "bold red"}


def _rates(snapshot: Snapshot, before: Sequence[Snapshot]) -> RenderableType:
    """Both curves have one scale, so that equal rates look alike."""
    looks = [*before, snapshot][-CURVE:]
    curves = [[sum(one.production for one in look.instances) for look in looks]]
    curves.append([sum(one.test for one in look.instances) for look in looks])
    top = max(1.0, *(max(curve) for curve in curves))
    table = Table.grid(padding=(0, 1))
    for _ in range(2):
        table.add_column(no_wrap=True)
    counts, styles = (snapshot.answered, snapshot.received), ("cyan", "green")
    for name, curve, count, style in zip(("production", "test"), curves, counts, styles, strict=True):
        table.add_row(Text(name, style=style), f"{curve[-1]:,.0f}/s, {count:,} in all")
        table.add_row("", Text(_curve(curve, top), style=style))
    return _panel(table, "requests")


def _workers(workers: Sequence[Worker]) -> RenderableType:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_row(Text("id", style="dim"), "", Text("packets", style="dim"), Text("replayed", style="dim"))
    shown = workers if len(workers) <= WORKERS else workers[: WORKERS - 1]
    for one in shown:
        health = one.health if one.state == "running" and one.health else one.state
        text = _text(health, style=_HEALTH.get(health, "yellow"))
        table.add_row(_text(one.id), text, f"{one.received:,}", f"{one.replayed:,}")
    if len(shown) < len(workers):
        table.add_row(f"and {len(workers) - len(shown)} more")
    _fill(table, WORKERS - len(shown) - (len(shown) < len(workers)))
    return _panel(table, "workers")


def _happenings(happenings: Sequence[Happening], hint: str) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(no_wrap=True, overflow="ellipsis", width=WIDTH - 13)
    shown = happenings[-HAPPENINGS:]
    for one in shown:
        table.add_row(clock(one.at), _text(one.text.partition("\n")[0]))
    _fill(table, HAPPENINGS - len(shown))
    return _panel(table, "what happened", _text(hint, style="dim") if hint else None)


def _panel(inside: RenderableType, title: str, below: Text | None = None) -> Panel:
    return Panel(
        inside, title=title, title_align="left", subtitle=below, subtitle_align="left", box=ROUNDED, padding=(0, 1)
    )


def clock(at: float) -> str:
    """The time of day, here."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def _text(text: str, style: str = "") -> Text:
    """Names and tags may hold anything; a terminal gets letters."""
    letters = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return Text(letters, style=style, no_wrap=True, overflow="ellipsis")


def _fill(table: Table, rows: int) -> None:
    """Empty rows, so that the screen keeps its height."""
    for _ in range(rows):
        table.add_row("")


def _ago(now: float, since: float | None) -> str:
    if since is None:
        return ""
    seconds = max(0.0, now - since)
    return " now" if seconds < _SPARE else f" {seconds:.0f} s" if seconds < 100 else f" {seconds / 60:.0f} min"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 0.5 else "-"


def _curve(values: Iterable[float], top: float) -> str:
    """A bar of 8 steps for each value; what is above nothing shows at least the lowest."""
    steps = len(_BARS) - 1
    return "".join(_BARS[0 if value <= 0 else max(1, min(steps, round(value / top * steps)))] for value in values)
