"""Workers: how an instance is made, how many there are, and what an update may do to them."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from lab.cloud.intrinsics import TemplateError
from lab.cloud.stack import Stack
from tests.deploy.given import ARCHITECTURES, given

AMAZON_LINUX = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default"


@pytest.fixture(scope="module")
def stack() -> Stack:
    return given()


def launched(stack: Stack) -> Mapping[str, Any]:
    data: Mapping[str, Any] = stack.resources["WorkerLaunchTemplate"].properties["LaunchTemplateData"]
    return data


def keys(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        yield from node
        for value in node.values():
            yield from keys(value)
    elif isinstance(node, list):
        for value in node:
            yield from keys(value)


def test_metadata_is_given_to_programs_on_the_machine_that_ask_with_a_token(stack: Stack) -> None:
    assert launched(stack)["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}


def test_every_volume_is_encrypted_and_goes_with_its_worker(stack: Stack) -> None:
    """/dev/xvda is Amazon Linux's root; under another name a second volume would be encrypted, and the root not."""
    (mapping,) = launched(stack)["BlockDeviceMappings"]
    assert mapping["DeviceName"] == "/dev/xvda"
    assert mapping["Ebs"]["Encrypted"] is True
    assert mapping["Ebs"]["DeleteOnTermination"] is True
    assert "VolumeSize" not in mapping["Ebs"]  # one that is smaller than the image's does not start


def test_a_worker_has_no_public_address_and_no_key(stack: Stack) -> None:
    (interface,) = launched(stack)["NetworkInterfaces"]
    assert interface["AssociatePublicIpAddress"] is False
    assert interface["Groups"] == [stack.ref("WorkerSecurityGroup")]
    assert "SecurityGroupIds" not in launched(stack)  # EC2 refuses both
    assert "KeyName" not in set(keys(launched(stack)))
    assert launched(stack)["IamInstanceProfile"] == {"Arn": stack.attribute("WorkerInstanceProfile", "Arn")}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_machine_image_is_of_the_architecture(architecture: str) -> None:
    image = launched(given(WorkerArchitecture=architecture, InstanceType="m7i.large"))["ImageId"]
    assert image == f"{{{{resolve:ssm:{AMAZON_LINUX}-{architecture}}}}}"


def test_an_image_of_ones_own_is_taken(stack: Stack) -> None:
    assert launched(given(WorkerImageId="ami-0a1b2c3d4e5f60718"))["ImageId"] == "ami-0a1b2c3d4e5f60718"
    assert launched(given(InstanceType="m7g.xlarge"))["InstanceType"] == "m7g.xlarge"


def test_another_architecture_needs_another_instance_type() -> None:
    """The default is of arm64, and does not start from an image for x86_64: the deploy would fail after 15 minutes."""
    with pytest.raises(TemplateError, match="InstanceType"):
        _ = given(WorkerArchitecture="x86_64").resources


@pytest.mark.parametrize(("least", "most"), [("1", "2"), ("2", "6"), ("100", "200")])
def test_the_fleet_is_as_large_as_asked_for(least: str, most: str) -> None:
    stack = given(FleetMinimum=least, FleetMaximum=most)
    group = stack.resources["WorkerGroup"]
    assert (group.properties["MinSize"], group.properties["MaxSize"]) == (least, most)
    assert group.attributes["CreationPolicy"]["ResourceSignal"]["Count"] == least
    # An update would set it back to this number; and the group takes away what is too much.
    assert not {"DesiredCapacity", "NewInstancesProtectedFromScaleIn"} & group.properties.keys()


def test_a_fleet_that_cannot_grow_is_refused() -> None:
    """A rolling update needs MinInstancesInService to be less than MaxSize; that less than the minimum is no maximum
    is for Auto Scaling to say, as template rules compare no numbers."""
    with pytest.raises(TemplateError, match="FleetMaximum must be more than FleetMinimum"):
        _ = given(FleetMinimum="6", FleetMaximum="6").resources


def test_an_update_waits_for_each_new_worker_and_takes_none_away_before(stack: Stack) -> None:
    attributes = stack.resources["WorkerGroup"].attributes
    update = attributes["UpdatePolicy"]["AutoScalingRollingUpdate"]
    assert update["WaitOnResourceSignals"] is True
    assert update["PauseTime"] == attributes["CreationPolicy"]["ResourceSignal"]["Timeout"] == "PT15M"
    assert update["MinInstancesInService"] == stack.resources["WorkerGroup"].properties["MinSize"]
    assert update["MaxBatchSize"] == 1
    # Else Auto Scaling ends what is being started, and brings back what is being replaced.
    assert set(update["SuspendProcesses"]) >= set(
        "HealthCheck ReplaceUnhealthy AZRebalance AlarmNotification ScheduledActions".split()
    )
    assert not {"Launch", "Terminate", "AddToLoadBalancer"} & set(update["SuspendProcesses"])  # the update's own


def test_workers_stand_in_all_subnets_and_their_balancer_says_which_are_well(stack: Stack) -> None:
    group = stack.resources["WorkerGroup"].properties
    assert group["VPCZoneIdentifier"] == stack.parameters["HandlerSubnetIds"]
    assert group["HealthCheckType"] == "ELB"
    assert group["LaunchTemplate"]["LaunchTemplateId"] == stack.ref("WorkerLaunchTemplate")
    assert group["LaunchTemplate"]["Version"] == stack.attribute("WorkerLaunchTemplate", "LatestVersionNumber")


def test_a_slow_start_is_not_taken_for_a_sick_worker(stack: Stack) -> None:
    """Packages, code, install and start take minutes at worst; the group would end a worker that is checked before."""
    assert stack.resources["WorkerGroup"].properties["HealthCheckGracePeriod"] >= 300


def test_the_fleet_grows_with_the_use_of_its_processors(stack: Stack) -> None:
    (policy,) = stack.of_type("AWS::AutoScaling::ScalingPolicy").values()
    assert policy.properties["AutoScalingGroupName"] == stack.ref("WorkerGroup")
    tracked = policy.properties["TargetTrackingConfiguration"]
    assert tracked["PredefinedMetricSpecification"] == {"PredefinedMetricType": "ASGAverageCPUUtilization"}
    assert 40 <= tracked["TargetValue"] <= 60  # what comes while a new worker boots must find room
    assert "DisableScaleIn" not in tracked
    assert launched(stack)["Monitoring"] == {"Enabled": True}  # else the use is known every five minutes
    assert stack.resources["WorkerGroup"].properties["DefaultInstanceWarmup"] >= 60  # a booting one is busy
