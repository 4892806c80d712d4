"""The fake against the real thing: the same steps through FakeCloud, and through Ec2 on strict moto, give the same.

Ids differ, so they are numbered by first appearance before both are compared.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from lab.cloud.account import Account, strict_aws
from mirroring.ec2 import Ec2
from mirroring.model import OWNER_TAG, Health, Refused, Session, Target
from tests.layers.mirroring.fake_cloud import FakeCloud, FakePolicies, FakeTime

type Cloud = FakeCloud | Ec2
type Story = Callable[["Stage"], Iterator[object]]

IDS = re.compile(r"arn:[^'\"\s)]+|\b(?:i|eni|tms|tmt|tmf|tmfr|vpc|subnet|vpce)-[0-9a-z-]+")


class Stage:
    """One of the two: the cloud that is tested, and the hand that moves the world."""

    def __init__(self, cloud: Cloud, world: Any) -> None:
        self.cloud = cloud
        self.world = world
        self.model = world.model

    def target(self, health: Health) -> str:
        if isinstance(self.world, Account):
            return self.world.nlb_target(healthy=health is Health.HEALTHY, listener=health is not Health.NO_LISTENER)
        target: str = self.world.nlb_target(health)
        return target

    def interfaces(self, instance: str) -> list[str]:
        return [interface.id for interface in self.cloud.marked([instance])[instance].interfaces]

    def session(self, interface: Any, **changed: Any) -> Session:
        plain = Session("", interface, self.nlb, self.rules, 1, 5, None, "i-x", {OWNER_TAG: "us"})
        return replace(plain, **changed)

    def set_up(self) -> tuple[str, str]:
        """A target and a filter; an instance and its primary interface."""
        self.nlb, self.rules = self.target(Health.HEALTHY), self.world.filter([80], egress=True)
        [web] = self.world.launch(tags={"mirror": "yes"})
        return web, self.interfaces(web)[0]


@contextmanager
def both() -> Iterator[tuple[Stage, Stage]]:
    fake = FakeCloud()
    with strict_aws() as account:
        yield Stage(fake, fake), Stage(Ec2(account.ec2, account.elb), account)


def outcome(call: Callable[[], object]) -> object:
    try:
        return call()
    except Refused as refused:
        return refused.operation, refused.code


def told(story: Story, stage: Stage) -> list[str]:
    names: dict[str, str] = {}

    def name(match: re.Match[str]) -> str:
        kind = match[0].partition("-")[0] if not match[0].startswith("arn") else "arn"
        return names.setdefault(match[0], f"{kind}#{len(names)}")

    return [IDS.sub(name, repr(line)) for line in story(stage)]


def life_of_a_session(stage: Stage) -> Iterator[object]:
    _, interface = stage.set_up()
    made = stage.cloud.create(stage.session(interface), "token-1")
    yield made
    yield stage.cloud.sessions()
    yield stage.cloud.sessions(interfaces=[interface]) == stage.cloud.sessions(instances=["i-x"])
    yield stage.cloud.sessions(interfaces=["eni-0"], instances=["i-0"])
    changed = stage.cloud.modify(made, replace(made, number=7, vni=9, packet_length=100, description="i-y"))
    yield changed
    yield stage.cloud.modify(changed, replace(changed, packet_length=None, description=""))
    yield stage.cloud.modify(changed, changed)
    stage.cloud.retag(made, replace(made, tags={"a": "1", "b": "2"}))
    yield [sorted(session.tags.items()) for session in stage.cloud.sessions()]
    stage.cloud.remove_tags(made.id, {"a": "changed meanwhile", "b": "2"})
    yield [sorted(session.tags.items()) for session in stage.cloud.sessions()]
    stage.cloud.delete(made)
    yield stage.cloud.sessions()


def vni_that_aws_chooses(stage: Stage) -> Iterator[object]:
    _, interface = stage.set_up()
    made = stage.cloud.create(stage.session(interface, vni=None), "token-1")
    yield made
    yield stage.cloud.modify(made, replace(made, vni=5))
    yield stage.cloud.modify(replace(made, vni=5), replace(made, vni=None)).vni != 5


def what_create_refuses(stage: Stage) -> Iterator[object]:
    web, interface = stage.set_up()
    for number in (1, 2, 3):
        yield outcome(partial(stage.cloud.create, stage.session(interface, number=number), f"t{number}"))
    extra = stage.world.attach(web)
    [old] = stage.world.launch(type="t2.micro")
    small = stage.world.eni_target()
    behind = stage.cloud.targets([small])[small].resource
    wrong: list[dict[str, Any]] = [
        {"interface": interface, "number": 4},
        {"number": 0},
        {"packet_length": 8501},
        {"vni": 1 << 24},
        {"interface": "eni-0123"},
        {"target": "tmt-0123"},
        {"filter": "tmf-0123"},
        {"interface": stage.interfaces(old)[0]},
        {"interface": behind},
    ]
    for number, changed in enumerate(wrong):
        wish = stage.session(**{"interface": extra, **changed})
        yield outcome(partial(stage.cloud.create, wish, f"refused-{number}"))
        refused = stage.cloud.may_create(wish)
        yield refused and refused.code
    first = stage.cloud.create(stage.session(extra), "t4")
    yield outcome(lambda: stage.cloud.create(stage.session(extra), "t5"))
    yield outcome(lambda: stage.cloud.modify(replace(first, id="tms-0123"), replace(first, id="tms-0123", number=8)))
    yield outcome(lambda: stage.cloud.delete(first))
    yield outcome(lambda: stage.cloud.delete(first))
    yield outcome(lambda: stage.cloud.put_tags(first.id, {"a": "b"}))


def tokens_and_lost_answers(stage: Stage) -> Iterator[object]:
    _, interface = stage.set_up()
    wish = stage.session(interface)
    stage.model.fail("CreateTrafficMirrorSession", "InternalError", lost=True)
    yield outcome(lambda: stage.cloud.create(wish, "t1"))
    made = stage.cloud.create(wish, "t1")
    yield made == stage.cloud.create(wish, "t1"), len(stage.cloud.sessions())
    yield outcome(lambda: stage.cloud.create(replace(wish, number=2), "t1"))
    stage.cloud.delete(made)
    yield stage.cloud.create(wish, "t1") == made, stage.cloud.sessions()


def permissions(stage: Stage) -> Iterator[object]:
    web, interface = stage.set_up()
    wish = stage.session(interface)
    yield stage.cloud.may_create(wish), stage.cloud.may_tag(web, "mirror"), stage.cloud.sessions()
    stage.model.deny("CreateTags", lambda parameters: parameters.get("CreateAction") is not None)
    yield outcome(lambda: stage.cloud.create(wish, "t1"))
    stage.model.deny("CreateTrafficMirrorSession", lambda parameters: parameters["SessionNumber"] == 2)
    refused = stage.cloud.may_create(replace(wish, number=2))
    yield refused and refused.code
    stage.model.deny("CreateTags")
    tagging = stage.cloud.may_tag(web, "mirror")
    yield tagging and tagging.code, outcome(lambda: stage.cloud.put_tags(web, {"a": "b"}))


def instances(stage: Stage) -> Iterator[object]:
    web, primary = stage.set_up()
    yield stage.cloud.marked([web])
    yield stage.cloud.marked([web, "i-0123456789abcdef0"]).keys() == {web}, stage.cloud.marked(["i-012345678"])
    stage.world.attach(web, requester_managed=True)
    extra = stage.world.attach(web, device_index=4)
    yield stage.cloud.marked([web])
    yield stage.cloud.marked(None)[web] == stage.cloud.marked([web])[web]
    for interface, number in ((extra, 1), (primary, 1)):
        stage.cloud.create(stage.session(interface, description=web), f"t-{interface}-{number}")
    stage.world.detach(extra)
    yield stage.cloud.marked([web]), len(stage.cloud.sessions())
    for act in (stage.world.stop, stage.world.start):
        act([web])
        yield stage.cloud.marked([web])[web].state, len(stage.cloud.sessions())
    stage.world.set_state([web], "pending")
    stage.world.tag([web], {"Name": "web"})
    stage.world.untag([web], ["mirror"])
    yield stage.cloud.marked([web])
    stage.cloud.put_tags(web, {"mirror": "again"})
    stage.cloud.remove_tags(web, {"Name": "web", "mirror": "before"})
    yield stage.cloud.marked([web])[web].tags
    yield stage.cloud.unmarked([web]), stage.cloud.unmarked(None)[web] == stage.cloud.unmarked([web])[web]
    yield outcome(lambda: stage.cloud.put_tags("i-0123456789abcdef0", {"a": "b"}))
    stage.world.terminate([web])
    yield stage.cloud.marked([web]), stage.cloud.sessions(instances=[web])
    stage.world.vanish([web])
    yield stage.cloud.marked([web]), web in stage.cloud.marked(None)


def interface_is_deleted(stage: Stage) -> Iterator[object]:
    web, _ = stage.set_up()
    extra = stage.world.attach(web)
    stage.cloud.create(stage.session(extra), "t1")
    stage.world.detach(extra, delete=True)
    yield stage.cloud.sessions()


def targets(stage: Stage) -> Iterator[object]:
    stage.set_up()
    made = [stage.target(health) for health in (Health.HEALTHY, Health.UNHEALTHY, Health.NO_LISTENER, Health.HEALTHY)]
    stage.world.delete_load_balancer(made[-1])
    small, large = stage.world.eni_target(), stage.world.eni_target("m5.24xlarge")
    endpoint = stage.world.endpoint_target()
    found = stage.cloud.targets([*made, small, large, endpoint, "tmt-0123"])
    yield [plain(found[name]) for name in (*made, small, large, endpoint)], len(found)
    yield [bool(target.why) for target in found.values()]
    workers = [instance for instance in stage.cloud.marked(None).values() if instance.type == "m5.24xlarge"]
    stage.world.stop([workers[0].id])
    yield plain(stage.cloud.targets([large])[large])
    stage.world.terminate([workers[0].id])
    yield plain(stage.cloud.targets([large])[large])
    yield stage.cloud.targets(None).keys() >= found.keys(), stage.cloud.targets([])


def filters(stage: Stage) -> Iterator[object]:
    stage.set_up()
    rules, empty = stage.world.filter([80, 443], egress=True, tags={"a": "b"}), stage.world.filter([])
    yield stage.cloud.filters([rules, empty, "tmf-0123"])


def sight_that_lags(stage: Stage) -> Iterator[object]:
    _, interface = stage.set_up()
    stage.model.visible_after, stage.model.lingers = 2, 1
    made = stage.cloud.create(stage.session(interface), "t1")
    yield [len(stage.cloud.sessions()) for _ in range(3)]
    stage.cloud.delete(made)
    yield [len(stage.cloud.sessions()) for _ in range(2)]


def pages_and_faults(stage: Stage) -> Iterator[object]:
    _, interface = stage.set_up()
    for action, look in (
        ("DescribeTrafficMirrorSessions", stage.cloud.sessions),
        ("DescribeInstances", lambda: stage.cloud.marked(None)),
        ("DescribeNetworkInterfaces", lambda: stage.cloud.marked([interface])),
        ("DescribeTrafficMirrorTargets", lambda: stage.cloud.targets([stage.nlb])),
        ("DescribeListeners", lambda: stage.cloud.targets([stage.nlb])),
        ("DescribeTrafficMirrorFilters", lambda: stage.cloud.filters([stage.rules])),
        ("ModifyTrafficMirrorSession", lambda: stage.cloud.modify(*altered(stage, interface))),
        ("DeleteTrafficMirrorSession", lambda: stage.cloud.delete(stage.session(interface))),
    ):
        stage.model.fail(action, "InternalFailure")
        yield outcome(look)


def what_a_look_costs(stage: Stage) -> Iterator[object]:
    web, interface = stage.set_up()
    gone = stage.target(Health.NO_LISTENER)
    small, endpoint = stage.world.eni_target(), stage.world.endpoint_target()
    looks: list[Callable[[], object]] = [
        lambda: stage.cloud.marked([web]),
        lambda: stage.cloud.marked([f"i-{number:017x}" for number in range(401)]),
        lambda: stage.cloud.marked(None),
        lambda: stage.cloud.sessions(interfaces=[interface], instances=[web]),
        stage.cloud.sessions,
        lambda: stage.cloud.targets([stage.nlb, gone]),
        lambda: stage.cloud.targets([small]),
        lambda: stage.cloud.targets([endpoint]),
        lambda: stage.cloud.filters([stage.rules]),
        lambda: stage.cloud.filters([]),
    ]
    for look in looks:
        before = stage.cloud.calls
        look()
        yield stage.cloud.calls - before


def altered(stage: Stage, interface: str) -> tuple[Session, Session]:
    before = stage.session(interface, id="tms-0123")
    return before, replace(before, number=3)


def plain(target: Target) -> Target:
    """Without the sentence, which is the real one's own."""
    return replace(target, why="")


