"""What `sam build` made: as small as it must be, holding our code and pinned wheels, and running without this project.

Lambda's limits: https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
"""

import importlib.metadata
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from lab.cloud.deployment import ARCHITECTURE, ARCHITECTURES, build
from lab.cloud.intrinsics import TemplateError
from lab.cloud.stack import Stack
from replayer import __version__
from tests.deploy.given import REQUIRED, ROOT
from tools.architectures import PARAMETERS, pinned

MIB = 1 << 20
UNZIPPED = 250 * MIB  # of a function with its layers
SMALL = 10 * 10**6  # the control plane's layer, zipped
#: What python3.13 in Lambda brings beside Python: botocore, and what it needs itself.
RUNTIME = ("botocore", "urllib3", "dateutil", "six.py", "jmespath")
SOURCES = {"MirroringLayer": ROOT / "layers/mirroring", "WorkerLayer": ROOT / "worker"}
#: e_machine, of the ELF header's third field (man 5 elf).
MACHINES = {62: "x86_64", 183: "arm64"}
OTHER = next(one for one in MACHINES.values() if one != ARCHITECTURE)
LAYERS = pytest.mark.parametrize("layer", sorted(SOURCES))
FUNCTIONS = pytest.mark.parametrize("function", ["reconcile", "autotag", "lifecycle"])


@pytest.fixture(scope="module")
def folder(built: Path) -> Path:
    return built if built.is_dir() else built.parent


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lambda's own packages, and no other of this environment."""
    made = tmp_path_factory.mktemp("runtime")
    installed = Path(str(importlib.metadata.distribution("botocore").locate_file("")))
    for name in RUNTIME:
        (made / name).symlink_to(installed / name)
    return made


def python(code: str, *paths: Path) -> str:
    """What a program prints that sees these folders and Python's own library alone."""
    begin = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", begin + code], capture_output=True, text=True, check=False, env={}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files(folder))


def zipped(folder: Path, target: Path) -> int:
    """Bytes of the zip that `sam deploy` uploads: it deflates at zlib's usual level."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files(folder):
            archive.write(path, path.relative_to(folder))
    return target.stat().st_size


# What is in them


def test_the_control_planes_layer_is_small(folder: Path, tmp_path: Path) -> None:
    assert zipped(folder / "MirroringLayer", tmp_path / "layer.zip") <= SMALL


@LAYERS
def test_layers_stay_within_lambdas_limit(folder: Path, layer: str) -> None:
    assert size(folder / layer) + max(size(each) for each in folder.glob("*Function")) <= UNZIPPED


@LAYERS
def test_a_layer_holds_its_pinned_packages_and_no_other(folder: Path, layer: str) -> None:
    pinned = re.findall(r"^([\w.-]+)==([\w.]+)", (SOURCES[layer] / "requirements.txt").read_text(), re.MULTILINE)
    found = {
        (_plain(each.name), each.version)
        for each in importlib.metadata.distributions(path=[str(folder / layer / "python")])
    }
    assert found == {(_plain(name), version) for name, version in pinned}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@LAYERS
def test_a_layer_holds_our_code_as_it_is_and_nothing_else_of_ours(folder: Path, layer: str) -> None:
    """Beside packages' own files, which their RECORD lists."""
    content = folder / layer / "python"
    theirs = {
        os.path.normpath(path)
        for each in importlib.metadata.distributions(path=[str(content)])
        for path in each.files or ()
    }
    ours = {str(path.relative_to(content)) for path in files(content)} - theirs
    ours = {name for name in ours if not re.match(r"[^/]+\.(data|dist-info)/|bin/", name)}
    source = SOURCES[layer]
    there = {str(path.relative_to(source)) for path in files(source) if not {"__pycache__", "dist"} & set(path.parts)}
    assert ours == there
    for name in ours:
        assert (content / name).read_bytes() == (source / name).read_bytes()


@LAYERS
def test_a_layer_holds_no_tests_and_no_bytecode_of_ours(folder: Path, layer: str) -> None:
    content = folder / layer / "python"
    assert not [path for path in files(content) if path.suffix == ".pyc"]
    assert not [path for path in content.iterdir() if path.name.startswith(("test", ".", "lab"))]
    assert {path.name for path in (folder / layer).iterdir()} == {"python"}


@FUNCTIONS
def test_a_function_is_its_app_alone(folder: Path, function: str) -> None:
    made = folder / f"{function.title()}Function"
    assert [path.name for path in files(made)] == ["app.py"]


# That they run


@FUNCTIONS
def test_a_function_starts_with_its_layer_and_lambdas_packages(folder: Path, runtime: Path, function: str) -> None:
    paths = (folder / f"{function.title()}Function", folder / "MirroringLayer/python", runtime)
    code = "import app, mirroring; print(callable(app.handler), mirroring.__file__)"
    assert python(code, *paths) == f"True {paths[1] / 'mirroring/__init__.py'}"


