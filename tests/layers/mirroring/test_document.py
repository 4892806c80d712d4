"""Documents: scalars stay text, every fault has its place, nothing that YAML can do runs away."""

from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mirroring import document
from mirroring.document import (
    Document,
    Home,
    PolicyError,
    Problem,
    Tree,
    elsewhere,
    line_of,
    path_of,
    read,
    short,
    validate,
)


class Leaf(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    from_: str = Field("", alias="from")
    tags: dict[str, str] = {}


class Root(BaseModel):
    model_config = ConfigDict(extra="forbid")
    leaves: tuple[Leaf, ...] = ()
    colour: str = ""
    number: int = Field(1, ge=1)


HOMES = {"": Home("at the top level", Root), "leaves": Home("in a leaf", Leaf)}


def problems(text: str) -> list[Problem]:
    with pytest.raises(PolicyError) as raised:
        validate(Root, read(text), HOMES)
    return list(raised.value.problems)


def only(text: str) -> str:
    (problem,) = problems(text)
    return str(problem)


def test_scalars_stay_the_text_that_they_were_written_as() -> None:
    text = "{a: 09:00, b: no, c: 010, d: 1_000, e: 'x', f: 2026-01-01, g: 1e3, on: true, h: \"null\", i: '', 1: 0x1f}"
    assert read(text).tree == {
        "a": "09:00",
        "b": "no",
        "c": "010",
        "d": "1_000",
        "e": "x",
        "f": "2026-01-01",
        "g": "1e3",
        "on": "true",
        "h": "null",
        "i": "",
        "1": "0x1f",
    }


@pytest.mark.parametrize("nothing", ["", "~", "null", "Null", "NULL"])
def test_what_is_nothing(nothing: str) -> None:
    assert read(f"a: {nothing}").tree == {"a": None}


def test_lines_are_those_of_keys_and_entries() -> None:
    read_ = read("a:\n  - b: 1\n  -\n    c:\n      d\n")
    assert read_.tree == {"a": [{"b": "1"}, {"c": "d"}]}
    lines = {path_of(place): line for place, line in read_.lines.items()}
    assert lines == {"document": 1, "a": 1, "a[0]": 2, "a[0].b": 2, "a[1]": 4, "a[1].c": 4}
    assert line_of(read_, ("a", 1, "x", "y")) == 4
    assert line_of(Document({}, {}), ("a",)) is None


def test_text_may_be_tagged_as_text() -> None:
    assert read("a: !!str 1\nb: ! 2\nc: !!seq [x]").tree == {"a": "1", "b": "2", "c": ["x"]}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: document: write `key: value` lines"),
        ("# nothing\n", "line 1: document: write `key: value` lines"),
        ("{}", "line 1: document: it is empty: write at least `version: 1`"),
        ("- a", 'line 1: document: "a list": write `key: value` lines'),
        ("just text", 'line 1: document: "just text": write `key: value` lines'),
        ("a: 1\n---\nb: 2", 'line 2: document: "---": it holds more than one document: leave one'),
        ("a: 1\nb: {c: 2, c: 3}", "line 2: b.c: the key stands twice, first in line 2: leave one"),
        ("a: 1\nb: 2\na: 3", "line 3: a: the key stands twice, first in line 1: leave one"),
        ("a: !!python/name:os.system x", "tag:yaml.org,2002:python/name:os.system"),
        ("a: !!int 3", 'line 1: a: "tag:yaml.org,2002:int": YAML tags are not read: leave it out'),
        ("a: !x [1]", 'line 1: a: "!x": YAML tags are not read: leave it out'),
        ("? [a]\n: b", "line 1: document: a key is one word: put text that begins with {, [, * or ? in quotes"),
        ("b: 1\na: [*x]", 'line 2: a[0]: "*x": put text that begins with * in quotes ("*"), or mark before it what'),
        ("a: &x [*x]", 'line 1: a[0]: "*x": put text that begins with * in quotes'),
        ("b: &x 1\n*x : a", "line 2: document: a key is one word"),
        ("a: *", 'line 1: document: "a: *": column 5 is not YAML'),
        ("a: *", 'put text that begins with * in quotes ("*")'),
        ("a: &", "put text that begins with & in quotes"),
        ("a: @b", "put text that begins with @, ` or % in quotes"),
        ("a:\n\tb: c", "indent with spaces, not tabs"),
        ("a: b: c", 'put text that holds ": " in quotes'),
        ("a:\n  b: 1\n c: 2", "indent keys of one level alike"),
        ("a: [", "line 2: document: column 1 is not YAML"),
        ("a: [", "correct it; put text in quotes if in doubt"),
        ("a: '", "is not YAML"),
        ("a: \0", "line 1: document: \"'\\\\x00'\": this character cannot stand in YAML: remove it"),
        ("a: 1\nb: \ud800", "line 2: document: \"'\\\\ud800'\""),
        ("[" * 1000, "it is nested too deeply"),
        ("- " * 1000 + "a", "line 1: [0][0][0]"),
        ("a" * (document.LARGEST + 1), 'document: "65537 characters": shorten it to 65536 at most'),
    ],
)
def test_what_cannot_be_read(text: str, fault: str) -> None:
    with pytest.raises(PolicyError) as raised:
        read(text)
    assert fault in str(raised.value)


