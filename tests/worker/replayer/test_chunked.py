"""The chunked coding: whole, byte by byte, with data behind it, damaged; the standard library is the oracle."""

import io
from http.client import HTTPException, HTTPResponse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayer.chunked import Chunked
from tests.strategies import chunk, examples


def decoded(coded: bytes, step: int = 1 << 20, trailers: int = 1_000) -> tuple[Chunked, int]:
    """The decoder after `coded` in pieces of `step` bytes, and how much of it was the body."""
    coding = Chunked(trailers)
    took = 0
    for at in range(0, len(coded), step):
        piece = coded[at : at + step]
        end = coding.receive(piece, 0)
        took += end
        if end < len(piece) or coding.done or coding.bad:
            break
    return coding, took


class Answer(io.BytesIO):
    """A socket that holds one answer."""

    def makefile(self, *_: Any) -> "Answer":
        """Itself: it is a file already."""
        return self


def library(coded: bytes) -> bytes:
    """What `http.client` makes of a chunked body."""
    response = HTTPResponse(Answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + coded))  # type: ignore[arg-type]
    response.begin()
    return response.read()


bodies = st.lists(
    st.binary(min_size=1, max_size=50) | st.sampled_from([b"0\r\n\r\n", b"\r\n", b"5\r\nhello"]), max_size=6
)


@examples(100)
@given(bodies, st.sampled_from([b"", b";a", b';a="b c"', b" ; a=b"]), st.integers(1, 9), st.binary(max_size=9))
def test_any_body_cut_anywhere(pieces: list[bytes], extension: bytes, step: int, behind: bytes) -> None:
    coded = b"".join(chunk(piece, extension) for piece in pieces) + b"0\r\n\r\n"
    for size in (step, len(coded + behind)):
        coding, took = decoded(coded + behind, size)
        assert coding.done
        assert not coding.bad
        assert bytes(coding.body or b"") == b"".join(pieces)
        assert coding.length == len(b"".join(pieces))
        assert took == len(coded)
    assert library(coded) == b"".join(pieces)


@examples(200)
@given(bodies, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3))
def test_a_damaged_body_is_never_complete_with_other_bytes_than_the_library_reads(
    pieces: list[bytes], at: int, put: bytes, gone: int
) -> None:
    coded = b"".join(chunk(piece) for piece in pieces) + b"0\r\n\r\n"
    at %= len(coded)
    spoiled = coded[:at] + put + coded[at + gone :]
    whole, _ = decoded(spoiled)
    single, _ = decoded(spoiled, 1)
    assert (whole.done, whole.bad, whole.body) == (single.done, single.bad, single.body)
    if whole.done:
        try:
            assert library(spoiled) == bytes(whole.body or b"")
        except (HTTPException, ValueError) as error:
            pytest.fail(f"taken for whole, but {error!r}")


@pytest.mark.parametrize("step", [1, 2, 3, 1_000])
@pytest.mark.parametrize(
    ("coded", "body", "trailers"),
    [
        (b"0\r\n\r\n", b"", b""),
        (b"000\r\n\r\n", b"", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"00000005\r\nhello\r\n0\r\n\r\n", b"hello", b""),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2, b""),
        (b"3;n=v\r\nabc\r\n0;last\r\n\r\n", b"abc", b""),
        (b'3;n="a;b"\r\nabc\r\n0\r\n\r\n', b"abc", b""),
        (b"1\r\nx\r\n0\r\nA: 1\r\nB:2\r\n\r\n", b"x", b"A: 1\r\nB:2\r\n"),
        (b"6\r\n0\r\n\r\n0\r\n0\r\n\r\n", b"0\r\n\r\n0", b""),
    ],
)
def test_good_codings(coded: bytes, body: bytes, trailers: bytes, step: int) -> None:
    coding, took = decoded(coded + b"GET /", step)
    assert (coding.done, coding.bad, took) == (True, False, len(coded))
    assert bytes(coding.body or b"") == body
    assert coding.trailers == trailers


@pytest.mark.parametrize("step", [1, 2, 1_000])
@pytest.mark.parametrize(
    "coded",
    [
        b"g\r\n", b"-1\r\n", b"+1\r\n", b"0x1\r\n", b"\r\n", b"1\n", b"1\r1", b"1 1\r\n", b"1_1\r\n", b"1,\r\n",
        b"10000000000000000\r\n", b"2\r\nabc\r\n", b"2\r\nab\n0\r\n\r\n", b"2\r\nab0\r\n\r\n", b"2\r\nab\r0\r\n\r\n",
        b"0\r\nno colon\r\n\r\n", b"0\r\nA : 1\r\n\r\n", b"0\r\n: 1\r\n\r\n", b"0\r\nA: 1\n\r\n",
        b"0\r\nA: 1\r\n B\r\n\r\n",
        b"1;a\0\r\nx\r\n", b"1;a\rb\r\nx\r\n", b"0\r\nA: \0\r\n\r\n", b"0\r\nA: a\rb\r\n\r\n", b"0\n\n",
    ],
)  # fmt: skip
def test_bad_codings(coded: bytes, step: int) -> None:
    coding, _ = decoded(coded + b"more, and more, and more\r\n\r\n", step)
    assert coding.bad
    assert not coding.done


def test_trailers_are_bounded() -> None:
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(100))
    assert decoded(b"0\r\n" + lines + b"\r\n", trailers=len(lines))[0].done
    assert decoded(b"0\r\n" + lines + b"\r\n", trailers=len(lines) - 1)[0].bad


@pytest.mark.parametrize("begin", [b"1;", b"0\r\nX: ", b"0\r\nX", b"0" * 10])
def test_a_line_without_an_end_is_bad_before_it_is_large(begin: bytes) -> None:
    coding, took = decoded(begin + b"0" * 100_000, 1_000)
    assert coding.bad
    assert took < 10_000


def test_discarded_bytes_are_counted_and_not_kept() -> None:
    coding = Chunked(100)
    coding.receive(b"5\r\nhel", 0)
    assert coding.announced == 5
    coding.discard()
    coding.receive(b"lo\r\n3\r\nabc\r\n0\r\n\r\n", 0)
    assert coding.done
    assert coding.length == 8
    assert coding.body is None


def test_a_hole_within_one_chunk_is_skipped_by_its_length() -> None:
    coding = Chunked(100)
    coding.receive(b"a\r\n01", 0)
    assert coding.skip(5)
    assert coding.receive(b"789\r\n0\r\n\r\nGET", 0) == 10
    assert coding.done
    assert coding.length == 10


@pytest.mark.parametrize(
    ("before", "lost"), [(b"a\r\n01", 9), (b"a\r", 1), (b"", 1), (b"a\r\n0123456789", 1), (b"0\r\n", 2)]
)
def test_a_hole_elsewhere_cannot_be_skipped(before: bytes, lost: int) -> None:
    coding = Chunked(100)
    coding.receive(before, 0)
    assert not coding.skip(lost)
