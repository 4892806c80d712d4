"""`replayer check`: would `run` work? One line an answer: can we listen, and is each destination there.

Only `OK` and `WARNING` let it pass. Nothing is sent to a destination but one HEAD (or GET) request for its prefix.
"""

import datetime
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from http.client import HTTPException
from typing import TextIO
from urllib.parse import urljoin, urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from replayer.replay import tls_context
from replayer.settings import Destination, Settings, host_and_port, split_address
from replayer.steering import effective_buffer, wish_buffer

_CONNECT_TIMEOUT = 3.0
_ANSWER_TIMEOUT = 5.0
_NOT_IMPLEMENTED = (405, 501)
_SOON = 14 * 86_400.0


class Outcome(StrEnum):
    """What an answer means for `run`."""

    OK = "✓"
    WARNING = "!"
    FAILED = "✗"


@dataclass(frozen=True, slots=True)
class Answer:
    """One line of the check."""

    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a destination answered."""

    status: int
    location: str | None
    certificate: str  # until when it is valid; empty without a verified one


def check(settings: Settings, out: TextIO) -> int:
    """Print every answer; 0 if `run` can work, 2 if something stands in the way."""
    words = {} if out.isatty() else {Outcome.OK: "ok  ", Outcome.WARNING: "warn", Outcome.FAILED: "FAIL"}
    failed = False
    for answer in answers(settings):
        print(words.get(answer.outcome, answer.outcome), answer.text, file=out, flush=True)
        failed |= answer.outcome is Outcome.FAILED
    return 2 if failed else 0


def answers(settings: Settings) -> Iterator[Answer]:
    """All answers for these settings, each when it is known."""
    yield Answer(Outcome.OK, f"settings are valid: {len(settings.destinations)} destination(s)")
    yield from listening(settings)
    yield receive_buffer(settings.receive_buffer)
    for destination in settings.destinations:
        yield from reach(destination)


def listening(settings: Settings) -> Iterator[Answer]:
    """Are the ports free that `run` binds?"""
    udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
    yield _free("vxlan_port", udp, settings.listen, settings.vxlan_port)
    if settings.geneve_port is not None:
        yield _free("geneve_port", udp, settings.listen, settings.geneve_port)
    yield _free("health_address", tcp, *split_address(settings.health_address))
    yield _free("admin_address", tcp, *split_address(settings.admin_address))


def _free(setting: str, kind: socket.SocketKind, host: str, port: int) -> Answer:
    protocol = "UDP" if kind is socket.SOCK_DGRAM else "TCP"
    place = f"{setting}: {protocol} {_join(host, port)}"
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as listener:
            if kind is socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may linger
            listener.bind(address)
    except OSError as error:
        letter = protocol[0].lower()
        remedy = f"`ss -{letter}lnp 'sport = :{port}'` shows who has it, if it is taken"
        return Answer(Outcome.FAILED, f"{place} cannot be bound: {error.strerror}; {remedy}")
    return Answer(Outcome.OK, f"{place} is free")


def receive_buffer(wished: int) -> Answer:
    """Does the kernel grant the wished receive buffer?"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        wish_buffer(probe, wished)
        granted = effective_buffer(probe)
    if granted >= wished:
        return Answer(Outcome.OK, f"receive_buffer: the kernel grants {granted:,} bytes")
    remedy = f"bursts may be lost: sysctl -w net.core.rmem_max={wished}"
    return Answer(Outcome.WARNING, f"receive_buffer: the kernel grants {granted:,} of {wished:,} bytes; {remedy}")


def reach(destination: Destination) -> Iterator[Answer]:
    """Is the destination resolvable, reachable, its TLS good, and is it what answers?"""
    url = destination.url
    host, port = host_and_port(url)
    try:
        addresses = addresses_of(host, port)
    except OSError as error:
        yield Answer(
            Outcome.FAILED, f"{url}: {host} cannot be resolved: {error.strerror}; correct the name, or its DNS"
        )
        return
    yield Answer(Outcome.OK, f"{url}: {host} is {', '.join(addresses)}")
    refused = {address: why for address in addresses if (why := _refusal(address, port))}
    for address, why in refused.items():
        outcome = Outcome.FAILED if len(refused) == len(addresses) else Outcome.WARNING
        remedy = "is it up, and do its firewall or security group allow this machine?"
        yield Answer(outcome, f"{url}: {_join(address, port)} is not reachable: {why}; {remedy}")
    if len(refused) < len(addresses):
        yield Answer(
            Outcome.OK, f"{url}: {len(addresses) - len(refused)} of {len(addresses)} addresses accept connections"
        )
        yield from _ask(destination)


