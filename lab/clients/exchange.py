"""What a client writes at once, and the requests in it: pure, decided by a seeded generator.

A client that waits for its answers begins each exchange with a new segment, and the kernel cuts what it writes at once
every `mss` bytes. So the exchange knows where segments begin, and bodies hold the text of whole requests - decoys -
exactly there. No server receives a decoy as a request; who sends one on took a body for a request.
"""

import hashlib
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

HOST = "shop.example.com"
DECOYS = (
    b"GET /decoy HTTP/1.1\r\nHost: shop.example.com\r\nX-Lab-Id: decoy\r\n\r\n",
    b"POST /decoy HTTP/1.1\r\nHost: shop.example.com\r\nX-Lab-Id: decoy\r\nContent-Length: 4\r\n\r\nbody",
)

type Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class Sent:
    """One request; `start` and `end` are where its bytes lie in the connection's stream."""

    id: str
    method: str
    target: str
    headers: Headers
    length: int
    sha256: str
    start: int = 0
    end: int = 0
    together: int = 1  # requests written without waiting for answers, this one included
    port: int = 0  # the client's, and how often it was used before
    nth: int = 0
    status: int = 0  # production's answer; 0 = none


@dataclass(slots=True)
class Exchange:
    """Writes, each a segment or more of its own, and the requests in them."""

    writes: list[bytes] = field(default_factory=list)
    requests: list[Sent] = field(default_factory=list)


type Maker = Callable[[str, int, random.Random, bool], Exchange]


def get(name: str, mss: int, chance: random.Random, last: bool) -> Exchange:
    """One GET in one segment."""
    method = "HEAD" if chance.random() < 0.05 else "GET"
    wire, request = _request(name, method, f"/get?id={name}", last)
    return _exchange([wire], [request])


def post(name: str, mss: int, chance: random.Random, last: bool) -> Exchange:
    """A body of one to eight segments with a Content-Length, decoys at the start of each."""
    method = chance.choice(("POST", "POST", "PUT", "PATCH"))
    size = chance.randint(1, 8 * mss)
    return _upload(name, method, size, mss, chance, last)


def large(name: str, mss: int, chance: random.Random, last: bool) -> Exchange:
    """A body of 64 to 256 KiB."""
    return _upload(name, "PUT", chance.randint(1 << 16, 1 << 18), mss, chance, last)


def chunked(name: str, mss: int, chance: random.Random, last: bool) -> Exchange:
    """An upload in chunks: decoys where segments begin, extensions, trailers, chunks that end like the last one."""
    sizes = [chance.randint(1, 3 * mss) for _ in range(chance.randint(1, 4))]
    fillers = [_filler(size, chance) for size in sizes]
    trailer = b"X-Lab-Trailer: 1\r\n" if chance.random() < 0.3 else b""
    extensions = [b";lab=1" if chance.random() < 0.2 else b"" for _ in sizes]
    place = len(_request(name, "POST", f"/upload?id={name}", last, {"Transfer-Encoding": "chunked"}, b"")[0])
    framed, body = bytearray(), bytearray()
    for filler, extension in zip(fillers, extensions, strict=True):
        framed += b"%x%b\r\n" % (len(filler), extension)
        data = _with_decoys(filler, place + len(framed), mss)
        if len(data) > 5 and chance.random() < 0.3:
            data = data[:-5] + b"0\r\n\r\n"
        framed += data + b"\r\n"
        body += data
    framed += b"0\r\n" + trailer + b"\r\n"
    head, request = _request(name, "POST", f"/upload?id={name}", last, {"Transfer-Encoding": "chunked"}, bytes(body))
    return _exchange([head + framed], [request])


def pipelined(name: str, mss: int, chance: random.Random, last: bool) -> Exchange:
    """Two to four requests that do not wait for each other, in one write or in one each."""
    count = chance.randint(2, 4)
    made = [_request(f"{name}.{n}", "GET", f"/get?id={name}.{n}", last and n == count - 1) for n in range(count)]
    wires = [wire for wire, _ in made]
    together = chance.random() < 0.5
    return _exchange([b"".join(wires)] if together else wires, [request for _, request in made])


def pieces(name: str, mss: int, chance: random.Random, last: bool) -> Exchange:
    """A POST in small segments, cut anywhere: inside the request line, names, the blank line."""
    body = _filler(chance.randint(1, 200), chance)
    wire, request = _request(name, "POST", f"/upload?id={name}", last, {"Content-Length": str(len(body))}, body)
    wire += body
    cuts = [0, *sorted(chance.sample(range(1, len(wire)), 3)), len(wire)]
    return _exchange([wire[a:b] for a, b in itertools.pairwise(cuts)], [request])


def _upload(name: str, method: str, size: int, mss: int, chance: random.Random, last: bool) -> Exchange:
    extra = {"Content-Length": str(size)}
    head, _ = _request(name, method, f"/upload?id={name}", last, extra, b"")
    body = _with_decoys(_filler(size, chance), len(head), mss)
    head, request = _request(name, method, f"/upload?id={name}", last, extra, body)
    return _exchange([head + body], [request])


def _request(
    name: str, method: str, target: str, last: bool, extra: dict[str, str] | None = None, body: bytes = b""
) -> tuple[bytes, Sent]:
    digest = hashlib.sha256(body).hexdigest()
    headers = {
        "Host": HOST,
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "aCCept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language": "en-GB,en;q=0.5",
        "Cookie": "session=0f1e2d3c4b5a69788796a5b4c3d2e1f0; theme=dark",
        **(extra or {}),
        **({"Connection": "close"} if last else {}),
        "X-Lab-Id": name,
        "X-Lab-Sha256": digest,
    }
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
    wire = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("ascii")
    return wire, Sent(name, method, target, tuple(headers.items()), len(body), digest, end=len(wire))


def _filler(size: int, chance: random.Random) -> bytes:
    return bytes(size) if chance.random() < 0.1 else chance.randbytes(size)


def _with_decoys(filler: bytes, place: int, mss: int) -> bytes:
    """`filler`, which begins at `place` of the exchange, with a decoy wherever a segment begins in it."""
    body = bytearray(filler)
    for number, start in enumerate(range(-place % mss, len(body), mss)):
        decoy = DECOYS[number % len(DECOYS)]
        if start + len(decoy) <= len(body):
            body[start : start + len(decoy)] = decoy
    return bytes(body)


def _exchange(writes: list[bytes], requests: list[Sent]) -> Exchange:
    """The requests' places: heads lie one after the other, and a body belongs to the only request."""
    place = 0
    for request in requests:
        request.start, request.end, request.together = place, place + request.end, len(requests)
        place = request.end
    requests[-1].end = sum(map(len, writes))
    return Exchange(writes, requests)
