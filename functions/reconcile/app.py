"""Keeps mirror sessions equal to the policy: from SQS, a schedule, a change of the policy, and by hand."""

from typing import Any

from mirroring import runtime


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Look at the world again and close the gap."""
    return runtime.shell().handle(event, context)
