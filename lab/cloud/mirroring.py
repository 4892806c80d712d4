"""VPC Traffic Mirroring as AWS documents it: one strict model, for moto, for an emulator and for fast tests alike.

Requests and answers have the shapes of the EC2 API (as boto3 spells them), so an adapter only carries them:

    model = TrafficMirroring(surroundings)
    model.call("CreateTrafficMirrorSession", {"NetworkInterfaceId": "eni-...", ...})  # an answer, or ApiError

There is no clock, no chance and no network in here. What a rule rests on stands beside it:

    [quotas]   https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-quotas.html
    [sessions] https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-sessions.html
    [filters]  https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-filters.html
    [targets]  https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-targets.html
    [API]      https://docs.aws.amazon.com/AWSEC2/latest/APIReference/ and the service model that botocore ships
    [errors]   https://docs.aws.amazon.com/ec2/latest/devguide/errors-overview.html
    [tokens]   https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html
    [tags]     https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html
    [seen]     in other projects' code or reports, not in AWS's pages
    [assumed]  nobody says; the strictest reading that a correct client can live with

A request is answered in this order [assumed]: throttle, permission, parameters, client token, existence of what it
names, DryRun, limits and state.
"""

import hashlib
import itertools
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from lab.cloud.api import (
    FILTER_FILTERS,
    NLB_PACKET_LENGTHS,
    PACKET_LENGTHS,
    RESOURCES,
    RULE,
    RULE_FIELDS,
    RULE_FILTERS,
    RULE_OPTIONS,
    SESSION,
    SESSION_FIELDS,
    SESSION_FILTERS,
    SESSION_NUMBERS,
    SESSION_OPTIONS,
    TARGET_FILTERS,
    TOKEN_LENGTH,
    VNIS,
    check_parameters,
    check_rule,
    dry_run,
    given,
    remove_fields,
    require,
    require_room,
    require_value,
)
from lab.cloud.faults import ApiError, Faults, Parameters, When
from lab.cloud.listing import Resource, matching, page
from mirroring.support import may_be_source, sources_per_target

type Answer = dict[str, Any]


@dataclass(frozen=True)
class Quotas:
    """[quotas], none of them adjustable. Tests make them small."""

    sessions: int = 10_000
    sessions_per_interface: int = 3
    targets: int = 10_000
    filters: int = 10_000
    rules_per_filter: int = 10
    tags: int = 50  # [tags]


@dataclass(frozen=True)
class NetworkInterface:
    """What the model must know of an elastic network interface."""

    id: str
    instance_type: str = ""  # empty: not attached to an instance
    kind: str = "interface"  # EC2's InterfaceType
    requester_managed: bool = False


class Surroundings(Protocol):
    """The rest of the account. Its answers are asked for anew each time."""

    def interface(self, name: str) -> NetworkInterface | None: ...

    def load_balancer(self, arn: str) -> bool:
        """Whether a Network Load Balancer of that ARN exists."""

    def endpoint(self, name: str) -> bool:
        """Whether a Gateway Load Balancer endpoint of that id exists."""


