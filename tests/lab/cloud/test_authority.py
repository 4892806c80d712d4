"""The emulator's IAM against the functions' real statements: what AWS would refuse is refused, and changes nothing.

Everything is asked of a running emulator through boto3, as a role that bears the statements of
functions/permissions.yaml; how `questions` reads a request is in test_questions.py.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError

from lab.cloud.emulator import Emulator, emulator
from mirroring.bus import DETAIL_TYPE, SOURCE
from mirroring.model import CONFIG_TAG, OPT_OUT_TAG, OWNER_TAG, SOURCE_TAG, STACK_TAG
from tests.functions.listed import FUNCTIONS, VALUES, filled_in, statements

EC2 = "arn:aws:ec2:eu-west-1:123456789012"
STACK = "replay"
OURS = {OWNER_TAG: STACK, SOURCE_TAG: "web"}

# The account


@dataclass
class Scene:
    """Two VPCs, of which one may be mirrored, and a role for each function."""

    cloud: Emulator
    vpc: str
    interface: str
    elsewhere: str  # an interface in the other VPC
    target: str
    filter: str
    others_target: str
    others_filter: str
    instance: str
    keys: dict[str, Mapping[str, str]] = field(default_factory=dict)  # of roles, by their names
    clients: dict[tuple[str, str], Any] = field(default_factory=dict)

    def client(self, service: str, role: str = "") -> Any:
        """As a role; as the account's root user, whom nothing is forbidden."""
        if (service, role) not in self.clients:
            self.clients[service, role] = self.cloud.client(service, **self.keys.get(role, {}))
        return self.clients[service, role]

    def make_role(self, name: str, statements: Sequence[Mapping[str, Any]]) -> None:
        trust = {"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}
        iam = self.client("iam")
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document([trust]))["Role"]
        iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=document(statements))
        given = self.client("sts").assume_role(RoleArn=role["Arn"], RoleSessionName="test")["Credentials"]
        self.keys[name] = {
            "aws_access_key_id": given["AccessKeyId"],
            "aws_secret_access_key": given["SecretAccessKey"],
            "aws_session_token": given["SessionToken"],
        }

    def grant(self, statements: Sequence[Mapping[str, Any]]) -> None:
        """All that the role `asked` may do."""
        self.client("iam").put_role_policy(RoleName="asked", PolicyName="all", PolicyDocument=document(statements))

    def session(self, **changed: Any) -> dict[str, Any]:
        """What a create of ours asks for."""
        tags = changed.pop("tags", OURS)
        tagged = {"TagSpecifications": specified("traffic-mirror-session", tags)} if tags else {}
        return {
            "NetworkInterfaceId": self.interface,
            "TrafficMirrorTargetId": self.target,
            "TrafficMirrorFilterId": self.filter,
            "SessionNumber": 1,
            **tagged,
            **changed,
        }

    def made(self, tags: Mapping[str, str]) -> str:
        """A session of somebody."""
        session = self.client("ec2").create_traffic_mirror_session(**self.session(tags=tags))["TrafficMirrorSession"]
        return str(session["TrafficMirrorSessionId"])

    def state(self) -> object:
        ec2 = self.client("ec2")
        sessions = ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
        return sessions, ec2.describe_tags()["Tags"]

    def refused(self, call: Callable[..., object], **parameters: Any) -> str:
        """The code, of a call that must change nothing."""
        before = self.state()
        found = code(call, **parameters)
        assert self.state() == before
        return found


