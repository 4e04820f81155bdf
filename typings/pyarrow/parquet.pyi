from collections.abc import Iterator, Sequence
from typing import BinaryIO

from . import RecordBatch, Schema, Table

class ParquetFile:
    def __init__(self, source: BinaryIO | str) -> None: ...
    @property
    def schema_arrow(self) -> Schema: ...
    def iter_batches(
        self, batch_size: int = ..., columns: Sequence[str] | None = None, use_threads: bool = True
    ) -> Iterator[RecordBatch]: ...

def write_table(table: Table, where: BinaryIO | str, row_group_size: int | None = None) -> None: ...
