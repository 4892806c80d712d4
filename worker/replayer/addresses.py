"""The addresses of a destination's name, and which of them work.

The name is looked up now and then, and soon again when a lookup or a connection failed. A lookup that fails leaves the
addresses as they are. An address that failed is probed after BACKOFF_MOST seconds at most, so that requests flow within
a second of its return.
"""

import asyncio
import random
import socket
from collections.abc import Callable

from replayer.ledger import DestinationLedger

ADDRESSES_MOST = 64  # of one name
OPENING_MOST = 16  # connections being opened to one address at a time
PROBES_MOST = 8  # the same for an address that failed, while no other works
BACKOFF_LEAST = 0.05
BACKOFF_MOST = 0.5
LOOKUP_EVERY = 30.0
LOOKUP_AGAIN = 1.0  # at least between two lookups, when one or a connection failed


class Address:
    """One address. The pool counts its connections here."""

    __slots__ = ("connections", "failures", "host", "opening", "retry_at")

    def __init__(self, host: str) -> None:
        self.host = host
        self.connections = 0  # all of them, also those being opened
        self.opening = 0
        self.failures = 0  # attempts in a row that failed or still may; 0 while it works
        self.retry_at = 0.0


class Addresses:
    """What the name's last successful lookup answered. Needs a running loop; begins with a lookup.

    After a lookup `changed` is called, with whether an address came that was not there before.
    """

    def __init__(
        self, name: str, port: int, ledger: DestinationLedger, changed: Callable[[bool], None], now: float
    ) -> None:
        self.trouble = ""  # why the last lookup failed; empty once one succeeded
        self._loop = asyncio.get_running_loop()
        self._name = name
        self._port = port
        self._ledger = ledger
        self._changed = changed
        self._by_host: dict[str, Address] = {}
        self._lookup: asyncio.Task[None] | None = None
        self._looked_up = 0.0
        self._lookup_at = 0.0
        self._closed = False
        self._start_lookup(now)

    def __contains__(self, address: Address) -> bool:
        return self._by_host.get(address.host) is address

    def tick(self, now: float) -> None:
        """Look the name up if it is time to."""
        if self._lookup is None and now >= self._lookup_at and not self._closed:
            self._start_lookup(now)

    def close(self) -> None:
        """End the lookup under way, and begin none."""
        self._closed = True
        if self._lookup is not None:
            self._lookup.cancel()

    # Which to connect to.

    def working(self) -> list[Address]:
        """Those that did not fail when last tried."""
        return [address for address in self._by_host.values() if not address.failures]

    def least_used(self) -> Address | None:
        """The working one with the fewest connections, of those that may have one more opened."""
        free = (address for address in self.working() if address.opening < OPENING_MOST)
        return min(free, key=lambda address: address.connections, default=None)

    def due(self, now: float) -> list[Address]:
        """Those that failed and may be tried again."""
        failing = [address for address in self._by_host.values() if address.failures]
        probes = PROBES_MOST if len(failing) == len(self._by_host) else 1
        return [address for address in failing if address.opening < probes and now >= address.retry_at]

    # What came of it.

    def probed(self, address: Address, now: float) -> None:
        """One that failed is being tried: the next time is further off."""
        address.failures += 1
        address.retry_at = now + _backoff(address)

    def succeeded(self, address: Address) -> bool:
        """A connection was opened; whether the address is thereby back."""
        returned, address.failures = address.failures > 0, 0
        return returned

    def failed(self, address: Address, now: float) -> None:
        """A connection could not be opened. Probes have their backoff from `probed`."""
        news = not address.failures
        if news:
            self.probed(address, now)
        if news or not self.working():
            self._lookup_at = min(self._lookup_at, self._looked_up + LOOKUP_AGAIN)

    # Lookups.

    def _start_lookup(self, now: float) -> None:
        self._looked_up = now
        self._lookup_at = now + LOOKUP_EVERY
        self._lookup = self._loop.create_task(self._look_up())

    async def _look_up(self) -> None:
        try:
            entries = await self._loop.getaddrinfo(self._name, self._port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot express
            self._ledger.resolve_failed += 1
            self._lookup_at = self._looked_up + LOOKUP_AGAIN
            self.trouble = f"{self._name}: {error}"
        else:
            self.trouble = ""
            hosts = [str(entry[4][0]) for entry in entries[:ADDRESSES_MOST]]
            random.shuffle(hosts)  # or every shard would begin with the same one
            self._adopt(hosts)
        finally:
            self._lookup = None

    def _adopt(self, hosts: list[str]) -> None:
        known = self._by_host
        self._by_host = {host: known.get(host) or Address(host) for host in hosts}
        self._changed(bool(self._by_host.keys() - known.keys()))


def _backoff(address: Address) -> float:
    return min(BACKOFF_MOST, BACKOFF_LEAST * 2.0 ** min(address.failures, 10))
