"""Rows of tables: CSV and Parquet, by a template of a prompt."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from llm.batch.tables import count_records, read_table
from llm.batch.template import Template
from llm.batch.values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row
from llm.core.exceptions import LLMConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llm.batch.source import Source


async def _rows(source: Source | str, prompt: str = "Say: {text}", **options: Any) -> list[Row | BadRow]:  # noqa: ANN401
    given = io.BytesIO(source.encode()) if isinstance(source, str) else source
    return [row async for portion in read_table(given, prompt=prompt, **options) for row in portion]


def _asked(row: Row | BadRow) -> object:
    return row.body["messages"][-1]["content"] if isinstance(row, Row) else row.code


async def test_a_record_is_a_row() -> None:
    first, second = await _rows(
        "text,language\nHello,French\nBye,German\n",
        "Put {text} into {language}.",
        system="You know {language}.",
        model="m",
        options={"max_tokens": 9},
    )
    said = [{"role": "system", "content": "You know French."}, {"role": "user", "content": "Put Hello into French."}]
    assert first == Row(0, "row-1", CHAT, {"model": "m", "messages": said, "max_tokens": 9}, 2)
    assert isinstance(second, Row)
    assert (second.order, second.custom_id, second.line) == (1, "row-2", 3)


async def test_a_table_can_be_asked_in_any_way() -> None:
    (vectors,) = await _rows("text\nHello\n", "{text}", url=EMBEDDINGS)
    assert vectors == Row(0, "row-1", EMBEDDINGS, {"input": "Hello"}, 2)
    (response,) = await _rows("text\nHello\n", "{text}", url=RESPONSES, system="Be brief.")
    assert response == Row(0, "row-1", RESPONSES, {"instructions": "Be brief.", "input": "Hello"}, 2)


async def test_ids_come_from_a_column() -> None:
    rows = await _rows("id,text\nx-7,a\n,b\nx-8,\n", id_column="id")
    assert [row.custom_id for row in rows] == ["x-7", None, "x-8"]
    assert [_asked(row) for row in rows] == ["Say: a", "missing_custom_id", "empty_cell"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
async def test_the_delimiter_is_told_from_the_first_line(delimiter: str) -> None:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows([["a,b", "text", "c;d"], ["1", "x,y;z\tw", "2"]])
    assert [_asked(row) for row in await _rows(file.getvalue())] == ["Say: x,y;z\tw"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
async def test_quotes_newlines_marks_and_blank_lines_cost_no_row(end: str, mark: str) -> None:
    lines = [f"{mark}text,b", f'"two{end}""lines""",1', "", ",", "last\u2028one,2"]
    rows = await _rows(end.join(lines))
    assert [(row.line, _asked(row)) for row in rows] == [
        (2, f'Say: two{end}"lines"'),
        (5, "empty_cell"),
        (6, "Say: last\u2028one"),
    ]


@pytest.mark.parametrize(
    ("bad", "code", "said"),
    [
        (b"one", "wrong_cells", "it has 1 cells, and the first line has 2; make it as many"),
        (b"one,two,three", "wrong_cells", "it has 3 cells"),
        (b" ,two", "empty_cell", "the column 'text' is empty; fill it"),
        (b'"a"b,two', "invalid_csv", "double those in it"),
        (b"a\rb,two", "invalid_csv", "no CSV"),
        (b"\xff,two", "invalid_utf8", "the column 'text' is no UTF-8"),
    ],
)
async def test_a_bad_record_is_a_bad_row_and_costs_no_other(bad: bytes, code: str, said: str) -> None:
    rows = await _rows(io.BytesIO(b"text,b\na,1\n" + bad + b"\nz,2\n"))
    assert [_asked(row) for row in rows] == ["Say: a", code, "Say: z"]
    assert [(row.order, row.line) for row in rows] == [(0, 2), (1, 3), (2, 4)]
    assert isinstance(rows[1], BadRow)
    assert rows[1].message.startswith("record at line 3: ")
    assert said in rows[1].message


async def test_a_quote_that_does_not_end_is_told_at_its_line() -> None:
    rows = await _rows('text\na\n"b\nc\n')
    assert [(row.line, _asked(row)) for row in rows] == [(2, "Say: a"), (3, "invalid_csv")]


async def test_what_a_column_that_is_not_asked_holds_is_no_matter() -> None:
    rows = await _rows(io.BytesIO(b"text,b\na,\xff\nb,\n"))
    assert [_asked(row) for row in rows] == ["Say: a", "Say: b"]


