"""A running emulator as a deployment finds it: stacks, events, functions, and its own end. EC2: test_ministack.py."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.cloud.emulator import ROOT, Emulator, EmulatorError, emulator
from lab.cloud.events import ACCOUNT, REGION, sample

type Template = dict[str, Any]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"
WITHIN = 15.0

PROBE = """
import importlib.util, sys
def handler(event, context):
    found = {name: importlib.util.find_spec(name) for name in ("mirroring", "lab")}
    return {"found": {name: spec.origin if spec else None for name, spec in found.items()}, "path": sys.path}
"""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    with emulator(auth=False) as running:
        yield running


def until[T](look: Callable[[], T]) -> T:
    """What a look gives as soon as it gives something."""
    deadline = time.monotonic() + WITHIN
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def zipped(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return buffer.getvalue()


# Its own affairs


def test_it_listens_on_one_port_of_loopback_alone(cloud: Emulator) -> None:
    sockets = {link.readlink().name for link in Path(f"/proc/{cloud.process.pid}/fd").iterdir()}
    rows = [
        row.split()
        for kind in ("tcp", "tcp6")
        for row in Path(f"/proc/{cloud.process.pid}/net/{kind}").read_text().splitlines()[1:]
    ]
    listening = {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}
    assert listening == {f"0100007F:{cloud.port:04X}"}


def test_it_is_the_account_that_events_name(cloud: Emulator) -> None:
    assert cloud.client("sts").get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    assert cloud.environment["AWS_REGION"] == REGION


def test_it_ends_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    script = (
        "import time\nfrom lab.cloud.emulator import emulator\n"
        "with emulator(auth=False) as cloud:\n    print(cloud.process.pid, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists() or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())
    assert [path.name for path in tmp_path.glob("*/*")] == ["emulator.log"]  # the state is gone


def test_what_goes_wrong_shows_the_log() -> None:
    with pytest.raises(ZeroDivisionError) as caught, emulator(auth=False) as cloud:
        scratch, pid = cloud.log.parent, cloud.process.pid
        raise ZeroDivisionError
    assert "Ready" in caught.value.__notes__[0]
    assert not scratch.exists() and not Path(f"/proc/{pid}").exists()


# Functions


@pytest.mark.parametrize("with_layer", [True, False])
def test_a_function_finds_our_package_in_its_layer_or_not_at_all(cloud: Emulator, with_layer: bool) -> None:
    client, name = cloud.client("lambda"), f"probe-{with_layer}".lower()
    layer = client.publish_layer_version(
        LayerName=name,
        Content={"ZipFile": zipped({"python/mirroring/__init__.py": ""})},
        CompatibleRuntimes=["python3.13"],
    )["LayerVersionArn"]
    client.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Role=ROLE,
        Handler="app.handler",
        Code={"ZipFile": zipped({"app.py": PROBE})},
        Layers=[layer] if with_layer else [],
    )
    answer = json.loads(client.invoke(FunctionName=name)["Payload"].read())
    assert answer["found"]["lab"] is None
    assert str(ROOT) not in answer["path"] and str(ROOT / "layers/mirroring") not in answer["path"]
    origin = answer["found"]["mirroring"]
    assert ("layer_0/python/mirroring" in origin) if with_layer else origin is None


# Events


class Wiring:
    """A rule with one queue, and a dead-letter queue; who may send to which is up to the test."""

    def __init__(self, cloud: Emulator, name: str) -> None:
        self.sqs, bus = cloud.client("sqs"), cloud.client("events")
        self.queue, self.letters = self._queue(name), self._queue(f"{name}-letters")
        self.rule = bus.put_rule(Name=name, EventPattern=json.dumps({"source": ["aws.ec2"]}))["RuleArn"]
        target = {"Id": "1", "Arn": self.arn(self.queue), "DeadLetterConfig": {"Arn": self.arn(self.letters)}}
        bus.put_targets(Rule=name, Targets=[target])

    def _queue(self, name: str) -> str:
        url: str = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        return url

    def arn(self, queue: str) -> str:
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue.rsplit('/', 1)[1]}"

    def let_in(self, queue: str, source: str) -> None:
        statement = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": self.arn(queue),
            "Condition": {"ArnEquals": {"aws:SourceArn": source}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        self.sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": policy})

    def received(self, queue: str) -> list[dict[str, Any]]:
        answer = self.sqs.receive_message(QueueUrl=queue, MessageAttributeNames=["All"])
        return list(answer.get("Messages", []))


def test_an_event_of_a_service_arrives_as_it_is(cloud: Emulator) -> None:
    wiring, event = Wiring(cloud, "arrives"), sample("ec2-instance-running")
    wiring.let_in(wiring.queue, wiring.rule)
    assert cloud.emit(event) == event["id"]
    [message] = wiring.received(wiring.queue)
    assert json.loads(message["Body"]) == {"version": "0", **event}
    cloud.emit(sample("tag-change"))
    assert wiring.received(wiring.queue) == []


@pytest.mark.parametrize("source", ["", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/another"])
def test_a_rule_that_the_queue_does_not_let_in_sends_to_the_dead_letters(cloud: Emulator, source: str) -> None:
    wiring = Wiring(cloud, f"dead{len(source)}")
    wiring.let_in(wiring.letters, wiring.rule)
    if source:
        wiring.let_in(wiring.queue, source)
    cloud.emit(sample("ec2-instance-stopped"))
    assert wiring.received(wiring.queue) == []
    [message] = wiring.received(wiring.letters)
    told = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    assert told == {
        "RULE_ARN": wiring.rule,
        "TARGET_ARN": wiring.arn(wiring.queue),
        "ERROR_CODE": "NO_PERMISSIONS",
    }


def test_an_event_that_nobody_may_take_is_lost(cloud: Emulator) -> None:
    wiring = Wiring(cloud, "lost")
    cloud.emit(sample("ec2-instance-stopped"))
    assert wiring.received(wiring.queue) == [] == wiring.received(wiring.letters)
    assert "event dropped: NO_PERMISSIONS" in cloud.output()


def test_services_events_come_by_the_side_door_alone(cloud: Emulator) -> None:
    entry = {"Source": "aws.ec2", "DetailType": "x", "Detail": "{}"}
    [answer] = cloud.client("events").put_events(Entries=[entry])["Entries"]
    assert answer["ErrorCode"] == "NotAuthorizedForSourceException"
    with pytest.raises(EmulatorError, match="without id, account"):
        cloud.emit({"source": "aws.ec2", "detail-type": "x"})


# Stacks


def deploy(cloud: Emulator, name: str, template: Mapping[str, Any], update: bool = False) -> dict[str, Any]:
    """The stack when it has come to rest."""
    client = cloud.client("cloudformation")
    call = client.update_stack if update else client.create_stack
    call(StackName=name, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"])

    def rested() -> dict[str, Any]:
        [stack] = client.describe_stacks(StackName=name)["Stacks"]
        return dict(stack) if not stack["StackStatus"].endswith("IN_PROGRESS") else {}

    stack = until(rested)
    return stack | {"Outputs": {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}}


def reasons(cloud: Emulator, name: str) -> str:
    events = cloud.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    return " ".join(event.get("ResourceStatusReason", "") for event in events)


def mirroring(cloud: Emulator) -> Template:
    """A mirror target behind a load balancer, with a filter and a rule, and a session."""
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.8.0.0/20")["Subnet"]["SubnetId"]
    launched = ec2.run_instances(ImageId="ami-0", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=subnet)
    interface = launched["Instances"][0]["NetworkInterfaces"][0]["NetworkInterfaceId"]
    tags = [{"Key": "vpc-traffic-replay", "Value": {"Ref": "AWS::StackName"}}]
    resources = {
        "Balancer": {
            "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
            "Properties": {"Type": "network", "Scheme": "internal", "Subnets": [subnet]},
        },
        "Target": {
            "Type": "AWS::EC2::TrafficMirrorTarget",
            "Properties": {"NetworkLoadBalancerArn": {"Ref": "Balancer"}, "Description": "one", "Tags": tags},
        },
        "Filter": {
            "Type": "AWS::EC2::TrafficMirrorFilter",
            "Properties": {"NetworkServices": ["amazon-dns"], "Tags": tags},
        },
        "Rule": {
            "Type": "AWS::EC2::TrafficMirrorFilterRule",
            "Properties": {
                "TrafficMirrorFilterId": {"Ref": "Filter"},
                "TrafficDirection": "ingress",
                "RuleNumber": "100",
                "RuleAction": "accept",
                "Protocol": 6,
                "SourceCidrBlock": "0.0.0.0/0",
                "DestinationCidrBlock": "0.0.0.0/0",
                "DestinationPortRange": {"FromPort": 80, "ToPort": 80},
            },
        },
        "Session": {
            "Type": "AWS::EC2::TrafficMirrorSession",
            "Properties": {
                "NetworkInterfaceId": interface,
                "TrafficMirrorTargetId": {"Fn::GetAtt": ["Target", "Id"]},
                "TrafficMirrorFilterId": {"Ref": "Filter"},
                "SessionNumber": 1,
                "PacketLength": 1000,
            },
        },
    }
    outputs: Template = {name: {"Value": {"Ref": name}} for name in ("Target", "Filter", "Session")}
    outputs["Rule"] = {"Value": {"Fn::GetAtt": ["Rule", "TrafficMirrorFilterRuleId"]}}
    return {"Resources": resources, "Outputs": outputs}


def test_a_stack_makes_changes_replaces_and_deletes_mirroring(cloud: Emulator) -> None:
    template, ec2 = mirroring(cloud), cloud.client("ec2")
    first = deploy(cloud, "mirror", template)
    assert first["StackStatus"] == "CREATE_COMPLETE"
    made = first["Outputs"]
    [target] = ec2.describe_traffic_mirror_targets(TrafficMirrorTargetIds=[made["Target"]])["TrafficMirrorTargets"]
    tags = {tag["Key"]: tag["Value"] for tag in target["Tags"]}
    assert tags["vpc-traffic-replay"] == tags["aws:cloudformation:stack-name"] == "mirror"
    assert ":loadbalancer/net/" in target["NetworkLoadBalancerArn"]

    rule, session = template["Resources"]["Rule"]["Properties"], template["Resources"]["Session"]["Properties"]
    rule |= {"RuleNumber": 200, "DestinationPortRange": {"FromPort": 8080, "ToPort": 8081}}
    template["Resources"]["Filter"]["Properties"]["NetworkServices"] = []
    template["Resources"]["Target"]["Properties"]["Description"] = "two"  # can be given at creation only
    del session["PacketLength"]
    second = deploy(cloud, "mirror", template, update=True)
    assert second["StackStatus"] == "UPDATE_COMPLETE"
    now = second["Outputs"]
    assert now["Target"] != made["Target"] and {**now, "Target": ""} == {**made, "Target": ""}
    [found] = ec2.describe_traffic_mirror_filters(TrafficMirrorFilterIds=[now["Filter"]])["TrafficMirrorFilters"]
    assert found["NetworkServices"] == []
    [ingress] = found["IngressFilterRules"]
    assert (ingress["RuleNumber"], ingress["DestinationPortRange"]) == (200, {"FromPort": 8080, "ToPort": 8081})
    [shown] = ec2.describe_traffic_mirror_sessions(TrafficMirrorSessionIds=[now["Session"]])["TrafficMirrorSessions"]
    assert (shown["TrafficMirrorTargetId"], shown["PacketLength"]) == (now["Target"], 8500)
    old = {"TrafficMirrorTargetIds": [made["Target"]]}
    with pytest.raises(ClientError, match="InvalidTrafficMirrorTargetId.NotFound"):
        ec2.describe_traffic_mirror_targets(**old)

    cloud.client("cloudformation").delete_stack(StackName="mirror")  # answers when it is done
    assert ec2.describe_traffic_mirror_targets()["TrafficMirrorTargets"] == []
    assert ec2.describe_traffic_mirror_filters()["TrafficMirrorFilters"] == []
    assert ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"] == []


def test_what_the_model_refuses_fails_the_stack(cloud: Emulator) -> None:
    arn = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}:loadbalancer/net/none/0"
    target = {"Type": "AWS::EC2::TrafficMirrorTarget", "Properties": {"NetworkLoadBalancerArn": arn}}
    assert deploy(cloud, "refused", {"Resources": {"Target": target}})["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Error Code: InvalidNetworkLoadBalancerArn.NotFound" in reasons(cloud, "refused")


@pytest.mark.parametrize(
    ("kind", "properties", "reason"),
    [
        ("AWS::EC2::TrafficMirrorFilter", {"NetworkService": []}, "'NetworkService' was unexpected"),
        ("AWS::EC2::TrafficMirrorFilter", {"Tags": [{"Key": "a"}]}, "#/Tags/0: 'Value' is a required property"),
        ("AWS::SQS::Queue", {"VisibilityTimeout": "soon"}, "#/VisibilityTimeout: 'soon' is not of type 'integer'"),
        ("AWS::SSM::Parameter", {"Type": "Text", "Value": "x"}, "#/Type: 'Text' is not one of"),
    ],
)
def test_properties_outside_their_schema_fail_the_stack(
    cloud: Emulator, kind: str, properties: dict[str, Any], reason: str
) -> None:
    name = f"bad-{kind.split('::')[-1].lower()}-{len(properties)}-{len(reason)}"
    stack = deploy(cloud, name, {"Resources": {"Bad": {"Type": kind, "Properties": properties}}})
    assert stack["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Properties validation failed for resource Bad" in reasons(cloud, name)
    assert reason in reasons(cloud, name)


def test_a_bad_change_leaves_the_resource_as_it_was(cloud: Emulator) -> None:
    template: Template = {"Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": 40}}}}
    deploy(cloud, "change", template)
    template["Resources"]["Queue"]["Properties"] = {"VisibilityTimeout": 50, "Colour": "red"}
    assert deploy(cloud, "change", template, update=True)["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "'Colour' was unexpected" in reasons(cloud, "change")


def test_the_images_of_amazon_linux_resolve(cloud: Emulator) -> None:
    path = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default"
    resources = {
        name: {
            "Type": "AWS::SSM::Parameter",
            "Properties": {"Type": "String", "Value": f"{{{{resolve:ssm:{path}-{architecture}}}}}"},
        }
        for name, architecture in (("Arm", "arm64"), ("Intel", "x86_64"))
    }
    outputs = {name: {"Value": {"Fn::GetAtt": [name, "Value"]}} for name in resources}
    images = deploy(cloud, "images", {"Resources": resources, "Outputs": outputs})["Outputs"]
    assert all(image.startswith("ami-") for image in images.values()) and images["Arm"] != images["Intel"]


@pytest.mark.parametrize(("visibility", "status"), [(29, "ROLLBACK_COMPLETE"), (30, "CREATE_COMPLETE")])
def test_a_queue_is_invisible_for_as_long_as_its_function_may_run(
    cloud: Emulator, visibility: int, status: str
) -> None:
    code = {"ZipFile": "def handler(event, context): ..."}
    function = {"Runtime": "python3.13", "Handler": "index.handler", "Role": ROLE, "Timeout": 30, "Code": code}
    source = {"FunctionName": {"Ref": "Function"}, "EventSourceArn": {"Fn::GetAtt": ["Queue", "Arn"]}}
    resources = {
        "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"VisibilityTimeout": visibility}},
        "Source": {"Type": "AWS::Lambda::EventSourceMapping", "Properties": source},
    }
    name = f"visible-{visibility}"
    assert deploy(cloud, name, {"Resources": resources})["StackStatus"] == status
    refusal = "Queue visibility timeout: 29 seconds is less than Function timeout: 30 seconds"
    assert (refusal in reasons(cloud, name)) is (status != "CREATE_COMPLETE")


def test_rules_of_a_security_group_may_stand_alone(cloud: Emulator) -> None:
    ec2 = cloud.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    udp = {"GroupId": {"Fn::GetAtt": ["Group", "GroupId"]}, "IpProtocol": "udp", "FromPort": 4789, "ToPort": 4789}
    template: Template = {
        "Resources": {
            "Group": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "x", "VpcId": vpc}},
            "In": {"Type": "AWS::EC2::SecurityGroupIngress", "Properties": {**udp, "CidrIp": "10.0.0.0/8"}},
        },
        "Outputs": {"Group": {"Value": {"Fn::GetAtt": ["Group", "GroupId"]}}},
    }

    def ranges(group: str) -> list[str]:
        [found] = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
        return [one["CidrIp"] for rule in found["IpPermissions"] for one in rule["IpRanges"]]

    group = deploy(cloud, "group", template)["Outputs"]["Group"]
    assert ranges(group) == ["10.0.0.0/8"]
    template["Resources"]["In"]["Properties"]["CidrIp"] = "172.16.0.0/12"
    assert deploy(cloud, "group", template, update=True)["StackStatus"] == "UPDATE_COMPLETE"
    assert ranges(group) == ["172.16.0.0/12"]


def test_alarms_on_several_metrics_are_kept(cloud: Emulator) -> None:
    query = {"Id": "q", "Expression": 'SELECT SUM(NetworkSkipMirrorIn) FROM SCHEMA("AWS/EC2", InstanceId)'}
    alarm = {"ComparisonOperator": "GreaterThanThreshold", "EvaluationPeriods": 1, "Threshold": 0}
    good = {"Type": "AWS::CloudWatch::Alarm", "Properties": {**alarm, "AlarmName": "a", "Metrics": [query]}}
    assert deploy(cloud, "alarm", {"Resources": {"Alarm": good}})["StackStatus"] == "CREATE_COMPLETE"
    [found] = cloud.client("cloudwatch").describe_alarms(AlarmNames=["a"])["MetricAlarms"]
    assert found["Metrics"] == [query] and found["StateValue"] == "INSUFFICIENT_DATA"
    two = {"Type": "AWS::CloudWatch::Alarm", "Properties": {**alarm, "Metrics": [query, {**query, "Id": "r"}]}}
    assert deploy(cloud, "alarms", {"Resources": {"Alarm": two}})["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "Exactly one element" in reasons(cloud, "alarms")
