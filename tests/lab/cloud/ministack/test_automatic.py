"""Only a live emulator acts by itself; that it does is the story of the tests beside this one."""

import pytest

from lab.cloud.emulator import Emulator, EmulatorError
from tests.lab.cloud.fleet import Fleet


def test_one_that_is_not_live_is_as_ministack_made_it(cloud: Emulator) -> None:
    """Groups say that they have instances, and whatever is registered is healthy."""
    fleet = Fleet(cloud)
    name = fleet.group(2)
    assert [*fleet.members(name).values()] == ["InService"] * 2 and fleet.states() == {}
    fleet.elb.register_targets(TargetGroupArn=fleet.target_group, Targets=[{"Id": "i-0"}])
    assert fleet.found() == {"i-0": {"State": "healthy"}}
    fleet.scaling.delete_auto_scaling_group(AutoScalingGroupName=name)
    assert fleet.shown(name) == {}
    with pytest.raises(EmulatorError, match="POST /_lab/health is no side door"):
        cloud.report_health(fleet.target_group, "i-0", "unhealthy")