STORIES: list[Story] = [
    life_of_a_session,
    vni_that_aws_chooses,
    what_create_refuses,
    tokens_and_lost_answers,
    permissions,
    instances,
    interface_is_deleted,
    targets,
    filters,
    sight_that_lags,
    pages_and_faults,
    what_a_look_costs,
]


@pytest.mark.parametrize("story", STORIES)
def test_the_fake_does_what_the_real_one_does(story: Story) -> None:
    with both() as (fake, real):
        assert told(story, fake) == told(story, real)


def test_a_failure_in_the_middle_of_the_pages() -> None:
    cloud = FakeCloud()
    target, rules = cloud.nlb_target(), cloud.filter()
    web = cloud.launch(1001)
    for name in web:
        cloud.somebody_creates(Session("", cloud.machines[name].interfaces[0].id, target, rules, 1, None, None, ""))
    cloud.model.fail("DescribeInstances", "InternalError", when=lambda call: "NextToken" in call)
    cloud.model.fail("DescribeTrafficMirrorSessions", "InternalError", when=lambda call: "NextToken" in call)
    with pytest.raises(Refused):
        cloud.marked(None)
    with pytest.raises(Refused):
        cloud.sessions()
    assert len(cloud.marked(None)) == 1001 and len(cloud.sessions()) == 1001


