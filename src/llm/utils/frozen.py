"""Frozen values that cost little to make."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

_Kind = TypeVar("_Kind", bound=type[Any])


def quick(kind: _Kind) -> _Kind:
    """Give a frozen, slotted dataclass an `__init__` that fills its slots directly; stands above `@dataclass`.

    The one that `dataclass` writes goes through `object.__setattr__`, which looks up each slot by its name and takes
    twice as long; a value is made for every chunk of a stream. Written as source and compiled, as `dataclass` does,
    for the names and defaults of the parameters. Not for fields by keyword only or by a factory, nor for a class with
    `__post_init__`.
    """
    space: dict[str, Any] = {}
    parameters: list[str] = []
    lines: list[str] = []
    for field in fields(kind):
        space[f"set_{field.name}"] = getattr(kind, field.name).__set__
        parameters.append(field.name if field.default is MISSING else f"{field.name}=default_{field.name}")
        space[f"default_{field.name}"] = field.default
        lines.append(f"    set_{field.name}(self, {field.name})")
    source = "\n".join([f"def __init__(self, {', '.join(parameters)}):", *lines])
    exec(source, space)  # noqa: S102 - of our own names only
    made = space["__init__"]
    made.__annotations__ = kind.__init__.__annotations__
    made.__qualname__ = f"{kind.__qualname__}.__init__"
    made.__module__ = kind.__module__
    kind.__init__ = made
    return kind
