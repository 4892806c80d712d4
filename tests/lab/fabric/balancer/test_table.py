"""The table crosses a pipe as one line and is the same after it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.fabric.balancer.checks import Settings
from lab.fabric.balancer.table import (
    LONGEST_LINE,
    MAX_ROUTES,
    MAX_TARGETS,
    Group,
    Table,
    TableError,
    Target,
    read,
    write,
)
from lab.fabric.routes import Route

text = st.text(max_size=8)
seconds = st.floats(min_value=0, max_value=600)
routes = st.builds(Route, st.integers(1, 65535), text, text, text, st.none() | st.integers(1, 8500))
targets = st.builds(Target, text, text, st.integers(1, 65535), st.booleans())
settings = st.builds(Settings, text, st.integers(0, 65535), text, seconds, seconds)
groups = st.builds(Group, text, st.lists(targets, max_size=3).map(tuple), settings, st.booleans())
tables = st.builds(Table, st.lists(routes, max_size=3).map(tuple), st.dictionaries(text, groups, max_size=3), seconds)


@given(tables)
def test_what_is_written_is_one_line_and_reads_the_same(table: Table) -> None:
    line = write(table)

    assert "\n" not in line
    assert read(line) == table


def test_more_sessions_than_the_balancer_takes_are_refused_with_the_number() -> None:
    many = tuple(Route(20000 + number, f"tms-{number}", "lb", "", None) for number in range(MAX_ROUTES + 1))

    with pytest.raises(TableError, match=f"4097 sessions: the lab's balancer takes {MAX_ROUTES}"):
        write(Table(many))


def test_more_targets_than_a_load_balancer_may_have_are_refused() -> None:
    many = tuple(Target(f"i-{number}", "10.0.0.1", 4789) for number in range(MAX_TARGETS + 1))

    with pytest.raises(TableError, match="501 targets in tg"):
        write(Table(groups={"lb": Group("tg", many, Settings())}))


def test_a_table_that_is_longer_than_the_balancer_reads_is_refused() -> None:
    group = Group("tg", tuple(Target(f"i-{number:017x}", "10.200.100.100", 4789) for number in range(500)), Settings())
    line = write(Table(groups={"lb": group}))
    many = {f"lb-{number}": group for number in range(LONGEST_LINE // len(line) + 10)}

    with pytest.raises(TableError, match=f"bytes of load balancers.*takes {LONGEST_LINE - 1}"):
        write(Table(groups=many))
