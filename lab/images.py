"""What an instance runs: its image says so, or its user data.

There are no machine images here. An id stands for a server that is there when the instance runs; on any other image,
Amazon Linux included, the user data decides: where it installs the worker, as the stack's launch template does, the
worker runs with the settings that it names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

#: What `{{resolve:ssm:/aws/service/ami-amazon-linux-latest/...}}` gives in the emulator, for x86_64 and for arm64.
AMAZON_LINUX = ("ami-0c2023a1b2c3d4e5f", "ami-0c2023a1b2c3d4e50")

#: Images by the names that the lab has for them.
IMAGES: Mapping[str, str] = {
    "web": "ami-00000000000000eb0",  # production: answers HTTP on port 80
    "test": "ami-000000000000007e5",  # the test environment: likewise, and keeps bodies
    "plain": "ami-00000000000000b1a",  # nothing
    "worker": AMAZON_LINUX[0],
}

_INSTALLS = re.compile(r"\binstall\.sh\b")
_SETTINGS = re.compile(r"--config[ =]+ssm:(?P<name>[-._/A-Za-z0-9]+)")


class UserDataError(Exception):
    """User data that the lab cannot follow; the text is one line that says what to do."""


class Software(Enum):
    """What runs."""

    NOTHING = auto()
    WEB = auto()
    TEST = auto()
    WORKER = auto()


@dataclass(frozen=True, slots=True)
class Duty:
    """What one instance is there for."""

    software: Software
    settings: str = ""  # name of the SSM parameter that a worker reads


def duty(image: str, user_data: str) -> Duty:
    """Of an instance with this image and this user data. Raises UserDataError."""
    if image == IMAGES["web"]:
        return Duty(Software.WEB)
    if image == IMAGES["test"]:
        return Duty(Software.TEST)
    if _INSTALLS.search(user_data):
        return Duty(Software.WORKER, settings_of(user_data))
    return Duty(Software.NOTHING)


def settings_of(user_data: str) -> str:
    """The parameter that a worker's user data names, as template.yaml writes it: `install.sh … --config ssm:NAME`.

    Raises UserDataError.
    """
    names = {found["name"] for found in _SETTINGS.finditer(user_data)}
    if len(names) != 1:
        what = f"{len(names)} different parameters" if names else "no parameter"
        raise UserDataError(
            f"this user data installs a worker and names {what} with its settings: it has to say"
            " `install.sh ... --config ssm:NAME` once, as template.yaml does"
        )
    return names.pop()
