"""The accounting as Prometheus metrics: one table that names and explains every field of the ledger.

Labels are reasons (fixed sets), status classes, and destinations as the settings name them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from replayer.ledger import LATENCY_BOUNDS, Ledger, imbalances

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


type Values = dict[tuple[str, ...], int | dict[str, int]]  # label values → number, or numbers by reason


@dataclass(frozen=True, slots=True)
class Reading:
    """What the worker is at one instant."""

    ledger: Ledger
    shards: int
    shards_alive: int
    generation: int  # of the settings in force
    config_errors: int
    receive_buffer: int  # effective, per socket


#: field of Ledger → (metric, help). Those with reasons get the label `reason`.
COUNTERS = {
    "socket_drops": ("socket_drops", "Datagrams that the kernel dropped before the worker read them"),
    "datagrams": ("datagrams", "Datagrams read"),
    "segments": ("segments", "TCP segments found in datagrams"),
    "truncated": ("truncated_segments", "Segments that arrived with less payload than was sent"),
    "refused": ("refused", "Datagrams that hold no segment to follow"),
    "payload_bytes": ("payload_bytes", "TCP payload bytes that arrived"),
    "framed_bytes": ("framed_bytes", "Payload bytes that became part of framed requests"),
    "duplicate_bytes": ("duplicate_bytes", "Payload bytes that had arrived before"),
    "passed_over_bytes": ("passed_over_bytes", "Payload bytes that belong to no request to be replayed"),
    "given_up_bytes": ("given_up_bytes", "Payload bytes of requests that were given up"),
    "lost_bytes": ("lost_bytes", "Bytes that never arrived: the size of all holes given up"),
    "framed": ("requests_framed", "Requests framed whole"),
    "given_up": ("requests_given_up", "Requests given up; a hole counts as one"),
    "holes": ("holes", "Holes in flows that did not fill"),
    "resynchronised": ("resynchronised", "Flows that went on after a request of unknown length was broken"),
    "passed_over_flows": ("passed_over_flows", "Flows that are no requests to be replayed"),
    "flows_opened": ("flows_opened", "Flows taken up; those joined mid-stream are among them"),
    "flows_joined": ("flows_joined", "Flows joined mid-stream"),
    "flows_evicted": ("flows_evicted", "Flows that left the full table"),
    "tombstones_evicted": ("tombstones_evicted", "Closed flows forgotten early because too many were remembered"),
    "crashes": ("shard_crashes", "Shards that ended by themselves and were restarted"),
}
GAUGES = {
    "held_bytes": ("held_bytes", "Payload bytes that wait for the rest of a request or behind a hole"),
    "flows": ("flows", "Flows followed"),
    "tombstones": ("tombstones", "Closed flows remembered for late copies"),
}
#: The same for DestinationLedger; all get the label `destination`.
DESTINATION_COUNTERS = {
    "framed": ("offered", "Framed requests that the destination was considered for"),
    "selected": ("selected", "Requests selected for the destination"),
    "unkeyed": ("unkeyed", "Requests decided one by one because they lack the key header"),
    "passed_over": ("passed_over", "Framed requests not selected"),
    "replayed": ("replayed", "Requests replayed and answered"),
    "failed": ("failed", "Requests sent, or about to be, without a complete answer"),
    "dropped": ("dropped", "Selected requests that never left the queue"),
    "retried": ("retried", "Requests sent once more because a reused connection had closed"),
    "connections": ("connections_opened", "Connections opened"),
    "connect_failed": ("connect_failed", "Attempts to open a connection that failed"),
    "resolve_failed": ("resolve_failed", "Look-ups of the destination's name that failed"),
    "status": ("responses", "Answers by class of status"),
}
DESTINATION_GAUGES = {
    "queued": ("queued", "Requests that wait for a connection"),
    "in_flight": ("in_flight", "Requests sent, the answer not yet complete"),
}
LATENCY = ("latency_seconds", "Time from sending a request to the end of its answer")


def exposition(reading: Reading) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Collector(reading))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def collect(self) -> Iterator[Metric]:
        """Every metric once."""
        ledger = self._reading.ledger
        for field, (name, text) in COUNTERS.items():
            yield _counter(name, text, (), {(): getattr(ledger, field)})
        for field, (name, text) in GAUGES.items():
            yield GaugeMetricFamily(f"replayer_{name}", text, value=getattr(ledger, field))
        parts = ledger.destinations.items()
        for field, (name, text) in DESTINATION_COUNTERS.items():
            values: Values = {(destination,): getattr(part, field) for destination, part in parts}
            yield _counter(name, text, ("destination",), values, "status" if field == "status" else "reason")
        for field, (name, text) in DESTINATION_GAUGES.items():
            gauge = GaugeMetricFamily(f"replayer_{name}", text, labels=("destination",))
            for destination, part in parts:
                gauge.add_metric((destination,), getattr(part, field))
            yield gauge
        yield _latency(ledger)
        yield from _worker(self._reading)


def _counter(
    name: str, text: str, labels: tuple[str, ...], values: Values, split: str = "reason"
) -> CounterMetricFamily:
    """A counter; where the values are split by reason, or by `split`, that is one more label."""
    by_reason = any(isinstance(value, dict) for value in values.values())
    counter = CounterMetricFamily(f"replayer_{name}", text, labels=(*labels, split) if by_reason else labels)
    for label, value in values.items():
        if isinstance(value, dict):
            for reason, number in value.items():
                counter.add_metric((*label, reason), number)
        else:
            counter.add_metric(label, value)
    return counter


def _latency(ledger: Ledger) -> HistogramMetricFamily:
    name, text = LATENCY
    histogram = HistogramMetricFamily(f"replayer_{name}", text, labels=("destination",))
    bounds = [*(str(bound) for bound in LATENCY_BOUNDS), "+Inf"]
    for destination, part in ledger.destinations.items():
        buckets = list(zip(bounds, accumulate(part.latency), strict=True))
        histogram.add_metric((destination,), buckets, part.latency_seconds)
    return histogram


def _worker(reading: Reading) -> Iterator[Metric]:
    gauges = {
        "shards": ("Shards wanted", reading.shards),
        "shards_alive": ("Shards whose receive loop ticks", reading.shards_alive),
        "settings_generation": ("Version of the settings in force; the first is 1", reading.generation),
        "receive_buffer_bytes": ("Receive buffer that the kernel granted, per socket", reading.receive_buffer),
        "balanced": ("1 while the conservation law holds, otherwise 0", int(not imbalances(reading.ledger))),
    }
    for name, (text, value) in gauges.items():
        yield GaugeMetricFamily(f"replayer_{name}", text, value=value)
    yield _counter("config_errors", "Settings that were refused or could not be read", (), {(): reading.config_errors})
