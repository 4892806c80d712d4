"""What is recorded for machines without namespaces. That it replays without fault, `lab.recording` sees to itself."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lab import fallback, recording
from lab.fallback import NO_BODY, RECORDED, Request
from lab.network.nginx import Entry

_HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
_ENTRIES = st.builds(
    Entry,
    method=st.sampled_from(["GET", "POST", "PUT"]),
    target=st.from_regex(r"/[!-~]{0,20}", fullmatch=True),
    sha256=st.just("") | st.just(NO_BODY) | _HASHES,
)


@given(st.lists(_ENTRIES, max_size=5))
def test_the_list_is_read_as_it_was_written(entries: list[Entry]) -> None:
    text = "".join(recording.line(entry) for entry in entries)

    assert fallback.parse(text) == Counter(
        Request(entry.method, entry.target, entry.sha256 or NO_BODY) for entry in entries
    )


def test_the_recording_has_something_of_everything() -> None:
    requests = fallback.parse((RECORDED / "requests.txt").read_text())
    hashes = {request.sha256 for request in requests}

    assert {request.method for request in requests} == {"GET", "POST", "PUT"}
    assert len(hashes) >= 3
    assert max(requests.values()) == 1
    assert requests.total() > 80


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in Path(RECORDED).iterdir()) < 100_000
