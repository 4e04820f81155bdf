"""Find all mistakes of a configuration in one go.

Checks that join sections need sections, and a wrong field would hide them. So what is wrong is taken out and the rest
is read again; a mistake found then is told only if nothing that was taken out can be its cause.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import ValidationError

from .checks import Whole, faults_of
from .faults import Fault, Path, dotted, within
from .providers import ProviderConfig
from .scalars import Value, is_mapping
from .translate import translate

W = TypeVar("W", bound=Whole)
Schema = Callable[[], dict[str, Value]]


def examine(data: Value, read: Callable[[Value], W], schema: Schema) -> tuple[W | None, list[Fault]]:
    """Read a configuration.

    Args:
        data: The mapping.
        read: Makes the model of it, or raises pydantic's `ValidationError`.
        schema: Gives the model's JSON Schema, for the names that were meant.

    Returns:
        The model, where one could be made, and all mistakes; a model with mistakes is not to be used.
    """
    data = _typed(data)
    config, faults, gone = _attempt(data, read, schema)
    if config is not None:
        return config, faults_of(config)
    rest, _, _ = _attempt(_without(data, gone), read, schema)
    if rest is not None:
        faults += [fault for fault in faults_of(rest) if not _caused(fault, gone)]
    return None, faults


def _attempt(data: Value, read: Callable[[Value], W], schema: Schema) -> tuple[W | None, list[Fault], list[Path]]:
    try:
        return read(data), [], []
    except ValidationError as error:
        faults, wrong = translate(error.errors(include_url=False), schema())
        return None, faults, [path[: 3 if path[:1] == ("providers",) else 2] for path in wrong]


def _typed(data: Value) -> Value:
    """Name the type of a provider after its section, where it names none."""
    sections = data.get("providers") if is_mapping(data) else None
    if not is_mapping(sections):
        return data
    return {**data, "providers": {name: _with_type(name, section) for name, section in sections.items()}}


def _with_type(name: str, section: Value) -> Value:
    if isinstance(section, ProviderConfig):
        return section if section.type else section.model_copy(update={"type": name})
    if section is None:
        return {"type": name}
    return {**section, "type": name} if is_mapping(section) and section.get("type") is None else section


def _without(data: Value, gone: list[Path]) -> Value:
    """Take out what is wrong: of a provider the field, of other sections the entry."""
    if not is_mapping(data):
        return {}
    rest = {name: _copy(section) for name, section in data.items()}
    for path in gone:
        _drop(rest, path)
    return rest


def _copy(section: Value) -> Value:
    """Copy a section two levels deep, which is as deep as anything is taken out."""
    if not is_mapping(section):
        return section
    return {name: dict(entry) if is_mapping(entry) else entry for name, entry in section.items()}


def _drop(tree: dict[str, Value], path: Path) -> None:
    for name in path[:-1]:
        below = tree.get(str(name))
        if not is_mapping(below):
            return
        tree = below
    if path:
        tree.pop(str(path[-1]), None)


def _caused(fault: Fault, gone: list[Path]) -> bool:
    """Tell whether the fault may be there only because something was taken out."""
    return any(
        within(taken, fault.field) or any(within(field, taken) for field in (fault.field, *fault.needs))
        for taken in map(dotted, gone)
    )
