"""Frozen, slotted dataclasses, and named tuples, that cost little to make and to copy."""

from __future__ import annotations

from dataclasses import MISSING, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")
_Kind = TypeVar("_Kind", bound=type[Any])


def quick(kind: _Kind) -> _Kind:
    """Give a frozen, slotted dataclass an `__init__` that fills its slots directly; stands above `@dataclass`.

    The one that `dataclass` writes goes through `object.__setattr__`, which looks up each slot by its name and takes
    four times as long; a value is made for every chunk of a stream. Written as source and compiled, as `dataclass`
    does, for the names and defaults of the parameters. Not for fields by a factory.
    """
    space: dict[str, Any] = {"_kind": kind, "_open": _open(kind), "_turn": object.__dict__["__class__"].__set__}
    parameters: list[str] = []
    opened: list[str] = []
    lines: list[str] = []
    for field in fields(kind):
        if field.kw_only and "*" not in parameters:
            parameters.append("*")
        space[f"set_{field.name}"] = getattr(kind, field.name).__set__
        parameters.append(field.name if field.default is MISSING else f"{field.name}=default_{field.name}")
        space[f"default_{field.name}"] = field.default
        opened.append(f"        self.{field.name} = {field.name}")
        lines.append(f"        set_{field.name}(self, {field.name})")
    body = ["    if type(self) is _kind:", "        _turn(self, _open)", *opened, "        self.__class__ = _kind"]
    body += ["    else:", *lines]  # a subclass, which may have more than slots
    if hasattr(kind, "__post_init__"):
        body.append("    self.__post_init__()")
    source = "\n".join([f"def __init__(self, {', '.join(parameters)}):", *body])
    exec(source, space)  # noqa: S102 - of our own names only
    made = space["__init__"]
    made.__annotations__ = kind.__init__.__annotations__
    made.__qualname__ = f"{kind.__qualname__}.__init__"
    made.__module__ = kind.__module__
    kind.__init__ = made
    return kind


def _open(kind: type[Any]) -> type[Any]:
    """Return a class of the same slots that is not frozen: what is filled as one of it can become one of `kind`.

    The interpreter stores into a slot in a few nanoseconds, and takes ten times as long to call its setter.
    """
    return type(kind.__name__, (), {"__slots__": tuple(field.name for field in fields(kind))})


def maker(kind: type[_T], *, reads: Mapping[str, Callable[[Any], Any]] | None = None) -> Callable[..., _T]:
    """Return a function that makes a value of `kind` from its fields in their order, the rest by their defaults.

    Half the cost of calling `kind` where many fields are given: by name, an argument takes longer to be passed than to
    be kept. `__post_init__` runs, unless there are `reads`, in their order: what is given for a field is what its
    function returns for it, and what is left out, or None, needs no look. Compiled as in `quick`, for classes with
    that.
    """
    space: dict[str, Any] = {"_kind": kind, "_open": _open(kind)}
    fields_of = {field.name: field for field in fields(cast("type[Any]", kind))}
    space |= {f"default_{name}": field.default for name, field in fields_of.items()}
    given = [name if field.default is MISSING else f"{name}=default_{name}" for name, field in fields_of.items()]
    body: list[str] = []
    for name, read in (reads or {}).items():
        space[f"read_{name}"] = read
        must = fields_of[name].default is MISSING
        body.append(f"    {'' if must else f'if {name} is not None: '}{name} = read_{name}({name})")
    body += ["    made = _open()", *[f"    made.{name} = {name}" for name in fields_of], "    made.__class__ = _kind"]
    if hasattr(kind, "__post_init__") and reads is None:
        body.append("    made.__post_init__()")
    body.append("    return made")
    exec("\n".join([f"def make({', '.join(given)}):", *body]), space)  # noqa: S102 - of our own names only
    made: Callable[..., _T] = space["make"]
    return made


def copier(kind: type[_T]) -> Callable[..., _T]:
    """Return a function that copies a value of `kind` with other values for the fields that are named.

    A fraction of the cost of `dataclasses.replace`, since neither `__init__` nor `__post_init__` runs: what is put in
    must be right already. Compiled as in `quick`.
    """
    names = [field.name for field in fields(cast("type[Any]", kind))]
    space: dict[str, Any] = {"_kind": kind, "_open": _open(kind), "_same": object()}
    parameters = ", ".join([f"{name}=_same" for name in names])
    lines = [f"    made.{name} = value.{name} if {name} is _same else {name}" for name in names]
    body = ["    made = _open()", *lines, "    made.__class__ = _kind", "    return made"]
    source = "\n".join([f"def copy(value, /, *, {parameters}):", *body])
    exec(source, space)  # noqa: S102 - of our own names only
    made: Callable[..., _T] = space["copy"]
    return made


def completer(kind: type[_T], *names: str) -> Callable[..., _T]:
    """Return a function that copies a value of `kind` with other values for just these fields, in this order.

    Half the cost of a `copier`'s, which looks at each field whether it is to change. Compiled as in `quick`.
    """
    space: dict[str, Any] = {"_kind": kind, "_open": _open(kind)}
    fields_of = [field.name for field in fields(cast("type[Any]", kind))]
    lines = [f"    made.{name} = {name if name in names else f'value.{name}'}" for name in fields_of]
    body = ["    made = _open()", *lines, "    made.__class__ = _kind", "    return made"]
    exec("\n".join([f"def complete(value, {', '.join(names)}):", *body]), space)  # noqa: S102 - of our own names only
    made: Callable[..., _T] = space["complete"]
    return made


def packer(kind: type[_T]) -> Callable[[tuple[Any, ...]], _T]:
    """Return a function that makes a named tuple of all its fields, in their order, which come as one tuple.

    Half the cost of calling `kind`, which makes that tuple within two more calls.
    """
    return partial(cast("Any", tuple).__new__, kind)


def filler(kind: type[_T], *names: str) -> Callable[..., None]:
    """Return a function that puts values into these fields of a value that nobody else holds yet, in this order.

    A tenth of the cost of a copy. Compiled as in `quick`; what is there already is not put there again, since of so few
    a look costs less than a setter.
    """
    space: dict[str, Any] = {f"set_{name}": getattr(kind, name).__set__ for name in names}
    lines = [f"    if value.{name} is not {name}: set_{name}(value, {name})" for name in names]
    exec("\n".join([f"def fill(value, {', '.join(names)}):", *lines]), space)  # noqa: S102 - of our own names only
    made: Callable[..., None] = space["fill"]
    return made
