"""The nouns of the control plane, as EC2 means them: frozen values that functions pass on.

What EC2 spells in its own way (tag lists, epoch strings, missing keys) is made plain by `ec2`; nothing further in
knows. Terms are AWS's (https://docs.aws.amazon.com/vpc/latest/mirroring/): a mirror *source* is an interface, a
*session* joins a source, a target and a filter under a number and a VNI.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

type Tags = Mapping[str, str]

#: Tags of our own sessions (DESIGN: state lives in AWS, nowhere else). The owner is the stack's name.
OWNER_TAG = "mirror:managed-by"
SOURCE_TAG = "mirror:source"  # name of the policy's source
CREATED_TAG = "mirror:created"  # ISO 8601, UTC, seconds
CONFIG_TAG = "mirror:config"  # hash of what was applied: tells a change of the policy from one by hand
DESCRIPTION_TAG = "mirror:description"  # the source's own description; the session's Description is the instance id
#: Tag of targets and filters that the stack's roles may use: the IAM boundary.
STACK_TAG = "mirror:stack"
#: Tags of instances that the autotagger owns.
UNTIL_TAG = "mirror:until"  # ISO 8601, UTC: after it, what a finding put on is as good as gone
AUTOTAGGED_TAG = "mirror:autotagged"  # keys that the autotagger put on: see `autotagged`
OPT_OUT_TAG = "mirror:opt-out"  # on an instance, with any value: the autotagger leaves it alone

GROUP_TAG = "aws:autoscaling:groupName"
NAME_TAG = "Name"

# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html: tags with the prefix aws: do not count
TAGS_PER_RESOURCE = 50
TAG_KEY_LENGTH, TAG_VALUE_LENGTH = 128, 256

VXLAN_PORT = 4789
SESSIONS_PER_INTERFACE = 3  # https://docs.aws.amazon.com/vpc/latest/mirroring/traffic-mirroring-quotas.html
SESSION_NUMBERS = range(1, 32767)
NLB_PACKET_LENGTH = 8500  # of NLB targets: the default, and the largest that is accepted


@dataclass(frozen=True)
class Interface:
    """An elastic network interface attached to an instance."""

    id: str
    instance: str
    device_index: int
    vpc: str
    subnet: str
    kind: str = "interface"  # EC2's InterfaceType; only "interface" can be a source
    requester_managed: bool = False
    card: int = 0  # network card; device indexes begin anew on each


@dataclass(frozen=True)
class Instance:
    id: str
    state: str  # pending | running | stopping | stopped | shutting-down | terminated
    type: str
    vpc: str = ""  # empty once terminated, as the subnet
    subnet: str = ""
    tags: Tags = field(default_factory=dict)
    interfaces: tuple[Interface, ...] = ()  # by network card and device index


@dataclass(frozen=True)
class Session:
    """A mirror session as it is, or (without id) as it is to be."""

    id: str
    interface: str
    target: str
    filter: str
    number: int
    vni: int | None  # as it is to be: None leaves the choice to AWS
    packet_length: int | None  # bytes behind the VXLAN header; None: the whole packet, to an NLB 8500
    description: str  # of ours: the instance id
    tags: Tags = field(default_factory=dict)


class Direction(StrEnum):
    INGRESS = "ingress"
    EGRESS = "egress"


@dataclass(frozen=True)
class Rule:
    """A filter rule. None stands for any protocol, or any port."""

    direction: Direction
    number: int
    accept: bool
    source: str  # CIDR, of the same IP version as the destination
    destination: str
    protocol: int | None = None  # IANA
    source_ports: tuple[int, int] | None = None  # first and last
    destination_ports: tuple[int, int] | None = None


@dataclass(frozen=True)
class Filter:
    id: str
    rules: tuple[Rule, ...] = ()
    tags: Tags = field(default_factory=dict)


class TargetKind(StrEnum):
    INTERFACE = "network-interface"
    NLB = "network-load-balancer"
    ENDPOINT = "gateway-load-balancer-endpoint"


class Health(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"  # the NLB has no healthy target
    NO_LISTENER = "no-listener"  # the NLB has no UDP 4789 listener: AWS then mirrors nothing, without an error
    GONE = "gone"  # the NLB, interface or endpoint behind the target does not exist any more
    UNKNOWN = "unknown"  # not ours to ask (a target shared from another account)


@dataclass(frozen=True)
class Target:
    """A mirror target, and whether packets sent to it would arrive."""

    id: str
    kind: TargetKind
    resource: str  # interface id, load balancer ARN or endpoint id
    health: Health = Health.HEALTHY
    why: str = ""  # unless healthy: one sentence with the remedy
    tags: Tags = field(default_factory=dict)
    capacity: int | None = None  # most sources; None: no limit (NLB and endpoint)


@dataclass(frozen=True)
class Scope:
    """Where to look. Events, schedules and people ask for one; it is a hint, and says nothing about what is true."""

    everything: bool = False
    instances: frozenset[str] = frozenset()
    policy_changed: bool = False  # the policy parameter has a new version: read it and check its references
    plan_only: bool = False
    fresh: frozenset[str] = frozenset()  # instances that an event of the last minutes says are coming up
    attempt: int = 0  # of the stack's first sweep, which waits for a healthy target


@dataclass(frozen=True)
class World:
    """What EC2 said, once, about a scope.

    With `everything`: all instances of the Region and all sessions visible there. Else the scope's instances as far as
    they exist, all sessions on the interfaces of those that run, and those of ours that name the others.
    """

    everything: bool
    asked: frozenset[str]  # instance ids of the scope
    instances: Mapping[str, Instance]
    sessions: tuple[Session, ...]
    targets: Mapping[str, Target]  # those that the policy or a session of ours names, as far as they exist
    filters: Mapping[str, Filter]  # the same of filters, and those of foreign sessions in front of ours


@dataclass(frozen=True)
class Wish:
    """The session that the policy wants on one interface."""

    interface: str
    instance: str
    instance_type: str
    source: str
    description: str
    targets: tuple[str, ...]  # in order of preference
    filter: str
    number: int  # preferred
    vni: int | None
    packet_length: int | None
    create: bool = True  # False: keep and repair what is there, make nothing new (an instance that is not running)


@dataclass(frozen=True)
class Unwanted:
    """Why an interface (or all of an instance, if the interface is empty) gets no session."""

    instance: str
    interface: str
    reason: str  # one sentence
    evident: bool = False  # the world says so (stopped, terminated, window closed), not a changed selection


@dataclass(frozen=True)
class Wanted:
    wishes: Mapping[str, Wish]  # by interface
    unwanted: tuple[Unwanted, ...] = ()


@dataclass(frozen=True)
class Create:
    session: Session  # without id; its tags complete
    instance_type: str
    others: tuple[str, ...]  # targets to try when this one is full
    reason: str


@dataclass(frozen=True)
class Modify:
    before: Session
    after: Session  # same id and interface; its tags complete
    changes: tuple[str, ...]  # names of Session's attributes that differ, without tags
    others: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Delete:
    session: Session
    reason: str
    evident: bool  # see Unwanted


class Trouble(StrEnum):
    """What a plan found that it cannot put right; a metric and a line of the report each."""

    SHADOWED = "shadowed"  # possibly: a foreign session in front accepts packets that ours should get
    NO_SLOT = "no-slot"  # three foreign sessions on the interface
    TARGET_MISSING = "target-missing"
    TARGET_UNHEALTHY = "target-unhealthy"
    TARGET_FULL = "target-full"
    FILTER_MISSING = "filter-missing"
    FILTER_EMPTY = "filter-empty"  # no rule: nothing is mirrored
    QUARANTINED = "quarantined"
    LIMIT = "limit"  # the policy's most sessions
    GUARD = "guard"  # deletes held back
    FORBIDDEN = "forbidden"  # a reference outside what the stack grants


@dataclass(frozen=True)
class Finding:
    trouble: Trouble
    text: str  # one sentence, with the remedy
    source: str = ""
    instance: str = ""
    interface: str = ""
    session: str = ""


@dataclass(frozen=True)
class Plan:
    """Applying it to the world gives what is wanted; a second plan is empty."""

    create: tuple[Create, ...] = ()
    modify: tuple[Modify, ...] = ()
    delete: tuple[Delete, ...] = ()
    kept: int = 0  # sessions of ours that stay as they are
    desired: int = 0  # sessions that the policy wants in this scope
    actual: int = 0  # sessions of ours in this scope
    findings: tuple[Finding, ...] = ()
    held: tuple[Delete, ...] = ()  # by a guard: not to be made, and among those kept


@dataclass(frozen=True)
class Reference:
    """A thing that a policy names and the stack must be allowed to use."""

    kind: str  # target | filter | vpc | tag
    id: str
    path: str  # where in the policy: sources[0].target


class MirroringError(Exception):
    """Ours: one sentence that names the place and the remedy."""


class Refused(MirroringError):
    """AWS refused a call, or could not be reached (code `Unreachable`)."""

    def __init__(self, operation: str, code: str, message: str) -> None:
        super().__init__(f"{operation}: {code}: {message}")
        self.operation = operation
        self.code = code
        self.message = message


def owned(session: Session, owner: str) -> bool:
    """Whether a session is ours. Nothing else is ever modified or deleted."""
    return session.tags.get(OWNER_TAG) == owner


def group_of(instance: Instance) -> str:
    """Its Auto Scaling group, or nothing."""
    return instance.tags.get(GROUP_TAG, "")


def name_of(instance: Instance) -> str:
    return instance.tags.get(NAME_TAG, "")


def stamp(moment: datetime) -> str:
    """A moment in UTC as our tags hold it: 2026-11-23T08:00:00Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
