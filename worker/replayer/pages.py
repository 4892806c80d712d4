"""What the worker says of itself: the pages for health checks, Prometheus and people."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from replayer import __version__, metrics
from replayer.endpoints import Answer, text
from replayer.fleet import PlaceReading
from replayer.ledger import Ledger, add, arrived, as_dict, equations, imbalances
from replayer.settings import Settings


@dataclass(frozen=True, slots=True)
class State:
    """What is true of the worker beside its shards."""

    settings: Settings
    receive_buffer: int  # effective, per socket
    generation: int = 1  # of the settings
    config_errors: int = 0
    config_error: str | None = None  # the last one, while it stands
    draining: bool = False


def totals(places: Iterable[PlaceReading]) -> Ledger:
    """The accounting of all shards together."""
    total = Ledger()
    for place in places:
        add(total, place.ledger)
    return total


def health(state: State, places: Sequence[PlaceReading]) -> Answer:
    """200 while every shard's loop ticks, whatever the traffic and the destinations do."""
    if state.draining:
        return text(HTTPStatus.SERVICE_UNAVAILABLE, "draining")
    silent = [str(place.number) for place in places if not place.alive]
    if silent:
        return text(HTTPStatus.SERVICE_UNAVAILABLE, f"not alive: shard {', '.join(silent)}")
    return text(HTTPStatus.OK, "ok")


def prometheus(state: State, places: Sequence[PlaceReading]) -> Answer:
    """The metrics."""
    reading = metrics.Reading(
        ledger=totals(places),
        shards=len(places),
        shards_alive=sum(place.alive for place in places),
        generation=state.generation,
        config_errors=state.config_errors,
        receive_buffer=state.receive_buffer,
    )
    return Answer(HTTPStatus.OK, metrics.CONTENT_TYPE, metrics.exposition(reading))


def status(state: State, places: Sequence[PlaceReading]) -> Answer:
    """The whole accounting as JSON."""
    total = totals(places)
    wrong = imbalances(total)
    document = {
        "version": __version__,
        "balanced": not wrong,
        "imbalances": wrong,
        "equations": equations(total),
        "arrived": arrived(total),
        "draining": state.draining,
        "settings_generation": state.generation,
        "config_errors": state.config_errors,
        "config_error": state.config_error,
        "receive_buffer": {"wished": state.settings.receive_buffer, "effective": state.receive_buffer},
        "totals": as_dict(total),
        "shards": [_place(place) for place in places],
    }
    return Answer(HTTPStatus.OK, "application/json", json.dumps(document, indent=1).encode())


def _place(place: PlaceReading) -> dict[str, object]:
    return {
        "number": place.number,
        "pid": place.pid,
        "alive": place.alive,
        "draining": place.draining,
        "since_tick": place.since_tick,
        "settings_generation": place.generation,
        "trouble": place.trouble,
        "ledger": as_dict(place.ledger),
    }
