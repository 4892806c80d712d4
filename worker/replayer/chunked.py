"""The chunked transfer coding (RFC 9112 §7.1): bytes in, the decoded body when the last chunk's end is there.

Chunk extensions are read over, trailers are kept as they came. Lengths are exact, so a hole that lies inside one
chunk's data can be skipped: the next chunk begins at a known byte.
"""

import re

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\x00]*)?\r\n").fullmatch
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\r\n\x00]*\r\n").fullmatch
_LONGEST_LINE = 4096

_SIZE, _DATA, _DATA_END, _TRAILERS, _DONE, _BAD = range(6)


class Chunked:
    """Decodes one body. `keep = False` frees what is decoded and goes on counting only."""

    __slots__ = ("_left", "_line", "_most_trailers", "_phase", "body", "length", "trailers")

    def __init__(self, most_trailers: int) -> None:
        self._phase = _SIZE
        self._left = 0
        self._line = bytearray()
        self._most_trailers = most_trailers
        self.body: bytearray | None = bytearray()
        self.length = 0
        self.trailers = bytearray()

    @property
    def done(self) -> bool:
        """The body is complete."""
        return self._phase == _DONE

    @property
    def bad(self) -> bool:
        """The coding is broken; nothing after it can be trusted."""
        return self._phase == _BAD

    @property
    def announced(self) -> int:
        """The decoded length with all of the chunk that has begun."""
        return self.length + self._left

    def discard(self) -> None:
        """Keep nothing from here on."""
        self.body = None

    def skip(self, lost: int) -> bool:
        """Pass over `lost` bytes that never arrived, if they all lie in one chunk's data."""
        if self._phase != _DATA or lost > self._left:
            return False
        self.discard()
        self._take(lost)
        return True

    def receive(self, data: bytes, at: int) -> int:
        """Decode `data` from `at` on; returns where the body ends, or the length of `data`."""
        size = len(data)
        while at < size and self._phase < _DONE:
            if self._phase == _DATA:
                took = min(self._left, size - at)
                if self.body is not None:
                    self.body += data[at : at + took]
                self._take(took)
                at += took
            else:
                end = data.find(b"\n", at) + 1
                self._line += data[at : end or size]
                at = end or size
                if end:
                    self._end_line(bytes(self._line))
                    self._line.clear()
                elif len(self._line) > _LONGEST_LINE or (self._phase == _DATA_END and len(self._line) > 1):
                    self._phase = _BAD
        return at

    def _take(self, count: int) -> None:
        self.length += count
        self._left -= count
        if not self._left:
            self._phase = _DATA_END

    def _end_line(self, line: bytes) -> None:
        if self._phase == _DATA_END:
            self._phase = _SIZE if line == b"\r\n" else _BAD
        elif self._phase == _SIZE:
            match = _SIZE_LINE(line) if len(line) <= _LONGEST_LINE else None
            if match is None:
                self._phase = _BAD
            else:
                self._left = int(match[1], 16)
                self._phase = _DATA if self._left else _TRAILERS
        elif line == b"\r\n":
            self._phase = _DONE
        else:
            self.trailers += line
            if _TRAILER(line) is None or len(self.trailers) > self._most_trailers:
                self._phase = _BAD
