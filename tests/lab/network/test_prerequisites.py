"""What is missing is said in one line, with the command that brings it."""

from pathlib import Path

import pytest

from lab.network import prerequisites


def _install(directory: Path, *programs: str) -> None:
    for program in programs:
        (directory / program).touch(mode=0o755)


def test_the_list_is_that_of_the_set_up() -> None:
    listed = "# program, package, whose\nip iproute2 lab\nwrk wrk\ntc  iproute2  lab\n"

    assert prerequisites.programs(listed) == {"ip": "iproute2", "tc": "iproute2"}
    assert {"ip", "tc", "nginx", "h2load", "curl"} <= prerequisites.PROGRAMS.keys()


def test_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, *prerequisites.PROGRAMS)
    monkeypatch.setattr(prerequisites, "PATH", str(tmp_path))

    assert prerequisites.complaint() is None


def test_what_is_missing_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, *(set(prerequisites.PROGRAMS) - {"h2load", "nginx"}))
    monkeypatch.setattr(prerequisites, "PATH", str(tmp_path))

    complaint = prerequisites.complaint()
    assert complaint is not None
    assert "nginx, h2load" in complaint
    assert complaint.endswith("-y nghttp2-client nginx-light")
    assert "\n" not in complaint
