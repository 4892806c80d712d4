"""Whether a session in front could take packets that ours should get.

EC2 asks the sessions of an interface by ascending number, and the first whose filter accepts a packet gets it: each
packet is mirrored once (https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-sessions.html). Within a
filter, rules of the packet's direction are asked by ascending number, and the first that matches decides; a packet
that none matches is not mirrored.

A rule is a box in five dimensions: protocol, two addresses, two ports. Packets that an accept rule of one filter and
one of the other have in common are a box as well. What reject rules in front of either cut out of it leaves smaller
boxes; if any is left, some packet is accepted by both, and the session in front gets it.

Two readings err on the side of a report: a packet without ports (ICMP) is taken to have any, and whether such traffic
ever flows is not asked. The network service amazon-dns, mirrored irrespective of rules, is not looked at.
"""

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Network, ip_network

from mirroring.model import Direction, Filter, Rule

type _Range = tuple[int, int]  # first and last
type _Box = tuple[_Range, ...]  # protocol, source, destination, source port, destination port

_PROTOCOLS = (0, 255)
_PORTS = (0, 65535)
_IPV6 = 2**32  # where IPv6 begins on the one line on which addresses of both versions lie


def overlap(ours: Filter, theirs: Filter) -> Rule | None:
    """The first accept rule of theirs that decides over a packet which ours would accept, if theirs is in front."""
    return _overlap(ours.rules, theirs.rules)


@lru_cache(maxsize=1024)  # ten thousand interfaces share a few filters
def _overlap(ours: tuple[Rule, ...], theirs: tuple[Rule, ...]) -> Rule | None:
    wanted = _accepting(ours)
    for rule, before in _accepting(theirs):
        for other, before_other in wanted:
            if rule.direction != other.direction:
                continue
            common = _common(_box(rule), _box(other))
            if common and _leaves_any(common, (*before, *before_other)):
                return rule
    return None


def _accepting(rules: tuple[Rule, ...]) -> list[tuple[Rule, tuple[_Box, ...]]]:
    """The accept rules as they are asked, each with the boxes of the reject rules in front of it."""
    found = []
    rejected: dict[Direction, tuple[_Box, ...]] = {Direction.INGRESS: (), Direction.EGRESS: ()}
    for rule in sorted(rules, key=lambda rule: rule.number):
        if rule.accept:
            found.append((rule, rejected[rule.direction]))
        else:
            rejected[rule.direction] += (_box(rule),)
    return found


def _box(rule: Rule) -> _Box:
    return (
        _PROTOCOLS if rule.protocol is None else (rule.protocol, rule.protocol),
        _addresses(rule.source),
        _addresses(rule.destination),
        rule.source_ports or _PORTS,
        rule.destination_ports or _PORTS,
    )


def _addresses(cidr: str) -> _Range:
    network = ip_network(cidr, strict=False)
    start = 0 if isinstance(network, IPv4Network) else _IPV6
    return start + int(network.network_address), start + int(network.broadcast_address)


def _common(one: _Box, other: _Box) -> _Box | None:
    """The packets in both boxes."""
    box = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
    return box if all(first <= last for first, last in box) else None


def _leaves_any(box: _Box, cuts: Sequence[_Box]) -> bool:
    """Whether anything is left of a box after all cuts."""
    for index, cut in enumerate(cuts):
        if _common(box, cut):
            rest = cuts[index + 1 :]
            return any(_leaves_any(piece, rest) for piece in _outside(box, cut))
    return True


def _outside(box: _Box, cut: _Box) -> list[_Box]:
    """What of the box lies outside a cut that meets it, as boxes that do not meet each other."""
    pieces = []
    for axis, ((first, last), (cut_first, cut_last)) in enumerate(zip(box, cut, strict=True)):
        if first < cut_first:
            pieces.append((*box[:axis], (first, cut_first - 1), *box[axis + 1 :]))
        if cut_last < last:
            pieces.append((*box[:axis], (cut_last + 1, last), *box[axis + 1 :]))
        box = (*box[:axis], (max(first, cut_first), min(last, cut_last)), *box[axis + 1 :])
    return pieces
