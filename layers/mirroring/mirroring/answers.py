"""What we do about each error code of AWS: a table, first row that fits, each with its reason.

Codes: https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html. Some are known only from other
programs' sources (those of `Invalid…NotFound` but interface and instance, `InvalidTrafficMirrorTarget`,
`NetworkInterfaceNotSupported`), and the code of a session number taken twice is documented nowhere: hence the last row.
"""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class Answer(StrEnum):
    RETRY = "retry"  # the same call again, a little later
    REPLAN = "replan"  # the world is not what we saw: look again and plan anew, once; refused again, quarantine
    NEXT_TARGET = "next-target"  # this target is full: the next in the list
    QUARANTINE = "quarantine"  # it would be refused again: leave it alone for a time, and report it
    STOP = "stop"  # nothing of this run can work: end it with an alarm
    SUCCESS = "success"  # what the call was for is so already


@dataclass(frozen=True)
class Row:
    operations: str  # names of API operations, separated by spaces; a star stands for any text
    codes: str  # the same, of error codes
    answer: Answer
    reason: str


_CREATE = "CreateTrafficMirrorSession"
_WRITE = "CreateTrafficMirrorSession ModifyTrafficMirrorSession"

ROWS = (
    Row("*", "DryRunOperation", Answer.SUCCESS, "the call would be allowed, which is all that was asked"),
    # Later.
    Row(
        "*",
        "RequestLimitExceeded Throttl* *Throttl* RequestThrottled* TooManyRequests* SlowDown *BandwidthLimitExceeded",
        Answer.RETRY,
        "too many calls in this account and Region: ours wait",
    ),
    Row(
        "*",
        "InternalError InternalFailure InternalServerError InternalServiceError* ServerInternal "
        "Unavailable ServiceUnavailable* RequestTimeout* 500 502 503 504",
        Answer.RETRY,
        "AWS itself failed",
    ),
    Row("*", "Unreachable Unreadable", Answer.RETRY, "no answer came that can be read; the call may have been heard"),
    Row("*", "ConcurrentTagAccess", Answer.RETRY, "somebody else tags the same resource just now"),
    # Never, for now.
    Row(
        "*",
        "UnauthorizedOperation AccessDenied* UnauthorizedAccess AuthFailure Blocked OptInRequired PendingVerification "
        "ExpiredToken* RequestExpired InvalidClientTokenId UnrecognizedClientException MissingAuthenticationToken "
        "SignatureDoesNotMatch InvalidSignatureException IncompleteSignature",
        Answer.STOP,
        "our role may not do this: every other call would be refused too, and a person must look",
    ),
    Row("*", "TrafficMirrorSessionLimitExceeded", Answer.STOP, "the account has its 10,000 sessions, a fixed quota"),
    Row(
        "*",
        "TrafficMirrorTargetLimitExceeded TrafficMirrorFilterLimitExceeded TrafficMirrorFilterRuleLimitExceeded",
        Answer.STOP,
        "a fixed quota of the account or the filter: somebody must delete one",
    ),
    Row("*", "IdempotentParameterMismatch", Answer.STOP, "our token stands for another session: a fault of ours"),
    # Gone.
    Row("Delete*", "*NotFound InvalidID", Answer.SUCCESS, "what should go, or lose its tags, is gone"),
    Row(
        _WRITE,
        "InvalidTrafficMirrorTargetId.NotFound InvalidTrafficMirrorTarget*",
        Answer.QUARANTINE,
        "the target does not exist, or cannot take packets: other targets of the source may",
    ),
    Row(
        _WRITE,
        "InvalidTrafficMirrorFilterId.NotFound InvalidTrafficMirrorFilterRuleId.NotFound",
        Answer.QUARANTINE,
        "the policy names a filter that does not exist",
    ),
    Row(
        "ModifyTrafficMirrorSession CreateTags",
        "InvalidTrafficMirrorSessionId.NotFound InvalidID",
        Answer.REPLAN,
        "somebody deleted the session: if it is wanted still, it is made anew",
    ),
    Row(
        "Create* Modify*",
        "InvalidNetworkInterfaceID.NotFound InvalidInstanceID.NotFound",
        Answer.RETRY,
        "what was just launched is not visible everywhere yet",
    ),
    # Another way.
    Row(
        _WRITE,
        "TrafficMirrorSourcesPerTargetLimitExceeded TrafficMirrorSessionsPerTargetLimitExceeded",
        Answer.NEXT_TARGET,
        "an interface as a target takes 10 sources (100 on the largest sizes)",
    ),
    Row(
        _WRITE,
        "TrafficMirrorSessionsPerInterfaceLimitExceeded",
        Answer.REPLAN,
        "somebody took the interface's third slot since we looked",
    ),
    Row(
        _CREATE,
        "NetworkInterfaceNotSupported",
        Answer.QUARANTINE,
        "the instance type cannot be mirrored, whatever the list of types says",
    ),
    Row(
        _CREATE,
        "TrafficMirrorTargetInUse* InvalidNetworkInterface.InUse",
        Answer.QUARANTINE,
        "the interface is a mirror target itself, and so cannot be a source",
    ),
    Row(
        "*",
        "TrafficMirrorFilterInUse TrafficMirrorTargetInUse* TrafficMirrorFilterRuleAlreadyExists",
        Answer.REPLAN,
        "somebody uses it, or made it, since we looked",
    ),
    # Tags.
    Row("CreateTags", "TagLimitExceeded TagPolicyViolation", Answer.QUARANTINE, "this resource cannot bear these tags"),
    Row("*", "TagLimitExceeded TagPolicyViolation", Answer.STOP, "no session can bear our tags, and none goes without"),
)

#: A create refused for a reason that repeating cannot mend, such as a session number that somebody took meanwhile.
UNKNOWN = Row("*", "*", Answer.REPLAN, "an error that we do not know: look again, once")


def row_of(operation: str, code: str) -> Row:
    """The row that decides, with its reason."""
    return next((row for row in ROWS if _fits(row.operations, operation) and _fits(row.codes, code)), UNKNOWN)


def answer(operation: str, code: str) -> Answer:
    """What to do about an error code of an API operation."""
    return row_of(operation, code).answer


def _fits(patterns: str, text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns.split())
