"""The set-up scripts, with interpreters that are shell scripts: who is asked in which order, and what is said."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = "awk bash cat cp cut dirname env grep head mkdir mktemp rm sed sh sort tail".split()

GOOD = """#!/bin/sh
echo "$@" >>"$CALLS"
case "$1 $2" in
    "-c "*) echo "$0" ;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip") cat "$8" >>"$CALLS"; cp "$FAKE_UV" "${0%/*}/uv" ;;
esac
"""
SHIM = "#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n"
OLD = "#!/bin/sh\nexit 1\n"
UV = """#!/bin/sh
[ "$1" = --version ] && echo "uv 9.9.9 (fake)" && exit
echo "uv $*" >>"$CALLS"
[ "$2" != "$FAILING" ] || { echo "no such package" >&2; exit 1; }
"""


class Machine:
    """A tree with the scripts in it, and a PATH, a home and usual places that hold only what a test puts there."""

    def __init__(self, root: Path) -> None:
        self.tree, self.home, self.path, self.place = (root / name for name in ("tree", "home", "path", "place"))
        for folder in (self.tree, self.home, self.path, self.place, root / "programs"):
            folder.mkdir()
        for program in PROGRAMS:
            found = shutil.which(program)
            assert found is not None, program
            (root / "programs" / program).symlink_to(found)
        shutil.copytree(ROOT / "tools", self.tree / "tools")
        (self.tree / "requirements.lock").write_text(
            "rich==1.0 \\\n    --hash=sha256:aa\n"
            "uv==9.9.9 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n    # via dev\n"
        )
        self.calls = root / "calls"
        self.environment = {
            "PATH": f"{self.path}:{root / 'programs'}",
            "HOME": str(self.home),
            "CALLS": str(self.calls),
            "FAKE_UV": str(program_at(root / "uv", UV)),
            "FAILING": "",
        }

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.tree / "tools" / script, *arguments],
            env=self.environment | environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def find(self, **environment: str) -> str | None:
        """The interpreter that find-python.sh settles on."""
        done = self.run("find-python.sh", str(self.place), **environment)
        assert not done.stderr
        assert bool(done.stdout) == (done.returncode == 0)
        return done.stdout.strip() or None

    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def program_at(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_no_interpreter_is_found_where_none_is(machine: Machine) -> None:
    assert machine.find() is None


def test_a_shim_that_only_complains_and_an_older_python_are_passed_over(machine: Machine) -> None:
    program_at(machine.path / "python3.13", SHIM)
    program_at(machine.path / "python3", OLD)
    assert machine.find() is None
    pyenv = program_at(machine.home / ".pyenv/versions/3.13.0/bin/python3.13", GOOD)
    assert machine.find() == str(pyenv)


def test_the_search_goes_path_then_pyenv_then_usual_places_then_uv(machine: Machine) -> None:
    uv = program_at(machine.home / ".local/share/uv/python/cpython-3.13.1-linux/bin/python3.13", GOOD)
    assert machine.find() == str(uv)
    place = program_at(machine.place / "python3.13", GOOD)
    assert machine.find() == str(place)
    pyenv = program_at(machine.home / ".pyenv/versions/3.13.0/bin/python3.13", GOOD)
    assert machine.find() == str(pyenv)
    unversioned = program_at(machine.path / "python3", GOOD)
    assert machine.find() == str(unversioned)
    versioned = program_at(machine.path / "python3.13", GOOD)
    assert machine.find() == str(versioned)


def test_the_newest_of_several_patch_releases_is_taken(machine: Machine) -> None:
    for patch in (9, 10, 2):
        program_at(machine.home / f".pyenv/versions/3.13.{patch}/bin/python3.13", GOOD)
    assert machine.find() == str(machine.home / ".pyenv/versions/3.13.10/bin/python3.13")


def test_a_pyenv_elsewhere_is_found_by_its_variable(machine: Machine, tmp_path: Path) -> None:
    python = program_at(tmp_path / "my pyenv/versions/3.13.0/bin/python3.13", GOOD)
    assert machine.find(PYENV_ROOT=str(tmp_path / "my pyenv")) == str(python)


def test_what_a_shim_on_path_stands_for_is_found_beside_it(machine: Machine, tmp_path: Path) -> None:
    """pyenv's own place need not be told by a variable or lie at home."""
    program_at(tmp_path / "pyenv" / "shims" / "python3.13", SHIM)
    wanted = program_at(tmp_path / "pyenv" / "versions" / "3.13.4" / "bin" / "python3.13", GOOD)
    path = f"{tmp_path / 'pyenv' / 'shims'}:{machine.environment['PATH']}"
    assert machine.run("find-python.sh", str(machine.place), PATH=path).stdout.strip() == str(wanted)


def test_an_interpreter_that_is_named_is_the_only_one_asked(machine: Machine, tmp_path: Path) -> None:
    program_at(machine.path / "python3.13", GOOD)
    mine = program_at(tmp_path / "mine/python", GOOD)
    assert machine.find(PYTHON=str(mine)) == str(mine)
    assert machine.find(PYTHON=str(program_at(tmp_path / "mine/older", OLD))) is None


def test_setup_makes_the_environment_with_what_the_lock_pins(machine: Machine) -> None:
    python = program_at(machine.path / "python3.13", GOOD)
    done = machine.run("setup.sh")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"setup: making .venv with {python}",
        "setup: installing uv 9.9.9",
        "setup: installing 2 pinned packages",
        "setup: installing worker/ (editable)",
        "setup: installing layers/mirroring/ (editable)",
        "setup: done",
    ]
    calls = machine.called()
    assert calls[1:] == [
        "-m venv .venv",
        calls[2],
        "uv==9.9.9 \\",
        "    --hash=sha256:bb \\",
        "    --hash=sha256:cc",
        "uv pip sync --require-hashes requirements.lock",
        "uv pip install --no-deps --no-build-isolation --editable worker",
        "uv pip install --no-deps --no-build-isolation --editable layers/mirroring",
    ]
    assert calls[2].startswith("-m pip install --quiet --no-input --require-hashes --requirement ")
    assert (machine.tree / ".venv/.ready").read_text().strip() == str(machine.tree.resolve())


def test_setup_keeps_an_environment_that_works_and_remakes_one_from_another_place(machine: Machine) -> None:
    program_at(machine.path / "python3.13", GOOD)
    machine.run("setup.sh")
    assert "making" not in machine.run("setup.sh").stdout
    (machine.tree / ".venv/.ready").write_text("/somewhere/else\n")
    assert "making .venv" in machine.run("setup.sh").stdout


def test_a_failed_step_shows_its_last_words_and_leaves_no_stamp(machine: Machine) -> None:
    program_at(machine.path / "python3.13", GOOD)
    done = machine.run("setup.sh", FAILING="sync")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["no such package", "setup: could not finish: installing 2 pinned packages"]
    assert not (machine.tree / ".venv/.ready").exists()


def test_a_named_interpreter_that_will_not_do_is_named_in_the_complaint(machine: Machine) -> None:
    program_at(machine.path / "python3.12", OLD)
    done = machine.run("setup.sh", PYTHON="python3.12")
    assert done.returncode == 1
    assert done.stderr == "setup: PYTHON=python3.12 is not a Python 3.13 with venv and pip.\n"


def test_where_there_is_no_python_and_uv_brings_none_two_lines_say_what_to_do(machine: Machine) -> None:
    program_at(machine.tree / "tools/find-python.sh", OLD)
    program_at(machine.path / "python3", GOOD)
    done = machine.run("setup.sh", FAILING="install")
    assert done.returncode == 1
    asking, why, remedy = done.stderr.splitlines()
    assert asking == "setup: no Python 3.13 here; asking uv for one"
    assert why == "setup: Python 3.13 is needed, and uv could not bring it: no such package"
    assert "apt-get install python3.13-venv" in remedy and "PYTHON=" in remedy
    assert machine.called()[-1] == "uv python install --no-bin 3.13"


def test_a_python_that_uv_brought_is_used(machine: Machine) -> None:
    program_at(machine.path / "python3", GOOD)
    program_at(
        machine.tree / "tools/find-python.sh", '#!/bin/sh\ngrep -qs "uv python" "$CALLS" && command -v python3\n'
    )
    done = machine.run("setup.sh")
    assert done.returncode == 0
    assert f"setup: making .venv with {machine.path / 'python3'}" in done.stdout.splitlines()


def test_an_ordinary_user_is_told_how_to_install_the_missing_programs(machine: Machine) -> None:
    program_at(machine.path / "id", "#!/bin/sh\necho 1000\n")
    program_at(machine.path / "apt-get", '#!/bin/sh\necho "$@" >>"$CALLS"\n')
    present = "nginx h2load tcpdump tshark ethtool curl openssl ps sysctl unshare mount ip"
    present += " debootstrap shellcheck strace systemd-analyze"
    for name in present.split():
        program_at(machine.path / name, GOOD)
    done = machine.run("system.sh")
    assert done.returncode == 1
    assert done.stderr == (
        "system: some programs are missing; please run: "
        "sudo apt-get install --no-install-recommends iproute2 tcpreplay wrk\n"
    )
    for name in ("tc", "tcpreplay", "wrk"):
        program_at(machine.path / name, GOOD)
    assert machine.run("system.sh").returncode == 0
    assert machine.called() == []


def test_the_lab_alone_needs_fewer_programs(machine: Machine) -> None:
    program_at(machine.path / "id", "#!/bin/sh\necho 1000\n")
    program_at(machine.path / "apt-get", GOOD)
    for name in "nginx h2load ethtool curl mount ip".split():
        program_at(machine.path / name, GOOD)
    done = machine.run("system.sh", "lab")
    assert done.returncode == 1
    assert done.stderr.endswith("please run: sudo apt-get install --no-install-recommends iproute2\n")
    program_at(machine.path / "tc", GOOD)
    assert machine.run("system.sh", "lab").returncode == 0
    assert machine.run("system.sh").returncode == 1


def test_a_demo_without_namespaces_asks_for_no_programs(tmp_path: Path) -> None:
    """`make demo` on a machine whose kernel refuses the lab, or grants it, with nothing else in it but a shell."""
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "tools", tree / "tools")
    shutil.copy(ROOT / "Makefile", tree)
    said = tmp_path / "said"
    program_at(tree / "tools/setup-tools.sh", "#!/bin/sh\n")
    program_at(tree / "tools/system.sh", f'#!/bin/sh\necho "system $*" >>{said}\n')
    program_at(
        tree / ".venv/bin/python", f'#!/bin/sh\necho "$@" >>{said}\ncase "$*" in *sandbox*) exit $REFUSED ;; esac\n'
    )
    (tree / ".venv/.ready").write_text(f"{tree.resolve()}\n")
    sandbox, demo = "-m lab.network.sandbox true", "-m lab.demo "
    for refused, wanted in (("2", [sandbox, demo]), ("0", [sandbox, "system lab", demo])):
        said.write_text("")
        command = ["make", "--old-file=.venv/.ready", "--no-print-directory", "demo"]
        subprocess.run(command, cwd=tree, env={**os.environ, "REFUSED": refused}, check=True, capture_output=True)
        assert [line.rstrip() for line in said.read_text().splitlines()] == [line.rstrip() for line in wanted]
