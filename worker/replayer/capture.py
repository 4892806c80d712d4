"""Capture files as frames in their order: pcap and pcapng, each also gzipped.

Scapy reads the formats. It takes a file that is cut, or whose records contradict themselves, for one that simply ends;
so this module looks ahead at every record's start and counts what is read: the end of the file is clean only between
two records. The readable frames always come out first, then one CaptureError tells where the reading stopped.
"""

import heapq
import logging
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

_GZIP = b"\x1f\x8b"
_GZIP_FORMAT = 31  # zlib's number: the largest window, a gzip header, its checksum verified
_GZIP_PIECE = 1024
_SECTION = b"\n\r\r\n"
_MAGICS = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1", _SECTION)
_LARGEST_FRAME = 262_140  # four times 65,535: what scapy reads at once; libpcap's own limit is 262,144
_LARGEST_BLOCK = 16 << 20  # of a pcapng file, with options and decryption secrets
_PACKET_BLOCKS = (2, 3, 6)  # obsolete, simple, enhanced


class CaptureError(Exception):
    """A capture file that cannot be read, or not to its end (`damaged`: something in it was readable)."""

    def __init__(self, path: str, what: str, *, damaged: bool) -> None:
        super().__init__(f"{path}: {what}")
        self.path = path
        self.damaged = damaged


@dataclass(slots=True)
class Frame:
    """One captured frame. `link_type` is a LINKTYPE number, `at` seconds since 1970."""

    at: float
    link_type: int
    data: bytes


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


type Opener = Callable[[str], _Readable]


class _Damage(Exception):
    """What is wrong with the record at hand."""


class _File:
    """What scapy reads from: knows its place, looks ahead, and says why a read came back short."""

    def __init__(self, raw: _Readable, ahead: bytes = b"") -> None:
        self._raw = raw
        self._ahead = ahead
        self.position = 0
        self.fault = ""

    def peek(self, size: int) -> bytes:
        if len(self._ahead) < size:
            self._ahead += self._take(size - len(self._ahead))
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        data, self._ahead = self._ahead[:size], self._ahead[size:]
        if len(data) < size:
            data += self._take(size - len(data))
            self.fault = self.fault or ("the file ends inside it" if len(data) < size else "")
        self.position += len(data)
        return data

    def close(self) -> None:
        self._raw.close()

    def _take(self, size: int) -> bytes:
        try:
            return self._raw.read(size)
        except (OSError, EOFError, zlib.error) as error:
            self.fault = self.fault or f"reading failed: {error}"
            return b""


class _Gunzip:
    """A gzip stream, inflated in small pieces: all that lies before a damaged place still comes out."""

    def __init__(self, raw: _Readable, ahead: bytes) -> None:
        self._raw = raw
        self._inflater = zlib.decompressobj(_GZIP_FORMAT)
        self._rest = ahead  # compressed bytes that were read already
        self._held = bytearray()
        self._ended = False

    def read(self, size: int) -> bytes:
        while len(self._held) < size and not self._ended:
            try:
                self._inflate()
            except (OSError, EOFError, zlib.error):
                if not self._held:
                    raise
                break  # the next read raises it again
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def close(self) -> None:
        self._raw.close()

    def _inflate(self) -> None:
        piece = self._rest or self._raw.read(_GZIP_PIECE)
        self._rest = b""
        if self._inflater.eof:
            piece = piece.lstrip(b"\0")  # padding between members, as tapes have it
            self._ended = not piece
            self._inflater = zlib.decompressobj(_GZIP_FORMAT) if piece else self._inflater
        elif not piece:
            raise EOFError("the gzip stream is cut")
        if piece:
            self._held += self._inflater.decompress(piece)
            self._rest = self._inflater.unused_data


def plain(path: str) -> _Readable:
    """Open a file. Whoever wants to see how far the reading got passes another opener."""
    return open(path, "rb")


def read(path: str, opener: Opener = plain) -> Iterator[Frame]:
    """The frames of one file, as it has them. Raises CaptureError at once, or after the last readable frame."""
    file = _open(path, opener)
    try:
        magic = file.peek(4)
        if magic not in _MAGICS:
            unreadable = file.fault or ("the file is empty" if not magic else "this is no pcap or pcapng file")
            raise CaptureError(path, unreadable, damaged=bool(file.fault))
        yield from _frames(path, file)
    finally:
        file.close()


