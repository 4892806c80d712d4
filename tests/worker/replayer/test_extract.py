"""`replayer extract`: the requests of real captures, with tshark as the independent reader."""

import base64
import gzip
import hashlib
import io
import json
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import RawPcapWriter

from replayer.cli import main
from replayer.extract import Timeline
from tests.strategies import Conversation, get, post, post_head

CAPTURES = Path(__file__).parents[2] / "captures"
TARGETS = ["/ready", "/one?a=1", "/two", "/six", "/post", "/chunked"]
BODY = "247ffb2ec5b0ff28c7db200bdfbb9143395ebce1a87d0d6985f16bb54a35c7ff"
NO_BODY = hashlib.sha256(b"").hexdigest()


@dataclass
class Result:
    """What `replayer extract` printed."""

    code: int
    requests: list[dict[str, Any]]
    err: str

    @property
    def targets(self) -> list[str]:
        return [request["target"] for request in self.requests]

    def count(self, name: str) -> int:
        """The number that stands beside a name in the accounting, 0 if there is none."""
        lines = [line.rsplit(maxsplit=1) for line in self.err.splitlines()]
        found = [words[1] for words in lines if len(words) == 2 and words[0].lstrip(" =+") == name]
        return int(found[0].replace(",", "")) if found else 0


def run(*arguments: str | Path) -> Result:
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        code = main(["extract", *map(str, arguments)])
    assert "balanced: nothing is unaccounted for\n" in err.getvalue()
    return Result(code, [json.loads(line) for line in out.getvalue().splitlines()], err.getvalue())


def write(path: Path, frames: Iterable[tuple[float, bytes]]) -> Path:
    writer = RawPcapWriter(str(path), linktype=1)
    writer.write_header(None)
    for at, frame in frames:
        writer.write_packet(frame, sec=int(at), usec=round(at % 1 * 1_000_000))
    writer.close()
    return path


def every(seconds: float, frames: Sequence[bytes], start: float = 1000.0) -> list[tuple[float, bytes]]:
    return [(start + number * seconds, frame) for number, frame in enumerate(frames)]


def plain(**path: Any) -> Conversation:
    return Conversation(vni=None, **path)


def mirrored(datagram: bytes, port: int = 4789) -> bytes:
    """A mirrored datagram as it looks on the worker's own interface."""
    outer = Ether(src="02:00:00:00:00:03", dst="02:00:00:00:00:04") / IP(src="10.9.0.1", dst="10.9.0.2")
    return bytes(outer / UDP(sport=50_000, dport=port) / Raw(datagram))


# Real captures


def test_the_same_requests_as_tshark_reads() -> None:
    columns = "frame.time_epoch ip.src ipv6.src tcp.srcport http.request.method http.request.uri http.request.line"
    command = f"tshark -r {CAPTURES}/ethernet.pcap -Y http.request -T fields -E aggregator=|".split()
    command += [option for column in columns.split() for option in ("-e", column)]
    seen = []
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        time, v4, v6, port, method, target, lines = line.split("\t")
        headers = [entry.removesuffix("\\r\\n").split(": ", 1) for entry in lines.split("|")]
        seen.append((round(float(time), 6), v4 or v6, int(port), method, target, headers))
    mine = [
        tuple(request[name] for name in ("ts", "src", "src_port", "method", "target", "headers"))
        for request in run(CAPTURES / "ethernet.pcap").requests
    ]
    assert mine == seen


