"""Requests from a table, in CSV or Parquet: a record and a template of a prompt make a row.

Source: https://www.rfc-editor.org/rfc/rfc4180 for CSV
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from llm.core.exceptions import LLMConfigurationError

from .apart import apart
from .lines import MAX_ROW_BYTES
from .parquet import MAGIC, parquet_records
from .records import csv_records
from .source import DAMAGED, head_of, name_of, opened
from .template import RowMaker
from .values import CHAT, BadRow, Row

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Generator, Iterator, Mapping, Sequence

    from .records import Record
    from .source import Source

_PORTION: Final = 256
_CHARS: Final = 1024 * 1024


def read_table(  # noqa: PLR0913 - what a request is made of
    source: Source,
    *,
    prompt: str,
    system: str | None = None,
    id_column: str | None = None,
    model: str | None = None,
    url: str = CHAT,
    options: Mapping[str, Any] | None = None,
    max_row_bytes: int = MAX_ROW_BYTES,
) -> AsyncGenerator[Sequence[Row | BadRow], None]:
    """Return the rows of a table, in portions of at most 256, read in a thread; memory stays flat.

    CSV has its columns' names in its first line, and commas, semicolons or tabs between cells, whichever that line has
    most of. A record with other cells than columns, or an empty cell where the prompt names one, is a `BadRow`.

    Args:
        source: A path, or a file opened for bytes; for Parquet one that can be sought in.
        prompt: What to ask, such as `Summarise: {text}`: `{column}` is the cell of that column, `{{` a brace.
        system: Instructions before it, a template too.
        id_column: The column of the rows' ids; None: `row-1`, `row-2`…
        model: The model; None: the one that the batch is run with.
        url: How to ask; the prompt is the text of an embedding's row.
        options: More fields for each body, such as `{"max_tokens": 100}`.
        max_row_bytes: A longer line of CSV is a `BadRow`.

    Raises:
        LLMConfigurationError: A template is none. Reading raises it where the table cannot be read, or has not the
            columns; lists those it has.
    """
    maker = RowMaker(prompt=prompt, system=system, id_column=id_column, model=model, url=url, options=options)
    return apart(partial(_portions, source, maker, max_row_bytes))


async def count_records(source: Source) -> int:
    """Return how many records a table has, counted in a thread.

    Raises:
        LLMConfigurationError: It cannot be read.
    """
    total = 0
    async for counted in apart(partial(_counts, source)):
        total = counted
    return total


def _portions(source: Source, maker: RowMaker, max_row_bytes: int) -> Generator[list[Row | BadRow], None, None]:
    name = name_of(source)
    portion: list[Row | BadRow] = []
    size = 0
    with opened(source) as file:
        columns, records = _records(file, name, maker.columns, max_row_bytes)
        maker.check(name, columns)
        for order, record in enumerate(records):
            portion.append(maker.row(order, record))
            size += sum([len(cell) for cell in record.cells.values() if isinstance(cell, str)])
            if len(portion) == _PORTION or size >= _CHARS:
                yield portion
                portion, size = [], 0
    if portion:
        yield portion


def _counts(source: Source) -> Generator[int, None, None]:
    counted = 0
    with opened(source) as file:
        for counted, _ in enumerate(_records(file, name_of(source), (), MAX_ROW_BYTES)[1], start=1):
            if not counted % _PORTION:
                yield counted
    yield counted


def _records(file: BinaryIO, name: str, columns: Collection[str], most: int) -> tuple[Sequence[str], Iterator[Record]]:
    try:
        packed = head_of(file, name).startswith(MAGIC)
    except DAMAGED as error:
        raise LLMConfigurationError(f"{name} is damaged from its start: {error}; make it anew") from None
    return parquet_records(file, name, columns) if packed else csv_records(file, name, most)
