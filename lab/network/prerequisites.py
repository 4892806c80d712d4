"""The programs that the lab needs, and the command that brings those that are missing."""

import shutil

from lab.network.sandbox import PATH

#: program → Debian package
PROGRAMS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
    "mount": "mount",
    "nginx": "nginx-light",
    "curl": "curl",
    "h2load": "nghttp2-client",
}


def complaint() -> str | None:
    """One line that names what is missing and the command that installs it; None when nothing is."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if not missing:
        return None
    packages = " ".join(sorted({PROGRAMS[program] for program in missing}))
    install = f"sudo apt-get update && sudo apt-get install --no-install-recommends -y {packages}"
    return f"the lab needs {', '.join(missing)}: {install}"
