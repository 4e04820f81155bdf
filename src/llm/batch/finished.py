"""Lines of outputs and errors files, as a rerun knows them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson


def record_of(line: bytes) -> tuple[str | int, Mapping[str, Any]] | None:
    """Return the row that a line is about, and what the line holds; None where it is no result of a batch."""
    try:
        record: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict):
        return None
    content = cast("Mapping[str, Any]", record)
    name = name_of(content)
    return None if name is None else (name, content)


def name_of(record: Mapping[str, Any]) -> str | int | None:
    """Return the name of the row that a line of an output or errors file is about; None where it names none.

    A row is known by its `custom_id`; one that was none, as its id was missing or another row's, by its line's number
    in the input (`error.line`).

    Source: https://platform.openai.com/docs/guides/batch
    """
    error = record.get("error")
    if isinstance(error, Mapping):
        line = cast("Mapping[str, Any]", error).get("line")
        if isinstance(line, int):
            return line
    elif not isinstance(record.get("response"), Mapping):
        return None
    custom_id = record.get("custom_id")
    return custom_id if isinstance(custom_id, str) else None
