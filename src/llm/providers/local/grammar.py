"""The form that an answer is held to: what a JSON Schema, a regular expression or a list of choices allows.

A form is written in Lark's notation as llguidance reads it, or is a regular expression; here it is only put together.
Objects have no properties that their schema does not name, unless it says so itself, and one blank after a comma or a
colon and none elsewhere: a small model would otherwise go on for ever where it may.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast

import orjson

from llm.core.exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPACING: Final = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_LOOSE: Final = {**_SPACING, "lenient": True, "coerce_one_of": True}
_PLACES: Final = frozenset({"properties", "patternProperties", "$defs", "definitions"})  # of schemas by name
_WITHIN: Final = frozenset({"items", "additionalProperties", "anyOf", "oneOf", "prefixItems"})
_ASCII: Final = {r"\d": "0-9", r"\w": "A-Za-z0-9_"}
_ESCAPE: Final = re.compile(r"\\.", re.DOTALL)
_CLASS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)  # an escape, or a class with those in it
_ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A form.

    Attributes:
        source: Its text.
        kind: What that is.
        field: What asked for it, for errors.
        looser: What to hold the answer to where this is more than can be held.
    """

    source: str
    kind: Literal["lark", "regex"] = "lark"
    field: str = field(default="response_format", compare=False)
    looser: Grammar | None = None


def schema_grammar(schema: Mapping[str, Any], *, field: str) -> Grammar:
    """Return the form of a JSON Schema, all of it."""
    return Grammar(f"start: {json_rule(schema)}", field=field)


def model_grammar(schema: Mapping[str, Any], *, field: str) -> Grammar:
    """Return the form of a schema whose instance is checked when it is read: what cannot be held is left to that."""
    anything = Grammar(f"start: {json_rule(_ANY_OBJECT)}", field=field)
    loose = Grammar(f"start: %json {_dump({**_closed(schema), 'x-guidance': _LOOSE})}", field=field, looser=anything)
    return Grammar(f"start: {json_rule(schema)}", field=field, looser=loose)


def object_grammar(*, field: str) -> Grammar:
    """Return the form of any JSON object."""
    return schema_grammar(_ANY_OBJECT, field=field)


def regex_grammar(pattern: str, *, field: str) -> Grammar:
    """Return the form of a text that a regular expression matches as a whole."""
    return Grammar(_plain_classes(pattern), "regex", field)


def choice_grammar(choices: Sequence[str], *, field: str) -> Grammar:
    """Return the form of one of several texts."""
    return Grammar("start: " + " | ".join(map(quoted, dict.fromkeys(choices))), field=field)


def json_rule(schema: Mapping[str, Any]) -> str:
    """Return what stands in a rule for a value of a schema."""
    return f"%json {_dump({**_closed(schema), 'x-guidance': _SPACING})}"


def quoted(text: str) -> str:
    """Return what stands in a rule for a text as it is."""
    return _dump(text)


def _dump(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except (TypeError, orjson.JSONEncodeError) as error:
        raise LLMInvalidRequestError(f"a form holds what has no JSON ({error}); pass plain values") from None


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema whose objects have the properties that it names, and no others."""
    closed: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "pattern" and isinstance(value, str):
            closed[name] = _plain_classes(value)
        elif name in _PLACES and isinstance(value, Mapping):
            named = cast("Mapping[str, Any]", value)
            closed[name] = {each: _inside(inner) for each, inner in named.items()}
        else:
            closed[name] = _inside(value) if name in _WITHIN else value
    if "properties" in closed and "allOf" not in closed:
        closed.setdefault("additionalProperties", bool(closed.get("patternProperties")))
    return closed


def _plain_classes(pattern: str) -> str:
    """Return a regular expression whose digits and word characters are those of ASCII, as JSON Schema has them."""
    return _CLASS.sub(_plain_class, pattern)


def _plain_class(found: re.Match[str]) -> str:
    text = found[0]
    if text[0] != "[":
        return f"[{_ASCII[text]}]" if text in _ASCII else text
    return _ESCAPE.sub(lambda escape: _ASCII.get(escape[0], escape[0]), text)


def _inside(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, Mapping):
        return _closed(cast("Mapping[str, Any]", value))
    if isinstance(value, list):
        return [_inside(each) for each in cast("list[object]", value)]
    return value
