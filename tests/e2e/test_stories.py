"""The product in its lab: events, functions, sessions, mirrored packets, replayed requests, and all that befalls them.

The tests are chapters of one story, in one sandbox: the stack is deployed once, clients send all the time. Each chapter
has production and workers as it needs them, and looks at what arrived since it began; the last one looks at everything.
What arrived is told from the logs of the servers alone.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.build import built
from lab.fabric.balancer.counts import total
from lab.tally import Window
from lab.traffic import Mix
from lab.vpc import PRODUCTION, STACK, Lab
from tests.e2e.story import WEB, Story
from tests.waiting import until

pytestmark = [pytest.mark.alone, pytest.mark.network(whole=True)]

MIX = Mix(gets=30, get_connections=2, posts=6, fresh=3, uploads=0.5, seconds=400)
POLICY = f"/{STACK}/policy"
MIRRORCTL = Path(sys.executable).with_name("mirrorctl")
#: "Within seconds": from `running` to the first request at the test environment, and from a deed to its effect.
SECONDS = 10.0

type Raw = dict[str, Any]


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with Lab(built()) as lab:
        lab.drive(MIX)
        lab.group(WEB, 2, tags=PRODUCTION)
        lab.deploy()
        story = Story(lab)
        story.production()
        yield story


@pytest.fixture
def lab(story: Story) -> Lab:
    return story.lab


@pytest.fixture(autouse=True)
def chapter(story: Story, request: pytest.FixtureRequest) -> Iterator[None]:
    story.begun = time.time()
    print(f"{story.begun:.1f} {request.node.name}")
    story.lab.cloud.bus()
    yield
    story.lab.fabric.check()
    assert story.lab.fabric.troubled == {}


# Production changes


def test_new_instances_are_mirrored_within_seconds_under_load(story: Story, lab: Lab) -> None:
    old = set(story.production(2))
    new = set(story.production(6)) - old
    first: dict[str, float] = {}

    def all_arrive() -> bool:
        first.update({name: time.time() for name in new - first.keys() if story.arrivals(name)})
        return first.keys() == new

    until("requests of each new instance arrive", all_arrive, 30)
    late = {name: first[name] - story.running_since(name) for name in new}
    assert len(new) == 4 and max(late.values()) < SECONDS, late
    assert story.missing() == []


def test_without_the_tag_mirroring_stops_and_nothing_else_changes(story: Story, lab: Lab) -> None:
    one, *others = story.production(6)
    before = {each["TrafficMirrorSessionId"]: each for each in lab.sessions(others)}
    lab.untag(one, *PRODUCTION)
    until("it is mirrored no more", lambda: not story.mirrored([one]) and not lab.sessions([one]), SECONDS)
    assert story.missing() == []
    arrived, answered = story.arrivals(one), story.answers(one)
    until("its clients send on", lambda: story.answers(one) > answered + 50)
    assert story.missing() == []  # nor is there one that should not have arrived
    assert story.arrivals(one) == arrived
    assert {each["TrafficMirrorSessionId"]: each for each in lab.sessions(others)} == before
    assert lab.instance(one)["State"]["Name"] == "running"
    lab.tag(one, PRODUCTION)
    until("its requests arrive again", lambda: story.arrivals(one) > arrived, SECONDS)


def test_production_may_shrink(story: Story, lab: Lab) -> None:
    """AWS deletes sessions with their interfaces, so does the model: what is shown is that no request is lost."""
    gone = set(story.production(6)) - set(story.production(2))
    until("nor does the kernel mirror them", lambda: not any(story.mirrored([name]) for name in gone), SECONDS)
    assert len(gone) == 4
    assert story.missing() == []


# Somebody else mirrors


def test_a_foreign_session_in_front_takes_the_packets_and_is_reported(story: Story, lab: Lab) -> None:
    said = len(story.reports())
    lab.drive(MIX)
    story.production(2)
    [appliance] = lab.launch(image="plain", tags={"Name": "appliance"})
    [shadowed] = lab.launch(tags={"Name": "shadowed"})
    lab.running([appliance, shadowed])
    foreign = _foreign_session(lab, shadowed, appliance)
    lab.foreign.add(foreign["TrafficMirrorSessionId"])
    until("the kernel mirrors it to them", lambda: _sent(lab, foreign), SECONDS)
    lab.tag(shadowed, PRODUCTION)
    [ours] = until("we have a session there too", lambda: _ours(lab, shadowed), SECONDS)
    assert ours["SessionNumber"] > foreign["SessionNumber"]
    [finding] = until("it is reported", lambda: story.findings("shadowed", said), SECONDS)[:1]
    assert finding["instance"] == shadowed and foreign["TrafficMirrorSessionId"] in finding["text"]
    told = _mirrorctl(lab, "explain", shadowed)
    assert foreign["TrafficMirrorSessionId"] in told and "shadow" in told.lower()
    before = _sent(lab, foreign)
    until("they get its packets", lambda: _sent(lab, foreign) > before + 100)
    assert _sent(lab, ours) == 0
    assert story.arrivals(shadowed) == 0
    lab.ec2.delete_traffic_mirror_session(TrafficMirrorSessionId=foreign["TrafficMirrorSessionId"])
    until("its requests arrive", lambda: story.arrivals(shadowed) > 50, SECONDS)
    assert story.missing() == []
    lab.terminate([shadowed, appliance])
    until("its session is gone", lambda: len(lab.sessions()) == 2, SECONDS)


def _foreign_session(lab: Lab, source: str, appliance: str) -> Raw:
    """Of somebody who mirrors everything to a machine of their own."""
    ec2 = lab.ec2
    target = ec2.create_traffic_mirror_target(NetworkInterfaceId=_interface(lab, appliance))["TrafficMirrorTarget"]
    rules = ec2.create_traffic_mirror_filter(Description="theirs")["TrafficMirrorFilter"]["TrafficMirrorFilterId"]
    ec2.create_traffic_mirror_filter_rule(
        TrafficMirrorFilterId=rules,
        TrafficDirection="ingress",
        RuleNumber=1,
        RuleAction="accept",
        SourceCidrBlock="0.0.0.0/0",
        DestinationCidrBlock="0.0.0.0/0",
    )
    made: Raw = ec2.create_traffic_mirror_session(
        NetworkInterfaceId=_interface(lab, source),
        TrafficMirrorTargetId=target["TrafficMirrorTargetId"],
        TrafficMirrorFilterId=rules,
        SessionNumber=1,
        Description="theirs",
    )["TrafficMirrorSession"]
    return made


def _interface(lab: Lab, instance: str) -> str:
    return str(lab.instance(instance)["NetworkInterfaces"][0]["NetworkInterfaceId"])


def _ours(lab: Lab, instance: str) -> list[Raw]:
    owner = {"Key": "mirror:managed-by", "Value": STACK}
    return [one for one in lab.sessions([instance]) if owner in one["Tags"]]


def _sent(lab: Lab, session: Mapping[str, Any]) -> int:
    """Packets that the kernel mirrored for it."""
    copied = lab.fabric.counters().sessions.get(session["TrafficMirrorSessionId"])
    return copied.packets if copied else 0


def _mirrorctl(lab: Lab, *arguments: str) -> str:
    command = [str(MIRRORCTL), *arguments[:1], "--stack", STACK, *arguments[1:]]
    environment = {**os.environ, **lab.cloud.environment, "COLUMNS": "200"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Events


def test_lost_events_are_repaired_by_the_sweep(story: Story, lab: Lab) -> None:
    one, other = story.production(2)
    lab.cloud.bus(lost=1)
    lab.untag(one, *PRODUCTION)
    [late] = lab.launch(tags=PRODUCTION)
    lab.running([late])
    answered = story.answers(late)
    until("its clients send on", lambda: story.answers(late) > answered + 50)
    assert not story.mirrored([late]) and story.mirrored([one, other])
    lab.cloud.sweep()
    until("all is repaired", lambda: story.mirrored([other, late]) and not story.mirrored([one]), SECONDS)
    lab.cloud.bus()
    lab.tag(one, PRODUCTION)
    lab.terminate([late])
    assert story.missing() == []


def test_late_doubled_and_shuffled_events_come_to_the_same(story: Story, lab: Lab) -> None:
    one, other = story.production(2)
    number = len(lab.cloud.events())
    weather = {"late": 0.5, "seconds": 3.0, "doubled": 0.5, "shuffled": 0.5}
    lab.cloud.bus(**weather, seed=5)
    made = lab.launch(4, tags=PRODUCTION)
    lab.running(made)
    new, untagged, stopped, ended = made
    for _ in range(3):
        lab.untag(one, *PRODUCTION)
        lab.tag(one, PRODUCTION)
    lab.cloud.bus(late=1, seconds=6)  # the last word on `one`: that it bears no tag, which is not so any more
    lab.untag(one, *PRODUCTION)
    lab.cloud.bus(**weather, seed=5)
    lab.tag(one, PRODUCTION)
    lab.untag(untagged, *PRODUCTION)
    lab.stop([stopped])
    lab.terminate([ended])
    until("nothing is on its way any more", lambda: _all_came(lab, number), 20)
    until("the policy holds", lambda: _mirrored(lab) == {one, other, new}, SECONDS)
    said = lab.cloud.events()[number:]
    assert any(each.copies == 2 for each in said)
    assert any(max(each.sent) - each.time > 3 for each in said)
    order = [each.number for each in sorted(said, key=lambda each: each.sent[0])]
    assert order != sorted(order)
    tagged = [each for each in said if one in "".join(each.event["resources"]) and each.event["source"] == "aws.tag"]
    assert "TrafficReplay" not in max(tagged, key=lambda each: max(each.sent)).event["detail"]["tags"]
    lab.cloud.bus()
    assert story.missing() == []
    lab.terminate([new, untagged, stopped])


def _all_came(lab: Lab, after: int) -> bool:
    return all(len(each.sent) == each.copies for each in lab.cloud.events()[after:])


def _mirrored(lab: Lab) -> set[str]:
    """By the sessions' own description."""
    return {each["Description"] for each in lab.sessions()}


