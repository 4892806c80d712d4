"""What happens, in a few words."""

import json
from pathlib import Path

import pytest

from lab.happenings import told

EVENTS = Path(__file__).parents[2] / "events"
#: The custom resource's requests and a batch are no events of the bus.
NO_EVENTS = {"custom-resource-create", "custom-resource-update", "custom-resource-delete", "sqs-batch"}
NAMES = sorted({path.stem for path in EVENTS.glob("*.json")} - NO_EVENTS)


@pytest.mark.parametrize("name", NAMES)
def test_every_event_can_be_told(name: str) -> None:
    text = told(json.loads((EVENTS / f"{name}.json").read_text()))
    assert 0 < len(text) < 100


def test_an_event_is_told_with_what_it_is_about() -> None:
    text = told(json.loads((EVENTS / "ec2-instance-running.json").read_text()))
    assert text == "i-1234567890abcdef0 running"
