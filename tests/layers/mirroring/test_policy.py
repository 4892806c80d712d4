"""The policy: what it says, what `defaults` fill in, and the place and remedy of whatever is wrong."""

import json
from datetime import time, timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mirroring.autotagged import listing
from mirroring.model import Reference
from mirroring.policy import (
    AutotagRule,
    Defaults,
    Finding,
    Limits,
    Match,
    Policy,
    PolicyError,
    Problem,
    Source,
    Window,
    check_names,
    check_size,
    load,
    references,
)

FULL = """
version: 1
description: >
  production to the
  test environment
paused: no
delete_on_stop: off
limits: {deletes: 20, delete_fraction: 0.25, sessions: 500, writes_per_second: 4.5}
except: {tags: {Mirror: never}}
defaults:
  target: [tmt-1, tmt-2]
  filter: tmf-1
  session_number: 10
  packet_length: 1500
  windows:
    - {from: 09:00, to: 17:00, days: [mon, tue]}
sources:
  - name: web
    description: one in ten
    match:
      tags: {Env: [prod, 1, true], Team: "*", Tier: web}
      vpcs: vpc-1
      subnets: [subnet-1, subnet-2]
      groups: [web-*]
      instances: [i-1]
      names: web-?
    except: {names: "*-canary"}
    interfaces: [0, 1]
    share: 10%
    vni: 16777215
  - name: all
    match: {vpcs: [vpc-1]}
    interfaces: all
    target: tmt-3
    filter: tmf-2
    session_number: 32766
    packet_length: null
    windows: []
autotag:
  - name: fleet
    match: {groups: prod-*}
    except: {tags: {Env: "*"}}
    tags: {Env: prod, Note: "", Since: 2026}
  - name: suspects
    finding: {severity: 8, types: ["Backdoor:*"], keep: 12h}
  - {name: worse, finding: {}, tags: {Suspect: yes}}
"""


def fault(text: str) -> Problem:
    (problem,) = faults(text)
    return problem


def faults(text: str) -> tuple[Problem, ...]:
    with pytest.raises(PolicyError) as raised:
        load(text)
    return raised.value.problems


def source(text: str) -> Source:
    (found,) = load(f"sources: [{{name: a, match: {{vpcs: vpc-1}}, target: tmt-1, filter: tmf-1, {text}}}]").sources
    return found


def test_everything_that_a_policy_can_say() -> None:
    policy = load(FULL)
    hours = (Window(days=("mon", "tue"), from_=time(9), to=time(17)),)
    assert policy.description == "production to the test environment"
    assert (policy.paused, policy.delete_on_stop) == (False, False)
    assert policy.limits == Limits(deletes=20, delete_fraction=0.25, sessions=500, writes_per_second=4.5)
    assert policy.except_ == Match(tags={"Mirror": ("never",)})
    assert policy.sources == (
        Source(
            name="web",
            description="one in ten",
            match=Match(
                tags={"Env": ("prod", "1", "true"), "Team": "*", "Tier": ("web",)},
                vpcs=("vpc-1",),
                subnets=("subnet-1", "subnet-2"),
                groups=("web-*",),
                instances=("i-1",),
                names=("web-?",),
            ),
            except_=Match(names=("*-canary",)),
            interfaces=(0, 1),
            share=10.0,
            targets=("tmt-1", "tmt-2"),
            filter="tmf-1",
            vni=16777215,
            session_number=10,
            packet_length=1500,
            windows=hours,
        ),
        Source(
            name="all",
            match=Match(vpcs=("vpc-1",)),
            interfaces="all",
            targets=("tmt-3",),
            filter="tmf-2",
            session_number=32766,
            packet_length=None,
            windows=(),
        ),
    )
    assert policy.autotag == (
        AutotagRule(
            name="fleet",
            match=Match(groups=("prod-*",)),
            except_=Match(tags={"Env": "*"}),
            tags={"Env": "prod", "Note": "", "Since": "2026"},
        ),
        AutotagRule(name="suspects", finding=Finding(severity=8.0, types=("Backdoor:*",), keep=timedelta(hours=12))),
        AutotagRule(name="worse", finding=Finding(), tags={"Suspect": "yes"}),
    )


