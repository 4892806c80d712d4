"""Puts production tags on instances: from SQS, from a schedule, for GuardDuty findings, and by hand."""

from typing import Any

from mirroring import runtime


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Look at the instances and put on what the rules ask for."""
    return runtime.tag_shell().handle(event, context)
