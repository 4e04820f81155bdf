"""Fields of what a vendor tells, whatever it is that stands there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson

from llm.providers.wire import senseless


def text(value: object) -> str:
    """Return a text; empty where it is none."""
    return value if isinstance(value, str) else ""


def count(value: object) -> int:
    """Return a number of things; 0 where it is none."""
    return value if isinstance(value, int) and value > 0 else 0


def mapping(value: object) -> Mapping[str, Any]:
    """Return an object; an empty one where it is none."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def entries(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a list; nothing where it is none."""
    return [mapping(each) for each in cast("list[object]", value)] if isinstance(value, list) else []


def named(told: Mapping[str, Any]) -> str:
    """Return the name of an object.

    Raises:
        LLMServerError: It has none.
    """
    name = text(told.get("id"))
    if not name:
        raise senseless("an object without an id")
    return name


def line_of(line: bytes) -> Mapping[str, Any]:
    """Return the object of a line of results; an empty one where it is none, such as one that was cut."""
    try:
        read: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        read = None
    return mapping(read)
