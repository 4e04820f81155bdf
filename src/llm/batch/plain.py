"""Bodies as callers write them, with our values in them → JSON and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import orjson

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import Message, read_messages
from llm.core.types import LLMRequest, ToolDefinition
from llm.providers.openai.body import Flavor, body_of

if TYPE_CHECKING:
    from llm.core.messages import MessagesLike

_FLAVOR: Final = Flavor(developer=True, refusals=True, document_url=True)


def written_turns(messages: MessagesLike) -> list[Any]:
    """Return messages in OpenAI's form; where all are mappings in it, they stay as they are.

    Raises:
        LLMInvalidRequestError: One is no message; says which and why.
    """
    given = cast("object", messages)
    if isinstance(given, (str, Message, Mapping)) or not isinstance(given, Iterable):
        return _written(messages)
    turns = list(cast("Iterable[object]", given))
    return _written(cast("MessagesLike", turns)) if any(map(_is_ours, turns)) else turns


def _is_ours(turn: object) -> bool:
    if not isinstance(turn, Mapping):
        return isinstance(turn, Message)
    parts = cast("Mapping[str, object]", turn).get("content")
    return isinstance(parts, (list, tuple)) and any(
        not isinstance(part, (Mapping, str)) for part in cast("Sequence[object]", parts)
    )


def _written(messages: MessagesLike) -> list[Any]:
    request = LLMRequest(read_messages(messages), model="any")
    return cast("list[Any]", body_of(request, _FLAVOR, stream=False)["messages"])


def as_json(body: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
    """Return a copy of a body, as JSON text and as what that says.

    Raises:
        LLMInvalidRequestError: A field cannot be written as JSON; names it.
    """
    try:
        return _copied(body)
    except (TypeError, ValueError, RecursionError) as error:
        field, why = next(filter(None, (_fault(field, body[field]) for field in body)), ("body", error))
        said = f"{field}: cannot be written as JSON: {why}; pass texts, numbers, lists and mappings"
        raise LLMInvalidRequestError(said) from None


def _fault(field: str, value: object) -> tuple[str, Exception] | None:
    try:
        _copied({field: value})
    except (TypeError, ValueError, RecursionError) as error:
        return field, error
    return None


def _copied(body: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
    text = json.dumps(dict(body), allow_nan=False, default=_plain)
    return text, orjson.loads(text)


def _plain(value: object) -> object:
    if isinstance(value, ToolDefinition):
        request = LLMRequest("any", model="any", tools=[value])
        return body_of(request, _FLAVOR, stream=False)["tools"][0]
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, object]", value))
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return list(cast("Sequence[object]", value))
    raise TypeError(f"a {type(value).__name__} is no JSON")
