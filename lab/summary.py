"""What a run of the demo found: the table at its end, and PASS, or FAIL and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lab.tally import NOBODY, Lot, Tally, total
from lab.view import Snapshot, imbalances, law, troubles

_SHOWN = 3  # names of requests in a complaint


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the table shows, and that decides."""

    tallies: Mapping[str, Tally]  # by instance
    snapshot: Snapshot  # when all was over
    mirrored: Sequence[str]  # instances that the story had mirrored: each must have had requests to arrive
    seconds: float = 0.0  # that it took
    remedy: str = ""  # for packets that the workers' sockets dropped


def complaints(outcome: Outcome) -> list[str]:
    """Why it is a FAIL; empty for a PASS."""
    whole = total(outcome.tallies.values())
    kinds = {
        "did not arrive": whole.missing,
        "arrived that should not have, or twice": whole.surplus,
        "arrived with another body": whole.spoilt,
    }
    found = [f"{len(names):,} requests {what}, such as {_some(names)}" for what, names in kinds.items() if names]
    idle = [one for one in outcome.mirrored if one not in outcome.tallies or not outcome.tallies[one].due]
    found += [f"nothing had to arrive of {', '.join(idle)}"] if idle else []
    snapshot = outcome.snapshot
    found += [f"something went wrong with {', '.join(snapshot.troubled)}"] if snapshot.troubled else []
    found += [f"the servers' logs: {count:,} {what}" for what, count in snapshot.misread.items() if count]
    return found + [f"the accounting does not balance: {equation}" for equation in imbalances(snapshot)]


def drawn(outcome: Outcome) -> RenderableType:
    """The tables, then PASS or FAIL."""
    return Group(_requests(outcome), "", _accounting(outcome.snapshot), "", verdict(outcome))


def _requests(outcome: Outcome) -> Table:
    table = _table("Requests, as the logs of production and of the test environment tell them")
    table.add_column("instance", no_wrap=True)
    for name in (
        "answered",
        "not mirrored",
        "at its edges",
        "due",
        "arrived",
        "missing",
        "surplus",
        "spoilt",
    ):
        table.add_column(name, justify="right")
    for instance, one in outcome.tallies.items():
        table.add_row("nobody's" if instance == NOBODY else Text(instance), *_numbers(one))
    table.add_section()
    table.add_row("all", *_numbers(total(outcome.tallies.values())), style="bold")
    return table


def _table(title: str, *, show_header: bool = True) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
        show_edge=False,
        pad_edge=False,
        show_header=show_header,
    )


def _numbers(one: Tally) -> list[str]:
    edges = one.lots[Lot.STRADDLING] + one.lots[Lot.EXCUSED] + one.lots[Lot.UNANSWERED]
    numbers = (one.lots.total(), one.lots[Lot.OUTSIDE], edges, one.due, one.arrived)
    return [f"{number:,}" for number in (*numbers, len(one.missing), len(one.surplus), len(one.spoilt))]


def _accounting(snapshot: Snapshot) -> Table:
    table = _table("What became of every packet, byte and request", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in law(snapshot):
        table.add_row(name, value)
    wrong = imbalances(snapshot)
    table.add_row("accounting", Text("NOT BALANCED", "bold red") if wrong else "balanced")
    return table


def verdict(outcome: Outcome) -> Text:
    """PASS, or FAIL with everything that may explain it."""
    took = f" ({outcome.seconds:.0f} s)" if outcome.seconds else ""
    found = complaints(outcome)
    if not found:
        whole = total(outcome.tallies.values())
        text = f"  all {whole.arrived:,} requests arrived exactly once, {whole.bodies:,} bodies compared"
        return Text.assemble(("PASS", "bold green"), f"{text}, the accounting balances{took}")
    lines = [f"  {'; '.join(found)}{took}", *(f"      {line}" for line in troubles(outcome.snapshot))]
    if outcome.remedy and outcome.snapshot.ledger.socket_drops:
        lines.append(f"      {outcome.remedy}")
    return Text.assemble(("FAIL", "bold red"), "\n".join(lines))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN])
