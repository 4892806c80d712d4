"""CloudWatch's alarms on sample series: statistics of windows, metric math, and what state follows.

Written from the documentation, as no emulator evaluates alarms. An alarm is evaluated every minute, over windows that
end at that minute. It fetches more windows than it needs, and where some are missing it takes the newest of the others.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

import ast
import operator
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from typing import Any

type Samples = Sequence[tuple[float, float]]  # minute, value
type Series = list[float | None]  # by window, oldest first; None: missing
type Value = Series | float

OK, ALARM, UNKNOWN = "OK", "ALARM", "INSUFFICIENT_DATA"
#: Windows fetched beyond those that are evaluated. The documentation's own table has five for three.
BEYOND = 2

STATISTICS: Mapping[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "Average": lambda values: sum(values) / len(values),
    "SampleCount": len,
}
ARITHMETIC: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.LtE: operator.le,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
}
THRESHOLDS: Mapping[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
}
#: A query without GROUP BY: one series, of all metrics with these dimensions.
QUERY = re.compile(r'SELECT SUM\((?P<metric>\w+)\) FROM SCHEMA\("(?P<namespace>[\w/]+)", (?P<dimensions>[\w, ]+)\)')


def windows(samples: Samples, statistic: str, period: float, end: float, number: int) -> Series:
    """The statistic of each window of `period` minutes, the last of which ends at minute `end`; samples in order."""
    edges = [bisect_left(samples, end - window * period, key=itemgetter(0)) for window in range(number, -1, -1)]
    held = [[value for _, value in samples[first:last]] for first, last in pairwise(edges)]
    return [STATISTICS[statistic](values) if values else None for values in held]


def evaluate(expression: str, series: Mapping[str, Series]) -> Series:
    """Metric math, whose grammar is Python's as far as it is used here."""
    found = _value(ast.parse(expression, mode="eval").body, series)
    assert isinstance(found, list), "an expression must be a time series"
    return found


def _value(node: ast.expr, series: Mapping[str, Series]) -> Value:
    match node:
        case ast.Constant(value=int() | float() as number):
            return float(number)
        case ast.Name(id=name):
            return series[name]
        case ast.BinOp(left=left, op=how, right=right):
            return _each(ARITHMETIC[type(how)], _value(left, series), _value(right, series))
        case ast.Compare(left=left, ops=[how], comparators=[right]):
            return _each(COMPARISONS[type(how)], _value(left, series), _value(right, series))
        case ast.Call(func=ast.Name(id="IF"), args=[condition, true, false]):
            return _if(_value(condition, series), _value(true, series), _value(false, series))
    raise AssertionError(f"not known here: {ast.unparse(node)}")


def _each(how: Callable[[float, float], float], left: Value, right: Value) -> Value:
    """A missing value counts as 0 where the other series has one; a division by zero is dropped."""
    if not isinstance(left, list) and not isinstance(right, list):
        return how(left, right)
    found: Series = []
    for one, other in _pairs(left, right):
        try:
            found.append(None if one is None or other is None else float(how(one, other)))
        except ZeroDivisionError:
            found.append(None)
    return found


def _pairs(left: Value, right: Value) -> list[tuple[float | None, float | None]]:
    if isinstance(left, list) and isinstance(right, list):
        both = zip(left, right, strict=True)
        return [(None, None) if one is None and other is None else (one or 0.0, other or 0.0) for one, other in both]
    if isinstance(left, list):
        assert not isinstance(right, list)
        return [(one, right) for one in left]
    assert isinstance(right, list)
    return [(left, other) for other in right]


def _if(condition: Value, true: Value, false: Value) -> Series:
    """Dropped without a condition; where it is true and its value missing, 0; where false and missing, dropped."""
    assert isinstance(condition, list)
    found: Series = []
    for place, holds in enumerate(condition):
        chosen = true if holds else false
        value = chosen[place] if isinstance(chosen, list) else chosen
        found.append(None if holds is None else 0.0 if holds and value is None else value)
    return found


def judge(alarm: Mapping[str, Any], points: Series, before: str) -> str:
    """The state that follows from the points of the evaluation range."""
    number, needed = alarm["EvaluationPeriods"], alarm["DatapointsToAlarm"]
    breaches = THRESHOLDS[alarm["ComparisonOperator"]]
    there = [breaches(point, alarm["Threshold"]) for point in points if point is not None][-number:]
    bad = sum(there)
    if bad >= needed:
        return ALARM
    if len(there) - bad > number - needed:
        return OK
    match alarm["TreatMissingData"]:
        case "ignore":
            return before
        case "notBreaching":
            return OK
    raise AssertionError(f"not known here: {alarm['TreatMissingData']}")


def queries(alarm: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What the alarm fetches, by id: of an alarm on one metric, the metric's name."""
    if "Metrics" not in alarm:
        return {alarm["MetricName"]: {"Metric": alarm, "Stat": alarm["Statistic"], "Period": alarm["Period"]}}
    return {one["Id"]: one["MetricStat"] for one in alarm["Metrics"] if "MetricStat" in one}


def expression_of(alarm: Mapping[str, Any]) -> str:
    """What the alarm watches."""
    if "Metrics" not in alarm:
        return str(alarm["MetricName"])
    [watched] = [str(one["Expression"]) for one in alarm["Metrics"] if one.get("ReturnData")]
    return watched


def period_of(alarm: Mapping[str, Any]) -> int:
    """In seconds; all that one alarm fetches has the same."""
    periods = {query["Period"] for query in queries(alarm).values()}
    periods |= {one["Period"] for one in alarm.get("Metrics", ()) if "Period" in one}
    [period] = periods
    return int(period)


def states(alarm: Mapping[str, Any], samples: Mapping[str, Samples], minutes: range) -> list[str]:
    """The alarm's state at each of these minutes, from its creation on. What came before is seen too."""
    watched, period, number = expression_of(alarm), period_of(alarm) / 60, alarm["EvaluationPeriods"] + BEYOND
    fetched = {name: query["Stat"] for name, query in queries(alarm).items()}
    if query := QUERY.fullmatch(watched):
        watched, fetched = query["metric"], {query["metric"]: "Sum"}
    assert samples.keys() <= fetched.keys(), "a sample of what the alarm does not look at"
    ordered = {name: sorted(samples.get(name, ())) for name in fetched}
    found, state = [], UNKNOWN
    for minute in minutes:
        series = {
            name: windows(ordered[name], statistic, period, minute, number) for name, statistic in fetched.items()
        }
        state = judge(alarm, evaluate(watched, series), state)
        found.append(state)
    return found