def test_an_interface_that_moves_keeps_its_session() -> None:
    cloud = FakeCloud()
    target, rules = cloud.nlb_target(), cloud.filter()
    first, second = cloud.launch(2)
    moving = cloud.attach(first)
    made = cloud.somebody_creates(Session("", moving, target, rules, 1, None, None, ""))
    cloud.detach(moving)
    cloud.attach(second, moving)
    assert cloud.all_sessions() == [made]
    cloud.detach(moving, delete=True)
    assert cloud.all_sessions() == []


def test_others_are_not_hindered_by_faults() -> None:
    cloud = FakeCloud()
    cloud.model.fail("*", "InternalError", times=100)
    target, rules = cloud.nlb_target(), cloud.filter()
    [web] = cloud.launch()
    made = cloud.somebody_creates(Session("", cloud.machines[web].interfaces[0].id, target, rules, 1, None, None, ""))
    cloud.somebody_modifies(made.id, number=5)
    assert [session.number for session in cloud.all_sessions()] == [5]
    cloud.somebody_deletes(made.id)
    cloud.delete_target(target)
    assert cloud.all_sessions() == [] and cloud.calls == 0


def test_the_fake_policies_and_the_fake_clock() -> None:
    store = FakePolicies("sources: []")
    assert not store.read().paused and store.read().version == 1
    store.write("paused: true")
    assert store.read().paused and store.read().version == 2 and not store.paused()
    store.is_paused = True
    assert store.paused() and store.looks == 2
    clock = FakeTime()
    before, started = clock(), clock.seconds()
    clock.sleep(2.5)
    assert (clock() - before).total_seconds() == 2.5 == clock.slept == clock.seconds() - started
