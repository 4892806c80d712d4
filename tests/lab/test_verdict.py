"""The verdict sees each kind of fault, and excuses only what may be excused."""

import random
from dataclasses import replace

from lab.clients import exchange
from lab.clients.exchange import Sent
from lab.losses import Lost
from lab.recorder import Reader, Received
from lab.verdict import Verdict, compare

_PORT = 40000


def _connection() -> tuple[list[Sent], list[Received]]:
    """A GET, a POST, three pipelined GETs and a GET on one connection, all answered; and the same as received."""
    chance, reader, place = random.Random(1), Reader(), 0
    sent: list[Sent] = []
    received: list[Received] = []
    for number, make in enumerate((exchange.get, exchange.post, exchange.pipelined, exchange.get)):
        what = make(f"0-{number}", 1448, chance, False)
        for request in what.requests:
            request.start, request.end, request.port, request.status = (
                request.start + place,
                request.end + place,
                _PORT,
                200,
            )
        place += sum(map(len, what.writes))
        sent += what.requests
        received += reader.receive(b"".join(what.writes))
    return sent, received


def _compare(sent: list[Sent], received: list[Received], *lost: Lost) -> Verdict:
    return compare(sent, [request.id for request in sent], received, lost)


def _hole(request: Sent) -> Lost:
    return Lost(request.port, request.nth, request.end - 1, request.end)


def test_all_arrived_unchanged() -> None:
    sent, received = _connection()
    rewritten = [replace(entry, headers=(*entry.headers, ("X-Forwarded-For", "10.0.0.1"))) for entry in received]

    assert _compare(sent, rewritten).faults() == {}


def test_what_is_missing_is_a_fault_unless_it_was_touched() -> None:
    sent, received = _connection()
    without = [*received[:1], *received[2:]]

    assert _compare(sent, without).faults() == {"missing": [sent[1].id]}
    assert _compare(sent, without, _hole(sent[1])).faults() == {}
    assert _compare(sent, without, _hole(sent[0])).faults() == {"missing": [sent[1].id], "torn": [sent[0].id]}
    assert _compare(sent, without, replace(_hole(sent[1]), nth=1)).faults() == {"missing": [sent[1].id]}


def test_pipelined_requests_behind_a_touched_one_are_excused_and_single_ones_are_not() -> None:
    sent, received = _connection()
    pipelined = [request for request in sent if request.together > 1]

    verdict = _compare(sent, [received[0], received[-1]], _hole(sent[1]))
    assert (verdict.faults(), verdict.behind) == ({}, len(pipelined))
    verdict = _compare(sent, [received[0]], _hole(sent[1]))
    assert verdict.faults() == {"missing": [sent[-1].id]}


def test_a_touched_request_must_not_arrive() -> None:
    sent, received = _connection()

    assert _compare(sent, received, _hole(sent[1])).faults() == {"torn": [sent[1].id]}


def test_what_arrives_twice_or_was_never_sent_is_a_fault() -> None:
    sent, received = _connection()
    decoy = Received("GET", "/decoy", (("X-Lab-Id", "decoy"),))

    assert _compare(sent, [*received, received[0]]).faults() == {"repeated": [sent[0].id]}
    assert _compare(sent, [*received, decoy]).faults() == {"invented": ["GET /decoy"]}


def test_every_change_is_a_fault() -> None:
    sent, received = _connection()
    post = received[1]
    changes = (
        replace(post, method="GET"),
        replace(post, target=post.target + "x"),
        replace(post, sha256="0" * 64),
        replace(post, length=post.length + 1),
        replace(post, headers=post.headers[::-1]),
        replace(
            post,
            headers=tuple((name.lower(), value) if name == "Cookie" else (name, value) for name, value in post.headers),
        ),
        replace(post, headers=tuple(header for header in post.headers if header[0] != "Cookie")),
    )
    kinds = [_compare(sent, [received[0], change, *received[2:]]).faults() for change in changes]

    assert kinds == [{"altered": [sent[1].id]}] * len(changes)


def test_what_production_did_not_answer_proves_nothing() -> None:
    sent, received = _connection()
    sent[0].status = 0

    assert _compare(sent, received).faults() == {"unanswered": [sent[0].id]}
    assert compare(sent[1:], [request.id for request in sent], received[1:], ()).faults() == {
        "unanswered": [sent[0].id]
    }


def test_what_the_recorder_could_not_read_is_a_fault() -> None:
    sent, received = _connection()

    assert _compare(sent, [*received, Received(fault="no request line")]).faults() == {
        "faults_of_framing": ["no request line"]
    }
