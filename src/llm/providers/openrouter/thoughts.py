"""Thoughts with all that must go back with them in the next turn.

OpenRouter tells them as text for people and as `reasoning_details` for the model behind it, which wants them back as
they came. Of an answer we make one `ThinkingPart`: its text is the text, its `details` the JSON of them all.

Source: https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from llm.core.exceptions import LLMInvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm.core.messages import ThinkingPart

_TEXTS: Final = ("text", "summary", "data")
_ANTHROPIC: Final = "anthropic-claude-v1"


def seal(details: list[dict[str, Any]]) -> str:
    """Return the details as a `ThinkingPart` keeps them."""
    return orjson.dumps(details).decode()


def text_in(details: list[dict[str, Any]]) -> str:
    """Return what people may read of the details."""
    return "".join([str(detail.get("text") or detail.get("summary") or "") for detail in details])


def details_of(given: object) -> list[dict[str, Any]]:
    """Return the details that an answer, or a piece of one, holds.

    Raises:
        TypeError: They are no list of objects.
    """
    if given is None:
        return []
    if isinstance(given, list) and all(type(detail) is dict for detail in cast("list[object]", given)):
        return cast("list[dict[str, Any]]", given)
    raise TypeError("expected a list of objects")


def add(details: list[dict[str, Any]], piece: dict[str, Any]) -> None:
    """Join a piece from a stream to the detail that it goes on with, or begin another."""
    last = details[-1] if details else None
    if last is None or not _goes_on(piece, last):
        details.append(dict(piece))
        return
    for name, value in piece.items():
        if name in _TEXTS and isinstance(value, str):
            last[name] = (last.get(name) or "") + value
        elif value is not None:
            last[name] = value


def _goes_on(piece: dict[str, Any], last: dict[str, Any]) -> bool:
    if (last.get("type"), last.get("index")) != (piece.get("type"), piece.get("index")):
        return False
    # Of several calls each may have a record of its own, under the call's id, in one place.
    name, before = piece.get("id"), last.get("id")
    return name is None or before is None or name == before


def thoughts_as_fields(thoughts: Iterable[ThinkingPart]) -> dict[str, Any]:
    """Return the fields of an assistant's turn that give its thoughts back.

    Raises:
        LLMInvalidRequestError: The record of a thought is none.
    """
    details: list[dict[str, Any]] = []
    plain: list[str] = []
    for thought in thoughts:
        if thought.details is not None:
            details += _unsealed(thought.details)
        elif thought.redacted is not None:
            details.append({"type": "reasoning.encrypted", "data": thought.redacted, "format": _ANTHROPIC})
        elif thought.signature is not None:
            text, signature = thought.text, thought.signature
            details.append({"type": "reasoning.text", "text": text, "signature": signature, "format": _ANTHROPIC})
        elif thought.text:
            plain.append(thought.text)
    return ({"reasoning": "".join(plain)} if plain else {}) | ({"reasoning_details": details} if details else {})


def _unsealed(kept: str) -> list[dict[str, Any]]:
    try:
        return details_of(orjson.loads(kept))
    except (orjson.JSONDecodeError, TypeError):
        pass
    raise LLMInvalidRequestError(
        "details of a ThinkingPart are not what OpenRouter gave with its answer; hand the part back as it came"
    )
