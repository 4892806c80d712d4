"""EC2's lists: in pages, and where a filter narrows them, in as many calls as its values need.

An unknown id in a filter is merely absent, where one in an id list fails the call. `tag:` filters are not used: they
are not documented for mirroring's resources.
"""

from collections.abc import Collection, Iterator, Mapping
from itertools import batched
from typing import Any

from mirroring.clients import pages

type Raw = Mapping[str, Any]  # as botocore gives it

PAGE = 1000  # most that EC2 takes; without any, EC2 counts the call against a bucket half as large
VALUES = 200  # of one filter
_SMALLER_PAGES = {"DescribeRouteTables": 100}  # the most that these take


def listed(ec2: Any, operation: str, key: str, filters: Collection[Raw] = ()) -> Iterator[dict[str, Any]]:
    """All of a kind, or those that filters leave."""
    arguments = {"Filters": list(filters)} if filters else {}
    return pages(ec2, operation, key, MaxResults=_SMALLER_PAGES.get(operation, PAGE), **arguments)


def filtered(
    ec2: Any, operation: str, key: str, name: str, values: Collection[str], filters: Collection[Raw] = ()
) -> Iterator[dict[str, Any]]:
    """Those whose field has one of these values: no call at all without a value."""
    for chunk in batched(sorted(set(values)), VALUES, strict=False):
        yield from listed(ec2, operation, key, [{"Name": name, "Values": list(chunk)}, *filters])
