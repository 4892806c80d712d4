"""Functions pause at the emulator's pace, and know what time it is."""

import time

from lab.cloud.emulator import Emulator
from tests.lab.cloud.functions import answer

SLEEPER = """
import time
def handler(event, context):
    begun, now = time.monotonic(), time.time()
    time.sleep(4)
    return [time.monotonic() - begun, now]
"""


def test_they_are_shorter_and_the_clock_stays_right(living: Emulator) -> None:
    asked = time.time()
    slept, at = answer(living, "paced", SLEEPER)
    assert 0.4 <= slept < 4
    assert asked < at < time.time()


def test_at_aws_pace_they_are_what_they_are(cloud: Emulator) -> None:
    slept, _ = answer(cloud, "unpaced", SLEEPER.replace("sleep(4)", "sleep(0.5)"))
    assert slept >= 0.5