def code(call: Callable[..., object], **parameters: Any) -> str:
    """Of the refusal; empty where there is none."""
    try:
        call(**parameters)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def document(statements: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def specified(kind: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": listed(tags)}]


def listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def statements_of(function: str, vpc: str) -> list[Mapping[str, Any]]:
    values = {**VALUES, "SourceVpcArns": [f"{EC2}:vpc/{vpc}"]}
    filled: list[Mapping[str, Any]] = filled_in(list(statements(function)), values)
    return filled


@pytest.fixture(scope="module")
def place() -> Iterator[Scene]:
    with emulator(auth=True) as cloud:
        yield set_up(cloud)


@pytest.fixture
def scene(place: Scene) -> Iterator[Scene]:
    """No session and no tag stays."""
    yield place
    ec2 = place.client("ec2")
    for session in ec2.describe_traffic_mirror_sessions()["TrafficMirrorSessions"]:
        ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=session["TrafficMirrorSessionId"])
    ec2.delete_tags(Resources=[place.instance, place.interface])


def set_up(cloud: Emulator) -> Scene:
    ec2 = cloud.client("ec2")
    networks = [network(ec2, f"10.{number}.0.0/16") for number in (1, 2)]
    instances = [
        ec2.run_instances(ImageId="ami-1", InstanceType="m5.large", MinCount=1, MaxCount=1, SubnetId=subnet)
        for _, subnet in networks
    ]
    (here, there) = (launched["Instances"][0] for launched in instances)
    targets = [
        ec2.create_traffic_mirror_target(
            NetworkInterfaceId=interface(ec2, networks[0][1]),
            TagSpecifications=specified("traffic-mirror-target", {STACK_TAG: stack}),
        )["TrafficMirrorTarget"]["TrafficMirrorTargetId"]
        for stack in (STACK, "another")
    ]
    filters = [
        ec2.create_traffic_mirror_filter(
            TagSpecifications=specified("traffic-mirror-filter", {STACK_TAG: STACK} if ours else {"Name": STACK})
        )["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
        for ours in (True, False)
    ]
    scene = Scene(
        cloud,
        networks[0][0],
        here["NetworkInterfaces"][0]["NetworkInterfaceId"],
        there["NetworkInterfaces"][0]["NetworkInterfaceId"],
        targets[0],
        filters[0],
        targets[1],
        filters[1],
        here["InstanceId"],
    )
    for function in FUNCTIONS:
        scene.make_role(function, statements_of(function, scene.vpc))
    untagging = [one for one in statements_of("reconcile", scene.vpc) if one["Sid"] != "TagAsTheyAreMade"]
    scene.make_role("may-not-tag", untagging)
    scene.make_role("asked", [{"Effect": "Allow", "Action": "ec2:DescribeTags", "Resource": "*"}])
    return scene


def network(ec2: Any, block: str) -> tuple[str, str]:
    vpc = ec2.create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
    return vpc, ec2.create_subnet(VpcId=vpc, CidrBlock=block)["Subnet"]["SubnetId"]


def interface(ec2: Any, subnet: str) -> str:
    return str(ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"])


# Sessions


def test_a_session_of_ours_is_made(scene: Scene) -> None:
    assert code(scene.client("ec2", "reconcile").create_traffic_mirror_session, **scene.session()) == ""
    [made] = scene.client("ec2").describe_traffic_mirror_sessions()["TrafficMirrorSessions"]
    assert {tag["Key"]: tag["Value"] for tag in made["Tags"]} == OURS


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    "changed",
    [
        {"tags": {}},
        {"tags": {SOURCE_TAG: "web"}},
        {"tags": {OWNER_TAG: "another"}},
        {"tags": {OWNER_TAG: STACK.upper()}},
        {"TrafficMirrorTargetId": "others_target"},
        {"TrafficMirrorFilterId": "others_filter"},
        {"NetworkInterfaceId": "elsewhere"},
        {"TrafficMirrorTargetId": "tmt-0123456789abcdef0"},
    ],
    ids=str,
)
def test_no_other_session_is_made(scene: Scene, changed: Mapping[str, Any], dry: bool) -> None:
    asked = {name: getattr(scene, value, value) if isinstance(value, str) else value for name, value in changed.items()}
    create = scene.client("ec2", "reconcile").create_traffic_mirror_session
    assert scene.refused(create, **scene.session(**asked), DryRun=dry) == "UnauthorizedOperation"


def test_tags_come_with_a_session_only_if_tagging_is_allowed(scene: Scene) -> None:
    create = scene.client("ec2", "may-not-tag").create_traffic_mirror_session
    assert scene.refused(create, **scene.session()) == "UnauthorizedOperation"


CREATE = [
    {"Effect": "Allow", "Action": "ec2:CreateTrafficMirrorSession", "Resource": f"{EC2}:{kind}/*"}
    for kind in ("network-interface", "traffic-mirror-target", "traffic-mirror-filter", "traffic-mirror-session")
]
CREATE.append({"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": f"{EC2}:traffic-mirror-session/*"})


@pytest.mark.parametrize("left_out", range(len(CREATE)))
def test_a_create_needs_each_of_its_grants(scene: Scene, left_out: int) -> None:
    create = scene.client("ec2", "asked").create_traffic_mirror_session
    scene.grant([grant for number, grant in enumerate(CREATE) if number != left_out])
    assert scene.refused(create, **scene.session()) == "UnauthorizedOperation"
    scene.grant(CREATE)
    assert code(create, **scene.session()) == ""


def test_a_dry_run_of_what_is_allowed_says_so_and_makes_nothing(scene: Scene) -> None:
    ec2 = scene.client("ec2", "reconcile")
    assert scene.refused(ec2.create_traffic_mirror_session, **scene.session(), DryRun=True) == "DryRunOperation"


def test_a_refusal_names_what_was_refused(scene: Scene) -> None:
    asked = scene.session(TrafficMirrorTargetId=scene.others_target)
    with pytest.raises(ClientError) as caught:
        scene.client("ec2", "reconcile").create_traffic_mirror_session(**asked)
    assert caught.value.response["Error"]["Message"] == (
        "You are not authorized to perform this operation. User: arn:aws:sts::123456789012:assumed-role/reconcile/test"
        " is not authorized to perform: ec2:CreateTrafficMirrorSession on resource:"
        f" {EC2}:traffic-mirror-target/{scene.others_target} because no identity-based policy allows the"
        " ec2:CreateTrafficMirrorSession action"
    )


@pytest.mark.parametrize("function", ["reconcile", "lifecycle"])
def test_only_sessions_of_ours_are_deleted(scene: Scene, function: str) -> None:
    delete = scene.client("ec2", function).delete_traffic_mirror_session
    ours = scene.made(OURS)
    assert code(delete, TrafficMirrorSessionId=ours) == ""
    for tags in ({}, {OWNER_TAG: "another"}):
        others = scene.made(tags)
        assert scene.refused(delete, TrafficMirrorSessionId=others) == "UnauthorizedOperation"
        scene.client("ec2").delete_traffic_mirror_session(TrafficMirrorSessionId=others)


def test_only_sessions_of_ours_are_changed_and_only_to_what_is_ours(scene: Scene) -> None:
    modify = scene.client("ec2", "reconcile").modify_traffic_mirror_session
    ours = {"TrafficMirrorSessionId": scene.made(OURS)}
    assert code(modify, **ours, Description="new") == ""
    assert code(modify, **ours, TrafficMirrorTargetId=scene.target, TrafficMirrorFilterId=scene.filter) == ""
    assert scene.refused(modify, **ours, TrafficMirrorTargetId=scene.others_target) == "UnauthorizedOperation"
    assert scene.refused(modify, **ours, TrafficMirrorFilterId=scene.others_filter) == "UnauthorizedOperation"
    lifecycle = scene.client("ec2", "lifecycle")
    assert scene.refused(lifecycle.modify_traffic_mirror_session, **ours, Description="x") == "UnauthorizedOperation"


@pytest.mark.parametrize("tags", [{}, {OWNER_TAG: "another"}], ids=str)
def test_a_session_of_others_is_not_touched(scene: Scene, tags: Mapping[str, str]) -> None:
    ec2, others = scene.client("ec2", "reconcile"), scene.made(tags)
    modify = ec2.modify_traffic_mirror_session
    assert scene.refused(modify, TrafficMirrorSessionId=others, Description="new") == "UnauthorizedOperation"
    assert scene.refused(ec2.create_tags, Resources=[others], Tags=listed(OURS)) == "UnauthorizedOperation"
    retag = {"Resources": [others], "Tags": [{"Key": CONFIG_TAG, "Value": "1"}]}
    assert scene.refused(ec2.create_tags, **retag) == "UnauthorizedOperation"
    assert scene.refused(ec2.delete_tags, **retag) == "UnauthorizedOperation"


def test_sessions_of_ours_are_retagged_but_stay_ours(scene: Scene) -> None:
    ec2, ours = scene.client("ec2", "reconcile"), [scene.made(OURS)]
    config, owner = {"Key": CONFIG_TAG, "Value": "1"}, {"Key": OWNER_TAG, "Value": "another"}
    assert code(ec2.create_tags, Resources=ours, Tags=[config]) == ""
    assert scene.refused(ec2.create_tags, Resources=ours, Tags=[owner]) == "UnauthorizedOperation"
    assert scene.refused(ec2.create_tags, Resources=ours, Tags=[config, owner]) == "UnauthorizedOperation"
    assert scene.refused(ec2.delete_tags, Resources=ours, Tags=[{"Key": OWNER_TAG}]) == "UnauthorizedOperation"
    assert scene.refused(ec2.delete_tags, Resources=ours) == "UnauthorizedOperation"  # that would be all of them
    others = scene.client("ec2").create_traffic_mirror_session(**scene.session(SessionNumber=2, tags={}))
    both = [*ours, others["TrafficMirrorSession"]["TrafficMirrorSessionId"]]
    assert scene.refused(ec2.create_tags, Resources=both, Tags=[config]) == "UnauthorizedOperation"
    assert code(ec2.delete_tags, Resources=ours, Tags=[{"Key": CONFIG_TAG}]) == ""


# Instances


def test_instances_get_granted_keys_alone(scene: Scene) -> None:
    ec2, here = scene.client("ec2", "autotag"), {"Resources": [scene.instance]}
    env, other = {"Key": "env", "Value": "prod"}, {"Key": "cost-centre", "Value": "1"}
    assert code(ec2.create_tags, **here, Tags=[env, {"Key": "team", "Value": ""}]) == ""
    assert scene.refused(ec2.create_tags, **here, Tags=[other]) == "UnauthorizedOperation"
    assert scene.refused(ec2.create_tags, **here, Tags=[env, other]) == "UnauthorizedOperation"
    assert scene.refused(ec2.create_tags, **here, Tags=[{"Key": "ENV", "Value": "prod"}]) == "UnauthorizedOperation"
    assert scene.refused(ec2.delete_tags, **here) == "UnauthorizedOperation"
    assert scene.refused(ec2.create_tags, Resources=[scene.interface], Tags=[env]) == "UnauthorizedOperation"
    assert scene.refused(scene.client("ec2", "reconcile").create_tags, **here, Tags=[env]) == "UnauthorizedOperation"
    assert code(ec2.delete_tags, **here, Tags=[env]) == ""


def test_an_instance_that_has_opted_out_is_let_alone(scene: Scene) -> None:
    ec2, asked = scene.client("ec2", "autotag"), {"Resources": [scene.instance], "Tags": [{"Key": "env", "Value": "x"}]}
    assert code(ec2.create_tags, **asked) == ""
    scene.client("ec2").create_tags(Resources=[scene.instance], Tags=[{"Key": OPT_OUT_TAG, "Value": ""}])
    assert scene.refused(ec2.create_tags, **asked) == "UnauthorizedOperation"
    assert scene.refused(ec2.delete_tags, **asked) == "UnauthorizedOperation"


def test_what_may_be_looked_at(scene: Scene) -> None:
    ec2, balancers = scene.client("ec2", "reconcile"), scene.client("elbv2", "reconcile")
    for look in (
        ec2.describe_instances,
        ec2.describe_network_interfaces,
        ec2.describe_traffic_mirror_filters,
        ec2.describe_traffic_mirror_sessions,
        ec2.describe_traffic_mirror_targets,
        ec2.describe_vpc_endpoints,
    ):
        assert code(look) == ""
    none = "arn:aws:elasticloadbalancing:eu-west-1:123456789012"
    balancer, group = f"{none}:loadbalancer/net/none/0123456789abcdef", f"{none}:targetgroup/none/0123456789abcdef"
    assert code(balancers.describe_listeners, LoadBalancerArn=balancer) == "LoadBalancerNotFound"
    assert code(balancers.describe_target_health, TargetGroupArn=group) == "TargetGroupNotFound"
    assert code(balancers.describe_load_balancers) == "AccessDenied"
    assert code(ec2.describe_subnets) == "UnauthorizedOperation"
    assert code(scene.client("ec2", "lifecycle").describe_instances) == "UnauthorizedOperation"


def test_a_describe_is_of_no_resource(scene: Scene) -> None:
    """Who may look at some instances may look at none."""
    grant = {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": f"{EC2}:instance/*"}
    scene.grant([grant])
    describe = scene.client("ec2", "asked").describe_instances
    assert code(describe, InstanceIds=[scene.instance]) == "UnauthorizedOperation"


# Other services


def test_only_our_own_events_reach_the_bus(scene: Scene) -> None:
    queue = scene.client("sqs").create_queue(QueueName="announced")["QueueUrl"]
    arn = "arn:aws:sqs:eu-west-1:123456789012:announced"
    receives = {
        "Effect": "Allow",
        "Principal": {"Service": "events.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
    }
    scene.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": document([receives])})
    events = scene.client("events")
    events.put_rule(Name="all", EventPattern=json.dumps({"account": ["123456789012"]}))
    events.put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": arn}])
    put = scene.client("events", "reconcile").put_events
    ours = {"Source": SOURCE, "DetailType": DETAIL_TYPE, "Detail": "{}"}
    for refused in (
        [ours | {"Source": "another"}],
        [ours | {"DetailType": "another"}],
        [ours, ours | {"Source": "another"}],
        [ours, ours | {"EventBusName": "another"}],
    ):
        assert code(put, Entries=refused) == "AccessDeniedException"
    assert code(put, Entries=[ours]) == ""
    reader = scene.client("sqs")
    got = reader.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=5)["Messages"]
    assert [json.loads(message["Body"])["source"] for message in got] == [SOURCE]


def test_a_function_reads_its_own_parameters_alone(scene: Scene) -> None:
    root = scene.client("ssm")
    for name in ("/replay/policy", "/replay/policy-default", "/replay/state", "/another/policy"):
        root.put_parameter(Name=name, Value="1", Type="String")
    ssm = scene.client("ssm", "reconcile")
    ours = ["/replay/policy", "/replay/policy-default", "/replay/state"]
    assert [found["Value"] for found in ssm.get_parameters(Names=ours)["Parameters"]] == ["1", "1", "1"]
    assert code(ssm.get_parameters, Names=["/another/policy"]) == "AccessDeniedException"
    assert code(ssm.get_parameters, Names=[*ours, "/another/policy"]) == "AccessDeniedException"
    assert code(ssm.get_parameter_history, Name="/replay/policy") == ""
    assert code(ssm.get_parameter_history, Name="/replay/state") == "AccessDeniedException"
    assert code(ssm.get_parameter, Name="/replay/state") == ""
    assert code(ssm.get_parameter, Name="/replay/state:1") == ""
    assert code(ssm.get_parameter, Name="/replay/policy") == "AccessDeniedException"
    for function, allowed in (("lifecycle", ""), ("reconcile", "AccessDeniedException")):
        put = scene.client("ssm", function).put_parameter
        assert code(put, Name="/replay/state", Value="2", Type="String", Overwrite=True) == allowed
    written = scene.client("ssm", "lifecycle").put_parameter
    refused = code(written, Name="/replay/policy", Value="2", Type="String", Overwrite=True)
    assert refused == "AccessDeniedException"
    assert {one["Name"]: one["Value"] for one in root.get_parameters(Names=ours)["Parameters"]} == {
        "/replay/policy": "1",
        "/replay/policy-default": "1",
        "/replay/state": "2",
    }


def test_a_function_uses_its_own_queue_alone(scene: Scene) -> None:
    root, sqs = scene.client("sqs"), scene.client("sqs", "reconcile")
    ours, others = (root.create_queue(QueueName=name)["QueueUrl"] for name in ("reconcile", "autotag"))
    entries = [{"Id": "1", "MessageBody": "2"}]
    assert code(sqs.send_message, QueueUrl=ours, MessageBody="1") == ""
    assert code(sqs.send_message_batch, QueueUrl=ours, Entries=entries) == ""
    assert code(sqs.send_message, QueueUrl=others, MessageBody="1") == "AccessDenied"
    assert code(sqs.send_message_batch, QueueUrl=others, Entries=entries) == "AccessDenied"
    held = root.receive_message(QueueUrl=ours, MaxNumberOfMessages=10)["Messages"]
    assert "Messages" not in root.receive_message(QueueUrl=others)
    later = {"ReceiptHandle": held[0]["ReceiptHandle"], "VisibilityTimeout": 9}
    assert code(sqs.change_message_visibility, QueueUrl=ours, **later) == ""
    assert code(scene.client("sqs", "autotag").change_message_visibility, QueueUrl=ours, **later) == "AccessDenied"
    assert code(scene.client("sqs", "autotag").send_message, QueueUrl=others, MessageBody="1") == "AccessDenied"


def test_a_function_writes_its_own_log_alone(scene: Scene) -> None:
    root, logs = scene.client("logs"), scene.client("logs", "reconcile")
    names = ("/aws/lambda/replay-reconcile", "/aws/lambda/replay-autotag")
    for name in names:
        root.create_log_group(logGroupName=name)
    events = {"logStreamName": "s", "logEvents": [{"timestamp": 1_800_000_000_000, "message": "m"}]}
    for name, answer in zip(names, ("", "AccessDeniedException"), strict=True):
        assert code(logs.create_log_stream, logGroupName=name, logStreamName="s") == answer
        assert code(logs.put_log_events, logGroupName=name, **events) == answer
    assert root.describe_log_streams(logGroupName=names[1])["logStreams"] == []


def test_lifecycle_invokes_itself_alone(scene: Scene) -> None:
    invoke = scene.client("lambda", "lifecycle").invoke
    assert code(invoke, FunctionName="replay-lifecycle") == "ResourceNotFoundException"  # so it was allowed
    assert code(invoke, FunctionName="another") == "AccessDeniedException"


def test_what_a_worker_needs(scene: Scene) -> None:
    """Its statements are the template's; here is that IAM can tell one layer, group and stack from another."""
    template = {"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    stacks = scene.client("cloudformation")
    ids = [
        stacks.create_stack(StackName=name, TemplateBody=json.dumps(template))["StackId"] for name in (STACK, "another")
    ]
    layer = "arn:aws:lambda:eu-west-1:123456789012:layer:worker:1"
    grants = {
        "lambda:GetLayerVersion": layer,
        "ssm:GetParameter": "arn:aws:ssm:eu-west-1:123456789012:parameter/replay/worker",
        "logs:DescribeLogStreams": "arn:aws:logs:eu-west-1:123456789012:log-group:/replay/worker:*",
        "cloudformation:SignalResource": ids[0],
    }
    scene.make_role(
        "worker",
        [{"Effect": "Allow", "Action": action, "Resource": resource} for action, resource in grants.items()],
    )
    functions, logs, signal = (scene.client(name, "worker") for name in ("lambda", "logs", "cloudformation"))
    denied = "AccessDeniedException"
    assert code(functions.get_layer_version_by_arn, Arn=layer) == "ResourceNotFoundException"
    assert code(functions.get_layer_version_by_arn, Arn=f"{layer}0") == denied
    assert code(functions.get_layer_version, LayerName="worker", VersionNumber=1) == "ResourceNotFoundException"
    assert code(functions.get_layer_version, LayerName="worker", VersionNumber=2) == denied
    assert code(functions.list_layers) == denied
    assert code(logs.describe_log_streams, logGroupName="/replay/worker") == "ResourceNotFoundException"
    assert code(logs.describe_log_streams, logGroupName="/replay/worker-metrics") == denied
    asked = {"LogicalResourceId": "WorkerGroup", "UniqueId": "i-1", "Status": "SUCCESS"}
    assert code(signal.signal_resource, StackName=STACK, **asked) == "ValidationError"  # the stack is ready
    assert code(signal.signal_resource, StackName="another", **asked) == "AccessDenied"


# Operators


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"StringEquals": {"aws:RequestTag/env": "prod"}}, True),
        ({"StringEquals": {"AWS:requesttag/ENV": "prod"}}, True),  # names of keys: in any case
        ({"StringEquals": {"aws:RequestTag/env": "Prod"}}, False),  # values: as they are
        ({"StringEquals": {"aws:RequestTag/team": "prod"}}, False),
        ({"StringLike": {"aws:RequestTag/env": "p*"}}, True),
        ({"StringLike": {"aws:RequestTag/env": "P*"}}, False),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["env", "team"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["Env"]}}, False),
        ({"ForAllValues:StringEquals": {"aws:ResourceTag/none": ["x"]}}, True),  # none of nothing is wrong
        ({"StringEquals": {"aws:ResourceTag/worn": "yes", "ec2:ResourceTag/worn": "yes"}}, True),
        ({"StringEquals": {"aws:ResourceTag/env": "prod"}}, False),
        ({"Null": {"aws:TagKeys": "false"}}, True),
        ({"Null": {"aws:TagKeys": "true"}}, False),
        ({"Null": {"aws:ResourceTag/worn": "true"}}, False),
        ({"Null": {"aws:ResourceTag/worn": "false", "aws:ResourceTag/none": "true"}}, True),
        ({"Null": {"ec2:CreateAction": "true"}}, True),
        ({"StringEquals": {"ec2:Region": "eu-west-1", "aws:RequestedRegion": "eu-west-1"}}, True),
        ({"StringEquals": {"ec2:Region": "us-east-1"}}, False),
        ({"ArnLike": {"ec2:Vpc": f"{EC2}:vpc/*"}}, True),
        ({"ArnLike": {"ec2:Vpc": "arn:aws:ec2:*:*:vpc/vpc-*"}}, True),
        ({"ArnLike": {"ec2:Vpc": "arn:aws:ec2:*"}}, False),  # part by part
        ({"ArnNotLike": {"ec2:Vpc": "arn:aws:ec2:*"}}, True),
        ({"ArnNotEquals": {"ec2:Vpc": f"{EC2}:vpc/*"}}, False),
        ({"ArnEquals": {"ec2:Subnet": f"{EC2}:subnet/subnet-*"}}, True),
        ({"ArnLike": {"ec2:Subnet": f"{EC2}:vpc/*"}}, False),
    ],
    ids=str,
)
def test_a_condition(scene: Scene, condition: Mapping[str, Any], holds: bool) -> None:
    scene.client("ec2").create_tags(Resources=[scene.interface], Tags=[{"Key": "worn", "Value": "yes"}])
    grant = {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": f"{EC2}:network-interface/*"}
    scene.grant([grant | {"Condition": condition}])
    asked = {"Resources": [scene.interface], "Tags": [{"Key": "env", "Value": "prod"}], "DryRun": True}
    answer = code(scene.client("ec2", "asked").create_tags, **asked)
    assert answer == ("DryRunOperation" if holds else "UnauthorizedOperation")


@pytest.mark.parametrize(
    ("condition", "holds"),
    [({"ForAllValues:StringEquals": {"aws:TagKeys": ["env"]}}, True), ({"Null": {"aws:TagKeys": "false"}}, False)],
    ids=str,
)
def test_a_request_without_tags_has_no_tag_keys(scene: Scene, condition: Mapping[str, Any], holds: bool) -> None:
    grant = {"Effect": "Allow", "Action": "ec2:DeleteTags", "Resource": "*", "Condition": condition}
    scene.grant([grant])
    answer = code(scene.client("ec2", "asked").delete_tags, Resources=[scene.instance], DryRun=True)
    assert answer == ("DryRunOperation" if holds else "UnauthorizedOperation")
