from __future__ import annotations

import pickle
import struct

import pytest

from llm.cache.record import decode, encode


@pytest.mark.parametrize("value", [b"", b"\x00\xff", b"x" * 5000])
def test_what_was_kept_comes_back(value: bytes) -> None:
    data, _ = encode(value, 12.5, ("model:m", "user:Straße"))
    assert decode(data, most=5000) == (value, 12.5, ("model:m", "user:Straße"))


def test_the_size_is_that_of_the_value_as_it_is_kept() -> None:
    assert encode(b"12345", 1, ())[1] == 5
    assert encode(b"x" * 5000, 1, ())[1] < 100


class _Bomb:
    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("a pickle was opened",)


def _with_tags(tags: bytes) -> bytes:
    return struct.pack(">3sdI", b"LC\1", 1.0, len(tags)) + tags + b"\0value"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"LC",
        b"LC\2" + encode(b"1", 1, ())[0][3:],
        pickle.dumps(_Bomb()),
        encode(b"1", 1, ("a",))[0][:-2],
        encode(b"x" * 5000, 1, ())[0][:-1],
        encode(b"x" * 5001, 1, ())[0],
        _with_tags(b"{}"),
        _with_tags(b"[1]"),
        _with_tags(b"[" * 100_000),
        _with_tags(b"\xff"),
    ],
    ids=str.split("empty short version pickle cut cut-zlib large no-list no-texts deep no-json"),
)
def test_what_is_foreign_or_damaged_is_a_value_error_and_runs_nothing(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(data, most=5000)