def obstacle(destination: Destination) -> str:
    """Why no connection to the destination is possible; empty if one is. Nothing is sent."""
    host, port = host_and_port(destination.url)
    try:
        refused = [_refusal(address, port) for address in addresses_of(host, port)]
    except OSError as error:
        return f"{host} cannot be resolved: {error.strerror}"
    return f"{_join(host, port)} is not reachable: {refused[0]}" if all(refused) else ""


def addresses_of(host: str, port: int) -> list[str]:
    """All addresses of a name, each once. Raises OSError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label of more than 63 characters
        raise OSError(0, "this is no host name") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _refusal(address: str, port: int) -> str:
    """Why a connection to the address fails; empty if it does not."""
    try:
        socket.create_connection((address, port), timeout=_CONNECT_TIMEOUT).close()
    except TimeoutError:
        return f"no answer within {_CONNECT_TIMEOUT:g} s"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _ask(destination: Destination) -> Iterator[Answer]:
    """TLS and the answer to one request for the prefix."""
    url = destination.url
    try:
        reply = _request(destination, "HEAD")
        if reply.status in _NOT_IMPLEMENTED:
            reply = _request(destination, "GET")
    except ssl.SSLError as error:
        yield Answer(Outcome.FAILED, f"{url}: {_tls_fault(error)}")
        return
    except (OSError, HTTPException, HTTPError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        remedy = "is this the right port and scheme?"
        yield Answer(Outcome.FAILED, f"{url}: connected, but no HTTP answer: {why}; {remedy}")
        return
    if url.startswith("https:"):
        yield _tls(url, reply.certificate)
    yield _redirect(url, reply.status, reply.location)


def _request(destination: Destination, method: str) -> _Reply:
    """Ask for the prefix over a connection of its own; the answer's body stays unread."""
    parts = urlsplit(destination.url)
    host, port = host_and_port(destination.url)
    connection: HTTPConnection
    context = tls_context(destination)
    if context is not None:
        connection = HTTPSConnection(host, port, timeout=_ANSWER_TIMEOUT, ssl_context=context)
    else:
        connection = HTTPConnection(host, port, timeout=_ANSWER_TIMEOUT)
    with closing(connection):
        connection.connect()
        channel = connection.sock
        certificate = (channel.getpeercert() if isinstance(channel, ssl.SSLSocket) else None) or {}
        connection.request(method, parts.path or "/", preload_content=False)
        with closing(connection.getresponse()) as response:
            return _Reply(response.status, response.headers.get("Location"), str(certificate.get("notAfter", "")))


def _tls(url: str, until: str) -> Answer:
    if not until:
        return Answer(Outcome.WARNING, f"{url}: TLS works, but its certificate is not verified (tls_verify: false)")
    end = datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(until), datetime.UTC)
    left = end - datetime.datetime.now(datetime.UTC)
    outcome = Outcome.WARNING if left.total_seconds() < _SOON else Outcome.OK
    return Answer(outcome, f"{url}: TLS is good, its certificate valid until {end:%Y-%m-%d} ({left.days} days)")


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "correct the certificate or the url, trust its issuer on this machine, or say tls_verify: false"
        return f"the certificate is not accepted: {error.verify_message.rstrip('.')}; {remedy}"
    return f"TLS fails: {error.reason or error}; does this port speak TLS? if not, write http://"


def _redirect(url: str, status: int, location: str | None) -> Answer:
    if 300 <= status < 400 and location:
        target = urljoin(url, location)
        if _origin(target) != _origin(url):
            return Answer(
                Outcome.FAILED, f"{url}: redirects to {target}: redirects are not followed; write that address as url"
            )
        return Answer(Outcome.OK, f"{url}: answers {status}, a redirect within itself to {target}")
    if status >= 500:
        return Answer(Outcome.WARNING, f"{url}: answers {status}: the test environment seems to be unwell")
    return Answer(Outcome.OK, f"{url}: answers {status}, no redirect")


def _origin(url: str) -> tuple[str, str, int]:
    return urlsplit(url).scheme, *host_and_port(url)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
