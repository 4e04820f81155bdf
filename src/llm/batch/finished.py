"""Lines of output and errors files, as a rerun knows their rows again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import orjson


def record_of(line: bytes) -> tuple[str | int, Mapping[str, Any]] | None:
    """Return the row that a line is about, and what the line holds; None where it is no result of a batch.

    A row is known by its `custom_id`; one that was none, as its id was missing or another row's, by its line's number
    in the input (`error.line`).

    Source: https://platform.openai.com/docs/api-reference/batch/request-output
    """
    content = _content(line)
    error = content.get("error")
    if isinstance(error, Mapping):
        number = cast("Mapping[str, Any]", error).get("line")
        if type(number) is int:
            return number, content
    elif not isinstance(content.get("response"), Mapping):
        return None
    custom_id = content.get("custom_id")
    return (custom_id, content) if isinstance(custom_id, str) else None


def _content(line: bytes) -> Mapping[str, Any]:
    try:
        content: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            content = json.loads(line)  # half of a surrogate pair is JSON, too, and so is a byte-order mark before it
        except (ValueError, RecursionError):
            return {}
    return cast("Mapping[str, Any]", content) if isinstance(content, dict) else {}
