"""The two example templates, evaluated as CloudFormation would: they fit the stack and each other."""

import ipaddress
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.cloud.stack import Stack

ROOT = Path(__file__).parents[2]
VPC = Stack.read(ROOT / "examples/vpc.yaml")
ENVIRONMENTS = Stack.read(ROOT / "examples/environments.yaml").with_parameters(
    HandlerVpcId="vpc-0123456789abcdef0", HandlerSubnetIds="subnet-0123456789abcdef0,subnet-0123456789abcdef1"
)
TEMPLATE = Stack.read(ROOT / "template.yaml")
INSTANCES = ("ProductionInstance", "TestInstance")


def declared(stack: Stack) -> set[str]:
    return set(stack.template["Parameters"])


def test_the_outputs_of_one_are_the_parameters_of_the_next() -> None:
    assert set(VPC.outputs) <= declared(ENVIRONMENTS)
    assert {"HandlerVpcId", "HandlerSubnetIds"} <= declared(TEMPLATE) & set(VPC.outputs)
    assert "RequestsForwardDestination" in declared(TEMPLATE) & set(ENVIRONMENTS.outputs)


def test_they_are_taken_by_the_stack() -> None:
    stack = TEMPLATE.with_parameters(
        HandlerVpcId=VPC.outputs["HandlerVpcId"],
        HandlerSubnetIds=VPC.outputs["HandlerSubnetIds"],
        RequestsForwardDestination=ENVIRONMENTS.outputs["RequestsForwardDestination"],
    )
    assert stack.parameters["HandlerSubnetIds"] == [VPC.ref("PrivateSubnetA"), VPC.ref("PrivateSubnetB")]
    assert stack.resources


def test_subnets_lie_in_the_vpc_and_beside_each_other() -> None:
    subnets = VPC.of_type("AWS::EC2::Subnet").values()
    blocks = [ipaddress.ip_network(subnet.properties["CidrBlock"]) for subnet in subnets]
    vpc = ipaddress.ip_network(VPC.parameters["VpcCidr"])
    assert all(block.subnet_of(vpc) for block in blocks)  # type: ignore[arg-type]
    assert not any(one.overlaps(other) for one in blocks for other in blocks if one is not other)
    zones = {name: subnet.properties["AvailabilityZone"] for name, subnet in VPC.of_type("AWS::EC2::Subnet").items()}
    assert zones["PrivateSubnetA"] == zones["PublicSubnetA"] != zones["PrivateSubnetB"] == zones["PublicSubnetB"]


@pytest.mark.parametrize(("choice", "gateways"), [("one", 1), ("one-per-zone", 2)])
def test_private_subnets_go_out_by_a_nat_gateway_of_a_public_one(choice: str, gateways: int) -> None:
    stack = VPC.with_parameters(NatGateways=choice)
    assert len(stack.of_type("AWS::EC2::NatGateway")) == len(stack.of_type("AWS::EC2::EIP")) == gateways
    public = {stack.ref("PublicSubnetA"), stack.ref("PublicSubnetB")}
    nats = {stack.ref(name): nat.properties["SubnetId"] for name, nat in stack.of_type("AWS::EC2::NatGateway").items()}
    used = set()
    for zone in "AB":
        (tables,) = (
            one.properties["RouteTableId"]
            for one in stack.of_type("AWS::EC2::SubnetRouteTableAssociation").values()
            if one.properties["SubnetId"] == stack.ref(f"PrivateSubnet{zone}")
        )
        (way_out,) = (
            route.properties
            for route in stack.of_type("AWS::EC2::Route").values()
            if route.properties["RouteTableId"] == tables
        )
        assert way_out["DestinationCidrBlock"] == "0.0.0.0/0"
        used.add(way_out["NatGatewayId"])
    assert used == nats.keys()
    assert set(nats.values()) <= public


def routes(stack: Stack, subnet: str) -> list[Any]:
    """The ways out of a subnet."""
    tables = [
        one.properties["RouteTableId"]
        for one in stack.of_type("AWS::EC2::SubnetRouteTableAssociation").values()
        if one.properties["SubnetId"] == stack.ref(subnet)
    ]
    ways = stack.of_type("AWS::EC2::Route").values()
    return [way.properties for way in ways if [way.properties["RouteTableId"]] == tables]


@pytest.mark.parametrize("zone", ["A", "B"])
def test_public_subnets_go_out_by_the_internet_gateway(zone: str) -> None:
    (way,) = routes(VPC, f"PublicSubnet{zone}")
    assert way["GatewayId"] == VPC.ref("InternetGateway")
    assert way["DestinationCidrBlock"] == "0.0.0.0/0"


def test_nat_gateways_and_their_addresses_wait_for_the_internet_gateway() -> None:
    stack = VPC.with_parameters(NatGateways="one-per-zone")
    for kind in ("AWS::EC2::NatGateway", "AWS::EC2::EIP"):
        for name in stack.of_type(kind):
            assert "InternetGatewayAttachment" in stack.needs(name)
            assert kind == "AWS::EC2::EIP" or "PublicWayOut" in stack.needs(name)