# The policy


def test_the_guard_holds_when_a_policy_changes_for_the_worse(story: Story, lab: Lab) -> None:
    story.production(6)
    before, said = {one["TrafficMirrorSessionId"] for one in lab.sessions()}, len(story.reports())
    made = lab.stack.outputs
    worse = {"name": "typo", "match": {"tags": {"TraficReplay": "production"}}}
    worse |= {"target": made["TrafficMirrorTarget"], "filter": made["TrafficMirrorFilter"]}
    parameters = lab.cloud.client("ssm")
    parameters.put_parameter(Name=POLICY, Value=json.dumps({"version": 1, "sources": [worse]}), Type="String")
    [finding] = until("it is reported", lambda: story.findings("guard", said), SECONDS)[:1]
    assert "6" in finding["text"]
    held = [report for report in story.reports()[said:] if report["policy"].startswith(POLICY)]
    assert [(report["held_back"], report["deleted"]) for report in held] == [(6, 0)] * len(held) != []
    assert {one["TrafficMirrorSessionId"] for one in lab.sessions()} == before
    arrived = {name: story.arrivals(name) for name in lab.members(WEB)}
    until("requests arrive as before", lambda: all(story.arrivals(name) > n + 20 for name, n in arrived.items()))
    parameters.delete_parameter(Name=POLICY)
    assert story.missing() == []


