import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.cloud.faults import ApiError
from lab.cloud.listing import Resource, matching, page

NAMES = {"name": "Name", "number": "Number"}
THINGS: list[Resource] = [{"Name": "web-1", "Number": 1}, {"Name": "web-2", "Number": 2}, {"Name": "db*", "Number": 1}]


def found(*filters: tuple[str, list[str]]) -> list[str]:
    given = [{"Name": name, "Values": values} for name, values in filters]
    return [thing["Name"] for thing in matching(THINGS, {"Filters": given}, NAMES)]


def code(**parameters: object) -> str:
    with pytest.raises(ApiError) as caught:
        matching(THINGS, parameters, NAMES)
        page(THINGS, parameters, "Thing", lambda thing: thing["Number"])
    return caught.value.code


def test_and_between_filters_or_within_one() -> None:
    assert found() == ["web-1", "web-2", "db*"]
    assert found(("name", ["web-1", "db*"]), ("number", ["1"])) == ["web-1", "db*"]
    assert found(("name", ["web-2"]), ("number", ["1"])) == []
    assert found(("name", [])) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("web-*", ["web-1", "web-2"]),
        ("web-?", ["web-1", "web-2"]),
        ("web?1", ["web-1"]),
        ("WEB-*", []),
        ("db\\*", ["db*"]),
        ("d.*", []),
    ],
)
def test_wildcards(pattern: str, names: list[str]) -> None:
    assert found(("name", [pattern])) == names


def test_what_has_no_such_attribute_is_not_found() -> None:
    assert matching([{}], {"Filters": [{"Name": "name", "Values": ["*"]}]}, NAMES) == []
    assert matching([{}], {"Filters": [{"Name": "name", "Values": ["x"]}]}, NAMES) == []


def test_too_much_or_unknown() -> None:
    assert code(Filters=[{"Name": "colour", "Values": ["x"]}]) == "InvalidParameterValue"
    assert code(Filters=[{"Name": "name", "Values": ["x"]}] * 51) == "FilterLimitExceeded"
    assert code(Filters=[{"Name": "name", "Values": ["x"] * 201}]) == "FilterLimitExceeded"
    assert found(*[("name", ["web-1"] * 200)] * 50) == ["web-1"]


@pytest.mark.parametrize("size", [0, 4, 1001])
def test_a_page_has_5_to_1000(size: int) -> None:
    assert code(MaxResults=size) == "InvalidMaxResults"


@pytest.mark.parametrize("token", ["nonsense", "VGhpbmc6eA==", "T3RoZXI6MQ==", "é"])
def test_a_token_that_is_not_ours(token: str) -> None:
    assert code(NextToken=token) == "InvalidPaginationToken"


@given(st.integers(0, 40), st.integers(5, 12))
def test_pages_hold_each_thing_once(count: int, size: int) -> None:
    things: list[Resource] = [{"Number": number} for number in range(count)]
    seen: list[Resource] = []
    parameters: dict[str, object] = {"MaxResults": size}
    while True:
        shown, token = page(things, parameters, "Thing", lambda thing: thing["Number"])
        assert len(shown) <= size
        seen += shown
        if token is None:
            break
        assert len(shown) == size
        parameters["NextToken"] = token
    assert seen == things


def test_without_a_size_a_page_has_a_thousand() -> None:
    things: list[Resource] = [{"Number": number} for number in range(1001)]
    shown, token = page(things, {}, "Thing", lambda thing: thing["Number"])
    assert len(shown) == 1000 and token is not None
