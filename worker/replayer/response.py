"""Framing of HTTP/1.x answers (RFC 9112 §6.3): bytes in, the status of each complete answer out.

One connection carries one exchange at a time, so a reader knows the method that its bytes answer. In the RFC's order:

1. to HEAD, or 1xx, 204, 304: no body. 1xx are interim, the answer follows; 101 is malformed, nobody asked for it.
2. (2xx to CONNECT cannot come: CONNECT is never replayed.)
3. Transfer-Encoding overrules Content-Length; the connection that carried both is not used again.
4. `chunked` last: chunks, then trailers. Another coding last: until the connection closes.
5. a Content-Length that is no number, or two that differ: malformed.
6. Content-Length.
8. otherwise: until the connection closes.

Bodies are skipped, not kept. As RFC 9112 §2.2 and §5.2 allow, a line may end with a bare LF and a folded field is
unfolded. Most answers come whole in one read with a Content-Length: one regular expression frames these, all others
are taken step by step.
"""

import re
from enum import Enum, auto

HEAD_LIMIT = 64 << 10  # bytes of a head, and of trailers
CHUNK_LINE_LIMIT = 4 << 10  # bytes of a chunk's size with its extensions

_VERSION = b"HTTP/1."
_NO_BODY = (204, 304)

# A field that says nothing about framing, told by its first letters; what is left over goes the long way.
_OTHER_FIELDS = (
    rb"(?:[^\x00- CcTt:][^:\n]*+:[^\n]*+\n"
    rb"|[Cc]onnection: [Kk]eep-[Aa]live\r\n"
    rb"|[Cc]ontent-[^Ll:\n][^:\n]*+:[^\n]*+\n"
    rb"|[Cc][^Oo:\n][^:\n]*+:[^\n]*+\n"
    rb"|[Tt][^Rr:\n][^:\n]*+:[^\n]*+\n)*+"
)
_PLAIN_HEAD = re.compile(
    rb"HTTP/1\.1 ((?!204|304)[2-5]\d\d)[ \r][^\n]*+\n"
    + _OTHER_FIELDS
    + rb"[Cc]ontent-[Ll]ength: (\d{1,9}+)\r\n"
    + _OTHER_FIELDS
    + rb"\r\n"
)

_HEAD_END = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.(\d) ([1-9]\d\d)(?:[ \r][^\n]*+)?\n")
_FIELDS = re.compile(rb"(?:[^\x00- :][^:\n]*+:[^\n]*+\n)*+")
_FOLD = re.compile(rb"\r?\n[ \t]+")
_FRAMING = re.compile(rb"^(content-length|transfer-encoding|connection)[ \t]*:([^\n]*)\n", re.IGNORECASE | re.MULTILINE)
_LENGTH = re.compile(rb"\d{1,18}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15}+)[ \t]*+(?:;[^\n]*+|\r)?\n")


class BadResponse(Exception):
    """Bytes that are no HTTP/1.x answer, or one whose length cannot be told."""


class ResponseTooLarge(Exception):
    """An answer beyond the limit, or a head beyond HEAD_LIMIT."""


class _Expect(Enum):
    HEAD = auto()
    BODY = auto()  # `_left` bytes, then the answer is complete
    CHUNK = auto()  # a chunk's size
    CHUNK_BODY = auto()  # `_left` bytes
    CHUNK_END = auto()
    TRAILERS = auto()
    CLOSE = auto()


