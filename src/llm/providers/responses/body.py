"""A request as the body of a response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, assert_never, cast

from llm.core.exceptions import LLMInvalidRequestError
from llm.core.messages import AudioPart, DocumentPart, ImagePart, MessageRole, TextPart, ThinkingPart, ToolCall
from llm.core.types import ToolDefinition
from llm.core.vendor import CachePoint, VendorPart
from llm.providers.wire import data_url, dump, model_of

from .thoughts import in_order, write_thought

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llm.core.messages import Message
    from llm.core.types import LLMRequest

ENCRYPTED: Final = "reasoning.encrypted_content"


def write_body(request: LLMRequest, *, own: bool, stream: bool) -> bytes:
    """Return the JSON of a request; `own`: for OpenAI's host, which takes thoughts back in their encrypted form only.

    Raises:
        LLMInvalidRequestError: It cannot be expressed; names the field.
    """
    if request.stop is not None:
        raise LLMInvalidRequestError(
            "stop is not known to the Responses API; leave it out, or set `api: chat_completions` for the provider"
        )
    body: dict[str, Any] = {
        "model": model_of(request),
        "input": _input(request.messages, own=own),
        "store": False,
    }
    if _thinks(request):
        body["include"] = [ENCRYPTED]
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.max_tokens is not None:
        body["max_output_tokens"] = request.max_tokens
    if request.reasoning_effort is not None:
        body["reasoning"] = {"effort": request.reasoning_effort}
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    _put_tools(body, request)
    if stream:
        body["stream"] = True
    if request.extra:
        _put_extra(body, request.extra)
    return dump(body)


# A model that does not think answers 400 where it is asked for encrypted thoughts.
_THINKERS: Final = re.compile(r"(?:ft:)?(?:o\d|gpt-[5-9]|gpt-oss|codex|computer-use)(?!.*-chat)")


def _thinks(request: LLMRequest) -> bool:
    return (
        request.reasoning_effort is not None
        or _THINKERS.match(request.model or "") is not None
        or (request.extra is not None and "reasoning" in request.extra)
    )


def _put_extra(body: dict[str, Any], extra: Mapping[str, Any]) -> None:
    for name, value in extra.items():
        if name in {"reasoning", "text"} and name in body and isinstance(value, Mapping):
            body[name] = {**body[name], **value}
        elif name == "include" and value and name in body and isinstance(value, (list, tuple)):
            body[name] = list(dict.fromkeys([*body[name], *cast("Sequence[object]", value)]))  # thoughts are kept
        else:
            body[name] = value


def _format(wanted: str | Mapping[str, Any]) -> Mapping[str, Any]:
    match wanted:
        case str(kind):
            return {"type": kind}
        case {"type": "json_schema", "json_schema": {} as named}:
            return _joined("json_schema", named)
        case _:
            return wanted


def _joined(kind: str, fields: Mapping[Any, Any]) -> dict[str, Any]:
    # Chat completions put these fields one level deeper, under the kind's name.
    return {"type": kind, **fields}


def _put_tools(body: dict[str, Any], request: LLMRequest) -> None:
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    match request.tool_choice:
        case None:
            pass
        case "auto" | "none" | "required" as choice:
            body["tool_choice"] = choice
        case str(name) | {"type": "function", "function": {"name": str(name)}}:
            body["tool_choice"] = {"type": "function", "name": name}
        case {"type": "custom", "custom": {"name": str(name)}}:
            body["tool_choice"] = {"type": "custom", "name": name}
        case own:
            body["tool_choice"] = own


def _tool(tool: ToolDefinition | Mapping[str, Any]) -> Mapping[str, Any]:
    match tool:
        case ToolDefinition():
            wire: dict[str, Any] = {"type": "function", "name": tool.name, "parameters": tool.parameters}
            if tool.description:
                wire["description"] = tool.description
            if tool.strict is not None:
                wire["strict"] = tool.strict
            return wire
        case {"type": "function", "function": {} as function}:
            return _joined("function", function)
        case {"type": "custom", "custom": {} as custom}:
            return _custom(custom)
        case _:
            return tool


def _custom(fields: Mapping[Any, Any]) -> Mapping[str, Any]:
    match fields.get("format"):
        case {"type": "grammar", "grammar": {} as grammar}:
            return {**_joined("custom", fields), "format": _joined("grammar", grammar)}
        case _:
            return _joined("custom", fields)


def _input(messages: Sequence[Message], *, own: bool) -> list[dict[str, Any]]:
    custom = {call.id for message in messages for call in message.tool_calls if call.custom}
    items = [item for at, message in enumerate(messages) for item in _items(message, at, own=own)]
    for item in items if custom else ():
        if item.get("type") == "function_call_output" and item["call_id"] in custom:
            item["type"] = "custom_tool_call_output"
    return items


def _items(message: Message, at: int, *, own: bool) -> Iterator[dict[str, Any]]:
    role = message.role
    if role is MessageRole.ASSISTANT:
        yield from _assistant(message, at, own=own)
    elif role is not MessageRole.TOOL:
        yield {"role": role.value, "content": _content(message, at)}
    elif message.tool_call_id:
        yield {"type": "function_call_output", "call_id": message.tool_call_id, "output": _content(message, at)}
    else:
        raise LLMInvalidRequestError(f"messages[{at}] is a tool's turn without tool_call_id; name the call it answers")


def _assistant(message: Message, at: int, *, own: bool) -> Iterator[dict[str, Any]]:
    parts = () if isinstance(message.content, str) else message.content
    if any(not isinstance(part, TextPart | ThinkingPart | CachePoint) for part in parts):
        raise LLMInvalidRequestError(
            f"messages[{at}] is an assistant's turn with more than text; move it to a user's turn"
        )
    text, calls = message.text, message.tool_calls
    if not (text or calls):
        yield {"role": "assistant", "content": ""}
        return
    led_here = {None, *(call.id for call in calls)}
    for said in in_order([part for part in parts if isinstance(part, ThinkingPart)], text, calls):
        if isinstance(said, str):
            yield {"role": "assistant", "content": said}
        elif isinstance(said, ToolCall):
            yield _call(said)
        elif said[0].id and said[-1].before in led_here and (said[-1].redacted is not None or not own):
            yield write_thought(said, said[0].id, summary=said[-1].redacted is not None)


def _call(call: ToolCall) -> dict[str, Any]:
    kind, field = ("custom_tool_call", "input") if call.custom else ("function_call", "arguments")
    return {"type": kind, "call_id": call.id, "name": call.name, field: call.arguments}


def _content(message: Message, at: int) -> str | list[dict[str, Any]]:
    content = message.content
    if isinstance(content, str):
        return content
    spoken = [part for part in content if not isinstance(part, (ThinkingPart, CachePoint))]
    if message.role is not MessageRole.USER and all(isinstance(part, TextPart) for part in spoken):
        return message.text
    return [_part(part, at) for part in spoken]


def _part(part: TextPart | ImagePart | DocumentPart | AudioPart | VendorPart, at: int) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            return _image(part)
        case DocumentPart():
            return {"type": "input_file", **_file(part)}
        case AudioPart():
            raise LLMInvalidRequestError(
                f"messages[{at}] has audio, which the Responses API does not take; pass a transcript, or set "
                "`api: chat_completions` for the provider"
            )
        case VendorPart():
            return dict(part.block)
    assert_never(part)


def _image(part: ImagePart) -> dict[str, Any]:
    url = part.url if part.data is None else data_url(part.data, part.media_type)
    source = {"image_url": url} if part.file_id is None else {"file_id": part.file_id}
    image: dict[str, Any] = {"type": "input_image", **source}
    if part.detail is not None:
        image["detail"] = part.detail
    return image


def _file(part: DocumentPart) -> dict[str, Any]:
    if part.file_id is not None:
        return {"file_id": part.file_id}
    if part.url is not None and not part.url.startswith("data:"):
        return {"file_url": part.url}
    data = part.url if part.data is None else data_url(part.data, part.media_type)
    return {"filename": part.title or "document", "file_data": data}
