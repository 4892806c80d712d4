"""The programs that the lab needs, and the command that brings those that are missing."""

import shutil
from pathlib import Path

from lab.network.sandbox import PATH

_LIST = Path(__file__).parents[2] / "tools/programs.txt"


def programs(text: str) -> dict[str, str]:
    """The lab's, each with its Debian package, of the list that tools/system.sh reads too."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: row[1] for row in rows if row[2:] == ["lab"]}


PROGRAMS = programs(_LIST.read_text())


def complaint() -> str | None:
    """One line that names what is missing and the command that installs it; None when nothing is."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if not missing:
        return None
    packages = " ".join(sorted({PROGRAMS[program] for program in missing}))
    install = f"sudo apt-get update && sudo apt-get install --no-install-recommends -y {packages}"
    return f"the lab needs {', '.join(missing)}: {install}"
