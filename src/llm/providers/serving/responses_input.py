"""The items of a Responses API body → our turns.

Source: https://platform.openai.com/docs/api-reference/responses/create#responses-create-input
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llm.core.messages import DocumentPart, ImagePart, Message, MessageRole, TextPart, ToolCall
from llm.providers.responses.thoughts import LED_NOWHERE, read_thought

from .fields import data_url, objects, text_of, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llm.core.messages import Part, ThinkingPart


def read_input(body: Mapping[str, Any]) -> Iterator[Message]:
    """Yield the turns of a body's `instructions` and `input`.

    Raises:
        LLMInvalidRequestError: An item is missing or wrong; says which and what was expected.
    """
    if (instructions := body.get("instructions")) is not None:
        yield Message(MessageRole.SYSTEM, text_of(instructions, "instructions"))
    given: object = body.get("input")
    if isinstance(given, str):
        yield Message(MessageRole.USER, given)
        return
    items = objects(given, "input")
    if not items:
        raise wrong("input", "text, or one item or more")
    turn = _Turn()
    for place, item in enumerate(items):
        field = f"input[{place}]"
        if _is_the_models(item):
            yield from turn.add(item, field)
        else:
            yield from turn.close()
            yield _message(item, field)
    yield from turn.close()


def _is_the_models(item: Mapping[str, Any]) -> bool:
    return item.get("type") in ("reasoning", "function_call") or item.get("role") == "assistant"


class _Turn:
    """A turn of the assistant, as its items come."""

    def __init__(self) -> None:
        self._text: str | None = None
        self._calls: list[ToolCall] = []
        self._thoughts: list[ThinkingPart] = []
        self._waiting: list[tuple[Mapping[str, Any], str]] = []  # reasoning items, until it is known what they led to

    def add(self, item: Mapping[str, Any], field: str) -> Iterator[Message]:
        """Take an item, and yield the turn before where this one begins another."""
        match item:
            case {"type": "reasoning"}:
                self._waiting.append((item, field))
            case {"type": "function_call", "call_id": str(name), "name": str(tool), "arguments": str(arguments)}:
                self._think(name)
                self._calls.append(ToolCall(name, tool, arguments))
            case {"role": "assistant", "content": content}:
                if self._text is not None or self._calls:
                    waiting, self._waiting = self._waiting, []
                    yield from self.close()
                    self._waiting = waiting
                self._think(None)
                self._text = _said(content, f"{field}.content")
            case _:
                raise wrong(field, "a message with content, a function_call (call_id, name, arguments) or reasoning")

    def close(self) -> Iterator[Message]:
        """Yield the turn, if there is one, and begin anew."""
        self._think(LED_NOWHERE)
        if self._text is not None or self._calls or self._thoughts:
            text, thoughts = self._text or "", self._thoughts
            parts: tuple[Part, ...] = (*thoughts, TextPart(text)) if text else tuple(thoughts)
            yield Message(MessageRole.ASSISTANT, parts if thoughts else text, tool_calls=tuple(self._calls))
        self._text, self._calls, self._thoughts = None, [], []

    def _think(self, before: str | None) -> None:
        for item, field in self._waiting:
            try:
                self._thoughts += read_thought(item, before)
            except (KeyError, TypeError, AttributeError):
                raise wrong(field, "a reasoning item as it was given, with id and summary") from None
        self._waiting = []


def _said(content: object, field: str) -> str:
    if isinstance(content, str):
        return content
    texts: list[str] = []
    for place, part in enumerate(objects(content, field)):
        match part:
            case {"type": "output_text" | "input_text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
                texts.append(text)
            case _:
                raise wrong(f"{field}[{place}]", "a part of type output_text or refusal")
    return "".join(texts)


def _message(item: Mapping[str, Any], field: str) -> Message:
    match item:
        case {"role": "user" | "system" | "developer" as role, "content": content}:
            return Message(MessageRole(role), _content(content, f"{field}.content"))
        case {"type": "function_call_output", "call_id": str(name), "output": output}:
            return Message(MessageRole.TOOL, _content(output, f"{field}.output"), tool_call_id=name)
        case _:
            raise wrong(field, "a message (role, content), function_call, function_call_output or reasoning")


def _content(content: object, field: str) -> str | tuple[Part, ...]:
    if isinstance(content, str):
        return content
    return tuple(_part(part, f"{field}[{place}]") for place, part in enumerate(objects(content, field)))


def _part(part: Mapping[str, Any], field: str) -> Part:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)}:
            return TextPart(text)
        case {"type": "input_image", "file_id": str(name), **rest}:
            return ImagePart(file_id=name, detail=_text_or_none(rest.get("detail"), f"{field}.detail"))
        case {"type": "input_image", "image_url": str(url), **rest}:
            return ImagePart(**_source(url, field), detail=_text_or_none(rest.get("detail"), f"{field}.detail"))
        case {"type": "input_file", "file_data": str(url), **rest}:
            return DocumentPart(**_source(url, field), title=_text_or_none(rest.get("filename"), f"{field}.filename"))
        case {"type": "input_file", "file_url": str(url)}:
            return DocumentPart(url=url)
        case {"type": "input_file", "file_id": str(name)}:
            return DocumentPart(file_id=name)
        case _:
            raise wrong(field, "a part of type input_text, input_image or input_file")


def _source(url: str, field: str) -> dict[str, Any]:
    inline = data_url(url, field)
    return {"url": url} if inline is None else {"data": inline[1], "media_type": inline[0]}


def _text_or_none(value: object, field: str) -> str | None:
    return None if value is None else text_of(value, field)
