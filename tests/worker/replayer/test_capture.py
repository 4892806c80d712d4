"""Capture files: every format that scapy and the real tools write, whole and damaged."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.utils import PcapNgWriter, RawPcapWriter

from replayer.capture import CaptureError, Frame, read, read_all

CAPTURES = Path(__file__).parents[2] / "captures"
FRAMES = [bytes(Ether(type=0x88B5) / Raw(bytes([number]) * (46 + number))) for number in range(5)]
TIMES = [1_700_000_000.25, 1_700_000_000.5, 1_700_000_001.0, 1_700_000_001.5, 1_700_000_002.125]


def write_pcap(path: Path, *, endianness: str = "<", nano: bool = False, link_type: int = 1) -> bytes:
    writer = RawPcapWriter(str(path), linktype=link_type, endianness=endianness, nano=nano)
    write_all(writer, 1_000_000_000 if nano else 1_000_000)
    return path.read_bytes()


def write_all(writer: RawPcapWriter, second: int) -> None:
    writer.write_header(None)
    for at, data in zip(TIMES, FRAMES, strict=True):
        writer.write_packet(data, sec=int(at), usec=int(at % 1 * second))
    writer.close()


def write_pcapng(path: Path) -> bytes:
    with PcapNgWriter(str(path)) as writer:
        for at, data in zip(TIMES, FRAMES, strict=True):
            packet = Ether(data)
            packet.time = at
            writer.write(packet)
    return path.read_bytes()


def readable(path: Path) -> tuple[list[Frame], CaptureError | None]:
    """All that comes out of a file, and the error at its end."""
    frames = []
    try:
        for frame in read(str(path)):
            frames.append(frame)  # noqa: PERF402 - what came before the error counts
    except CaptureError as error:
        return frames, error
    return frames, None


@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("nano", [False, True])
def test_pcap_in_both_byte_orders_and_clocks(tmp_path: Path, endianness: str, nano: bool) -> None:
    write_pcap(tmp_path / "a.pcap", endianness=endianness, nano=nano, link_type=113)
    assert readable(tmp_path / "a.pcap") == (
        [Frame(at, 113, data) for at, data in zip(TIMES, FRAMES, strict=True)],
        None,
    )


def test_pcapng(tmp_path: Path) -> None:
    write_pcapng(tmp_path / "a.pcapng")
    assert readable(tmp_path / "a.pcapng") == (
        [Frame(at, 1, data) for at, data in zip(TIMES, FRAMES, strict=True)],
        None,
    )


@pytest.mark.parametrize("write", [write_pcap, write_pcapng])
def test_gzip_of_several_members_and_padding(tmp_path: Path, write: Callable[[Path], bytes]) -> None:
    plain = write(tmp_path / "plain")
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(plain[:77]) + gzip.compress(plain[77:]) + b"\0" * 512)
    assert readable(packed) == readable(tmp_path / "plain")


def test_frame_check_sequence_bits_are_no_part_of_the_link_type(tmp_path: Path) -> None:
    data = bytearray(write_pcap(tmp_path / "a.pcap"))
    data[23] = 0x24  # FCS of 4 bytes follows each frame
    (tmp_path / "a.pcap").write_bytes(data)
    assert {frame.link_type for frame in readable(tmp_path / "a.pcap")[0]} == {1}


def test_largest_frame_is_whole(tmp_path: Path) -> None:
    frame = bytes(65_549)  # a GSO super-packet with its Ethernet header, longer than scapy reads by itself
    writer = RawPcapWriter(str(tmp_path / "a.pcap"), linktype=1)
    writer.write_header(None)
    writer.write_packet(frame, sec=1, usec=0)
    writer.close()
    assert [len(found.data) for found in read(str(tmp_path / "a.pcap"))] == [65_549]


# What real tools wrote: tests/captures/README.md.


@pytest.mark.parametrize(
    ("name", "link_types", "count"),
    [
        ("ethernet.pcap", {1}, 83),
        ("nanosecond.pcap", {1}, 83),
        ("cooked1.pcap", {113}, 77),
        ("cooked2.pcap", {276}, 77),
        ("rawip.pcapng", {101}, 83),
        ("interfaces.pcapng.gz", {1, 113}, 160),
        ("mirrored.pcap.gz", {1}, 57),
    ],
)
def test_files_of_tcpdump_editcap_and_mergecap(name: str, link_types: set[int], count: int) -> None:
    frames, error = readable(CAPTURES / name)
    assert error is None
    assert {frame.link_type for frame in frames} == link_types
    assert len(frames) == count
    assert all(1_795_415_080 <= frame.at < 1_795_415_082 for frame in frames)


def test_each_interface_has_its_own_clock() -> None:
    of_link_type: dict[int, list[float]] = {1: [], 113: []}
    for frame in read(str(CAPTURES / "interfaces.pcapng.gz")):
        of_link_type[frame.link_type].append(frame.at)
    alone = [frame.at for frame in read(str(CAPTURES / "nanosecond.pcap"))]
    assert of_link_type[1] == alone  # in nanoseconds
    assert of_link_type[113] == [frame.at for frame in read(str(CAPTURES / "cooked1.pcap"))]  # in microseconds


def test_each_section_counts_its_own_interfaces(tmp_path: Path) -> None:
    both = tmp_path / "both.pcapng"
    both.write_bytes(gzip.decompress((CAPTURES / "interfaces.pcapng.gz").read_bytes()) + write_pcapng(tmp_path / "one"))
    frames, error = readable(both)
    assert error is None
    assert frames[0].link_type == 113  # the first interface of the first section
    assert [frame.link_type for frame in frames[160:]] == [1] * 5  # the first interface of the second


def test_simple_packet_block_has_the_time_before_it(tmp_path: Path) -> None:
    data = write_pcapng(tmp_path / "a.pcapng")
    simple = struct.pack("<IIIII", 3, 20, 4, 0x01020304, 20)  # no writer writes these: type, length, 4 bytes, length
    (tmp_path / "a.pcapng").write_bytes(data + simple)
    frames, error = readable(tmp_path / "a.pcapng")
    assert error is None
    assert frames[-1] == Frame(TIMES[-1], 1, b"\x04\x03\x02\x01")


# Damage: what is readable comes out, then one error says where.


@pytest.mark.parametrize("write", [write_pcap, write_pcapng])
def test_cut_anywhere_is_noticed_unless_between_two_frames(tmp_path: Path, write: Callable[[Path], bytes]) -> None:
    data = write(tmp_path / "whole")
    whole, _ = readable(tmp_path / "whole")
    clean = 0
    for end in range(4, len(data)):
        (tmp_path / "cut").write_bytes(data[:end])
        frames, error = readable(tmp_path / "cut")
        assert frames == whole[: len(frames)]
        if error is None:
            clean += 1
        else:
            assert error.damaged
            assert f"; {len(frames)} frames before it were read" in str(error)
    assert clean in (
        len(FRAMES),
        len(FRAMES) + 1,
    )  # behind the header, between frames; a pcapng also behind its interface


def test_cut_names_the_frame_and_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(write_pcap(path)[: 24 + 16 + 60 + 16 + 61 + 7])
    _, error = readable(path)
    assert str(error) == (
        f"{path}: damaged or cut at frame 3, byte 177: the file ends inside it; 2 frames before it were read"
    )


@given(end=st.integers(2, 9000))
def test_cut_gzip_yields_what_is_readable(end: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "cut.gz"
    packed = (CAPTURES / "mirrored.pcap.gz").read_bytes()
    path.write_bytes(packed[: min(end, len(packed) - 1)])
    frames, error = readable(path)
    assert frames == list(read(str(CAPTURES / "mirrored.pcap.gz")))[: len(frames)]
    assert error is not None
    assert error.damaged


def test_damage_in_the_middle_of_a_gzip_loses_little_before_it(tmp_path: Path) -> None:
    noise = bytes(range(256)) * 4  # does not deflate away: 400 frames, far more than one piece
    writer = RawPcapWriter(str(tmp_path / "a.pcap"), linktype=1)
    writer.write_header(None)
    for number in range(400):
        writer.write_packet(number.to_bytes(2) * 30 + noise[number % 256 :][:500], sec=1, usec=number)
    writer.close()
    packed = bytearray(gzip.compress((tmp_path / "a.pcap").read_bytes()))
    middle = len(packed) // 2
    packed[middle : middle + 64] = b"\xff" * 64
    (tmp_path / "a.pcap.gz").write_bytes(packed)
    frames, error = readable(tmp_path / "a.pcap.gz")
    assert error is not None
    assert error.damaged
    assert len(frames) > 100


@given(data=st.data())
def test_damaged_bytes_end_in_an_error_or_in_frames(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a"
    whole = bytearray(data.draw(st.sampled_from([write_pcap, write_pcapng]))(path))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    frames, error = readable(path)
    assert error is None or error.damaged
    assert all(len(frame.data) <= 262_140 for frame in frames)


def test_claimed_lengths_beyond_reason_are_damage(tmp_path: Path) -> None:
    data = bytearray(write_pcap(tmp_path / "a.pcap"))
    struct.pack_into("<I", data, 24 + 8, 1 << 31)
    (tmp_path / "a.pcap").write_bytes(data)
    frames, error = readable(tmp_path / "a.pcap")
    assert frames == []
    assert "frame 1, byte 24: it claims a frame of 2147483648 bytes" in str(error)


def test_pcapng_frame_longer_than_its_block_is_damage(tmp_path: Path) -> None:
    data = bytearray(write_pcapng(tmp_path / "a.pcapng"))
    first = data.index(struct.pack("<I", 6))
    struct.pack_into("<I", data, first + 20, 1000)
    (tmp_path / "a.pcapng").write_bytes(data)
    frames, error = readable(tmp_path / "a.pcapng")
    assert frames == []
    assert "it claims a frame of 1000 bytes in a block of" in str(error)


def test_pcapng_frame_of_an_unknown_interface_is_damage(tmp_path: Path) -> None:
    data = bytearray(write_pcapng(tmp_path / "a.pcapng"))
    struct.pack_into("<I", data, data.index(struct.pack("<I", 6)) + 8, 9)
    (tmp_path / "a.pcapng").write_bytes(data)
    assert "interface that the file does not describe" in str(readable(tmp_path / "a.pcapng")[1])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"GET / HTTP/1.1\r\n", "this is no pcap or pcapng file"),
        (gzip.compress(b"GET / HTTP/1.1\r\n"), "this is no pcap or pcapng file"),
        (gzip.compress(b""), "the file is empty"),
    ],
    ids=["empty", "text", "packed text", "packed nothing"],  # gzip writes the time: no name for a test
)
def test_what_is_no_capture_is_said_at_once(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "a").write_bytes(content)
    _, error = readable(tmp_path / "a")
    assert error is not None
    assert not error.damaged
    assert str(error) == f"{tmp_path / 'a'}: {what}"


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.pcap", "No such file or directory"), (tmp_path, "Is a directory")):
        _, error = readable(path)
        assert error is not None
        assert not error.damaged
        assert str(error) == f"{path}: {why}: name a pcap or pcapng file, also gzipped"


# Several files.


def test_files_are_merged_by_time_and_damage_ends_only_its_own(tmp_path: Path) -> None:
    write_pcap(tmp_path / "whole.pcap", link_type=1)
    cut = write_pcap(tmp_path / "cut.pcap", link_type=113)
    (tmp_path / "cut.pcap").write_bytes(cut[: 24 + 16 + 60 + 16 + 61 + 16 + 5])
    damaged: list[CaptureError] = []
    frames = list(read_all([str(tmp_path / "whole.pcap"), str(tmp_path / "cut.pcap")], damaged))
    assert [(frame.at, frame.link_type) for frame in frames] == [
        (TIMES[0], 1),
        (TIMES[0], 113),
        (TIMES[1], 1),
        (TIMES[1], 113),
        (TIMES[2], 1),
        (TIMES[3], 1),
        (TIMES[4], 1),
    ]
    assert [error.path for error in damaged] == [str(tmp_path / "cut.pcap")]


def test_a_missing_file_among_several_is_said_before_any_frame(tmp_path: Path) -> None:
    write_pcap(tmp_path / "whole.pcap")
    with pytest.raises(CaptureError) as raised:
        next(read_all([str(tmp_path / "whole.pcap"), str(tmp_path / "none.pcap")], []))
    assert not raised.value.damaged
