"""The policy in force, kept in SSM Parameter Store, with the switch beside it that pauses everything.

A user's own parameter wins over the stack's default. Of each the newest valid version counts: an invalid one is
refused, and the parameter's history holds the one before it, so that this works after a cold start too.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mirroring.clients import Meter, call, pages
from mirroring.model import MirroringError, Refused
from mirroring.policy import Policy, PolicyError, check_size, load

PAUSED = "paused"
RUNNING = "running"

_HISTORY_PAGE = 50


@dataclass(frozen=True)
class Refusal:
    """A version of a policy that is not in force because it is invalid."""

    parameter: str
    version: int
    error: PolicyError

    def __str__(self) -> str:
        return f"{self.parameter}:{self.version}: {self.error}"


@dataclass(frozen=True)
class InForce:
    policy: Policy
    text: str
    parameter: str
    version: int
    paused: bool  # by the state parameter or by the policy itself
    refused: tuple[Refusal, ...] = ()  # newest first
    why_paused: str = ""  # one sentence with the remedy


class Policies(Protocol):
    def read(self) -> InForce: ...
    def paused(self) -> bool: ...


class NoPolicy(MirroringError):
    """There is none, or none that is valid."""

    def __init__(self, text: str, refused: tuple[Refusal, ...]) -> None:
        super().__init__(text)
        self.refused = refused


@dataclass(frozen=True)
class _Version:
    parameter: str
    number: int
    text: str
    modified: str  # a parameter that is deleted and made again counts its versions from 1 again
    tier: str = "Advanced"  # only the history tells; what is there cannot be larger than this one allows


@dataclass(frozen=True)
class _Choice:
    """What follows from the newest versions, which never change: older ones need not be asked for again."""

    of: tuple[_Version, ...]
    version: _Version
    policy: Policy
    refused: tuple[Refusal, ...]


class Store:
    """`own` and `default` name policies, `state` the switch. An empty name stands for none."""

    def __init__(self, ssm: Any, own: str, default: str, state: str) -> None:
        self._ssm = ssm
        self._policies = [name for name in dict.fromkeys((own, default)) if name]
        self._state = state
        self._choice: _Choice | None = None
        self._meter = Meter(ssm)

    @property
    def calls(self) -> int:
        """Requests sent, botocore's own retries included."""
        return self._meter.calls

    def read(self) -> InForce:
        """The policy in force; one call, unless the newest version is invalid and new to us."""
        found = self._newest()
        newest = tuple(_version(found[name]) for name in self._policies if name in found)
        if self._choice is None or self._choice.of != newest:
            self._choice = self._choose(newest)
        choice = self._choice
        why = self._why_paused(found.get(self._state))
        if not why and choice.policy.paused:
            why = f"the policy in {choice.version.parameter} says `paused: true`: take it out to go on"
        return InForce(
            policy=choice.policy,
            text=choice.version.text,
            parameter=choice.version.parameter,
            version=choice.version.number,
            paused=bool(why),
            refused=choice.refused,
            why_paused=why,
        )

    def paused(self) -> bool:
        """Whether the switch is off: anything but `running` holds us back, and so does a switch that is gone."""
        if not self._state:
            return False
        try:
            answer = call(self._ssm, "GetParameter", Name=self._state)
        except Refused as refused:
            if refused.code == "ParameterNotFound":
                return True
            raise
        return bool(self._why_paused(answer["Parameter"]))

    def pause(self) -> None:
        self._switch(PAUSED)

    def resume(self) -> None:
        self._switch(RUNNING)

    def remove_switch(self) -> None:
        """Without one everything is paused, too."""
        try:
            call(self._ssm, "DeleteParameter", Name=self._state)
        except Refused as refused:
            if refused.code != "ParameterNotFound":
                raise

    def _switch(self, value: str) -> None:
        call(self._ssm, "PutParameter", Name=self._state, Value=value, Type="String", Overwrite=True)

    def _why_paused(self, found: Mapping[str, Any] | None) -> str:
        if not self._state:
            return ""
        remedy = f"write `{RUNNING}` to it to go on"
        if found is None:
            return f"the parameter {self._state} does not exist, and without it nothing is changed: {remedy}"
        value = str(found["Value"]).strip()
        if value == RUNNING:
            return ""
        if value == PAUSED:
            return f"the parameter {self._state} says `{PAUSED}`: {remedy}"
        return f"the parameter {self._state} says neither `{RUNNING}` nor `{PAUSED}`: {remedy}"

    def _newest(self) -> dict[str, Mapping[str, Any]]:
        """All our parameters in one call; those that do not exist are absent."""
        names = [*self._policies, *([self._state] if self._state else [])]
        answer = call(self._ssm, "GetParameters", Names=names, WithDecryption=True)
        return {raw["Name"]: raw for raw in answer["Parameters"]}

    def _choose(self, newest: tuple[_Version, ...]) -> _Choice:
        refused: list[Refusal] = []
        for version in newest:
            for candidate in self._candidates(version):
                judged = _judge(candidate)
                if isinstance(judged, Policy):
                    return _Choice(newest, candidate, judged, tuple(refused))
                refused.append(Refusal(candidate.parameter, candidate.number, judged))
        raise NoPolicy(_nothing(self._policies, refused), tuple(refused))

    def _candidates(self, newest: _Version) -> Iterator[_Version]:
        """The newest version, and then all before it, newest first."""
        yield newest
        history = pages(
            self._ssm,
            "GetParameterHistory",
            "Parameters",
            Name=newest.parameter,
            WithDecryption=True,
            MaxResults=_HISTORY_PAGE,
        )
        older = [version for version in map(_version, history) if version.number < newest.number]  # oldest first
        yield from sorted(older, key=lambda version: version.number, reverse=True)


def _version(raw: Mapping[str, Any]) -> _Version:
    modified = str(raw.get("LastModifiedDate", ""))
    return _Version(raw["Name"], raw["Version"], raw["Value"], modified, raw.get("Tier", "Advanced"))


def _judge(version: _Version) -> Policy | PolicyError:
    try:
        check_size(version.text, "Standard" if version.tier == "Standard" else "Advanced")
        return load(version.text)
    except PolicyError as error:
        return error


def _nothing(names: Collection[str], refused: Collection[Refusal]) -> str:
    if not refused:
        return (
            "there is no policy: is the stack's name (--stack) or the Region (--region) another?"
            f" If not, write one to the parameter {' or '.join(names)}"
        )
    newest = next(iter(refused))
    return (
        f"no version of {' or '.join(names)} is a valid policy: correct {newest.parameter}, "
        f"whose version {newest.version} says: {newest.error}"
    )
