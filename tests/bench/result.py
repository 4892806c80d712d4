"""What a measurement found, and all findings as a table."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table. `met` is None where there is no target."""

    what: str
    subject: str
    yardstick: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Rounds:
    """Pairs of figures, each pair measured in one round: the subject's and the yardstick's."""

    subject: list[float]
    yardstick: list[float]

    @property
    def ratios(self) -> list[float]:
        """Of each round."""
        return [mine / theirs for mine, theirs in zip(self.subject, self.yardstick, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios)

    def finding(self, what: str, most: float | None = None, aim: float | None = None) -> Finding:
        """As CPU time per request: at most so many times the yardstick's."""
        low, high = min(self.ratios), max(self.ratios)
        spread = f" ({low:.2f} to {high:.2f})" if len(self.ratios) > 1 else ""
        target = "" if most is None else f"at most {most:g}" + ("" if aim is None else f", aim {aim:g}")
        met = None if most is None else self.ratio <= most
        return Finding(
            what, microseconds(self.subject), microseconds(self.yardstick), f"{self.ratio:.2f}{spread}", target, met
        )


def microseconds(seconds: Iterable[float]) -> str:
    """The median, for people."""
    return f"{median(seconds) * 1e6:.1f} µs"


def show(console: Console, title: str, findings: Iterable[Finding], subject: str = "worker") -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for name in ("", subject, "yardstick", "ratio", "target"):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    for finding in findings:
        mark = {None: "", True: " [green]met[/]", False: " [red]missed[/]"}[finding.met]
        table.add_row(finding.what, finding.subject, finding.yardstick, finding.ratio, finding.target + mark)
    console.print(table)
