"""The stack's custom resource: the first sweep when it is made, our sessions gone when it is deleted."""

from dataclasses import asdict
from typing import Any

from mirroring import runtime


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Do what CloudFormation asks and tell it."""
    outcome = runtime.lifecycle().run(event, lambda: context.get_remaining_time_in_millis() / 1000)
    runtime.telemetry().lifecycle(event, outcome)
    return asdict(outcome)
