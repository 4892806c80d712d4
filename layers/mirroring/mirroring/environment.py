"""What the stack tells its functions: read once, at the first use."""

from collections.abc import Mapping
from dataclasses import dataclass

DEFAULT_OWNER = "vpc-traffic-replay"


@dataclass(frozen=True)
class Environment:
    owner: str = DEFAULT_OWNER  # the stack's name; our sessions bear it
    policy_parameter: str = f"/{DEFAULT_OWNER}/policy"  # the user's own
    default_policy_parameter: str = f"/{DEFAULT_OWNER}/policy-default"  # the stack's
    state_parameter: str = f"/{DEFAULT_OWNER}/state"
    queue_url: str = ""
    event_bus: str = "default"
    worker_groups: frozenset[str] = frozenset()  # Auto Scaling groups of the worker fleet: never mirrored
    autotag_keys: frozenset[str] | None = None  # keys that the autotagger's role may put on; None: not known here
    container: str = ""  # another in each container


def environment_of(variables: Mapping[str, str]) -> Environment:
    """An unset or empty variable has the value that the stack's name gives it.

    But of AUTOTAG_KEYS, empty says that the role may put on none, and unset that nobody knows.
    """
    owner = variables.get("MIRROR_OWNER") or DEFAULT_OWNER
    return Environment(
        owner=owner,
        policy_parameter=variables.get("POLICY_PARAMETER") or f"/{owner}/policy",
        default_policy_parameter=variables.get("DEFAULT_POLICY_PARAMETER") or f"/{owner}/policy-default",
        state_parameter=variables.get("STATE_PARAMETER") or f"/{owner}/state",
        queue_url=variables.get("QUEUE_URL", ""),
        event_bus=variables.get("EVENT_BUS") or "default",
        worker_groups=_listed(variables.get("WORKER_GROUPS", "")),
        autotag_keys=_listed(variables["AUTOTAG_KEYS"]) if "AUTOTAG_KEYS" in variables else None,
        container=variables.get("AWS_LAMBDA_LOG_STREAM_NAME", ""),
    )


def _listed(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(",") if part.strip())