def read_all(paths: Sequence[str], damaged: list[CaptureError], opener: Opener = plain) -> Iterator[Frame]:
    """The frames of all files, merged by time. A file that ends in damage is put into `damaged`, the others go on.

    So the parts of a rotated capture continue each other's connections, and captures of several interfaces line up.
    """
    return heapq.merge(*(_to_damage(path, damaged, opener) for path in paths), key=lambda frame: frame.at)


def _to_damage(path: str, damaged: list[CaptureError], opener: Opener) -> Iterator[Frame]:
    try:
        yield from read(path, opener)
    except CaptureError as error:
        if not error.damaged:
            raise
        damaged.append(error)


def _open(path: str, opener: Opener) -> _File:
    try:
        raw = opener(path)
        first = raw.read(2)
    except OSError as error:
        raise CaptureError(path, f"{error.strerror}: name a pcap or pcapng file, also gzipped", damaged=False) from None
    return _File(_Gunzip(raw, first)) if first == _GZIP else _File(raw, first)


def _frames(path: str, file: _File) -> Iterator[Frame]:
    number, start = 0, 0
    try:
        reader = _reader(file)
        frames = _pcapng(reader, file) if hasattr(reader, "interfaces") else _pcap(reader, file)
        start = file.position
        for frame in frames:
            number, start = number + 1, file.position
            yield frame
        if file.fault:
            raise _Damage(file.fault)
    except _Damage as damage:
        place = f"frame {number + 1}, byte {start}" if start else "file header"
        what = f"damaged or cut at {place}: {damage}; {number} frames before it were read"
        raise CaptureError(path, what, damaged=True) from None


def _reader(file: _File) -> Any:
    """Scapy's reader past the file's header."""
    logging.getLogger("scapy").setLevel(logging.CRITICAL)  # it warns of what is told here
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapNgReader, RawPcapReader

    try:
        kind: Any = RawPcapNgReader if file.peek(4) == _SECTION else RawPcapReader
        return kind(file)
    except (Scapy_Exception, struct.error) as error:
        raise _Damage(file.fault or str(error)) from None


def _pcap(reader: Any, file: _File) -> Iterator[Frame]:
    second = 1e9 if reader.nano else 1e6
    link_type = reader.linktype & 0xFFFF  # above it: length of the frame check sequence
    while header := file.peek(16):
        if len(header) == 16:
            (length,) = struct.unpack_from(reader.endian + "8xI", header)
            if length > _LARGEST_FRAME:
                raise _Damage(f"it claims a frame of {length} bytes")
        data, record = _next(reader._read_packet, file, _LARGEST_FRAME)
        yield Frame(record.sec + record.usec / second, link_type, data)


def _pcapng(reader: Any, file: _File) -> Iterator[Frame]:
    at = 0.0
    while header := file.peek(28):
        if header.startswith(_SECTION):
            reader.interfaces.clear()  # each section counts its own
        elif len(header) >= 12:
            _check_block(reader.endian, header)
        found = _next(reader._read_block, file, _LARGEST_FRAME)
        if found is not None:
            data, record = found
            if record.tshigh is not None:  # a simple packet block has no time: that of the packet before it
                at = ((record.tshigh << 32) | record.tslow) / record.tsresol
            yield Frame(at, record.linktype, data)
        elif _kind(reader.endian, header) in _PACKET_BLOCKS:
            raise _Damage("it names an interface that the file does not describe")


def _kind(endian: str, header: bytes) -> int:
    return int(struct.unpack_from(endian + "I", header)[0])


def _check_block(endian: str, header: bytes) -> None:
    """Refuse a pcapng block whose lengths contradict each other."""
    kind, length = struct.unpack_from(endian + "II", header)
    if not 12 <= length <= _LARGEST_BLOCK or length % 4:
        raise _Damage(f"it claims a block of {length} bytes")
    if kind == 6 and len(header) == 28:
        (captured,) = struct.unpack_from(endian + "20xI", header)
        if captured > min(length - 32, _LARGEST_FRAME):
            raise _Damage(f"it claims a frame of {captured} bytes in a block of {length}")


def _next(take: Any, file: _File, size: int) -> Any:
    """Scapy's next record; whatever cuts it short is damage."""
    from scapy.error import Scapy_Exception

    try:
        found = take(size=size)
    except (EOFError, Scapy_Exception, struct.error, IndexError) as error:
        raise _Damage(file.fault or str(error) or "its lengths contradict each other") from None
    if file.fault:
        raise _Damage(file.fault)
    return found