def test_what_is_so_if_nothing_is_said() -> None:
    policy = load("version: 1")
    assert policy == Policy()
    assert (policy.paused, policy.delete_on_stop, policy.sources, policy.autotag) == (False, True, (), ())
    assert policy.limits == Limits(deletes=100, delete_fraction=0.5, sessions=10_000, writes_per_second=2.0)
    assert policy.defaults == Defaults()
    plain = source("description: ''")
    assert (plain.interfaces, plain.share, plain.vni, plain.session_number) == ("primary", 100.0, None, 1)
    assert (plain.packet_length, plain.windows, plain.except_) == (None, (), None)
    assert Finding() == Finding(severity=7.0, types=("*",), keep=timedelta(hours=24))
    assert Window(from_=time(1), to=time(2)).days == ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    assert Window(from_=time(1), to=time(2)).zone == "UTC"


def test_a_policy_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load("version: 1").paused = True  # type: ignore[misc]


def test_a_value_of_the_defaults_that_is_wrong_is_told_of_once() -> None:
    text = "defaults: {target: x, filter: tmf-1, colour: red}\nsources:\n"
    entries = "".join(f"  - {{name: s{n}, match: {{vpcs: vpc-1}}}}\n" for n in range(3))
    assert [problem.path for problem in faults(text + entries)] == ["defaults.colour", "defaults.target"]


def test_defaults_without_a_value_fill_nothing_in() -> None:
    text = "defaults: {filter: null, vni: null}\nsources: [{name: a, match: {vpcs: vpc-1}, target: tmt-1}]"
    assert fault(text) == Problem("sources[0].filter", "", "this key is required", 2)


def test_entries_that_are_no_sources_stay_wrong_beside_defaults() -> None:
    assert fault("defaults: {vni: 1}\nsources: [3]").path == "sources[0]"
    assert fault("defaults: {vni: 1}\nsources: 3").path == "sources"
    assert fault("defaults: 1").path == "defaults"


def test_a_policy_may_be_built_of_its_parts() -> None:
    part = Source(name="a", match=Match(vpcs=("vpc-1",)), targets=("tmt-1",), filter="tmf-1")
    assert Policy(sources=(part,)).sources == (part,)
    assert Policy.model_validate(Policy(sources=(part,))).sources == (part,)
    with pytest.raises(ValueError, match="Policy"):
        Policy.model_validate([part])


