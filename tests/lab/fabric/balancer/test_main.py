"""The program itself: lines in, lines out."""

import json
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest

from lab.fabric.balancer.checks import Settings
from lab.fabric.balancer.table import Group, Table, Target, write
from lab.fabric.routes import Route

pytestmark = pytest.mark.network


def test_it_takes_tables_tells_health_and_ends_with_its_input() -> None:
    group = Group("tg", (Target("i-1", "127.0.0.1", 4789),), Settings())
    tables = [Table(), Table((Route(20001, "tms-1", "lb", "", 8500),), {"lb": group}), Table()]
    program = subprocess.run(
        [sys.executable, "-m", "lab.fabric.balancer"],
        input="".join(f"{write(table)}\n" for table in tables),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in program.stdout.splitlines()]

    assert [line["told"] for line in lines if "told" in line] == [1, 2, 3]
    assert all("counts" in before for before, line in pairwise(lines) if "told" in line)
    assert [line["health"]["state"] for line in lines if "health" in line] == ["initial"]
    assert list(lines[-1]["counts"]["sessions"]) == ["tms-1"]
    assert program.stderr == ""


def test_it_ends_with_a_word_about_what_it_cannot_read() -> None:
    command = [sys.executable, "-m", "lab.fabric.balancer"]
    program = subprocess.run(command, input="no table\n", capture_output=True, text=True, check=False, timeout=30)

    assert program.returncode == 1
    assert "JSONDecodeError" in program.stderr