def test_names_are_resolved_and_packages_do_not_pay_for_the_nat_gateway() -> None:
    (vpc,) = VPC.of_type("AWS::EC2::VPC").values()
    assert vpc.properties["EnableDnsSupport"] is vpc.properties["EnableDnsHostnames"] is True
    (endpoint,) = VPC.of_type("AWS::EC2::VPCEndpoint").values()
    assert set(endpoint.properties["RouteTableIds"]) == {VPC.ref("PrivateRoutesA"), VPC.ref("PrivateRoutesB")}


def tags(instance: str) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in ENVIRONMENTS.resources[instance].properties["Tags"]}


def test_the_stacks_default_tag_matches_production_alone() -> None:
    key, value = TEMPLATE.template["Parameters"]["ProductionTag"]["Default"].split("=")
    assert [name for name in INSTANCES if tags(name).get(key) == value] == ["ProductionInstance"]


@pytest.mark.parametrize(("architecture", "kind"), [("arm64", "t4g.micro"), ("x86_64", "t3.micro")])
def test_instances_are_of_a_type_that_can_be_mirrored(architecture: str, kind: str) -> None:
    """T3 and T4g are on the list: https://docs.aws.amazon.com/vpc/latest/mirroring/what-is-traffic-mirroring.html."""
    data = launch_template(architecture)
    assert data["InstanceType"] == kind
    assert data["ImageId"].endswith(f"al2023-ami-kernel-default-{architecture}}}}}")


def launch_template(architecture: str) -> Any:
    stack = ENVIRONMENTS.with_parameters(Architecture=architecture)
    (template,) = stack.of_type("AWS::EC2::LaunchTemplate").values()
    return template.properties["LaunchTemplateData"]


def test_instances_take_imdsv2_only_and_encrypt_their_disk() -> None:
    data = launch_template("arm64")
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert [disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"]] == [True]
    assert "KeyName" not in data


def test_only_http_and_only_from_the_vpc_comes_in() -> None:
    (group,) = ENVIRONMENTS.of_type("AWS::EC2::SecurityGroup").values()
    (rule,) = group.properties["SecurityGroupIngress"]
    assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"]) == ("tcp", 80, 80)
    assert rule["CidrIp"] == VPC.parameters["VpcCidr"]


def test_a_user_sees_who_answered() -> None:
    pages = {ENVIRONMENTS.resources[name].properties["UserData"].split("echo ")[1].split(" >")[0] for name in INSTANCES}
    assert len(pages) == len(INSTANCES)


def test_requests_go_from_the_test_instance_to_production_and_come_back_to_it() -> None:
    """One to oneself passes no interface; one to production from a replay would go round and round."""
    outputs, private = ENVIRONMENTS.outputs, {name: ENVIRONMENTS.attribute(name, "PrivateIp") for name in INSTANCES}
    assert outputs["RequestsForwardDestination"] == f"http://{private['TestInstance']}"
    assert f"--instance-ids {ENVIRONMENTS.ref('TestInstance')} " in outputs["SendRequests"]
    assert f"http://{private['ProductionInstance']}/" in outputs["SendRequests"]
    assert f"--target {ENVIRONMENTS.ref('TestInstance')} " in outputs["SeeRequests"]


def test_instances_are_reached_by_session_manager_and_serve() -> None:
    (group,) = ENVIRONMENTS.of_type("AWS::EC2::SecurityGroup").values()
    out = {(rule["FromPort"], rule["CidrIp"]) for rule in group.properties["SecurityGroupEgress"]}
    assert out == {(80, VPC.parameters["VpcCidr"]), (443, "0.0.0.0/0")}
    (role,) = ENVIRONMENTS.of_type("AWS::IAM::Role").values()
    assert role.properties["ManagedPolicyArns"] == ["arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"]
    for name in INSTANCES:
        script = ENVIRONMENTS.resources[name].properties["UserData"]
        assert "dnf --assumeyes install httpd\n" in script
        assert script.endswith("systemctl enable --now httpd\n")
        assert "FallbackResource /index.html" in script  # any path is answered


@pytest.mark.parametrize("instance", INSTANCES)
def test_user_data_passes_shellcheck(instance: str, tmp_path: Path) -> None:
    script = tmp_path / "user-data.sh"
    script.write_text(ENVIRONMENTS.resources[instance].properties["UserData"])
    assert script.read_text().startswith("#!/bin/bash\nset -euo pipefail\n")
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("output", "operation"),
    [("SendRequests", "send-command"), ("SeeRequests", "start-session"), ("OpenShell", "start-session")],
)
def test_commands_in_outputs_are_one_line_each_for_a_shell(output: str, operation: str) -> None:
    line = ENVIRONMENTS.outputs[output]
    words = shlex.split(line)
    assert "\n" not in line and words[:3] == ["aws", "ssm", operation]
    for parameters in (word.partition("=") for word in words if "=[" in word):
        assert isinstance(yaml.safe_load(parameters[2]), list)
