"""EC2's answers made plain, and the writes, against the strict account; what moto cannot show, at the wire."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.cloud.account import Account, strict_aws
from mirroring import describe
from mirroring.clients import client
from mirroring.ec2 import Ec2, connect
from mirroring.model import (
    OWNER_TAG,
    Direction,
    Filter,
    Health,
    Interface,
    Refused,
    Rule,
    Session,
    Target,
    TargetKind,
)
from tests.layers.mirroring.wire import Reply, Wire, refusal

TAGS = {OWNER_TAG: "replay", "mirror:source": "web"}


@pytest.fixture(autouse=True)
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


@pytest.fixture
def account() -> Iterator[Account]:
    with strict_aws() as account:
        yield account


@pytest.fixture
def cloud(account: Account) -> Ec2:
    return Ec2(account.ec2, account.elb)


def asked(account: Account, action: str) -> list[Any]:
    """Parameters of the calls of an action so far."""
    return [call.parameters for call in account.model.faults.calls if call.action == action]


def wish(account: Account, instance: str, **settings: Any) -> Session:
    """A session that could be made."""
    session = Session(
        id="",
        interface=account.interfaces(instance)[0],
        target="",
        filter="",
        number=1,
        vni=None,
        packet_length=None,
        description=instance,
        tags=TAGS,
    )
    return replace(session, **{"target": account.eni_target(), "filter": account.filter(), **settings})


class TestInstances:
    def test_an_instance_is_made_plain(self, account: Account, cloud: Ec2) -> None:
        vpc = account.vpc()
        subnet = account.subnet(vpc)
        (name,) = account.launch(vpc=vpc, subnet=subnet, tags={"Name": "web", "mirror": ""}, type="c5.large")
        (instance,) = cloud.marked([name]).values()
        assert (instance.id, instance.state, instance.type) == (name, "running", "c5.large")
        assert (instance.vpc, instance.subnet, instance.tags) == (vpc, subnet, {"Name": "web", "mirror": ""})
        (interface,) = account.interfaces(name)
        assert instance.interfaces == (Interface(interface, name, 0, vpc, subnet, "interface", False),)

    def test_all_instances_of_a_reservation(self, account: Account, cloud: Ec2) -> None:
        names = account.launch(3)
        assert cloud.marked(None).keys() == set(names)

    def test_interfaces_by_device_index_and_those_that_a_service_manages(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        third = account.attach(name, device_index=3, requester_managed=True)
        first = account.attach(name, device_index=1)
        for ids in (None, [name]):
            interfaces = cloud.marked(ids)[name].interfaces
            assert [one.device_index for one in interfaces] == [0, 1, 3]
            assert [one.id for one in interfaces[1:]] == [first, third]
            assert [one.requester_managed for one in interfaces] == [False, False, True]

    def test_stopped_and_terminated_ones_are_told_with_what_is_left_of_them(self, account: Account, cloud: Ec2) -> None:
        stopped, terminated = account.launch(2, tags={"mirror": "yes"})
        account.stop([stopped])
        account.terminate([terminated])
        found = cloud.marked([stopped, terminated])
        assert (found[stopped].state, len(found[stopped].interfaces)) == ("stopped", 1)
        gone = found[terminated]
        assert (gone.state, gone.vpc, gone.subnet, gone.interfaces) == ("terminated", "", "", ())

    def test_an_unknown_id_is_absent_and_spoils_nothing(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        assert cloud.marked(["i-0123456789abcdef0", name]).keys() == {name}

    def test_an_event_costs_two_calls(self, account: Account, cloud: Ec2) -> None:
        names = account.launch(2)
        cloud.marked(names)
        assert cloud.calls == 2

    def test_without_the_marks_it_costs_one(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        account.attach(name, requester_managed=True)
        (found,) = cloud.unmarked([name]).values()
        assert (len(found.interfaces), any(one.requester_managed for one in found.interfaces)) == (2, False)
        assert cloud.unmarked(None) == {name: found}
        assert cloud.calls == 2

    def test_no_id_is_no_call(self, cloud: Ec2) -> None:
        assert cloud.marked([]) == {}
        assert cloud.calls == 0

    def test_all_pages(self, account: Account, cloud: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(describe, "PAGE", 5)
        names = account.launch(12)
        assert cloud.marked(None).keys() == set(names)
        assert [parameters["MaxResults"] for parameters in asked(account, "DescribeInstances")] == [5, 5, 5]

    def test_no_more_values_in_a_filter_than_ec2_takes(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        ids = [*[f"i-{number:017x}" for number in range(400)], name, name]
        assert cloud.marked(ids).keys() == {name}
        sizes = [len(parameters["Filters"][0]["Values"]) for parameters in asked(account, "DescribeInstances")]
        assert sizes == [200, 200, 1]

    def test_a_failed_page_fails_the_whole(self, account: Account, cloud: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(describe, "PAGE", 5)
        account.launch(12)
        account.model.faults.fail("DescribeInstances", "UnauthorizedOperation", after=2)
        with pytest.raises(Refused, match="DescribeInstances: UnauthorizedOperation"):
            cloud.marked(None)

    def test_network_cards_and_interfaces_that_come_and_go(self) -> None:
        """Device indexes begin anew on each network card. What is being detached is no source any more."""
        parts = [("eni-b", 1, 1, "attached"), ("eni-c", 0, 1, "attaching"), ("eni-a", 0, 0, "attached")]
        parts += [("eni-x", 0, 2, "detaching"), ("eni-y", 0, 3, "detached")]
        interfaces = "".join(
            f"<item><networkInterfaceId>{name}</networkInterfaceId><interfaceType>efa</interfaceType><attachment>"
            f"<networkCardIndex>{card}</networkCardIndex><deviceIndex>{index}</deviceIndex><status>{status}</status>"
            "</attachment></item>"
            for name, card, index, status in parts
        )
        instance = (
            "<instanceId>i-1</instanceId><instanceType>p5.48xlarge</instanceType>"
            f"<instanceState><name>running</name></instanceState><networkInterfaceSet>{interfaces}</networkInterfaceSet>"
        )
        cloud, _ = scripted(instances(instance), Reply("<R><networkInterfaceSet/></R>"))
        found = cloud.marked(["i-1"])["i-1"].interfaces
        assert [(one.id, one.card, one.device_index) for one in found] == [
            ("eni-a", 0, 0),
            ("eni-c", 0, 1),
            ("eni-b", 1, 1),
        ]
        assert {one.kind for one in found} == {"efa"}


class TestSessions:
    def test_what_is_made_is_found_again_by_interface_and_by_description(self, account: Account, cloud: Ec2) -> None:
        web, other = account.launch(2)
        made = cloud.create(wish(account, web, packet_length=200, vni=77), "a")
        beside = cloud.create(wish(account, other), "b")
        assert cloud.sessions() == [made, beside]
        assert cloud.sessions(interfaces=[made.interface]) == [made]
        assert cloud.sessions(instances=[web]) == [made]
        assert cloud.sessions(interfaces=[made.interface], instances=[web, other]) == [made, beside]
        assert cloud.sessions(interfaces=["eni-0123456789abcdef0"]) == []

    def test_bare_sessions_of_others(self) -> None:
        session = (
            "<trafficMirrorSessionId>tms-1</trafficMirrorSessionId><networkInterfaceId>eni-1</networkInterfaceId>"
            "<trafficMirrorTargetId>tmt-1</trafficMirrorTargetId><trafficMirrorFilterId>tmf-1</trafficMirrorFilterId>"
            "<sessionNumber>7</sessionNumber>"
        )
        cloud, _ = scripted(Reply(f"<R><trafficMirrorSessionSet><item>{session}</item></trafficMirrorSessionSet></R>"))
        assert cloud.sessions() == [Session("tms-1", "eni-1", "tmt-1", "tmf-1", 7, None, None, "", {})]

    def test_all_pages(self, account: Account, cloud: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(describe, "PAGE", 5)
        names = account.launch(6)
        pattern = wish(account, names[0])
        for name in names:
            cloud.create(replace(pattern, interface=account.interfaces(name)[0], description=name), name)
        before = cloud.calls
        assert [session.description for session in cloud.sessions()] == names
        assert cloud.calls - before == 2

    def test_one_call_for_an_interface(self, account: Account, cloud: Ec2) -> None:
        cloud.sessions(interfaces=["eni-0123456789abcdef0"])
        assert cloud.calls == 1


class TestTargets:
    def one(self, cloud: Ec2, name: str) -> Target:
        cloud.marked(None)  # whose account it is
        (target,) = cloud.targets([name]).values()
        return target

    def test_a_load_balancer_with_a_healthy_worker(self, account: Account, cloud: Ec2) -> None:
        target = self.one(cloud, account.nlb_target(tags={"mirror:stack": "replay"}))
        assert (target.kind, target.health, target.why) == (TargetKind.NLB, Health.HEALTHY, "")
        assert ":loadbalancer/net/" in target.resource
        assert (target.tags, target.capacity) == ({"mirror:stack": "replay"}, None)

    def test_what_is_behind_an_interface_or_an_endpoint_is_told_too(self, account: Account, cloud: Ec2) -> None:
        target = self.one(cloud, account.eni_target())
        assert (target.kind, target.health, target.capacity) == (TargetKind.INTERFACE, Health.HEALTHY, 10)
        cloud, wire = scripted(
            targets("gateway-load-balancer-endpoint", gatewayLoadBalancerEndpointId="vpce-1"),
            refusal("InvalidVpcEndpointId.NotFound"),
            account="123456789012",
        )
        target = cloud.targets(["tmt-1"])["tmt-1"]
        assert (target.kind, target.resource, target.health) == (TargetKind.ENDPOINT, "vpce-1", Health.GONE)
        assert "does not exist any more" in target.why
        assert wire.replies == []

    @pytest.mark.parametrize("ids", [None, ["tmt-1", "tmt-2"]])
    def test_a_target_of_a_kind_that_is_new_to_us_does_not_show(self, ids: list[str] | None) -> None:
        kinds = {"tmt-1": "packet-broker", "tmt-2": "network-interface"}
        items = "".join(
            f"<item><trafficMirrorTargetId>{name}</trafficMirrorTargetId><type>{kind}</type>"
            "<networkInterfaceId>eni-1</networkInterfaceId></item>"
            for name, kind in kinds.items()
        )
        told = Reply(f"<R><trafficMirrorTargetSet>{items}</trafficMirrorTargetSet></R>")
        cloud, _ = scripted(told, Reply("<R><networkInterfaceSet/></R>"))
        assert cloud.targets(ids).keys() == {"tmt-2"}

    def test_a_target_that_another_account_shares_is_not_asked_about(self) -> None:
        cloud, wire = scripted(
            targets("network-load-balancer", owner="999999999999", networkLoadBalancerArn="arn:x/y/z"),
            account="123456789012",
        )
        target = cloud.targets(["tmt-1"])["tmt-1"]
        assert target.health is Health.UNKNOWN
        assert "account 999999999999 owns tmt-1" in target.why
        assert len(wire.asked) == 3  # two of them to tell whose account this is

    def test_while_we_do_not_know_our_account_nothing_is_said_to_be_gone(self) -> None:
        """What looks gone may be another account's: sessions there must stay."""
        cloud, _ = scripted(
            targets("network-interface", networkInterfaceId="eni-1"), Reply("<R><networkInterfaceSet/></R>")
        )
        assert cloud.targets(["tmt-1"])["tmt-1"].health is Health.UNKNOWN

    def test_all_targets_come_without_their_health(self, account: Account, cloud: Ec2) -> None:
        names = {account.nlb_target(listener=False), account.eni_target()}
        assert {target.id for target in cloud.targets(None).values() if target.health is Health.HEALTHY} == names
        assert cloud.calls == 1

    def test_unknown_ids_are_absent(self, cloud: Ec2) -> None:
        assert cloud.targets(["tmt-0123456789abcdef0"]) == {}
        assert cloud.targets([]) == {}
        assert cloud.calls == 1


