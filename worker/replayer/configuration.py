"""Where settings come from: a YAML file or an SSM parameter, with the command line's flags merged over it.

A `Source` can be asked again while the worker runs. `poll` is cheap when nothing is new, and tells of a bad new
version once: the caller keeps the settings it has, and counts. That a place cannot be read is told each time; the text
read next is new then, be it the one of before, so that good settings end the trouble and bad ones are told again.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replayer.settings import Settings, SettingsError, read_yaml, validate

_SSM = "ssm:"
_TIMEOUT = 5.0
_REMEDIES = {
    "ParameterNotFound": "create it, or correct the name or the region",
    "ParameterVersionNotFound": "leave the version out, or name one that exists",
    "AccessDeniedException": "allow ssm:GetParameter on it (and kms:Decrypt for a secure string)",
    "InvalidKeyId": "allow kms:Decrypt on the key of the secure string",
    "ExpiredTokenException": "renew the AWS credentials",
    "UnrecognizedClientException": "correct the AWS credentials",
    "ThrottlingException": "raise poll_interval",
}


class Unreadable(SettingsError):
    """The text itself cannot be had."""


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line says: settings that win, and fields that win in every destination."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    caps: Mapping[str, Any] = field(default_factory=dict)
    destinations: tuple[str, ...] = ()
    destination: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)  # of flags that are not called as their setting


class Source:
    """The place of the settings (a file, `ssm:NAME`, or None for flags alone), and the flags over it."""

    def __init__(self, place: str | None, flags: Flags | None = None) -> None:
        self.place = place or "command line"
        self.polled = self.place.startswith(_SSM)  # whether a new version may come while the worker runs
        self.version = ""  # fingerprint of the text read last, good or bad; empty if it could not be read
        self._reads = place is not None
        self._flags = flags or Flags()

    def load(self) -> Settings:
        """The settings as they are now, with one destination at least. Raises SettingsError."""
        return self._settings(self._read())

    def poll(self) -> Settings | None:
        """The settings if their text is new since the last look. Raises Unreadable, and SettingsError once for each bad
        version."""
        before, self.version = self.version, ""
        text = self._read()
        if _fingerprint(text) == before:
            self.version = before
            return None
        return self._settings(text)

    def _settings(self, text: str) -> Settings:
        self.version = _fingerprint(text)
        settings = merge(read_yaml(text, self.place), self._flags, self.place)
        if not settings.destinations:
            remedy = "write `- url: http://...` under it, or say --destination URL"
            raise SettingsError(f"{self.place}: destinations: none is named: {remedy}")
        return settings

    def _read(self) -> str:
        if not self._reads:
            return ""
        if self.polled:
            return _read_parameter(self.place.removeprefix(_SSM))
        return _read_file(self.place)


def merge(document: Mapping[str, Any], flags: Flags, source: str) -> Settings:
    """The settings of a document with the flags over them. Raises SettingsError that names the setting or the flag."""
    merged = {**document, **flags.settings}
    names = {name: flags.names.get(name, _flag(name)) for name in flags.settings}
    if flags.caps:
        merged["caps"] = _over(document.get("caps"), flags.caps)
        names |= {f"caps.{name}": _flag(f"cap-{name}") for name in flags.caps}
    if flags.destinations:
        merged["destinations"] = [{"url": url} for url in flags.destinations]
        names["destinations"] = flags.names.get("destination", "--destination")
    destinations = merged.get("destinations")
    if flags.destination and isinstance(destinations, list):
        merged["destinations"] = [_over(entry, flags.destination) for entry in destinations]
        for index in range(len(destinations)):
            names |= {f"destinations[{index}].{name}": _flag(name) for name in flags.destination}
    return validate(merged, source, names)


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _over(below: object, above: Mapping[str, Any]) -> object:
    """`above` over a mapping; anything else stays as it is, for `validate` to name."""
    return {**(below or {}), **above} if isinstance(below, dict | None) else below


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _read_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise Unreadable(f"--config {path}: {error.strerror}: name a readable YAML file, or ssm:NAME") from None
    except UnicodeDecodeError as error:
        raise Unreadable(f"--config {path}: byte {error.start} is not UTF-8: name a YAML file") from None


def _read_parameter(name: str) -> str:
    """The value of an SSM parameter, secure strings decrypted. Every failure is Unreadable."""
    place = f"--config {_SSM}{name}"
    if not name:
        raise Unreadable(f"{place}: write the parameter's name, such as ssm:/traffic-replay/settings")
    import boto3  # 0.2 s: only those pay who read from SSM
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(
        connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"mode": "standard", "total_max_attempts": 3}
    )
    try:
        client = boto3.Session(region_name=_region()).client("ssm", config=config)
        value = client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
    except ClientError as error:
        code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        remedy = _REMEDIES.get(code, "see AWS Systems Manager, Parameter Store")
        raise Unreadable(_line(f"{place}: {code}: {message or 'no message'}: {remedy}")) from None
    except (BotoCoreError, ValueError) as error:  # ValueError: an endpoint that is no address
        remedy = "check region (AWS_REGION), credentials and the route to the SSM endpoint"
        raise Unreadable(_line(f"{place}: {error}: {remedy}")) from None
    return str(value)


def _region() -> str | None:
    """AWS_REGION, then what botocore finds (AWS_DEFAULT_REGION, the profile), then the instance's own region."""
    from botocore.session import Session
    from botocore.utils import IMDSRegionProvider

    session = Session()
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    return str(region) if region else IMDSRegionProvider(session).provide()


def _line(text: str) -> str:
    return " ".join(text.split())
