"""A table's record → a row: `{column}` stands for a cell, and nothing else is read of a template."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMConfigurationError

from .values import CHAT, EMBEDDINGS, RESPONSES, BadRow, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .records import Record

_PIECE: Final = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


class Template:
    """A text with cells in it; `{{` and `}}` stand for braces.

    A column is found by its whole name, so no template reaches anything but cells, whoever wrote it.

    Attributes:
        columns: The columns whose cells stand in it, in order.
    """

    def __init__(self, field: str, text: str) -> None:
        """Read it; `field` is what to call it.

        Raises:
            LLMConfigurationError: It is empty, or has a brace that belongs to no column.
        """
        if not text.strip():
            raise LLMConfigurationError(f"{field} is empty; write what to ask, with {{column}} where a cell stands")
        self._pieces: list[tuple[str, str | None]] = []
        at = 0
        for found in _PIECE.finditer(text):
            if found[0] in {"{", "}"}:
                raise LLMConfigurationError(
                    f"{field} has a lone {found[0]!r} at its character {found.start() + 1}; "
                    f"write {{column}} for a cell, and {found[0] * 2} for a brace"
                )
            before = text[at : found.start()]
            at = found.end()
            column: str | None = found[1]
            self._pieces.append((before, column) if column is not None else (before + found[0][0], None))
        self._end = text[at:]
        self.columns: tuple[str, ...] = tuple([column for _, column in self._pieces if column is not None])

    def fill(self, cells: Mapping[str, str]) -> str:
        """Return the text with these cells in it."""
        pieces = [before + ("" if column is None else cells[column]) for before, column in self._pieces]
        return "".join([*pieces, self._end])


class RowMaker:
    """Makes rows of a table's records.

    Attributes:
        columns: The columns that it reads.
    """

    def __init__(  # noqa: PLR0913 - what a request is made of
        self,
        *,
        prompt: str,
        system: str | None,
        id_column: str | None,
        model: str | None,
        url: str,
        options: Mapping[str, Any] | None,
    ) -> None:
        """Take what `read_table` takes.

        Raises:
            LLMConfigurationError: A template is none, or the url is none of the three, or takes no `system`.
        """
        if url not in {CHAT, EMBEDDINGS, RESPONSES}:
            raise LLMConfigurationError(f"url is none of {CHAT}, {EMBEDDINGS} and {RESPONSES}; pass one of these")
        if url == EMBEDDINGS and system is not None:
            raise LLMConfigurationError("system is given for embeddings, which take none; leave it out")
        self._prompt = Template("prompt", prompt)
        self._system = None if system is None else Template("system", system)
        self._id_column = id_column
        self._fixed: dict[str, Any] = {} if model is None else {"model": model}
        self._options = dict(options or {})
        self._url = url
        told = () if self._system is None else self._system.columns
        self._shown = frozenset({*self._prompt.columns, *told})
        if not self._shown:
            raise LLMConfigurationError("prompt has no cell in it, so all rows would be one; write {column} for a cell")
        self.columns: frozenset[str] = self._shown | (frozenset() if id_column is None else {id_column})

    def check(self, name: str, columns: Sequence[str]) -> None:
        """Look for the columns in those of the table `name`.

        Raises:
            LLMConfigurationError: One is not there, or is there twice; lists those there are.
        """
        there = ", ".join(map(repr, columns))
        for column in sorted(self.columns):
            if (found := columns.count(column)) != 1:
                said = "no column" if not found else f"{found} columns"
                raise LLMConfigurationError(f"{name} has {said} {column!r}; its columns are {there or 'none'}")

    def row(self, order: int, record: Record) -> Row | BadRow:
        """Return the row of a record, which has the cells of `columns` at least; `order` is its place, from 0."""
        if record.fault is not None:
            return _bad(order, record, *record.fault)
        texts: dict[str, str] = {}
        for column in self.columns:
            text = _text(record.cells[column])
            if text is None:
                said = f"the column {column!r} is no UTF-8; save the table as UTF-8"
                return _bad(order, record, "invalid_utf8", said)
            texts[column] = text
        custom_id = f"row-{order + 1}" if self._id_column is None else texts[self._id_column]
        if not custom_id:
            said = f"the column {self._id_column!r} is empty; give each record an id"
            return _bad(order, record, "missing_custom_id", said)
        for column in sorted(self._shown):
            if not texts[column].strip():
                said = f"the column {column!r} is empty; fill it, or take the record out"
                return _bad(order, record, "empty_cell", said, custom_id)
        return Row(order, custom_id, self._url, {**self._fixed, **self._asked(texts), **self._options}, record.line)

    def _asked(self, texts: Mapping[str, str]) -> dict[str, Any]:
        prompt = self._prompt.fill(texts)
        system = None if self._system is None else self._system.fill(texts)
        if self._url == CHAT:
            before = [] if system is None else [{"role": "system", "content": system}]
            return {"messages": [*before, {"role": "user", "content": prompt}]}
        return {"input": prompt} if system is None else {"instructions": system, "input": prompt}


def _bad(order: int, record: Record, code: str, said: str, custom_id: str | None = None) -> BadRow:
    return BadRow(order, record.line, custom_id, code, f"record at line {record.line}: {said}")


def _text(value: object) -> str | None:
    """Return a cell as text; None for bytes that are none."""
    match value:
        case str():
            return value if value.isascii() or _is_whole(value) else None
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case bytes():
            return _decoded(value)
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, default=str)
        case _:
            return str(value)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _decoded(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
