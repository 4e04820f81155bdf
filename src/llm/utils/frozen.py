"""Changed copies of frozen, slotted dataclasses, for where `dataclasses.replace` costs too much."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def copier(kind: type[T]) -> Callable[..., T]:
    """Return a function that copies a value of `kind` with other values for the fields that are named.

    A third of the cost of `dataclasses.replace`, since neither `__init__` nor `__post_init__` runs: what is put in must
    be right already.
    """
    names: tuple[str, ...] = kind.__slots__  # type: ignore[attr-defined]  # a slotted class has it
    read = attrgetter(*names)
    writes = tuple([getattr(kind, name).__set__ for name in names])
    write = object.__setattr__

    def copy(value: T, **changes: Any) -> T:  # noqa: ANN401 - each field's own kind
        made = object.__new__(kind)
        for write_field, field in zip(writes, read(value), strict=True):
            write_field(made, field)
        for name, field in changes.items():
            write(made, name, field)
        return made

    return copy
