"""Where there are no namespaces: the recorded packets arrive, and what does not is told."""

import io
import shutil
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from lab import fallback
from lab.fallback import NO_BODY, RECORDED, Request, Result

_A, _B = Request("GET", "/a", NO_BODY), Request("POST", "/b", "0" * 64)


def _shown(result: Result) -> str:
    console = Console(file=io.StringIO(), width=200)
    fallback.show(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_what_was_recorded_arrives() -> None:
    result = fallback.run()

    assert result.complaints() == []
    assert result.sent == result.received
    assert {"GET", "POST"} <= {request.method for request in result.sent}
    assert any(request.sha256 != NO_BODY for request in result.sent)
    assert "PASS" in _shown(result)


def test_another_capture_than_the_list_is_a_fail(tmp_path: Path) -> None:
    shutil.copy(RECORDED / "requests.pcap.gz", tmp_path)
    line, *rest = (RECORDED / "requests.txt").read_text().splitlines()
    (tmp_path / "requests.txt").write_text("".join(f"{text}\n" for text in ["GET /never -", *rest]))

    complaints = "; ".join(fallback.run(tmp_path).complaints())

    assert "1 missing, such as GET /never" in complaints
    assert f"1 too many, such as {' '.join(line.split()[:2])}" in complaints


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (Result(Counter([_A, _B]), Counter([_A]), [], 0, ""), "1 missing, such as POST /b"),
        (Result(Counter([_A]), Counter([_A, _A]), [], 0, ""), "1 too many, such as GET /a"),
        (Result(Counter([_A]), Counter([_A]), ["no header"], 0, ""), "could not read 1: no header"),
        (Result(Counter(), Counter(), [], 0, ""), "nothing was sent"),
        (Result(Counter([_A]), Counter([_A]), [], 2, "out of reach"), "exit code 2"),
        (Result(Counter([_A]), Counter([_A]), [], None, "sending"), "did not come to its end"),
    ],
)
def test_a_fail_says_why(result: Result, words: str) -> None:
    shown = _shown(result)

    assert "FAIL" in shown
    assert words in shown
    assert result.output in shown


def test_a_replay_that_does_not_end_is_ended() -> None:
    complaints = fallback.run(seconds=0).complaints()

    assert "replayer replay did not come to its end" in complaints
    assert any("missing" in text for text in complaints)


def test_a_list_is_read() -> None:
    assert fallback.parse(f"GET /a -\nPOST /b {'0' * 64}\nGET /a -\n") == Counter({_A: 2, _B: 1})