# The test environment


def test_the_test_environment_dies_and_returns(story: Story, lab: Lab) -> None:
    web, host = story.production(2), lab.fabric.hosts[lab.test]
    before = _replays(story)
    died = time.time()
    lab.crew.machines.kill(lab.test, signal.SIGSTOP)
    until("requests wait for its answer", lambda: _replays(story)["in_flight"] > 10)
    lab.crew.machines.kill(lab.test)
    until("that they failed is counted", lambda: _replays(story)["failed"] > before["failed"], SECONDS)
    until("its absence is counted", lambda: _replays(story)["lost"] > before["lost"] + 50)
    answered = {name: story.answers(name) for name in web}
    until("production answers as before", lambda: all(story.answers(name) > n + 20 for name, n in answered.items()))
    lab.crew.machines.boot(host)
    arrived = {name: story.arrivals(name) for name in answered}
    until("requests arrive again", lambda: all(story.arrivals(name) > n + 20 for name, n in arrived.items()), SECONDS)
    back = time.time()
    lost, after = story.missing(), _replays(story)
    assert 0 < len(lost) <= after["lost"] - before["lost"], story.ledgers()
    # Requests that were under way when it died, and those that waited for it until they were too old.
    story.excuses.append(Window(died - 1, back))
    assert story.missing() == []
    assert _balanced(story)


def _replays(story: Story) -> dict[str, int]:
    """Of all workers that live: requests replayed, and those failed or dropped."""
    parts = [part for ledger in story.ledgers().values() for part in ledger["destinations"].values()]
    lost = sum(sum(part["failed"].values()) + sum(part["dropped"].values()) for part in parts)
    failed = sum(sum(part["failed"].values()) for part in parts)
    in_flight = sum(part["in_flight"] for part in parts)
    return {"failed": failed, "in_flight": in_flight, "lost": lost}


def _balanced(story: Story) -> bool:
    machines = story.lab.crew.machines
    return all(machines.status(name)["balanced"] for name in story.ledgers())


# Workers


