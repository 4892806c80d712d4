"""Every alarm: what it looks at exists, what it says is documented, and it fires when it should and only then.

Stories are told in minutes; day one of a stack begins at minute 0. Sweeps come every 15 minutes, some seconds early or
late, workers and AWS report every minute.
"""

import json
import re
from collections.abc import Iterable, Sequence
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mirroring.autotag import TagReport
from mirroring.model import Plan, Scope
from mirroring.report import Report
from mirroring.telemetry import NAMESPACE, Telemetry, metrics_of
from tests.deploy.metric_math import ALARM, OK, QUERY, Samples, expression_of, period_of, queries, states
from tests.deploy.raw import resources, template
from tests.deploy.shipped import shipped

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/operations.md"

ALARMS = resources("AWS::CloudWatch::Alarm")
DAY = 24 * 60
FULL = Scope(everything=True)
ANCHORS = {
    "DeadLettersAlarm": "dead-letters",
    "SweepAlarm": "sweep",
    "GuardAlarm": "guard",
    "PolicyAlarm": "policy",
    "SessionsFailedAlarm": "sessions-failed",
    "SessionsShadowedAlarm": "sessions-shadowed",
    "PacketsDroppedAlarm": "packets-dropped",
    "NoPacketsAlarm": "no-packets",
    "DestinationAlarm": "destination",
    "WorkersAlarm": "workers",
    "MirrorSkippedAlarm": "mirror-skipped",
}

_SQS = (
    "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html"
)
_NLB = "https://docs.aws.amazon.com/elasticloadbalancing/latest/network/load-balancer-cloudwatch-metrics.html"
_EC2 = "https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_metrics_with_cloudwatch.html"
_LAMBDA = "https://docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html"
_MIRROR = "https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirror-cloudwatch.html"
#: AWS's own metrics: the page that lists it, and the dimensions that it is reported under.
AWS_METRICS: dict[tuple[str, str], tuple[str, set[frozenset[str]]]] = {
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): (_SQS, {frozenset({"QueueName"})}),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): (_SQS, {frozenset({"QueueName"})}),
    ("AWS/NetworkELB", "HealthyHostCount"): (_NLB, {frozenset({"LoadBalancer", "TargetGroup"})}),
    ("AWS/NetworkELB", "UnHealthyHostCount"): (_NLB, {frozenset({"LoadBalancer", "TargetGroup"})}),
    ("AWS/NetworkELB", "ActiveFlowCount"): (_NLB, {frozenset({"LoadBalancer"})}),
    ("AWS/NetworkELB", "ProcessedBytes"): (_NLB, {frozenset({"LoadBalancer"})}),
    ("AWS/EC2", "CPUUtilization"): (_EC2, {frozenset({"InstanceId"}), frozenset({"AutoScalingGroupName"})}),
    ("AWS/EC2", "NetworkMirrorIn"): (_MIRROR, {frozenset({"InstanceId"})}),
    ("AWS/EC2", "NetworkMirrorOut"): (_MIRROR, {frozenset({"InstanceId"})}),
    ("AWS/EC2", "NetworkSkipMirrorIn"): (_MIRROR, {frozenset({"InstanceId"})}),
    ("AWS/EC2", "NetworkSkipMirrorOut"): (_MIRROR, {frozenset({"InstanceId"})}),
    ("AWS/Lambda", "Errors"): (_LAMBDA, {frozenset({"FunctionName"})}),
    ("AWS/Lambda", "Throttles"): (_LAMBDA, {frozenset({"FunctionName"})}),
    ("AWS/Lambda", "Duration"): (_LAMBDA, {frozenset({"FunctionName"})}),
}


# What exists


