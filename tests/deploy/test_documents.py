"""The two documents that the template writes, read by those they are for: the policy and the workers' settings.

Whatever the parameters' patterns let through must arrive as exactly what was asked for; a pattern that lets through
what breaks a document would be found by nobody before the deploy.
"""

import re
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from mirroring.policy import SIZES, Match, Policy, check_size, load
from replayer.settings import Destination, Settings, read_yaml, validate
from tests.deploy import given as stacks
from tests.deploy.raw import template

DEFINITIONS = template()["Parameters"]


def values(name: str) -> st.SearchStrategy[str]:
    """What a parameter's pattern lets through; Java's \\w, \\d and \\s know ASCII alone."""
    return st.from_regex(re.compile(DEFINITIONS[name]["AllowedPattern"], re.ASCII), fullmatch=True)


def lists(prefix: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.from_regex(rf"{prefix}-[0-9a-f]{{8,17}}", fullmatch=True), max_size=4)


def policy_of(**given: str) -> Policy:
    return load(stacks.given(**given).resources["DefaultPolicy"].properties["Value"])


def settings_of(**given: str) -> Settings:
    text = stacks.given(**given).resources["WorkerSettings"].properties["Value"]
    return validate(read_yaml(text, "WorkerSettings"))


def match_of(tag: str, vpcs: Sequence[str], subnets: Sequence[str]) -> Match:
    key, _, value = tag.partition("=")
    tags = {key: value if value == "*" else (value,)} if tag else {}
    return Match.model_validate(
        {name: value for name, value in (("tags", tags), ("vpcs", tuple(vpcs)), ("subnets", tuple(subnets))) if value}
    )


@given(tag=values("ProductionTag"), vpcs=lists("vpc"), subnets=lists("subnet"), vni=st.integers(1, (1 << 24) - 1))
@example(tag="a b=", vpcs=[], subnets=[], vni=1)
@example(tag="Environment=*", vpcs=["vpc-0a1b2c3d"], subnets=[], vni=1)
@example(tag="null=true", vpcs=[], subnets=["subnet-0a1b2c3d"], vni=1)
@example(tag="", vpcs=["vpc-00000000", "vpc-00000001"], subnets=[], vni=1)
def test_the_default_policy_selects_what_was_asked_for(tag: str, vpcs: list[str], subnets: list[str], vni: int) -> None:
    assume(tag or vpcs or subnets)
    policy = policy_of(
        ProductionTag=tag,
        ProductionVpcIds=",".join(vpcs),
        ProductionSubnetIds=",".join(subnets),
        TrafficMirroringVNI=str(vni),
    )
    (source,) = policy.sources
    stack = stacks.given()
    assert source.match == match_of(tag, vpcs, subnets)
    assert source.except_ is None
    assert source.vni == vni
    assert source.targets == (stack.ref("TrafficMirrorTarget"),)
    assert source.filter == stack.ref("TrafficMirrorFilter")
    assert (source.share, source.windows, source.interfaces) == (100, (), "primary")
    assert not policy.paused
    assert policy.except_ is None
    assert policy.autotag == ()


def test_by_default_instances_with_the_walk_throughs_tag_are_mirrored() -> None:
    (source,) = policy_of().sources
    assert source.match == Match(tags={"TrafficReplay": ("production",)})


def test_without_a_tag_a_vpc_or_a_subnet_nothing_is_mirrored() -> None:
    assert policy_of(ProductionTag="").sources == ()


def test_the_policy_bears_the_stacks_name_for_people_who_read_it() -> None:
    stack = stacks.given().with_pseudo(StackName="Shop-1")
    assert "Shop-1" in load(stack.resources["DefaultPolicy"].properties["Value"]).description


def test_as_many_vpcs_and_subnets_as_anyone_has_fit_into_the_parameter() -> None:
    many = {
        "ProductionVpcIds": ",".join(f"vpc-{number:017x}" for number in range(50)),
        "ProductionSubnetIds": ",".join(f"subnet-{number:017x}" for number in range(50)),
    }
    resource = stacks.given(**many).resources["DefaultPolicy"].properties
    assert "Tier" not in resource
    check_size(resource["Value"], "Standard")
    assert len(resource["Value"]) < SIZES["Standard"]


NUMBERS = st.integers(0, 100).map(str) | st.decimals(0, 100, places=2).map(str)


@given(
    url=values("RequestsForwardDestination"),
    port=st.integers(1, 65535),
    percentage=NUMBERS,
    keep=st.booleans(),
)
@example(url="http://test.internal/'a'&*!|>%@".replace("@", ""), port=1, percentage="0", keep=True)
@example(url="http://test.internal:443/$%7B", port=1, percentage="0.50", keep=True)
@example(url="https://test.internal/: # {a}", port=1, percentage="100", keep=True)
def test_workers_settings_say_what_was_given(url: str, port: int, percentage: str, keep: bool) -> None:
    assume(re.fullmatch(DEFINITIONS["RequestsForwardDestination"]["AllowedPattern"], url, re.ASCII))
    settings = settings_of(
        RequestsForwardDestination=url,
        FilterByDestinationPort=str(port),
        ForwardPercentage=percentage,
        KeepOriginalHostHeader=str(keep).lower(),
    )
    assert settings == Settings(
        http_ports=(port,),
        destinations=(Destination(url=url, percentage=float(percentage), keep_host_header=keep),),
    )


@given(header=values("PercentageByHeader").filter(bool))
@example(header="#")
@example(header="'${AWS::StackName}'".replace("{", "").replace("}", "").replace(":", ""))
@example(header="%|`*&!")
@example(header="null")
def test_a_share_by_header_names_the_header(header: str) -> None:
    (destination,) = settings_of(PercentageBy="header", PercentageByHeader=header).destinations
    assert destination.percentage_by == "header"
    assert destination.percentage_by_header == header


def test_a_share_by_client_address() -> None:
    (destination,) = settings_of(PercentageBy="remoteaddr", ForwardPercentage="10").destinations
    assert (destination.percentage_by, destination.percentage) == ("remoteaddr", 10)


def test_settings_fit_into_their_parameter() -> None:
    longest = stacks.given(
        RequestsForwardDestination=f"https://test.internal/{'a' * 2000}",
        PercentageBy="header",
        PercentageByHeader="X" * 256,
    ).with_pseudo(StackName="s" * 128)
    assert len(longest.resources["WorkerSettings"].properties["Value"]) <= SIZES["Standard"]


@pytest.mark.parametrize("resource", ["DefaultPolicy", "WorkerSettings"])
def test_parameters_are_plain_text_of_the_stacks_own_name(resource: str) -> None:
    properties = stacks.given().with_pseudo(StackName="Shop-1").resources[resource].properties
    assert properties["Type"] == "String"
    assert properties["Name"].startswith("/Shop-1/")
