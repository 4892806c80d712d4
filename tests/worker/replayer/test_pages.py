"""The pages as values."""

import json
from dataclasses import replace

import pytest

from replayer import pages
from replayer.fleet import PlaceReading
from replayer.ledger import Ledger, equations
from replayer.pages import State
from replayer.settings import Settings

STATE = State(Settings(), receive_buffer=1 << 20, generation=3, config_errors=2, config_error="caps: none")


def place(number: int, *, alive: bool = True, ledger: Ledger | None = None) -> PlaceReading:
    pid = 100 + number if alive else None
    return PlaceReading(
        number=number,
        pid=pid,
        alive=alive,
        since_tick=0.01,
        generation=3,
        draining=False,
        trouble={},
        ledger=ledger or Ledger(),
    )


@pytest.mark.parametrize(
    ("state", "places", "status", "body"),
    [
        (STATE, [place(0), place(1)], 200, b"ok\n"),
        (STATE, [place(0), place(1, alive=False), place(2, alive=False)], 503, b"not alive: shard 1, 2\n"),
        (replace(STATE, draining=True), [place(0)], 503, b"draining\n"),
    ],
)
def test_health(state: State, places: list[PlaceReading], status: int, body: bytes) -> None:
    answer = pages.health(state, places)
    assert (answer.status, answer.body) == (status, body)


def test_status_tells_the_whole_accounting() -> None:
    places = [place(0, ledger=Ledger(datagrams=3, segments=3)), place(1, ledger=Ledger(datagrams=4, socket_drops=2))]
    document = json.loads(pages.status(STATE, places).body)
    assert document["arrived"] == 9
    assert document["totals"]["datagrams"] == 7
    assert document["balanced"] is False
    assert document["imbalances"] == ["datagrams = segments + refused: 7 ≠ 3"]
    assert document["equations"]["datagrams = segments + refused"] == [7, 3]
    assert document["equations"].keys() == equations(Ledger()).keys()
    assert document["receive_buffer"] == {"wished": 64 << 20, "effective": 1 << 20}
    assert [shard["ledger"]["datagrams"] for shard in document["shards"]] == [3, 4]
    assert (document["settings_generation"], document["config_errors"], document["config_error"]) == (
        3,
        2,
        "caps: none",
    )


def test_prometheus_counts_the_living() -> None:
    text = pages.prometheus(STATE, [place(0), place(1, alive=False)]).body.decode()
    assert "replayer_shards 2.0" in text
    assert "replayer_shards_alive 1.0" in text