@pytest.mark.parametrize(
    ("name", "vni"),
    [
        ("ethernet.pcap", None),
        ("nanosecond.pcap", None),
        ("cooked1.pcap", None),
        ("rawip.pcapng", None),
        ("interfaces.pcapng.gz", None),
        ("mirrored.pcap.gz", 77),
    ],
)
def test_every_kind_of_capture_gives_the_same(name: str, vni: int | None) -> None:
    result = run(CAPTURES / name)
    assert result.code == 0
    assert result.targets == TARGETS
    assert [request["body_sha256"] for request in result.requests] == [NO_BODY] * 4 + [BODY] * 2
    assert [request["body_length"] for request in result.requests] == [0] * 4 + [6668] * 2
    assert {request["vni"] for request in result.requests} == {vni}
    assert {request["dst"] for request in result.requests} == {"10.1.0.1", "fd01::1"}
    assert {(request["dst_port"], request["version"]) for request in result.requests} == {(80, "1.1")}
    assert ["X-MiXed", "Case"] in result.requests[1]["headers"]


def test_what_tcpdump_lost_is_counted_and_its_request_not_made_up() -> None:
    result = run(CAPTURES / "cooked2.pcap")
    assert result.targets == TARGETS[:-1]
    assert (result.code, result.count("holes"), result.count("bytes lost on the way here")) == (0, 1, 5)


def test_the_same_capture_twice_is_a_duplicate() -> None:
    result = run(CAPTURES / "ethernet.pcap", CAPTURES / "cooked1.pcap")
    assert result.targets == TARGETS
    assert result.count("duplicate") == 13_968


def test_body_adds_the_body() -> None:
    requests = run(CAPTURES / "rawip.pcapng", "--body").requests
    assert [hashlib.sha256(base64.b64decode(request["body"])).hexdigest() for request in requests[-2:]] == [BODY] * 2
    assert requests[0]["body"] == ""
    assert "body" not in run(CAPTURES / "rawip.pcapng").requests[0]


# Ports and tunnels


def test_ports(tmp_path: Path) -> None:
    clients = [plain(server_port=port, client_port=port) for port in (80, 8080, 9999)]
    frames = [frame for client in clients for frame in (client.syn(), client.send(get(f"/{client.path.server_port}")))]
    path = write(tmp_path / "a.pcap", every(0.001, frames))
    assert run(path).targets == ["/80"]
    assert run(path, "--port", "8080", "--port", "9999").targets == ["/8080", "/9999"]
    assert run(path, "--port", "any").targets == ["/80", "/8080", "/9999"]


def test_any_port_recognises_http_by_content(tmp_path: Path) -> None:
    web, other = plain(server_port=8000), plain(server_port=5432, client_port=5)
    frames = [web.syn(), other.syn(), other.send(b"\x00\x00\x00\x08\x04\xd2\x16\x2f"), web.send(get("/"))]
    result = run(write(tmp_path / "a.pcap", every(0.001, frames)), "--port", "any")
    assert result.targets == ["/"]
    assert result.count("other_protocol") == 8


def test_vnis(tmp_path: Path) -> None:
    clients = [Conversation(vni=vni) for vni in (1, 2, 3)]
    frames = [
        mirrored(frame) for client in clients for frame in (client.syn(), client.send(get(f"/{client.path.vni}")))
    ]
    path = write(tmp_path / "a.pcap", every(0.001, frames))
    assert [(request["vni"], request["target"]) for request in run(path).requests] == [(1, "/1"), (2, "/2"), (3, "/3")]
    assert run(path, "--vni", "3", "--vni", "1").targets == ["/1", "/3"]


def test_geneve_is_read_unless_switched_off(tmp_path: Path) -> None:
    client = Conversation(geneve="vxlan")
    path = write(tmp_path / "a.pcap", every(0.001, [mirrored(f, 6081) for f in (client.syn(), client.send(get("/")))]))
    assert run(path).targets == ["/"]
    assert run(path, "--geneve-port", "none").targets == []


def test_another_vxlan_port(tmp_path: Path) -> None:
    client = Conversation()
    path = write(tmp_path / "a.pcap", every(0.001, [mirrored(f, 8472) for f in (client.syn(), client.send(get("/")))]))
    assert run(path).targets == []
    assert run(path, "--vxlan-port", "8472").targets == ["/"]


