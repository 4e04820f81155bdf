from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.providers.direct.unpack import PIECE, PackingError, Unpacker, unpacker_for


def raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def unpacked(unpacker: Unpacker, *pieces: bytes) -> bytes:
    out = b""
    for piece in pieces:
        unpacker.take(piece)
        while data := unpacker.step():
            assert len(data) <= PIECE
            out += data
    return out


@settings(deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 3000), st.sampled_from(["gzip", "zlib", "raw"]))
def test_bytes_come_out_as_they_went_in_however_they_are_cut(data: bytes, cut: int, kind: str) -> None:
    packed = gzip.compress(data) if kind == "gzip" else zlib.compress(data) if kind == "zlib" else raw(data)
    unpacker = Unpacker(b"gzip" if kind == "gzip" else b"deflate")
    assert unpacked(unpacker, packed[:cut], packed[cut:]) == data
    assert unpacker.whole


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
@settings(deadline=None)
@given(st.binary(min_size=1, max_size=2000), st.data())
def test_no_part_is_whole(data: bytes, draw: st.DataObject) -> None:
    packed = gzip.compress(data)
    unpacker = Unpacker(b"gzip")
    unpacked(unpacker, packed[: draw.draw(st.integers(1, len(packed) - 1))])
    assert not unpacker.whole


def test_parts_that_follow_one_another_are_one_body() -> None:
    assert unpacked(Unpacker(b"gzip"), gzip.compress(b"one, ") + gzip.compress(b"two")) == b"one, two"


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 1])
def test_a_body_of_many_steps_is_whole_at_its_end(size: int) -> None:
    unpacker = Unpacker(b"gzip")
    assert unpacked(unpacker, gzip.compress(b"0" * size)) == b"0" * size
    assert unpacker.whole


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
def test_what_can_be_unpacked_is_not_held_back_until_more_comes() -> None:
    packed = gzip.compress(b"0" * 3 * PIECE)
    for end in range(len(packed)):
        known = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(packed[:end])
        assert len(unpacked(Unpacker(b"gzip"), packed[:end])) == len(known)


@pytest.mark.parametrize("encoding", [b"", b"identity", b"Identity"])
def test_a_body_that_is_not_packed_needs_no_unpacker(encoding: bytes) -> None:
    assert unpacker_for(encoding) is None


@pytest.mark.parametrize("encoding", [b"GZIP", b"x-gzip", b"deflate"])
def test_the_encodings_that_are_asked_for_are_known(encoding: bytes) -> None:
    unpacker = unpacker_for(encoding)
    assert unpacker is not None
    assert unpacked(unpacker, b"") == b""


@pytest.mark.parametrize("encoding", [b"br", b"gzip, gzip", b"zstd"])
def test_another_encoding_is_refused_by_name(encoding: bytes) -> None:
    unpacker = unpacker_for(encoding)
    assert unpacker is not None
    unpacker.take(b"data")
    with pytest.raises(PackingError, match=f"{encoding.decode()}.*not asked for"):
        unpacker.step()


def test_what_is_not_packed_is_refused() -> None:
    unpacker = Unpacker(b"gzip")
    unpacker.take(b"no gzip at all")
    with pytest.raises(PackingError, match="not gzip"):
        unpacker.step()