class ResponseReader:
    """The answers on one connection. Once it raised, or `reusable` is false, it is of no more use."""

    __slots__ = ("_expect", "_held", "_left", "_limit", "_plain_limit", "_read", "_status", "reusable", "started")

    def __init__(self, limit: int) -> None:
        """`limit` is how many bytes of one answer, interim ones included, are read at most."""
        self.reusable = True  # whether the connection may carry another exchange after this answer
        self.started = False  # whether part of an answer was seen
        self._limit = limit
        self._plain_limit = min(limit, HEAD_LIMIT)
        self._restart()

    def receive(self, data: bytes, method: bytes) -> int:
        """The status if `data` completes the answer to a `method` request, else 0.

        Raises BadResponse, ResponseTooLarge.
        """
        if not self.started:
            head = _PLAIN_HEAD.match(data)
            if head is not None and head.end() + int(head[2]) == len(data) <= self._plain_limit and method != b"HEAD":
                return int(head[1])
            self.started = True
        return self._step_by_step(data, method)

    def close(self) -> int:
        """The status if the connection's end completes the answer, else 0."""
        return self._status if self._expect is _Expect.CLOSE else 0

    def _restart(self) -> None:
        self._expect = _Expect.HEAD
        self._status = 0
        self._left = 0
        self._read = 0
        self._held = b""

    def _step_by_step(self, data: bytes, method: bytes) -> int:
        self._read += len(data)
        if self._held:
            data = self._held + data
            self._held = b""
        position = 0
        while position >= 0:
            match self._expect:
                case _Expect.HEAD:
                    position = self._head(data, position, method)
                case _Expect.CHUNK:
                    position = self._chunk(data, position)
                case _Expect.CHUNK_END:
                    position = self._chunk_end(data, position)
                case _Expect.TRAILERS:
                    position = self._trailers(data, position)
                case _:
                    position = self._skip(data, position)
            if self._expect is _Expect.BODY and self._left == 0:
                return self._complete(len(data) - position)
        if self._read > self._limit:
            raise ResponseTooLarge(f"more than {self._limit} bytes")
        return 0

    def _complete(self, surplus: int) -> int:
        if self._read - surplus > self._limit:
            raise ResponseTooLarge(f"more than {self._limit} bytes")
        if surplus:
            self.reusable = False
        status = self._status
        self._restart()
        self.started = False
        return status

    # Each step takes the data and the position it starts at, and returns where the next starts or -1 for "not yet".

    def _hold(self, data: bytes, position: int, limit: int) -> int:
        self._held = data[position:]
        if len(self._held) > limit:
            raise ResponseTooLarge(f"a head, chunk size or trailers of more than {limit} bytes")
        return -1

    def _head(self, data: bytes, position: int, method: bytes) -> int:
        version = data[position : position + len(_VERSION)]
        if not _VERSION.startswith(version):
            raise BadResponse("no HTTP/1.x status line")
        end = _HEAD_END.search(data, position)
        if end is None:
            return self._hold(data, position, HEAD_LIMIT)
        if end.end() - position > HEAD_LIMIT:
            raise ResponseTooLarge(f"a head of more than {HEAD_LIMIT} bytes")
        self._frame(data[position : end.start() + 1], method, self._read - (len(data) - end.end()))
        return end.end()

    def _frame(self, head: bytes, method: bytes, read: int) -> None:
        """Decide what follows the head, of an answer of which `read` bytes came so far."""
        line = _STATUS_LINE.match(head)
        if line is None:
            raise BadResponse("no HTTP/1.x status line")
        self._status = int(line[2])
        length, chunked, closing = _framing(head[line.end() :])
        self.reusable = self.reusable and not closing and line[1] != b"0"
        if self._status == 101:
            raise BadResponse("101 to a request without Upgrade")
        if self._status < 200:
            return
        if method == b"HEAD" or self._status in _NO_BODY:
            self._expect, self._left = _Expect.BODY, 0
        elif chunked is not None:
            self.reusable = self.reusable and chunked and not length
            self._expect = _Expect.CHUNK if chunked else _Expect.CLOSE
        elif length:
            self._expect, self._left = _Expect.BODY, _content_length(length)
            if read + self._left > self._limit:
                raise ResponseTooLarge(f"more than {self._limit} bytes")
        else:
            self.reusable = False
            self._expect = _Expect.CLOSE

    def _skip(self, data: bytes, position: int) -> int:
        if self._expect is _Expect.CLOSE:
            return -1
        taken = min(self._left, len(data) - position)
        self._left -= taken
        if self._left:
            return -1
        if self._expect is _Expect.CHUNK_BODY:
            self._expect = _Expect.CHUNK_END
        return position + taken

    def _chunk(self, data: bytes, position: int) -> int:
        size = _CHUNK.match(data, position)
        if size is None:
            if data.find(b"\n", position) >= 0:
                raise BadResponse("no chunk size where one must stand")
            return self._hold(data, position, CHUNK_LINE_LIMIT)
        if size.end() - position > CHUNK_LINE_LIMIT:
            raise ResponseTooLarge(f"a chunk size of more than {CHUNK_LINE_LIMIT} bytes")
        self._left = int(size[1], 16)
        if self._left > self._limit:
            raise ResponseTooLarge(f"more than {self._limit} bytes")
        self._expect = _Expect.CHUNK_BODY if self._left else _Expect.TRAILERS
        return size.end()

    def _chunk_end(self, data: bytes, position: int) -> int:
        end = data[position : position + 2]
        if end in (b"", b"\r"):
            return self._hold(data, position, 1)
        if end != b"\r\n" and end[:1] != b"\n":
            raise BadResponse("a chunk longer than its size")
        self._expect = _Expect.CHUNK
        return position + (2 if end == b"\r\n" else 1)

    def _trailers(self, data: bytes, position: int) -> int:
        # The line feed before `position` ends the last chunk's line, so an empty line here ends the answer at once.
        fields = _FIELDS.match(data, position)
        start = fields.end() if fields else position
        rest = data[start : start + 2]
        if start - position > HEAD_LIMIT:
            raise ResponseTooLarge(f"trailers of more than {HEAD_LIMIT} bytes")
        if rest == b"\r\n" or rest[:1] == b"\n":
            self._expect, self._left = _Expect.BODY, 0
            return start + (2 if rest == b"\r\n" else 1)
        if rest not in (b"", b"\r") and data.find(b"\n", start) >= 0:
            raise BadResponse("a trailer that is no field")
        return self._hold(data, position, HEAD_LIMIT)


def _framing(fields: bytes) -> tuple[list[bytes], bool | None, bool]:
    """Content-Length's values, whether `chunked` is the last coding (None: no coding), whether it says close."""
    fields = _FOLD.sub(b" ", fields)
    if _FIELDS.fullmatch(fields) is None:
        raise BadResponse("a line of the head that is no field")
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    into = {b"content-length": lengths, b"transfer-encoding": codings, b"connection": options}
    for name, value in _FRAMING.findall(fields):
        into[name.lower()] += [part.strip().lower() for part in value.split(b",")]
    if codings.count(b"chunked") > 1:
        raise BadResponse("chunked twice")
    return lengths, codings[-1] == b"chunked" if codings else None, b"close" in options


def _content_length(values: list[bytes]) -> int:
    if len(set(values)) != 1 or _LENGTH.fullmatch(values[0]) is None:
        raise BadResponse("Content-Length is no number, or two that differ")
    return int(values[0])
