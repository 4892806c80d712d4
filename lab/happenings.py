"""What happens in an account, in a few words."""

from collections.abc import Mapping
from typing import Any


def told(event: Mapping[str, Any]) -> str:
    """An event of AWS's, and what it is about."""
    detail = event["detail"]
    match event["detail-type"]:
        case "EC2 Instance State-change Notification":
            return f"{detail['instance-id']} {detail['state']}"
        case "Tag Change on Resource":
            [arn] = event["resources"]
            keys = ", ".join(detail["changed-tag-keys"])
            return f"tags of {arn.rpartition('/')[2]} changed ({keys})"
        case "Parameter Store Change":
            return f"parameter {detail['name']} ({detail['operation'].lower()})"
        case "Scheduled Event":
            return "the sweep's schedule"
        case "EC2 Instance Launch Successful":
            return f"group {detail['AutoScalingGroupName']} launched {detail['EC2InstanceId']}"
        case "EC2 Instance Terminate Successful":
            return f"group {detail['AutoScalingGroupName']} terminated {detail['EC2InstanceId']}"
        case "AWS API Call via CloudTrail":
            return f"call of {detail['eventName']}"
        case other:
            return str(other)
