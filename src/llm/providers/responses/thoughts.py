"""A model's thoughts as items, and their place among what else it said.

A thought is a reasoning item: several texts under one id. It must come back in front of the item that it led to, or
the vendor refuses it.

Source: https://platform.openai.com/docs/guides/reasoning#keeping-reasoning-items-in-context
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from llm.core.messages import ThinkingPart
from llm.providers.wire import text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from llm.core.messages import ToolCall

Thought: TypeAlias = tuple[ThinkingPart, ...]
"""The parts of one reasoning item."""

LED_NOWHERE: Final = ""
"""`before` of a thought that the answer ends with; no tool call has this id."""


def in_order(
    thinking: Iterable[ThinkingPart], text: str, calls: tuple[ToolCall, ...]
) -> Iterator[Thought | str | ToolCall]:
    """Yield thoughts, text and tool calls of a turn in the order in which the model gave them.

    Thoughts that led to no call of the turn come first; an empty text is left out.
    """
    thoughts = [tuple(parts) for _, parts in groupby(thinking, key=lambda part: part.id or object())]
    called = {call.id for call in calls}
    yield from (thought for thought in thoughts if thought[-1].before not in called)
    if text:
        yield text
    for call in calls:
        yield from (thought for thought in thoughts if thought[-1].before == call.id)
        yield call


def write_thought(thought: Thought, name: str, *, summary: bool) -> dict[str, Any]:
    """Return the item of a thought under the id `name`: its texts as its summary, or as the thought itself."""
    texts = [part.text for part in thought if part.text]
    if not summary:
        content = [{"type": "reasoning_text", "text": text} for text in texts]
        return {"type": "reasoning", "id": name, "summary": [], "content": content}
    told = [{"type": "summary_text", "text": text} for text in texts]
    return {"type": "reasoning", "id": name, "summary": told, "encrypted_content": thought[-1].redacted}


def read_thought(item: Mapping[str, Any], before: str | None) -> Thought:
    """Return the parts of a reasoning item; none where it says nothing.

    Raises:
        KeyError, TypeError, AttributeError: It makes no sense.
    """
    name = text_of(item.get("id")) or None
    encrypted = text_of(item.get("encrypted_content")) or None
    texts = texts_of(item)
    if not texts and encrypted is None:
        return ()
    *first, last = texts or [""]
    return (*(ThinkingPart(text, id=name) for text in first), ThinkingPart(last, None, encrypted, name, before))


def texts_of(item: Mapping[str, Any]) -> list[str]:
    """Return the texts of a reasoning item, its summary's first.

    Raises:
        KeyError, TypeError, AttributeError: It makes no sense.
    """
    return [text_of(part["text"]) for field in ("summary", "content") for part in item.get(field) or ()]


def led_to(item: Mapping[str, Any]) -> str | None:
    """Return `before` of a thought that this item follows: a call's id, None for text, else a name no call has.

    Raises:
        KeyError, TypeError: It makes no sense.
    """
    kind = item["type"]
    if kind in {"function_call", "custom_tool_call"}:
        return text_of(item["call_id"])
    return None if kind in {"message", "reasoning"} else LED_NOWHERE