@pytest.mark.parametrize(
    ("text", "path", "value", "remedy"),
    [
        ("version: 2", "version", "2", "write 1"),
        ("paused: maybe", "paused", "maybe", "write true or false"),
        ("soruces: []", "soruces", "a list", "there is no such key: did you mean sources?"),
        ("vni: 5", "vni", "5", "there is no such key here: it belongs in a source or under defaults"),
        ("limits: {delete: 5}", "limits.delete", "5", "there is no such key: did you mean deletes?"),
        ("limits: {deletes: -1}", "limits.deletes", "-1", "write at least 0"),
        ("limits: {delete_fraction: 1.5}", "limits.delete_fraction", "1.5", "write at most 1"),
        ("limits: {sessions: 10001}", "limits.sessions", "10001", "write at most 10000"),
        ("limits: {writes_per_second: 0}", "limits.writes_per_second", "0", "write more than 0"),
        ("limits: {writes_per_second: 6}", "limits.writes_per_second", "6", "write at most 5"),
        ("except: {}", "except", "a mapping", "without a key every instance of the account would match"),
        ("except: {vpcs: []}", "except.vpcs", "a list", "write at least one, or leave the key out"),
        ("except: {tags: {}}", "except.tags", "a mapping", "write at least one, or leave the key out"),
        ("except: {tag: {}}", "except.tag", "a mapping", "there is no such key: did you mean tags?"),
        ("except: {tags: {Env: }}", "except.tags.Env", "", 'it has no value: write one (empty text is ""), or leave'),
        ("except: {tags: {Env: [a, *b]}}", "except.tags.Env[1]", "*b", "put text that begins with * in quotes"),
        ("except: {tags: Env}", "except.tags", "Env", "write `key: value` lines under it"),
        ("defaults: {vni: 16777216}", "defaults.vni", "16777216", "write at most 16777215"),
        ("defaults: {vni: -1}", "defaults.vni", "-1", "write at least 0"),
        ("defaults: {session_number: 0}", "defaults.session_number", "0", "write at least 1"),
        ("defaults: {session_number: 32767}", "defaults.session_number", "32767", "write at most 32766"),
        ("defaults: {packet_length: 0}", "defaults.packet_length", "0", "write at least 1"),
        ("defaults: {packet_length: 8501}", "defaults.packet_length", "8501", "write at most 8500"),
        ("defaults: {share: 0}", "defaults.share", "0", "write more than 0"),
        ("defaults: {share: 101%}", "defaults.share", "101%", "write at most 100"),
        ("defaults: {target: []}", "defaults.target", "a list", "write at least one, or leave the key out"),
        ("defaults: {target: [tmt-1, x]}", "defaults.target[1]", "x", "write the id of a mirror target, such as tmt-"),
        ("defaults: {targets: tmt-1}", "defaults.targets", "tmt-1", "there is no such key: did you mean target?"),
        ("defaults: {windows: [{to: 09:00}]}", "defaults.windows[0].from", "", "this key is required"),
        (
            "defaults: {windows: [{from: 540, to: 10:00}]}",
            "defaults.windows[0].from",
            "540",
            'write hours and minutes, in quotes: "09:00"',
        ),
        ("autotag: [{name: a, match: {vpcs: vpc-1}}]", "autotag[0].tags", "", "name the tags to put on"),
        (
            "autotag: [{name: a, tags: {A: b}}]",
            "autotag[0].match",
            "",
            "this key is required: only a rule with finding",
        ),
        ("autotag: [{name: a, finding: {keep: 1y}}]", "autotag[0].finding.keep", "1y", "such as 90m, 24h or 7d"),
        ("autotag: [{name: a, finding: {severity: 11}}]", "autotag[0].finding.severity", "11", "write at most 10"),
        ("autotag: [{name: a, finding: {severty: 7}}]", "autotag[0].finding.severty", "7", "did you mean severity?"),
        ("tags: [{tagList: []}]", "document", "tags", "convert it with `mirrorctl policy import FILE`"),
        ("vpcs: []\nsubnets: []", "document", "vpcs, subnets", "convert it with `mirrorctl policy import FILE`"),
    ],
)
def test_what_is_wrong(text: str, path: str, value: str, remedy: str) -> None:
    problem = fault(text)
    assert (problem.path, problem.value, problem.line) == (path, value, 1)
    assert remedy in problem.remedy


def test_all_faults_of_a_source_are_told_each_with_its_line() -> None:
    text = """\
sources:
  - name: my web
    match:
      tags:
        Env: prod
        Team: [a, "*"]
    mach: 1
    share: 0
  - target: tmt-1
    filter: tmf-1
    match: {names: [""]}
"""
    assert [(problem.line, problem.path) for problem in faults(text)] == [
        (2, "sources[0].filter"),
        (2, "sources[0].name"),
        (2, "sources[0].target"),
        (6, "sources[0].match.tags.Team[1]"),
        (7, "sources[0].mach"),
        (8, "sources[0].share"),
        (9, "sources[1].name"),
        (11, "sources[1].match.names[0]"),
    ]


def test_an_error_reads_as_one_line_for_each_problem() -> None:
    with pytest.raises(PolicyError) as raised:
        load("paused: 3\nvers: 1")
    assert str(raised.value) == (
        'line 1: paused: "3": write true or false\nline 2: vers: "1": there is no such key: did you mean version?'
    )


@pytest.mark.parametrize("key", ["sources", "autotag"])
def test_names_are_unique(key: str) -> None:
    entry = "match: {vpcs: vpc-1}, " + ("target: tmt-1, filter: tmf-1" if key == "sources" else "tags: {A: b}")
    problem = fault(f"{key}:\n" + "".join(f"  - {{name: {name}, {entry}}}\n" for name in "aba"))
    assert problem == Problem(f"{key}[2].name", "a", f"{key}[0] has this name: choose another", 4)


def rules(keys: list[str]) -> str:
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    match = {"vpcs": "vpc-1"}
    rules = [{"name": f"r{n}", "match": match, "tags": dict.fromkeys(half, "x")} for n, half in enumerate(halves)]
    return json.dumps({"autotag": rules})


