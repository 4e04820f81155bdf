"""Frozen, slotted dataclasses that cost little to make and to copy."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_T = TypeVar("_T")
_Kind = TypeVar("_Kind", bound=type[Any])


def quick(kind: _Kind) -> _Kind:
    """Give a frozen, slotted dataclass an `__init__` that fills its slots directly; stands above `@dataclass`.

    The one that `dataclass` writes goes through `object.__setattr__`, which looks up each slot by its name and takes
    twice as long; a value is made for every chunk of a stream. Written as source and compiled, as `dataclass` does,
    for the names and defaults of the parameters. Not for fields by a factory.
    """
    space: dict[str, Any] = {}
    parameters: list[str] = []
    lines: list[str] = []
    for field in fields(kind):
        if field.kw_only and "*" not in parameters:
            parameters.append("*")
        space[f"set_{field.name}"] = getattr(kind, field.name).__set__
        parameters.append(field.name if field.default is MISSING else f"{field.name}=default_{field.name}")
        space[f"default_{field.name}"] = field.default
        lines.append(f"    set_{field.name}(self, {field.name})")
    if hasattr(kind, "__post_init__"):
        lines.append("    self.__post_init__()")
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

    A fraction of the cost of `dataclasses.replace`, since neither `__init__` nor `__post_init__` runs: what is put in
    must be right already. Compiled as in `quick`.
    """
    names = [field.name for field in fields(cast("type[Any]", kind))]
    space: dict[str, Any] = {"kind": kind, "new": object.__new__, "same": object()}
    for name in names:
        space[f"set_{name}"] = getattr(kind, name).__set__
    parameters = ", ".join([f"{name}=same" for name in names])
    lines = [f"    set_{name}(made, value.{name} if {name} is same else {name})" for name in names]
    source = "\n".join([f"def copy(value, /, *, {parameters}):", "    made = new(kind)", *lines, "    return made"])
    exec(source, space)  # noqa: S102 - of our own names only
    made: Callable[..., _T] = space["copy"]
    return made


def filler(kind: type[_T], *names: str) -> Callable[..., None]:
    """Return a function that puts values into these fields of a value that nobody else holds yet, in this order.

    A tenth of the cost of a copy. Compiled as in `quick`.
    """
    space: dict[str, Any] = {f"set_{name}": getattr(kind, name).__set__ for name in names}
    lines = [f"    set_{name}(value, {name})" for name in names]
    exec("\n".join([f"def fill(value, {', '.join(names)}):", *lines]), space)  # noqa: S102 - of our own names only
    made: Callable[..., None] = space["fill"]
    return made
