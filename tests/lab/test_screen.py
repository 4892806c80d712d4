"""The screen fits a terminal of 100 × 32 whatever there is to be shown, and shows it."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from lab import screen
from lab.screen import HAPPENINGS, INSTANCES, WORKERS, Stage
from lab.view import Balancer, Happening, Instance, Mirror, Snapshot, Worker
from replayer.ledger import Ledger

_NOW = 1_795_415_080.0
_WORDS = st.text(max_size=200)
_COUNTS = st.integers(0, 10**15)
_RATES = st.floats(0, 1e7)
_TIMES = st.floats(0, 4e9)

_INSTANCES = st.builds(
    Instance,
    id=st.from_regex(r"i-[0-9a-f]{17}", fullmatch=True),
    name=_WORDS,
    image=_WORDS,
    state=st.sampled_from(["pending", "running", "shutting-down", "stopped", "terminated"]),
    mirror=st.sampled_from(Mirror),
    since=st.none() | _TIMES,
    production=_RATES,
    test=_RATES,
)
_WORKERS = st.builds(Worker, id=_WORDS, state=_WORDS, health=_WORDS, received=_COUNTS, replayed=_COUNTS)
_SNAPSHOTS = st.builds(
    Snapshot,
    at=_TIMES,
    instances=st.lists(_INSTANCES, max_size=INSTANCES + 3).map(tuple),
    workers=st.lists(_WORKERS, max_size=WORKERS + 3).map(tuple),
    answered=_COUNTS,
    received=_COUNTS,
    mirrored=_COUNTS,
    reached=st.just({"i-1": 1}),
    balancer=st.builds(
        Balancer,
        received=_COUNTS,
        forwarded=_COUNTS,
        socket_drops=_COUNTS,
        targets=st.fixed_dictionaries({"i-1": _COUNTS}),
    ),
    ledger=st.builds(Ledger, datagrams=_COUNTS, payload_bytes=_COUNTS, framed_bytes=_COUNTS),
    happenings=st.lists(st.builds(Happening, at=_TIMES, text=_WORDS), max_size=HAPPENINGS + 3).map(tuple),
)


def _drawn(snapshot: Snapshot, stage: Stage, *before: Snapshot) -> str:
    console = Console(file=io.StringIO(), width=screen.WIDTH, color_system=None)
    console.print(screen.live(snapshot, stage, before))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _instance(number: int, **changed: object) -> Instance:
    values: dict[str, object] = {"name": f"web-{number}", "image": "web", "state": "running", "mirror": Mirror.NO}
    return Instance(f"i-{number:017x}", **values | changed)  # type: ignore[arg-type]


@given(snapshot=_SNAPSHOTS, title=_WORDS, hint=_WORDS)
def test_it_always_fits(snapshot: Snapshot, title: str, hint: str) -> None:
    lines = _drawn(snapshot, Stage(title, 1, 5, hint), snapshot).splitlines()

    assert len(lines) == screen.HEIGHT - 1
    assert all(cell_len(line) <= screen.WIDTH for line in lines)


def test_an_instance_is_shown_with_its_rates_and_what_becomes_of_its_packets() -> None:
    one = _instance(1, mirror=Mirror.YES, since=_NOW - 12, production=1234.4, test=1200.0)
    other = _instance(2, state="pending", mirror=Mirror.COMING, since=_NOW)
    lines = _drawn(Snapshot(_NOW, (one, other)), Stage("scale out")).splitlines()

    [first] = [line for line in lines if "web-1" in line]
    assert first.split()[1:-1] == [
        "web-1", "i-00000000000000001", "running", "mirrored", "12", "s", "1,234", "1,200",
    ]  # fmt: skip
    [second] = [line for line in lines if "web-2" in line]
    assert second.split()[3:-1] == ["pending", "session", "made", "now", "-", "-"]


def test_what_does_not_fit_is_said_to_be_more() -> None:
    snapshot = Snapshot(
        _NOW,
        tuple(_instance(number) for number in range(INSTANCES + 3)),
        tuple(Worker(f"i-{number}", "running", "healthy") for number in range(WORKERS + 1)),
    )
    drawn = _drawn(snapshot, Stage("scale out"))

    assert "and 4 more" in drawn
    assert "and 2 more" in drawn


def test_the_stage_is_named() -> None:
    drawn = _drawn(Snapshot(_NOW), Stage("scale out to six", 3, 5, "Ctrl-C ends it"))

    assert "3/5 scale out to six" in drawn
    assert "Ctrl-C ends it" in drawn


def test_the_curves_have_one_scale() -> None:
    looks = [Snapshot(_NOW, (_instance(1, production=rate, test=rate / 2),)) for rate in (0.0, 40.0, 80.0)]
    drawn = _drawn(looks[-1], Stage("load"), *looks[:-1])

    assert " ▄█" in drawn
    assert " ▂▄" in drawn


def test_trouble_is_told_below_the_law() -> None:
    quiet = _drawn(Snapshot(_NOW), Stage("load"))
    loud = _drawn(Snapshot(_NOW, balancer=Balancer(socket_drops=7)), Stage("load"))

    assert "dropped by the balancer's socket" not in quiet
    assert "dropped by the balancer's socket: 7" in loud


def test_the_last_happenings_are_shown_with_the_time_of_day() -> None:
    happenings = tuple(Happening(_NOW + number, f"event {number}\nand more") for number in range(HAPPENINGS + 1))
    drawn = _drawn(Snapshot(_NOW, happenings=happenings), Stage("load"))

    assert "event 0" not in drawn
    assert f"{screen.clock(_NOW + 1)} event 1" in drawn
    assert f"{screen.clock(_NOW + HAPPENINGS)} event {HAPPENINGS}" in drawn
    assert "and more" not in drawn
