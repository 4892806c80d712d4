"""Rewriting: a framed request as it is sent to a destination.

The head stays byte for byte as it came but for: the target (the destination's path prefix joined, absolute-form made
origin-form), the version (this is an HTTP/1.1 sender), Host (the destination's, unless kept), hop-by-hop fields and
Expect (left out, RFC 9110 §7.6.1), X-Forwarded-For (the client appended), X-Forwarded-Port, -Proto and -Host (set if
absent), the fields in `drop_headers` (left out) and the mark (added). A chunked body goes out as one chunk.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from replayer.decap import endpoints
from replayer.head import LONGEST_NAME, Request
from replayer.settings import Destination, Settings

#: RFC 9110 §7.6.1, and Proxy-Authorization. Transfer-Encoding stays: the body is sent chunked again.
HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"te", b"upgrade"))
_FOR, _PORT, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-port", b"x-forwarded-proto", b"x-forwarded-host"
_FORWARDED = (_FOR, _PORT, _PROTO, _HOST)
#: What a Connection field may nominate and is left out, or must not be, anyway.
_NOT_NOMINATED = HOP_BY_HOP | {b"", b"close", b"host", b"content-length", b"transfer-encoding", *_FORWARDED}
_PLAIN_CONNECTION = frozenset((b"keep-alive", b"Keep-Alive", b"close", b"Close", b""))
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE", b"PROPFIND", b"QUERY"))
_absolute_form = re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*://([^/?#]*)(.*)").fullmatch


@dataclass(slots=True)
class Outgoing:
    """A request for the wire. `lane` is the client's connection: requests of one lane keep their order."""

    lane: bytes
    method: bytes
    head: bytes
    body: bytes | bytearray
    idempotent: bool


class Rewriter:
    """Rewrites for one destination."""

    __slots__ = ("_changed", "_drop", "_forwards_less", "_host", "_keep_host", "_mark", "_mark_name", "_prefix")

    def __init__(self, settings: Settings, destination: Destination) -> None:
        parts = urlsplit(destination.url)
        self._host = b"\r\nHost: " + parts.netloc.encode()
        self._prefix = b" " + parts.path.rstrip("/").encode()
        self._keep_host = destination.keep_host_header
        self._drop = HOP_BY_HOP | {b"expect"} | {name.lower().encode() for name in destination.drop_headers}
        self._forwards_less = not self._drop.isdisjoint(_FORWARDED)
        self._changed = self._drop | {b"host", *_FORWARDED}
        self._mark = b"\r\n%b: 1" % settings.mark_header.encode()
        self._mark_name = settings.mark_header.lower().encode()

    def names(self) -> frozenset[bytes]:
        """The fields that are looked at, in lower case."""
        return self._changed

    def rewrite(self, request: Request) -> Outgoing:
        """The request as it goes to the destination."""
        method, target, parts, names = request.method, request.target, request.parts, request.names
        rest = parts[0][len(method) + len(target) + 10 :]
        host, prefix = b"", self._prefix
        if target[0] != 0x2F:
            host, target = _origin_form(method, target)
            prefix = b" " if target == b"*" else prefix
        out = [method, prefix, target, b" HTTP/1.1", b"", self._mark, rest]
        forwarded = nominates = False
        at = 1
        for name in names:
            if name == b"host":
                host = host or parts[at + 1].strip(b" \t")
                out.append(b"\r\nHost: " + host if self._keep_host else self._host)
            elif name == b"connection":
                nominates = nominates or parts[at + 1].strip(b" \t") not in _PLAIN_CONNECTION
            elif name == b"content-length":
                if names.index(name) == at // 3:  # said twice, it is sent once (RFC 9110 §8.6)
                    out += b"\r\n", parts[at], b":", parts[at + 1].split(b",", 1)[0]
            elif name not in self._drop:
                forwarded = forwarded or name in _FORWARDED
                out += b"\r\n", parts[at], b":", parts[at + 1]
            out.append(parts[at + 2])
            at += 3
        if forwarded or self._forwards_less or len(host) > LONGEST_NAME:
            out[4] = self._forward(request, out, host)
        else:
            out[4] = _forwarded(request.key, host)
        if b"host" not in names:
            out[4] += self._host
        head = b"".join(out)
        if nominates:
            head = self._without_nominated(head, request)
        body = self._chunks(request) if request.chunked else request.body
        return Outgoing(request.key, method, head, body, method in _IDEMPOTENT)

    def _forward(self, request: Request, out: list[bytes], host: bytes) -> bytes:
        """Append the client to the last X-Forwarded-For in `out`; returns the forwarding fields that are absent."""
        client, port = _client(request.key)
        sent = [name for name in request.names if name not in self._drop]
        for at in range(len(out) - 1, 6, -1):
            if out[at].lower() == _FOR:
                value = out[at + 2].rstrip(b" \t")
                out[at + 2] = value + b", " + client if value else b" " + client
                break
        wanted = {_FOR: client, _PORT: port, _PROTO: b"http", _HOST: host}
        absent = (
            (name, value) for name, value in wanted.items() if value and name not in sent and name not in self._drop
        )
        return b"".join(b"\r\n%b: %b" % (name.title(), value) for name, value in absent)

    def _without_nominated(self, head: bytes, request: Request) -> bytes:
        """`head` less the fields that the request's Connection fields nominate, but those that the replay needs."""
        values = zip(request.names, request.parts[2::3], strict=True)
        options = b",".join(value for name, value in values if name == b"connection").split(b",")
        nominated = {option.strip(b" \t").lower() for option in options} - _NOT_NOMINATED - {self._mark_name}
        for name in nominated:
            head = re.sub(rb"(?i)\r\n" + re.escape(name) + rb":[^\r\n]*", b"", head)
        return head

    def _chunks(self, request: Request) -> bytes:
        """A chunked body anew: one chunk, the end, the trailers."""
        lines = request.trailers.splitlines(keepends=True)
        trailers = b"".join(line for line in lines if line.split(b":", 1)[0].lower() not in self._drop)
        size = b"%x\r\n" % len(request.body) if request.body else b""
        return b"".join((size, request.body, b"\r\n" if request.body else b"", b"0\r\n", trailers, b"\r\n"))


@lru_cache(maxsize=16384)
def _client(key: bytes) -> tuple[bytes, bytes]:
    """Of a flow key: the client's address and production's port, as text."""
    found = endpoints(key)
    return found.src.encode(), b"%d" % found.dst_port


@lru_cache(maxsize=16384)
def _forwarded(key: bytes, host: bytes) -> bytes:
    """The forwarding fields of a request that came without any."""
    client, port = _client(key)
    of_host = b"\r\nX-Forwarded-Host: " + host if host else b""
    return b"\r\nX-Forwarded-For: %b\r\nX-Forwarded-Port: %b\r\nX-Forwarded-Proto: http%b" % (client, port, of_host)


def _origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Authority and origin-form of an absolute-form target (RFC 9112 §3.2.2, §3.2.4); an asterisk stays."""
    match = _absolute_form(target)
    if match is None:
        return b"", target
    authority, path = match[1].rpartition(b"@")[2], match[2]
    if not path and method == b"OPTIONS":
        return authority, b"*"
    return authority, path if path.startswith(b"/") else b"/" + path
