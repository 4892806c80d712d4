"""VPC endpoints in ministack, in pages; those of Gateway Load Balancers can be mirror targets."""

from ministack.services import ec2  # type: ignore[import-not-found]

from lab.cloud.faults import Parameters
from lab.cloud.listing import Resource, page
from lab.cloud.ministack.requests import dry_run, filtered, known

ENDPOINT_FILTERS = {
    "service-name": "ServiceName",
    "vpc-endpoint-id": "VpcEndpointId",
    "vpc-endpoint-state": "State",
    "vpc-endpoint-type": "VpcEndpointType",
    "vpc-id": "VpcId",
}


def describe_endpoints(parameters: Parameters) -> Resource:
    dry_run(parameters)
    ids = parameters.get("VpcEndpointIds") or []
    for name in ids:
        known(ec2._vpc_endpoints, name, "InvalidVpcEndpointId.NotFound")
    views = [
        {**one, "Tags": ec2._tags.get(name, []), "_born": place}
        for place, (name, one) in enumerate(ec2._vpc_endpoints.items())
        if not ids or name in ids
    ]
    found = filtered(views, parameters, ENDPOINT_FILTERS)
    shown, token = page(found, parameters, "VpcEndpoint", lambda view: int(view["_born"]))
    return {"VpcEndpoints": shown, "NextToken": token}