@pytest.mark.no_cover  # shorter tests reach the same lines, and being measured takes as long again
async def test_cells_and_records_of_megabytes_are_read() -> None:
    rows = await _rows("text\n" + "x" * 3_000_000 + '\n"' + "y\n" * 100_000 + '"\n')
    assert [len(str(_asked(row))) for row in rows] == [3_000_005, 200_005]


async def test_a_line_above_the_bound_is_a_bad_row_and_not_held() -> None:
    rows = await _rows("text\na\n" + "x" * 5000 + "\n" + "z" * 999 + "\nlast\n" + "x" * 1000, max_row_bytes=1000)
    assert [_asked(row) for row in rows] == [
        "Say: a", "row_too_large", "Say: " + "z" * 999, "Say: last", "row_too_large",
    ]  # fmt: skip
    with pytest.raises(LLMConfigurationError, match="first line of the input is no CSV: it is longer than 1000"):
        await _rows("x" * 5000, max_row_bytes=1000)


async def test_portions_are_bounded_by_rows_and_by_size() -> None:
    small = io.BytesIO(b"text\n" + b"a\n" * 512)
    assert [len(portion) async for portion in read_table(small, prompt="{text}")] == [256, 256]
    large = io.BytesIO(b"text\n" + (b"a" * 600_000 + b"\n") * 5)
    assert [len(portion) async for portion in read_table(large, prompt="{text}")] == [2, 2, 1]


async def test_memory_does_not_grow_with_the_table() -> None:
    file = io.BytesIO(b"text\n" + (b"a" * 5000 + b"\n") * 9000)
    tracemalloc.start()
    try:
        async for _ in read_table(file, prompt="{text}"):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000  # of 45; how many portions are on the way at once is a matter of turns


async def test_an_unknown_column_is_one_error_that_lists_those_there_are() -> None:
    for arguments, said in (
        ({"prompt": "{txt}"}, "the input has no column 'txt'; its columns are 'text', 'b'"),
        ({"prompt": "{text}", "system": "{c}"}, "no column 'c'"),
        ({"prompt": "{text}", "id_column": "id"}, "no column 'id'"),
    ):
        with pytest.raises(LLMConfigurationError, match=said):
            await _rows("text,b\na,1\n", **arguments)
    with pytest.raises(LLMConfigurationError, match="2 columns 'text'"):
        await _rows("text,text\na,1\n")
    assert [_asked(row) for row in await _rows("text,b,b\na,1,1\n")] == ["Say: a"]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("", "prompt is empty"),
        ("no cell {{here}}", "prompt has no cell in it"),
        ("{text", "prompt has a lone '{' at its character 1; write {column} for a cell, and {{ for a brace"),
        ("text}", "prompt has a lone '}' at its character 5"),
        ("{}", "prompt has a lone '{'"),
        ("{{text}", "lone '}'"),
    ],
)
def test_a_template_that_is_none_is_refused_at_once(prompt: str, said: str) -> None:
    with pytest.raises(LLMConfigurationError) as caught:
        read_table("nowhere.csv", prompt=prompt)
    assert said in str(caught.value)


def test_a_way_of_asking_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(LLMConfigurationError, match="url is none of"):
        read_table("nowhere.csv", prompt="{a}", url="/v1/completions")
    with pytest.raises(LLMConfigurationError, match="system is given for embeddings"):
        read_table("nowhere.csv", prompt="{a}", system="x", url=EMBEDDINGS)


@pytest.mark.parametrize("name", ["text.__class__", "text[0]", "text!r", "text:>9", "0", ""])
async def test_a_template_reaches_cells_and_nothing_else(name: str) -> None:
    with pytest.raises(LLMConfigurationError, match=r"no column|lone"):
        await _rows("text\na\n", "{text}{" + name + "}")
    if name:
        (row,) = await _rows(f"{name}\nthe cell\n", "{" + name + "}")
        assert _asked(row) == "the cell"


async def test_what_a_cell_holds_is_no_template() -> None:
    (row,) = await _rows("text,b\n{b} {{x}},1\n", '{{"json": {text}}}')
    assert _asked(row) == '{"json": {b} {{x}}}'


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["{", "}", "a", " ", "c"]), st.booleans()), max_size=12))
def test_a_template_says_what_python_would(pieces: list[tuple[str, bool]]) -> None:
    text = "".join("{c}" if cell else piece * (2 if piece in "{}" else 1) for piece, cell in pieces)
    if text.strip():
        assert Template("prompt", text).fill({"c": "{cell}"}) == text.format(c="{cell}")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the input is empty; its first line must name the columns"),
        (b"\n", "the input is empty"),
        (b'"a\n', "the first line of the input is no CSV"),
    ],
)
async def test_a_table_without_columns_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(LLMConfigurationError, match=said):
        await _rows(io.BytesIO(data))


