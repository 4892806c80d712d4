"""Answers whole, cut anywhere, damaged; limits; and what real servers say."""

import http.client
import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer.response import CHUNK_LINE_LIMIT, HEAD_LIMIT, BadResponse, ResponseReader, ResponseTooLarge

LIMIT = 1 << 20

# name: (method, the bytes of one answer, status, may the connection be used again)
COMPLETE = {
    "content-length": (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, True),
    "nginx": (
        b"POST",
        b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 06:06:06 GMT\r\nContent-Type: text/html\r\n"
        b'Content-Length: 3\r\nConnection: keep-alive\r\nETag: "5c0-264"\r\nCache-Control: none\r\nTE: x\r\n\r\n404',
        404,
        True,
    ),
    "no body": (b"GET", b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", 500, True),
    "upper case": (b"GET", b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 2\r\n\r\nok", 200, True),
    "no space, no reason": (b"GET", b"HTTP/1.1 200\r\nContent-Length:2\r\n\r\nok", 200, True),
    "space before the colon": (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", 200, True),
    "the same length thrice": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nok",
        200,
        True,
    ),
    "close": (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", 200, False),
    "close among others": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Foo, Close\r\n\r\nok",
        200,
        False,
    ),
    "http/1.0": (b"GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, False),
    "http/1.0 keep-alive": (
        b"GET",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        200,
        False,
    ),
    "head": (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, True),
    "head, chunked": (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, True),
    "head, no length": (b"HEAD", b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", 302, True),
    "204": (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, True),
    "204 with a length": (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, True),
    "304 with a length": (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, True),
    "100 first": (
        b"PUT",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx",
        201,
        True,
    ),
    "many interim": (
        b"GET",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 5 + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
        200,
        True,
    ),
    "chunked": (
        b"GET",
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x;z="q"\r\n0\r\n\r\n45678\r\n0\r\n\r\n',
        200,
        True,
    ),
    "trailers": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n1 \r\nx\r\n00\r\nA: b\r\nContent-Length: \r\n\r\n",
        200,
        True,
    ),
    "chunked overrules a length": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        200,
        False,
    ),
    "folded field": (b"GET", b"HTTP/1.1 200 OK\r\nX: a\r\n b: c\r\nContent-Length:\r\n\t2\r\n\r\nok", 200, True),
    "bare line feeds": (b"GET", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, True),
    "chunks with bare line feeds": (b"GET", b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n2\nok\n0\n\n", 200, True),
    "a length inside a value": (
        b"GET",
        b"HTTP/1.1 200 OK\r\nX: Content-Length: 9\r\nContent-Length: 1\r\n\r\nx",
        200,
        True,
    ),
    "beyond 599": (b"GET", b"HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", 999, True),
}

# the connection's end completes these
CLOSE_DELIMITED = {
    "no length": b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\nhello",
    "http/1.0": b"HTTP/1.0 200 OK\r\n\r\nhello",
    "no body yet": b"HTTP/1.1 200 OK\r\n\r\n",
    "another coding last": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\nContent-Length: 1\r\n\r\nhello",
}

MALFORMED = {
    "another protocol": b"\x15\x03\x01\x00\x02\x02\x28",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "http/2": b"HTTP/2 200\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "lengths that differ": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "lengths that differ in one field": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "length with a sign": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
    "empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "endless length": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n",
    "a line that is no field": b"HTTP/1.1 200 OK\r\nfoo\r\nContent-Length: 0\r\n\r\n",
    "a line of one letter": b"HTTP/1.1 200 OK\r\nC\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    "a fold first": b"HTTP/1.1 200 OK\r\n Content-Length: 0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "no chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
    "empty chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
    "negative chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    "hexadecimal prefix": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n",
    "chunk longer than its size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\noki\r\n",
    "trailer that is no field": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nfoo\r\n\r\n",
}


def feed(reader: ResponseReader, pieces: list[bytes], method: bytes = b"GET") -> int:
    """The status of the one answer in `pieces`, 0 if it is not complete; it may be complete at the last piece only."""
    statuses = [reader.receive(piece, method) for piece in pieces]
    assert not any(statuses[:-1])
    return statuses[-1]


def cut(data: bytes, places: set[int]) -> list[bytes]:
    ends = [*sorted(places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("name", COMPLETE)
def test_whole(name: str) -> None:
    method, data, status, reusable = COMPLETE[name]
    reader = ResponseReader(LIMIT)
    assert reader.receive(data, method) == status
    assert (reader.reusable, reader.started, reader.close()) == (reusable, False, 0)


@pytest.mark.parametrize("name", COMPLETE)
def test_byte_by_byte(name: str) -> None:
    method, data, status, reusable = COMPLETE[name]
    reader = ResponseReader(LIMIT)
    assert feed(reader, [bytes([byte]) for byte in data], method) == status
    assert reader.reusable == reusable


@pytest.mark.parametrize("name", COMPLETE)
def test_every_beginning_is_not_yet(name: str) -> None:
    method, data, _, _ = COMPLETE[name]
    for length in range(1, len(data)):
        reader = ResponseReader(LIMIT)
        assert reader.receive(data[:length], method) == 0
        assert reader.started
        assert reader.close() == 0


@pytest.mark.parametrize("name", COMPLETE)
def test_surplus_makes_the_connection_unusable(name: str) -> None:
    method, data, status, _ = COMPLETE[name]
    reader = ResponseReader(LIMIT)
    assert reader.receive(data + b"H", method) == status
    assert not reader.reusable


@given(st.lists(st.sampled_from([name for name in COMPLETE if COMPLETE[name][3]]), min_size=1, max_size=5), st.data())
def test_one_answer_after_another_cut_anywhere(names: list[str], data: st.DataObject) -> None:
    reader = ResponseReader(LIMIT)
    for name in names:
        method, answer, status, _ = COMPLETE[name]
        places = data.draw(st.sets(st.integers(1, len(answer) - 1), max_size=6))
        assert feed(reader, cut(answer, places), method) == status
        assert reader.reusable
        assert not reader.started


@pytest.mark.parametrize("name", CLOSE_DELIMITED)
def test_close_delimited(name: str) -> None:
    for pieces in ([CLOSE_DELIMITED[name]], cut(CLOSE_DELIMITED[name], {3, 20, 30})):
        reader = ResponseReader(LIMIT)
        assert feed(reader, pieces) == 0
        assert reader.close() == 200
        assert not reader.reusable


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_malformed(name: str, size: int) -> None:
    data = MALFORMED[name]
    reader = ResponseReader(LIMIT)
    with pytest.raises(BadResponse):
        for start in range(0, len(data), size):
            assert reader.receive(data[start : start + size], b"GET") == 0


def outcome(pieces: list[bytes], method: bytes) -> tuple[object, ...]:
    """What becomes of the bytes, however they come: framed after how many bytes, refused, or not yet complete."""
    reader = ResponseReader(LIMIT)
    total = b"".join(pieces)
    seen = 0
    try:
        for piece in pieces:
            seen += len(piece)
            status = reader.receive(piece, method)
            if status:
                return (status, reader.reusable and seen == len(total))
    except (BadResponse, ResponseTooLarge):
        return ("refused",)
    return ("not yet", reader.close())


@st.composite
def damaged(draw: st.DrawFn) -> tuple[bytes, bytes]:
    method, answer, _, _ = COMPLETE[draw(st.sampled_from(sorted(COMPLETE)))]
    data = bytearray(answer)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 2)):
            case 0:
                data[place : place + 1] = draw(st.binary(max_size=3))
            case 1:
                del data[place : place + draw(st.integers(1, 9))]
            case _:
                data[place:place] = draw(
                    st.sampled_from([b"\r\n", b"\n", b":", b" ", b"0", b"\r", b"Content-Length: 1\r\n"])
                )
    return bytes(data), method


@given(damaged(), st.data())
def test_damaged_answers_end_the_same_way_however_they_are_cut(case: tuple[bytes, bytes], data: st.DataObject) -> None:
    answer, method = case
    places = data.draw(st.sets(st.integers(1, max(len(answer) - 1, 1)), max_size=6))
    assert outcome(cut(answer, places), method) == outcome([answer], method)


def test_body_limit() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
    limit = len(head) + 100
    assert ResponseReader(limit).receive(head + bytes(100), b"GET") == 200
    assert feed(ResponseReader(limit), [head, bytes(100)]) == 200
    for pieces in ([head + bytes(100)], [head, bytes(100)]):
        with pytest.raises(ResponseTooLarge):
            feed(ResponseReader(limit - 1), pieces)
    assert ResponseReader(limit - 1).receive(head, b"HEAD") == 200


def test_surplus_is_no_part_of_the_limit() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    assert ResponseReader(len(answer)).receive(answer + bytes(9), b"GET") == 200


@pytest.mark.parametrize(
    ("head", "unit"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
    ids=["close-delimited", "chunked", "interim"],
)
def test_an_endless_answer_meets_the_limit(head: bytes, unit: bytes) -> None:
    reader = ResponseReader(1000)
    assert reader.receive(head, b"GET") == 0
    with pytest.raises(ResponseTooLarge):
        for _ in range(1000):
            assert reader.receive(unit, b"GET") == 0


def test_a_chunk_beyond_the_limit_is_refused_at_its_size() -> None:
    with pytest.raises(ResponseTooLarge):
        ResponseReader(1000).receive(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n", b"GET")


@pytest.mark.parametrize(
    ("before", "endless", "cap"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", HEAD_LIMIT),
        (b"HTTP/1.1 200 OK\r\nX: ", b"yyyyyy", HEAD_LIMIT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"xxxxxx", CHUNK_LINE_LIMIT),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", HEAD_LIMIT),
    ],
    ids=["head", "field", "chunk extension", "trailers"],
)
def test_caps_of_what_is_held(before: bytes, endless: bytes, cap: int) -> None:
    end = b"\r\nx\r\n0\r\n\r\n" if cap == CHUNK_LINE_LIMIT else b"\r\n\r\n"
    for repeats in (10, cap // 6):
        reader = ResponseReader(LIMIT)
        with pytest.raises(ResponseTooLarge):
            assert reader.receive(before, b"GET") == 0
            for _ in range(cap // (6 * repeats) + 1):
                assert reader.receive(endless * repeats, b"GET") == 0
    with pytest.raises(ResponseTooLarge):
        ResponseReader(LIMIT).receive(before + endless * (cap // 6 + 1) + end, b"GET")


# Real servers.


def ask(address: tuple[str, int], request: bytes) -> bytes:
    """All that the server sends until it closes."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class Handler(http.server.SimpleHTTPRequestHandler):
    """Python's own server, with a chunked answer besides."""

    def do_POST(self) -> None:
        self.protocol_version = "HTTP/1.1"
        self.send_response_only(100)
        self.end_headers()
        self.send_response(201)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")

    def log_message(self, *args: object) -> None:
        return


@contextmanager
def python_server(directory: Path) -> Iterator[tuple[str, int]]:
    def handler(*args: object) -> Handler:
        return Handler(*args, directory=str(directory))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield ("127.0.0.1", server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def nginx(directory: Path) -> Iterator[tuple[str, int]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = directory / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(
        f"{user} daemon off; pid {directory}/pid; error_log stderr error; events {{}} http {{ access_log off;"
        f" client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;"
        f" uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;"
        f" gzip on; gzip_min_length 1; server {{ listen 127.0.0.1:{port}; root {directory};"
        " location = /moved { return 302 /; } location = /none { return 204; } } }"
    )
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert program is not None, "nginx is missing"
    process = subprocess.Popen(
        [program, "-p", str(directory), "-c", str(configuration)], stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(("127.0.0.1", port), process)
        yield ("127.0.0.1", port)
    finally:
        process.terminate()
        process.communicate()


def wait_for(address: tuple[str, int], process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(address, timeout=1).close()
            return
        except ConnectionRefusedError:
            continue
    raise AssertionError(process.communicate()[1])


@pytest.fixture(params=[python_server, nginx], ids=["http.server", "nginx"], scope="module")
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    server: Callable[[Path], Iterator[tuple[str, int]]] = request.param
    directory = tmp_path_factory.mktemp("www")
    directory.chmod(0o755)
    (directory / "page.html").write_text("<p>hello</p>" * 100)
    with server(directory) as address:  # type: ignore[attr-defined]
        yield address


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/page.html", "/lacking", "/moved", "/none"])
@pytest.mark.parametrize("field", ["X: y", "Accept-Encoding: gzip", "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT"])
def test_real_answers_as_another_client_reads_them(real: tuple[str, int], method: str, path: str, field: str) -> None:
    request = f"{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{field}\r\n\r\n".encode()
    answer = ask(real, request)
    oracle = http.client.HTTPConnection(*real, timeout=10)
    name, value = field.split(": ", 1)
    oracle.request(method, path, headers={"Connection": "close", name: value})
    expected = oracle.getresponse().status
    oracle.close()
    for pieces in ([answer], cut(answer, set(range(1, len(answer))))):
        reader = ResponseReader(LIMIT)
        statuses = [status for piece in pieces if (status := reader.receive(piece, method.encode()))]
        assert statuses or [reader.close()] == [expected]
        assert statuses in ([], [expected])
        assert not reader.started or reader.close() == expected


def test_real_keep_alive_answers(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("hello")
    tmp_path.chmod(0o755)
    with nginx(tmp_path) as address, socket.create_connection(address, timeout=10) as connection:
        reader = ResponseReader(LIMIT)
        for method in (b"GET", b"HEAD", b"GET"):
            connection.sendall(method + b" /page.html HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
            status = 0
            while not status:
                data = connection.recv(65536)
                assert data
                status = reader.receive(data, method)
            assert (status, reader.reusable) == (200, True)
