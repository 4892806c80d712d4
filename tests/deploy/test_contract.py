"""What two sides must say alike: the template, and the functions' code, the worker's image, the samples."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from lab.cloud.stack import Stack
from mirroring.environment import DEFAULT_OWNER, Environment, environment_of
from replayer.settings import Settings
from tests.deploy.given import ROOT, given

FUNCTIONS = ("ReconcileFunction", "AutotagFunction", "LifecycleFunction")
#: Which variables a function has no use for: it puts no event on the bus; it never looks at instances.
UNUSED = {
    "ReconcileFunction": set[str](),
    "AutotagFunction": {"EVENT_BUS"},
    "LifecycleFunction": {"EVENT_BUS", "WORKER_GROUPS"},
}


@pytest.fixture(scope="module")
def stack() -> Stack:
    return given()


def variables(stack: Stack, function: str) -> Mapping[str, str]:
    found: Mapping[str, str] = stack.resources[function].properties["Environment"]["Variables"]
    return found


class _Watched(Mapping[str, str]):
    """An environment that remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


# Functions


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_is_told_what_it_asks_for_and_nothing_else(stack: Stack, function: str) -> None:
    watched = _Watched()
    environment_of(watched)
    read = {name for name in watched.asked if not name.startswith("AWS_")}  # those are Lambda's own
    assert variables(stack, function).keys() == read - UNUSED[function]


def test_what_a_function_is_told_is_what_the_stack_made(stack: Stack) -> None:
    environment = environment_of(variables(stack, "ReconcileFunction"))
    assert environment == Environment(
        owner="replay",
        policy_parameter="/replay/policy",
        default_policy_parameter=stack.ref("DefaultPolicy"),
        state_parameter=stack.outputs["StateParameter"],
        queue_url=stack.ref("ReconcileQueue"),
        event_bus="default",
        worker_groups=frozenset((stack.ref("WorkerGroup"),)),
        autotag_keys=frozenset(),
    )


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_reach_every_function(function: str) -> None:
    made = given(PolicyParameterName="/shop/policy", AutoTagKeys="Environment,team")
    environment = environment_of(variables(made, function))
    assert environment.policy_parameter == "/shop/policy"
    assert environment.default_policy_parameter == made.ref("DefaultPolicy")
    assert environment.autotag_keys == frozenset(("Environment", "team"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_names_are_those_that_the_code_would_take_by_itself(function: str) -> None:
    """So that `mirrorctl --stack STACK` reads what the functions read."""
    made = given().with_pseudo(StackName=DEFAULT_OWNER)
    told = environment_of(variables(made, function))
    taken = environment_of({"MIRROR_OWNER": DEFAULT_OWNER})
    for name in ("owner", "policy_parameter", "default_policy_parameter", "state_parameter", "event_bus"):
        assert getattr(told, name) == getattr(taken, name)


def test_a_function_logs_where_its_log_group_is(stack: Stack) -> None:
    for function, group in zip(FUNCTIONS, ("ReconcileLogs", "AutotagLogs", "LifecycleLogs"), strict=True):
        assert stack.resources[function].properties["LoggingConfig"]["LogGroup"] == stack.ref(group)
        assert stack.ref(group) == f"/aws/lambda/{stack.ref(function)}"


def test_logs_are_kept_as_long_as_asked_for() -> None:
    groups = given(LogRetentionDays="7").of_type("AWS::Logs::LogGroup")
    kept = {name: str(group.properties["RetentionInDays"]) for name, group in groups.items()}
    assert kept.pop("WorkerMetrics") == "1"  # a way to CloudWatch, not a place to read
    assert kept == dict.fromkeys(("WorkerLogs", "ReconcileLogs", "AutotagLogs", "LifecycleLogs"), "7")


def test_lifecycle_has_time_for_the_longest_clearing(stack: Stack) -> None:
    """Lambda's longest: it hands over to itself when that is too short. The others end well within a message's time."""
    assert stack.resources["LifecycleFunction"].properties["Timeout"] == 900
    assert "ServiceTimeout" not in stack.resources["MirrorSessions"].properties  # an hour; it stops after 55 minutes


# Samples


@pytest.mark.parametrize("kind", ["create", "update", "delete"])
def test_samples_of_cloudformations_requests_are_of_this_custom_resource(kind: str) -> None:
    event: Mapping[str, Any] = json.loads((ROOT / f"events/custom-resource-{kind}.json").read_text())
    resource = given().with_pseudo(StackName=DEFAULT_OWNER).resources["MirrorSessions"]
    assert (event["LogicalResourceId"], event["ResourceType"]) == (resource.id, resource.type)
    assert event["ServiceToken"] == resource.properties["ServiceToken"]
    assert event["ResourceProperties"] == resource.properties


# The worker's image


def test_the_worker_is_where_its_image_looks_for_it(stack: Stack) -> None:
    """The agent scrapes the address that workers have by themselves: see test_shipper."""
    settings = yaml.safe_load(stack.resources["WorkerSettings"].properties["Value"])
    assert settings["admin_address"] == Settings().admin_address
    port = settings["health_address"].rpartition(":")[2]
    assert f"HEALTHZ=http://127.0.0.1:{port}/healthz" in (ROOT / "worker/image/install.sh").read_text()


# Outputs


def test_an_operator_finds_what_there_is(stack: Stack) -> None:
    outputs = stack.outputs
    assert outputs["TrafficMirrorTarget"] == stack.ref("TrafficMirrorTarget")
    assert outputs["TrafficMirrorFilter"] == stack.ref("TrafficMirrorFilter")
    assert outputs["PolicyParameter"] == "/replay/policy"
    assert outputs["DefaultPolicyParameter"] == stack.ref("DefaultPolicy")
    assert outputs["Queue"] == stack.ref("ReconcileQueue")
    assert outputs["DeadLetters"] == stack.ref("ReconcileDeadLetters")
    of_their_own_name = """
        AutotagDeadLetters AutotagLogs AutotagQueue LifecycleDeadLetters LifecycleLogs ReconcileFunction ReconcileLogs
        WorkerGroup WorkerLogs
    """
    for name in of_their_own_name.split():
        assert outputs[name] == stack.ref(name)
    assert outputs["WorkerSettingsParameter"] == stack.ref("WorkerSettings")
    dashboard = stack.ref("Dashboard")
    assert outputs["DashboardUrl"].startswith("https://console.aws.amazon.com/cloudwatch/home?region=eu-west-1")
    assert outputs["DashboardUrl"].endswith(f"#dashboards/dashboard/{dashboard}")


@pytest.mark.parametrize(
    ("partition", "console"), [("aws-cn", "console.amazonaws.cn"), ("aws-us-gov", "console.amazonaws-us-gov.com")]
)
def test_the_dashboard_is_found_in_every_partition(partition: str, console: str) -> None:
    outputs = given().with_pseudo(Partition=partition).outputs
    assert outputs["DashboardUrl"].startswith(f"https://{console}/cloudwatch/")


def test_outputs_name_ones_own_parameters() -> None:
    outputs = given(PolicyParameterName="/shop/policy", WorkerSettingsParameter="/shop/worker").outputs
    assert outputs["PolicyParameter"] == "/shop/policy"
    assert outputs["WorkerSettingsParameter"] == "/shop/worker"
    assert outputs["DefaultPolicyParameter"] == "/replay/policy-default"


def test_every_output_says_what_it_is(stack: Stack) -> None:
    for output in stack.template["Outputs"].values():
        assert len(output["Description"]) >= 10
