"""The emulator as its callers see it, in whichever process: AWS's API, and the side doors."""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from lab.cloud.events import REGION
from lab.cloud.post import Posted

#: ministack takes this key for the account's root user, whom no policy limits.
ROOT_USER = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


_making = threading.Lock()  # a session makes one client at a time


@cache
def _session() -> boto3.Session:
    """One for all: reading EC2's description takes 0.2 s."""
    return boto3.Session()


class RefusedError(Exception):
    """A side door says no; the text says why."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an emulator listens. Nothing is sent before somebody asks."""

    url: str

    def client(self, service: str, **credentials: str) -> Any:
        """A boto3 client that tries once: the root user's, or that of given `aws_access_key_id`, …"""
        config = Config(retries={"total_max_attempts": 1}, read_timeout=120)
        with _making:
            return _session().client(
                service, region_name=REGION, endpoint_url=self.url, config=config, **(credentials or ROOT_USER)
            )

    def door(self, name: str, said: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer of a side door to what is said, or to a mere look. Raises RefusedError, OSError and
        HTTPException."""
        place = urlsplit(self.url)
        connection = HTTPConnection(place.hostname or "", place.port, timeout=60)
        try:
            if said is None:
                connection.request("GET", f"/_lab/{name}")
            else:
                connection.request("POST", f"/_lab/{name}", json.dumps(dict(said)))
            answer = connection.getresponse()
            told: dict[str, Any] = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise RefusedError(str(told["message"]))
        return told

    def events(self, after: int = 0) -> list[Posted]:
        """Those with higher numbers, and what became of them; the oldest of very many are forgotten."""
        found: list[Posted] = []
        while page := self.door(f"events?after={found[-1].number if found else after}")["events"]:
            found += [Posted(**one) for one in page]
        return found
