"""The kernel mirrors what a plan says: packets are sent, and read where the balancer would read them."""

import json
import socket
import sys
from collections.abc import Iterator
from ipaddress import ip_network
from threading import Thread
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.vxlan import VXLAN

from lab.fabric import router
from lab.fabric.bpf import LONGEST, Program, Rule, program
from lab.fabric.router import BALANCER, CLIENT_ADDRESS, INTERNET, INTERNET_MTU, NITRO, Port
from lab.fabric.sessions import Session
from lab.fabric.taps import EARLIER, PORTS, Copied, Period, Plan, Taps, TapsError
from lab.network.namespaces import NetworkError, inside, ip, run

network = pytest.mark.network(whole=True)

ADDRESS = "10.0.0.4"
AT = Port("i-1", "eth0", "eni1", ADDRESS, "02:00:00:00:00:04")
ALL = ip_network("0.0.0.0/0")
EVERYTHING = program([Rule(True, ALL, ALL)])


def to_port(number: int) -> Program:
    return program([Rule(True, ALL, ALL, 17, None, (number, number))])


def session(name: str = "tms-1", number: int = 1, vni: int = 7, **more: Any) -> Session:
    what = {"ingress": EVERYTHING, "egress": (), **more}
    return Session(name, "eni-1", number, vni, "", "10.0.0.9", None, **what)


class Rig:
    """An instance that answers nothing, a client, and what comes out of the mirror. UDP is not acknowledged: what was
    sent before has been mirrored when the client's next datagram has arrived."""

    def __init__(self) -> None:
        router.build()
        router.connect([AT])
        self.taps = Taps(clock=iter(range(1000)).__next__)
        self.listeners: dict[int, socket.socket] = {}
        with inside("i-1"):
            self.instance = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.instance.bind((ADDRESS, 5000))
        self.instance.settimeout(5)
        with inside(INTERNET):
            self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.client.bind((CLIENT_ADDRESS, 5001))
        self.client.settimeout(5)

    def apply(self, *sessions: Session) -> Plan:
        plan = self.taps.plan(sessions, {"eni-1": AT})
        for port in plan.keys() - self.listeners.keys():
            with inside(BALANCER):
                listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            listener.bind(("", port))
            listener.setblocking(False)
            self.listeners[port] = listener  # whole: another thread may read it from now on
        self.taps.apply(plan)
        return plan

    def port(self, name: str) -> int:
        return next(port for port, tap in self.taps.current.items() if tap.session.id == name)

    def ask(self, text: str) -> None:
        self.client.sendto(text.encode(), (ADDRESS, 5000))
        assert self.instance.recv(100).decode() == text

    def answer(self, text: str) -> None:
        self.instance.sendto(text.encode(), (CLIENT_ADDRESS, 5001))
        assert self.client.recv(100).decode() == text

    def mirrored(self, port: int) -> list[tuple[VXLAN, str]]:
        """What came for a session since the last look: each packet, and its outer source."""
        packets: list[tuple[VXLAN, str]] = []
        while True:
            try:
                data, (source, _) = self.listeners[port].recvfrom(65535)
            except BlockingIOError:
                return packets
            packets.append((VXLAN(data), source))

    def said(self, port: int) -> list[str]:
        return [bytes(packet[UDP].payload).decode() for packet, _ in self.mirrored(port)]

    def close(self) -> None:
        for one in (self.instance, self.client, *self.listeners.values()):
            one.close()
        self.taps.apply({})
        router.remove([AT])


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


@network
def test_each_direction_by_its_own_rules(rig: Rig) -> None:
    rig.apply(session(ingress=EVERYTHING), session("tms-2", 2, 8, ingress=(), egress=EVERYTHING))
    rig.ask("question")
    rig.answer("answer")

    ((asked, source),) = rig.mirrored(rig.port("tms-1"))
    assert (asked.vni, asked[IP].src, asked[IP].dst, source) == (7, CLIENT_ADDRESS, ADDRESS, ADDRESS)
    assert asked.payload.dst == AT.mac
    ((answered, source),) = rig.mirrored(rig.port("tms-2"))
    assert (answered.vni, answered[IP].src, answered[IP].dst, source) == (8, ADDRESS, CLIENT_ADDRESS, ADDRESS)
    assert answered.payload.src == AT.mac


@network
def test_frames_are_as_long_as_on_the_wire(rig: Rig) -> None:
    """Both directions, far more than fits into one; but for the client's MTU they could have 9,001 bytes."""
    rig.apply(session(ingress=EVERYTHING, egress=EVERYTHING))
    with inside("i-1"):
        server = socket.create_server((ADDRESS, 80))
    with inside(INTERNET):
        caller = socket.create_connection((ADDRESS, 80))
    with server, caller, server.accept()[0] as answering:
        for here, there in ((caller, answering), (answering, caller)):
            here.sendall(b"x" * 50_000)
            left = 50_000
            while left:
                left -= len(there.recv(left))
    lengths = {packet[IP].len for packet, _ in rig.mirrored(rig.port("tms-1"))}
    assert max(lengths) == INTERNET_MTU


