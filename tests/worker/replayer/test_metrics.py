"""Metrics: every number of the ledger is there, named, explained and right."""

from dataclasses import fields
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replayer import metrics
from replayer.ledger import LATENCY_BOUNDS, DestinationLedger, Ledger
from replayer.metrics import Reading

SHOP, BLOG = "http://shop.test", "https://blog.test/prefix"


def samples(ledger: Ledger, **changes: Any) -> dict[tuple[str, ...], float]:
    """What Prometheus makes of the text: (name, label values in the order of their names) → value."""
    values = {"shards": 2, "shards_alive": 1, "generation": 3, "config_errors": 4, "receive_buffer": 5} | changes
    text = metrics.exposition(Reading(ledger, **values)).decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    found = [sample for family in families for sample in family.samples]
    result = {(entry.name, *(entry.labels[key] for key in sorted(entry.labels))): entry.value for entry in found}
    assert len(result) == len(found)
    return result


def numbered(part: Ledger | DestinationLedger, start: int) -> None:
    """Give every number of a ledger a value of its own."""
    for entry in fields(part):
        value = getattr(part, entry.name)
        if entry.name == "destinations":
            continue
        if isinstance(value, dict):
            for key in value:
                start += 1
                value[key] = start
        elif isinstance(value, int):
            start += 1
            setattr(part, entry.name, start)


def test_every_number_of_the_ledger_is_exported() -> None:
    ledger = Ledger()
    numbered(ledger, 1_000)
    numbered(ledger.destination(SHOP), 2_000)
    numbered(ledger.destination(BLOG), 3_000)
    found = samples(ledger)

    tables: list[tuple[Ledger | DestinationLedger, tuple[str, ...], dict[str, tuple[str, str]], str]] = [
        (ledger, (), metrics.COUNTERS, "_total"),
        (ledger, (), metrics.GAUGES, ""),
    ]
    for name, destination in ledger.destinations.items():
        tables.append((destination, (name,), metrics.DESTINATION_COUNTERS, "_total"))
        tables.append((destination, (name,), metrics.DESTINATION_GAUGES, ""))
    for part, labels, table, suffix in tables:
        for field, (name, _) in table.items():
            value = getattr(part, field)
            if isinstance(value, dict):
                assert {key: found[f"replayer_{name}{suffix}", *labels, key] for key in value} == value
            else:
                assert found[f"replayer_{name}{suffix}", *labels] == value


def test_no_field_is_forgotten() -> None:
    in_tables = {*metrics.COUNTERS, *metrics.GAUGES, "destinations"}
    assert in_tables == {entry.name for entry in fields(Ledger)}
    of_destinations = {*metrics.DESTINATION_COUNTERS, *metrics.DESTINATION_GAUGES, "latency", "latency_seconds"}
    assert of_destinations == {entry.name for entry in fields(DestinationLedger)}


def test_the_histogram_accumulates() -> None:
    ledger = Ledger()
    part = ledger.destination(SHOP)
    part.latency[0], part.latency[3], part.latency[-1] = 5, 2, 1
    part.latency_seconds = 12.5
    found = samples(ledger)
    name = "replayer_latency_seconds"
    assert found[f"{name}_bucket", SHOP, str(LATENCY_BOUNDS[0])] == 5
    assert found[f"{name}_bucket", SHOP, str(LATENCY_BOUNDS[2])] == 5
    assert found[f"{name}_bucket", SHOP, str(LATENCY_BOUNDS[-1])] == 7
    assert found[f"{name}_bucket", SHOP, "+Inf"] == found[f"{name}_count", SHOP] == 8
    assert found[f"{name}_sum", SHOP] == 12.5


@pytest.mark.parametrize(("segments", "balanced"), [(9, 1), (8, 0)])
def test_whether_the_accounting_balances(segments: int, balanced: int) -> None:
    assert samples(Ledger(datagrams=9, segments=segments))["replayer_balanced",] == balanced


def test_what_the_worker_is() -> None:
    found = samples(Ledger())
    assert found["replayer_shards",] == 2
    assert found["replayer_shards_alive",] == 1
    assert found["replayer_settings_generation",] == 3
    assert found["replayer_config_errors_total",] == 4
    assert found["replayer_receive_buffer_bytes",] == 5


def test_the_number_of_series_depends_on_destinations_alone() -> None:
    none, one, two = Ledger(), Ledger(), Ledger()
    one.destination(SHOP)
    two.destination(SHOP)
    two.destination(BLOG)
    numbered(two, 10**12)
    assert len(samples(two)) - len(samples(one)) == len(samples(one)) - len(samples(none)) < 60
