"""Bodies in OpenAI's dialect → our values.

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import (
    AudioPart,
    DocumentPart,
    ImagePart,
    Message,
    MessageRole,
    Part,
    TextPart,
    ToolCall,
    signature_of,
)
from llm.core.types import LLMRequest, ToolDefinition

from .fields import (
    an_object,
    bytes_of,
    data_url,
    is_mapping,
    messages_of,
    objects,
    request_fields,
    text_of,
    wrong,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS: Final = {
    "model": "model",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "stop": "stop",
    "seed": "seed",
    "reasoning_effort": "reasoning_effort",
    "stream": "stream",
}
_READ: Final = {*_FIELDS, "messages", "tools", "tool_choice", "response_format", "stream_options"}


def read_request(body: Mapping[str, Any]) -> LLMRequest:
    """Return the request of a `/chat/completions` body.

    Fields without a name of ours go into `extra`, `user` and `metadata` among them: they are the upstream's.
    Whether a stream tells its usage concerns the form of the answer, and is the writer's.

    Raises:
        LLMInvalidRequestError: A field is missing or wrong; says which and what was expected.
    """
    fields = request_fields(body, _FIELDS)
    if (tools := body.get("tools")) is not None:
        fields["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(objects(tools, "tools"))]
    if (choice := body.get("tool_choice")) is not None:
        fields["tool_choice"] = _tool_choice(choice)
    if (form := body.get("response_format")) is not None:
        fields["response_format"] = _response_format(form)
    extra = {name: value for name, value in body.items() if name not in _READ}
    if options := _stream_options(body.get("stream_options")):
        extra["stream_options"] = options
    messages = tuple(_message(message, f"messages[{place}]") for place, message in enumerate(messages_of(body)))
    return LLMRequest(messages, extra=extra or None, **fields)


_PLAIN: Final = 2  # role and content
_ROLES: Final[Mapping[str, MessageRole]] = {role.value: role for role in MessageRole}


def _message(message: Mapping[str, Any], field: str) -> Message:
    role = message.get("role")
    known = _ROLES.get(role) if isinstance(role, str) else None
    if known is None:
        raise wrong(f"{field}.role", f"one of {', '.join(MessageRole)}")
    content = message.get("content")
    if len(message) == _PLAIN and isinstance(content, str):  # as nearly all are, in long conversations too
        return Message(known, content)
    calls = objects(message.get("tool_calls") or _before_tools(message), f"{field}.tool_calls")
    return Message(
        known,
        _said(message, field),
        name=message.get("name"),
        tool_calls=tuple(_tool_call(call, f"{field}.tool_calls[{place}]") for place, call in enumerate(calls)),
        tool_call_id=message.get("tool_call_id"),
    )


def _before_tools(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    call: object = message.get("function_call")
    return [] if call is None else [{"id": "", "function": call}]


def _said(message: Mapping[str, Any], field: str) -> str | tuple[Part, ...]:
    content = _content(message.get("content"), f"{field}.content")
    if (refusal := message.get("refusal")) is not None:
        parts = (TextPart(content),) if isinstance(content, str) and content else tuple(content or ())
        return (*parts, TextPart(text_of(refusal, f"{field}.refusal"), refusal=True))
    if message.get("audio") is not None and not content:
        raise wrong(f"{field}.content", "the transcript of the speech that audio names; its sound is not handed back")
    return content


def _content(content: object, field: str) -> str | tuple[Part, ...]:
    if content is None or isinstance(content, str):
        return content or ""
    return tuple(_part(part, f"{field}[{place}]") for place, part in enumerate(objects(content, field)))


def _part(part: Mapping[str, Any], field: str) -> Part:
    match part:
        case {"type": "text", "text": str(text)}:
            return TextPart(text)
        case {"type": "refusal", "refusal": str(text)}:
            return TextPart(text, refusal=True)
        case {"type": "image_url", "image_url": {"url": str(url), **rest}}:
            return _image(url, rest.get("detail"), field)
        case {"type": "input_audio", "input_audio": {"data": data, "format": str(kind)}}:
            return AudioPart(data=bytes_of(data, field), format=kind)
        case {"type": "file", "file": {"file_data": str(url), **rest}}:
            return _document(url, rest.get("filename"), field)
        case {"type": "file", "file": {"file_id": str(name)}}:
            return DocumentPart(file_id=name)
        case _:
            raise wrong(
                field, "a part of type text, refusal, image_url, input_audio or file (with file_data or file_id)"
            )


def _image(url: str, detail: object, field: str) -> ImagePart:
    shown = None if detail is None else text_of(detail, f"{field}.detail")
    inline = data_url(url, field)
    if inline is None:
        return ImagePart(url=url, detail=shown)
    return ImagePart(data=inline[1], media_type=inline[0], detail=shown)


def _document(url: str, title: object, field: str) -> DocumentPart:
    name = None if title is None else text_of(title, f"{field}.filename")
    inline = data_url(url, field)
    if inline is None:
        return DocumentPart(url=url, title=name)
    return DocumentPart(data=inline[1], media_type=inline[0], title=name)


def _tool_call(call: Mapping[str, Any], field: str) -> ToolCall:
    match call:
        case {"id": str(name), "function": {"name": str(function), "arguments": str(arguments)}}:
            return ToolCall(name, function, arguments, signature=signature_of(call))
        case {"id": str(name), "custom": {"name": str(tool), "input": str(text)}}:
            return ToolCall(name, tool, text, custom=True)
        case _:
            raise wrong(field, "an object with id, and function (name, arguments) or custom (name, input)")


_TOOL: Final = {"name", "description", "parameters", "strict"}


def _tool(tool: Mapping[str, Any], field: str) -> ToolDefinition | Mapping[str, Any]:
    function: object = tool.get("function")
    if set(tool) != {"type", "function"} or not is_mapping(function) or not set(function) <= _TOOL:
        return tool
    given = {name: value for name, value in function.items() if value is not None}
    return ToolDefinition(text_of(given.pop("name", None), f"{field}.function.name"), **given)


def _tool_choice(choice: object) -> str | Mapping[str, Any]:
    if isinstance(choice, str):
        return choice
    asked = an_object(choice, "tool_choice")
    match asked:
        case {"type": "function", "function": {"name": str(name)}}:
            return name
        case _:
            return asked


def _response_format(form: object) -> str | Mapping[str, Any]:
    asked = an_object(form, "response_format")
    kind: object = asked.get("type")
    return kind if isinstance(kind, str) and kind in {"text", "json_object"} else asked


def _stream_options(options: object) -> dict[str, Any]:
    if options is None:
        return {}
    given = an_object(options, "stream_options")
    return {name: value for name, value in given.items() if name != "include_usage"}


def wants_usage(body: Mapping[str, Any]) -> bool:
    """Return whether the body asks for the usage in a stream's last chunk."""
    options: object = body.get("stream_options")
    return is_mapping(options) and options.get("include_usage") is True


def model_of(body: Mapping[str, Any]) -> str:
    """Return the body's model.

    Raises:
        LLMInvalidRequestError: There is none.
    """
    model: object = body.get("model")
    if not isinstance(model, str) or not model:
        raise LLMInvalidRequestError("model: expected a model's name; you must give one", status=400)
    return model
