"""The mirror: the kernel copies packets of the production server's interface into a VXLAN device, as a VPC does.

Ingress only, unless both directions are asked for: requests to the server's port, acknowledgements and closes included.
"""

import json
from dataclasses import dataclass

from lab.network.topology import MIRROR, PROD, WORKER, Network

#: VXLAN's own (RFC 7348), and that of mirror targets: "You must create a UDP listener on port 4789"
#: (https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-targets.html).
VXLAN_PORT = 4789
_DEVICE = "mirror"


@dataclass(frozen=True, slots=True)
class Mirror:
    """One mirror session at production's interface."""

    vni: int = 4242
    port: int = 80
    both: bool = False


def start(network: Network, mirror: Mirror) -> None:
    """From now on the packets are copied to the worker."""
    ends = ("local", MIRROR, "remote", WORKER, "dstport", str(VXLAN_PORT), "dev", "worker")
    vxlan = ("type", "vxlan", "id", str(mirror.vni), *ends, "nolearning")
    network.run("prod", "ip", "link", "add", _DEVICE, "mtu", "9001", *vxlan)
    network.run("prod", "ethtool", "-K", _DEVICE, "tso", "off", "gso", "off", "gro", "off")
    network.run("prod", "ip", "link", "set", _DEVICE, "up")
    network.run("prod", "tc", "qdisc", "add", "dev", "client", "clsact")
    _copy(network, "ingress", ("dst", PROD), ("dport", mirror.port))
    if mirror.both:
        _copy(network, "egress", ("src", PROD), ("sport", mirror.port))


def copied(network: Network) -> int:
    """How many packets the mirror has sent to the worker."""
    (device,) = json.loads(network.run("prod", "ip", "-s", "-j", "link", "show", _DEVICE))
    return int(device["stats64"]["tx"]["packets"])


def _copy(network: Network, direction: str, end: tuple[str, str], port: tuple[str, int]) -> None:
    tcp = ("match", "ip", "protocol", "6", "0xff")
    address = ("match", "ip", end[0], f"{end[1]}/32")
    number = ("match", "ip", port[0], str(port[1]), "0xffff")
    action = ("action", "mirred", "egress", "mirror", "dev", _DEVICE)
    where = ("dev", "client", direction, "protocol", "ip", "prio", "1")
    network.run("prod", "tc", "filter", "add", *where, "u32", *tcp, *address, *number, *action)
