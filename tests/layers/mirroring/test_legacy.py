"""The source-automation configuration: its meaning kept, its traps named."""

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mirroring.legacy import convert
from mirroring.policy import Match, PolicyError, Problem, load

#: The format of the sample's own README, its ids included (they are no hex numbers).
README = """
tags:
- tagList:
  - Key: tagKey1
    Value: tagValue1
  - Key: tagKey2
    Value: tagValue2
  filterId: tmf-1a2b3c4d5e6f7g8h
  targetId: tmt-1a2b3c4d5e6f7g8h

subnets:
- subnetId: subnet-1a2b3c4d
  filterId: tmf-1a2b3c4d5e6f7g8h
  targetId: tmt-1a2b3c4d5e6f7g8h

vpcs:
- vpcId: vpc-1a2b3c4d
  filterId: tmf-2a2b3c4d5e6f7g8h
  targetInstanceType: t3.micro
  targetInstanceAmi: ami-1a2b3c4d5e6f7g8h
  targetSecurityGroupIds:
  - sg-1a2b3c4d5e6f7g8h
  - sg-1aaaaaaa2bbbbbbb
  targetSubnetId: subnet-5e6f7g8h
"""
AIM = "filterId: tmf-1, targetId: tmt-1"


def faults(text: str, **given: str) -> list[str]:
    with pytest.raises(PolicyError) as raised:
        convert(text, **given)
    return [str(problem) for problem in raised.value.problems]


def test_pairs_are_alternatives_of_one_key_or_sources_of_several() -> None:
    pairs = ["{Key: Env, Value: prod}", "{Key: Team, Value: shop}", "{Key: Env, Value: 1}", "{Key: Env, Value: ''}"]
    policy = load(convert(f"tags: [{{tagList: [{', '.join(pairs)}], {AIM}}}]"))
    assert [(source.name, source.match) for source in policy.sources] == [
        ("tag-1-1", Match(tags={"Env": ("prod", "1", "")})),
        ("tag-1-2", Match(tags={"Team": ("shop",)})),
    ]
    assert {(source.targets, source.filter) for source in policy.sources} == {(("tmt-1",), "tmf-1")}


def test_tags_come_before_subnets_before_vpcs_wherever_they_stand() -> None:
    text = f"""
vpcs: [{{vpcId: vpc-1, {AIM}}}, {{vpcId: vpc-2, {AIM}}}]
subnets: [{{subnetId: subnet-1, {AIM}}}]
tags: [{{tagList: [{{Key: A, Value: b}}], {AIM}}}]
"""
    policy = load(convert(text))
    assert [source.name for source in policy.sources] == ["tag-1", "subnet-1", "vpc-1", "vpc-2"]
    assert [source.match for source in policy.sources] == [
        Match(tags={"A": ("b",)}),
        Match(subnets=("subnet-1",)),
        Match(vpcs=("vpc-1",)),
        Match(vpcs=("vpc-2",)),
    ]


def test_sessions_are_as_the_sample_makes_them() -> None:
    (source,) = load(convert(f"vpcs: [{{vpcId: vpc-1, {AIM}}}]")).sources
    assert (source.session_number, source.interfaces, source.vni, source.packet_length) == (100, "primary", None, None)


def test_the_samples_own_example_needs_a_target_where_it_would_launch_one() -> None:
    assert faults(README) == [
        "line 17: vpcs[0].targetId: the old tool launched a target here, this one does not: give --target tmt-..."
    ]


def test_a_given_target_stands_in_the_place_of_all() -> None:
    text = convert(README, target="tmt-9")
    policy = load(text)
    assert policy.defaults.targets == ("tmt-9",)
    assert {source.targets for source in policy.sources} == {("tmt-9",)}
    assert [source.filter for source in policy.sources] == ["tmf-1a2b3c4d5e6f7g8h"] * 3 + ["tmf-2a2b3c4d5e6f7g8h"]
    assert "# tags[0], there with target tmt-1a2b3c4d5e6f7g8h\n" in text
    assert "# vpcs[0]\n" in text


def test_a_given_filter_stands_in_the_place_of_all() -> None:
    text = convert(README, target="tmt-1a2b3c4d5e6f7g8h", filter="tmf-9")
    assert {source.filter for source in load(text).sources} == {"tmf-9"}
    assert "# subnets[0], there with filter tmf-1a2b3c4d5e6f7g8h\n" in text
    both = convert(README, target="tmt-9", filter="tmf-9")
    assert "# subnets[0], there with target tmt-1a2b3c4d5e6f7g8h and filter tmf-1a2b3c4d5e6f7g8h\n" in both


