"""Overlap of filters, by cases and against an oracle that asks the rules packet by packet."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from ipaddress import ip_address, ip_network
from itertools import product, starmap
from time import process_time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirroring.model import Direction, Filter, Rule
from mirroring.shadow import overlap

ANY = "0.0.0.0/0"
TCP, UDP, ICMP = 6, 17, 1


def accept(number: int = 100, **how: Any) -> Rule:
    return replace(Rule(Direction.INGRESS, number, True, ANY, ANY), **how)


def reject(number: int = 10, **how: Any) -> Rule:
    return replace(accept(number, **how), accept=False)


def filters(ours: list[Rule], theirs: list[Rule]) -> tuple[Filter, Filter]:
    return Filter("tmf-ours", tuple(ours)), Filter("tmf-theirs", tuple(theirs))


HTTP = accept(protocol=TCP, destination_ports=(80, 80))


def test_accept_all_in_front_takes_everything() -> None:
    theirs = accept()
    assert overlap(*filters([HTTP], [theirs])) == theirs


def test_the_same_filter_overlaps_itself() -> None:
    assert overlap(*filters([HTTP], [HTTP])) == HTTP


@pytest.mark.parametrize(
    "apart",
    [
        accept(protocol=TCP, destination_ports=(443, 443)),
        accept(protocol=TCP, destination_ports=(81, 65535)),
        accept(protocol=TCP, destination_ports=(0, 79)),
        accept(protocol=UDP, destination_ports=(80, 80)),
        accept(protocol=ICMP),
        accept(direction=Direction.EGRESS),
        accept(source="::/0", destination="::/0"),
    ],
)
def test_rules_apart_do_not_overlap(apart: Rule) -> None:
    assert overlap(*filters([HTTP], [apart])) is None


@pytest.mark.parametrize(
    ("theirs", "meets"),
    [
        ({"source": "10.0.0.0/25"}, True),
        ({"source": "10.0.1.0/24"}, False),
        ({"source": "10.0.0.0/8"}, True),
        ({"destination": "10.9.0.0/16"}, True),
        ({"destination": "10.8.0.0/16"}, False),
        ({"source_ports": (1024, 2000)}, True),
        ({"source_ports": (0, 1023)}, False),
        ({"source_ports": (65535, 65535)}, True),
    ],
)
def test_addresses_and_source_ports(theirs: dict[str, Any], meets: bool) -> None:
    ours = accept(protocol=TCP, source="10.0.0.0/24", destination="10.9.9.9/32", source_ports=(1024, 65535))
    found = overlap(*filters([ours], [accept(**theirs)]))
    assert (found is not None) is meets


def test_ipv6_networks_meet() -> None:
    ours = accept(source="2001:db8::/64", destination="::/0")
    within = accept(source="2001:db8::1/128", destination="2001:db8:1::/48")
    beside = accept(source="2001:db8:0:1::/64", destination="::/0")
    assert overlap(*filters([ours], [within])) == within
    assert overlap(*filters([ours], [beside])) is None


def test_the_same_number_of_both_versions_is_two_addresses() -> None:
    """0.0.0.10 is not ::10."""
    four = accept(source="0.0.0.10/32", destination=ANY)
    six = accept(source="::a/128", destination="::/0")
    assert overlap(*filters([four], [six])) is None


def test_host_bits_of_a_cidr_do_not_matter() -> None:
    theirs = accept(source="10.0.0.77/24")
    assert overlap(*filters([accept(source="10.0.0.1/32")], [theirs])) == theirs


def test_filters_without_rules_accept_nothing() -> None:
    assert overlap(*filters([], [accept()])) is None
    assert overlap(*filters([HTTP], [])) is None


def test_a_reject_of_theirs_in_front_that_covers_the_overlap_removes_it() -> None:
    """They take everything but HTTP, which is left for us."""
    theirs = [reject(10, protocol=TCP, destination_ports=(80, 80)), accept(20)]
    assert overlap(*filters([HTTP], theirs)) is None


def test_a_reject_of_ours_in_front_that_covers_the_overlap_removes_it() -> None:
    """We leave to them what they want."""
    ours = [reject(10, protocol=TCP, destination_ports=(443, 443)), accept(20, protocol=TCP)]
    assert overlap(*filters(ours, [accept(protocol=TCP, destination_ports=(443, 443))])) is None


def test_a_reject_that_covers_only_a_part_does_not() -> None:
    theirs = [reject(10, protocol=TCP, destination_ports=(80, 80), source="10.0.0.0/8"), accept(20)]
    assert overlap(*filters([HTTP], theirs)) == theirs[1]


def test_a_reject_behind_the_accept_comes_too_late() -> None:
    theirs = [accept(10), reject(20)]
    assert overlap(*filters([HTTP], theirs)) == theirs[0]
    assert overlap(*filters([accept(10), reject(20)], [HTTP])) == HTTP


def test_numbers_order_rules_not_their_place_in_the_answer() -> None:
    assert overlap(*filters([HTTP], [accept(20), reject(10)])) is None


def test_a_reject_of_the_other_direction_removes_nothing() -> None:
    theirs = [reject(10, direction=Direction.EGRESS), accept(20)]
    assert overlap(*filters([HTTP], theirs)) == theirs[1]


@pytest.mark.parametrize("dimension", ["source_ports", "destination_ports"])
def test_rejects_cover_together_what_none_covers_alone(dimension: str) -> None:
    """One takes away the lower ports, one the upper: whose is which, and which comes first, does not matter."""
    lower, almost, upper = (reject(10, **{dimension: ports}) for ports in ((0, 999), (0, 998), (1000, 65535)))
    ours, theirs = accept(20, protocol=TCP), accept(20)
    assert overlap(*filters([upper, ours], [lower, theirs])) is None
    assert overlap(*filters([lower, ours], [upper, theirs])) is None
    assert overlap(*filters([almost, ours], [upper, theirs])) == theirs
    assert overlap(*filters([upper, ours], [almost, theirs])) == theirs


def test_a_reject_in_the_middle_leaves_both_sides() -> None:
    theirs = [reject(10, destination_ports=(81, 442)), accept(20, protocol=TCP)]
    for port, taken in ((80, True), (81, False), (442, False), (443, True)):
        assert (overlap(*filters([accept(destination_ports=(port, port))], theirs)) is not None) is taken


def test_the_rule_named_is_the_first_that_takes_packets_of_ours() -> None:
    theirs = [accept(10, protocol=UDP), accept(20, protocol=TCP), accept(30)]
    assert overlap(*filters([HTTP], theirs)) == theirs[1]


def scattered(last: Rule) -> list[Rule]:
    """As many rules as a filter may have: eight rejects that are choosy about everything, then these."""
    holes = [
        reject(
            number,
            protocol=TCP,
            source=f"{number * 16}.0.0.0/8",
            destination=f"{number * 16}.0.0.0/8",
            source_ports=(number * 5000, number * 5000 + 99),
            destination_ports=(number * 5000, number * 5000 + 99),
        )
        for number in range(1, 9)
    ]
    return [*holes, last, accept(100)]


def test_the_hardest_filters_are_decided_in_a_moment() -> None:
    """Measured at 0.01 s of CPU. What is left of a box is cut into pieces that do not meet, else they multiply."""
    before = process_time()
    assert overlap(*filters(scattered(reject(90)), scattered(reject(90)))) is None
    assert overlap(*filters(scattered(reject(90)), scattered(accept(90)))) is None
    assert overlap(*filters(scattered(accept(90)), scattered(accept(90)))) == accept(90)
    assert process_time() - before < 1


# The oracle: packets of a small world, each given to both filters, rule after rule.


@dataclass(frozen=True)
class Packet:
    direction: Direction
    protocol: int
    source: str
    destination: str
    source_port: int
    destination_port: int


#: Both ends of each, and what lies between them. Any rule below cuts the world only at these.
PROTOCOLS = (0, TCP, UDP, 255)
ADDRESSES = {
    4: ("0.0.0.0", "10.0.0.0", "10.0.0.127", "10.0.0.128", "10.0.0.255", "10.0.1.0", "255.255.255.255"),
    6: ("::", "2001:db8::", "2001:db8::ffff", "2001:db8::1:0", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
}
NETWORKS = {
    4: (ANY, "10.0.0.0/24", "10.0.0.0/25", "10.0.0.128/25", "10.0.1.0/32", "0.0.0.0/1", "128.0.0.0/1"),
    6: ("::/0", "2001:db8::/112", "2001:db8::/32", "ffff::/16"),
}
PORTS = (0, 79, 80, 81, 443, 65535)
RANGES = (None, (0, 65535), (0, 79), (80, 80), (80, 443), (81, 65535), (443, 65535), (65535, 65535))


@cache
def within(address: str, network: str) -> bool:
    return ip_address(address) in ip_network(network)


def decides(rule: Rule, packet: Packet) -> bool:
    return (
        rule.direction == packet.direction
        and rule.protocol in (None, packet.protocol)
        and within(packet.source, rule.source)
        and within(packet.destination, rule.destination)
        and (rule.source_ports is None or rule.source_ports[0] <= packet.source_port <= rule.source_ports[1])
        and (
            rule.destination_ports is None
            or rule.destination_ports[0] <= packet.destination_port <= rule.destination_ports[1]
        )
    )


def deciding(rules: tuple[Rule, ...], packet: Packet) -> Rule | None:
    matching = [rule for rule in rules if decides(rule, packet)]
    return min(matching, key=lambda rule: rule.number, default=None)


def accepted(rules: tuple[Rule, ...], packet: Packet) -> bool:
    rule = deciding(rules, packet)
    return rule is not None and rule.accept


def packets(rules: tuple[Rule, ...]) -> Iterator[Packet]:
    """Only where the rules make a difference: one packet of a field in which none of them is choosy is enough."""
    protocols = PROTOCOLS if any(rule.protocol is not None for rule in rules) else PROTOCOLS[:1]
    source_ports = PORTS if any(rule.source_ports for rule in rules) else PORTS[:1]
    destination_ports = PORTS if any(rule.destination_ports for rule in rules) else PORTS[:1]
    for direction in {rule.direction for rule in rules}:
        for version in (4, 6):
            sources = told_apart(version, {rule.source for rule in rules})
            destinations = told_apart(version, {rule.destination for rule in rules})
            yield from starmap(
                partial(Packet, direction), product(protocols, sources, destinations, source_ports, destination_ports)
            )


def told_apart(version: int, networks: set[str]) -> list[str]:
    """One address for each way in which these networks hold it or not."""
    return list({tuple(within(address, one) for one in networks): address for address in ADDRESSES[version]}.values())


@st.composite
def rules(draw: st.DrawFn, most: int = 4) -> tuple[Rule, ...]:
    """Mostly of one direction and version, so that they meet."""
    drawn = []
    for number in range(draw(st.integers(1, most))):
        version = draw(st.sampled_from((4, 4, 4, 6)))
        drawn.append(
            Rule(
                direction=draw(st.sampled_from((Direction.INGRESS, Direction.INGRESS, Direction.EGRESS))),
                number=number,
                accept=draw(st.booleans()),
                source=draw(st.sampled_from(NETWORKS[version])),
                destination=draw(st.sampled_from((NETWORKS[version][0], *NETWORKS[version]))),
                protocol=draw(st.sampled_from((None, None, TCP, UDP))),
                source_ports=draw(st.sampled_from((None, None, None, *RANGES))),
                destination_ports=draw(st.sampled_from(RANGES)),
            )
        )
    return tuple(draw(st.permutations(drawn)))


@settings(max_examples=150)
@given(rules(), rules())
@example((accept(),), (accept(),))
@example((accept(),), (reject(10, source="0.0.0.0/1"), reject(20, source="128.0.0.0/1"), accept(30)))
def test_overlap_agrees_with_the_packets(ours: tuple[Rule, ...], theirs: tuple[Rule, ...]) -> None:
    """A rule is named if and only if some packet is accepted by both, and the rule decides over one of those."""
    found = overlap(Filter("ours", ours), Filter("theirs", theirs))
    both = (packet for packet in packets(ours + theirs) if accepted(ours, packet) and accepted(theirs, packet))
    if found is None:
        assert next(both, None) is None
    else:
        assert any(deciding(theirs, packet) == found for packet in both)


@settings(max_examples=100)
@given(rules(), rules())
def test_what_overlaps_one_way_overlaps_the_other(ours: tuple[Rule, ...], theirs: tuple[Rule, ...]) -> None:
    one, other = Filter("ours", ours), Filter("theirs", theirs)
    assert (overlap(one, other) is None) == (overlap(other, one) is None)
