"""EC2 as the control plane sees it: what it reads, and its few writes. How EC2 spells things is `spelling`'s.

Whether a target would get its packets is asked here too: a session with a dead target has no state that would say so.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mirroring import spelling
from mirroring.backends import Backends, Condition
from mirroring.clients import WRITE_ATTEMPTS, Meter, call, client
from mirroring.describe import Raw, filtered, listed
from mirroring.model import Filter, Health, Instance, Refused, Session, Tags, Target

_ALLOWED = "DryRunOperation"
_MANAGED = ({"Name": "requester-managed", "Values": ["true"]},)


class Ec2:
    """`ec2` reads, `writer` writes: a client of one attempt, so that our budget decides when to try again."""

    def __init__(self, ec2: Any, elb: Any, writer: Any = None) -> None:
        self._ec2 = ec2
        self._writer = ec2 if writer is None else writer
        self._backends = Backends(ec2, elb)
        self._meter = Meter(self._ec2, elb, self._writer)
        self._account = ""  # ours, as soon as an instance or a session has told it

    @property
    def calls(self) -> int:
        """Requests sent, botocore's own retries included."""
        return self._meter.calls

    # Reading

    def marked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        """Those that exist, with their interfaces; None asks for all of the Region."""
        found = self.unmarked(ids)  # first: an interface attached meanwhile must not pass for one that nobody manages
        what = ("DescribeNetworkInterfaces", "NetworkInterfaces")
        raws = self._list(*what, _MANAGED) if ids is None else self._by(*what, "attachment.instance-id", ids, _MANAGED)
        managed = {raw["NetworkInterfaceId"] for raw in raws}
        return {name: _marked(one, managed) for name, one in found.items()} if managed else found

    def unmarked(self, ids: Collection[str] | None) -> dict[str, Instance]:
        """The same, but no interface is said to be managed by an AWS service: a call less."""
        what = ("DescribeInstances", "Reservations")
        found = list(self._list(*what) if ids is None else self._by(*what, "instance-id", ids))
        for reservation in found:
            self._account = reservation.get("OwnerId") or self._account
        return {one.id: one for one in spelling.instances(found)}

    def sessions(self, *, interfaces: Collection[str] = (), instances: Collection[str] = ()) -> list[Session]:
        """On these interfaces, and those whose description names one of these instances; of neither any: all."""
        what = ("DescribeTrafficMirrorSessions", "TrafficMirrorSessions")
        if interfaces or instances:
            raws = [
                *self._by(*what, "network-interface-id", interfaces),
                *self._by(*what, "description", instances),
            ]
        else:
            raws = list(self._list(*what))
        for raw in raws:
            self._account = raw.get("OwnerId") or self._account
        return list({raw["TrafficMirrorSessionId"]: spelling.session(raw) for raw in raws}.values())

    def targets(self, ids: Collection[str] | None) -> dict[str, Target]:
        """Those that exist, with their health; None asks for all that are visible, without it."""
        what = ("DescribeTrafficMirrorTargets", "TrafficMirrorTargets")
        raws = self._list(*what) if ids is None else self._by(*what, "traffic-mirror-target-id", ids)
        found = [(made, raw.get("OwnerId", "")) for raw in raws if (made := spelling.target(raw))]
        if ids is None:
            return {one.id: one for one, _ in found}
        conditions = self._backends.conditions([one for one, owner in found if not self._is_foreign(owner)])
        return {one.id: self._judged(one, owner, conditions) for one, owner in found}

    def filters(self, ids: Collection[str]) -> dict[str, Filter]:
        """Those that exist, with their rules."""
        raws = self._by("DescribeTrafficMirrorFilters", "TrafficMirrorFilters", "traffic-mirror-filter-id", ids)
        return {raw["TrafficMirrorFilterId"]: spelling.filter_(raw) for raw in raws}

    # Writing

    def create(self, session: Session, token: str) -> Session:
        """The session as AWS made it. The same token makes no second one."""
        answer = self._write("CreateTrafficMirrorSession", **spelling.creation(session), ClientToken=token)
        return spelling.written(answer, session.tags)

    def modify(self, before: Session, after: Session) -> Session:
        """Only what differs is sent; tags are `retag`'s."""
        changes = spelling.modification(before, after)
        if not changes:
            return before
        answer = self._write("ModifyTrafficMirrorSession", TrafficMirrorSessionId=before.id, **changes)
        return spelling.written(answer, before.tags)

    def retag(self, before: Session, after: Session) -> None:
        """The tags of `after` instead of those of `before`."""
        new = {key: value for key, value in after.tags.items() if before.tags.get(key) != value}
        if new:
            self.put_tags(before.id, new)
        if gone := {key: value for key, value in before.tags.items() if key not in after.tags}:
            self.remove_tags(before.id, gone)

    def delete(self, session: Session) -> None:
        self._write("DeleteTrafficMirrorSession", TrafficMirrorSessionId=session.id)

    def put_tags(self, resource: str, tags: Tags) -> None:
        self._write("CreateTags", Resources=[resource], Tags=spelling.tag_list(tags))

    def remove_tags(self, resource: str, tags: Tags) -> None:
        """Each only if its value is still the one that we saw: what somebody changed meanwhile stays."""
        self._write("DeleteTags", Resources=[resource], Tags=spelling.tag_list(tags))

    # Asking whether a write would be allowed

    def allowed(self, operation: str, **arguments: Any) -> Refused | None:
        """A dry run: nothing, or why AWS would refuse."""
        try:
            self._write(operation, **arguments, DryRun=True)
        except Refused as refused:
            if refused.code != _ALLOWED:
                return refused
        return None

    def may_create(self, session: Session) -> Refused | None:
        return self.allowed("CreateTrafficMirrorSession", **spelling.creation(session))

    def may_tag(self, instance: str, key: str) -> Refused | None:
        return self.allowed("CreateTags", Resources=[instance], Tags=[{"Key": key, "Value": ""}])

    # How

    def _is_foreign(self, owner: str) -> bool:
        return bool(owner and self._account and owner != self._account)

    def _judged(self, target: Target, owner: str, conditions: Mapping[str, Condition]) -> Target:
        condition = conditions.get(target.resource)
        if condition is None or (condition.health is Health.GONE and owner != self._account):
            condition = Condition(
                Health.UNKNOWN,
                f"account {owner} owns {target.id}: whether its packets arrive can only be seen there",
            )
        return replace(target, health=condition.health, why=condition.why, capacity=condition.capacity)

    def _list(self, operation: str, key: str, filters: Collection[Raw] = ()) -> Iterator[dict[str, Any]]:
        return listed(self._ec2, operation, key, filters)

    def _by(
        self, operation: str, key: str, name: str, values: Collection[str], filters: Collection[Raw] = ()
    ) -> Iterator[dict[str, Any]]:
        return filtered(self._ec2, operation, key, name, values, filters)

    def _write(self, operation: str, **arguments: Any) -> dict[str, Any]:
        return call(self._writer, operation, **arguments)


def connect(*, profile: str | None = None, region: str | None = None) -> Ec2:
    """EC2 as the user's settings reach it."""

    def of(service: str, **options: Any) -> Any:
        return client(service, profile=profile, region=region, **options)

    return Ec2(of("ec2"), of("elbv2"), of("ec2", attempts=WRITE_ATTEMPTS))


def _marked(instance: Instance, managed: Collection[str]) -> Instance:
    """With its interfaces that an AWS service manages said to be so."""
    if not any(interface.id in managed for interface in instance.interfaces):
        return instance
    marked = (replace(one, requester_managed=one.id in managed) for one in instance.interfaces)
    return replace(instance, interfaces=tuple(marked))
