"""What the clients sent, what production and the test environment received, and what the mirror path lost: compared.

A request is *touched* when bytes of it were in no datagram that survived. It cannot be replayed, and must not be.
Pipelined requests behind it may be given up, until one that waited for its answer shows where the stream stands.
Every other request arrives once, unchanged.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from lab.clients.exchange import Headers, Sent
from lab.losses import Lost, touches
from lab.recorder import Received

#: What the worker replaces, adds or drops on purpose.
_REWRITTEN = frozenset(
    "host connection transfer-encoding content-length expect x-traffic-replay"
    " x-forwarded-for x-forwarded-port x-forwarded-proto x-forwarded-host".split()
)


@dataclass(slots=True)
class Verdict:
    """Everything that must be empty stands in `faults`; the counts say how much was compared."""

    sent: int = 0
    received: int = 0
    touched: int = 0
    behind: int = 0  # pipelined behind a touched one, untouched, and not received
    missing: list[str] = field(default_factory=list)  # untouched and not received
    repeated: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)  # touched, and received all the same
    invented: list[str] = field(default_factory=list)  # received by the test environment, never by production
    altered: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)  # production did not answer: the run proves nothing
    faults_of_framing: list[str] = field(default_factory=list)  # what the test environment could not read

    def faults(self) -> dict[str, list[str]]:
        """The kinds of fault there were, with what they befell."""
        kinds = ("missing", "repeated", "torn", "invented", "altered", "unanswered", "faults_of_framing")
        return {kind: found for kind in kinds if (found := getattr(self, kind))}


def compare(
    sent: Sequence[Sent], production: Iterable[str], received: Sequence[Received], lost: Iterable[Lost]
) -> Verdict:
    """`production` is the ids of the requests that production answered, as its own log tells them."""
    verdict = Verdict(sent=len(sent), received=len(received))
    answered = Counter(production)
    by_id: dict[str, list[Received]] = defaultdict(list)
    for entry in received:
        if entry.fault:
            verdict.faults_of_framing.append(entry.fault)
        else:
            by_id[dict(entry.headers).get("X-Lab-Id", "")].append(entry)
    touched, excused = _touched(sent, lost)
    verdict.touched = len(touched)
    for request in sent:
        copies = by_id.pop(request.id, [])
        if answered.pop(request.id, 0) != 1 or request.status != 200:
            verdict.unanswered.append(request.id)
        if not copies and request.id not in touched:
            if request.id in excused:
                verdict.behind += 1
            else:
                verdict.missing.append(request.id)
        if copies and request.id in touched:
            verdict.torn.append(request.id)
        if len(copies) > 1:
            verdict.repeated.append(request.id)
        verdict.altered += [request.id for copy in copies if not _same(request, copy)]
    verdict.invented += [f"{copy.method} {copy.target}" for copies in by_id.values() for copy in copies]
    verdict.unanswered += answered
    return verdict


def _touched(sent: Sequence[Sent], lost: Iterable[Lost]) -> tuple[set[str], set[str]]:
    """The ids of the touched requests, and of the pipelined ones behind them."""
    holes: dict[tuple[int, int], list[Lost]] = defaultdict(list)
    for hole in lost:
        holes[hole.port, hole.nth].append(hole)
    touched: set[str] = set()
    excused: set[str] = set()
    unsure: set[tuple[int, int]] = set()  # connections of which a hole, and no single request behind it, was seen
    for request in sent:
        connection = (request.port, request.nth)
        if touches(holes.get(connection, ()), request.start, request.end):
            touched.add(request.id)
            unsure.add(connection)
        elif request.together > 1 and connection in unsure:
            excused.add(request.id)
        else:
            unsure.discard(connection)
    return touched, excused


def _same(request: Sent, copy: Received) -> bool:
    return (request.method, request.target, request.length, request.sha256, _kept(request.headers)) == (
        copy.method,
        copy.target,
        copy.length,
        copy.sha256,
        _kept(copy.headers),
    )


def _kept(headers: Headers) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() not in _REWRITTEN]
