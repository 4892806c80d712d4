"""The final accounting for people: each equation of the conservation law, spelled out with its numbers."""

from collections.abc import Mapping

from replayer.ledger import DestinationLedger, Ledger, arrived, imbalances

_WIDTH = 44  # of a line's words; its number follows
_DIGITS = 15


def accounting(ledger: Ledger, trouble: Mapping[str, str] | None = None) -> str:
    """The ledger in plain text, with each destination's last trouble; the last line says whether it balances."""
    lines = [
        *_datagrams(ledger),
        *_bytes(ledger),
        *_requests(ledger),
        *(
            line
            for name, part in ledger.destinations.items()
            for line in _destination(name, part, (trouble or {}).get(name, ""))
        ),
        "",
        *_verdict(ledger),
    ]
    return "\n".join(lines)


def _datagrams(ledger: Ledger) -> list[str]:
    return [
        _sum("arrived", arrived(ledger)),
        _term("=", "socket drops", ledger.socket_drops),
        _term("+", "datagrams", ledger.datagrams),
        "",
        _sum("datagrams", ledger.datagrams),
        _term("=", "segments", ledger.segments),
        *_reasons("+", "refused", ledger.refused),
        "",
    ]


def _bytes(ledger: Ledger) -> list[str]:
    return [
        _sum("payload bytes", ledger.payload_bytes),
        _term("=", "in framed requests", ledger.framed_bytes),
        _term("+", "duplicate", ledger.duplicate_bytes),
        *_reasons("+", "passed over", ledger.passed_over_bytes),
        *_reasons("+", "given up", ledger.given_up_bytes),
        _term("+", "held", ledger.held_bytes),
        "",
    ]


def _requests(ledger: Ledger) -> list[str]:
    events = {
        "flows": ledger.flows_opened,
        "flows joined mid-stream": ledger.flows_joined,
        "flows evicted from the full table": ledger.flows_evicted,
        "closed flows forgotten early": ledger.tombstones_evicted,
        "segments truncated": ledger.truncated,
        "holes": ledger.holes,
        "bytes lost on the way here": ledger.lost_bytes,
        "resynchronised": ledger.resynchronised,
        "shard crashes": ledger.crashes,
    }
    return [
        _sum("requests framed", ledger.framed),
        *_reasons(" ", "given up", ledger.given_up),
        *_reasons(" ", "flows passed over", ledger.passed_over_flows),
        *(_term(" ", name, count) for name, count in events.items() if count),
    ]


def _destination(name: str, part: DestinationLedger, trouble: str) -> list[str]:
    notes = {
        "decided singly for want of the key header": part.unkeyed,
        "sent again on another connection": part.retried,
        "connections opened": part.connections,
        "connections that failed": part.connect_failed,
        "name not resolved": part.resolve_failed,
    }
    answers = {f"answered {status}": count for status, count in part.status.items()}
    return [
        "",
        name,
        _sum("framed", part.framed),
        _term("=", "selected", part.selected),
        *_reasons("+", "passed over", part.passed_over),
        "",
        _sum("selected", part.selected),
        _term("=", "replayed", part.replayed),
        *_reasons("+", "failed", part.failed),
        *_reasons("+", "dropped", part.dropped),
        _term("+", "queued", part.queued),
        _term("+", "in flight", part.in_flight),
        *(_term(" ", text, count) for text, count in (answers | notes).items() if count),
        *([f"    last trouble: {trouble}"] if trouble else []),
    ]


def _verdict(ledger: Ledger) -> list[str]:
    return [f"NOT BALANCED: {law}" for law in imbalances(ledger)] or ["balanced: nothing is unaccounted for"]


def _sum(name: str, count: int) -> str:
    return f"{name:<{_WIDTH}}{count:>{_DIGITS},}"


def _term(sign: str, name: str, count: int) -> str:
    return f"  {sign} {name:<{_WIDTH - 4}}{count:>{_DIGITS},}"


def _reasons(sign: str, name: str, counts: Mapping[str, int]) -> list[str]:
    """The term, and below it its reasons with their share, if it has any."""
    shares = [f"      {reason:<{_WIDTH - 6}}{count:>{_DIGITS},}" for reason, count in counts.items() if count]
    total = sum(counts.values())
    return [_term(sign, name, total), *shares] if total or sign != " " else []
