from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm.cache.packing import pack, unpack


@given(st.binary(max_size=64) | st.binary(min_size=1000, max_size=1100) | st.just(b"x" * 100_000))
def test_what_was_packed_comes_back(value: bytes) -> None:
    assert unpack(pack(value), most=100_000) == value


def test_what_is_large_takes_less_room() -> None:
    assert len(pack(b"What is Python? " * 1000)) < 1000


def test_what_cannot_be_compressed_is_kept_as_it_is() -> None:
    noise = b"".join(zlib.crc32(bytes([n % 256, n // 256])).to_bytes(4, "big") for n in range(1000))
    assert pack(noise) == b"\0" + noise


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\2abc",
        b"\0" + b"x" * 11,
        b"\1abc",
        b"\1" + zlib.compress(b"x" * 5)[:-1],
        b"\1" + zlib.compress(b"x" * 5) + b"more",
        b"\1" + zlib.compress(b"x" * 1_000_000),
    ],
)
def test_what_is_damaged_or_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="the entry"):
        unpack(data, most=10)
