"""Load balancers in ministack: network load balancers by their own ARN, and no listeners of one that is not there."""

from ministack.services import alb, ec2  # type: ignore[import-not-found]

from lab.cloud.ministack.requests import Form, Handler, Response


def balancing(original: Handler) -> Handler:
    def create_load_balancer(form: Form) -> Response:
        before = set(alb._lbs)
        response = original(form)
        for arn in set(alb._lbs) - before:
            shown: str = alb._lb_xml(alb._lbs[network_balancer(arn)])
            response = alb._xml(200, "CreateLoadBalancer", f"<LoadBalancers>{shown}</LoadBalancers>")
        return response

    return create_load_balancer


def network_balancer(arn: str) -> str:
    """ministack gives every load balancer the ARN of an application load balancer: the one that it should have."""
    balancer = alb._lbs[arn]
    subnets = [ec2._subnets[name]["VpcId"] for name in balancer["Subnets"] if name in ec2._subnets]
    balancer["VpcId"] = subnets[0] if subnets else balancer["VpcId"]
    if balancer["Type"] != "network":
        return arn
    balancer["LoadBalancerArn"] = right = arn.replace("loadbalancer/app/", "loadbalancer/net/")
    for store in (alb._lbs, alb._tags, alb._lb_attrs):
        if arn in store:
            store[right] = store.pop(arn)
    return right


def listeners(original: Handler) -> Handler:
    """ministack finds no listeners where there is no load balancer; AWS refuses."""

    def describe_listeners(form: Form) -> Response:
        arn = (form.get("LoadBalancerArn") or [""])[0]
        if arn and arn not in alb._lbs:
            response: Response = alb._error("LoadBalancerNotFound", f"Load balancer '{arn}' not found", 400)
            return response
        return original(form)

    return describe_listeners