class TestFilters:
    def test_rules_in_the_order_in_which_they_are_evaluated(self, account: Account, cloud: Ec2) -> None:
        name = account.filter([80], egress=True, tags={"mirror:stack": "replay"})
        rule = {"TrafficMirrorFilterId": name, "SourceCidrBlock": "10.0.0.0/8", "DestinationCidrBlock": "0.0.0.0/0"}
        account.ec2.create_traffic_mirror_filter_rule(
            **rule, TrafficDirection="ingress", RuleNumber=1, RuleAction="reject"
        )
        anywhere = "0.0.0.0/0"
        assert cloud.filters([name, "tmf-0123456789abcdef0"]) == {
            name: Filter(
                name,
                (
                    Rule(Direction.INGRESS, 1, False, "10.0.0.0/8", anywhere),
                    Rule(Direction.INGRESS, 100, True, anywhere, anywhere, 6, None, (80, 80)),
                    Rule(Direction.EGRESS, 100, True, anywhere, anywhere, 6, (80, 80), None),
                ),
                {"mirror:stack": "replay"},
            )
        }

    def test_a_filter_without_rules(self, account: Account, cloud: Ec2) -> None:
        name = account.filter([])
        assert cloud.filters([name])[name].rules == ()

    def test_protocol_minus_one_is_any(self) -> None:
        rule = (
            "<trafficDirection>ingress</trafficDirection><ruleNumber>1</ruleNumber><ruleAction>accept</ruleAction>"
            "<sourceCidrBlock>::/0</sourceCidrBlock><destinationCidrBlock>::/0</destinationCidrBlock><protocol>-1</protocol>"
        )
        cloud, _ = scripted(
            Reply(
                "<R><trafficMirrorFilterSet><item><trafficMirrorFilterId>tmf-1</trafficMirrorFilterId>"
                f"<ingressFilterRuleSet><item>{rule}</item></ingressFilterRuleSet></item></trafficMirrorFilterSet></R>"
            )
        )
        assert cloud.filters(["tmf-1"])["tmf-1"].rules == (Rule(Direction.INGRESS, 1, True, "::/0", "::/0"),)