def test_head_bytes_beyond_ascii_keep_their_code_points(tmp_path: Path) -> None:
    client = plain()
    head = b"GET / HTTP/1.1\r\nHost: a\r\nx-ONE:  \xe4\xff \r\nX-One: 2\r\n\r\n"
    result = run(write(tmp_path / "a.pcap", every(0.001, [client.syn(), client.send(head)])))
    assert result.requests[0]["headers"] == [["Host", "a"], ["x-ONE", "äÿ"], ["X-One", "2"]]


# Capture time


def test_capture_time_gives_up_holes(tmp_path: Path) -> None:
    client = plain()
    frames = [client.syn(), client.send(post_head("/lost", 100))]
    client.lose(b"x" * 100)
    client.answered()
    late = [client.send(get("/next"))]
    client.answered()
    late.append(client.send(get("/last")))
    path = write(tmp_path / "a.pcap", every(0.001, frames) + every(5.0, late, start=1001.0))
    result = run(path)
    assert result.targets == ["/next", "/last"]
    assert result.count("holes") == 1


def test_a_cap_is_a_flag(tmp_path: Path) -> None:
    client = plain()
    path = write(tmp_path / "a.pcap", every(0.001, [client.syn(), client.send(post("/", b"x" * 200))]))
    assert run(path).targets == ["/"]
    result = run(path, "--cap-body", "199")
    assert result.targets == []
    assert result.count("body_too_large") > 0


def test_parts_of_a_rotated_capture_continue_each_other(tmp_path: Path) -> None:
    client = plain()
    frames = every(0.001, [client.syn(), *client.cut(post("/whole", b"y" * 300), 50, 100)])
    parts = [write(tmp_path / f"{number}.pcap", frames[number : number + 2]) for number in (0, 2)]
    assert run(*reversed(parts)).targets == ["/whole"]


def test_time_that_goes_back_is_tolerated_and_told_as_captured(tmp_path: Path) -> None:
    early, late = plain(client_port=1), plain(client_port=2)
    frames = [
        *every(0.001, [late.syn(), late.send(get("/2"))], start=5000.0),
        *every(0.001, [early.syn(), early.send(get("/1"))], start=1000.0),
    ]
    result = run(write(tmp_path / "a.pcap", frames))
    assert [(request["target"], request["ts"]) for request in result.requests] == [("/2", 5000.001), ("/1", 1000.001)]


def test_timeline_never_goes_back() -> None:
    timeline = Timeline()
    assert [timeline.now(at) for at in (100.0, 101.0, 100.5, 102.0)] == [100.0, 101.0, 101.0, 102.0]
    assert [timeline.now(at) for at in (10.0, 11.0, 10.5, 500.0)] == [102.0, 103.0, 103.0, 592.0]
    assert timeline.captured(592.0) == 500.0


# Damage


def test_a_cut_file_gives_what_is_readable(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes(gzip.decompress((CAPTURES / "mirrored.pcap.gz").read_bytes())[:20_000])
    result = run(cut)
    assert result.code == 3
    assert result.targets == TARGETS[:5]
    assert result.count("closed") + result.count("ended") > 0
    last = result.err.splitlines()[-1]
    assert last.startswith(f"replayer: {cut}: damaged or cut at frame ")


def test_damage_of_one_file_leaves_the_others_whole(tmp_path: Path) -> None:
    cut = tmp_path / "cut.pcap"
    cut.write_bytes((CAPTURES / "cooked1.pcap").read_bytes()[:100])
    result = run(cut, CAPTURES / "mirrored.pcap.gz")
    assert result.code == 3
    assert result.targets == TARGETS


def test_a_capture_of_an_unread_kind_is_counted(tmp_path: Path) -> None:
    data = bytearray((CAPTURES / "ethernet.pcap").read_bytes())
    data[20] = 105  # IEEE 802.11
    (tmp_path / "a.pcap").write_bytes(data)
    result = run(tmp_path / "a.pcap")
    assert (result.code, result.requests, result.count("link_type")) == (0, [], 83)
