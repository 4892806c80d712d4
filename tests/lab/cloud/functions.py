"""Functions in a running emulator: made for one question each."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from lab.cloud.emulator import Emulator
from lab.cloud.events import ACCOUNT

_ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"


def zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


def answer(cloud: Emulator, name: str, program: str, layers: Sequence[str] = ()) -> Any:
    """What a new function's `handler` returns."""
    client = cloud.client("lambda")
    client.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=_ROLE,
        Handler="app.handler",
        Code={"ZipFile": zipped({"app.py": program})},
        Layers=list(layers),
        Timeout=30,
    )
    return json.loads(client.invoke(FunctionName=name)["Payload"].read())
