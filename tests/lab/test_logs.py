"""A log is read once, whole lines only, however it grows."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.logs import Follower, discard, intact
from lab.network.nginx import Entry


def _line(target: str) -> bytes:
    return json.dumps({"method": "GET", "target": target, "status": "200", "id": "", "sha256": "", "body": ""}).encode()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs") / "access.log"


targets = st.text(st.characters(codec="latin-1"), max_size=30)


@given(st.lists(targets, max_size=20), st.lists(st.integers(1, 200), max_size=20), st.integers(200, 600))
def test_every_line_is_read_once_wherever_the_log_is_cut(
    path: Path, drawn: list[str], pieces: list[int], most: int
) -> None:
    path.unlink(missing_ok=True)
    follower, found = Follower(path), []
    assert follower.read() == []
    left = b"".join(_line(target) + b"\n" for target in drawn)
    for piece in (*pieces, len(left)):
        with path.open("ab") as file:
            file.write(left[:piece])
        left = left[piece:]
        found += follower.read(most)
    while follower.behind:
        found += follower.read(most)

    assert [entry.target for entry in found] == drawn
    assert follower.broken == 0


@given(st.lists(st.one_of(st.just(b""), st.binary(max_size=700)), max_size=12), st.integers(150, 300))
def test_rubbish_is_counted_and_passed_over(path: Path, rubbish: list[bytes], most: int) -> None:
    bad = [line.replace(b"\n", b"") + b"?" for line in rubbish]
    path.write_bytes(b"".join(line + b"\n" + _line(f"/{number}") + b"\n" for number, line in enumerate(bad)))
    follower, found = Follower(path), []
    while follower.behind:
        found += follower.read(most)

    assert [entry.target for entry in found] == [f"/{number}" for number in range(len(bad))]
    assert follower.broken == len(bad)


def test_a_look_is_capped_and_the_rest_comes_with_the_next(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes((_line("/") + b"\n") * 10)
    follower = Follower(path)

    assert len(follower.read(len(_line("/")) * 3)) == 2
    assert follower.behind == 8 * (len(_line("/")) + 1)
    assert len(follower.read()) == 8
    assert follower.behind == 0


def test_the_start_of_a_line_waits_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_bytes(_line("/a")[:20])
    follower = Follower(path)
    assert (follower.read(), follower.behind) == ([], 20)

    path.write_bytes(_line("/a") + b"\n")
    assert [entry.target for entry in follower.read()] == ["/a"]


def test_a_body_is_compared_once_and_goes(tmp_path: Path) -> None:
    body = tmp_path / "0000000001"
    body.write_bytes(b"abc")
    right = hashlib.sha256(b"abc").hexdigest()

    assert intact(Entry("POST", "/", "200", "", right, str(body))) is True
    body.write_bytes(b"abd")
    assert intact(Entry("POST", "/", "200", "", right, str(body))) is False
    assert intact(Entry("POST", "/", "200", "", right, "")) is False
    assert intact(Entry("POST", "/", "200", "", "", "")) is None
    for _ in range(2):
        discard(Entry("POST", "/", "200", "", right, str(body)))
        assert not body.exists()
    discard(Entry("GET", "/", "200", "", "", ""))