class TrafficMirroring:
    """The mirroring state of one account in one Region."""

    def __init__(self, surroundings: Surroundings, account: str = "123456789012", quotas: Quotas | None = None) -> None:
        self.surroundings = surroundings
        self.account = account
        self.quotas = quotas or Quotas()
        self.faults = Faults()
        #: A new session is described, and found by other calls, only after this many describes of sessions
        #: (https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html).
        self.visible_after = 0
        #: A deleted session is still described this many times.
        self.lingers = 0
        #: The code for a session number that is taken on the interface: documented nowhere, so tests may change it.
        self.number_taken = "InvalidParameterValue"
        self.targets: dict[str, Resource] = {}
        self.filters: dict[str, Resource] = {}
        self.rules: dict[str, Resource] = {}
        self.sessions: dict[str, Resource] = {}  # PacketLength only as far as somebody asked for one
        self.tags: dict[str, dict[str, str]] = {}
        self._births = itertools.count(1)
        self._born: dict[str, int] = {}
        self._on_interface: dict[str, set[str]] = {}  # session ids
        self._vnis: dict[int, int] = {}  # number of sessions
        self._hidden: dict[str, int] = {}  # describes still to come until a session shows
        self._ghosts: dict[str, tuple[Resource, int]] = {}  # deleted sessions, and describes that still show them
        self._answers: dict[tuple[str, str], tuple[Parameters, Answer]] = {}  # by action and client token
        self._handlers: dict[str, Callable[[Parameters], Answer]] = {
            "CreateTrafficMirrorTarget": self._create_target,
            "DescribeTrafficMirrorTargets": self._describe_targets,
            "DeleteTrafficMirrorTarget": self._delete_target,
            "CreateTrafficMirrorFilter": self._create_filter,
            "DescribeTrafficMirrorFilters": self._describe_filters,
            "DeleteTrafficMirrorFilter": self._delete_filter,
            "ModifyTrafficMirrorFilterNetworkServices": self._modify_services,
            "CreateTrafficMirrorFilterRule": self._create_rule,
            "ModifyTrafficMirrorFilterRule": self._modify_rule,
            "DescribeTrafficMirrorFilterRules": self._describe_rules,
            "DeleteTrafficMirrorFilterRule": self._delete_rule,
            "CreateTrafficMirrorSession": self._create_session,
            "ModifyTrafficMirrorSession": self._modify_session,
            "DescribeTrafficMirrorSessions": self._describe_sessions,
            "DeleteTrafficMirrorSession": self._delete_session,
        }

    # What callers and tests do

    def call(self, action: str, parameters: Parameters) -> Answer:
        with self.faults.around(action, parameters):
            return self.perform(action, parameters)

    def perform(self, action: str, parameters: Parameters) -> Answer:
        """The call without its faults, uncounted: for those who set up a scene."""
        check_parameters(action, parameters)
        return self._once(action, parameters)

    def fail(
        self,
        action: str,
        code: str,
        *,
        times: float = 1,
        after: int = 0,
        when: When | None = None,
        lost: bool = False,
        message: str = "Injected.",
    ) -> None:
        """The next `times` calls of `action` (`*`: any) that `when` picks fail, after `after` that do not.

        `lost`: the call takes effect and only its answer is lost.
        """
        self.faults.fail(action, code, times=times, after=after, when=when, lost=lost, message=message)

    def deny(self, action: str, when: When | None = None) -> None:
        """The caller has no permission for these calls, with DryRun or without."""
        self.faults.deny(action, when)

    def throttle(self, clock: Callable[[], float], *, burst: float = 50, rate: float = 5) -> None:
        """Mutating calls have a bucket for each action
        (https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html)."""
        self.faults.throttle(lambda action: not action.startswith("Describe"), clock, burst=burst, rate=rate)

    def interface_deleted(self, resource_id: str) -> None:
        """AWS deletes the sessions of an interface together with it. [sessions]"""
        for session in sorted(self._on_interface.get(resource_id, ())):
            self._forget_session(session)

    def all_sessions(self) -> list[Resource]:
        """As describe would show them, the invisible ones too; not a call."""
        return [self._show_session(session) for session in self.sessions.values()]

    def knows(self, resource_id: str) -> bool:
        """Whether an id is that of a mirroring resource, so that its tags live here."""
        return resource_id in self.tags

    def put_tags(self, resource_id: str, tags: Mapping[str, str]) -> None:
        """CreateTags on a resource of ours."""
        self._exists(resource_id)
        self._check_tags(tags, self.tags[resource_id])
        self.tags[resource_id].update(tags)

    def remove_tags(self, resource_id: str, tags: Mapping[str, str | None]) -> None:
        """DeleteTags: a key without a value goes, one with a value only if the value is the same. [API]"""
        self._exists(resource_id)
        for key, value in tags.items():
            if value is None or self.tags[resource_id].get(key) == value:
                self.tags[resource_id].pop(key, None)

    # Targets

    def _create_target(self, parameters: Parameters) -> Answer:
        tags = self._new_tags(parameters, "CreateTrafficMirrorTarget", "traffic-mirror-target")
        kind = self._check_resource(parameters)
        dry_run(parameters)
        require_room(len(self.targets) < self.quotas.targets, "TrafficMirrorTargetLimitExceeded")  # [errors]
        if kind == "network-interface":
            self._check_target_interface(parameters["NetworkInterfaceId"])
        resource_id = self._new_id("tmt", tags)
        named = {key: parameters[key] for key in (*RESOURCES, "Description") if parameters.get(key)}
        self.targets[resource_id] = {
            "TrafficMirrorTargetId": resource_id,
            **named,
            "Type": kind,
            "OwnerId": self.account,
        }
        return {"TrafficMirrorTarget": self._show(resource_id, self.targets[resource_id])}

    def _check_resource(self, parameters: Parameters) -> str:
        """The target's type. Exactly one resource is named, and it exists."""
        named = [key for key in RESOURCES if parameters.get(key)]
        require(len(named) == 1, "InvalidParameterCombination", f"Exactly one of {RESOURCES} is required.")
        value = parameters[named[0]]
        if named[0] == "NetworkInterfaceId":
            found = self.surroundings.interface(value) is not None
            require(found, "InvalidTrafficMirrorTarget", f"The interface ID '{value}' does not exist")  # [seen]
            return "network-interface"
        if named[0] == "NetworkLoadBalancerArn":
            require(":loadbalancer/net/" in value, "InvalidNetworkLoadBalancerArn.Malformed", value)  # [errors]
            found = self.surroundings.load_balancer(value)
            require(found, "InvalidNetworkLoadBalancerArn.NotFound", value)  # [errors]
            return "network-load-balancer"
        require(self.surroundings.endpoint(value), "InvalidVpcEndpointId.NotFound", value)  # [errors]
        return "gateway-load-balancer-endpoint"

    def _check_target_interface(self, interface: str) -> None:
        require(
            not self._on_interface.get(interface),
            "InvalidNetworkInterface.InUse",
            f"Interface {interface} is a mirror source.",
        )  # [sessions] that it cannot be both, [assumed] the code
        taken = any(target.get("NetworkInterfaceId") == interface for target in self.targets.values())
        require(not taken, "InvalidNetworkInterface.InUse", f"Interface {interface} is a target.")  # [assumed]

    def _describe_targets(self, parameters: Parameters) -> Answer:
        return self._describe(
            parameters, "TrafficMirrorTarget", self._shown(self.targets), TARGET_FILTERS, "TrafficMirrorTargets"
        )

    def _delete_target(self, parameters: Parameters) -> Answer:
        resource_id = self._target(parameters["TrafficMirrorTargetId"])["TrafficMirrorTargetId"]
        dry_run(parameters)
        used = any(session["TrafficMirrorTargetId"] == resource_id for session in self.sessions.values())
        require(not used, "TrafficMirrorTargetInUseException", f"{resource_id} is in use.")  # [errors]
        del self.targets[resource_id]
        self._forget(resource_id)
        return {"TrafficMirrorTargetId": resource_id}

    # Filters and their rules

    def _create_filter(self, parameters: Parameters) -> Answer:
        tags = self._new_tags(parameters, "CreateTrafficMirrorFilter", "traffic-mirror-filter")
        dry_run(parameters)
        require_room(len(self.filters) < self.quotas.filters, "TrafficMirrorFilterLimitExceeded")  # [errors]
        resource_id = self._new_id("tmf", tags)
        description = {"Description": parameters["Description"]} if parameters.get("Description") else {}
        self.filters[resource_id] = {"TrafficMirrorFilterId": resource_id, **description, "NetworkServices": []}
        return {"TrafficMirrorFilter": self._show_filter(self.filters[resource_id])}

    def _describe_filters(self, parameters: Parameters) -> Answer:
        shown = [self._show_filter(entry) for entry in self.filters.values()]
        return self._describe(parameters, "TrafficMirrorFilter", shown, FILTER_FILTERS, "TrafficMirrorFilters")

    def _show_filter(self, entry: Resource) -> Resource:
        filter_id = entry["TrafficMirrorFilterId"]
        shown = self._show(filter_id, entry)
        rules = [self._show(rule_id, rule) for rule_id, rule in self._rules_of(filter_id)]
        shown["IngressFilterRules"] = [rule for rule in rules if rule["TrafficDirection"] == "ingress"]
        shown["EgressFilterRules"] = [rule for rule in rules if rule["TrafficDirection"] == "egress"]
        return shown

    def _rules_of(self, filter_id: str) -> list[tuple[str, Resource]]:
        rules = [pair for pair in self.rules.items() if pair[1]["TrafficMirrorFilterId"] == filter_id]
        return sorted(rules, key=lambda pair: pair[1]["RuleNumber"])

    def _delete_filter(self, parameters: Parameters) -> Answer:
        resource_id = self._filter(parameters["TrafficMirrorFilterId"])["TrafficMirrorFilterId"]
        dry_run(parameters)
        used = any(session["TrafficMirrorFilterId"] == resource_id for session in self.sessions.values())
        require(not used, "TrafficMirrorFilterInUse", f"{resource_id} is in use.")  # [errors]
        for rule, _ in self._rules_of(resource_id):  # [assumed] that rules need not be deleted first
            del self.rules[rule]
            self._forget(rule)
        del self.filters[resource_id]
        self._forget(resource_id)
        return {"TrafficMirrorFilterId": resource_id}

    def _modify_services(self, parameters: Parameters) -> Answer:
        entry = self._filter(parameters["TrafficMirrorFilterId"])
        add, remove = parameters.get("AddNetworkServices") or [], parameters.get("RemoveNetworkServices") or []
        for service in (*add, *remove):
            require(service == "amazon-dns", "InvalidParameterValue", f"'{service}' is no network service.")  # [API]
        dry_run(parameters)
        entry["NetworkServices"] = sorted((set(entry["NetworkServices"]) | set(add)) - set(remove))
        return {"TrafficMirrorFilter": self._show_filter(entry)}

    def _create_rule(self, parameters: Parameters) -> Answer:
        tags = self._new_tags(parameters, "CreateTrafficMirrorFilterRule", "traffic-mirror-filter-rule")
        filter_id = self._filter(parameters["TrafficMirrorFilterId"])["TrafficMirrorFilterId"]
        rule = {"TrafficMirrorFilterId": filter_id, **given(parameters, *RULE, *RULE_OPTIONS)}
        check_rule(rule)
        dry_run(parameters)
        require_room(
            len(self._rules_of(filter_id)) < self.quotas.rules_per_filter, "TrafficMirrorFilterRuleLimitExceeded"
        )  # [errors]
        self._check_rule_number(rule, "")
        resource_id = self._new_id("tmfr", tags)
        self.rules[resource_id] = {"TrafficMirrorFilterRuleId": resource_id, **rule}
        return {"TrafficMirrorFilterRule": self._show(resource_id, self.rules[resource_id])}

    def _modify_rule(self, parameters: Parameters) -> Answer:
        resource_id = parameters["TrafficMirrorFilterRuleId"]
        changed = dict(self._rule(resource_id))
        changed |= given(parameters, *RULE, *RULE_OPTIONS)
        remove_fields(changed, parameters, RULE_FIELDS)
        check_rule(changed)
        dry_run(parameters)
        self._check_rule_number(changed, resource_id)
        self.rules[resource_id] = changed
        return {"TrafficMirrorFilterRule": self._show(resource_id, changed)}

    def _check_rule_number(self, rule: Resource, except_for: str) -> None:
        """Unique for each direction [API], code [errors]."""
        place = (rule["TrafficDirection"], rule["RuleNumber"])
        others = [
            other for resource_id, other in self._rules_of(rule["TrafficMirrorFilterId"]) if resource_id != except_for
        ]
        taken = any((other["TrafficDirection"], other["RuleNumber"]) == place for other in others)
        require(not taken, "TrafficMirrorFilterRuleAlreadyExists", f"{place[0]} rule {place[1]} exists already.")

    def _describe_rules(self, parameters: Parameters) -> Answer:
        shown = self._shown(self.rules)
        filter_id = parameters.get("TrafficMirrorFilterId")
        if filter_id:
            self._filter(filter_id)
            shown = [rule for rule in shown if rule["TrafficMirrorFilterId"] == filter_id]
        return self._describe(parameters, "TrafficMirrorFilterRule", shown, RULE_FILTERS, "TrafficMirrorFilterRules")

    def _delete_rule(self, parameters: Parameters) -> Answer:
        resource_id = parameters["TrafficMirrorFilterRuleId"]
        self._rule(resource_id)
        dry_run(parameters)
        del self.rules[resource_id]
        self._forget(resource_id)
        return {"TrafficMirrorFilterRuleId": resource_id}

    # Sessions

    def _create_session(self, parameters: Parameters) -> Answer:
        tags = self._new_tags(parameters, "CreateTrafficMirrorSession", "traffic-mirror-session")
        session = given(parameters, "NetworkInterfaceId", *SESSION, *SESSION_OPTIONS)
        interface = self._interface(session["NetworkInterfaceId"])
        self._check_session(session)
        dry_run(parameters)
        _check_source(interface)
        self._check_not_target(interface.id)
        require_room(len(self.sessions) < self.quotas.sessions, "TrafficMirrorSessionLimitExceeded")  # [errors]
        others = self._on_interface.get(interface.id, set())
        require_room(
            len(others) < self.quotas.sessions_per_interface, "TrafficMirrorSessionsPerInterfaceLimitExceeded"
        )  # [errors]
        self._check_number(session, "")
        self._check_room(session["TrafficMirrorTargetId"], interface.id)
        session.setdefault("VirtualNetworkId", self._free_vni())
        resource_id = self._new_id("tms", tags)
        self._remember_session(resource_id, {"TrafficMirrorSessionId": resource_id, **session, "OwnerId": self.account})
        return {"TrafficMirrorSession": self._show_session(self.sessions[resource_id])}

    def _modify_session(self, parameters: Parameters) -> Answer:
        session = self._session(parameters["TrafficMirrorSessionId"])
        resource_id = session["TrafficMirrorSessionId"]
        changed = dict(session) | given(parameters, *SESSION, *SESSION_OPTIONS)
        remove_fields(changed, parameters, SESSION_FIELDS)
        self._check_session(changed)
        dry_run(parameters)
        self._check_number(changed, resource_id)
        self._check_room(changed["TrafficMirrorTargetId"], changed["NetworkInterfaceId"])
        # A property that is removed is "set to the default" [API], and the VNI's default is a random one.
        changed.setdefault("VirtualNetworkId", self._free_vni())
        self._count_vni(session["VirtualNetworkId"], -1)
        self._count_vni(changed["VirtualNetworkId"], 1)
        self.sessions[resource_id] = changed
        return {"TrafficMirrorSession": self._show_session(changed)}

    def _describe_sessions(self, parameters: Parameters) -> Answer:
        visible = [session for resource_id, session in self.sessions.items() if resource_id not in self._hidden]
        if self._ghosts:
            visible += [session for session, _ in self._ghosts.values()]
            visible.sort(key=lambda session: self._born[session["TrafficMirrorSessionId"]])
        shown = [self._show_session(session) for session in visible]
        try:
            return self._describe(parameters, "TrafficMirrorSession", shown, SESSION_FILTERS, "TrafficMirrorSessions")
        finally:
            if not parameters.get("NextToken"):
                self._age()

    def _age(self) -> None:
        """One more describe has been made: what lags behind comes nearer."""
        self._hidden = {resource_id: left - 1 for resource_id, left in self._hidden.items() if left > 1}
        for session_id, (session, left) in list(self._ghosts.items()):
            self._ghosts[session_id] = (session, left - 1)
            if left == 1:
                del self._ghosts[session_id], self._born[session_id]

    def _delete_session(self, parameters: Parameters) -> Answer:
        resource_id = self._session(parameters["TrafficMirrorSessionId"])["TrafficMirrorSessionId"]
        dry_run(parameters)
        self._forget_session(resource_id)
        return {"TrafficMirrorSessionId": resource_id}

    def _check_session(self, session: Resource) -> None:
        """Values, and existence of what is named."""
        target = self._target(session["TrafficMirrorTargetId"])
        self._filter(session["TrafficMirrorFilterId"])
        number, vni, length = session["SessionNumber"], session.get("VirtualNetworkId"), session.get("PacketLength")
        require_value(number in SESSION_NUMBERS, "SessionNumber", number)
        require_value(vni is None or vni in VNIS, "VirtualNetworkId", vni)
        allowed = NLB_PACKET_LENGTHS if target["Type"] == "network-load-balancer" else PACKET_LENGTHS
        require_value(length is None or length in allowed, "PacketLength", length)

    def _check_not_target(self, interface: str) -> None:
        """[sessions] An interface that is a target cannot be a source; [seen] the text, [assumed] the code."""
        for target in self.targets.values():
            text = f"{interface} is in use by target {target['TrafficMirrorTargetId']}"
            require(target.get("NetworkInterfaceId") != interface, "InvalidNetworkInterface.InUse", text)

    def _check_number(self, session: Resource, except_for: str) -> None:
        """Unique on the interface: Terraform's pages say so, AWS's do not. [assumed]"""
        others = self._on_interface.get(session["NetworkInterfaceId"], set()) - {except_for}
        number = session["SessionNumber"]
        taken = any(self.sessions[other]["SessionNumber"] == number for other in others)
        require(not taken, self.number_taken, f"Session number {number} is already being used.")

    def _check_room(self, target: str, source: str) -> None:
        """[quotas] An interface target takes 10 or 100 sources; load balancers and endpoints any number."""
        interface = self.targets[target].get("NetworkInterfaceId")
        if interface is None:
            return
        sessions = self.sessions.values()
        sources = {other["NetworkInterfaceId"] for other in sessions if other["TrafficMirrorTargetId"] == target}
        known = self.surroundings.interface(interface)
        most = sources_per_target(known.instance_type if known else "")
        reached = len(sources | {source})
        text = f"Sources per interface-target limit reached ({reached})"  # [seen]
        require(reached <= most or source in sources, "TrafficMirrorSourcesPerTargetLimitExceeded", text)  # [errors]

    def _remember_session(self, resource_id: str, session: Resource) -> None:
        self.sessions[resource_id] = session
        self._on_interface.setdefault(session["NetworkInterfaceId"], set()).add(resource_id)
        self._count_vni(session["VirtualNetworkId"], 1)
        if self.visible_after:
            self._hidden[resource_id] = self.visible_after

    def _forget_session(self, resource_id: str) -> None:
        session = self.sessions.pop(resource_id)
        if self.lingers:
            self._ghosts[resource_id] = (session | {"Tags": _tag_list(self.tags[resource_id])}, self.lingers)
        self._on_interface[session["NetworkInterfaceId"]].discard(resource_id)
        self._count_vni(session["VirtualNetworkId"], -1)
        self._hidden.pop(resource_id, None)
        del self.tags[resource_id]
        if not self.lingers:
            del self._born[resource_id]

    def _show_session(self, session: Resource) -> Resource:
        """[API] With an NLB the default of PacketLength is 8500; otherwise it is absent when nobody asked for one."""
        shown = self._show(session["TrafficMirrorSessionId"], session)
        target = self.targets.get(session["TrafficMirrorTargetId"], {})
        if target.get("Type") == "network-load-balancer":
            shown.setdefault("PacketLength", NLB_PACKET_LENGTHS[-1])
        return shown

    def _count_vni(self, vni: int, step: int) -> None:
        count = self._vnis.get(vni, 0) + step
        self._vnis[vni] = count
        if not count:
            del self._vnis[vni]

    def _free_vni(self) -> int:
        """[API] "An account-wide unique ID is chosen at random": here from a digest, so that runs repeat."""
        tries = (int(_digest(f"vni {attempt}")[:6], 16) for attempt in itertools.count(len(self.sessions)))
        return next(vni for vni in tries if vni not in self._vnis)

    # What several of them need

    def _once(self, action: str, parameters: Parameters) -> Answer:
        """[tokens] The same token with the same parameters gives the same answer and does nothing again."""
        handler = self._handlers[action]
        token = parameters.get("ClientToken")
        if not token or parameters.get("DryRun"):
            return handler(parameters)
        require_value(len(token) <= TOKEN_LENGTH and token.isascii(), "ClientToken", token)
        plain = {key: value for key, value in parameters.items() if value is not None}
        if (action, token) in self._answers:
            before, answer = self._answers[action, token]
            require(before == plain, "IdempotentParameterMismatch", "Another request had the token.")  # [errors]
            return deepcopy(answer)  # [assumed] also if what it tells of has been deleted since
        answer = handler(parameters) | {"ClientToken": token}
        self._answers[action, token] = (deepcopy(plain), deepcopy(answer))
        return answer

    def _describe(
        self, parameters: Parameters, kind: str, resources: list[Resource], names: Mapping[str, str], key: str
    ) -> Answer:
        dry_run(parameters)
        ids = parameters.get(f"{kind}Ids") or []
        if ids:
            present = {resource[f"{kind}Id"] for resource in resources}
            for resource_id in ids:
                require(
                    resource_id in present, f"Invalid{kind}Id.NotFound", f"The ID '{resource_id}' does not exist"
                )  # [seen]
            resources = [resource for resource in resources if resource[f"{kind}Id"] in ids]
        found = matching(resources, parameters, names)
        shown, token = page(found, parameters, kind, lambda resource: self._born[resource[f"{kind}Id"]])
        return {key: shown} | ({"NextToken": token} if token else {})

    def _interface(self, resource_id: str) -> NetworkInterface:
        interface = self.surroundings.interface(resource_id)
        if interface is None:
            raise ApiError(
                "InvalidNetworkInterfaceID.NotFound", f"The networkInterface ID '{resource_id}' does not exist"
            )
        return interface

    def _target(self, resource_id: str) -> Resource:
        require(
            resource_id in self.targets,
            "InvalidTrafficMirrorTargetId.NotFound",
            f"The ID '{resource_id}' does not exist",
        )  # [seen]
        return self.targets[resource_id]

    def _filter(self, resource_id: str) -> Resource:
        require(
            resource_id in self.filters,
            "InvalidTrafficMirrorFilterId.NotFound",
            f"The ID '{resource_id}' does not exist",
        )  # [seen]
        return self.filters[resource_id]

    def _rule(self, resource_id: str) -> Resource:
        require(
            resource_id in self.rules,
            "InvalidTrafficMirrorFilterRuleId.NotFound",
            f"The ID '{resource_id}' does not exist",
        )  # [seen]
        return self.rules[resource_id]

    def _session(self, resource_id: str) -> Resource:
        found = resource_id in self.sessions and resource_id not in self._hidden
        require(found, "InvalidTrafficMirrorSessionId.NotFound", f"The ID '{resource_id}' does not exist")  # [seen]
        return self.sessions[resource_id]

    def _exists(self, resource_id: str) -> None:
        require(
            resource_id in self.tags and resource_id not in self._hidden,
            "InvalidID",
            f"The ID '{resource_id}' is not valid",
        )  # [errors]

    def _new_tags(self, parameters: Parameters, action: str, kind: str) -> dict[str, str]:
        """Tags of a TagSpecification: they need permission for CreateTags too."""
        tags: dict[str, str] = {}
        for specification in parameters.get("TagSpecifications") or []:
            named = specification.get("ResourceType")
            require(named == kind, "InvalidParameterValue", f"'{named}' is not a valid taggable resource type here.")
            tags |= {tag["Key"]: tag.get("Value") or "" for tag in specification.get("Tags") or []}
        if tags:
            self.faults.authorise("CreateTags", {"Tags": _tag_list(tags), "CreateAction": action, "Resources": []})
            self._check_tags(tags, {})
        return tags

    def _check_tags(self, tags: Mapping[str, str], present: Mapping[str, str]) -> None:
        """[tags] Lengths, the reserved prefix, and how many a resource may bear."""
        for key, value in tags.items():
            require_value(0 < len(key) <= 128, "Tag key", key)
            require_value(len(value) <= 256, "Tag value", value)
            require_value(not key.lower().startswith("aws:"), "Tag key", key)
        require(len({*tags, *present}) <= self.quotas.tags, "TagLimitExceeded", "More than 50 tags.")  # [errors]

    def _new_id(self, prefix: str, tags: dict[str, str]) -> str:
        birth = next(self._births)
        resource_id = f"{prefix}-0{_digest(f'{prefix} {birth}')[:16]}"
        self._born[resource_id] = birth
        self.tags[resource_id] = dict(tags)
        return resource_id

    def _forget(self, resource_id: str) -> None:
        del self.tags[resource_id]
        del self._born[resource_id]

    def _show(self, resource_id: str, resource: Resource) -> Resource:
        return {**resource, "Tags": _tag_list(self.tags[resource_id])} if resource_id in self.tags else dict(resource)

    def _shown(self, resources: Mapping[str, Resource]) -> list[Resource]:
        return [self._show(resource_id, resource) for resource_id, resource in resources.items()]


def _check_source(interface: NetworkInterface) -> None:
    """[sessions] Only interfaces of type `interface` on supported instances; of those that a service manages only RDS's
    and ElastiCache's, which nobody can tell from here. [seen] code and text."""
    good = interface.kind == "interface" and not interface.requester_managed and may_be_source(interface.instance_type)
    require(good, "NetworkInterfaceNotSupported", f"{interface.id} must be attached to a supported instance")


def _tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