def test_both_parsers_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML without libyaml has a parser of its own, with words of its own."""
    texts = ["a: *", "a: &", "a: @b", "a:\n\tb: c", "a: b: c", "- a", "{a: 1, a: 2}", "a: {b: [x, ~]}"]

    def outcomes() -> list[object]:
        return [outcome(text) for text in texts]

    def outcome(text: str) -> object:
        try:
            return read(text)
        except PolicyError as error:
            return [(problem.path, problem.remedy.partition("): ")[2], problem.line) for problem in error.problems]

    fast = outcomes()
    monkeypatch.setattr(document, "_LOADER", yaml.SafeLoader)
    assert outcomes() == fast


def test_a_thousand_aliases_of_aliases_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 99))]
    with pytest.raises(PolicyError) as raised:
        read("\n".join(lines))
    assert "the document holds too much: leave 20000 values" in str(raised.value)


def test_an_alias_stands_for_what_its_anchor_marks() -> None:
    found = read("a: &x [1, &y {b: c}]\nd: *x\ne:\n  - *y\n")
    assert found.tree == {"a": ["1", {"b": "c"}], "d": ["1", {"b": "c"}], "e": [{"b": "c"}]}
    assert line_of(found, ("d", 1, "b")) == 2
    assert line_of(found, ("e", 0, "b")) == 4


def test_so_many_values_are_read() -> None:
    read(f"a: [{'x,' * (document.MOST_VALUES - 2)}]")
    with pytest.raises(PolicyError, match="holds too much"):
        read(f"a: [{'x,' * (document.MOST_VALUES - 1)}]")


def test_a_depth_that_would_end_the_stack_is_refused() -> None:
    with pytest.raises(PolicyError, match="nested too deeply"):
        read("[" * document.LARGEST)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("colour: [1]", 'line 1: colour: "a list": write text'),
        ("number:", 'line 1: number: it has no value: write one (empty text is ""), or leave the line out'),
        ("number: 0", 'line 1: number: "0": write at least 1'),
        ("color: red", 'line 1: color: "red": there is no such key: did you mean colour?'),
        ("name: a", 'line 1: name: "a": there is no such key here: it belongs in a leaf'),
        ("zzz: a", 'line 1: zzz: "a": there is no such key: write one of leaves, colour, number'),
        ("leaves: [{name: a, form: b}]", 'line 1: leaves[0].form: "b": there is no such key: did you mean from?'),
        ("leaves:\n- from: a", "line 2: leaves[0].name: this key is required"),
        ("leaves: x", 'line 1: leaves: "x": write a list: [VALUE, ...]'),
        ("leaves: [x]", 'line 1: leaves[0]: "x": write `key: value` lines under it'),
        ("leaves: [{name: a, from_: b}]", "leaves[0].from_"),
        ('leaves: [{name: a, tags: {"a b": [c]}}]', 'line 1: leaves[0].tags["a b"]: "a list": write text'),
    ],
)
def test_what_does_not_fit_the_model(text: str, fault: str) -> None:
    assert fault in only(text)


def test_all_faults_are_told_in_the_order_of_the_lines() -> None:
    found = problems("number: 0\nleaves:\n  - {form: x}\n  - name: [a]\ncolour:\n")
    assert [(problem.line, problem.path) for problem in found] == [
        (1, "number"),
        (3, "leaves[0].form"),
        (3, "leaves[0].name"),
        (4, "leaves[1].name"),
        (5, "colour"),
    ]


def test_a_fault_found_above_its_place() -> None:
    class Pair(Root):
        @model_validator(mode="after")
        def _check(self) -> "Pair":
            raise elsewhere("choose {another}", "leaves", 0, "name")

    with pytest.raises(PolicyError) as raised:
        validate(Pair, read("leaves:\n- name: a"), HOMES)
    assert raised.value.problems == (Problem("leaves[0].name", "a", "choose {another}", 2),)


def test_what_is_not_in_the_document_is_told_of_where_it_is() -> None:
    """As a value that a model copies from one place to another before it is checked."""

    class Copied(Root):
        @model_validator(mode="before")
        @classmethod
        def _copy(cls, data: dict[str, Any]) -> dict[str, Any]:
            return {**data, "leaves": [{**leaf, "from": ["x"], "tags": {"a": None}} for leaf in data["leaves"]]}

    with pytest.raises(PolicyError) as raised:
        validate(Copied, read("leaves: [{name: a}, {}]"), HOMES)
    assert raised.value.problems == (Problem("leaves[1].name", "", "this key is required", 1),)


def test_a_key_and_a_value_that_the_model_refuses_in_its_own_words() -> None:
    class Short(BaseModel):
        tags: dict[Annotated[str, AfterValidator(no_blank)], Annotated[str, AfterValidator(no_blank)]]

    with pytest.raises(PolicyError) as raised:
        validate(Short, read('tags: {" ": a, b: " "}'), {"": Home("", Short)})
    assert raised.value.problems == (
        Problem("tags.b", " ", "write no blanks", 1),
        Problem('tags[" "]', "a", "write no blanks", 1),
    )


def no_blank(value: str) -> str:
    if value == " ":
        raise ValueError("write no blanks")
    return value


def test_paths() -> None:
    assert path_of(()) == "document"
    assert path_of(("sources", 1, "match", "tags", "aws:x/y")) == "sources[1].match.tags.aws:x/y"
    assert path_of(("a", 'my "key"', 0)) == 'a["my \\"key\\""][0]'


def test_long_values_are_shortened() -> None:
    assert short("x" * 60) == "x" * 60
    assert short("x" * 61) == "x" * 56 + " ..."
    assert problems(f"color: {'x' * 99}")[0].value == "x" * 56 + " ..."


TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab:* -", max_size=4), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1), TREES, min_size=1), st.booleans())
@settings(max_examples=100)
def test_what_yaml_writes_is_read_back(tree: dict[str, Tree], flow: bool) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=flow, width=10_000)
    assert read(text).tree == tree


@given(st.text(alphabet=st.sampled_from("ab:-?*&!#%@|>'\"[]{},\n\t 0~\\"), max_size=40) | st.text(max_size=40))
@settings(max_examples=300)
def test_any_text_is_a_document_or_a_problem(text: str) -> None:
    found = read_or_problems(text)
    if isinstance(found, Document):
        assert isinstance(found.tree, dict)
    else:
        assert found
        assert all(problem.path and problem.remedy for problem in found)


def read_or_problems(text: str) -> Document | tuple[Problem, ...]:
    try:
        return read(text)
    except PolicyError as error:
        return error.problems
