"""A table's records, as Parquet has them; needs the extra `parquet`."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, Final

from llm.core.exceptions import LLMConfigurationError

from .records import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from pyarrow import Array, RecordBatch
    from pyarrow.parquet import ParquetFile

MAGIC: Final = b"PAR1"
_AT_ONCE: Final = 256


def parquet_records(file: BinaryIO, name: str, columns: Collection[str]) -> tuple[Sequence[str], Iterator[Record]]:
    """Return the names of all columns, and the records with the cells of `columns`, read as they are asked for.

    Raises:
        LLMConfigurationError: pyarrow is not there, or the file cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise LLMConfigurationError(
            f'{name} is a Parquet file, and to read it takes pyarrow; pip install "llm-manifold[parquet]"'
        ) from None
    try:
        table = ParquetFile(file)
    except (ArrowException, OSError) as error:
        raise LLMConfigurationError(f"{name} is no whole Parquet file: {error}; write it anew") from None
    return table.schema_arrow.names, _records(table, sorted(columns), (ArrowException, OSError))


def _records(table: ParquetFile, columns: Sequence[str], failures: tuple[type[Exception], ...]) -> Iterator[Record]:
    number = 0
    try:
        for batch in table.iter_batches(batch_size=_AT_ONCE, columns=columns, use_threads=False):
            for cells in zip(*_cells(batch), strict=True) if columns else [()] * batch.num_rows:
                number += 1
                yield Record(number, dict(zip(columns, cells, strict=True)))
    except failures as error:
        yield Record(number + 1, {}, ("damaged_file", f"the file is damaged from here: {error}; write it anew"))


def _cells(batch: RecordBatch) -> Iterator[list[object]]:
    return map(_values, batch.columns)


def _values(column: Array) -> list[object]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        return column.cast("binary").to_pylist()  # each cell is told by itself whether it is text