@network
def test_the_first_session_that_matches_mirrors_and_no_other(rig: Rig) -> None:
    """Their numbers count, not when they came. They may share a VNI."""
    behind = session("tms-2", 20)
    rig.apply(behind)
    rig.apply(behind, session("tms-1", 10, ingress=to_port(9)))
    rig.ask("a")
    assert (rig.said(rig.port("tms-1")), rig.said(rig.port("tms-2"))) == ([], ["a"])

    rig.apply(behind, session("tms-1", 10, ingress=to_port(5000)))
    rig.ask("b")
    assert (rig.said(rig.port("tms-1")), rig.said(rig.port("tms-2"))) == (["b"], [])

    rig.apply(behind, session("tms-1", 30, ingress=to_port(5000)))
    rig.ask("c")
    assert (rig.said(rig.port("tms-1")), rig.said(rig.port("tms-2"))) == ([], ["c"])


@network
def test_a_session_that_is_gone_mirrors_nothing_and_leaves_nothing(rig: Rig) -> None:
    (port,) = rig.apply(session())
    rig.apply()
    rig.ask("a")
    assert rig.said(port) == []
    assert f"vx{port}" not in run("ip", "-br", "link")
    assert ADDRESS not in run("ip", "-n", NITRO, "-br", "address")


@network
def test_a_withdrawn_interface_comes_back_as_another_device(rig: Rig) -> None:
    (port,) = rig.apply(session())
    rig.taps.withdraw({"eni-1": AT})
    rig.ask("a")
    router.remove([AT])
    router.connect([AT])
    with inside("i-1"):
        rig.instance.close()
        rig.instance = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rig.instance.bind((ADDRESS, 5000))
    rig.apply(session())
    rig.ask("b")
    assert rig.said(rig.port("tms-1")) == ["b"]
    assert rig.port("tms-1") != port
    assert rig.said(port) == []


@network
def test_changes_under_traffic_lose_nothing_and_double_nothing(rig: Rig) -> None:
    """Rules, number and VNI change; both states mirror these datagrams."""
    count = 3000
    many = [session(), session(ingress=to_port(5000)), session(number=9), session(vni=8), session(number=2, vni=9)]
    rig.apply(many[0])

    said: list[int] = []

    def send() -> None:
        for number in range(count):
            rig.ask(str(number))
            said.extend(int(text) for port in list(rig.listeners) for text in rig.said(port))

    sender = Thread(target=send)
    sender.start()
    for one in many[1:] * 3:
        rig.apply(one)
    sender.join()
    assert sorted(said) == list(range(count))
    assert rig.taps.counters().packets == count


@network
def test_counts_outlive_devices(rig: Rig) -> None:
    rig.apply(session())
    rig.ask("four")
    rig.apply(session(vni=8))  # another device
    rig.ask("fives")
    both = Copied(2, 2 * (20 + 8) + 4 + 5)
    assert rig.taps.counters().sessions == {"tms-1": both}
    rig.apply()
    rig.ask("nothing")
    counters = rig.taps.counters()
    assert (counters.sessions, counters.dropped, counters.unsent) == ({"tms-1": both}, 0, 0)


@network
def test_a_period_is_a_time_of_one_set_of_filters(rig: Rig) -> None:
    """The clock ticks at each look at it, which is at the ends of periods."""
    rig.apply(session(ingress=()))  # mirrors nothing
    rig.apply(session())
    rig.apply(session(vni=9))  # the same packets
    narrow = session(vni=9, ingress=to_port(80))
    rig.apply(narrow)
    rig.apply(narrow, session("tms-2", 2))
    rig.apply(session("tms-2", 2))
    closed = [(one.session, one.until is not None and one.since < one.until) for one in rig.taps.periods]
    assert closed == [("tms-1", True), ("tms-1", True), ("tms-2", False)]
    assert rig.taps.periods[2] == Period("tms-2", "eni-1", "i-1", rig.taps.periods[2].since)
    first, second, _ = rig.taps.periods
    assert first.until is not None and first.until < second.since


@network
def test_what_is_so_already_costs_no_process(rig: Rig) -> None:
    started: list[object] = []
    sys.addaudithook(lambda event, details: started.append(details) if event == "subprocess.Popen" else None)
    rig.apply(session())
    assert started
    started.clear()
    for _ in range(100):
        rig.apply(session())
    rig.taps.counters()
    assert started == []