class TestWrites:
    def test_a_session_is_made_with_its_tags(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        wished = wish(account, name)
        made = cloud.create(wished, "token")
        assert replace(made, id="", vni=None) == wished
        assert made.id.startswith("tms-") and made.vni is not None
        (parameters,) = asked(account, "CreateTrafficMirrorSession")
        assert not parameters.keys() & {"VirtualNetworkId", "PacketLength"}
        assert cloud.sessions() == [made]

    def test_the_same_token_makes_no_second_session(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        wished = wish(account, name)
        assert cloud.create(wished, "token") == cloud.create(wished, "token")
        assert len(cloud.sessions()) == 1

    def test_only_what_differs_is_sent(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name, packet_length=200, vni=5), "token")
        changed = replace(made, number=9, packet_length=None, tags={})
        assert cloud.modify(made, changed) == replace(changed, tags=TAGS)
        (parameters,) = asked(account, "ModifyTrafficMirrorSession")
        assert parameters == {
            "TrafficMirrorSessionId": made.id,
            "SessionNumber": 9,
            "RemoveFields": ["packet-length"],
        }

    def test_nothing_that_differs_is_no_call(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name), "token")
        assert cloud.modify(made, replace(made, tags={})) == made
        assert asked(account, "ModifyTrafficMirrorSession") == []

    def test_any_settings_become_any_others(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        pattern = wish(account, name)
        names = {"target": [pattern.target, account.eni_target()], "filter": [pattern.filter, account.filter([443])]}
        settings_of = st.builds(
            replace,
            st.just(pattern),
            target=st.sampled_from(names["target"]),
            filter=st.sampled_from(names["filter"]),
            number=st.integers(1, 32766),
            vni=st.integers(0, 2**24 - 1),
            packet_length=st.none() | st.integers(1, 8500),
            description=st.sampled_from([name, "", "by hand"]),
        )

        @settings(max_examples=30, deadline=None)
        @given(settings_of, settings_of)
        def become(before: Session, after: Session) -> None:
            made = cloud.create(before, repr(before)[-64:])
            assert replace(made, id="") == before
            wished = replace(after, id=made.id)
            assert cloud.modify(made, wished) == wished
            assert cloud.sessions() == [wished]
            cloud.delete(wished)
            account.model._answers.clear()

        become()

    def test_a_vni_that_is_unset_is_aws_to_choose(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name, vni=5), "token")
        cloud.modify(made, replace(made, vni=None))
        (parameters,) = asked(account, "ModifyTrafficMirrorSession")
        assert parameters["RemoveFields"] == ["virtual-network-id"]

    def test_tags_are_put_changed_and_taken_off(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name, tags={"keep": "1", "change": "1", "drop": "1"}), "token")
        cloud.retag(made, replace(made, tags={"keep": "1", "change": "2", "new": ""}))
        assert cloud.sessions()[0].tags == {"keep": "1", "change": "2", "new": ""}
        assert [len(parameters["Tags"]) for parameters in asked(account, "CreateTags")] == [2]
        before = cloud.calls
        cloud.retag(made, made)
        assert cloud.calls == before

    def test_delete(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name), "token")
        cloud.delete(made)
        assert cloud.sessions() == []
        with pytest.raises(Refused) as caught:
            cloud.delete(made)
        assert caught.value.code == "InvalidTrafficMirrorSessionId.NotFound"

    def test_tags_of_instances(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch(tags={"a": "1", "b": "2"})
        cloud.put_tags(name, {"b": "3", "c": ""})
        cloud.remove_tags(name, {"a": "1", "unknown": ""})
        assert cloud.marked([name])[name].tags == {"b": "3", "c": ""}

    def test_a_tag_that_somebody_changed_since_we_looked_stays(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch(tags={"a": "2", "b": "", "c": "1", "d": ""})
        cloud.remove_tags(name, {"a": "1", "b": "", "c": "", "d": "1"})
        assert cloud.marked([name])[name].tags == {"a": "2", "c": "1", "d": ""}

    def test_so_does_one_of_a_session(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name, tags={"drop": "1", "theirs": "1", "empty": ""}), "token")
        account.ec2.create_tags(Resources=[made.id], Tags=[{"Key": "theirs", "Value": "2"}])
        cloud.retag(made, replace(made, tags={}))
        assert cloud.sessions()[0].tags == {"theirs": "2"}

    def test_a_refusal_names_its_code(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        account.model.faults.fail("CreateTrafficMirrorSession", "NetworkInterfaceNotSupported")
        with pytest.raises(Refused) as caught:
            cloud.create(wish(account, name), "token")
        assert (caught.value.operation, caught.value.code) == (
            "CreateTrafficMirrorSession",
            "NetworkInterfaceNotSupported",
        )

    def test_writes_go_by_the_writer(self, account: Account) -> None:
        """Whose one attempt leaves it to our budget when a throttled write is sent again."""
        cloud = connect()
        (name,) = account.launch()
        wished = wish(account, name)
        account.model.faults.fail("CreateTrafficMirrorSession", "RequestLimitExceeded", times=5)
        with pytest.raises(Refused, match="RequestLimitExceeded"):
            cloud.create(wished, "token")
        assert cloud.calls == len(asked(account, "CreateTrafficMirrorSession")) == 1


class TestDryRuns:
    def test_what_is_allowed_is_not_done(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        assert cloud.may_create(wish(account, name)) is None
        assert cloud.sessions() == []
        assert cloud.may_tag(name, "mirror") is None
        assert cloud.marked([name])[name].tags == {}

    def test_what_is_not_allowed_says_so(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        account.model.faults.deny("CreateTrafficMirrorSession")
        account.model.faults.deny("CreateTags")
        refusals = [cloud.may_create(wish(account, name)), cloud.may_tag(name, "mirror")]
        assert [refused.code for refused in refusals if refused] == ["UnauthorizedOperation"] * 2

    def test_any_other_write(self, account: Account, cloud: Ec2) -> None:
        (name,) = account.launch()
        made = cloud.create(wish(account, name), "token")
        assert cloud.allowed("DeleteTrafficMirrorSession", TrafficMirrorSessionId=made.id) is None
        assert cloud.sessions() == [made]
        refused = cloud.allowed("DeleteTrafficMirrorSession", TrafficMirrorSessionId="tms-0123456789abcdef0")
        assert refused is not None and refused.code == "InvalidTrafficMirrorSessionId.NotFound"


# At the wire


def scripted(*replies: Reply, account: str = "") -> tuple[Ec2, Wire]:
    """EC2 that gives these replies; with `account` after it has told whose it is."""
    wire = Wire(list(replies))
    cloud = Ec2(wire.tap(client("ec2", attempts=1)), wire.tap(client("elbv2", attempts=1)))
    if account:
        wire.replies.insert(0, instances("", owner=account))
        wire.replies.insert(1, Reply("<R><networkInterfaceSet/></R>"))
        cloud.marked(["i-1"])
    return cloud, wire


def instances(inside: str, owner: str = "123456789012") -> Reply:
    found = f"<item>{inside}</item>" if inside else ""
    return Reply(
        f"<R><reservationSet><item><ownerId>{owner}</ownerId><instancesSet>{found}</instancesSet></item></reservationSet></R>"
    )


def targets(kind: str, owner: str = "123456789012", **resource: str) -> Reply:
    ((name, value),) = resource.items()
    return Reply(
        "<R><trafficMirrorTargetSet><item><trafficMirrorTargetId>tmt-1</trafficMirrorTargetId>"
        f"<type>{kind}</type><ownerId>{owner}</ownerId><{name}>{value}</{name}></item></trafficMirrorTargetSet></R>"
    )
