"""The account that mirrorctl's documentation shows."""

import signal
import subprocess
import sys

from lab.cloud.account import strict_aws
from lab.cloud.populate import DEFAULT, STATE, WORKERS, populate
from mirroring.policy import load


def test_fifty_instances_in_three_vpcs_and_a_policy_for_them() -> None:
    with strict_aws() as account:
        people = populate(account)
        reservations = account.ec2.describe_instances()["Reservations"]
        instances = [instance for one in reservations for instance in one["Instances"]]
        assert len(instances) == 50
        assert {instance["VpcId"] for instance in instances} == {people.shop, people.payments, people.tools}
        policy = load(account.ssm.get_parameter(Name=DEFAULT)["Parameter"]["Value"])
        assert [source.name for source in policy.sources] == ["web", "api", "payments"]
        assert account.ssm.get_parameter(Name=STATE)["Parameter"]["Value"] == "running"
        [session] = account.ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        assert session["TrafficMirrorSessionId"] == people.foreign
        filters = [{"Name": "tag:aws:cloudformation:stack-name", "Values": ["vpc-traffic-replay"]}]
        [group] = account.client("autoscaling").describe_auto_scaling_groups(Filters=filters)["AutoScalingGroups"]
        assert group["AutoScalingGroupName"] == WORKERS
        assert account.events == []


def test_ids_are_the_same_every_time() -> None:
    with strict_aws() as account:
        first = populate(account)
    with strict_aws() as account:
        assert populate(account) == first


def test_a_server_for_people_ends_when_it_is_told() -> None:
    with subprocess.Popen([sys.executable, "-m", "lab.cloud.populate"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        lines = [server.stdout.readline()]
        while lines[-1] and not lines[-1].startswith("export AWS_ENDPOINT_URL="):
            lines.append(server.stdout.readline())
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0
    assert lines[-1].startswith("export AWS_ENDPOINT_URL=http://127.0.0.1:")