def test_a_worker_is_killed_and_its_flows_move(story: Story, lab: Lab) -> None:
    story.production(2)
    dead, other = story.fleet(2)
    sent, received = story.forwarded(dead), story.ledgers()[dead]["datagrams"]
    died = time.time()
    lab.crew.machines.kill(dead)
    until("the load balancer finds it dead", lambda: story.health(dead) != "healthy", 20)
    found = time.time()
    moved = total(lab.balancer.counts).forwarded
    until("all goes to the other", lambda: total(lab.balancer.counts).forwarded > moved + 100)
    in_vain = story.forwarded(dead) - sent
    missing = story.missing()
    assert 0 < len(missing) <= in_vain + max(0, sent - received)
    # Only what was under way at its death, or was sent before the load balancer knew of it.
    story.excuses.append(Window(died - 1, found + 1))
    assert story.missing() == []
    assert story.forwarded(dead) - sent == in_vain
    assert dead not in story.workers(2)  # the group has replaced it
    assert other in story.workers(2)
    assert story.missing() == []


def test_a_worker_leaves_by_scale_in(story: Story, lab: Lab) -> None:
    story.production(2)
    three = story.fleet(3)
    story.drain_for(60)  # 6 s here: enough to be seen on a busy machine
    before = _all_given_up(story)
    lab.scale(lab.stack.resources["WorkerGroup"], 2)
    [leaving] = until("one is draining", lambda: [one for one in three if story.health(one) == "draining"])
    sent = story.forwarded(leaving)
    until("it still gets what its flows bring", lambda: story.forwarded(leaving) > sent + 50)
    assert story.health(leaving) == "draining"
    moved = time.time()
    while story.health(leaving):
        moved = time.time()
    until("it has ended", lambda: lab.instance(leaving)["State"]["Name"] == "terminated")
    last, missing = story.forwarded(leaving), story.missing()
    log = lab.crew.machines.log(leaving).read_text()
    assert "balanced: nothing is unaccounted for" in log
    # A request in one packet never straddles the move; one that does is given up by either worker, and counted.
    assert not [name for name in missing if name.startswith("GET ")], missing
    straddling = [name for name, its in story.times(missing).items() if its.since < moved + 1 and its.until > moved]
    assert sorted(straddling) == sorted(missing)
    assert len(missing) <= _all_given_up(story) - before + _given_up(log)
    story.forgiven |= set(missing)
    assert story.forwarded(leaving) == last
    assert set(story.workers(2)) == set(three) - {leaving}
    story.drain_for(30)


def _all_given_up(story: Story) -> int:
    """Requests, by all workers that live."""
    return sum(sum(ledger["given_up"].values()) for ledger in story.ledgers().values())


def _given_up(log: str) -> int:
    """Requests, by the accounting that a worker prints at its end."""
    lines = [line.split() for line in log.splitlines() if line.strip().startswith("given up ")]
    return sum(int(line[-1].replace(",", "")) for line in lines)


# The end


def test_the_stack_is_deleted_and_no_session_is_left(story: Story, lab: Lab) -> None:
    web = story.production(2)
    assert story.missing() == []
    assert story.times(story.ever_missing()) == {}
    for name in web:
        lab.traffic.stop(name)
    until("all that was sent to workers has arrived", lambda: _all_arrived(story))
    assert _balanced(story)
    for name in web:
        lab.traffic.start(name, lab.address(name), MIX)
    lab.stack.delete()
    assert lab.sessions() == []
    until("nothing is mirrored any more", lambda: not any(story.mirrored([name]) for name in web), SECONDS)
    answered = {name: story.answers(name) for name in web}
    packets = lab.fabric.counters().packets
    until("production goes on", lambda: all(story.answers(name) > n + 20 for name, n in answered.items()))
    assert lab.fabric.counters().packets == packets
    until("no worker is left", lambda: lab.crew.machines.workers() == [], 20)
    _conserved(story)
    assert story.times(story.ever_missing()) == {}


def _all_arrived(story: Story) -> bool:
    status = story.lab.crew.machines.status
    return all(status(name)["arrived"] == story.forwarded(name) for name in story.workers(2))


def _conserved(story: Story) -> None:
    """Nothing is mirrored any more: from the kernel to the load balancer nothing was lost that is not counted."""
    counters, count = story.lab.fabric.counters(), total(story.lab.balancer.counts)
    assert (counters.unsent, counters.dropped) == (0, 0)
    assert counters.packets == count.received + count.drops
    assert count.received == count.forwarded + sum(count.refused.values())
