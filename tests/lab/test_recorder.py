"""The recorder reads whole, cut anywhere, and refuses what no sender may send."""

import hashlib
import itertools

import pytest

from lab.recorder import Fault, Reader, Received

_GET = b"GET /a?b=c HTTP/1.1\r\nHost: test\r\nX-Case: Kept\r\n\r\n"
_POST = b"POST /p HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\nGET / \r\n\r\n"[:-1]
_CHUNKED = (
    b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;lab=1\r\n0\r\n\r\n\r\nA\r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n"
)


def _sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


_EXPECTED = [
    Received("GET", "/a?b=c", (("Host", "test"), ("X-Case", "Kept")), 0, _sha(b"")),
    Received("POST", "/p", (("Host", "test"), ("Content-Length", "9")), 9, _sha(b"GET / \r\n\r")),
    Received("PUT", "/c", (("Transfer-Encoding", "chunked"),), 15, _sha(b"0\r\n\r\n0123456789")),
    Received("GET", "/a?b=c", (("Host", "test"), ("X-Case", "Kept")), 0, _sha(b"")),
]
_STREAM = _GET + _POST + _CHUNKED + _GET


def test_whole() -> None:
    reader = Reader()

    assert reader.receive(_STREAM) == _EXPECTED
    reader.close()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_cut_anywhere(size: int) -> None:
    reader = Reader()
    found = [reader.receive(_STREAM[at : at + size]) for at in range(0, len(_STREAM), size)]

    assert list(itertools.chain.from_iterable(found)) == _EXPECTED


@pytest.mark.parametrize("end", range(1, len(_CHUNKED)))
def test_a_request_cut_off_is_a_fault(end: int) -> None:
    reader = Reader()

    assert reader.receive(_CHUNKED[:end]) == []
    with pytest.raises(Fault):
        reader.close()


@pytest.mark.parametrize(
    "stream",
    [
        b"garbage\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
        b"x" * 300_000,
    ],
)
def test_what_no_sender_may_send_is_a_fault(stream: bytes) -> None:
    with pytest.raises(Fault):
        Reader().receive(stream)
