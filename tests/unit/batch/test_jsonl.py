"""What is read of JSON Lines: every line is one row or one bad row, and costs no other."""

from __future__ import annotations

import gzip
import io
import json
import os
import threading
import tracemalloc
from typing import TYPE_CHECKING, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.patience import until

from llm.batch.jsonl import count_rows, read_rows, rows_in
from llm.batch.lines import MAX_ROW_BYTES, read_line, write_line
from llm.batch.values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row
from llm.core.exceptions import LLMConfigurationError
from llm.utils.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path

    from llm.batch.source import Source

_BODY = {"messages": [{"role": "user", "content": "Why?"}]}


def _line(custom_id: str = "a", **changes: object) -> bytes:
    fields = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": _BODY, **changes}
    return json.dumps({name: value for name, value in fields.items() if value is not ...}, ensure_ascii=False).encode()


def _read(data: bytes, *, max_row_bytes: int = MAX_ROW_BYTES) -> list[Row | BadRow]:
    return [row for portion in rows_in(io.BytesIO(data), "f", max_row_bytes=max_row_bytes) for row in portion]


def _ids(rows: list[Row | BadRow]) -> list[str | None]:
    return [row.custom_id if isinstance(row, Row) else row.code for row in rows]


async def _all(source: Source, *, max_row_bytes: int = MAX_ROW_BYTES) -> list[Row | BadRow]:
    return [row async for portion in read_rows(source, max_row_bytes=max_row_bytes) for row in portion]


def test_a_row_has_its_place_its_line_and_its_body() -> None:
    rows = _read(_line("a") + b"\n\n" + _line("b", url=EMBEDDINGS, body={"input": "x"}) + b"\n")
    assert rows == [Row(0, "a", CHAT, _BODY, 1), Row(1, "b", EMBEDDINGS, {"input": "x"}, 3)]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"], ids=repr)
def test_only_the_newline_byte_ends_a_line(odd: str) -> None:
    body = {"messages": [{"role": "user", "content": f"a{odd}b"}]}
    written = _line("a", body=body)
    rows = _read(written + b"\n" + _line("b"))
    assert rows[0] == Row(0, "a", CHAT, body, 1)
    assert _ids(rows) == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [
        _line("a") + b"\r\n" + _line("b") + b"\r\n",
        _line("a") + b"\n" + _line("b"),
        b"\xef\xbb\xbf" + _line("a") + b"\n" + _line("b") + b"\n",
        _line("a") + b"\n\xef\xbb\xbf" + _line("b") + b"\n\xef\xbb\xbf\n",
        b"\n \t\r\n" + _line("a") + b"\n\r\n\n  " + _line("b") + b"  \n\n",
    ],
    ids=["crlf", "no last newline", "byte order mark", "files put together", "blank lines"],
)
def test_what_is_around_rows_costs_none(data: bytes) -> None:
    assert _ids(_read(data)) == ["a", "b"]


@pytest.mark.parametrize("url", [CHAT, EMBEDDINGS, RESPONSES])
def test_azures_paths_are_taken_for_openais(url: str) -> None:
    (row,) = _read(_line(url=url.removeprefix("/v1")))
    assert isinstance(row, Row)
    assert row.url == url


_BAD = [
    (b"{", "invalid_json", "no JSON"),
    (b"\x00" * 20, "invalid_json", "no JSON"),
    (b'{"custom_id":"a\x00"}', "invalid_json", "no JSON"),
    (b"[" * 5000, "invalid_json", "depth"),
    (b'{"custom_id":"a","body":{"x":1e999}}', "invalid_json", "infinity"),
    (b'{"custom_id":"\\ud83d"}', "invalid_json", "surrogate"),
    (b"\xff\xfe{}", "invalid_utf8", "save the file as UTF-8"),
    (b'{"custom_id":"\xe9"}', "invalid_utf8", "at its byte 15"),
    (b"[]", "invalid_json", "one JSON object on each line"),
    (b"\x0b", "invalid_json", "no JSON"),
    (_line(custom_id=...), "missing_custom_id", "give each row a text of its own"),  # type: ignore[arg-type]  # left out
    (_line(""), "missing_custom_id", "no custom_id"),
    (_line(custom_id=7), "invalid_custom_id", "no text"),  # type: ignore[arg-type]  # as files have it
    (_line(method=...), "invalid_method", "POST"),
    (_line(method="GET"), "invalid_method", "POST"),
    (_line(url=...), "invalid_url", CHAT),
    (_line(url="/v1/completions"), "invalid_url", EMBEDDINGS),
    (_line(url=[]), "invalid_url", RESPONSES),
    (_line(body=...), "invalid_body", "put the request there"),
    (_line(body="hello"), "invalid_body", "object"),
]


@pytest.mark.parametrize(("line", "code", "said"), _BAD, ids=[f"{code}-{at}" for at, (_, code, _) in enumerate(_BAD)])
def test_a_bad_line_is_a_bad_row_that_says_what_to_do_and_costs_no_other(line: bytes, code: str, said: str) -> None:
    before, bad, after = _read(_line("a") + b"\n\n" + line + b"\n" + _line("z"))
    assert _ids([before, after]) == ["a", "z"]
    assert isinstance(bad, BadRow)
    assert (bad.order, bad.line, bad.code) == (1, 3, code)
    assert bad.message.startswith("line 3 ")
    assert said in bad.message
    assert isinstance(after, Row)
    assert after.order == 2


