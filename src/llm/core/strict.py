"""A JSON Schema in the narrower form that vendors can hold a model to.

All of them want every object closed and, of what an object may have, all required; none takes every keyword. What is
taken out stays in the description, where the model reads it, and is checked when the answer is read.

Source: https://platform.openai.com/docs/guides/structured-outputs and
https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

_STRUCTURE: Final = frozenset({
    "$defs", "$ref", "type", "properties", "required", "additionalProperties", "items", "anyOf", "oneOf", "allOf",
    "enum", "const", "format", "title", "description", "default", "discriminator", "examples",
})  # fmt: skip
_BOUNDS: Final = frozenset({
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
})  # fmt: skip
_FORMATS: Final = frozenset({"date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_BEYOND: Final = frozenset({"prefixItems", "patternProperties", "not", "if", "dependentSchemas", "contains"})


class _BeyondError(Exception):
    """The schema allows what no strict one can say."""


def strict_schema(schema: Mapping[str, Any], *, bounds: bool) -> dict[str, Any] | None:
    """Return the strict form of a schema; None where there is none.

    There is none where an object may have keys that the schema does not name, a tuple differs by place, or anything
    at all is allowed.

    Args:
        schema: As pydantic makes it.
        bounds: Whether limits of numbers and of lists stay in; Anthropic takes none.
    """
    try:
        return _Strict(schema, bounds=bounds).whole()
    except _BeyondError:
        return None


def inlined_root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with an object at its root where that is only a reference, as in a tree of itself."""
    root = dict(schema)
    seen: set[str] = set()
    while isinstance(ref := root.get("$ref"), str) and ref not in seen:
        seen.add(ref)
        rest = {name: value for name, value in root.items() if name != "$ref"}
        root = {**_find(schema, ref), **rest}
    return root


def is_recursive(schema: Mapping[str, Any]) -> bool:
    """Return whether some definition refers to itself, directly or through others."""
    links = {name: _refs(part) for name, part in schema.get("$defs", {}).items()}
    return any(_reaches(links, name) for name in links)


class _Strict:
    def __init__(self, schema: Mapping[str, Any], *, bounds: bool) -> None:
        self._root = schema
        self._kept = _STRUCTURE | _BOUNDS if bounds else _STRUCTURE
        self._within: list[str] = []  # references that stand inlined around here

    def whole(self) -> dict[str, Any]:
        made = self._made(self._root)
        if defs := self._root.get("$defs"):
            made["$defs"] = {name: self._made(part) for name, part in defs.items()}
        return made

    def _made(self, part: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        if not isinstance(part, dict) or not _BEYOND.isdisjoint(cast("dict[str, Any]", part)):
            raise _BeyondError
        return self._of_object(cast("dict[str, Any]", part))

    def _of_object(self, part: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in part:
            return self._reference(part)
        if len(part.get("allOf", ())) == 1:
            rest = {name: value for name, value in part.items() if name != "allOf"}
            return self._made({**part["allOf"][0], **rest})
        made: dict[str, Any] = {name: part[name] for name in ("type", "enum", "const") if name in part}
        self._add_members(part, made)
        if not made:
            raise _BeyondError  # anything may stand here
        self._add_words(part, made)
        return made

    def _add_members(self, part: Mapping[str, Any], made: dict[str, Any]) -> None:
        if part.get("type") == "object":
            made |= self._object(part)
        if "items" in part:
            made["items"] = self._made(part["items"])
        elif part.get("type") == "array":
            raise _BeyondError
        # That exactly one fits is not for a vendor to hold; which one, is told when the answer is read.
        if variants := part.get("anyOf") or part.get("oneOf"):
            made["anyOf"] = [self._made(variant) for variant in variants]
        elif "allOf" in part:
            raise _BeyondError

    def _object(self, part: Mapping[str, Any]) -> dict[str, Any]:
        fields: Mapping[str, Any] = part.get("properties", {})
        if not fields and part.get("additionalProperties"):
            raise _BeyondError
        return {
            "properties": {name: self._made(field) for name, field in fields.items()},
            "required": list(fields),
            "additionalProperties": False,
        }

    def _reference(self, part: Mapping[str, Any]) -> dict[str, Any]:
        # Nothing may stand beside a reference, so what stands there goes into a copy of what it refers to.
        ref, beside = part["$ref"], {name: part[name] for name in ("description", "title") if name in part}
        if not beside or ref in self._within:
            return {"$ref": ref}
        self._within.append(ref)
        made = self._made({**_find(self._root, ref), **beside})
        self._within.pop()
        return made

    def _add_words(self, part: Mapping[str, Any], made: dict[str, Any]) -> None:
        if "title" in part:
            made["title"] = part["title"]
        made |= {name: part[name] for name in self._kept & _BOUNDS if name in part}
        left = {name: value for name, value in part.items() if name not in self._kept}
        if (form := part.get("format")) is not None:
            (made if form in _FORMATS else left)["format"] = form
        told = [f"{name}: {value}" for name, value in left.items()]
        words = [part["description"]] if part.get("description") else []
        if words or told:
            made["description"] = " ".join([*words, *([f"({', '.join(told)})"] if told else [])])


def _find(schema: Mapping[str, Any], ref: str) -> Mapping[str, Any]:
    found: Any = schema
    for name in ref.removeprefix("#/").split("/"):
        found = found[name.replace("~1", "/").replace("~0", "~")]
    return dict(found)


def _refs(part: Any) -> set[str]:  # noqa: ANN401 - JSON
    if isinstance(part, dict):
        inside = cast("dict[str, Any]", part)
        own = {ref.rpartition("/")[2]} if isinstance(ref := inside.get("$ref"), str) else set[str]()
        return own.union(*map(_refs, inside.values()))
    return set[str]().union(*map(_refs, cast("list[object]", part))) if isinstance(part, list) else set()


def _reaches(links: Mapping[str, set[str]], goal: str) -> bool:
    seen: set[str] = set()
    ahead = set(links[goal])
    while ahead:
        name = ahead.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            ahead |= links.get(name, set())
    return False
