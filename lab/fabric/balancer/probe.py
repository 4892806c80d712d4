"""One health check, really made over the network from the balancer's own address."""

import asyncio
import os
from contextlib import suppress

from lab.fabric.balancer.checks import Settings, verdict
from lab.fabric.balancer.table import Target
from lab.network.mirror import VXLAN_PORT

_CLOSED_WITHIN = 1.0


async def probe(target: Target, settings: Settings) -> str:
    """What is wrong with the target; empty when nothing is."""
    if settings.protocol not in ("TCP", "HTTP"):
        return f"the lab makes no {settings.protocol} checks; use HTTP or TCP"
    try:
        async with asyncio.timeout(settings.timeout):
            return await _ask(target, settings)
    except TimeoutError:
        return f"no answer within {settings.timeout:g} s"
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)  # asyncio's own words name the address


async def _ask(target: Target, settings: Settings) -> str:
    reader, writer = await asyncio.open_connection(target.address, settings.port or target.port)
    try:
        if settings.protocol == "TCP":
            return ""
        own: str = writer.get_extra_info("sockname")[0]
        # the Host header names the listener (target-group-health-checks.html)
        head = f"GET {settings.path} HTTP/1.1\r\nHost: {own}:{VXLAN_PORT}\r\nUser-Agent: ELB-HealthChecker/2.0\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        try:
            return verdict(await reader.readline(), settings.codes)
        except ValueError:  # a line longer than a StreamReader takes
            return verdict(b"", settings.codes)
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), _CLOSED_WITHIN)
