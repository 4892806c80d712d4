"""Private addresses: in their block, nobody else's, and given again as late as can be."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cloud.addresses import check_room, following, room, usable, wanted
from lab.cloud.faults import ApiError

BLOCK = "10.9.0.0/28"  # 11 addresses: .4 to .14


def given_one_by_one(block: str, keeps: Sequence[bool]) -> list[str]:
    """Addresses that were given, each kept or given back at once."""
    taken: set[str] = set()
    found: list[str] = []
    for keep in keeps:
        found.append(following(block, taken, found[-1] if found else None))
        assert found[-1] not in taken
        taken |= {found[-1]} if keep else set()
    return found


@given(st.lists(st.booleans(), max_size=11))
def test_an_address_is_in_its_block_and_nobody_elses(keeps: list[bool]) -> None:
    found = given_one_by_one(BLOCK, keeps)
    network = IPv4Network(BLOCK)
    assert all(IPv4Address(one) in network for one in found)
    reserved = {str(network[place]) for place in (0, 1, 2, 3, -1)}
    assert not reserved & set(found)


def test_one_that_was_given_back_comes_last() -> None:
    found = given_one_by_one(BLOCK, [False] * 22)
    assert found[:11] == [f"10.9.0.{number}" for number in range(4, 15)] == found[11:]


def test_a_full_subnet_has_none() -> None:
    taken = given_one_by_one(BLOCK, [True] * 11)
    with pytest.raises(ApiError, match="InsufficientFreeAddressesInSubnet"):
        following(BLOCK, taken, taken[-1])
    check_room(BLOCK, [*taken[1:], "10.9.1.7"], 1)
    with pytest.raises(ApiError, match="request for 2"):
        check_room(BLOCK, taken[1:], 2)


def test_one_can_be_wished_for() -> None:
    assert wanted(BLOCK, [], "10.9.0.7") == "10.9.0.7"
    for address, taken, code in (
        ("10.9.0.7", ["10.9.0.7"], "InvalidIPAddress.InUse"),
        ("10.9.0.3", [], "InvalidParameterValue"),
        ("10.9.0.15", [], "InvalidParameterValue"),
        ("10.9.1.7", [], "InvalidParameterValue"),
        ("ten", [], "InvalidParameterValue"),
    ):
        with pytest.raises(ApiError, match=code):
            wanted(BLOCK, taken, address)


def test_a_block_may_be_named_by_any_of_its_addresses() -> None:
    assert usable("10.9.0.5/28") == usable(BLOCK)


def test_room_is_what_can_still_be_given() -> None:
    assert room(BLOCK, []) == 11
    assert room(BLOCK, ["10.9.0.4", "10.9.0.4", "10.9.0.1", "10.8.0.4"]) == 10
