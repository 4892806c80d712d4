"""The lines that an nginx adds to its access log, as they come: each look reads on from where the last one ended."""

import hashlib
from pathlib import Path

from lab.network.nginx import Entry, parse

#: Bytes that one look reads at most. What is behind them comes with the next.
LOOK_MOST = 4 << 20


class Follower:
    """One log that grows. It may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = 0  # lines that are none of this log's, such as the two halves of one that a kill cut
        self._place = 0  # of the first byte that was not read yet
        self._skipping = False  # in a line longer than a look, which was counted as broken

    @property
    def read_so_far(self) -> int:
        """Bytes."""
        return self._place

    @property
    def behind(self) -> int:
        """Bytes that were not read yet; the beginning of a line counts too."""
        return self.path.stat().st_size - self._place if self.path.exists() else 0

    def read(self, most: int = LOOK_MOST) -> list[Entry]:
        """What is new, whole lines only. An empty list: nothing yet."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._place)
            data = file.read(most)
        end = data.rfind(b"\n") + 1
        if not end and len(data) == most:
            self.broken += not self._skipping
            self._skipping = True
            end = most
        self._place += end
        return self._entries(data[:end])

    def _entries(self, data: bytes) -> list[Entry]:
        entries = []
        for line in data.splitlines(keepends=True):
            whole = line.endswith(b"\n")
            if whole and not self._skipping:
                try:
                    entries.append(parse(line))
                except ValueError:
                    self.broken += 1
            elif whole:
                self._skipping = False
        return entries


def intact(entry: Entry) -> bool | None:
    """Whether the body that was kept is the one that the client sent; None where the client did not say."""
    if not entry.sha256:
        return None
    if not entry.body:
        return False
    with open(entry.body, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256


def discard(entry: Entry) -> None:
    """The body goes, if one was kept: they would fill the memory that the sandbox's files are in."""
    if entry.body:
        Path(entry.body).unlink(missing_ok=True)
