"""Every error code that AWS documents or others have met has an answer of its own, and a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirroring.answers import ROWS, UNKNOWN, Answer, answer, row_of

CREATE = "CreateTrafficMirrorSession"
MODIFY = "ModifyTrafficMirrorSession"
DELETE = "DeleteTrafficMirrorSession"
TAG = "CreateTags"
UNTAG = "DeleteTags"
READ = "DescribeTrafficMirrorSessions"

# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html, and what other programs have met.
EXPECTED = [
    (CREATE, "TrafficMirrorSessionsPerInterfaceLimitExceeded", Answer.REPLAN),
    (CREATE, "TrafficMirrorSessionsPerTargetLimitExceeded", Answer.NEXT_TARGET),
    (CREATE, "TrafficMirrorSourcesPerTargetLimitExceeded", Answer.NEXT_TARGET),
    (MODIFY, "TrafficMirrorSourcesPerTargetLimitExceeded", Answer.NEXT_TARGET),
    (CREATE, "TrafficMirrorSessionLimitExceeded", Answer.STOP),
    ("CreateTrafficMirrorTarget", "TrafficMirrorTargetLimitExceeded", Answer.STOP),
    ("CreateTrafficMirrorFilter", "TrafficMirrorFilterLimitExceeded", Answer.STOP),
    ("CreateTrafficMirrorFilterRule", "TrafficMirrorFilterRuleLimitExceeded", Answer.STOP),
    ("CreateTrafficMirrorFilterRule", "TrafficMirrorFilterRuleAlreadyExists", Answer.REPLAN),
    ("DeleteTrafficMirrorFilter", "TrafficMirrorFilterInUse", Answer.REPLAN),
    ("DeleteTrafficMirrorTarget", "TrafficMirrorTargetInUseException", Answer.REPLAN),
    (CREATE, "TrafficMirrorTargetInUseException", Answer.QUARANTINE),
    (CREATE, "InvalidNetworkInterface.InUse", Answer.QUARANTINE),
    (CREATE, "DryRunOperation", Answer.SUCCESS),
    (CREATE, "UnauthorizedOperation", Answer.STOP),
    (TAG, "UnauthorizedOperation", Answer.STOP),
    ("GetParameters", "AccessDeniedException", Answer.STOP),
    (READ, "ExpiredTokenException", Answer.STOP),
    (CREATE, "IdempotentParameterMismatch", Answer.STOP),
    (CREATE, "RequestLimitExceeded", Answer.RETRY),
    (READ, "RequestLimitExceeded", Answer.RETRY),
    ("PutEvents", "ThrottlingException", Answer.RETRY),
    ("SendMessage", "RequestThrottled", Answer.RETRY),
    ("DescribeListeners", "Throttling", Answer.RETRY),
    (CREATE, "EC2ThrottledException", Answer.RETRY),
    (CREATE, "InternalError", Answer.RETRY),
    (CREATE, "Unavailable", Answer.RETRY),
    (CREATE, "ServiceUnavailable", Answer.RETRY),
    (CREATE, "503", Answer.RETRY),
    (DELETE, "Unreachable", Answer.RETRY),
    (READ, "Unreadable", Answer.RETRY),
    (TAG, "ConcurrentTagAccess", Answer.RETRY),
    (TAG, "TagLimitExceeded", Answer.QUARANTINE),
    (TAG, "TagPolicyViolation", Answer.QUARANTINE),
    (CREATE, "TagLimitExceeded", Answer.STOP),
    (CREATE, "TagPolicyViolation", Answer.STOP),
    (CREATE, "InvalidNetworkInterfaceID.NotFound", Answer.RETRY),
    (TAG, "InvalidInstanceID.NotFound", Answer.RETRY),
    (UNTAG, "InvalidInstanceID.NotFound", Answer.SUCCESS),
    (UNTAG, "InvalidID", Answer.SUCCESS),
    (CREATE, "InvalidTrafficMirrorTargetId.NotFound", Answer.QUARANTINE),
    (MODIFY, "InvalidTrafficMirrorTargetId.NotFound", Answer.QUARANTINE),
    (CREATE, "InvalidTrafficMirrorTarget", Answer.QUARANTINE),
    (CREATE, "InvalidTrafficMirrorFilterId.NotFound", Answer.QUARANTINE),
    (CREATE, "InvalidTrafficMirrorFilterRuleId.NotFound", Answer.QUARANTINE),
    (CREATE, "NetworkInterfaceNotSupported", Answer.QUARANTINE),
    (DELETE, "InvalidTrafficMirrorSessionId.NotFound", Answer.SUCCESS),
    (MODIFY, "InvalidTrafficMirrorSessionId.NotFound", Answer.REPLAN),
    (TAG, "InvalidTrafficMirrorSessionId.NotFound", Answer.REPLAN),
    (TAG, "InvalidID", Answer.REPLAN),
]


@pytest.mark.parametrize(("operation", "code", "expected"), EXPECTED)
def test_known_codes(operation: str, code: str, expected: Answer) -> None:
    row = row_of(operation, code)
    assert row is not UNKNOWN, "a known code must have a row of its own"
    assert row.answer is expected
    assert answer(operation, code) is expected


def test_a_number_that_somebody_took_meanwhile_has_no_documented_code_so_we_look_again() -> None:
    assert answer(CREATE, "InvalidParameterValue") is Answer.REPLAN
    assert row_of(CREATE, "InvalidParameterValue") is UNKNOWN


def test_only_a_delete_succeeds_by_not_found() -> None:
    for operation in (CREATE, MODIFY, TAG, READ):
        assert answer(operation, "InvalidTrafficMirrorSessionId.NotFound") is not Answer.SUCCESS


@given(st.sampled_from([CREATE, MODIFY, TAG, READ, "GetParameters"]), st.text(max_size=40))
def test_no_error_but_a_dry_runs_is_a_success_of_what_is_no_delete(operation: str, code: str) -> None:
    assert (answer(operation, code) is Answer.SUCCESS) == (code == "DryRunOperation")


def test_every_row_decides_something_and_says_why() -> None:
    decided = {row_of(operation, code) for operation, code, _ in EXPECTED}
    assert decided == set(ROWS), "a row that no expected code reaches is a row without a test"
    assert all(row.reason for row in ROWS)
    assert {row.answer for row in ROWS} == set(Answer)
