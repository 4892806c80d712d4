"""Instances of a live emulator: calls only begin what ministack does at once, and whoever runs the machines says, at a
side door, when it is done. Each change is an event.

    POST /_lab/machines {"instance": "i-…", "state": "running"}         or stopped, or terminated: what the machine is
"""

from collections.abc import Callable
from functools import partial

from ministack.services import ec2  # type: ignore[import-not-found]

from lab.cloud import delivery, doors, events, hooks, states
from lab.cloud.doors import Body
from lab.cloud.faults import Parameters
from lab.cloud.listing import Resource
from lab.cloud.ministack.requests import Handler, answering, dry_run, known

#: Answers' lists.
_LISTS = {
    "StartInstances": "StartingInstances",
    "StopInstances": "StoppingInstances",
    "TerminateInstances": "TerminatingInstances",
}


def live(actions: hooks.Table) -> None:
    """What `instances` makes of TerminateInstances is from now on what ends them, once their machines are gone."""
    finish: Handler = actions["TerminateInstances"]

    def end(instance: str) -> None:
        finish({"InstanceId.1": [instance]})

    for action, parameter in (("StartInstances", "p"), ("StopInstances", "p"), ("TerminateInstances", "form")):
        handler = answering(action, partial(_called, action, end))
        hooks.entry(actions, action, parameter, partial(_instead, handler))
    doors.register("/_lab/machines", partial(_reported, end))


def _instead(handler: Handler, _: Handler) -> Handler:
    return handler


def begin(instance: Resource) -> None:
    """A launched instance has no machine yet."""
    _enter(instance, "pending")


def _called(action: str, end: Callable[[str], None], parameters: Parameters) -> Resource:
    """All of them, or none."""
    names = list(dict.fromkeys(parameters.get("InstanceIds") or []))
    found = [known(ec2._instances, name, "InvalidInstanceID.NotFound") for name in names]
    before = [one["State"]["Name"] for one in found]
    after = [states.called(action, name, state) for name, state in zip(names, before, strict=True)]
    dry_run(parameters)
    for instance, state in zip(found, after, strict=True):
        _change(instance, state, end)
    changes = zip(names, before, after, strict=True)
    return {
        _LISTS[action]: [
            {"InstanceId": name, "PreviousState": _shown(was), "CurrentState": _shown(now)}
            for name, was, now in changes
        ]
    }


def _reported(end: Callable[[str], None], report: Body) -> Body:
    """The state that the instance has then."""
    instance = ec2._instances.get(report.get("instance"))
    if instance is None:
        raise ValueError(f"there is no instance {report.get('instance')}")
    _change(instance, states.reported(str(report.get("state")), instance["State"]["Name"]), end)
    return {"state": instance["State"]["Name"]}


def _change(instance: Resource, state: str, end: Callable[[str], None]) -> None:
    if instance["State"]["Name"] == state:
        return
    if state == "terminated":
        end(instance["InstanceId"])
    if state == "pending":
        instance["LaunchTime"] = ec2._now_ts()  # of the last start
    _enter(instance, state)


def _enter(instance: Resource, state: str) -> None:
    instance["State"] = _shown(state)
    delivery.tell(events.instance_state, instance["InstanceId"], state)


def _shown(state: str) -> Resource:
    return {"Code": states.CODES[state], "Name": state}
