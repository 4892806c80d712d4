"""Load balancers of the emulator's ELB API, their targets' health, and mirrored datagrams through the real process."""

from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer
from threading import Thread
from typing import Any

import pytest

from lab.cloud.emulator import Emulator, emulator
from lab.fabric import router
from lab.fabric.balancer.counts import total
from lab.fabric.balancer.forwarding import NO_LISTENER
from lab.fabric.balancers import Balancer, BalancerError
from lab.fabric.routes import Route
from lab.network.namespaces import inside
from tests.lab.fabric import star
from tests.lab.fabric.star import SOURCES, WORKERS, received, receiver, sender
from tests.waiting import until

PACE = 50.0  # a check every 0.1 s
HEALTH_PORT = 8080


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


class Healthy:
    """The part of a worker that checks ask, until it dies."""

    def __init__(self, namespace: str) -> None:
        with inside(namespace):
            self._server = TCPServer((WORKERS[namespace], HEALTH_PORT), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def die(self) -> None:
        """Again, if need be: nothing more happens then."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Balanced:
    """A network load balancer in the emulator with two workers behind it, as template.yaml makes one."""

    def __init__(self, cloud: Emulator) -> None:
        self.elb, ec2 = cloud.client("elbv2"), cloud.client("ec2")
        subnet = ec2.describe_subnets()["Subnets"][0]
        launched = ec2.run_instances(ImageId="ami-1", MinCount=2, MaxCount=2, SubnetId=subnet["SubnetId"])
        self.instances = dict(zip(WORKERS, [one["InstanceId"] for one in launched["Instances"]], strict=True))
        for instance in self.instances.values():
            cloud.report_machine(instance, "running")
        self.addresses = {self.instances[name]: address for name, address in WORKERS.items()}
        made = self.elb.create_load_balancer(Name="workers", Type="network", Subnets=[subnet["SubnetId"]])
        self.arn: str = made["LoadBalancers"][0]["LoadBalancerArn"]
        grouped = self.elb.create_target_group(
            Name="workers",
            Protocol="UDP",
            Port=4789,
            VpcId=subnet["VpcId"],
            HealthCheckProtocol="HTTP",
            HealthCheckPort=str(HEALTH_PORT),
            HealthCheckPath="/healthz",
            HealthCheckIntervalSeconds=5,
            HealthyThresholdCount=2,
            UnhealthyThresholdCount=2,
        )
        self.group: str = grouped["TargetGroups"][0]["TargetGroupArn"]
        forward: Any = [{"Type": "forward", "TargetGroupArn": self.group}]
        self.elb.create_listener(LoadBalancerArn=self.arn, Protocol="UDP", Port=4789, DefaultActions=forward)
        for instance in self.instances.values():
            self.register(instance)

    def register(self, instance: str) -> None:
        self.elb.register_targets(TargetGroupArn=self.group, Targets=[{"Id": instance}])

    def deregister(self, instance: str) -> None:
        self.elb.deregister_targets(TargetGroupArn=self.group, Targets=[{"Id": instance}])

    def health(self) -> dict[str, tuple[str, ...]]:
        """As the API shows it, by worker."""
        shown = self.elb.describe_target_health(TargetGroupArn=self.group)["TargetHealthDescriptions"]
        states = {one["Target"]["Id"]: tuple(one["TargetHealth"].values()) for one in shown}
        return {name: states[instance] for name, instance in self.instances.items() if instance in states}


@pytest.fixture
def balanced() -> Iterator[tuple[Balanced, Balancer]]:
    star.build()
    with emulator(auth=False, live=True, pace=PACE) as cloud:
        balancer = Balancer(cloud, PACE, cloud.log.parent)
        balancer.start()
        try:
            yield Balanced(cloud), balancer
        finally:
            balancer.close()


@pytest.mark.network
def test_workers_live_die_leave_and_return(balanced: tuple[Balanced, Balancer]) -> None:
    api, balancer = balanced
    routes = [Route(20001, "tms-1", api.arn, "", None)]
    with ExitStack() as stack:
        healthy = {name: Healthy(name) for name in WORKERS}
        for one in healthy.values():
            stack.callback(one.die)
        workers = {name: stack.enter_context(receiver(name)) for name in WORKERS}
        senders = [stack.enter_context(sender(SOURCES[0], 30000 + number)) for number in range(40)]

        def look() -> None:
            balancer.look({"tmt-1": api.arn, "tmt-2": None}, routes, api.addresses)

        def shows(worker: str, state: str) -> tuple[str, ...]:
            """What the API shows of a worker once it is in a state."""

            def seen() -> tuple[str, ...]:
                look()
                health = api.health().get(worker, ("gone",))
                return health if health[0] == state else ()

            return until(f"{worker} {state}", seen)

        def sent(number: int = 40) -> dict[str, int]:
            """How many of the first so many flows' datagrams each worker got."""
            before = total(balancer.counts)
            for made in senders[:number]:
                made.sendto(b"x" * 1000, (router.UNDERLAY_OF_BALANCER, 20001))
            until("they are through", lambda: total(balancer.counts).received == before.received + number)
            return {name: len(received(made)) for name, made in workers.items()}

        # both are checked at once, before any packet
        assert shows("i-1", "healthy") == ("healthy",)
        shows("i-2", "healthy")
        both = sent(30)
        assert both["i-1"] + both["i-2"] == 30
        assert min(both.values()) > 4

        # one dies: its flows go to the other
        healthy["i-1"].die()
        assert shows("i-1", "unhealthy")[1:] == (
            "Target.FailedHealthChecks",
            "Health checks failed: Connection refused",
        )
        assert sent(30) == {"i-1": 0, "i-2": 30}

        # the other leaves, and keeps its flows while it drains; new ones have nowhere else to go than to the dead one
        api.deregister(api.instances["i-2"])
        look()
        assert sent(40) == {"i-1": 10, "i-2": 30}

        # it comes back: the API forgot what it was told of it, and is told again
        api.register(api.instances["i-2"])
        shows("i-2", "healthy")
        assert sent(40) == {"i-1": 0, "i-2": 40}

        api.elb.delete_load_balancer(LoadBalancerArn=api.arn)
        look()
        assert sent(5) == {"i-1": 0, "i-2": 0}
        balancer.close()
        count = balancer.counts.sessions["tms-1"]
        assert count.refused == {NO_LISTENER: 5}
        assert count.received == count.forwarded + 5 == 145


class Nothing:
    """A cloud without load balancers."""

    def client(self, service: str) -> Any:
        return None

    def report_machine(self, instance: str, state: str) -> None:
        raise AssertionError(f"{instance} is no business of a balancer's: {state}")

    def report_health(self, group: str, target: str, state: str, reason: str = "", description: str = "") -> None:
        raise AssertionError(f"{group} has no {target} to be {state}: {reason} {description}")


def test_the_end_of_the_process_is_noticed_and_shown(tmp_path: Path) -> None:
    balancer = Balancer(Nothing(), 1.0, tmp_path, namespace="nowhere")
    balancer.start()
    try:
        with pytest.raises(BalancerError, match="the balancer ended with status .*nowhere"):
            until("its end", lambda: balancer.look({}, [Route(20001, "tms-1", "", "10.0.0.1", None)], {}))
        assert balancer.failure
    finally:
        balancer.close()
