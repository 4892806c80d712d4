"""Target health in a live emulator: as whoever balances the load reports it, at a side door. ministack calls every
registered target healthy.

    POST /_lab/health {"group": ARN, "target": "i-…", "state": "unhealthy", "reason": "…", "description": "…"}

The answer says whether the report changed anything: one that comes late does not.
"""

import time
from collections.abc import Callable
from functools import partial
from xml.sax.saxutils import escape

from ministack.services import alb, ec2  # type: ignore[import-not-found]

from lab.cloud import doors, hooks
from lab.cloud.doors import Body
from lab.cloud.ministack.requests import Form, Handler, Response
from lab.cloud.targets import ABSENT, IDLE, Health, Targets, follow, reported, told

STOPPED = Health("unused", "Target.InvalidState", "Target is in the stopped state")
_DELAY = "deregistration_delay.timeout_seconds"
_DEFAULT_DELAY = 300.0


class Watch:
    """The health of all targets. Seconds pass `pace` times as fast."""

    def __init__(self, pace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._clock = clock
        self._groups: dict[str, Targets] = {}

    def look(self, group: str) -> Targets:
        """A group's targets now. Those whose instance is stopped, or no more, take no part."""
        if group not in alb._tgs:
            self._groups.pop(group, None)
            return {}
        registered = {one["Id"]: one.get("Port", alb._tgs[group]["Port"]) for one in alb._targets.get(group, [])}
        serving = {name: port for name, port in registered.items() if _takes_part(name)}
        before = {name: one for name, one in self._groups.get(group, {}).items() if _takes_part(name)}
        found = follow(before, serving, self._clock(), self.delay(group))
        self._groups[group] = found
        return found

    def delay(self, group: str) -> float:
        """Seconds of draining. A group that no load balancer uses has nothing to wait for."""
        attributes = {one["Key"]: one["Value"] for one in alb._tg_attrs.get(group, [])}
        return float(attributes.get(_DELAY, _DEFAULT_DELAY)) / self._pace if _used(group) else 0.0

    def describe(self, form: Form) -> Response:
        group = (form.get("TargetGroupArn") or [""])[0]
        shown = {name: (one.port, one.health) for name, one in self.look(group).items()}
        if not _used(group):
            shown = {name: (port, IDLE) for name, (port, _) in shown.items()}
        for one in alb._targets.get(group, []):
            if _state(one["Id"]) == "stopped":
                shown[one["Id"]] = (one.get("Port", alb._tgs[group]["Port"]), STOPPED)
        asked = alb._parse_targets_param(form)
        if asked:
            port = alb._tgs[group]["Port"]
            shown = {one["Id"]: shown.get(one["Id"], (one.get("Port", port), ABSENT)) for one in asked}
        members = "".join(_shown(name, port, health) for name, (port, health) in shown.items())
        inner = f"<TargetHealthDescriptions>{members}</TargetHealthDescriptions>"
        response: Response = alb._xml(200, "DescribeTargetHealth", inner)
        return response

    def report(self, body: Body) -> Body:
        unknown = body.keys() - {"group", "target", "state", "reason", "description"}
        if unknown or not {"group", "target", "state"} <= body.keys():
            raise ValueError("a report has group, target and state, and may have reason and description")
        said = {name: str(body.get(name) or "") for name in ("state", "reason", "description")}
        before = self.look(str(body["group"]))
        after = told(before, str(body["target"]), reported(**said))
        if after != before:
            self._groups[str(body["group"])] = after
        return {"changed": after != before}


def live(watch: Watch) -> None:
    actions = hooks.table(alb, "_ACTION_MAP")
    hooks.entry(actions, "DescribeTargetHealth", "params", partial(_describing, watch))
    hooks.entry(actions, "RegisterTargets", "params", _registering)
    hooks.entry(actions, "DeregisterTargets", "params", partial(_deregistering, watch))
    doors.register("/_lab/health", watch.report)


def _describing(watch: Watch, original: Handler) -> Handler:
    def describe_target_health(form: Form) -> Response:
        known = (form.get("TargetGroupArn") or [""])[0] in alb._tgs
        return watch.describe(form) if known else original(form)

    return describe_target_health


def _registering(original: Handler) -> Handler:
    """An instance must be running.
    https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/API_RegisterTargets.html"""

    def register_targets(form: Form) -> Response:
        wrong = [one["Id"] for one in alb._parse_targets_param(form) if _state(one["Id"]) not in ("running", None)]
        if wrong:
            text = "The following targets are not in a running state and cannot be registered: "
            refused: Response = alb._error("InvalidTarget", text + ", ".join(f"'{name}'" for name in wrong))
            return refused
        return original(form)

    return register_targets


def _deregistering(watch: Watch, original: Handler) -> Handler:
    """The draining begins now, not when somebody looks again."""

    def deregister_targets(form: Form) -> Response:
        group = (form.get("TargetGroupArn") or [""])[0]
        watch.look(group)
        response = original(form)
        watch.look(group)
        return response

    return deregister_targets


def _state(target: str) -> str | None:
    """An instance's, `terminated` when there is none; None of a target that is no instance."""
    if not target.startswith("i-"):
        return None
    instance = ec2._instances.get(target)
    return "terminated" if instance is None else str(instance["State"]["Name"])


def _takes_part(target: str) -> bool:
    return _state(target) not in ("stopped", "terminated")


def _used(group: str) -> bool:
    return bool(alb._tgs[group].get("LoadBalancerArns"))


def _shown(name: str, port: int, health: Health) -> str:
    said = {"State": health.state, "Reason": health.reason, "Description": health.description}
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in said.items() if value)
    target = f"<Target><Id>{escape(name)}</Id><Port>{port}</Port></Target>"
    return f"<member>{target}<TargetHealth>{inner}</TargetHealth></member>"