def test_the_tags_of_all_rules_fit_an_instance() -> None:
    assert len(load(rules([f"k{n}" for n in range(48)])).autotag) == 2
    assert "49 tag keys, an instance has room for 48" in fault(rules([f"k{n}" for n in range(49)])).remedy


def test_the_keys_of_all_rules_fit_the_tag_that_lists_them() -> None:
    """256 characters, of which the tag's own divider takes 12 and a space."""
    fitting = ["a" * 115, "b" * 127]
    assert len(load(rules(fitting)).autotag) == 2
    assert len(listing(fitting[:1], fitting[1:])) == 256
    problem = fault(rules([*fitting[:1], "b" * 128]))
    assert (problem.path, problem.remedy) == (
        "autotag",
        "the tag mirror:autotagged lists the keys of all rules, which takes 257 characters; a tag holds 256: "
        "drop or shorten some",
    )


def test_a_parameter_holds_so_much() -> None:
    check_size("x" * 4096, "Standard")
    check_size("x" * 8192, "Advanced")
    for text, tier, size in (("x" * 4097, "Standard", 4097), ("ä" * 2049, "Standard", 4098)):
        with pytest.raises(PolicyError, match=f"{size} bytes.*holds 4096.*or make the parameter Advanced"):
            check_size(text, tier)  # type: ignore[arg-type]
    for tier in ("Standard", "Advanced"):
        with pytest.raises(PolicyError, match="8193 bytes") as raised:
            check_size("x" * 8193, tier)  # type: ignore[arg-type]
        assert "make the parameter" not in str(raised.value)


def test_references_are_each_named_once_where_they_stand_first() -> None:
    assert references(load(FULL)) == (
        Reference("target", "tmt-1", "defaults.target[0]"),
        Reference("target", "tmt-2", "defaults.target[1]"),
        Reference("filter", "tmf-1", "defaults.filter"),
        Reference("vpc", "vpc-1", "sources[0].match.vpcs[0]"),
        Reference("target", "tmt-3", "sources[1].target"),
        Reference("filter", "tmf-2", "sources[1].filter"),
        Reference("tag", "Env", "autotag[0].tags.Env"),
        Reference("tag", "Note", "autotag[0].tags.Note"),
        Reference("tag", "Since", "autotag[0].tags.Since"),
        Reference("tag", "Suspect", "autotag[2].tags.Suspect"),
    )


def test_references_of_exceptions_count() -> None:
    rule = "{name: a, match: {vpcs: vpc-2}, except: {vpcs: vpc-3}, tags: {A: b}}"
    found = references(load(f"except: {{vpcs: vpc-1}}\nautotag: [{rule}]"))
    assert [(reference.id, reference.path) for reference in found if reference.kind == "vpc"] == [
        ("vpc-1", "except.vpcs[0]"),
        ("vpc-2", "autotag[0].match.vpcs[0]"),
        ("vpc-3", "autotag[0].except.vpcs[0]"),
    ]


def test_tag_keys_that_the_stack_does_not_grant() -> None:
    policy = load(FULL)
    assert check_names(policy, ["Env", "Note", "Since", "Suspect", "Other"]) == ()
    (problem,) = check_names(policy, ["Env", "Note", "Suspect"])
    assert (problem.path, problem.value) == ("autotag[0].tags.Since", "Since")
    assert "Env, Note, Suspect. Use one of them" in problem.remedy
    assert "none. Use" in check_names(policy, [])[0].remedy


texts = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda t: t != "*"
)
keys = st.text("aA1:é", min_size=1, max_size=6)


def ids(prefix: str) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=8, max_size=17).map(lambda text: f"{prefix}-{text}")


def several(one: st.SearchStrategy[str]) -> st.SearchStrategy[object]:
    return one | st.lists(one, min_size=1, max_size=3)


