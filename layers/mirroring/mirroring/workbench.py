"""What a command of mirrorctl works with: the policy that it is about, and the account that its options name."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from mirroring.clients import call, client, pages
from mirroring.ec2 import Ec2, connect
from mirroring.environment import Environment, environment_of
from mirroring.model import Instance, MirroringError, Refused, name_of
from mirroring.policy import Policy, PolicyError, load
from mirroring.reconcile import Reconciler
from mirroring.store import InForce, Policies, Store

STACK_NAME_TAG = "aws:cloudformation:stack-name"  # CloudFormation's own, on all that a stack makes


@dataclass(frozen=True)
class Options:
    """What every command can be told."""

    file: str | None = None
    parameter: str | None = None
    stack: str = ""
    profile: str | None = None
    region: str | None = None
    worker_groups: str = ""
    autotag_keys: str = ""


class FromFile:
    """A policy in a file, and the stack's switch."""

    def __init__(self, path: str, store: Store, state: str) -> None:
        self._path = path
        self._store = store
        self._state = state

    def read(self) -> InForce:
        policy, text = load_file(self._path)
        why = ""
        if self._store.paused():
            why = f"the parameter {self._state} does not say `running`: write it there to go on"
        elif policy.paused:
            why = f"{self._path} says `paused: true`: take it out to go on"
        return InForce(policy, text, self._path, 0, bool(why), why_paused=why)

    def paused(self) -> bool:
        return self._store.paused()


class Allowing:
    """A policy whose guards let through a given number of deletes, whatever fraction of all that is."""

    def __init__(self, policies: Policies, deletes: int) -> None:
        self._policies = policies
        self._deletes = deletes

    def read(self) -> InForce:
        in_force = self._policies.read()
        limits = in_force.policy.limits.model_copy(update={"deletes": self._deletes, "delete_fraction": 1.0})
        return replace(in_force, policy=in_force.policy.model_copy(update={"limits": limits}))

    def paused(self) -> bool:
        return self._policies.paused()


class Remembering:
    """EC2, and the names of the instances that it told of: a plan does not hold them, its table shows them."""

    def __init__(self, cloud: Ec2, names: dict[str, str]) -> None:
        self._cloud = cloud
        self._names = names

    def marked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        found = self._cloud.marked(ids)
        self._names |= {instance.id: name_of(instance) for instance in found.values()}
        return found

    def __getattr__(self, name: str) -> Any:
        """All else is EC2's."""
        return getattr(self._cloud, name)


def load_file(path: str) -> tuple[Policy, str]:
    """The policy in a file, and its text. Raises MirroringError."""
    text = read_file(path)
    try:
        return load(text), text
    except PolicyError as error:
        raise MirroringError(f"{path} is no valid policy:\n{error}") from error


def read_file(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MirroringError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MirroringError(f"{path} is not UTF-8 text (byte {error.start})") from error


class Workbench:
    """Clients are made when they are first needed: what works without AWS asks for no credentials."""

    def __init__(self, options: Options, clock: Callable[[], datetime], sleep: Callable[[float], None]) -> None:
        self.options = options
        self._clock = clock
        self._sleep = sleep
        self.names: dict[str, str] = {}  # of all instances that its reconcilers have seen; empty where one has none

    @property
    def now(self) -> datetime:
        return self._clock()

    @property
    def owner(self) -> str:
        return self._named.owner

    @cached_property
    def environment(self) -> Environment:
        """As the stack's functions have it."""
        if self._named.worker_groups:
            return self._named
        return replace(self._named, worker_groups=self._worker_groups())

    @cached_property
    def cloud(self) -> Ec2:
        return connect(profile=self.options.profile, region=self.options.region)

    @cached_property
    def store(self) -> Store:
        named, parameter = self._named, self.options.parameter
        if parameter:
            return Store(self.client("ssm"), parameter, "", named.state_parameter)
        return Store(self.client("ssm"), named.policy_parameter, named.default_policy_parameter, named.state_parameter)

    @property
    def policies(self) -> Policies:
        if self.options.file:
            return FromFile(self.options.file, self.store, self._named.state_parameter)
        return self.store

    def reconciler(self, *, deletes: int | None = None) -> Reconciler:
        policies = self.policies if deletes is None else Allowing(self.policies, deletes)
        return Reconciler(Remembering(self.cloud, self.names), policies, self.environment, self._clock, self._sleep)

    def parameters(self) -> tuple[dict[str, str | None], str, str, str]:
        """The stack's parameters, as far as they exist, and the names of the user's own, the default and the state."""
        named = self._named
        own = self.options.parameter or named.policy_parameter
        names = (own, named.default_policy_parameter, named.state_parameter)
        found = call(self.client("ssm"), "GetParameters", Names=list(names), WithDecryption=True)["Parameters"]
        values = {raw["Name"]: raw["Value"].strip() for raw in found}
        return {name: values.get(name) for name in names}, *names

    def client(self, service: str) -> Any:
        return client(service, profile=self.options.profile, region=self.options.region)

    @cached_property
    def _named(self) -> Environment:
        options = self.options
        variables = {"MIRROR_OWNER": options.stack, "WORKER_GROUPS": options.worker_groups}
        if options.autotag_keys:  # else it is not known which the stack allows
            variables["AUTOTAG_KEYS"] = options.autotag_keys
        return environment_of(variables)

    def _worker_groups(self) -> frozenset[str]:
        """The Auto Scaling groups that the stack made. Without them a run by hand would mirror the workers."""
        filters = [{"Name": f"tag:{STACK_NAME_TAG}", "Values": [self.owner]}]
        try:
            found = list(
                pages(self.client("autoscaling"), "DescribeAutoScalingGroups", "AutoScalingGroups", Filters=filters)
            )
        except Refused as refused:
            remedy = "name the worker fleet's Auto Scaling groups by --worker-groups A,B"
            raise MirroringError(f"{refused}: {remedy}") from refused
        return frozenset(group["AutoScalingGroupName"] for group in found)
