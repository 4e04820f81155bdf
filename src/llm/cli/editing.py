"""One entry put into a YAML file, or taken out of it, with all else as it stands: order, comments, blank lines.

The text is cut at places that the parser tells; what comes out is read again, and must say what was meant.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

_Entries: TypeAlias = "list[tuple[yaml.Node, yaml.Node]]"

_PLAIN: Final = re.compile(r"[A-Za-z_][\w.-]*")
_WORDS: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # that YAML takes for values
_INDENT: Final = 2


class FormError(ValueError):
    """The file is written in a form that is not edited in place."""


def with_entry(text: str, path: tuple[str, ...], name: str, entry: Mapping[str, Any]) -> str:
    """Return the text with an entry more, the last of the mapping at `path`, which is made where it is not there.

    Raises:
        FormError: That mapping, or one around it, is written in braces, by an alias or otherwise in a way that is not
            edited in place.
    """
    edited = _inserted(text, path, line_of(name, entry))
    after = _tree(text)
    around = after
    for part in path:
        inner = around.get(part)
        if not isinstance(inner, dict):
            inner = around[part] = {}
        around = cast("dict[str, Any]", inner)
    around[name] = _tree(line_of(name, entry))[name]
    return _checked(edited, after)


def without_entry(text: str, path: tuple[str, ...], name: str) -> str:
    """Return the text without an entry of the mapping at `path`, which stays, be it empty.

    Raises:
        FormError: As for `with_entry`, or there is no such entry.
    """
    edited = _removed(text, path, name)
    after = _tree(text)
    around: Any = after
    for part in path:
        around = around[part]
    del around[name]
    return _checked(edited, after)


def line_of(name: str, entry: Mapping[str, Any]) -> str:
    """Return an entry as one line of YAML; dates as YAML has them."""
    fields = ", ".join(f"{field}: {_value(value)}" for field, value in entry.items())
    return f"{_name(name)}: {{{fields}}}"


def _name(name: str) -> str:
    plain = _PLAIN.fullmatch(name) and name.lower() not in _WORDS
    return name if plain else json.dumps(name, ensure_ascii=False)


def _value(value: Any) -> str:  # noqa: ANN401 - text, lists of it, dates, yes and no
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _name(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(json.dumps(item, ensure_ascii=False) for item in cast('list[str]', value))}]"
    return str(value)


def _checked(edited: str, meant: dict[str, Any]) -> str:
    if _tree(edited) != meant:
        raise FormError
    return edited


def _tree(text: str) -> dict[str, Any]:
    try:
        return yaml.load(text, Loader=yaml.BaseLoader) or {}  # noqa: S506 - the one that makes text of everything
    except yaml.YAMLError as error:
        raise FormError from error


def _inserted(text: str, path: tuple[str, ...], line: str) -> str:
    root = _composed(text)
    entries = [] if root is None else _block(root)
    indent, missing = 0, list(path)
    while missing and (found := _find(entries, missing[0])) is not None:
        name, value = found
        missing.pop(0)
        if _is_empty(value):
            return _below(text, name, value, _nested(missing, line, name.start_mark.column + _INDENT))
        entries = _block(value)
        indent = entries[0][0].start_mark.column
    if missing == list(path):
        return _at_the_end(text, _nested(missing, line, 0))
    return _added(text, _end(text, entries[-1][1]), _nested(missing, line, indent))


def _removed(text: str, path: tuple[str, ...], name: str) -> str:
    holder, value = None, _composed(text)
    for part in path:
        holder, value = _entry(value, part)
    key, last = _entry(value, name)
    start = key.start_mark.index - key.start_mark.column
    rest = text[_end_of_line(text, _end(text, last)) :].removeprefix(_newline(text))
    if holder is None or value is None or len(_block(value)) > 1:
        return text[:start] + rest
    colon = text.index(":", holder.end_mark.index) + 1
    return f"{text[:colon]} {{}}{text[colon:start]}{rest}"


def _composed(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise FormError from error


def _below(text: str, name: yaml.Node, value: yaml.Node, lines: list[str]) -> str:
    """Return the text with lines below a name whose value is none or empty, which goes."""
    place = text.index(":", name.end_mark.index) + 1
    if value.end_mark.index > value.start_mark.index:
        text = text[:place] + text[value.end_mark.index :]
    return _added(text, place, lines)


def _at_the_end(text: str, lines: list[str]) -> str:
    newline = _newline(text)
    whole = text if not text or text.endswith("\n") else text + newline
    return whole + (newline if whole.strip() else "") + newline.join([*lines, ""])


def _added(text: str, place: int, lines: list[str]) -> str:
    """Return the text with more lines after the one in which a place is."""
    newline, end = _newline(text), _end_of_line(text, place)
    return text[:end] + "".join(newline + each for each in lines) + text[end:]


def _end_of_line(text: str, place: int) -> int:
    end = text.find(_newline(text), place)
    return end if end >= 0 else len(text)


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _nested(names: list[str], line: str, indent: int) -> list[str]:
    """Return the names, each under the one before it, and the line under the last."""
    lines = [f"{_name(name)}:" for name in names]
    return [" " * (indent + _INDENT * depth) + each for depth, each in enumerate([*lines, line])]


def _block(node: yaml.Node) -> _Entries:
    """Return the entries of a mapping that has a line for each."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        raise FormError
    return cast("_Entries", node.value)


def _find(entries: _Entries, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next((entry for entry in entries if entry[0].value == name), None)


def _is_empty(node: yaml.Node) -> bool:
    if isinstance(node, yaml.MappingNode):
        return not node.value and node.flow_style
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _entry(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node]:
    found = None if node is None else _find(_block(node), name)
    if found is None:
        raise FormError
    return found


def _end(text: str, node: yaml.Node) -> int:
    """Return where a value's own text ends; a block's mark stands after the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last: Any = node.value[-1]
        return _end(text, cast("yaml.Node", last[1] if isinstance(last, tuple) else last))
    return len(text[: node.end_mark.index].rstrip())
