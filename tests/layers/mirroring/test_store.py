"""Which policy is in force, from Parameter Store as moto keeps it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from moto import mock_aws

from mirroring.clients import Meter, client
from mirroring.model import Refused
from mirroring.store import PAUSED, RUNNING, NoPolicy, Store
from tests.layers.mirroring.wire import Wire, as_json

OWN, DEFAULT, STATE = "/replay/policy", "/replay/policy-default", "/replay/state"
INVALID = "version: 1\nsource: []\n"  # no such key


def policy(description: str) -> str:
    return f"version: 1\ndescription: {description}\n"


@pytest.fixture
def ssm(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        yield client("ssm", attempts=1)


@pytest.fixture
def store(ssm: Any) -> Store:
    """Of a stack just made: a default policy, no own one, running."""
    put(ssm, DEFAULT, policy("the stack's"))
    put(ssm, STATE, RUNNING)
    return Store(ssm, OWN, DEFAULT, STATE)


def put(ssm: Any, name: str, *texts: str, **options: Any) -> None:
    for text in texts:
        ssm.put_parameter(**{"Name": name, "Value": text, "Type": "String", "Overwrite": True, **options})


class TestWhichPolicy:
    def test_the_stacks_default_when_the_user_has_none(self, store: Store) -> None:
        force = store.read()
        assert (force.parameter, force.version) == (DEFAULT, 1)
        assert force.text == policy("the stack's")
        assert force.policy.description == "the stack's"
        assert (force.paused, force.why_paused, force.refused) == (False, "", ())

    def test_the_users_own_wins(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("first"), policy("second"))
        force = store.read()
        assert (force.parameter, force.version, force.policy.description) == (OWN, 2, "second")

    def test_an_invalid_new_version_is_refused_and_the_newest_valid_one_stays(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("old"), policy("good"), INVALID, "sources: [", INVALID)
        force = store.read()
        assert (force.version, force.policy.description) == (2, "good")
        assert [(refusal.parameter, refusal.version) for refusal in force.refused] == [(OWN, 5), (OWN, 4), (OWN, 3)]
        assert all(refusal.error.problems for refusal in force.refused)

    def test_the_same_after_a_cold_start(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("good"), INVALID)
        warm, cold = store.read(), Store(ssm, OWN, DEFAULT, STATE).read()
        assert (cold.policy, cold.version) == (warm.policy, warm.version) == (store.read().policy, 1)
        assert [str(refusal.error) for refusal in cold.refused] == [str(refusal.error) for refusal in warm.refused]

    def test_a_history_of_many_pages_is_read_to_its_end(self, store: Store, ssm: Any) -> None:
        """SSM gives the oldest first: the newest valid version may be on the last page, or on the first."""
        put(ssm, OWN, policy("first"), *[INVALID] * 60)
        assert (store.read().version, len(store.read().refused)) == (1, 60)
        put(ssm, OWN, policy("last"), INVALID)
        assert store.read().version == 62

    def test_without_a_valid_own_version_the_default_stays_in_force(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, INVALID)
        force = store.read()
        assert force.parameter == DEFAULT
        assert [(refusal.parameter, refusal.version) for refusal in force.refused] == [(OWN, 1)]

    def test_the_default_has_a_history_too(self, store: Store, ssm: Any) -> None:
        put(ssm, DEFAULT, INVALID)
        put(ssm, OWN, INVALID)
        force = store.read()
        assert (force.parameter, force.version) == (DEFAULT, 1)
        assert [refusal.parameter for refusal in force.refused] == [OWN, DEFAULT]

    def test_a_secure_string_is_read_in_the_clear(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("secret"), INVALID, Type="SecureString")
        assert store.read().policy.description == "secret"

    def test_no_policy_at_all_says_where_to_write_one(self, store: Store, ssm: Any) -> None:
        ssm.delete_parameter(Name=DEFAULT)
        with pytest.raises(NoPolicy, match=f"If not, write one to the parameter {OWN} or {DEFAULT}$") as caught:
            store.read()
        asked = "there is no policy: is the stack's name (--stack) or the Region (--region) another? "
        assert str(caught.value).startswith(asked)

    def test_no_valid_policy_says_what_to_correct(self, ssm: Any) -> None:
        put(ssm, OWN, INVALID, INVALID)
        with pytest.raises(NoPolicy, match=f"correct {OWN}, whose version 2 says: .*source") as caught:
            Store(ssm, OWN, DEFAULT, STATE).read()
        assert [refusal.version for refusal in caught.value.refused] == [2, 1]

    def test_a_history_that_cannot_be_read_is_an_error_and_no_policy(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("good"), INVALID)
        refused = as_json({"__type": "ThrottlingException", "message": "slow"}, 400)
        Wire([refused]).tap(ssm, "GetParameterHistory")
        with pytest.raises(Refused, match="GetParameterHistory: ThrottlingException"):
            store.read()

    def test_one_parameter_alone_as_mirrorctl_names_it(self, ssm: Any) -> None:
        put(ssm, OWN, policy("alone"))
        store = Store(ssm, OWN, "", "")
        assert store.read().parameter == OWN
        assert not store.read().paused and not store.paused()


class TestSize:
    def test_a_version_larger_than_its_tier_holds_is_refused(self) -> None:
        """AWS never stores one; what emulators store is judged alike."""
        large = policy("x") + "# " + "x" * 9000
        answer = {"Parameters": [parameter(OWN, large, 2), parameter(STATE, RUNNING, 1)]}
        older = {"Parameters": [parameter(OWN, policy("standard") + "#" * 5000, 1) | {"Tier": "Standard"}]}
        wire = Wire([as_json(answer), as_json(older)])
        with mock_aws():
            store = Store(wire.tap(client("ssm", region="eu-west-1", attempts=1)), OWN, DEFAULT, STATE)
        with pytest.raises(NoPolicy) as caught:
            store.read()
        assert [str(refusal.error).count("a parameter of tier") for refusal in caught.value.refused] == [1, 1]
        assert "Standard holds 4096" in str(caught.value.refused[1].error)


class TestCalls:
    def test_one_call_reads_all(self, store: Store, ssm: Any) -> None:
        meter = Meter(ssm)
        store.read()
        assert meter.calls == 1

    def test_a_newest_version_that_stays_invalid_costs_its_history_once(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("good"), INVALID)
        meter = Meter(ssm)
        store.read()
        first = meter.calls
        store.read()
        assert (first, meter.calls) == (2, 3)

    def test_an_unchanged_version_is_parsed_once(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("same"))
        first = store.read().policy
        assert store.read().policy is first
        put(ssm, OWN, policy("same"))
        assert store.read().version == 2

    def test_a_parameter_made_anew_with_the_same_version_number_is_another(self) -> None:
        replies = [
            as_json({"Parameters": [parameter(OWN, policy(text), 1, modified), parameter(STATE, RUNNING, 1)]})
            for text, modified in [("before", 1_000), ("after", 2_000)]
        ]
        with mock_aws():
            ssm = Wire(replies).tap(client("ssm", region="eu-west-1", attempts=1))
        store = Store(ssm, OWN, DEFAULT, STATE)
        assert [store.read().policy.description for _ in range(2)] == ["before", "after"]


class TestSwitch:
    def test_running(self, store: Store) -> None:
        assert not store.paused()

    def test_pause_and_resume(self, store: Store) -> None:
        store.pause()
        assert store.paused()
        assert store.read().paused
        assert f"{STATE} says `{PAUSED}`: write `{RUNNING}` to it to go on" in store.read().why_paused
        store.resume()
        assert not store.paused() and not store.read().paused

    def test_pause_makes_a_switch_that_is_gone(self, store: Store, ssm: Any) -> None:
        ssm.delete_parameter(Name=STATE)
        store.pause()
        assert ssm.get_parameter(Name=STATE)["Parameter"]["Value"] == PAUSED

    def test_the_switch_can_be_removed_and_removed_again(self, store: Store, ssm: Any) -> None:
        store.remove_switch()
        store.remove_switch()
        assert store.paused()
        with pytest.raises(ssm.exceptions.ParameterNotFound):
            ssm.get_parameter(Name=STATE)

    def test_without_a_switch_nothing_is_changed(self, store: Store, ssm: Any) -> None:
        ssm.delete_parameter(Name=STATE)
        assert store.paused()
        assert store.read().paused
        assert f"{STATE} does not exist" in store.read().why_paused

    def test_a_word_that_we_do_not_know_counts_as_paused(self, store: Store, ssm: Any) -> None:
        put(ssm, STATE, "runing")
        assert store.paused()
        assert f"neither `{RUNNING}` nor `{PAUSED}`" in store.read().why_paused

    def test_a_switch_that_cannot_be_read_is_an_error(self, ssm: Any) -> None:
        refused = as_json({"__type": "AccessDeniedException", "message": "no"}, 400)
        store = Store(Wire([refused]).tap(client("ssm", attempts=1)), OWN, DEFAULT, STATE)
        with pytest.raises(Refused, match="GetParameter: AccessDeniedException"):
            store.paused()

    def test_the_policy_can_pause_too(self, store: Store, ssm: Any) -> None:
        put(ssm, OWN, policy("x") + "paused: true\n")
        assert store.read().paused
        assert f"the policy in {OWN} says `paused: true`" in store.read().why_paused
        assert not store.paused(), "the switch itself is on"


def parameter(name: str, text: str, version: int, modified: float = 0) -> dict[str, Any]:
    at = datetime.fromtimestamp(modified, UTC).timestamp()
    return {"Name": name, "Value": text, "Version": version, "Type": "String", "LastModifiedDate": at}
