"""Describe calls: ids, filters and pages over resources in the order of their birth.

Filters: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html (AND between filters, OR within one,
case matters, `*` and `?` are wildcards, `\\` escapes; at most 50 filters and 200 values each).
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lab.cloud.faults import ApiError, Parameters

type Resource = dict[str, Any]

MOST_FILTERS = 50
MOST_VALUES = 200
PAGE = 1000
MAX_RESULTS = range(5, PAGE + 1)


def matching(resources: Iterable[Resource], parameters: Parameters, names: Mapping[str, str]) -> list[Resource]:
    """Those that the request's `Filters` let pass; `names` maps a filter's name to the resource's attribute."""
    filters = parameters.get("Filters") or []
    if len(filters) > MOST_FILTERS or any(len(item.get("Values", ())) > MOST_VALUES for item in filters):
        raise ApiError("FilterLimitExceeded", "The request uses too many filters or too many filter values.")
    tests = [_test(item, names) for item in filters]
    return [resource for resource in resources if all(test(resource) for test in tests)]


def _test(item: Mapping[str, Any], names: Mapping[str, str]) -> Callable[[Resource], bool]:
    name, values = item.get("Name", ""), item.get("Values", ())
    if name not in names:
        raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")
    attribute = names[name]
    if any(character in value for value in values for character in "*?\\"):
        pattern = re.compile("|".join(_wildcards(value) for value in values))
        return lambda resource: attribute in resource and pattern.fullmatch(str(resource[attribute])) is not None
    wanted = frozenset(values)
    return lambda resource: attribute in resource and str(resource[attribute]) in wanted


def _wildcards(value: str) -> str:
    def piece(match: re.Match[str]) -> str:
        text = match[0]
        return {"*": ".*", "?": "."}.get(text, re.escape(text[-1]))

    return re.sub(r"\\.|.", piece, value, flags=re.DOTALL)


def page(
    resources: list[Resource], parameters: Parameters, kind: str, birth: Callable[[Resource], int]
) -> tuple[list[Resource], str | None]:
    """One page and the token of the next. A token says after which birth to go on, so that deletes shift nothing."""
    size = parameters.get("MaxResults")
    if size is not None and size not in MAX_RESULTS:
        raise ApiError("InvalidMaxResults", f"Value ({size}) for parameter maxResults is invalid. Expecting 5 to 1000.")
    token = parameters.get("NextToken")
    if token:
        after = _position(token, kind)
        resources = [resource for resource in resources if birth(resource) > after]
    shown = resources[: size or PAGE]
    more = len(resources) > len(shown)
    return shown, _token(kind, birth(shown[-1])) if more else None


def _token(kind: str, position: int) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).decode()


def _position(token: str, kind: str) -> int:
    try:
        made_for, _, position = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
        if made_for == kind:
            return int(position)
    except (binascii.Error, ValueError):
        pass
    raise ApiError("InvalidPaginationToken", "The specified pagination token is not valid or is expired.")