async def test_a_table_in_another_coding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("text\na\n", encoding="utf-16")
    with pytest.raises(LLMConfigurationError, match="UTF-16; save it as UTF-8"):
        await _rows(path)


async def test_a_packed_table_is_read_and_a_cut_one_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "in.csv.gz"
    data = gzip.compress("".join(["text\n", *[f"{number} is a number\n" for number in range(5000)]]).encode())
    path.write_bytes(data)
    assert len(await _rows(path)) == await count_records(path) == 5000
    path.write_bytes(data[: len(data) // 2])
    *rows, last = await _rows(path)
    assert all(isinstance(row, Row) for row in rows)
    assert _asked(last) == "damaged_file"
    for cut in (12, 20):
        path.write_bytes(data[:cut] + b"\xff" * 20)
        with pytest.raises(LLMConfigurationError, match=r"is damaged from its start|is no CSV"):
            await _rows(path)


@pytest.mark.parametrize("data", ["text\na\n\nb\n", 'text\n"a\n\n"\nb', "text\nc,d\nb\n"])
async def test_records_are_counted(data: str) -> None:
    assert await count_records(io.BytesIO(data.encode())) == 2
    assert await count_records(io.BytesIO(b"text\n")) == 0
    assert await count_records(io.BytesIO(b"text\n" + b"a\n" * 1000)) == 1000


def _parquet(path: Path, columns: Mapping[str, Any], row_group_size: int | None = None) -> Path:
    parquet.write_table(pa.table(dict(columns)), str(path), row_group_size=row_group_size)
    return path


async def test_a_parquet_file_is_read_with_its_types(tmp_path: Path) -> None:
    day = dt.date(2024, 2, 29)
    columns = {
        "id": [7, 8], "text": ["a", "b"], "flag": [True, False], "day": [day, day], "list": [[1, "x"][:1], [2]],
        "odd.name": ["p", "q"],
    }  # fmt: skip
    path = _parquet(tmp_path / "in.parquet", columns)
    rows = await _rows(path, "{text} {flag} {day} {list} {odd.name}", id_column="id")
    assert [row.custom_id for row in rows] == ["7", "8"]
    assert [_asked(row) for row in rows] == ["a true 2024-02-29 [1] p", "b false 2024-02-29 [2] q"]
    assert [row.line for row in rows] == [1, 2]
    assert await count_records(path) == 2


async def test_a_null_and_bytes_that_are_no_text_are_bad_rows(tmp_path: Path) -> None:
    cells = pa.array([b"a", None, b"\xff", b"d"], "binary")
    path = _parquet(tmp_path / "in.parquet", {"text": cells})
    assert [_asked(row) for row in await _rows(path)] == ["Say: a", "empty_cell", "invalid_utf8", "Say: d"]


async def test_a_text_that_is_no_utf8_costs_no_other(tmp_path: Path) -> None:
    cells = pa.array([b"a", b"\xff", b"d"], "binary").view("string")
    path = _parquet(tmp_path / "in.parquet", {"text": cells})
    assert [_asked(row) for row in await _rows(path)] == ["Say: a", "invalid_utf8", "Say: d"]


async def test_a_large_parquet_file_comes_in_portions(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "in.parquet", {"text": [str(n) for n in range(2000)], "b": [""] * 2000}, 500)
    portions = [list(portion) async for portion in read_table(path, prompt="{text}")]
    assert max(map(len, portions)) == 256
    assert [_asked(row) for portion in portions for row in portion] == [str(n) for n in range(2000)]


async def test_a_parquet_file_that_is_cut_or_damaged_is_said(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "in.parquet", {"text": [str(n) * 50 for n in range(2000)]}, 500)
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    with pytest.raises(LLMConfigurationError, match=r"in\.parquet is no whole Parquet file"):
        await _rows(path)
    spoilt = len(data) // 2
    path.write_bytes(data[:spoilt] + b"\x00" * 5000 + data[spoilt + 5000 :])
    *rows, last = await _rows(path)
    assert _asked(last) == "damaged_file"
    assert all(isinstance(row, Row) for row in rows)


async def test_a_parquet_file_without_the_columns_lists_those_there_are(tmp_path: Path) -> None:
    path = _parquet(tmp_path / "in.parquet", {"text": ["a"], "b": [1]})
    with pytest.raises(LLMConfigurationError, match="no column 'c'; its columns are 'text', 'b'"):
        await _rows(path, "{c}")


async def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _parquet(tmp_path / "in.parquet", {"text": ["a"]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(LLMConfigurationError) as caught:
        await _rows(path)
    assert 'pip install "llm-manifold[parquet]"' in str(caught.value)
