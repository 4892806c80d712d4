import pytest

from lab.cloud.faults import ApiError, Bucket, Faults


def outcome(faults: Faults, action: str = "Act", **parameters: object) -> str:
    """`done`, or a code; `done, but` a code when the call took effect."""
    done = ""
    try:
        with faults.around(action, parameters):
            done = "done"
    except ApiError as error:
        return f"{done}, but {error.code}" if done else error.code
    return done


def test_as_often_as_asked_for() -> None:
    faults = Faults()
    faults.fail("Act", "Broken", times=2, after=1)
    assert [outcome(faults) for _ in range(5)] == ["done", "Broken", "Broken", "done", "done"]
    assert outcome(faults, "Other") == "done"


def test_any_action_and_only_when() -> None:
    faults = Faults()
    faults.fail("*", "Broken", times=9, when=lambda call: call.get("n") == 1)
    assert [outcome(faults, "A", n=1), outcome(faults, "B", n=2), outcome(faults, "B", n=1)] == [
        "Broken",
        "done",
        "Broken",
    ]


def test_several_faults_come_one_after_the_other() -> None:
    faults = Faults()
    faults.fail("Act", "First")
    faults.fail("Act", "Second")
    assert [outcome(faults) for _ in range(3)] == ["First", "Second", "done"]


def test_a_lost_answer() -> None:
    faults = Faults()
    faults.fail("Act", "Lost", lost=True)
    assert [outcome(faults), outcome(faults)] == ["done, but Lost", "done"]


def test_denials_stay() -> None:
    faults = Faults()
    faults.deny("Act", lambda call: call.get("n") == 1)
    assert [outcome(faults, n=1), outcome(faults, n=1), outcome(faults, n=2)] == [
        "UnauthorizedOperation",
        "UnauthorizedOperation",
        "done",
    ]
    faults.clear()
    assert outcome(faults, n=1) == "done"


def test_buckets_are_an_actions_own() -> None:
    faults, now = Faults(), [0.0]
    faults.throttle(lambda action: action != "Free", lambda: now[0], burst=1, rate=0.5)
    assert [outcome(faults, "A"), outcome(faults, "A"), outcome(faults, "B"), outcome(faults, "Free")] == [
        "done",
        "RequestLimitExceeded",
        "done",
        "done",
    ]
    now[0] = 2.0
    assert outcome(faults, "A") == "done"


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    now = [0.0]
    bucket = Bucket(lambda action: True, lambda: now[0], burst=2, rate=1)
    assert bucket.take("A")
    now[0] = 100.0
    assert [bucket.take("A") for _ in range(3)] == [True, True, False]


def test_all_calls_are_counted_the_refused_ones_too() -> None:
    faults = Faults()
    faults.fail("Act", "Broken")
    outcome(faults, n=1)
    outcome(faults, n=2)
    assert [(call.action, call.parameters) for call in faults.calls] == [("Act", {"n": 1}), ("Act", {"n": 2})]


def test_an_error_of_the_call_itself_passes_through() -> None:
    faults = Faults()
    with pytest.raises(ApiError, match="Own: text"), faults.around("Act", {}):
        raise ApiError("Own", "text")
