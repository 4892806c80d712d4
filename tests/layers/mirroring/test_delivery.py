"""What came in, and which of its records come again."""

from datetime import UTC, datetime

import pytest

from mirroring.delivery import LONGEST_DELAY, delay_of, settle, unpack
from mirroring.model import Scope
from tests.layers.mirroring.records import batch, failures, state

NOW = datetime(2026, 11, 23, 8, 5, tzinfo=UTC)


def test_a_delivery_tells_scopes_and_what_is_passed_over() -> None:
    delivery = unpack(batch(state("i-1", "stopped"), {"source": "aws.s3"}), NOW)
    assert delivery.scopes == [Scope(instances=frozenset({"i-1"}))]
    assert delivery.passed_over == ["unknown event: source 'aws.s3', detail-type None"]
    assert [hint.event for hint in delivery.hints] == [state("i-1", "stopped"), {"source": "aws.s3"}]


def test_a_bare_event_has_no_record_to_settle() -> None:
    assert settle(unpack(state("i-1"), NOW), lambda _: True, lambda *_: None) == {"batchItemFailures": []}


@pytest.mark.parametrize(
    ("received", "seconds"), [(0, 30), (1, 30), (2, 60), (5, 480), (6, LONGEST_DELAY), (10**9, LONGEST_DELAY)]
)
def test_delays_double_up_to_a_quarter_of_an_hour(received: int, seconds: int) -> None:
    assert delay_of(received) == seconds


def test_a_record_is_judged_by_its_own_scope_and_count() -> None:
    delays: dict[str, int] = {}
    delivery = unpack(batch(state("i-1"), state("i-2"), received=2), NOW)
    answer = settle(delivery, lambda scope: "i-2" in scope.instances, delays.__setitem__)
    assert failures(answer) == {"m-2"}
    assert delays == {"r-2": 60}


def test_out_of_turn_a_record_comes_again_soon_whatever_its_count() -> None:
    delays: dict[str, int] = {}
    settle(unpack(batch(state("i-1"), received=9), NOW), lambda _: True, delays.__setitem__, in_turn=False)
    assert delays == {"r-1": 30}
