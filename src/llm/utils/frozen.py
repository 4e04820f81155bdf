"""Frozen, slotted dataclasses that cost little to make and to copy."""

from __future__ import annotations

from dataclasses import MISSING, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
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


def copier(kind: type[_T]) -> Callable[..., _T]:
    """Return a function that copies a value of `kind` with other values for the fields that are named.

    A third of the cost of `dataclasses.replace`, since neither `__init__` nor `__post_init__` runs: what is put in must
    be right already.
    """
    names = [field.name for field in fields(cast("type[Any]", kind))]
    read = attrgetter(*names)
    writes = tuple([getattr(kind, name).__set__ for name in names])
    write = object.__setattr__

    def copy(value: _T, **changes: Any) -> _T:  # noqa: ANN401 - each field's own kind
        made = object.__new__(kind)
        for write_field, field in zip(writes, read(value), strict=True):
            write_field(made, field)
        for name, field in changes.items():
            write(made, name, field)
        return made

    return copy
