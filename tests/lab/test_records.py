"""Logs that grow become what the tally counts, and rates."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.records import Records
from lab.tally import Answered, Received, Window, tally

NOW = 1000.0


def _log(path: Path, *targets: str, ended: float = NOW, status: str = "200", body: str = "", sha256: str = "") -> None:
    shape = {"method": "GET", "status": status, "id": "", "sha256": sha256, "body": body, "seconds": 0.5}
    with path.open("a") as file:
        file.writelines(json.dumps({**shape, "target": target, "ended": ended}) + "\n" for target in targets)


@pytest.fixture
def gathered(tmp_path: Path) -> Records:
    return _gathered(tmp_path)


def _gathered(tmp_path: Path, **caps: int) -> Records:
    gathered = Records(**caps)
    gathered.watch_production("i-a", tmp_path / "a")
    gathered.watch_production("i-b", tmp_path / "b")
    gathered.watch_test(tmp_path / "test")
    gathered.look()
    return gathered


def test_requests_come_as_the_tally_wants_them(gathered: Records, tmp_path: Path) -> None:
    _log(tmp_path / "a", "/i-a/1/1")
    _log(tmp_path / "b", "/i-b/2/1", status="499")
    gathered.look()
    _log(tmp_path / "test", "/i-a/1/1")
    _log(tmp_path / "a", "/i-a/1/2")
    assert gathered.behind > 0
    gathered.look()
    gathered.look()

    assert gathered.answered == {
        "i-a": [Answered("GET /i-a/1/1", 999.5, 1000.0), Answered("GET /i-a/1/2", 999.5, 1000.0)],
        "i-b": [Answered("GET /i-b/2/1", 999.5, 1000.0, complete=False)],
    }
    assert gathered.received == [Received("GET /i-a/1/1", at=NOW)]
    assert (gathered.behind, gathered.broken, gathered.forgotten) == (0, 0, 0)
    found = tally(gathered.answered, gathered.received, {"i-a": [Window(900)]})
    assert found["i-a"].missing == ["GET /i-a/1/2"]


def test_a_log_is_read_once_however_often_it_is_named(gathered: Records, tmp_path: Path) -> None:
    _log(tmp_path / "a", "/i-a/1/1")
    _log(tmp_path / "test", "/i-a/1/1")
    gathered.look()
    gathered.watch_production("i-a", tmp_path / "a")
    gathered.watch_test(tmp_path / "test")
    gathered.look()

    assert len(gathered.answered["i-a"]) == len(gathered.received) == 1


def test_many_may_look_at_once(gathered: Records, tmp_path: Path) -> None:
    _log(tmp_path / "a", *(f"/i-a/1/{number}" for number in range(2000)))
    with ThreadPoolExecutor(4) as pool:
        for task in [pool.submit(gathered.look) for _ in range(8)]:
            task.result()
        pool.submit(gathered.rates, NOW).result()

    assert [one.name for one in gathered.answered["i-a"]] == [f"GET /i-a/1/{number}" for number in range(2000)]


def test_rates_are_of_late_and_by_instance(gathered: Records, tmp_path: Path) -> None:
    _log(tmp_path / "a", "/i-a/1/old", ended=NOW - 3)
    _log(tmp_path / "a", *(f"/i-a/1/{number}" for number in range(10)))
    _log(tmp_path / "test", *(f"/i-a/1/{number}" for number in range(6)), "/upload/i-b/2/1", "/other/3/1", "/")
    gathered.look()

    rates = gathered.rates(NOW + 1)
    assert (rates["i-a"].production, rates["i-a"].test) == (5.0, 3.0)
    assert (rates["i-b"].production, rates["i-b"].test) == (0.0, 0.5)
    assert rates[""].test == 1.0
    assert all(rate.production == rate.test == 0.0 for rate in gathered.rates(NOW + 2).values())


def test_a_request_that_did_not_get_to_its_end_has_not_arrived(gathered: Records, tmp_path: Path) -> None:
    _log(tmp_path / "test", "/i-a/1/1", status="400")
    gathered.look()

    assert (gathered.received, gathered.cut) == ([], 1)


def test_a_broken_line_is_counted(gathered: Records, tmp_path: Path) -> None:
    (tmp_path / "test").write_text('{"method":\n')
    gathered.look()

    assert gathered.broken == 1


def test_what_is_too_much_is_forgotten_and_counted(tmp_path: Path) -> None:
    gathered = _gathered(tmp_path, most=5)
    for name in ("a", "b", "test"):
        _log(tmp_path / name, "/1", "/2", "/3", "/4")
    gathered.look()
    gathered.look()

    assert sum(map(len, gathered.answered.values())) == 5
    assert len(gathered.received) == 4
    assert gathered.forgotten == 3


def test_a_rate_keeps_no_more_than_it_needs(gathered: Records, tmp_path: Path) -> None:
    """Though nobody asks for it."""
    for second in range(5):
        _log(tmp_path / "a", *(f"/i-a/{second}/{number}" for number in range(10)), ended=NOW + second)
        gathered.look()

    assert len(gathered._lately["i-a"].production) == 20
    assert gathered.rates(NOW + 4)["i-a"].production == 10.0


def test_bodies_go_once_their_lines_were_read_whatever_they_say(gathered: Records, tmp_path: Path) -> None:
    bodies = [tmp_path / f"body-{number}" for number in range(3)]
    for body in bodies:
        body.write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    _log(tmp_path / "test", "/upload/i-a/1/1", body=str(bodies[0]), sha256=digest)
    _log(tmp_path / "test", "/upload/i-a/1/2", body=str(bodies[1]))
    _log(tmp_path / "test", "/upload/i-a/1/3", body=str(bodies[2]), sha256=digest, status="400")
    gathered.look()

    assert [one.intact for one in gathered.received] == [True, None]
    assert not any(body.exists() for body in bodies)
