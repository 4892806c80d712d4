"""The built stack, kept under .venv/lab/ until something that it is made of changes.

`sam build` takes some 15 s and a package index; the lab's sandbox has no way there. So it is made before the sandbox,
once: `python -m lab.build` makes it and prints where it is.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.cloud.deployment import ARCHITECTURE, ROOT, DeploymentError, build

#: What the built stack is made of, and the lock of the tool that makes it.
INPUTS = ("template.yaml", "functions", "layers", "worker", "tools/sam.lock")
PLACE = ROOT / ".venv/lab"

_LEAVINGS = frozenset({"__pycache__", "build", "dist"})
_SUFFIXES = frozenset({".pyc", ".egg-info"})
_IN_USE = 3600.0  # seconds since its last use, for which a build that is out of date is kept: somebody may be at it


def built(place: Path = PLACE, root: Path = ROOT, make: Callable[[Path], Path] = build) -> Path:
    """The built template, beside the functions and layers. Raises DeploymentError when it cannot be made."""
    folder = place / f"stack-{key(root)}"
    template = folder / "build/template.yaml"
    if not template.exists():
        place.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            if not template.exists():
                _make(folder, make)
    if os.access(folder, os.W_OK):
        os.utime(folder)
    return template


def key(root: Path = ROOT) -> str:
    """Names the inputs as they are now, with the interpreter and the architecture that is built for."""
    found = hashlib.sha256(f"{ARCHITECTURE} {sys.version}".encode())
    for path in _files(root):
        data = path.read_bytes()
        found.update(f"\0{path.relative_to(root)}\0{path.stat().st_mode & 0o111:o} {len(data)}\0".encode())
        found.update(data)
    return found.hexdigest()[:16]


def _files(root: Path) -> Iterator[Path]:
    for name in INPUTS:
        top = root / name
        if top.is_file():
            yield top
        for folder, folders, names in os.walk(top):
            folders[:] = sorted(one for one in folders if not _left_over(one))
            yield from (Path(folder, one) for one in sorted(names) if not _left_over(one))


def _left_over(name: str) -> bool:
    return name in _LEAVINGS or name.startswith(".") or os.path.splitext(name)[1] in _SUFFIXES


def _make(folder: Path, make: Callable[[Path], Path]) -> None:
    """Whole or not at all: what was cut short lies under another name, and goes at the next build."""
    for other in folder.parent.iterdir():
        if other.name.startswith("making-") or _out_of_use(other):
            shutil.rmtree(other)
    making = folder.with_name(f"making-{os.getpid()}")
    making.mkdir()
    make(making)
    making.rename(folder)


def _out_of_use(folder: Path) -> bool:
    return folder.name.startswith("stack-") and time.time() - folder.stat().st_mtime > _IN_USE


def main() -> int:
    try:
        print(built())
    except (DeploymentError, OSError) as error:
        print(f"the stack cannot be built: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
