"""What AWS does by itself in a live emulator: Auto Scaling groups act, stacks wait for them, targets have a health."""

from lab.cloud.clock import Application, regularly
from lab.cloud.ministack import groups, health, signals
from lab.cloud.ministack.scaling import Scaling

#: Seconds between two looks at everything.
LOOK = 0.1


def live(application: Application, pace: float) -> Application:
    """The application, which from now on acts by itself. Seconds of AWS's services pass `pace` times as fast."""
    watch = health.Watch(pace)
    scaling = Scaling(pace, watch)
    health.live(watch)
    groups.live()
    signals.live(scaling)

    def look() -> None:
        scaling.look()
        signals.look(scaling)

    return regularly(application, look, LOOK)