def of_functions(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Names of the metrics that the functions write, under the stack's name alone."""
    telemetry = Telemetry("stack", StringIO())
    telemetry.report(Report(FULL, policy="/stack/policy:1"))
    telemetry.tag_report(TagReport(FULL))
    telemetry.passed_over(["unknown"])
    telemetry.not_announced({"TooLarge": 1})
    names: set[str] = set()
    for line in capsys.readouterr().out.splitlines():
        [directive] = json.loads(line)["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == NAMESPACE
        assert directive["Dimensions"] == [["service"]]
        names |= {metric["Name"] for metric in directive["Metrics"]}
    return names


def known(namespace: str, metric: str, dimensions: Iterable[str], ours: set[str]) -> bool:
    """Whether somebody writes this metric under these dimensions."""
    if namespace == NAMESPACE:
        return metric in ours and set(dimensions) == {"service"}
    page, sets = AWS_METRICS.get((namespace, metric), ("", set()))
    return bool(page) and frozenset(dimensions) in sets


@pytest.mark.parametrize("name", ANCHORS)
def test_what_an_alarm_looks_at_is_written_by_somebody(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    alarm, ours = ALARMS[name], of_functions(capsys) | shipped()
    for query in queries(alarm).values():
        metric = query["Metric"]
        dimensions = {one["Name"]: one["Value"] for one in metric["Dimensions"]}
        assert known(metric["Namespace"], metric["MetricName"], dimensions, ours), metric
        assert dimensions.get("service", {"Ref": "AWS::StackName"}) == {"Ref": "AWS::StackName"}
    if found := QUERY.fullmatch(expression_of(alarm)):
        assert known(found["namespace"], found["metric"], found["dimensions"].split(", "), ours)
    assert queries(alarm) or found


#: What stands behind the ids of an alarm's expression, where it is not a metric of that name. The stories below give
#: values to the ids.
BEHIND: dict[str, dict[str, str]] = {
    "DeadLettersAlarm": {
        "reconcile": "ApproximateNumberOfMessagesVisible ReconcileDeadLetters.QueueName",
        "autotag": "ApproximateNumberOfMessagesVisible AutotagDeadLetters.QueueName",
        "lifecycle": "ApproximateNumberOfMessagesVisible LifecycleDeadLetters.QueueName",
    },
    "SweepAlarm": {"sweeps": "desired", "clock": "ApproximateNumberOfMessagesVisible ReconcileQueue.QueueName"},
    "PacketsDroppedAlarm": {"dropped": "replayer_socket_drops_total", "read": "replayer_datagrams_total"},
    "NoPacketsAlarm": {"sessions": "actual", "packets": "replayer_datagrams_total"},
    "DestinationAlarm": {name: f"replayer_{name}_total" for name in ("replayed", "failed", "dropped")},
    "WorkersAlarm": {
        "healthy": "HealthyHostCount NetworkLoadBalancer.LoadBalancerFullName WorkerTargetGroup.TargetGroupFullName",
        "unhealthy": "UnHealthyHostCount NetworkLoadBalancer.LoadBalancerFullName "
        "WorkerTargetGroup.TargetGroupFullName",
        "flows": "ActiveFlowCount NetworkLoadBalancer.LoadBalancerFullName",
    },
}


@pytest.mark.parametrize("name", ANCHORS)
def test_an_alarm_looks_at_what_its_expression_says(name: str) -> None:
    found = {}
    for query, one in queries(ALARMS[name]).items():
        metric = one["Metric"]
        dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"] if each["Name"] != "service"}
        for dimension, value in dimensions.items():
            assert value["Fn::GetAtt"][1].startswith(dimension)  # LoadBalancerFullName of LoadBalancer
        found[query] = " ".join(
            [metric["MetricName"], *(".".join(value["Fn::GetAtt"]) for value in dimensions.values())]
        )
    assert found == BEHIND.get(name, {query: query for query in found})


def test_a_sweep_while_paused_counts_and_a_failed_or_narrow_look_does_not() -> None:
    assert "desired" in metrics_of(Report(FULL, policy="/stack/policy:1", paused=True))
    assert "desired" not in metrics_of(Report(FULL, everything=True))
    assert "desired" not in metrics_of(Report(Scope(instances=frozenset({"i-1"})), policy="/stack/policy:1"))


def test_what_was_created_in_a_run_is_actual() -> None:
    values = metrics_of(Report(FULL, plan=Plan(desired=3, actual=3), policy="/stack/policy:1"))
    assert values["desired"] == values["actual"] == 3


# How they are made


def test_these_are_the_alarms() -> None:
    assert ALARMS.keys() == ANCHORS.keys()


@pytest.mark.parametrize(("name", "anchor"), ANCHORS.items())
def test_an_alarm_says_what_it_means_and_where_to_read_on(name: str, anchor: str) -> None:
    alarm = ALARMS[name]
    assert alarm["AlarmName"] == {"Fn::Sub": f"${{AWS::StackName}}-{anchor}"}
    assert re.fullmatch(rf"[A-Z][^.]+\. See docs/operations\.md#{anchor}", alarm["AlarmDescription"])


@pytest.mark.parametrize(("name", "anchor"), ANCHORS.items())
def test_the_page_says_what_an_alarm_means_and_what_to_type_first(name: str, anchor: str) -> None:
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    section = {title.lower().replace(" ", "-"): text for title, text in sections.items()}[anchor]
    assert f"`{name}`" in section
    assert section.index("**Means.**") < section.index("**First command.**") < section.index("**Then.**")
    assert re.search(r"\*\*First command\.\*\*[^`]*\n```bash\n.+?\n```", section, re.DOTALL)


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_tells_the_topic_if_there_is_one(alarm: dict[str, Any]) -> None:
    topic = {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert alarm["AlarmActions"] == alarm["OKActions"] == topic
    assert template()["Conditions"]["HasAlarmTopic"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AlarmTopicArn"}, ""]}]}


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_an_alarm_keeps_to_the_quotas(alarm: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_limits.html"""
    assert len(queries(alarm)) <= 10
    assert period_of(alarm) * alarm["EvaluationPeriods"] <= 86_400
    if QUERY.fullmatch(expression_of(alarm)):
        assert period_of(alarm) * alarm["EvaluationPeriods"] <= 3 * 3600
        assert len(alarm["Metrics"]) == 1
    for one in alarm.get("Metrics", ()):
        assert re.fullmatch(r"[a-z]\w*", one["Id"])
        assert "ReturnData" in one


@pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)
def test_all_that_an_alarm_fetches_it_uses(alarm: dict[str, Any]) -> None:
    assert set(queries(alarm)) <= set(re.findall(r"\w+", expression_of(alarm)))


# When they fire


def run(name: str, minutes: int, **samples: Samples) -> list[str]:
    """The states of an alarm that is made with the stack, each minute from then on."""
    return states(ALARMS[name], samples, range(minutes))


def every_minute(value: float, start: int = 0, end: int = DAY) -> list[tuple[float, float]]:
    return [(float(minute), value) for minute in range(start, end)]


def swept(*values: float, first: float = 2.0) -> list[tuple[float, float]]:
    """A value per sweep, of which every other comes 40 seconds late."""
    return [(first + 15 * number + (number % 2) * 0.67, value) for number, value in enumerate(values)]


def fired(found: Sequence[str]) -> bool:
    return ALARM in found


def once(found: Sequence[str]) -> bool:
    """It fires, and stays that way without flickering."""
    return fired(found) and sum(a != b for a, b in pairwise(found[found.index(ALARM) :])) == 0


def once_and_over(found: Sequence[str]) -> bool:
    """It fires, stays that way, and ends for good."""
    return fired(found) and [b for a, b in pairwise(found[found.index(ALARM) :]) if a != b] == [OK]


SWEEPS = 4 * 24


class TestDeadLetters:
    def test_empty_queues(self) -> None:
        found = run("DeadLettersAlarm", DAY, reconcile=every_minute(0), autotag=every_minute(0, end=360))
        assert not fired(found) and found[-1] == OK

    @pytest.mark.parametrize("queue", ["reconcile", "autotag", "lifecycle"])
    def test_one_message_in_one_of_them(self, queue: str) -> None:
        assert once(run("DeadLettersAlarm", 300, **{queue: [*every_minute(0, end=60), *every_minute(1, start=60)]}))

    def test_a_queue_that_falls_silent_is_not_emptied(self) -> None:
        assert once(run("DeadLettersAlarm", DAY, reconcile=[*every_minute(0, end=60), *every_minute(1, 60, 420)]))

    def test_a_queue_that_was_emptied(self) -> None:
        message = [*every_minute(1, end=120), *every_minute(0, start=120)]
        assert once_and_over(run("DeadLettersAlarm", DAY, reconcile=message))


class TestSweep:
    CLOCK = every_minute(0, start=3)

    def test_sweeps_come(self) -> None:
        found = run("SweepAlarm", DAY, sweeps=swept(*[5] * SWEEPS), clock=self.CLOCK)
        assert not fired(found) and found[-1] == OK

    def test_a_new_stack_whose_first_sweep_comes_late(self) -> None:
        assert not fired(run("SweepAlarm", 50, sweeps=swept(0, first=40), clock=self.CLOCK))

    def test_a_stack_that_never_swept(self) -> None:
        found = run("SweepAlarm", DAY, clock=self.CLOCK)
        assert once(found) and 45 <= found.index(ALARM) <= 80

    def test_sweeps_that_end(self) -> None:
        found = run("SweepAlarm", DAY, sweeps=swept(*[5] * 10), clock=self.CLOCK)
        assert once(found) and 60 <= found.index(ALARM) - (2 + 9 * 15) <= 80

    def test_three_failed_sweeps_are_mended_by_the_next(self) -> None:
        sweeps = [one for place, one in enumerate(swept(*[5] * SWEEPS)) if place not in (10, 11, 12)]
        assert not fired(run("SweepAlarm", DAY, sweeps=sweeps, clock=self.CLOCK))

    def test_sweeps_that_come_back(self) -> None:
        sweeps = [one for place, one in enumerate(swept(*[5] * SWEEPS)) if not 10 <= place < 20]
        assert once_and_over(run("SweepAlarm", DAY, sweeps=sweeps, clock=self.CLOCK))


@pytest.mark.parametrize(
    ("name", "metric"),
    [("GuardAlarm", "guard_tripped"), ("PolicyAlarm", "policy_invalid"), ("SessionsShadowedAlarm", "shadowed")],
)
class TestWhatSweepsSay:
    def test_nothing_is_wrong(self, name: str, metric: str) -> None:
        found = run(name, DAY, **{metric: swept(*[0] * SWEEPS)})
        assert not fired(found) and found[-1] == OK

    def test_it_lasts(self, name: str, metric: str) -> None:
        assert once(run(name, DAY, **{metric: swept(*[0] * 8, *[1] * (SWEEPS - 8))}))

    def test_it_ends(self, name: str, metric: str) -> None:
        assert once_and_over(run(name, DAY, **{metric: swept(*[0] * 8, *[1] * 8, *[0] * (SWEEPS - 16))}))

    def test_runs_between_that_know_nothing_of_it(self, name: str, metric: str) -> None:
        runs = [*swept(*[1] * SWEEPS), *((minute + 0.5, 0.0) for minute in range(DAY))]
        assert once(run(name, DAY, **{metric: runs}))

    def test_silence_changes_nothing(self, name: str, metric: str) -> None:
        assert once(run(name, DAY, **{metric: swept(*[1] * 8)}))


class TestSessionsFailed:
    QUIET: dict[str, Samples] = {  # noqa: RUF012
        name: swept(*[0] * SWEEPS)
        for name in ("failed", "forbidden", "stopped", "paused", "autotag_failed", "autotag_stopped")
    }
    ALL_THERE: dict[str, Samples] = {name: swept(*[5] * SWEEPS) for name in ("desired", "actual")}  # noqa: RUF012

    def run(self, **samples: Samples) -> list[str]:
        return run("SessionsFailedAlarm", DAY, **(self.QUIET | self.ALL_THERE | samples))

    def test_all_is_well(self) -> None:
        found = self.run()
        assert not fired(found) and found[-1] == OK

    def test_a_first_sweep_before_the_role_is_known_everywhere(self) -> None:
        assert not fired(self.run(stopped=swept(1, *[0] * (SWEEPS - 1)), failed=swept(3, *[0] * (SWEEPS - 1))))

    @pytest.mark.parametrize("metric", ["failed", "forbidden", "stopped", "autotag_failed", "autotag_stopped"])
    def test_each_that_lasts(self, metric: str) -> None:
        assert once(self.run(**{metric: swept(*[0] * 10, *[1] * (SWEEPS - 10))}))

    @pytest.mark.parametrize("metric", ["target_missing", "filter_empty"])
    def test_each_finding_that_lasts(self, metric: str) -> None:
        assert once(self.run(**{metric: swept(*[0] * 10, *[1] * (SWEEPS - 10))}))

    def test_a_session_that_is_wanted_and_never_there(self) -> None:
        assert once(self.run(actual=swept(*[5] * 10, *[4] * (SWEEPS - 10))))

    def test_what_is_wanted_while_paused_is_not_missed(self) -> None:
        paused = swept(*[0] * 10, *[1] * (SWEEPS - 10))
        assert not fired(self.run(paused=paused, actual=swept(*[5] * 10, *[4] * (SWEEPS - 10))))

    def test_a_refusal_now_and_then_passes(self) -> None:
        assert not fired(self.run(failed=swept(*([1] + [0] * 7) * 12)))

    def test_sessions_left_over_do_not_alarm(self) -> None:
        assert not fired(self.run(actual=swept(*[6] * SWEEPS)))

    def test_it_ends_when_the_instance_is_left_out_of_the_policy(self) -> None:
        assert once_and_over(self.run(failed=swept(*[1] * 10, *[0] * (SWEEPS - 10))))


class TestPacketsDropped:
    def run(self, dropped: Samples, read: float = 60_000) -> list[str]:
        return run("PacketsDroppedAlarm", 300, dropped=dropped, read=every_minute(read))

    def test_none(self) -> None:
        assert not fired(self.run(every_minute(0)))

    def test_one_in_two_thousand(self) -> None:
        assert not fired(self.run(every_minute(30)))

    def test_one_in_a_hundred(self) -> None:
        assert once(self.run(every_minute(600)))

    def test_a_burst_until_the_fleet_has_grown(self) -> None:
        assert not fired(self.run([*every_minute(0, end=60), *every_minute(9000, 60, 70), *every_minute(0, start=70)]))

    def test_no_packets_at_all(self) -> None:
        assert not fired(self.run(every_minute(0), read=0))
        assert not fired(run("PacketsDroppedAlarm", 300))


class TestNoPackets:
    SESSIONS = swept(*[5] * SWEEPS)

    def test_packets_come(self) -> None:
        found = run("NoPacketsAlarm", DAY, sessions=self.SESSIONS, packets=every_minute(100))
        assert not fired(found) and found[-1] == OK

    def test_no_sessions(self) -> None:
        assert not fired(run("NoPacketsAlarm", DAY, sessions=swept(*[0] * SWEEPS), packets=every_minute(0)))

    def test_a_stack_that_is_not_heard_of(self) -> None:
        assert not fired(run("NoPacketsAlarm", DAY))

    def test_packets_that_end(self) -> None:
        found = run(
            "NoPacketsAlarm", DAY, sessions=self.SESSIONS, packets=[*every_minute(9, end=99), *every_minute(0, 99)]
        )
        assert once(found) and 25 <= found.index(ALARM) - 99 <= 50

    def test_workers_that_report_nothing_more(self) -> None:
        assert once(run("NoPacketsAlarm", DAY, sessions=self.SESSIONS, packets=every_minute(9, end=99)))

    def test_it_lasts_though_sweeps_fail(self) -> None:
        found = run("NoPacketsAlarm", DAY, sessions=swept(*[5] * 10), packets=every_minute(9, end=60))
        assert once(found)

    def test_sessions_that_were_drained_and_are_gone(self) -> None:
        sessions = [(77.0, 1.0), (92.0, 1.0), (107.0, 1.0), (118.0, 0.0), *swept(*[0] * 80, first=122)]
        assert not fired(run("NoPacketsAlarm", DAY, sessions=sessions, packets=every_minute(9, end=90)))

    def test_a_packet_now_and_then_as_of_health_checks(self) -> None:
        packets = [*every_minute(0), *((float(minute), 1.0) for minute in range(5, DAY, 10))]
        assert not fired(run("NoPacketsAlarm", DAY, sessions=self.SESSIONS, packets=packets))

    def test_the_first_session_and_its_first_packet(self) -> None:
        sessions, packets = swept(*[0] * 8, *[1] * (SWEEPS - 8)), [*every_minute(0, end=130), *every_minute(9, 130)]
        assert not fired(run("NoPacketsAlarm", DAY, sessions=sessions, packets=packets))

    def test_the_last_session_goes_with_its_packets(self) -> None:
        sessions, packets = swept(*[1] * 8, *[0] * (SWEEPS - 8)), [*every_minute(9, end=109), *every_minute(0, 109)]
        assert not fired(run("NoPacketsAlarm", DAY, sessions=sessions, packets=packets))


class TestDestination:
    def run(self, replayed: float, failed: float = 0, dropped: float = 0) -> list[str]:
        values = {"replayed": replayed, "failed": failed, "dropped": dropped}
        return run("DestinationAlarm", 300, **{name: every_minute(value) for name, value in values.items()})

    def test_all_is_answered(self) -> None:
        assert not fired(self.run(1000))

    def test_some_fail(self) -> None:
        assert not fired(self.run(1000, failed=50, dropped=50))

    def test_it_is_down(self) -> None:
        assert once(self.run(0, failed=10, dropped=990))

    def test_it_is_down_and_traffic_is_thin(self) -> None:
        assert once(self.run(0, dropped=1))

    def test_it_is_half_as_fast_as_it_would_have_to_be(self) -> None:
        assert once(self.run(500, dropped=500))

    def test_nothing_is_selected(self) -> None:
        assert not fired(self.run(0))
        assert not fired(run("DestinationAlarm", 300))

    def test_it_goes_down(self) -> None:
        ends = {"replayed": every_minute(9, end=60), "dropped": [*every_minute(0, end=60), *every_minute(9, 60)]}
        found = run("DestinationAlarm", 300, **ends)
        assert once(found) and 15 <= found.index(ALARM) - 60 <= 20

    def test_it_restarts(self) -> None:
        down = [*every_minute(0, end=60), *every_minute(9, 60, 70), *every_minute(0, 70)]
        assert not fired(run("DestinationAlarm", 300, replayed=every_minute(1), failed=down))


class TestWorkers:
    FLOWS = every_minute(7)

    def test_all_healthy(self) -> None:
        found = run("WorkersAlarm", 300, healthy=every_minute(2), unhealthy=every_minute(0), flows=self.FLOWS)
        assert not fired(found) and found[-1] == OK

    def test_one_that_stays_ill(self) -> None:
        assert once(run("WorkersAlarm", 300, healthy=every_minute(1), unhealthy=every_minute(1), flows=self.FLOWS))

    def test_all_ill(self) -> None:
        assert once(run("WorkersAlarm", 300, healthy=every_minute(0), unhealthy=every_minute(2), flows=self.FLOWS))

    def test_none_registered(self) -> None:
        ended = {"healthy": every_minute(2, end=60), "unhealthy": every_minute(0, end=60)}
        assert once(run("WorkersAlarm", 300, **ended, flows=self.FLOWS))

    def test_an_update_that_replaces_one_after_the_other(self) -> None:
        boots = [(float(minute), float(minute % 6 < 4)) for minute in range(300)]
        assert not fired(run("WorkersAlarm", 300, healthy=every_minute(2), unhealthy=boots, flows=self.FLOWS))

    def test_one_that_falls_ill(self) -> None:
        ill = [*every_minute(0, end=60), *every_minute(1, 60)]
        found = run("WorkersAlarm", 300, healthy=every_minute(1), unhealthy=ill, flows=self.FLOWS)
        assert once(found) and 15 <= found.index(ALARM) - 60 <= 20

    def test_a_first_deploy_whose_workers_take_ten_minutes(self) -> None:
        counts = {"healthy": [*every_minute(0, 4, 10), *every_minute(2, 10)], "unhealthy": every_minute(0, 10)}
        assert template()["Resources"]["WorkersAlarm"]["DependsOn"] == "WorkerGroup"
        assert not fired(states(ALARMS["WorkersAlarm"], counts | {"flows": self.FLOWS}, range(11, 300)))


class TestMirrorSkipped:
    def run(self, skipped: Samples) -> list[str]:
        return run("MirrorSkippedAlarm", 300, NetworkSkipMirrorIn=skipped)

    def test_nothing_is_skipped(self) -> None:
        assert not fired(self.run([(float(minute), 0.0) for minute in range(0, 300, 5)]))

    def test_a_short_peak(self) -> None:
        assert not fired(self.run([(float(minute), 9e6 * (minute == 50)) for minute in range(0, 300, 5)]))

    def test_it_lasts(self) -> None:
        assert once(self.run([(float(minute), 1e3) for minute in range(0, 300, 5)]))

    def test_no_instance_reports(self) -> None:
        assert not fired(self.run([]))
