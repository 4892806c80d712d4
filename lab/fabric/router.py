"""The VPC's router: the sandbox's own network namespace, and how other namespaces hang on it.

                       internet (clients)
                          │
    i-… ── eth0   eniN ── router ── nlb ──┐ the load balancer's process
    i-… ── eth0   eniN ──   │             │
                          vxN (mirror)    │
                            └─ nitro ─────┘

Everything is routed, nothing is bridged: an interface has its address alone (/32), its way out is a gateway that is the
same for all (as Calico does it), and the router knows by a host route which device leads to an address. Neighbours are
fixed on both sides, so that no ARP is spoken. What is sent to an address that nobody has is lost without a word, as in
a VPC.

Mirrored packets leave the router through VXLAN devices whose other half, the outer packets, is in `nitro`: it has the
interfaces' addresses too, as the hardware around an instance does.
"""

import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.network.namespaces import NetworkError, await_link, forward, inside, ip, plain_frames, run, settle

#: Names of network namespaces. The router is the sandbox itself; by this name others are put into it.
ROUTER, NITRO, BALANCER, INTERNET = "router", "nitro", "nlb", "internet"

CLIENT_ADDRESS = "198.51.100.1"  # in `internet`; RFC 5737
BALANCER_ADDRESS = "100.64.0.1"  # RFC 6598: in nobody's VPC
ENDPOINT_ADDRESS = "169.254.100.1"  # the router's own, where instances find AWS's endpoints
UNDERLAY_OF_NITRO, UNDERLAY_OF_BALANCER = "169.254.200.1", "169.254.200.2"

VPC_MTU, INTERNET_MTU = 9001, 1500
UNDERLAY_MTU = 9216  # 9,001 bytes of IP, and 14 + 8 + 8 + 20 around them
UNDERLAY = "nlb"  # nitro's device towards the balancer

_GATEWAY = "169.254.1.1"
_GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
_TABLE = 1000  # of routes of a second interface and further ones


@dataclass(frozen=True, slots=True)
class Port:
    """One interface of a namespace. `inner` is its name there, `outer` that of its other end, in the router."""

    namespace: str
    inner: str
    outer: str
    address: str
    mac: str
    mtu: int = VPC_MTU
    index: int = 0


def build() -> None:
    """This thread's namespace becomes the router; nitro, the balancer's namespace and the internet are made.

    Where that was done before, nothing is.
    """
    if Path(f"/run/netns/{ROUTER}").exists():
        return
    settle()
    forward()
    run("sh", "-c", f"ip netns attach {ROUTER} $$")  # the shell is in this thread's namespace
    ip(["link set lo up", f"address add {ENDPOINT_ADDRESS}/32 dev lo", "route add blackhole default"])
    connect(
        [
            Port(BALANCER, "eth0", "nlb", BALANCER_ADDRESS, "02:00:64:40:00:01"),
            Port(INTERNET, "eth0", "internet", CLIENT_ADDRESS, "02:00:c6:33:64:01", INTERNET_MTU),
        ]
    )
    ip([f"netns add {NITRO}"])
    with inside(NITRO):
        settle()
        ip(
            [
                "link set lo up",
                f"link add {UNDERLAY} mtu {UNDERLAY_MTU} type veth peer name nitro netns {BALANCER} mtu {UNDERLAY_MTU}",
                f"address add {UNDERLAY_OF_NITRO}/30 dev {UNDERLAY}",
                f"link set {UNDERLAY} up",
            ]
        )
        plain_frames([UNDERLAY])
    with inside(BALANCER):
        settle()
        ip([f"address add {UNDERLAY_OF_BALANCER}/30 dev nitro", "link set nitro up"])
        plain_frames(["nitro"])
        await_link(["nitro"])
    with inside(NITRO):
        await_link([UNDERLAY])


def connect(ports: Sequence[Port], new: bool = True) -> None:
    """Hang namespaces on the router; `new`: they are made first. Of a namespace that exists, further interfaces.

    All of it, or nothing: an address that somebody has already is refused, whichever VPC it is in.
    """
    namespaces = {port.namespace: [one for one in ports if one.namespace == port.namespace] for port in ports}
    if new:
        ip([f"netns add {namespace}" for namespace in namespaces])
    try:
        _connect(ports, namespaces)
    except BaseException as error:
        _undo(ports, namespaces, new)
        if isinstance(error, NetworkError) and (taken := _taken(ports)):
            text = f"{', '.join(taken)}: another interface has this address; VPCs in the lab must not overlap"
            raise NetworkError(text) from None
        raise


def _connect(ports: Sequence[Port], namespaces: Mapping[str, Sequence[Port]]) -> None:
    ip([line for port in ports for line in _outside(port)])
    plain_frames([port.outer for port in ports])
    for namespace, its in namespaces.items():
        with inside(namespace):
            settle()
            ip(["link set lo up", *(line for port in its for line in _within(port))])
            plain_frames([port.inner for port in its])
            await_link([port.inner for port in its])
    await_link([port.outer for port in ports])


def _taken(ports: Sequence[Port]) -> list[str]:
    """Addresses that lead elsewhere. The kernel's own words are `RTNETLINK answers: File exists`."""
    return [port.address for port in ports if run("ip", "route", "show", f"{port.address}/32")]


def _undo(ports: Sequence[Port], namespaces: Iterable[str], new: bool) -> None:
    """Whatever a call had made when it failed."""
    devices = {name for _, name in socket.if_nameindex()}
    ip([f"link delete {port.outer}" for port in ports if port.outer in devices])
    if new:
        ip([f"netns delete {namespace}" for namespace in namespaces])
        return
    for port in ports:
        with suppress(NetworkError):  # it did not come that far
            ip([f"rule delete from {port.address} lookup {_TABLE + port.index}"], port.namespace)


def disconnect(ports: Sequence[Port]) -> None:
    """Take interfaces away, both ends of each; the namespaces stay."""
    ip([f"link delete {port.outer}" for port in ports])
    for port in ports:
        if port.index:
            ip([f"rule delete from {port.address} lookup {_TABLE + port.index}"], port.namespace)


def remove(ports: Sequence[Port]) -> None:
    """Namespaces in which nothing runs any more, and all interfaces that they have."""
    namespaces = dict.fromkeys(port.namespace for port in ports)
    ip([*(f"link delete {port.outer}" for port in ports), *(f"netns delete {namespace}" for namespace in namespaces)])


def _outside(port: Port) -> list[str]:
    inner = f"name {port.inner} netns {port.namespace} mtu {port.mtu} address {port.mac}"
    return [
        f"link add {port.outer} mtu {port.mtu} address {_GATEWAY_MAC} type veth peer {inner}",
        f"link set {port.outer} up",
        f"neighbour add {port.address} lladdr {port.mac} dev {port.outer} nud permanent",
        f"route add {port.address}/32 dev {port.outer}",
    ]


def _within(port: Port) -> list[str]:
    """Answers leave by the interface that was asked, as on Amazon Linux."""
    way = f"default via {_GATEWAY} dev {port.inner} onlink"
    table = _TABLE + port.index
    routes = [f"rule add from {port.address} lookup {table}", f"route add {way} table {table}"]
    return [
        f"link set {port.inner} up",
        f"address add {port.address}/32 dev {port.inner}",
        f"neighbour add {_GATEWAY} lladdr {_GATEWAY_MAC} dev {port.inner} nud permanent",
        *(routes if port.index else [f"route add {way}"]),
    ]
