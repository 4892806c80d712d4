"""What a function is made of: built at its first use, once per container.

Nothing else reads the environment or the clock. Importing this loads all code, which Lambda does while a container
starts and a processor is free; it reads no variable and calls nobody.
"""

import json
import os
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

from mirroring.autotag import Autotagger
from mirroring.batch import Shell
from mirroring.bus import Bus
from mirroring.clients import WRITE_ATTEMPTS, call, client
from mirroring.ec2 import Ec2
from mirroring.environment import Environment as Environment
from mirroring.environment import environment_of
from mirroring.lifecycle import Lifecycle
from mirroring.reconcile import Reconciler
from mirroring.store import Store
from mirroring.tag_batch import TagShell
from mirroring.telemetry import Telemetry


def now() -> datetime:
    return datetime.now(UTC)


@cache
def environment() -> Environment:
    return environment_of(os.environ)


@cache
def cloud() -> Ec2:
    return Ec2(client("ec2"), client("elbv2"), client("ec2", attempts=WRITE_ATTEMPTS))


@cache
def store() -> Store:
    here = environment()
    return Store(client("ssm"), here.policy_parameter, here.default_policy_parameter, here.state_parameter)


@cache
def bus() -> Bus:
    events = client("events", attempts=WRITE_ATTEMPTS)  # a run waits for no retries of them (see `announce`)
    return Bus(events, client("sqs"), environment().queue_url, environment().event_bus)


@cache
def telemetry() -> Telemetry:
    return Telemetry(environment().owner)


@cache
def reconciler() -> Reconciler:
    return Reconciler(cloud(), store(), environment(), now, time.sleep)


@cache
def shell() -> Shell:
    return Shell(reconciler(), bus(), telemetry(), environment().owner, now)


@cache
def autotagger() -> Autotagger:
    return Autotagger(cloud(), store(), environment(), now, time.sleep)


@cache
def tag_shell() -> TagShell:
    return TagShell(autotagger(), bus(), telemetry(), now)


@cache
def lifecycle() -> Lifecycle:
    return Lifecycle(cloud(), store(), bus(), invoke_again, environment(), now, time.sleep)


def invoke_again(event: dict[str, Any]) -> None:
    """This function once more, with this event, without waiting for it."""
    name = os.environ["AWS_LAMBDA_FUNCTION_NAME"]
    call(client("lambda"), "Invoke", FunctionName=name, InvocationType="Event", Payload=json.dumps(event).encode())


def forget() -> None:
    """As in a new container."""
    for built in (environment, cloud, store, bus, telemetry, reconciler, shell, autotagger, tag_shell, lifecycle):
        built.cache_clear()
