"""What is told of targets, filters, slots and foreign sessions, and the remedy in each."""

from dataclasses import replace

import pytest

from mirroring.findings import in_order, no_slot, of_filters, of_targets, quarantined, shadows
from mirroring.model import Filter, Finding, Session, Trouble, Wish, World
from mirroring.placement import Bar, Room
from mirroring.policy import Source, load
from tests.layers.mirroring.worlds import FILTERS, HTTP, a_session, a_target, a_wish, a_world

TARGET, FILTER = "tmt-0123456789abcdef0", "tmf-0123456789abcdef0"
BARRED = {"tmt-a": Bar(Trouble.TARGET_UNHEALTHY, "Mirror target tmt-a is not healthy: heal it")}


def idle() -> tuple[Source, ...]:
    """A source that no wish is of."""
    text = f"version: 1\nsources: [{{name: idle, match: {{names: nobody}}, target: {TARGET}, filter: {FILTER}}}]"
    return load(text).sources


def test_what_concerns_one_interface_names_it() -> None:
    wish = a_wish("eni-1-0")
    for finding, trouble in (
        (no_slot(wish), Trouble.NO_SLOT),
        (quarantined(wish, "EC2 said no"), Trouble.QUARANTINED),
    ):
        assert finding.trouble is trouble
        assert (finding.source, finding.instance, finding.interface) == ("web", "i-1", "eni-1-0")
        assert "eni-1-0" in finding.text
    assert "EC2 said no" in quarantined(wish, "EC2 said no").text


# Targets


def room(*capacities: int) -> Room:
    """Of `tmt-a`, `tmt-b` …"""
    targets = (a_target(f"tmt-{name}", capacity=count) for name, count in zip("abc", capacities, strict=False))
    return Room(a_world(targets=tuple(targets)), ())


def test_a_barred_target_is_told_once_for_all_interfaces_of_a_source() -> None:
    wishes = [a_wish("eni-1-0"), a_wish("eni-2-0"), a_wish("eni-3-0", source="api")]
    found = of_targets(wishes, wishes[:2], (), BARRED, room())
    assert [(one.source, one.trouble) for one in found] == [
        ("api", Trouble.TARGET_UNHEALTHY),
        ("web", Trouble.TARGET_UNHEALTHY),
    ]
    assert found[0].text == BARRED["tmt-a"].text
    assert found[1].text == f"{BARRED['tmt-a'].text} (interfaces that wait for a target: 2)"


def test_a_full_target_is_told_while_somebody_waits_for_it() -> None:
    wish = a_wish("eni-1-0", targets=("tmt-a", "tmt-b"))
    assert of_targets([wish], [], (), {}, room(0, 1)) == []
    [finding] = of_targets([wish], [wish], (), {}, room(0, 1))
    assert finding.trouble is Trouble.TARGET_FULL
    assert finding.text.startswith("Mirror target tmt-a is full: ")


def test_a_target_that_will_do_is_not_told() -> None:
    assert of_targets([a_wish("eni-1-0")], [], (), {}, room()) == []


def test_the_target_of_a_source_without_wishes_is_told_too() -> None:
    barred = {TARGET: Bar(Trouble.TARGET_MISSING, "it is not there")}
    assert of_targets([], [], idle(), barred, room()) == [Finding(Trouble.TARGET_MISSING, "it is not there", "idle")]


# Filters


def test_a_filter_that_is_missing_or_empty_is_told_once_for_a_source() -> None:
    wishes = [a_wish("eni-1-0", filter="tmf-x"), a_wish("eni-2-0", filter="tmf-x"), a_wish("eni-3-0")]
    wishes.append(a_wish("eni-4-0", source="api", filter="tmf-empty"))
    found = of_filters(wishes, (), a_world())
    assert [(one.source, one.trouble) for one in found] == [
        ("api", Trouble.FILTER_EMPTY),
        ("web", Trouble.FILTER_MISSING),
    ]
    assert "tmf-empty" in found[0].text and "tmf-x" in found[1].text


def test_the_filter_of_a_source_without_wishes_is_told_too() -> None:
    [finding] = of_filters([], idle(), a_world())
    assert (finding.trouble, finding.source) == (Trouble.FILTER_MISSING, "idle")


# Shadows


def shadowed(theirs: Filter, number: int) -> list[Finding]:
    """By a foreign session with this filter and number, of ours with number 5."""
    ours, foreign = _pair(theirs, number)
    return shadows([(ours, _WISH)], {"eni-1-0": [foreign]}, _world(theirs))


_WISH: Wish = a_wish("eni-1-0", number=5)


def _pair(theirs: Filter, number: int) -> tuple[Session, Session]:
    return a_session("tms-1", "eni-1-0", number=5), a_session("tms-f", "eni-1-0", filter=theirs.id, number=number)


def _world(theirs: Filter) -> World:
    return a_world(filters=FILTERS | {theirs.id: theirs})


def test_a_foreign_session_in_front_that_accepts_the_same_packets_is_told() -> None:
    [finding] = shadowed(Filter("tmf-all", (replace(HTTP, destination_ports=None),)), 1)
    assert (finding.trouble, finding.session, finding.interface) == (Trouble.SHADOWED, "tms-f", "eni-1-0")
    for named in ("tms-f (number 1)", "(number 5)", "ingress rule 100", "tmf-all"):
        assert named in finding.text


@pytest.mark.parametrize(
    ("rule", "number"), [(HTTP, 6), (replace(HTTP, destination_ports=(443, 443)), 1)], ids=["behind", "other packets"]
)
def test_a_foreign_session_behind_or_with_other_packets_is_not_told(rule: object, number: int) -> None:
    assert shadowed(Filter("tmf-all", (rule,)), number) == []  # type: ignore[arg-type]


def test_a_foreign_session_whose_filter_is_out_of_sight_is_not_accused() -> None:
    ours, foreign = _pair(Filter("tmf-elsewhere", (HTTP,)), 1)
    assert shadows([(ours, _WISH)], {"eni-1-0": [foreign]}, a_world()) == []


def test_a_session_alone_on_its_interface_is_in_nobodys_shadow() -> None:
    ours, foreign = _pair(Filter("tmf-a", (HTTP,)), 1)
    assert shadows([(ours, _WISH)], {"eni-2-0": [foreign]}, a_world()) == []


def test_findings_have_one_order() -> None:
    found = [Finding(trouble, text, "web") for trouble in Trouble for text in ("b", "a")]
    assert in_order(found) == in_order(reversed(found))
    assert set(in_order(found)) == set(found)
