"""Where a session's mirrored packets leave the kernel, and where they have to go."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Route:
    """One session's way. Either `balancer` is set, a load balancer's ARN, or `address`, an interface's; never both."""

    port: int  # UDP port of the session's VXLAN device, and with it the balancer's socket
    session: str
    balancer: str
    address: str
    packet_length: int | None  # bytes of a mirrored packet that are kept; None: all
