"""From pydantic's errors to ours: what was expected, in plain words, and never what was there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from .faults import Fault, Path, dotted, kind_of, meant, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails

_EXPECTED: Final = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
    "path_type": "a path",
    "date_type": "a date such as 2027-12-31",
    "date_parsing": "a date such as 2027-12-31",
    "date_from_datetime_parsing": "a date such as 2027-12-31",
    "date_from_datetime_inexact": "a date such as 2027-12-31, without a time",
    "literal_error": "{expected}",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than_equal": "a number of at most {le:g}",
    "string_too_short": "text that is not empty",
    "string_pattern_mismatch": "text that matches {pattern}",
}

# Errors for which the type of what was there is news.
_OF_TYPE: Final = ("_type", "int_from_float")


def translate(errors: Sequence[ErrorDetails], schema: dict[str, Any]) -> tuple[list[Fault], list[Path]]:
    """Return the mistakes, and the paths of what a second look must do without."""
    faults: list[Fault] = []
    wrong: list[Path] = []
    for error in errors:
        path, on_name = _path(error["loc"])
        wrong.append(path)
        if error["type"] == "extra_forbidden":
            names = _names_at(schema, path[:-1])
            faults.append(_unknown(path, names))
            near = nearest(str(path[-1]), names)
            wrong += [(*path[:-1], near)] if near else []
        else:
            faults.append(Fault(dotted(path), _said(error), on_name=on_name))
    return faults, wrong


def _path(loc: Path) -> tuple[Path, bool]:
    """Return the path of a field; pydantic marks a wrong key by one part more."""
    if loc and loc[-1] == "[key]":
        return loc[:-1], True
    return loc, False


def _unknown(path: Path, names: list[str]) -> Fault:
    message = f"unknown field{meant(str(path[-1]), names)}"
    if names:
        message += f"; expected one of: {', '.join(names)}"
    return Fault(dotted(path), message, on_name=True)


def _said(error: ErrorDetails) -> str:
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "refused":
        return str(context["why"])
    if kind == "missing":
        return "is missing"
    expected = _EXPECTED.get(kind)
    if expected is None:
        return f"is wrong ({kind.replace('_', ' ')})"
    message = f"expected {expected.format_map(context)}"
    found = error["input"]
    if kind == "float_type" and type(found) is int:
        return "expected a number of fewer digits"
    if kind.endswith(_OF_TYPE):
        message += f", found {kind_of(found)}"
    if kind == "literal_error" and isinstance(found, str):
        message += meant(found, str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    return message


def _names_at(schema: dict[str, Any], path: Path) -> list[str]:
    """Return the fields that a mapping at the path may have."""
    node: dict[str, Any] | None = schema
    for part in path:
        node = None if node is None else _step(schema, node, part)
    if node is None:
        return []
    variants = _variants(schema, node)
    return [name for variant in variants for name in cast("dict[str, Any]", variant.get("properties", {}))]


def _step(schema: dict[str, Any], node: dict[str, Any], part: str | int) -> dict[str, Any] | None:
    for variant in _variants(schema, node):
        below = variant.get("items") if isinstance(part, int) else variant.get("properties", {}).get(part)
        if below is None and isinstance(variant.get("additionalProperties"), dict):
            below = variant["additionalProperties"]
        if below is not None:
            return cast("dict[str, Any]", below)
    return None


def _variants(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in node:
        return _variants(schema, schema["$defs"][str(node["$ref"]).rsplit("/", 1)[-1]])
    if "anyOf" in node:
        return [variant for each in node["anyOf"] for variant in _variants(schema, each)]
    return [node]