def test_a_bad_row_has_its_name_where_that_can_be_read() -> None:
    (bad,) = _read(_line("a", method="GET"))
    assert bad.custom_id == "a"


def test_a_bad_rows_message_holds_nothing_of_its_values() -> None:
    for row in _read(b"\n".join(line for line, *_ in _BAD) + b'\n{"custom_id":"s3cret","method":"s3cret"}'):
        assert isinstance(row, BadRow)
        assert "hello" not in row.message
        assert "s3cret" not in row.message


def test_of_a_field_that_is_given_twice_the_last_counts() -> None:
    assert _ids(_read(b'{"custom_id":"first",' + _line("last")[1:])) == ["last"]


def test_a_number_of_any_size_is_read() -> None:
    (row,) = _read(_line(body={"seed": 10**30}))
    assert isinstance(row, Row)
    assert row.body == {"seed": 1e30}


@pytest.mark.parametrize("most", [200, 1_000_000])
def test_a_row_above_the_bound_is_a_bad_row_and_one_at_it_is_none(most: int) -> None:
    def of(size: int) -> bytes:
        fill = "x" * (size - len(_line("big", body={"x": ""})))
        return _line("big", body={"x": fill})

    rows = _read(b"\n".join([_line("a"), of(most), of(most + 1), _line("z"), of(most + 1)]), max_row_bytes=most)
    assert _ids(rows) == ["a", "big", "row_too_large", "z", "row_too_large"]
    assert isinstance(rows[2], BadRow)
    assert str(most) in rows[2].message


def test_a_row_that_is_too_large_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    with path.open("wb") as file:
        for _ in range(32):
            file.write(b"x" * 1_000_000)
        file.write(b"\n" + _line("z"))
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            rows = [row for portion in rows_in(file, "f", max_row_bytes=2_000_000) for row in portion]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert _ids(rows) == ["row_too_large", "z"]
    assert peak < 8_000_000


async def test_rows_of_50_megabytes_are_read() -> None:
    big = _line("big", body={"x": "y" * 50_000_000})
    rows = await _all(io.BytesIO(b"\n".join([_line("a"), big, _line("z")])))
    assert _ids(rows) == ["a", "big", "z"]


async def test_portions_are_of_a_few_hundred_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(_line(str(number)) + b"\n" for number in range(2000)) + b"{\n" * 2000)
    sizes = [len(portion) async for portion in read_rows(path)]
    assert sum(sizes) == 4000
    assert max(sizes) == 256


async def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes((_line("a" * 300) + b"\n") * 20_000)
    tracemalloc.start()
    try:
        async for _ in read_rows(path):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 3