matches = st.fixed_dictionaries(
    {"vpcs": several(ids("vpc"))},
    optional={
        "tags": st.dictionaries(keys, st.just("*") | several(texts), min_size=1, max_size=3),
        "subnets": several(ids("subnet")),
        "groups": several(texts),
        "instances": several(ids("i")),
        "names": several(texts),
    },
)
clock = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
days = st.lists(st.sampled_from("mon tue wed thu fri sat sun".split()), min_size=1)
hours = st.fixed_dictionaries(
    {"from": clock, "to": clock | st.just("24:00")},
    optional={"days": days, "zone": st.sampled_from(["UTC", "Asia/Tokyo"])},
)
sessions: dict[str, st.SearchStrategy[Any]] = {
    "interfaces": st.sampled_from(["primary", "all", [0], ["1", "0"]]),
    "share": st.integers(1, 100) | st.sampled_from(["12.5", "5%"]),
    "vni": st.none() | st.integers(0, 2**24 - 1),
    "session_number": st.integers(1, 32766),
    "packet_length": st.none() | st.integers(1, 8500),
    "windows": st.lists(hours, max_size=2),
}
aims = {"target": several(ids("tmt")), "filter": ids("tmf")}
sources_ = st.lists(
    st.fixed_dictionaries(
        {"match": matches, **aims},
        optional={**sessions, "except": matches, "description": st.sampled_from(["", "x y"])},
    ),
    max_size=3,
).map(lambda entries: [{"name": f"s{number}", **entry} for number, entry in enumerate(entries)])
policies = st.fixed_dictionaries(
    {"version": st.just(1), "sources": sources_},
    optional={
        "paused": st.booleans(),
        "delete_on_stop": st.sampled_from(["on", "no", True]),
        "except": matches,
        "defaults": st.fixed_dictionaries({}, optional={**sessions, **aims}),
        "limits": st.fixed_dictionaries({}, optional={"deletes": st.integers(0, 9), "delete_fraction": st.just(0.5)}),
    },
)


@given(policies)
@settings(max_examples=100)
def test_a_valid_policy_loads_and_loads_the_same_however_it_is_written(document: dict[str, Any]) -> None:
    policy = load(yaml.safe_dump(document, allow_unicode=True, width=10_000))
    assert load(yaml.safe_dump(document, default_flow_style=True, sort_keys=False, width=10_000)) == policy
    assert load(json.dumps(document, indent=1, ensure_ascii=False)) == policy
    defaults = document.get("defaults", {})
    for written, entry in zip(document["sources"], policy.sources, strict=True):
        said = {**{key: value for key, value in defaults.items() if value is not None}, **written}
        for key in ("vni", "session_number", "packet_length"):
            assert getattr(entry, key) == said.get(key, getattr(Defaults(), key))
        assert entry.filter == said["filter"]
        assert list(entry.targets) == ([said["target"]] if isinstance(said["target"], str) else said["target"])
        assert len(entry.windows) == len(said.get("windows", ()))
    assert {reference.kind for reference in references(policy)} <= {"target", "filter", "vpc"}


KEYS = sorted(
    {field.alias or name for model in (Policy, Source, Match, Limits, Window, AutotagRule, Finding)
     for name, field in model.model_fields.items()}
)  # fmt: skip
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.sampled_from(["*", "all", "tmt-1", "vpc-1", "UTC", "09:00", "mon", ""])
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(KEYS), junk, min_size=1, max_size=5) | junk)
@settings(max_examples=300)
def test_junk_is_refused_with_a_path_and_a_remedy_of_ours(document: object) -> None:
    for problem in problems_of(yaml.safe_dump(document)):
        assert problem.path
        assert problem.remedy
        assert problem.line is not None
        assert "Input should" not in problem.remedy


def problems_of(text: str) -> tuple[Problem, ...]:
    """None of a policy; at least one of anything else."""
    try:
        assert isinstance(load(text), Policy)
    except PolicyError as error:
        return error.problems or (Problem("", "", ""),)
    return ()


@given(policies, st.data())
@settings(max_examples=150)
def test_one_thing_damaged_is_never_more_than_a_problem(document: dict[str, Any], data: st.DataObject) -> None:
    here: Any = document
    while isinstance(here, dict | list) and here:
        key = data.draw(st.sampled_from(sorted(here) if isinstance(here, dict) else range(len(here))))
        if not isinstance(here[key], dict | list) or data.draw(st.booleans()):
            here[key] = data.draw(junk)
            break
        here = here[key]
    assert all(problem.path and problem.remedy for problem in problems_of(yaml.safe_dump(document)))