def test_every_module_of_the_control_plane_that_runs_in_lambda_imports(folder: Path, runtime: Path) -> None:
    """mirrorctl's modules print with rich, which Lambda has no use for."""
    code = """
import pkgutil, importlib, mirroring
for each in pkgutil.iter_modules(mirroring.__path__):
    try:
        importlib.import_module(f"mirroring.{each.name}")
    except ModuleNotFoundError as missing:
        print(each.name, missing.name)
"""
    lines = [line.split() for line in python(code, folder / "MirroringLayer/python", runtime).splitlines()]
    assert {missing for _, missing in lines} <= {"rich", "boto3"}
    assert not {name for name, _ in lines} & {"runtime", "reconcile", "autotag", "lifecycle", "telemetry", "clients"}


def test_time_zones_are_known_without_the_systems_own(folder: Path) -> None:
    """Of policy windows: Lambda's image has no zone files."""
    code = "import zoneinfo; zoneinfo.reset_tzpath(()); print(zoneinfo.ZoneInfo('Europe/Berlin'))"
    assert python(code, folder / "MirroringLayer/python") == "Europe/Berlin"


def test_the_worker_runs_from_its_layer_alone(folder: Path) -> None:
    code = """
import runpy
sys.argv = ["replayer", "--version"]
runpy.run_module("replayer", run_name="__main__")
"""
    assert __version__ in python(code, folder / "WorkerLayer/python")


def test_every_module_of_the_worker_imports(folder: Path) -> None:
    code = """
import pkgutil, importlib, replayer
for each in pkgutil.iter_modules(replayer.__path__):
    if each.name != "__main__":
        importlib.import_module(f"replayer.{each.name}")
print(replayer.__file__)
"""
    place = folder / "WorkerLayer/python"
    assert python(code, place) == str(place / "replayer/__init__.py")


# For which machine


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built for the architecture that is not this machine's."""
    return build(tmp_path_factory.mktemp("foreign"), dict.fromkeys(PARAMETERS, OTHER)).parent


def machines(layer: Path) -> dict[str, str]:
    """The machine of each compiled module and library, by its name."""
    libraries = [path for path in files(layer) if re.search(r"\.so(\.\d+)*$", path.name)]
    return {path.name: machine(path) for path in libraries}


def machine(library: Path) -> str:
    head = library.read_bytes()[:20]
    assert head[:6] == b"\x7fELF\x02\x01", f"{library} is no 64-bit little-endian ELF file"
    return MACHINES[struct.unpack_from("<H", head, 18)[0]]


@LAYERS
def test_compiled_modules_are_of_this_machine(folder: Path, layer: str) -> None:
    assert set(machines(folder / layer).values()) == {ARCHITECTURE}


@LAYERS
def test_compiled_modules_are_of_the_other_machine_when_it_is_built_for(
    folder: Path, foreign: Path, layer: str
) -> None:
    """The template's default is not what this machine may be, and wheels differ from one architecture to the other."""
    made = machines(foreign / layer)
    assert set(made.values()) == {OTHER}
    assert {name.partition(".")[0] for name in made} == {name.partition(".")[0] for name in machines(folder / layer)}


@LAYERS
def test_a_layer_of_the_other_architecture_holds_the_same_packages(folder: Path, foreign: Path, layer: str) -> None:
    def packages(layer: Path) -> set[tuple[str, str]]:
        return {(each.name, each.version) for each in importlib.metadata.distributions(path=[str(layer / "python")])}

    assert packages(foreign / layer) == packages(folder / layer)


def test_the_control_planes_layer_is_small_on_the_other_architecture_too(foreign: Path, tmp_path: Path) -> None:
    assert zipped(foreign / "MirroringLayer", tmp_path / "layer.zip") <= SMALL


# That they are deployed as they were built


@pytest.fixture(scope="module")
def made(built: Path) -> Stack:
    """The built template as `make build` leaves it."""
    path = built.with_name("pinned.yaml")
    path.write_text(yaml.safe_dump(pinned(yaml.safe_load(built.read_text()), dict.fromkeys(PARAMETERS, ARCHITECTURE))))
    return Stack.read(path).with_parameters(**REQUIRED)


def test_a_stack_is_deployed_for_the_architectures_that_it_was_built_for(built: Path, made: Stack) -> None:
    for stack in (made, made.with_parameters(**ARCHITECTURES)):
        assert {name: stack.parameters[name] for name in ARCHITECTURES} == ARCHITECTURES
    plain = Stack.read(built).with_parameters(**REQUIRED, **ARCHITECTURES)
    assert made.resources == plain.resources
    assert made.outputs == plain.outputs


@pytest.mark.parametrize("name", PARAMETERS)
def test_another_architecture_than_was_built_is_refused(made: Stack, name: str) -> None:
    """An answer at the prompt, or one that was saved by an earlier deploy."""
    with pytest.raises(TemplateError, match=f"parameter {name}: '{OTHER}' is none of"):
        _ = made.with_parameters(**{name: OTHER}).parameters