@pytest.mark.parametrize("packed", [False, True])
async def test_a_path_is_read_packed_or_not(tmp_path: Path, *, packed: bool) -> None:
    path = tmp_path / "in.jsonl.gz"
    data = b"\xef\xbb\xbf" + _line("a") + b"\n\n" + _line("b")
    path.write_bytes(gzip.compress(data) if packed else data)
    for source in (path, str(path)):
        assert _ids(await _all(source)) == ["a", "b"]
    assert await count_rows(path) == 2


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_packed_data_that_are_cut_give_what_is_whole_and_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    data = gzip.compress(b"".join(_line(str(number)) + b"\n" for number in range(50_000)))
    path.write_bytes(data[: len(data) // 2])
    rows = await _all(path)
    assert isinstance(rows[-1], BadRow)
    assert rows[-1].code == "damaged_file"
    assert all(isinstance(row, Row) for row in rows[:-1])
    assert len(rows) > 1000
    assert await count_rows(path) >= len(rows) - 1


@pytest.mark.parametrize("spoilt", [slice(10, 20), slice(-8, -4)], ids=["data", "checksum"])
async def test_packed_data_that_are_damaged_are_a_bad_row(tmp_path: Path, spoilt: slice) -> None:
    path = tmp_path / "in.jsonl.gz"
    data = bytearray(gzip.compress(_line("a")))
    data[spoilt] = b"\xff" * len(data[spoilt])
    path.write_bytes(data)
    assert _ids(await _all(path))[-1] == "damaged_file"
    assert await count_rows(path) == 1


async def test_a_file_that_is_open_is_read_from_where_it_stands_and_stays_open() -> None:
    file = io.BytesIO(b"no row\n" + _line("a"))
    file.readline()
    assert _ids(await _all(file)) == ["a"]
    assert not file.closed


async def test_a_file_that_is_cut_while_it_is_read_just_ends(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes((_line("a") + b"\n") * 100_000)
    rows = 0
    async for portion in read_rows(path):
        os.truncate(path, 1000)
        rows += len(portion)
    assert 0 < rows < 100_000


async def test_rows_of_a_pipe_come_as_they_are_written_and_nobody_waits_for_those_that_never_do() -> None:
    read, write = os.pipe()
    with open(read, "rb") as pipe:  # noqa: ASYNC230, PTH123 - a pipe
        rows = read_rows(pipe)
        os.write(write, _line("a") + b"\n" + _line("b")[:10])
        assert _ids([*await anext(rows)]) == ["a"]
        clock = SystemClock()
        with pytest.raises(TimeoutError):
            async with clock.timeout(0.05):
                await anext(rows)
        await rows.aclose()
        (thread,) = [thread for thread in threading.enumerate() if thread.name == "llm-batch-reader"]
        assert thread.daemon  # or the interpreter would wait for the pipe
        os.close(write)


async def test_leaving_early_ends_the_thread_and_closes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes((_line("a") + b"\n") * 10_000)
    rows = read_rows(path)
    await anext(rows)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "llm-batch-reader"]
    await rows.aclose()
    await until(lambda: not thread.is_alive())


def _failing(error: OSError) -> BinaryIO:
    class Failing(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise error
            return super().read1(size)

    return Failing(_line("a") + b"\n")


async def test_a_disk_that_fails_is_said_after_what_was_read() -> None:
    rows = read_rows(_failing(OSError(5, "Input/output error")))
    assert _ids([*await anext(rows)]) == ["a"]
    with pytest.raises(LLMConfigurationError, match=r"the input cannot be read on: .*Input/output error"):
        await anext(rows)


async def test_a_path_that_cannot_be_read_says_why_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "utf16").write_text("{}", encoding="utf-16")
    text = io.StringIO("{}")
    for source, said in (
        (tmp_path / "none.jsonl", r"there is no file '.*none\.jsonl'; check its name"),
        (tmp_path, "is a folder; name a file in it"),
        ("a\0b", "cannot be opened"),
        (tmp_path / "utf16", "UTF-16; save it as UTF-8"),
        (text, "a StringIO; pass a path, or a file opened for bytes"),
        (7, "a int; pass a path"),
    ):
        for reading in (_all, count_rows):
            with pytest.raises(LLMConfigurationError, match=said):
                await reading(source)  # type: ignore[arg-type]  # the wrong ones too
    assert not text.closed


async def test_a_file_that_this_user_may_not_read_is_said() -> None:
    class Locked:
        def __init__(self) -> None:
            self._asked = 0

        def __fspath__(self) -> str:
            self._asked += 1
            if self._asked == 1:
                raise PermissionError(13, "Permission denied")
            return "in.jsonl"

    with pytest.raises(LLMConfigurationError, match=r"'in\.jsonl' may not be read by this user; change its"):
        await _all(Locked())


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n \n"])
async def test_the_lines_that_are_not_blank_are_counted(end: bytes) -> None:
    data = b"\n".join([_line("a"), b"", b" \t\r", b"{", _line("b" * 600_000)]) + end
    assert await count_rows(io.BytesIO(data)) == 3
    assert len(_read(data)) == 3


_ANY_LINE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [_line("a"), _line("b", method=...), b"", b"\r", b"{}", b"\xef\xbb\xbf", b"\xef\xbb\xbf" + _line()]
    ),
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ).map(lambda value: json.dumps({"custom_id": value, "method": "POST", "url": CHAT, "body": value}).encode()),
)


@settings(deadline=None)
@given(st.lists(_ANY_LINE, max_size=20), st.integers(1, 60), st.booleans())
def test_any_bytes_give_one_row_or_bad_row_for_each_line_that_is_not_blank(
    lines: list[bytes], block: int, ended: bool
) -> None:
    class Slow(io.BytesIO):
        def read1(self, size: int | None = -1, /) -> bytes:
            return super().read1(min(block, size or block))

    data = b"\n".join(lines) + b"\n" * ended
    rows = [row for portion in rows_in(Slow(data), "f", max_row_bytes=150) for row in portion]
    mark = b"\xef\xbb\xbf"
    expected = [number for number, line in enumerate(data.split(b"\n"), 1) if not _blank(line.removeprefix(mark))]
    assert [row.line for row in rows] == expected
    assert [row.order for row in rows] == list(range(len(rows)))


def _blank(line: bytes) -> bool:
    return not line.strip(b" \t\r")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None)
@given(st.text(min_size=1), st.sampled_from([CHAT, EMBEDDINGS, RESPONSES]), st.dictionaries(st.text(), _JSON))
def test_a_row_that_is_written_is_read_the_same(custom_id: str, url: str, body: dict[str, object]) -> None:
    row = Row(4, custom_id, url, body, 9)
    line = write_line(row).encode()
    assert line.count(b"\n") == 1
    assert read_line(line, 4, 9) == row


def test_a_line_is_byte_for_byte_what_python_writes_of_openais_example() -> None:
    # As in https://platform.openai.com/docs/guides/batch, written with json.dumps.
    line = (
        '{"custom_id": "request-1", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "gpt-4o-mini", '
        '"messages": [{"role": "user", "content": "Gr\\u00fc\\u00dfe"}], "max_tokens": 1000}}\n'
    )
    row = read_line(line.encode(), 0, 1)
    assert isinstance(row, Row)
    assert write_line(row) == line
