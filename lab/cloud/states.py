"""The states of an instance's life: what a call makes of one, and what the word of whoever runs the machines does.

    pending → running → stopping → stopped → pending → … → shutting-down → terminated
       └──────────────────────── its machine does not come up ─────────────────▴

Calls begin a change (RunInstances and StartInstances: pending), and whoever runs the machines says when it is done. A
word that does not fit the state (it is late, or was said before) changes nothing.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

from collections.abc import Mapping

from lab.cloud.faults import ApiError

#: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html
CODES: Mapping[str, int] = {
    "pending": 0,
    "running": 16,
    "shutting-down": 32,
    "terminated": 48,
    "stopping": 64,
    "stopped": 80,
}

#: What each call makes of a state; it refuses those that are missing.
CALLS: Mapping[str, Mapping[str, str]] = {
    "StartInstances": {"stopped": "pending", "pending": "pending", "running": "running"},
    "StopInstances": {"running": "stopping", "stopping": "stopping", "stopped": "stopped"},
    "TerminateInstances": {
        "pending": "shutting-down",
        "running": "shutting-down",
        "stopping": "shutting-down",
        "stopped": "terminated",  # there is no machine to shut down [assumed]
        "shutting-down": "shutting-down",
        "terminated": "terminated",
    },
}
_DONE = {"StartInstances": "started", "StopInstances": "stopped", "TerminateInstances": "terminated"}

#: What machines report, and the states in which that is news. One that does not come up is terminated at once
#: (Server.InternalError: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/troubleshooting-launch.html).
REPORTS: Mapping[str, tuple[str, ...]] = {
    "running": ("pending",),
    "stopped": ("stopping",),
    "terminated": ("shutting-down", "pending"),
}


def called(action: str, instance: str, state: str) -> str:
    """The state that a call leads to."""
    if state not in CALLS[action]:
        text = f"The instance '{instance}' is not in a state from which it can be {_DONE[action]}."
        raise ApiError("IncorrectInstanceState", text)
    return CALLS[action][state]


def reported(report: str, state: str) -> str:
    """The state after a machine's word."""
    if report not in REPORTS:
        raise ValueError(f"a machine is {', '.join(REPORTS)}, not {report!r}")
    return report if state in REPORTS[report] else state
