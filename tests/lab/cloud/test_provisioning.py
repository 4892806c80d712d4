"""Stacks in the emulator: types of ours, properties held against their schemas, and a no where AWS says no."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.cloud.emulator import Emulator
from lab.cloud.events import ACCOUNT, REGION
from tests.waiting import until

type Template = dict[str, Any]

ROLE = f"arn:aws:iam::{ACCOUNT}:role/any"


def deploy(cloud: Emulator, name: str, template: Mapping[str, Any], update: bool = False) -> dict[str, Any]:
    """The stack when it has come to rest."""
    client = cloud.client("cloudformation")
    call = client.update_stack if update else client.create_stack
    call(StackName=name, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"])

    def rested() -> dict[str, Any]:
        [stack] = client.describe_stacks(StackName=name)["Stacks"]
        return dict(stack) if not stack["StackStatus"].endswith("IN_PROGRESS") else {}

    stack = until(f"{name} comes to rest", rested)
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


def all_mirroring(ec2: Any) -> list[Any]:
    return [
        ec2.describe_traffic_mirror_targets()["TrafficMirrorTargets"],
        ec2.describe_traffic_mirror_filters()["TrafficMirrorFilters"],
        ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"],
    ]


def test_a_stack_makes_changes_replaces_and_deletes_mirroring(cloud: Emulator) -> None:
    template, ec2 = mirroring(cloud), cloud.client("ec2")
    before = all_mirroring(ec2)
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
    assert all_mirroring(ec2) == before


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
