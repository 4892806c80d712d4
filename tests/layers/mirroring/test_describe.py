"""Lists of EC2: how many calls they take, and what is asked in each."""

from typing import Any

import pytest

from mirroring import describe
from mirroring.describe import filtered, listed


class Pages:
    """A client whose lists have one item a page."""

    def __init__(self, *pages: str) -> None:
        self.pages = pages
        self.asked: list[dict[str, Any]] = []

    def describe_vpcs(self, **arguments: Any) -> dict[str, Any]:
        self.asked.append(arguments)
        number = int(arguments.get("NextToken", 0))
        more = {"NextToken": str(number + 1)} if number + 1 < len(self.pages) else {}
        return {"Vpcs": [{"VpcId": self.pages[number]}], **more}

    describe_route_tables = describe_vpcs


def test_a_list_is_all_its_pages() -> None:
    ec2 = Pages("vpc-1", "vpc-2")
    assert [raw["VpcId"] for raw in listed(ec2, "DescribeVpcs", "Vpcs")] == ["vpc-1", "vpc-2"]
    assert ec2.asked == [{"MaxResults": 1000}, {"MaxResults": 1000, "NextToken": "1"}]


def test_a_page_is_no_larger_than_the_operation_takes() -> None:
    ec2 = Pages("rtb-1")
    list(listed(ec2, "DescribeRouteTables", "Vpcs"))
    assert ec2.asked == [{"MaxResults": 100}]


def test_no_value_is_no_call() -> None:
    ec2 = Pages("vpc-1")
    assert list(filtered(ec2, "DescribeVpcs", "Vpcs", "vpc-id", [])) == []
    assert ec2.asked == []


def test_each_value_is_asked_for_once_in_as_few_calls_as_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(describe, "VALUES", 2)
    ec2 = Pages("vpc-1")
    also = [{"Name": "state", "Values": ["available"]}]
    assert len(list(filtered(ec2, "DescribeVpcs", "Vpcs", "vpc-id", ["c", "a", "b", "a"], also))) == 2
    assert [asked["Filters"] for asked in ec2.asked] == [
        [{"Name": "vpc-id", "Values": ["a", "b"]}, *also],
        [{"Name": "vpc-id", "Values": ["c"]}, *also],
    ]
