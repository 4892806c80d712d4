"""Physical names, in the shapes that AWS gives them, for resources that nobody has deployed.

They depend on the template alone, so that a test can compare them, and they are such that a policy's `Resource` or an
alarm's dimension looks as it will look. What `Ref` gives by type: the "Return values" of each type's page under
https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-template-resource-type-ref.html
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: The property that names a resource, where a type has one.
NAMED_BY = {
    "AWS::AutoScaling::AutoScalingGroup": "AutoScalingGroupName",
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::ElasticLoadBalancingV2::LoadBalancer": "Name",
    "AWS::ElasticLoadBalancingV2::TargetGroup": "Name",
    "AWS::Events::Rule": "Name",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::Lambda::Function": "FunctionName",
    "AWS::Lambda::LayerVersion": "LayerName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::S3::Bucket": "BucketName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::SSM::Parameter": "Name",
}

_ELB = "arn:{Partition}:elasticloadbalancing:{Region}:{AccountId}"

#: What GetAtt Arn gives. `name` is the resource's (see Physical), `hash` comes of its logical id.
ARNS = {
    "AWS::AutoScaling::AutoScalingGroup": (
        "arn:{Partition}:autoscaling:{Region}:{AccountId}:autoScalingGroup:{hash}:autoScalingGroupName/{name}"
    ),
    "AWS::CloudWatch::Alarm": "arn:{Partition}:cloudwatch:{Region}:{AccountId}:alarm:{name}",
    "AWS::ElasticLoadBalancingV2::LoadBalancer": f"{_ELB}:loadbalancer/net/{{name}}/{{hash:.16}}",
    "AWS::ElasticLoadBalancingV2::Listener": f"{_ELB}:listener/net/{{name}}/{{hash:.16}}/{{hash:.16}}",
    "AWS::ElasticLoadBalancingV2::TargetGroup": f"{_ELB}:targetgroup/{{name}}/{{hash:.16}}",
    "AWS::Events::Rule": "arn:{Partition}:events:{Region}:{AccountId}:rule/{name}",
    "AWS::IAM::InstanceProfile": "arn:{Partition}:iam::{AccountId}:instance-profile/{name}",
    "AWS::ImageBuilder::Component": "arn:{Partition}:imagebuilder:{Region}:{AccountId}:component/{name}/1.0.0/1",
    "AWS::IAM::ManagedPolicy": "arn:{Partition}:iam::{AccountId}:policy/{name}",
    "AWS::IAM::Role": "arn:{Partition}:iam::{AccountId}:role/{name}",
    "AWS::Lambda::Function": "arn:{Partition}:lambda:{Region}:{AccountId}:function:{name}",
    "AWS::Lambda::LayerVersion": "arn:{Partition}:lambda:{Region}:{AccountId}:layer:{name}:1",
    "AWS::Logs::LogGroup": "arn:{Partition}:logs:{Region}:{AccountId}:log-group:{name}:*",
    "AWS::S3::Bucket": "arn:{Partition}:s3:::{name}",
    "AWS::SNS::Topic": "arn:{Partition}:sns:{Region}:{AccountId}:{name}",
    "AWS::SQS::Queue": "arn:{Partition}:sqs:{Region}:{AccountId}:{name}",
}

#: What `Ref` gives, where it is not the name: the ARN (None), an address, or an id of its own shape.
REFERENCES = {
    "AWS::EC2::InternetGateway": "igw-{hash}",
    "AWS::EC2::Instance": "i-{hash}",
    "AWS::EC2::LaunchTemplate": "lt-{hash}",
    "AWS::EC2::NatGateway": "nat-{hash}",
    "AWS::EC2::RouteTable": "rtb-{hash}",
    "AWS::EC2::SecurityGroup": "sg-{hash}",
    "AWS::EC2::Subnet": "subnet-{hash}",
    "AWS::EC2::TrafficMirrorFilter": "tmf-{hash}",
    "AWS::EC2::TrafficMirrorFilterRule": "tmfr-{hash}",
    "AWS::EC2::TrafficMirrorTarget": "tmt-{hash}",
    "AWS::EC2::VPC": "vpc-{hash}",
    "AWS::ElasticLoadBalancingV2::Listener": None,
    "AWS::ElasticLoadBalancingV2::LoadBalancer": None,
    "AWS::ElasticLoadBalancingV2::TargetGroup": None,
    "AWS::IAM::ManagedPolicy": None,
    "AWS::ImageBuilder::Component": None,
    "AWS::Lambda::LayerVersion": None,
    "AWS::SNS::Topic": None,
    "AWS::SQS::Queue": "https://sqs.{Region}.{URLSuffix}/{AccountId}/{name}",
}


@dataclass(frozen=True)
class Physical:
    """One resource as it would be called; `given` is the name that the template gives it, if it does."""

    kind: str
    id: str
    given: str | None
    pseudo: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.given or f"{self.pseudo['StackName']}-{self.id}"

    @property
    def reference(self) -> str:
        shape = REFERENCES.get(self.kind, "{name}")
        return self._filled(ARNS[self.kind] if shape is None else shape)

    def attribute(self, attribute: str) -> str:
        """NAME.Attribute for what is only ever passed on."""
        own = self.kind.rpartition("::")[2]
        if attribute == NAMED_BY.get(self.kind):
            return self.name
        if attribute.lower() in (f"{own}id".lower(), "id") or (own, attribute) == ("SecurityGroup", "GroupId"):
            return self.reference
        if attribute in (f"{own}Arn", "Arn") and self.kind in ARNS:
            return self._filled(ARNS[self.kind])
        if attribute == f"{own}FullName" and self.kind in ARNS:  # as CloudWatch's dimensions want it
            return self._filled(ARNS[self.kind]).rpartition(":")[2].removeprefix("loadbalancer/")
        return f"{self.name}.{attribute}"

    def _filled(self, shape: str) -> str:
        digest = hashlib.sha256(self.id.encode()).hexdigest()[:17]
        return shape.format(name=self.name, hash=digest, **self.pseudo)
