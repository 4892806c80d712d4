"""Private addresses of a subnet: which are to be had, and which is next.

The first four and the last of a block are AWS's: https://docs.aws.amazon.com/vpc/latest/userguide/subnet-sizing.html
An address that was given back is used again as late as can be, so that nothing meant for its last owner finds the next.
"""

from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network
from itertools import chain

from lab.cloud.faults import ApiError

_RESERVED = 4


def usable(block: str) -> range:
    """As numbers."""
    network = IPv4Network(block, strict=False)
    first = int(network.network_address)
    return range(first + _RESERVED, first + network.num_addresses - 1)


def room(block: str, taken: Collection[str]) -> int:
    """How many more could be had."""
    numbers = usable(block)
    return len(numbers) - sum(int(IPv4Address(one)) in numbers for one in set(taken))


def check_room(block: str, taken: Collection[str], n: int) -> None:
    """Whether `n` more could be had."""
    if room(block, taken) < n:
        text = f"There are not enough free addresses in the subnet {block} to satisfy the request for {n}."
        raise ApiError("InsufficientFreeAddressesInSubnet", text)


def following(block: str, taken: Collection[str], last: str | None) -> str:
    """The next free one after `last`, which was the last that anybody got."""
    check_room(block, taken, 1)
    numbers, used = usable(block), {int(IPv4Address(one)) for one in taken}
    start = int(IPv4Address(last)) + 1 if last else numbers.start
    around = chain(range(max(start, numbers.start), numbers.stop), numbers)
    return str(IPv4Address(next(number for number in around if number not in used)))


def wanted(block: str, taken: Collection[str], address: str) -> str:
    """This one."""
    try:
        number = int(IPv4Address(address))
    except ValueError:
        raise ApiError("InvalidParameterValue", f"Value ({address}) for parameter address is invalid.") from None
    if number not in usable(block):
        text = f"Address {address} does not fall within the subnet's address range {block}, or is reserved."
        raise ApiError("InvalidParameterValue", text)
    if address in taken:
        raise ApiError("InvalidIPAddress.InUse", f"The specified address {address} is already in use.")
    return address
