"""The dashboard: valid JSON once its names are filled in, no hole and no overlap, every number written by somebody."""

import json
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from typing import Any

import pytest

from mirroring.model import Trouble
from mirroring.telemetry import metric_of
from tests.deploy.metric_math import QUERY
from tests.deploy.raw import resources, template
from tests.deploy.shipped import shipped
from tests.deploy.test_alarms import ALARMS, known, of_functions

WIDTH = 24
FLOW = ("datagrams", "segments", "requests_framed", "selected", "replayed", "failed", "dropped")
SEARCH = re.compile(
    r"SUM\(SEARCH\('\{(?P<namespace>[\w/]+),(?P<dimension>\w+)\} MetricName=\"(?P<metric>\w+)\"', 'Sum', 300\)\)"
)
PSEUDO = {"AWS::StackName": "vpc-traffic-replay", "AWS::Region": "eu-west-1"}


def value(name: str) -> str:
    """What CloudFormation puts in: names of all kinds that resources have."""
    if name in PSEUDO:
        return PSEUDO[name]
    resource, _, attribute = name.partition(".")
    assert resource in template()["Resources"], name
    return f"arn:aws:x:eu-west-1:123456789012:{resource}/{attribute}"


@cache
def body() -> dict[str, Any]:
    [dashboard] = resources("AWS::CloudWatch::Dashboard").values()
    assert dashboard["DashboardName"] == {"Ref": "AWS::StackName"}
    text = re.sub(r"\$\{([^}]+)\}", lambda found: value(found[1]), dashboard["DashboardBody"]["Fn::Sub"])
    content: dict[str, Any] = json.loads(text)
    return content


def widgets(kind: str = "metric") -> list[dict[str, Any]]:
    return [widget for widget in body()["widgets"] if widget["type"] == kind]


def names(widget: dict[str, Any]) -> list[str]:
    return [line[1] for line in widget["properties"]["metrics"] if isinstance(line[0], str)]


def expressions(widget: dict[str, Any]) -> list[str]:
    return [line[0]["expression"] for line in widget["properties"]["metrics"] if isinstance(line[0], dict)]


def row_of(widget: dict[str, Any]) -> int:
    return int(widget["y"])


def test_json_has_no_key_twice() -> None:
    """json.loads would take the last of them."""
    [dashboard] = resources("AWS::CloudWatch::Dashboard").values()

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert not [key for key, number in Counter(key for key, _ in pairs).items() if number > 1]
        return dict(pairs)

    json.loads(dashboard["DashboardBody"]["Fn::Sub"], object_pairs_hook=unique)


def test_each_row_fills_the_width_without_overlap() -> None:
    rows: dict[int, list[dict[str, Any]]] = {}
    for widget in body()["widgets"]:
        rows.setdefault(widget["y"], []).append(widget)
    assert list(rows) == sorted(rows)
    for row in rows.values():
        assert [widget["x"] for widget in row] == sorted(widget["x"] for widget in row)
        for left, right in pairwise(row):
            assert left["x"] + left["width"] == right["x"]
        assert row[0]["x"] == 0 and row[-1]["x"] + row[-1]["width"] == WIDTH
        assert len({widget["height"] for widget in row}) == 1
    for above, below in pairwise(rows):
        assert above + rows[above][0]["height"] == below


def test_the_first_row_says_whether_all_is_well() -> None:
    first = [widget for widget in body()["widgets"] if row_of(widget) == 0]
    sessions, alarms = first
    assert {"desired", "actual"} <= set(names(sessions))
    assert {line[-1]["stat"] for line in sessions["properties"]["metrics"]} == {"Maximum"}  # of looks, not their sum
    assert Counter(alarms["properties"]["alarms"]) == Counter(value(f"{name}.Arn") for name in ALARMS)


def test_one_row_follows_the_packets() -> None:
    [datagrams] = [widget for widget in widgets() if names(widget) == ["replayer_datagrams_total"]]
    row = [widget for widget in widgets() if row_of(widget) == row_of(datagrams)]
    assert [names(widget) for widget in row] == [[f"replayer_{name}_total"] for name in FLOW]
    assert {widget["properties"]["stat"] for widget in row} == {"Sum"}
    assert len({widget["properties"]["period"] for widget in row}) == 1  # numbers to be compared


def test_what_production_mirrors_stands_beside_what_workers_receive() -> None:
    [mirrored] = [widget for widget in widgets() if any("NetworkMirrorIn" in text for text in expressions(widget))]
    [received] = [widget for widget in widgets() if "ProcessedBytes" in names(widget)]
    assert row_of(mirrored) == row_of(received)
    assert mirrored["x"] + mirrored["width"] == received["x"]
    assert any("NetworkMirrorOut" in text for text in expressions(mirrored))
    assert "replayer_payload_bytes_total" in names(received)