@network
def test_tc_takes_the_longest_program(rig: Rig) -> None:
    reject = Rule(False, ALL, ip_network("192.0.2.1/32"), 6, (1, 2), (3, 4))
    rules = [reject] * 150
    while len(longest := program([*rules, Rule(True, ALL, ALL)])) > LONGEST - 12:
        rules.pop()
    rig.apply(session(ingress=longest, egress=longest))
    rig.ask("a")
    assert rig.said(rig.port("tms-1")) == ["a"]


# The kernel after any number of changes

programs = st.sampled_from([(), EVERYTHING, to_port(1), to_port(2)])
some = st.lists(
    st.builds(
        session,
        st.sampled_from(["tms-1", "tms-2", "tms-3"]),
        st.sampled_from([1, 2, 5]),
        st.sampled_from([7, 8]),
        ingress=programs,
        egress=programs,
    ),
    unique_by=(lambda one: one.id, lambda one: one.number),
    max_size=3,
)


def wanted(plan: Plan) -> tuple[set[object], dict[str, int]]:
    """By direction, priority, program and VXLAN device; and each device's VNI."""
    filters = {
        (way, tap.session.number, made, f"vx{port}")
        for port, tap in plan.items()
        for way, made in (("egress", tap.session.ingress), ("ingress", tap.session.egress))
        if made
    }
    return set(filters), {f"vx{port}": tap.session.vni for port, tap in plan.items()}


def kept() -> tuple[set[object], dict[str, int]]:
    """As the kernel tells it."""
    filters = {
        (way, one["pref"], _instructions(one["options"]), one["options"]["actions"][0]["to_dev"])
        for way in ("egress", "ingress")
        for one in json.loads(run("tc", "-j", "filter", "show", "dev", "eni1", way) or "[]")
        if "options" in one
    }
    links = json.loads(run("ip", "-j", "-d", "link", "show", "type", "vxlan"))
    return set(filters), {one["ifname"]: one["linkinfo"]["info_data"]["id"] for one in links}


def _instructions(options: Any) -> tuple[object, ...]:
    return tuple((one["code"], one["jt"], one["jf"], one["k"]) for one in options["bytecode"]["insns"])


@network
def test_the_kernel_is_as_the_plan_whatever_was_before(rig: Rig) -> None:
    @given(some)
    @settings(max_examples=15)
    def changed(sessions: list[Session]) -> None:
        plan = rig.apply(*sessions)
        assert kept() == wanted(plan)
        assert {one.session for one in rig.taps.periods if one.until is None} == {
            one.id for one in sessions if one.ingress or one.egress
        }

    changed()


# Ports, without a kernel


def test_a_port_is_not_used_again_soon() -> None:
    made = Taps()
    first, second = (next(iter(made.plan([session(vni=vni)], {"eni-1": AT}))) for vni in (7, 8))
    assert second == first + 1
    assert list(made.plan([session(vni=8)], {"eni-1": AT})) == [second]


def test_there_are_as_many_sessions_as_ports() -> None:
    many = [session(f"tms-{number}") for number in range(len(PORTS))]
    made = Taps()
    assert sorted(made.plan(many, {"eni-1": AT})) == list(PORTS)
    with pytest.raises(TapsError, match="delete mirror sessions"):
        made.plan([*many, session("tms-x")], {"eni-1": AT})


def test_an_interface_that_is_not_there_is_not_in_the_plan() -> None:
    assert Taps().plan([session()], {}) == {}


@network
def test_after_a_plan_that_fails_all_can_be_withdrawn(rig: Rig) -> None:
    rig.apply(session())
    plan = rig.taps.plan([session(vni=8)], {"eni-1": AT})
    (port,) = plan
    ip([f"link add vx{port} type veth"])  # whose name the device wants
    with pytest.raises(NetworkError, match=f"vx{port}"):
        rig.taps.apply(plan)
    ip([f"link delete vx{port}"])
    rig.taps.withdraw({"eni-1": AT})
    assert [one.until is None for one in rig.taps.periods] == [False]


@network
def test_the_oldest_are_forgotten_or_added_up(rig: Rig) -> None:
    rig.taps = Taps(most=2)
    lasting = session("tms-0", number=9, vni=90)
    for number in range(1, 6):
        rig.apply(lasting, session(f"tms-{number}", vni=number))
        rig.ask("x")
    rig.apply(lasting)
    assert [(one.session, one.until is None) for one in rig.taps.periods] == [("tms-0", True), ("tms-5", False)]
    assert rig.taps.forgotten == 4
    counters = rig.taps.counters()
    assert counters.packets == 5
    assert counters.sessions.keys() == {"tms-0", "tms-4", "tms-5", EARLIER}
