"""What is put right about a session, how that is told, and what its hash says."""

from dataclasses import replace
from typing import Any

import pytest

from mirroring.model import CONFIG_TAG, CREATED_TAG, DESCRIPTION_TAG, OWNER_TAG, SOURCE_TAG, Health, Session
from mirroring.repair import asked_for, config_hash, repair, repaired, same_length, settings_of, tagged
from tests.layers.mirroring.worlds import NOW, OWNER, VNI_OF_AWS, a_session, a_target, a_wish, a_world

NLB, ENI = a_target("tmt-a"), a_target("tmt-eni", capacity=10)
WORLD = a_world(targets=(NLB, ENI, a_target("tmt-gone", Health.GONE)))


def made(interface: str = "eni-1-0", **changed: object) -> Session:
    """As it was made for the plain wish, and altered since."""
    wish = a_wish(interface)
    asked = asked_for(wish, "tmt-a", 1)
    session = replace(asked, id="tms-1", vni=VNI_OF_AWS, tags=tagged(asked, wish, {}, OWNER, NOW))
    return replace(session, **changed)  # type: ignore[arg-type]


def reason(before: Session, target: str = "tmt-a", number: int = 1, **wished: Any) -> str:
    wish = a_wish("eni-1-0", **wished)
    after = repaired(before, wish, target, number, WORLD, OWNER, NOW)
    return repair(before, after, wish, (), WORLD).reason


def test_what_is_right_stays_as_it_is() -> None:
    before = made(packet_length=8500)
    assert repaired(before, a_wish("eni-1-0"), "tmt-a", 1, WORLD, OWNER, NOW) == before


def test_everything_that_is_asked_for_is_put_right() -> None:
    wish = a_wish("eni-1-0", filter="tmf-b", vni=7, packet_length=128)
    after = repaired(made(description="?"), wish, "tmt-eni", 5, WORLD, OWNER, NOW)
    asked = replace(asked_for(wish, "tmt-eni", 5), id="tms-1", tags=after.tags)
    assert after == asked
    assert after.tags[CONFIG_TAG] == config_hash(after)


def test_the_old_targets_default_length_is_not_taken_along() -> None:
    """The next target tried may be of another kind, and would be told 8500 bytes that nobody asked for."""
    after = repaired(made(packet_length=8500), a_wish("eni-1-0"), "tmt-b", 1, WORLD, OWNER, NOW)
    assert after.packet_length is None


def test_only_the_tags_that_are_ours_are_put_right() -> None:
    present = {CREATED_TAG: "2026-11-01T00:00:00Z", DESCRIPTION_TAG: "old", "team": "shop", SOURCE_TAG: "old"}
    asked = asked_for(a_wish("eni-1-0"), "tmt-a", 1)
    assert tagged(asked, a_wish("eni-1-0"), present, OWNER, NOW) == {
        OWNER_TAG: OWNER,
        SOURCE_TAG: "web",
        CONFIG_TAG: config_hash(asked),
        CREATED_TAG: "2026-11-01T00:00:00Z",
        "team": "shop",
    }
    new = tagged(asked, a_wish("eni-1-0", description="shop " * 100), {}, OWNER, NOW)
    assert (new[CREATED_TAG], len(new[DESCRIPTION_TAG])) == ("2026-11-23T08:00:00Z", 256)


@pytest.mark.parametrize(
    ("target", "asked", "actual", "same"),
    [
        (NLB, None, 8500, True),
        (NLB, 8500, None, True),
        (NLB, 8500, 128, False),
        (None, None, 8500, True),
        (ENI, None, None, True),
        (ENI, None, 8500, False),
    ],
)
def test_no_packet_length_is_the_longest_but_to_an_interface(
    target: object, asked: int | None, actual: int | None, same: bool
) -> None:
    assert same_length(asked, actual, target) is same  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "wished", "told"),
    [
        (made(), {"filter": "tmf-b", "vni": 7}, f"policy changed: filter tmf-a → tmf-b, vni {VNI_OF_AWS} → 7"),
        (made(), {"packet_length": 128}, "policy changed: packet length unset → 128"),
        (made(filter="tmf-b"), {}, "altered by hand: filter tmf-b → tmf-a"),
        (made(filter="tmf-b", tags={}), {}, "policy changed: filter tmf-b → tmf-a"),
        (made(description=""), {}, "instance of the interface: description unset → i-1"),
        (made(), {"source": "api"}, "tags completed: mirror:source"),
    ],
)
def test_the_reason_says_who_changed_what(before: Session, wished: dict[str, Any], told: str) -> None:
    assert reason(before, **wished) == told


def test_the_reason_of_another_number_is_a_foreign_session_or_its_end() -> None:
    assert reason(made(), number=2) == "a foreign session holds the number: number 1 → 2"
    moved = made(number=2, tags={**made().tags, CONFIG_TAG: config_hash(made(number=2, vni=None))})
    assert reason(moved) == "preferred number free: number 2 → 1"


@pytest.mark.parametrize("old", ["tmt-gone", "tmt-unheard-of"])
def test_the_reason_of_another_target_may_be_that_the_old_one_is_gone(old: str) -> None:
    before = made(target=old, tags={})
    assert reason(before, target="tmt-eni").startswith(f"target gone: target {old} → tmt-eni")
    assert reason(made(), target="tmt-eni").startswith("policy changed: target tmt-a → tmt-eni")


def test_other_targets_are_tried_only_where_the_target_changes() -> None:
    wish = a_wish("eni-1-0")
    moved = repair(made(), made(target="tmt-eni"), wish, ("tmt-b",), WORLD)
    assert (moved.changes, moved.others) == (("target",), ("tmt-b",))
    stays = repair(made(), made(number=7), wish, ("tmt-b",), WORLD)
    assert (stays.changes, stays.others) == (("number",), ())


def test_the_hash_takes_in_every_setting_and_reads_no_packet_length_as_the_longest() -> None:
    plain = a_session("tms-1", "eni-1-0")
    assert config_hash(plain) == config_hash(replace(plain, id="tms-2", interface="eni-2-0", packet_length=8500))
    variants = [
        plain,
        *(replace(plain, **change) for change in (
            {"target": "tmt-b"}, {"filter": "tmf-b"}, {"number": 2}, {"vni": 7}, {"vni": None}, {"packet_length": 64},
        )),
    ]  # fmt: skip
    assert len({config_hash(session) for session in variants}) == len(variants)
    assert settings_of(plain) == {
        "target": "tmt-a", "filter": "tmf-a", "number": 1, "vni": VNI_OF_AWS, "packet_length": 8500,
    }  # fmt: skip