def test_the_policy_says_what_is_not_as_before() -> None:
    text = convert(README, target="tmt-9")
    assert text.startswith("# Made from")
    assert "number 100" in text
    assert "GuardDuty" in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: document: write `key: value` lines"),
        ("tags: [", "is not YAML"),
        ("tags: []", "line 1: document: it names nothing to mirror: write entries under tags, subnets or vpcs"),
        ("vpcs:", "line 1: document: it names nothing to mirror: write entries under tags, subnets or vpcs"),
        ("vpc: []", 'line 1: vpc: "a list": there is no such key: did you mean vpcs?'),
        ("vpcs: {}", 'line 1: vpcs: "a mapping": write a list: [VALUE, ...]'),
        ("vpcs: [{vpcId: vpc-1, targetId: tmt-1}]", "vpcs[0].filterId: this key is required, or give --filter tmf-..."),
        (f"vpcs: [{{{AIM}}}]", "vpcs[0].vpcId: this key is required"),
        (f"vpcs: [{{vpcId: <INSERT_VALUE>, {AIM}}}]", 'vpcs[0].vpcId: "<INSERT_VALUE>": write the id of a VPC'),
        (
            "vpcs: [{vpcId: vpc-1, targetId: <INSERT_VALUE>, filterId: tmf-1}]",
            "vpcs[0].targetId: the old tool launched",
        ),
        ("vpcs: [{vpcId: vpc-1, targetId: '', filterId: tmf-1}]", "vpcs[0].targetId: the old tool launched"),
        (f"vpcs: [{{vpcId: vpc-1, filterID: tmf-1, {AIM}}}]", "vpcs[0].filterID"),
        (f"tags: [{{tagList: [], {AIM}}}]", 'tags[0].tagList: "a list": write at least one'),
        (f"tags: [{{tagList: [{{Key: A}}], {AIM}}}]", "tags[0].tagList[0].Value: this key is required"),
        (f"tags: [{{tagList: [{{Key: A, Value: }}], {AIM}}}]", "tags[0].tagList[0].Value: it has no value"),
        (f"tags: [{{tagList: [{{Key: <INSERT_VALUE>, Value: b}}], {AIM}}}]", "this is the sample's placeholder"),
        (f"tags: [{{tagList: [{{key: A, Value: b}}], Key: A, {AIM}}}]", "did you mean Key?"),
    ],
)
def test_what_cannot_be_converted(text: str, fault: str) -> None:
    assert any(fault in found for found in faults(text))


def test_a_given_id_is_looked_at_first() -> None:
    with pytest.raises(PolicyError) as raised:
        convert("", target="tmf-1", filter="nonsense")
    assert [(problem.path, problem.value) for problem in raised.value.problems] == [
        ("filter", "nonsense"),
        ("target", "tmf-1"),
    ]


text_ = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=130).filter(
    lambda text: text not in ("*", "<INSERT_VALUE>")
)
ends = {"filterId": st.sampled_from(["tmf-1", "tmf-2"]), "targetId": st.sampled_from(["tmt-1", "tmt-2"])}
pairs = st.fixed_dictionaries({"Key": text_.map(lambda text: text[:128]), "Value": text_})
tag_entries = st.fixed_dictionaries({"tagList": st.lists(pairs, min_size=1, max_size=4), **ends})
configurations = st.fixed_dictionaries(
    {"tags": st.lists(tag_entries, min_size=1, max_size=3)},
    optional={
        "subnets": st.lists(st.fixed_dictionaries({"subnetId": st.just("subnet-1"), **ends}), max_size=2),
        "vpcs": st.none() | st.lists(st.fixed_dictionaries({"vpcId": st.just("vpc-1"), **ends}), max_size=2),
    },
)


def samples_choice(configuration: dict[str, Any], pair: tuple[str, str]) -> tuple[str, str]:
    """What the sample's handler gives an instance with one tag, in subnet-1 and vpc-1: target and filter."""
    for entry in configuration["tags"]:
        if {"Key": pair[0], "Value": pair[1]} in entry["tagList"]:
            return entry["targetId"], entry["filterId"]
    others = [*(configuration.get("subnets") or ()), *(configuration.get("vpcs") or ())]
    return (others[0]["targetId"], others[0]["filterId"]) if others else ("", "")


def our_choice(text: str, pair: tuple[str, str]) -> tuple[str, str]:
    for source in load(text).sources:
        tags = source.match.tags
        if all(key == pair[0] and pair[1] in values for key, values in tags.items()):
            return source.targets[0], source.filter
    return "", ""


@given(configurations, st.data())
@settings(max_examples=100)
def test_the_policy_chooses_as_the_sample_did(configuration: dict[str, Any], data: st.DataObject) -> None:
    text = convert(yaml.safe_dump(configuration, allow_unicode=True, sort_keys=False, width=10_000))
    known = [(pair["Key"], pair["Value"]) for entry in configuration["tags"] for pair in entry["tagList"]]
    pair = data.draw(st.sampled_from(known) | st.tuples(text_, text_))
    assert our_choice(text, pair) == samples_choice(configuration, pair)


scalars = st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["<INSERT_VALUE>", "vpc-1", "tmt-1"])
KEYS = "tags subnets vpcs tagList Key Value vpcId subnetId filterId targetId targetSubnetId".split()
junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(KEYS[:3]), junk, min_size=1) | junk)
@settings(max_examples=200)
def test_junk_is_refused_with_a_path_and_a_remedy(document: object) -> None:
    assert all(problem.path and problem.remedy for problem in problems_of(yaml.safe_dump(document)))


def problems_of(text: str) -> tuple[Problem, ...]:
    try:
        assert load(convert(text)).sources
    except PolicyError as error:
        return error.problems or (Problem("", "", ""),)
    return ()