def test_every_number_is_written_by_somebody(capsys: pytest.CaptureFixture[str]) -> None:
    ours = of_functions(capsys) | shipped()
    for widget in widgets():
        for line in widget["properties"]["metrics"]:
            if isinstance(line[0], str):
                namespace, metric, *rest = (part for part in line if isinstance(part, str))
                assert known(namespace, metric, rest[::2], ours), line
                assert rest[::2] != ["service"] or rest[1] == PSEUDO["AWS::StackName"]
                assert "stat" in {**widget["properties"], **line[-1]}, line
    for widget in widgets():
        for text in expressions(widget):
            found = QUERY.fullmatch(text) or SEARCH.fullmatch(text)
            assert found, text
            dimensions = found.groupdict().get("dimensions") or found["dimension"]
            assert known(found["namespace"], found["metric"], [dimensions], ours)


def test_a_widget_holds_one_query_at_most() -> None:
    """GetMetricData takes one Metrics Insights query a call."""
    assert all(sum(bool(QUERY.fullmatch(text)) for text in expressions(widget)) <= 1 for widget in widgets())


def test_every_kind_of_finding_is_shown() -> None:
    shown = {name for widget in widgets() for name in names(widget)}
    assert {metric_of(trouble) for trouble in Trouble} <= shown


def test_queues_and_functions_are_shown_all() -> None:
    def instances(metric: str) -> set[str]:
        lines = [line for widget in widgets() for line in widget["properties"]["metrics"]]
        return {line[3] for line in lines if line[0] != "VpcTrafficReplay" and len(line) > 3 and line[1] == metric}

    written = template()["Resources"]
    queues = {value(f"{name}.QueueName") for name, one in written.items() if one["Type"] == "AWS::SQS::Queue"}
    functions = {value(name) for name, one in written.items() if one["Type"] == "AWS::Serverless::Function"}
    assert instances("ApproximateNumberOfMessagesVisible") == queues
    assert instances("ApproximateAgeOfOldestMessage") == {
        value(f"{name}Queue.QueueName") for name in ("Reconcile", "Autotag")
    }
    assert instances("Errors") == instances("Throttles") == instances("Duration") == functions


def test_the_log_shows_what_went_wrong() -> None:
    [log] = widgets("log")
    query = log["properties"]["query"]
    assert re.findall(r"SOURCE '([^']+)'", query) == [value("ReconcileLogs"), value("AutotagLogs")]
    for field in ("level", "why", "report.stopped", "message", "trouble", "code", "instance", "interface", "session"):
        assert re.search(rf"\b{re.escape(field)}\b", query)
    assert "level in ['WARNING', 'ERROR'] or @message like /Task timed out|Runtime exited/" in query


def test_every_widget_is_of_this_region() -> None:
    assert {widget["properties"]["region"] for widget in [*widgets(), *widgets("log")]} == {PSEUDO["AWS::Region"]}


def test_workers_health_and_findings_are_of_the_worst_moment() -> None:
    """Minutes are not added up."""
    [health] = [widget for widget in widgets() if "HealthyHostCount" in names(widget)]
    assert {line[1]: line[-1]["stat"] for line in health["properties"]["metrics"]} == {
        "HealthyHostCount": "Minimum",
        "UnHealthyHostCount": "Maximum",
    }
    [findings] = [widget for widget in widgets() if "orphaned" in names(widget)]
    assert findings["properties"]["stat"] == "Maximum"


def test_what_is_named_is_named_as_cloudwatch_does() -> None:
    """The full name, which is a part of the address."""
    full = {
        "LoadBalancer": value("NetworkLoadBalancer.LoadBalancerFullName"),
        "TargetGroup": value("WorkerTargetGroup.TargetGroupFullName"),
        "AutoScalingGroupName": value("WorkerGroup"),
    }
    lines = [line for widget in widgets() for line in widget["properties"]["metrics"] if isinstance(line[0], str)]
    pairs = [pair for line in lines for pair in zip(line[2::2], line[3::2], strict=False)]
    assert [(name, found) for name, found in pairs if name in full and found != full[name]] == []


def test_a_number_is_called_what_it_is() -> None:
    for widget in widgets():
        for line in widget["properties"]["metrics"]:
            if line[0] == "VpcTrafficReplay":
                plain = re.sub(r"^replayer_|_total$", "", line[1]).replace("_", " ")
                assert line[-1]["label"] in (plain, _CALLED.get(plain))


_CALLED = {
    "payload bytes": "TCP payload",
    "lost bytes": "lost on the way",
    "socket drops": "datagrams dropped",
    "refused": "datagrams refused",
}
